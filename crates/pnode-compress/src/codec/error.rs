//! What can go wrong when a page is encoded or an object decoded.

use core::fmt;

/// Why a page was not encoded. The output buffer may have been written to; nothing else has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The page has a length that no page has.
    PageSize {
        /// The length that was given, in bytes.
        bytes: usize,
    },
    /// No encoding of the asked kind fits the room that the caller gave.
    TooLarge {
        /// The room that was given, in bytes.
        room: usize,
    },
    /// The page is not one 8-byte word repeated.
    NotSame,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PageSize { bytes } => {
                write!(f, "a page of {bytes} bytes: give a power of two from 4 KiB to 64 KiB")
            }
            Self::TooLarge { room } => {
                write!(
                    f,
                    "the page does not compress to {room} bytes: give as much room as the page has, or keep it raw"
                )
            }
            Self::NotSame => f.write_str("the page is not one word repeated: use another codec"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// Why an object was not decoded: what is wrong, and where in the object.
///
/// The page then holds unspecified bytes, all of which came from the object or were in the page before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    fault: Fault,
    at: usize,
}

impl DecodeError {
    #[cold]
    pub(crate) const fn new(fault: Fault, at: usize) -> Self {
        Self { fault, at }
    }

    /// What is wrong.
    pub const fn fault(self) -> Fault {
        self.fault
    }

    /// The offset in the object's bytes of the field that is wrong.
    pub const fn at(self) -> usize {
        self.at
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {} of the object)", self.fault, self.at)
    }
}

impl core::error::Error for DecodeError {}

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The page has a length that no page has; the object was not looked at.
    PageSize {
        /// The length that was given, in bytes.
        bytes: usize,
    },
    /// The object has a length that its codec never writes.
    Length {
        /// The length of the object, in bytes.
        bytes: usize,
    },
    /// The object ends inside a field.
    Truncated,
    /// Bytes follow the end of the page.
    Trailing,
    /// A field would write past the end of the page, or end it too late for its format.
    Overrun,
    /// The object ended before the page was full.
    Short,
    /// The prefix codes are none, or bits stand for no symbol.
    Codes,
    /// A match distance is 0 or points before the start of the page.
    Distance {
        /// The distance, in bytes.
        distance: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PageSize { bytes } => {
                write!(f, "a page of {bytes} bytes: give a power of two from 4 KiB to 64 KiB")
            }
            Self::Length { bytes } => {
                write!(f, "{bytes} bytes are no length for this tag: the object or its tag is damaged")
            }
            Self::Truncated => f.write_str("the object ends inside a field: it is cut short or damaged"),
            Self::Trailing => f.write_str("bytes follow the end of the page: the object is damaged"),
            Self::Overrun => {
                f.write_str("the object holds more than the page: use the page size it was encoded with")
            }
            Self::Short => {
                f.write_str("the object holds less than the page: use the page size it was encoded with")
            }
            Self::Codes => f.write_str("bits that stand for no symbol: the object is damaged"),
            Self::Distance { distance } => {
                write!(f, "a match {distance} bytes back does not lie in the page: the object is damaged")
            }
        }
    }
}
