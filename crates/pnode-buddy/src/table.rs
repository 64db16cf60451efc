//! Which ranges are isolated and which are offline: a small table in the metadata, written by one at a time, read by all.
//!
//! ```text
//! | isolated: SLOTS | offline: SLOTS and one more for each 2^15 frames |    a slot: [first frame in the zone][frames]
//! ```
//!
//! A slot of no frames is empty. A writer fills the length last and empties it first, so a reader that finds one
//! length before and after it read the first frame has a range that was in the table.

use pnode_core::sync::AtomicU64;
use pnode_core::sync::Ordering::{Acquire, Release};
use pnode_core::{FrameRange, Pfn};

use crate::zone::Zone;

/// Ranges that can be isolated, and not yet offline, at a time. Every allocation looks at them while there is one.
pub(crate) const SLOTS: usize = if cfg!(loom) { 2 } else { 16 };
/// Frames in a block of memory that goes offline as a whole on most hosts: 128 MiB of 4 KiB.
const MEMORY_BLOCK_ORDER: u32 = 15;
const SLOT_WORDS: usize = 2;

/// The two parts of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Isolated,
    Offline,
}

/// Words of the whole table for a zone of `frames`.
pub(crate) const fn words(frames: u64) -> usize {
    (SLOTS + offline_slots(frames)) * SLOT_WORDS
}

const fn offline_slots(frames: u64) -> usize {
    SLOTS + (frames >> MEMORY_BLOCK_ORDER) as usize
}

impl Zone<'_> {
    /// How many ranges fit into a part of the table.
    pub(crate) fn slots(&self, part: Part) -> usize {
        match part {
            Part::Isolated => SLOTS,
            Part::Offline => offline_slots(self.span().frames()),
        }
    }

    fn slot(&self, part: Part, slot: usize) -> (&AtomicU64, &AtomicU64) {
        let slot = if part == Part::Offline { SLOTS + slot } else { slot };
        let at = self.geometry.table + slot * SLOT_WORDS;
        (self.words.at(at), self.words.at(at + 1))
    }

    fn listed_in(&self, part: Part, slot: usize) -> Option<FrameRange> {
        let (first, frames) = self.slot(part, slot);
        // Acquire pairs with the Release stores in `list` and `unlist`.
        let mut length = frames.load(Acquire);
        loop {
            let start = first.load(Acquire);
            let again = frames.load(Acquire);
            if length == again {
                let start = self.span().start().checked_add(start)?;
                return FrameRange::new(start, length).ok();
            }
            length = again;
        }
    }

    /// The ranges of one part.
    pub(crate) fn listed(&self, part: Part) -> impl Iterator<Item = FrameRange> + '_ {
        (0..self.slots(part)).filter_map(move |slot| self.listed_in(part, slot))
    }

    /// The range of one part that `frame` lies in.
    pub(crate) fn listed_around(&self, part: Part, frame: Pfn) -> Option<FrameRange> {
        self.listed(part).find(|range| range.contains(frame))
    }

    /// Enters a range; `false` if the part is full. One writer at a time.
    pub(crate) fn list(&self, part: Part, range: FrameRange) -> bool {
        let Some(slot) = (0..self.slots(part)).find(|slot| self.listed_in(part, *slot).is_none()) else {
            return false;
        };
        let (first, frames) = self.slot(part, slot);
        // Release pairs with the Acquire in `listed_in`: who sees the length sees the first frame.
        first.store(range.start().get() - self.span().start().get(), Release);
        frames.store(range.frames(), Release);
        true
    }

    /// Takes a range out; `false` if it is not there. One writer at a time.
    pub(crate) fn unlist(&self, part: Part, range: FrameRange) -> bool {
        let found = (0..self.slots(part)).find(|slot| self.listed_in(part, *slot) == Some(range));
        if let Some(slot) = found {
            self.slot(part, slot).1.store(0, Release);
        }
        found.is_some()
    }
}
