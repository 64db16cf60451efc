//! How the examples end: a failure is one sentence and a non-zero exit code.

use std::process::ExitCode;

/// Ends the example `name` with what came of it.
pub(crate) fn end(name: &str, outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("\n{name}: {sentence}");
            ExitCode::FAILURE
        }
    }
}
