//! What the layers above an allocator need from it: [`FrameSource`] and [`FrameZone`], and the errors of their calls.
//!
//! The traits say how to *use* frames, never how to make them. An allocator (pnode-buddy) is a zone; a
//! [`Grant`](crate::Grant) on a node is a source.

use core::fmt;

use crate::addr::{FrameRange, Order, Pfn};

/// How a block is going to be used, so that an allocator can keep what moves apart from what does not.
///
/// After the migrate types of the Linux page allocator (`include/linux/mmzone.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum MigrateType {
    /// Stays where it is: page tables, device rings, anything with its address written down elsewhere.
    Unmovable,
    /// Can be copied elsewhere and unmapped here: user pages.
    #[default]
    Movable,
    /// Allocated in huge blocks and freed as such.
    Huge,
}

impl MigrateType {
    /// All types, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Unmovable, Self::Movable, Self::Huge];
}

/// A source of page frames: something that hands out naturally aligned blocks and takes them back.
///
/// Calls may come from many threads at once. A source never touches the memory behind the frames; device memory may
/// not even be mapped.
pub trait FrameSource {
    /// Takes a block of `2^order` frames, aligned to its size.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; nothing has changed then.
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError>;

    /// Gives back the block of `2^order` frames at `pfn`.
    ///
    /// # Errors
    ///
    /// [`FreeError`]; nothing has changed then.
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError>;
}

/// A source that manages one span of frames: what a registry takes online.
pub trait FrameZone: FrameSource {
    /// The frames of this zone lie within this range; it may have holes.
    fn span(&self) -> FrameRange;

    /// How many frames are free now. A snapshot: concurrent calls may have changed it already.
    fn free_frames(&self) -> u64;

    /// How many frames this zone manages, free or not: the span without its holes.
    fn managed_frames(&self) -> u64;

    /// A frame that the zone can give without further ado, such as one out of a cache of the CPU: what
    /// [`alloc`](FrameSource::alloc) of a single frame would do, where that is a few instructions. `None` says nothing about
    /// what is free.
    #[inline(always)]
    fn alloc_at_hand(&self, _migrate: MigrateType) -> Option<Pfn> {
        None
    }

    /// Takes exactly the block of `2^order` frames at `pfn`. A zone that cannot aim has no such block.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; nothing has changed then.
    fn alloc_at(&self, pfn: Pfn, order: Order, migrate: MigrateType) -> Result<(), FrameError> {
        let _ = (pfn, migrate);
        Err(FrameError::Exhausted { order })
    }

    /// Stops handing out blocks; frees still land. Idempotent.
    ///
    /// When this returns, each call of [`alloc`](FrameSource::alloc) has either failed or its block counts as used, and
    /// no later call succeeds until [`reopen`](Self::reopen). So an isolated zone whose
    /// [`used_frames`](Self::used_frames) is 0 is empty and stays so: its memory may be unplugged.
    ///
    /// An `alloc` that succeeds because of a `reopen` sees all that happened before that `reopen` (release/acquire on
    /// the zone's own words); the zonelist walk of this crate stands on this.
    fn isolate(&self);

    /// Undoes [`isolate`](Self::isolate). Idempotent.
    fn reopen(&self);

    /// How many frames are handed out now, CPU caches included. Exact while the zone is isolated and no free is under
    /// way.
    fn used_frames(&self) -> u64;
}

impl<S: FrameSource + ?Sized> FrameSource for &S {
    #[inline]
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        (**self).alloc(order, migrate)
    }
    #[inline]
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        (**self).free(pfn, order)
    }
}

/// Why no block was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// No free block of this order is left.
    Exhausted {
        /// The order that was asked for.
        order: Order,
    },
    /// The source hands out nothing now: it is isolated, or its node is being torn down.
    Closed {
        /// The order that was asked for.
        order: Order,
    },
    /// Blocks were on their way between two places for too long, because the CPU that moves them stands still.
    Contended {
        /// The order that was asked for.
        order: Order,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { order } => {
                write!(f, "the source is closed; no block of order {order} is handed out")
            }
            Self::Exhausted { order } => {
                write!(f, "no free block of order {order} is left; free some, or ask for a smaller order")
            }
            Self::Contended { order } => {
                write!(f, "blocks that might serve order {order} are in motion; try again")
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// Why a block was not taken back. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreeError {
    /// The token is of another registry, which alone takes it back.
    Foreign {
        /// The first frame of the block.
        pfn: Pfn,
    },
    /// Some of the block's frames are none of this source's.
    OutOfZone {
        /// The first frame of the block.
        pfn: Pfn,
    },
    /// A block starts at a multiple of its size; this frame is none.
    Misaligned {
        /// The first frame of the block.
        pfn: Pfn,
        /// The order it was to be freed with.
        order: Order,
    },
    /// Some of the block's frames lie in a hole of the zone.
    Hole {
        /// The first frame of the block.
        pfn: Pfn,
    },
    /// Some of the block's frames lie in a range that was taken offline.
    Offline {
        /// The first frame of the block.
        pfn: Pfn,
    },
    /// The frame is free already: a double free, or a frame that was never handed out.
    NotAllocated {
        /// The first frame of the block.
        pfn: Pfn,
    },
    /// The frame waits in a CPU cache: it was freed before.
    Cached {
        /// The first frame of the block.
        pfn: Pfn,
    },
    /// The block at this frame was handed out with another order, or the frame lies inside a larger block.
    WrongOrder {
        /// The first frame of the block.
        pfn: Pfn,
        /// The order it was to be freed with.
        order: Order,
    },
}

impl FreeError {
    /// The frame that was to be freed.
    pub const fn pfn(self) -> Pfn {
        match self {
            Self::Foreign { pfn }
            | Self::OutOfZone { pfn }
            | Self::Misaligned { pfn, .. }
            | Self::Hole { pfn }
            | Self::Offline { pfn }
            | Self::NotAllocated { pfn }
            | Self::Cached { pfn }
            | Self::WrongOrder { pfn, .. } => pfn,
        }
    }
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { pfn } => {
                write!(f, "{pfn:?} was handed out by another registry; give it back there")
            }
            Self::OutOfZone { pfn } => write!(f, "{pfn:?} is outside this zone; free it where it came from"),
            Self::Misaligned { pfn, order } => write!(f, "{pfn:?} is no start of a block of order {order}"),
            Self::Hole { pfn } => write!(f, "{pfn:?} lies in a hole of the zone"),
            Self::Offline { pfn } => write!(f, "{pfn:?} lies in a range that is offline"),
            Self::NotAllocated { pfn } => write!(f, "{pfn:?} is free already (double free?)"),
            Self::Cached { pfn } => write!(f, "{pfn:?} waits in a CPU cache already (double free?)"),
            Self::WrongOrder { pfn, order } => {
                write!(f, "the block at {pfn:?} was not handed out with order {order}; free it whole")
            }
        }
    }
}

impl core::error::Error for FreeError {}
