//! Why the heap gave no memory, or took none back.

use core::fmt;

use pnode_core::{FrameError, NodeId};

/// Why there is no heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeapError {
    /// The machine has no such node.
    Unknown {
        /// The node.
        node: NodeId,
    },
    /// The node is private: a heap on it takes a grant.
    Private {
        /// The node.
        node: NodeId,
    },
    /// The frames are not mapped in one piece.
    NotMapped,
    /// There are fewer [`super::Slab`]s than frames, or some that are in use.
    Slabs {
        /// How many there have to be.
        wanted: usize,
    },
}

impl fmt::Display for HeapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { node } => write!(f, "the machine has no {node:?}"),
            Self::Private { node } => {
                write!(f, "{node:?} is private; ask for a grant, and make the heap of that")
            }
            Self::NotMapped => f.write_str("the frames of the heap must be mapped in one piece"),
            Self::Slabs { wanted } => write!(f, "the heap needs {wanted} slabs that are all zero"),
        }
    }
}

impl core::error::Error for HeapError {}

/// Why no memory was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeapAllocError {
    /// The node has no frames for it.
    NoFrames {
        /// How many bytes were asked for.
        bytes: usize,
        /// What the source of the frames said.
        error: FrameError,
    },
    /// No block is so large.
    TooLarge {
        /// How many bytes were asked for.
        bytes: usize,
    },
    /// What was to be resized is no object of the heap.
    NoObject(HeapFreeError),
}

impl fmt::Display for HeapAllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrames { bytes, error } => write!(f, "no memory for {bytes} bytes: {error}"),
            Self::TooLarge { bytes } => write!(f, "{bytes} bytes are more than any block has; ask for less"),
            Self::NoObject(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for HeapAllocError {}

/// Why memory was not taken back. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeapFreeError {
    /// The address is not one of this heap's memory.
    NotOurs {
        /// The address.
        address: usize,
    },
    /// No object begins at the address: it lies inside one, or was never handed out.
    NoObject {
        /// The address.
        address: usize,
    },
    /// The object is free already.
    DoubleFree {
        /// The address.
        address: usize,
    },
    /// The object was allocated for another layout.
    WrongLayout {
        /// The address.
        address: usize,
        /// How many bytes the object has.
        size: usize,
    },
}

impl fmt::Display for HeapFreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs { address } => {
                write!(f, "{address:#x} is not of this heap; free it where it came from")
            }
            Self::NoObject { address } => {
                write!(f, "no object begins at {address:#x} (freed before, or an address inside an object?)")
            }
            Self::DoubleFree { address } => write!(f, "the object at {address:#x} is free already"),
            Self::WrongLayout { address, size } => write!(
                f,
                "the object at {address:#x} has {size} bytes and was allocated for another layout; free it with that"
            ),
        }
    }
}

impl core::error::Error for HeapFreeError {}
