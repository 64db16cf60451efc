//! The page codecs of pnode against C lz4 and C zstd.
//!
//! ```text
//! cargo run --release --manifest-path benches/codecs/Cargo.toml -- [--live DIR] [--json FILE] [--rounds N]
//!                                                                  [--page BYTES] [--only TEXT]
//!                                                                  [--take median|least] [--kinds TEXT]
//! ```
//!
//! Synthetic kinds are generated; `--live DIR` adds every `DIR/*.pages` that is not synthetic. Same-filled pages are
//! taken out, as a store never hands them to a codec. Figures are ratios to C lz4's default in the same round.

mod measure;
mod peers;
mod report;
#[path = "../../../crates/pnode-compress/tests/support/synth.rs"]
mod synth;

use measure::{Corpus, Take};
use pnode_compress::codec::same_filled;

struct Options {
    live: Option<String>,
    json: Option<String>,
    rounds: usize,
    take: Take,
    page: usize,
    only: String,
    kinds: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    let mut codecs = peers::all();
    codecs.retain(|c| c.name() == "c lz4" || c.name().contains(&options.only));
    let mut results = vec![];
    for corpus in corpora(&options)? {
        let figures = measure::run(&corpus, &mut codecs, options.rounds, options.take, options.page);
        results.push((corpus, figures));
    }
    let names: Vec<String> = codecs.iter().map(|c| c.name()).collect();
    report::print(&names, &results, options.page);
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&names, &results, options.page))?;
    }
    Ok(())
}

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options {
        live: None,
        json: None,
        rounds: 5,
        take: Take::Median,
        page: 4096,
        only: String::new(),
        kinds: String::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} wants a value"))?;
        match arg.as_str() {
            "--live" => options.live = Some(value),
            "--json" => options.json = Some(value),
            "--rounds" => options.rounds = value.parse()?,
            "--take" if value == "median" => options.take = Take::Median,
            "--take" if value == "least" => options.take = Take::Least,
            "--page" => options.page = value.parse()?,
            "--only" => options.only = value,
            "--kinds" => options.kinds = value,
            _ => return Err(format!("unknown option {arg}: see the head of main.rs").into()),
        }
    }
    Ok(options)
}

fn corpora(options: &Options) -> Result<Vec<Corpus>, Box<dyn std::error::Error>> {
    let synthetic = synth::KINDS.iter().map(|kind| (format!("synth_{kind}"), synth::corpus(kind, 512)));
    let mut all: Vec<(String, Vec<u8>)> = synthetic.collect();
    if let Some(dir) = &options.live {
        let mut paths: Vec<_> =
            std::fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "pages")) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with("synth_") {
                all.push((name, std::fs::read(path)?));
            }
        }
    }
    let mut corpora = vec![];
    for (name, all) in all.into_iter().filter(|(name, _)| name.contains(&options.kinds)) {
        let (same, bytes): (Vec<_>, Vec<_>) =
            all.chunks_exact(options.page).partition(|page| same_filled(page).is_some());
        if !bytes.is_empty() {
            corpora.push(Corpus { name, bytes: bytes.concat(), same_filled: same.len() });
        }
    }
    Ok(corpora)
}
