//! Why a zone cannot be made, and why its operations refuse.

use core::fmt;

use pnode_core::{FrameRange, Order, Pfn};

/// Why a zone cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZoneError {
    /// The zone has more than 2^40 frames, or its metadata would not fit into the address space.
    TooLarge {
        /// The frames asked for.
        frames: u64,
    },
    /// The metadata is too small.
    MetadataTooSmall {
        /// Lines that the zone needs ([`Geometry::lines`](crate::Geometry::lines)).
        needed: usize,
        /// Lines that were given.
        given: usize,
    },
    /// The metadata does not start at a multiple of 64 bytes.
    Misaligned {
        /// How many bytes past such a multiple it starts.
        bytes: usize,
    },
    /// A hole is not inside the zone.
    HoleOutside {
        /// The hole.
        hole: FrameRange,
    },
    /// The holes leave no frame.
    NoFrames {
        /// The frames of the zone.
        range: FrameRange,
    },
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { frames } => write!(f, "{frames} frames are too many for one zone; split it"),
            Self::MetadataTooSmall { needed, given } => {
                write!(f, "the metadata has {given} lines of 64 bytes, the zone needs {needed}")
            }
            Self::Misaligned { bytes } => {
                write!(f, "the metadata starts {bytes} bytes past a multiple of 64; align it")
            }
            Self::HoleOutside { hole } => {
                write!(f, "the hole {hole:?} is not inside the zone; cut it to the zone")
            }
            Self::NoFrames { range } => write!(f, "the holes leave no frame of {range:?}"),
        }
    }
}

impl core::error::Error for ZoneError {}

/// Why the block at a given place was not handed out. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocAtError {
    /// Some of the block's frames are none of this zone's.
    OutOfZone {
        /// The first frame of the block.
        pfn: Pfn,
    },
    /// A block starts at a multiple of its size; this frame is none.
    Misaligned {
        /// The first frame of the block.
        pfn: Pfn,
        /// The order of the block.
        order: Order,
    },
    /// Some of the block's frames lie in an isolated range.
    Isolated {
        /// The first of them.
        pfn: Pfn,
    },
    /// Some of the block's frames lie in a range that was taken offline.
    Offline {
        /// The first of them.
        pfn: Pfn,
    },
    /// Some of the block's frames are allocated, cached or in a hole, or the whole zone is isolated.
    NotFree {
        /// The first frame of the block.
        pfn: Pfn,
        /// The order of the block.
        order: Order,
    },
    /// The block was on its way between two levels of the zone for too long; try again.
    Contended {
        /// The first frame of the block.
        pfn: Pfn,
    },
}

impl fmt::Display for AllocAtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfZone { pfn } => write!(f, "{pfn:?} is outside this zone"),
            Self::Misaligned { pfn, order } => write!(f, "{pfn:?} is no start of a block of order {order}"),
            Self::Isolated { pfn } => write!(f, "{pfn:?} lies in an isolated range; reopen it first"),
            Self::Offline { pfn } => write!(f, "{pfn:?} lies in a range that is offline; reopen it first"),
            Self::NotFree { pfn, order } => write!(f, "the block of order {order} at {pfn:?} is not free"),
            Self::Contended { pfn } => write!(f, "the block at {pfn:?} was moving; try again"),
        }
    }
}

impl core::error::Error for AllocAtError {}
