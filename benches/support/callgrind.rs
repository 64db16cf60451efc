//! Counts by callgrind (of valgrind): on a shared machine the only stable figures.

use std::process::{Command, ExitCode};

/// What callgrind counted for one repetition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) instructions: f64,
    /// Locked bus accesses: atomic read-modify-writes.
    pub(crate) atomic_writes: f64,
}

/// What one repetition of `path` costs: the difference of a longer and a shorter run of this program with the arguments
/// `--repeat`, those of the path, and how often.
pub(crate) fn count(path: &[&str]) -> Result<Count, String> {
    const SHORT: u32 = 100;
    const LONG: u32 = 1_100;
    let (short, long) = (run(path, SHORT)?, run(path, LONG)?);
    let each = |event: usize| (long[event] as f64 - short[event] as f64) / f64::from(LONG - SHORT);
    Ok(Count { instructions: each(0), atomic_writes: each(1) })
}

/// The events of one run under callgrind: instructions (Ir) and locked bus accesses (Ge).
fn run(path: &[&str], times: u32) -> Result<Vec<u64>, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-bus=yes", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .arg("--repeat")
        .args(path)
        .arg(times.to_string())
        .output()
        .map_err(|error| format!("valgrind does not start: {error}; install it"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| line.split_once("Collected :"))
        .map(|(_, counts)| counts.split_whitespace().filter_map(|count| count.parse().ok()).collect())
        .filter(|counts: &Vec<u64>| counts.len() == 2 && output.status.success())
        .ok_or_else(|| format!("callgrind counted nothing for {path:?}: {text}"))
}

/// Runs `report`, which prints counts and says which limits they break, if this program was started to measure and not
/// to test. Without valgrind it says so.
pub(crate) fn judge(report: impl FnOnce() -> Result<Vec<String>, String>) -> ExitCode {
    let given = |flag: &str| std::env::args().any(|argument| argument == flag);
    if !given("--bench") || given("--test") {
        return ExitCode::SUCCESS;
    }
    match report() {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            broken.iter().for_each(|limit| eprintln!("error: {limit}"));
            ExitCode::FAILURE
        }
        Err(reason) => {
            println!("SKIPPED counting instructions: {reason}");
            ExitCode::SUCCESS
        }
    }
}
