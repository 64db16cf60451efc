//! The command line that the small examples share: `--help`, and `--svg FILE` where there is a picture.

use std::path::PathBuf;
use std::process::ExitCode;

/// Runs an example: prints its help, or calls `run` with the file that a picture is to be written to. A failure is one
/// sentence and a non-zero exit code.
pub(crate) fn main(
    name: &str,
    help: &str,
    run: impl FnOnce(Option<PathBuf>) -> Result<(), String>,
) -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let mut svg = None;
    let mut outcome = Ok(());
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => {
                println!("{help}\n\nusage: {name} [--svg FILE] [--help]");
                return ExitCode::SUCCESS;
            }
            Some("--svg") => match arguments.next() {
                Some(file) => svg = Some(PathBuf::from(file)),
                None => outcome = Err("--svg needs a file name; see --help".into()),
            },
            _ => outcome = Err(format!("{} is no option; see --help", argument.to_string_lossy())),
        }
    }
    match outcome.and_then(|()| run(svg)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("\n{name}: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Any error as the sentence that it prints as.
pub(crate) fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Fails with `sentence` unless `holds`.
pub(crate) fn ensure(holds: bool, sentence: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(sentence.into()) }
}

/// Writes the occupancy of `machine` to `svg`, if there is a file to write to.
pub(crate) fn draw(machine: &pnode::user::Machine, title: &str, svg: Option<&PathBuf>) -> Result<(), String> {
    let Some(file) = svg else { return Ok(()) };
    std::fs::write(file, machine.occupancy().to_svg(title))
        .map_err(|error| format!("the picture cannot be written to {} ({error})", file.display()))?;
    println!("picture: {}", file.display());
    Ok(())
}
