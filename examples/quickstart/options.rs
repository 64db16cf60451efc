//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use pnode::user::fault::Choice;

use crate::machine::Described;

pub(crate) const HELP: &str = "\
A private memory node at work: real memory, real page faults, your data.

usage: quickstart [OPTIONS] [INPUT]

  INPUT              a file, a directory (all files in it), or - for standard input;
                     without it the program takes its own executable
  --machine FILE     the machine to show it on: ordinary nodes and a compressed one (default: two and one,
                     large enough for the input); an input that is larger than fits is cut off
  --svg FILE         also draw what every frame is used for, at the fullest moment
  --backend NAME     how to take page faults: best (default), userfaultfd or signal
  --limit MIB        the most input to take, in MiB (default 1024)
  --help             this text

It builds a machine of ordinary nodes and one private node that keeps pages compressed and
advertises more memory than it has, and then: loads the input by touching memory, fills the ordinary
nodes to show that nothing but demotion reaches the private one, demotes cold pages, reads them back
through faults, writes to some, unplugs the private node, and audits every zone. Every byte is verified
after each step. The exit code is 0 only if all of that held.";

/// What the command line asks for.
pub(crate) struct Options {
    pub(crate) input: Source,
    pub(crate) machine: Option<Described>,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) backend: Option<Choice>,
    pub(crate) limit: u64,
}

/// Where the input comes from.
pub(crate) enum Source {
    OwnExecutable,
    StandardInput,
    Path(PathBuf),
}

/// What to do.
pub(crate) enum Command {
    Help,
    Run(Options),
}

/// Reads the command line; an error is a sentence.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut options =
        Options { input: Source::OwnExecutable, machine: None, svg: None, backend: None, limit: 1024 << 20 };
    let mut arguments = arguments.into_iter();
    let mut inputs = 0;
    while let Some(argument) = arguments.next() {
        let mut value = |what: &str| {
            arguments.next().ok_or_else(|| format!("{} needs {what}; see --help", argument.to_string_lossy()))
        };
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--machine") => options.machine = Some(Described::read(&value("a file name")?)?),
            Some("--svg") => options.svg = Some(value("a file name")?.into()),
            Some("--backend") => {
                let name = value("a name")?;
                options.backend = Some(match name.to_str() {
                    Some("best") => Choice::Best,
                    Some("userfaultfd") => Choice::Userfaultfd,
                    Some("signal") => Choice::Signal,
                    _ => return Err("--backend takes best, userfaultfd or signal".into()),
                });
            }
            Some("--limit") => {
                let number = value("a number of MiB")?;
                let mib: Option<u64> = number.to_str().and_then(|text| text.parse().ok());
                options.limit = mib
                    .filter(|mib| (1..=16_384).contains(mib))
                    .ok_or("--limit takes a number of MiB from 1 to 16384")?
                    << 20;
            }
            Some(text) if text.starts_with('-') && text != "-" => {
                return Err(format!("{text} is no option; see --help"));
            }
            _ => {
                inputs += 1;
                options.input = match argument.to_str() {
                    Some("-") => Source::StandardInput,
                    _ => Source::Path(argument.into()),
                };
            }
        }
    }
    if inputs > 1 { Err("name one input; see --help".into()) } else { Ok(Command::Run(options)) }
}
