//! Tables for people and JSON for machines.

use crate::measure::{Corpus, Figures};

/// Speeds and ratio of one codec on one corpus, relative to the yardstick.
struct Relative {
    encode: f64,
    decode: f64,
    ratio: f64,
}

fn relative(figures: &[Figures], codec: usize) -> Relative {
    let (yardstick, figures) = (&figures[0], &figures[codec]);
    Relative {
        encode: yardstick.encode / figures.encode,
        decode: yardstick.decode / figures.decode,
        ratio: yardstick.bytes as f64 / figures.bytes as f64,
    }
}

/// Kinds whose pages a yardstick of LZ77 keeps raw: their decode is a copy and their encode an early exit.
fn is_raw(corpus: &Corpus, figures: &[Figures], page: usize) -> bool {
    figures[0].raw * page * 2 > corpus.bytes.len()
}

/// Prints one table a codec, and a summary.
pub fn print(names: &[String], results: &[(Corpus, Vec<Figures>)], page: usize) {
    let (lz4, zstd) = crate::peers::versions();
    println!(
        "c lz4 {lz4}, c zstd {zstd}, pages of {page} bytes; thread CPU time, relative to {}",
        names[0]
    );
    for (codec, name) in names.iter().enumerate() {
        println!(
            "\n{name:<18} {:>9} {:>9} {:>8} {:>6} {:>7} {:>7} {:>7}",
            "GB/s in", "GB/s out", "ratio", "raw %", "in x", "out x", "ratio x"
        );
        for (corpus, figures) in results {
            let (bytes, f, r) = (corpus.bytes.len() as f64, &figures[codec], relative(figures, codec));
            println!(
                "  {:<16} {:>9.3} {:>9.3} {:>8.3} {:>6.1} {:>7.3} {:>7.3} {:>7.3}",
                corpus.name,
                bytes / f.encode * 1e-9,
                bytes / f.decode * 1e-9,
                bytes / f.bytes as f64,
                100.0 * (f.raw * page) as f64 / bytes,
                r.encode,
                r.decode,
                r.ratio
            );
        }
    }
    println!(
        "\nGeometric mean (worst kind) over kinds that {} shrinks; the ratio is of total bytes",
        names[0]
    );
    println!("{:<18} {:>32} {:>32} {:>32}", "", "in x", "out x", "ratio x");
    for (group, live) in [("synth", false), ("live", true)] {
        let of_group = || {
            results.iter().filter(move |(c, f)| c.name.starts_with("synth_") != live && !is_raw(c, f, page))
        };
        if of_group().next().is_none() {
            continue;
        }
        for (codec, name) in names.iter().enumerate() {
            let column = |value: fn(&Relative) -> f64| {
                let values = || of_group().map(|(c, f)| (value(&relative(f, codec)), &c.name));
                let mean = (values().map(|v| v.0.ln()).sum::<f64>() / values().count() as f64).exp();
                let worst = values().min_by(|a, b| a.0.total_cmp(&b.0)).expect("a kind");
                (mean, format!("({:.3} {})", worst.0, worst.1))
            };
            let total = |i: usize| of_group().map(|(_, f)| f[i].bytes).sum::<usize>() as f64;
            let ((encode, e), (decode, d), (_, r)) =
                (column(|r| r.encode), column(|r| r.decode), column(|r| r.ratio));
            let ratio = total(0) / total(codec);
            println!(
                "{name:<12} {group:<5} {encode:>10.3} {e:<21} {decode:>10.3} {d:<21} {ratio:>10.3} {r:<21}"
            );
        }
    }
}

/// All figures as one JSON document.
pub fn json(names: &[String], results: &[(Corpus, Vec<Figures>)], page: usize) -> String {
    let (lz4, zstd) = crate::peers::versions();
    let mut rows = vec![];
    for (corpus, figures) in results {
        for (codec, name) in names.iter().enumerate() {
            let (f, r) = (&figures[codec], relative(figures, codec));
            rows.push(format!(
                "{{\"kind\":\"{}\",\"codec\":\"{name}\",\"pages\":{},\"same_filled_left_out\":{},\"raw_pages\":{},\
                 \"bytes\":{},\"encode_seconds\":{:.6},\"decode_seconds\":{:.6},\"encode_vs_c_lz4\":{:.4},\
                 \"decode_vs_c_lz4\":{:.4},\"ratio_vs_c_lz4\":{:.4}}}",
                corpus.name,
                corpus.bytes.len() / page,
                corpus.same_filled,
                f.raw,
                f.bytes,
                f.encode,
                f.decode,
                r.encode,
                r.decode,
                r.ratio
            ));
        }
    }
    format!(
        "{{\"c_lz4\":\"{lz4}\",\"c_zstd\":\"{zstd}\",\"page\":{page},\"clock\":\"thread cpu\",\"results\":[\n{}\n]}}\n",
        rows.join(",\n")
    )
}
