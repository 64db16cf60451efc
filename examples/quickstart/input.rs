//! The input: its bytes, cut into pages, and a checksum of each.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::options::Source;

/// The bytes of the input, and where they came from.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Reads the input; an error is a sentence.
pub(crate) fn read(source: &Source, limit: u64) -> Result<Input, String> {
    let mut bytes = Vec::new();
    let name = match source {
        Source::OwnExecutable => {
            let path = std::env::current_exe().map_err(|error| {
                format!("no input: the program does not find its own executable ({error})")
            })?;
            take(&path, &mut bytes, limit)?;
            format!("{} (the program itself)", path.file_name().unwrap_or_default().to_string_lossy())
        }
        Source::StandardInput => {
            read_all(io::stdin().lock(), &mut bytes, limit)
                .map_err(|problem| problem.about("standard input", limit))?;
            "standard input".into()
        }
        Source::Path(path) if path.is_dir() => {
            let mut files = Vec::new();
            list(path, &mut files)?;
            files.sort();
            for file in &files {
                take(file, &mut bytes, limit)?;
            }
            format!("{} ({} files)", path.display(), files.len())
        }
        Source::Path(path) => {
            take(path, &mut bytes, limit)?;
            path.display().to_string()
        }
    };
    if bytes.is_empty() {
        return Err(format!("no input: {name} is empty; name a file with something in it"));
    }
    Ok(Input { name, bytes })
}

/// All regular files below `directory`; links are not followed.
fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let sentence = |error: io::Error| format!("no input: {} cannot be read ({error})", directory.display());
    for entry in fs::read_dir(directory).map_err(sentence)? {
        let entry = entry.map_err(sentence)?;
        let kind = entry.file_type().map_err(sentence)?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn take(path: &Path, bytes: &mut Vec<u8>, limit: u64) -> Result<(), String> {
    File::open(path)
        .map_err(Problem::Io)
        .and_then(|file| read_all(file, bytes, limit))
        .map_err(|problem| problem.about(&path.display().to_string(), limit))
}

enum Problem {
    Io(io::Error),
    TooMuch,
}

impl Problem {
    fn about(self, name: &str, limit: u64) -> String {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                format!("no memory for the input {name}; name a smaller one")
            }
            Self::Io(error) => format!("no input: {name} cannot be read ({error})"),
            Self::TooMuch => {
                format!("the input {name} passes {} MiB; name less of it or raise --limit", limit >> 20)
            }
        }
    }
}

/// Adds all bytes of `source`, up to `limit` in total. Not `read_to_end`: memory that is not there is an error here.
fn read_all(mut source: impl Read, bytes: &mut Vec<u8>, limit: u64) -> Result<(), Problem> {
    const STEP: usize = 1 << 20;
    loop {
        let start = bytes.len();
        bytes.try_reserve(STEP).map_err(|_| Problem::Io(io::ErrorKind::OutOfMemory.into()))?;
        bytes.resize(start + STEP, 0);
        let read = source.read(&mut bytes[start..]);
        bytes.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Ok(()),
            Ok(_) if bytes.len() as u64 > limit => return Err(Problem::TooMuch),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Problem::Io(error)),
        }
    }
}

/// The checksum of a page: FNV-1a, 64 bits, in the words of the page.
pub(crate) fn checksum(page: &[u8]) -> u64 {
    page.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        // The rotation brings high bits back down, which a multiplication of whole words never does.
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}
