//! Makes `benches/REPORT.md` and its pictures of the JSON files that the benches write.
//!
//!     cargo run --release --manifest-path benches/frames/Cargo.toml -- --json frames.json
//!     cargo run --release --manifest-path benches/codecs/Cargo.toml -- [--live DIR] --json codecs.json
//!     cargo run --release --manifest-path benches/report/Cargo.toml -- --frames frames.json --codecs codecs.json --out benches

mod codecs;
mod frames;
mod svg;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::{env, fs};

use serde_json::Value;

const HELP: &str = "\
Makes REPORT.md and its pictures of what the benches wrote.

usage: pnode-bench-report --frames FILE --codecs FILE --out DIR

  --frames FILE   what `benches/frames` wrote with --json
  --codecs FILE   what `benches/codecs` wrote with --json
  --out DIR       where REPORT.md and its pictures go
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), String> {
    let (mut frames, mut codecs, mut out) = (None, None, None);
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--help" {
            print!("{HELP}");
            return Ok(());
        }
        let value = words.next().ok_or(format!("{word} wants a value; see --help"))?;
        match word.as_str() {
            "--frames" => frames = Some(read(&value)?),
            "--codecs" => codecs = Some(read(&value)?),
            "--out" => out = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {word}; see --help")),
        }
    }
    let (Some(frames), Some(codecs), Some(out)) = (frames, codecs, out) else {
        return Err("--frames, --codecs and --out are all needed; see --help".into());
    };
    let mut text = String::from("# Benchmark report\n\n");
    let _ = writeln!(
        text,
        "Made by `benches/report` on {}, {}. Timings are of a shared machine: compare within a table, never between runs; \
         counts of instructions (`cargo bench --bench gate`, `--bench hot`) do not depend on it. How each figure is made is in \
         [TESTING.md](../TESTING.md#reproducing-each-figure).\n",
        date(),
        machine()
    );
    frames::report(&frames, &mut text)?;
    codecs::report(&codecs, &mut text)?;
    let write = |name: &str, text: String| {
        let path = out.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write("REPORT.md", text)?;
    write("frames.svg", frames::picture(&frames)?)?;
    write("codecs-in.svg", codecs::picture(&codecs, codecs::Direction::In)?)?;
    write("codecs-out.svg", codecs::picture(&codecs, codecs::Direction::Out)?)
}

fn read(path: &str) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))
}

fn date() -> String {
    let said = Command::new("date").arg("+%Y-%m-%d").output();
    said.map_or_else(|_| "an unknown day".into(), |said| String::from_utf8_lossy(&said.stdout).trim().into())
}

/// The processor, how many of it, and the kernel.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The version alone: what follows it names a builder.
    let version = kernel.trim().split('-').next().unwrap_or_default();
    format!("{cores} CPUs of {model}, Linux {version}")
}
