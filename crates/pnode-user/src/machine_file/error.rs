//! What is wrong with a machine file, and where.

use core::fmt;

use pnode_core::{FeatureError, Features};

use super::CLASSES;
use crate::machine::{Machine, NodeSpec, ShapeError};

/// Why a text is no machine file: the place and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineFileError {
    /// The line, from 1.
    pub line: u32,
    /// The first character of the word that is wrong, from 1.
    pub column: u32,
    /// How many characters that word has.
    pub width: u32,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a word of a machine file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// No statement begins with this word.
    Statement,
    /// Delays are counted or waited.
    Delays,
    /// Something has to follow this word.
    Missing {
        /// What.
        what: &'static str,
    },
    /// The statement is complete before this word.
    Extra,
    /// This cannot be a name.
    Name,
    /// The name is given already, or this is said already.
    Taken {
        /// In which line.
        line: u32,
    },
    /// No kind of node.
    Kind,
    /// No property of a node.
    Property,
    /// The property stands twice in this line.
    Twice,
    /// Not what memory is made of.
    Memory,
    /// No class of memory.
    Class,
    /// No door of a node.
    Door,
    /// These doors contradict one another.
    Doors(FeatureError),
    /// An ordinary node has no doors.
    OrdinaryDoors,
    /// Only a compressed node holds more than it has.
    Holds,
    /// The watermarks of a node rise from min to low to high.
    NotRising,
    /// Watermarks leave some frames of the node to ordinary requests.
    Watermarks {
        /// How many frames the node has.
        frames: u64,
    },
    /// A compressed node has no watermarks.
    StoreWatermarks,
    /// The node cannot have this hole, or this zone.
    Shape(ShapeError),
    /// The watermarks of the node are more than this hole leaves of it.
    HoleUnderMarks {
        /// How many frames are left.
        frames: u64,
    },
    /// No number with this unit.
    Quantity {
        /// The unit.
        unit: &'static str,
    },
    /// No size.
    Size,
    /// The size is not a whole number of frames.
    NotWhole {
        /// The size of a frame in bytes.
        page: usize,
    },
    /// A number of frames out of range.
    Frames {
        /// The fewest.
        least: u64,
        /// The most.
        most: u64,
    },
    /// This node is one too many.
    Nodes,
    /// The file describes no node.
    NoNodes,
    /// No node of the file has this name.
    Unknown,
    /// No distance between two nodes.
    Distance,
    /// The distance of a node to itself.
    Itself,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement => {
                f.write_str("a line begins with node, hole, zone, distance, cpuset, swap or delays")
            }
            Self::Delays => f.write_str("delays are counted or waited"),
            Self::Missing { what } => write!(f, "after this comes {what}"),
            Self::Extra => f.write_str("nothing more belongs here; begin a new line, or a comment with #"),
            Self::Name => {
                f.write_str("a name is a letter or _, and then up to 31 letters, digits, _, - or .")
            }
            Self::Taken { line } => write!(f, "line {line} says this already; say it once"),
            Self::Kind => f.write_str("a node is ordinary, private or compressed"),
            Self::Property => f.write_str(
                "a node's properties are class, latency, bandwidth, doors, holds, memory and watermarks",
            ),
            Self::Memory => f.write_str(
                "memory is huge, hugetlb, numa: with the number of a real node, or the path of a device",
            ),
            Self::Twice => f.write_str("this line says it already; say it once"),
            Self::Class => {
                f.write_str("there is no such class of memory; there are")?;
                list(f, CLASSES.into_iter().map(|class| class.name()))
            }
            Self::Door => {
                f.write_str("there is no such door; there are")?;
                list(f, Features::DOORS.into_iter().map(|(_, name)| name))?;
                f.write_str(", put together with |, or NONE")
            }
            Self::Doors(error) => error.fmt(f),
            Self::OrdinaryDoors => f.write_str(
                "an ordinary node is open to all and has no doors; make it private, or leave them out",
            ),
            Self::Holds => f.write_str(
                "only a compressed node holds more than it has; make it compressed, or leave this out",
            ),
            Self::NotRising => {
                f.write_str("watermarks rise from min to low to high; write no less than the one before")
            }
            Self::Watermarks { frames } => {
                write!(f, "the node has {frames} frames, and the high watermark is below that; write less")
            }
            Self::StoreWatermarks => f.write_str(
                "the store of a compressed node asks for all of its frames; leave its watermarks out",
            ),
            Self::Shape(error) => error.fmt(f),
            Self::HoleUnderMarks { frames } => {
                write!(
                    f,
                    "this leaves {frames} frames, and the node's high watermark is not below that; write less"
                )
            }
            Self::Quantity { unit } => write!(f, "write a number with its unit, as 350{unit}"),
            Self::Size => f.write_str("write a size in one word, as 64MiB, 512KiB, 2GiB or 1024frames"),
            Self::NotWhole { page } => {
                write!(f, "frames have {page} bytes here; write a multiple of that, or a number of frames")
            }
            Self::Frames { least, most } => write!(f, "write {least} to {most} frames"),
            Self::Nodes => write!(f, "a machine has up to {} nodes; leave this one out", Machine::MOST_NODES),
            Self::NoNodes => {
                f.write_str("a machine has a node; begin with a line as: node dram ordinary 64MiB")
            }
            Self::Unknown => f.write_str("no line describes a node of this name; add one, or mend the name"),
            Self::Distance => f.write_str("a distance to another node is a number from 11 to 255"),
            Self::Itself => f.write_str("a node is 10 from itself, always; name two nodes"),
        }
    }
}

fn list<'n>(f: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'n str>) -> fmt::Result {
    let mut before = " ";
    for name in names {
        write!(f, "{before}{name}")?;
        before = ", ";
    }
    Ok(())
}

impl fmt::Display for MachineFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.problem)
    }
}

impl core::error::Error for MachineFileError {}

impl MachineFileError {
    /// The error with the line of `text` that it speaks of and a mark under the word, for people.
    pub const fn in_text<'t>(&self, text: &'t str) -> InText<'t> {
        InText { error: *self, text }
    }
}

/// An error beside the text that it is about; made by [`MachineFileError::in_text`].
#[derive(Clone, Copy, Debug)]
pub struct InText<'t> {
    error: MachineFileError,
    text: &'t str,
}

impl fmt::Display for InText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = &self.error;
        write!(f, "{error}")?;
        let line = self.text.lines().nth(error.line.saturating_sub(1) as usize);
        let Some(line) = line.filter(|line| !line.trim().is_empty()) else { return Ok(()) };
        // Tabs stay tabs, so that the mark stands under its word however wide they are shown.
        let before = line.chars().take(error.column.saturating_sub(1) as usize);
        let blank: String = before.map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
        write!(f, "\n  {line}\n  {blank}{}", "^".repeat(error.width.min(200) as usize))
    }
}

/// The most frames that a size in the file may have, by what it is the size of.
pub(super) const MOST_FRAMES: u64 = NodeSpec::MOST_FRAMES;
/// Pages of a compressed node, and of swap, are counted in 32 bits.
pub(super) const MOST_PAGES: u64 = u32::MAX as u64;
