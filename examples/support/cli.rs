//! The command line that the small examples share: `--help`, `--machine FILE`, `--svg FILE` for a picture, and `--trace FILE`
//! for what happened.

use core::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

#[path = "ending.rs"]
pub(crate) mod ending;
#[allow(dead_code, reason = "the examples share it, and each uses a part")]
pub(crate) mod machine;

use machine::Described;
use pnode::user::Machine;

/// What the command line asks for.
pub(crate) struct Options {
    /// The file that a picture is to be written to.
    pub(crate) svg: Option<PathBuf>,
    /// The file that the events of the machine are to be written to.
    pub(crate) trace: Option<PathBuf>,
    /// The machine to run on.
    pub(crate) machine: Described,
}

/// Runs an example: prints its help, or calls `run`. `own` describes the machine that it runs on if the command line
/// names none. A failure is one sentence and a non-zero exit code.
pub(crate) fn main(
    name: &str,
    help: &str,
    own: &str,
    run: impl FnOnce(&Options) -> Result<(), String>,
) -> ExitCode {
    let outcome = match parse(own) {
        Ok(None) => {
            println!("{help}\n\nIts machine, unless --machine names another one:\n");
            own.lines().for_each(|line| println!("  {line}"));
            println!("\nusage: {name} [--machine FILE] [--svg FILE] [--trace FILE] [--help]");
            Ok(())
        }
        Ok(Some(options)) => run(&options),
        Err(sentence) => Err(sentence),
    };
    ending::end(name, outcome)
}

/// The command line; `None` if help is wanted.
fn parse(own: &str) -> Result<Option<Options>, String> {
    let mut arguments = std::env::args_os().skip(1);
    let mut options = Options { svg: None, trace: None, machine: Described::own(own)? };
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let mut file = || arguments.next().ok_or_else(|| format!("{name} needs a file name; see --help"));
        match name.as_str() {
            "--help" | "-h" => return Ok(None),
            "--svg" => options.svg = Some(PathBuf::from(file()?)),
            "--trace" => options.trace = Some(PathBuf::from(file()?)),
            "--machine" => options.machine = Described::read(&file()?)?,
            _ => return Err(format!("{name} is no option; see --help")),
        }
    }
    Ok(Some(options))
}

impl Options {
    /// The machine to run on; its events are recorded if they are to be written.
    pub(crate) fn build(&self) -> Result<Machine, String> {
        const MOST: NonZeroUsize = NonZeroUsize::new(1 << 20).unwrap();
        let machine = self.machine.build()?;
        if self.trace.is_some() {
            machine.start_trace(MOST);
        }
        Ok(machine)
    }

    /// Writes the events of `machine` to the file of `--trace`, if there is one: as its name ends, a picture (`svg`), a table
    /// (`csv`), lines of JSON (`json`), or text.
    pub(crate) fn write_trace(&self, machine: &Machine, title: &str) -> Result<(), String> {
        let Some(file) = &self.trace else { return Ok(()) };
        let trace = machine.trace();
        let text = match file.extension().and_then(|ending| ending.to_str()) {
            Some("svg") => trace.to_svg(title),
            Some("csv") => trace.to_csv(),
            Some("json") => trace.to_json_lines(),
            _ => trace.to_string(),
        };
        std::fs::write(file, text)
            .map_err(|error| format!("the trace cannot be written to {} ({error})", file.display()))?;
        println!(
            "trace: {} events in {}, {} older ones lost",
            trace.events.len(),
            file.display(),
            trace.lost
        );
        Ok(())
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
pub(crate) fn draw(machine: &Machine, title: &str, svg: Option<&PathBuf>) -> Result<(), String> {
    let Some(file) = svg else { return Ok(()) };
    std::fs::write(file, machine.occupancy().to_svg(title))
        .map_err(|error| format!("the picture cannot be written to {} ({error})", file.display()))?;
    println!("picture: {}", file.display());
    Ok(())
}
