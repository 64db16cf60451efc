//! Taking over the metadata of a zone that nobody runs any more: after a crash, or a restart that kept the memory.
//!
//! The truth is what each frame *is*: the words, and in the nodes the states of the children, the class of an area and
//! whether it is holed; and the table of ranges. Everything else is derived from it here: hints, adverts, index, counts,
//! and whose turn it was. (LLFree recovers from its bit field likewise, `Init::Recover`.)
//!
//! What was under way is brought to one side or the other: a child that was on its way between two levels is free, so are
//! the frames in the caches of CPUs, and a letter in an inbox is as if it had not been posted: its frame is still
//! allocated. A block that had been claimed, but not yet returned, is allocated; whoever recovers compares
//! [`Zone::each_block`] with what it knows. A range that was being reopened may leave frames absent, as a hole.

use core::fmt;

use pnode_core::sync::Ordering::Relaxed;
use pnode_core::{FrameRange, Pfn};

use crate::error::ZoneError;
use crate::geometry::{Geometry, TOP};
use crate::metadata::{Metadata, Words};
use crate::node::{self, CHILDREN, Child, advert};
use crate::stats::Stats;
use crate::table::Part;
use crate::word::{self, Frame};
use crate::zone::{ISOLATED_RANGE, Zone};

#[cfg(all(test, not(loom)))]
#[path = "recover_tests.rs"]
mod tests;

/// Says that a zone keeps its books here ("pnodezn1").
const MAGIC: u64 = u64::from_be_bytes(*b"pnodezn1");

/// Words of the header: the magic number, the first frame, the frames.
pub(crate) const HEADER_WORDS: usize = 3;

/// Why a zone cannot be recovered from its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoverError {
    /// As for a new zone.
    Zone(ZoneError),
    /// No zone keeps its books in this metadata.
    NoZone,
    /// The books are those of a zone over other frames.
    OtherZone {
        /// Its first frame.
        start: Pfn,
        /// Its frames.
        frames: u64,
    },
    /// The books contradict themselves about what a frame is: they were overwritten.
    Broken {
        /// The frame, or the first of its child or block.
        pfn: Pfn,
    },
    /// A range in the table is not inside the zone, overlaps another, or is offline though some frame of it is not.
    BrokenRange {
        /// The range.
        range: FrameRange,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(error) => error.fmt(f),
            Self::NoZone => f.write_str("no zone keeps its books in this metadata; make a new one"),
            Self::OtherZone { start, frames } => {
                write!(f, "these are the books of a zone of {frames} frames from {start:?}; recover that one")
            }
            Self::Broken { pfn } => write!(f, "the books contradict themselves at {pfn:?}; make a new zone"),
            Self::BrokenRange { range } => {
                write!(f, "the table of ranges says of {range:?} what the books do not; make a new zone")
            }
        }
    }
}

impl core::error::Error for RecoverError {}

impl<'m> Zone<'m> {
    /// Takes over the zone over `range` that kept its books in `metadata` ([`Metadata::kept`]): what was allocated is,
    /// isolated and offline ranges still are. Everything that can be derived is derived anew: `O(zone)`. Also how it
    /// stands.
    ///
    /// The metadata has to be as the CPUs last saw it: a host whose memory survives, but not what its CPUs had in their
    /// caches, has to write these back in the order of the stores.
    ///
    /// # Errors
    ///
    /// [`RecoverError`]. The metadata may have been changed then.
    pub fn recover(range: FrameRange, metadata: Metadata<'m>) -> Result<(Self, Stats), RecoverError> {
        let geometry = Geometry::new(range).map_err(RecoverError::Zone)?;
        let words = metadata.into_words(geometry.lines()).map_err(RecoverError::Zone)?;
        let header: [u64; HEADER_WORDS] =
            core::array::from_fn(|at| words.at(geometry.header + at).load(Relaxed));
        match header {
            [MAGIC, start, frames] if (start, frames) == (range.start().get(), range.frames()) => {}
            [MAGIC, start, frames] => {
                return Err(RecoverError::OtherZone { start: Pfn::new(start), frames });
            }
            _ => return Err(RecoverError::NoZone),
        }
        // Index and inboxes lie between the nodes and the counts.
        for at in geometry.inboxes..geometry.counts {
            words.at(at).store(0, Relaxed);
        }
        let zone = Self::over(geometry, words);
        for index in 0..zone.geometry.level(TOP).count {
            zone.recover_node(TOP, index)?;
        }
        zone.recount();
        zone.recover_ranges()?;
        let stats = zone.stats();
        Ok((zone, stats))
    }

    /// Writes who keeps its books here.
    pub(crate) fn sign(geometry: &Geometry, words: &Words<'_>) {
        let header = [MAGIC, geometry.range().start().get(), geometry.range().frames()];
        for (at, value) in header.into_iter().enumerate() {
            words.at(geometry.header + at).store(value, Relaxed);
        }
    }

    /// Derives a live node from the states of its children; its value.
    fn recover_node(&self, level: usize, index: usize) -> Result<u64, RecoverError> {
        let at = self.node(level, index);
        let old = at.load(Relaxed);
        let here = |child| Pfn::new(self.child_pfn(level, index, child));
        let class = node::class(old);
        if !node::is_live(old) || usize::from(class) >= crate::geometry::CLASSES {
            return Err(RecoverError::Broken { pfn: here(0) });
        }
        // Live and of its class, with the children as they are; nothing else is kept.
        let mut value = node::empty(node::group(old)) | old & node::HOLED;
        let mut served = advert::NONE;
        let mut child = 0;
        while child < CHILDREN {
            match node::child(old, child) {
                Child::Head => {
                    let run = (0..=3u8).find(|run| {
                        child & ((1 << run) - 1) == 0
                            && child + (1 << run) <= CHILDREN
                            && node::holds(old, child, *run)
                    });
                    let Some(run) = run else { return Err(RecoverError::Broken { pfn: here(child) }) };
                    value = node::with_block(value, child, run);
                    (child..child + (1 << run)).for_each(|child| self.bury(level, index, child));
                    child += 1 << run;
                    continue;
                }
                Child::Tail => return Err(RecoverError::Broken { pfn: here(child) }),
                Child::Free | Child::Absent => {
                    let absent = node::child(old, child) == Child::Absent;
                    if !absent && !self.is_inside(level, index, child) {
                        return Err(RecoverError::Broken { pfn: here(child) });
                    }
                    value = if absent { node::with_absent(value, 1 << child) } else { value };
                    self.bury(level, index, child);
                }
                Child::Split(_) if !self.has_children(level, index, child) => {
                    return Err(RecoverError::Broken { pfn: here(child) });
                }
                Child::Split(_) if level == 1 => {
                    let word = self.recover_word(index, child, old & node::HOLED != 0)?;
                    value = match word {
                        word::DEAD => value,
                        _ if word::is_absent(word) => node::with_absent(value, 1 << child),
                        _ => node::with_split(value, child, word::serves(word)),
                    };
                    served = served.max(word::largest(word));
                }
                Child::Split(_) => {
                    let below = self.child_index(level, index, child);
                    if self.node(level - 1, below).load(Relaxed) == node::DEAD {
                        // On its way from one level to the other: free.
                        self.bury(level, index, child);
                    } else {
                        let node = self.recover_node(level - 1, below)?;
                        if node::free(node) == 0xffff {
                            self.node(level - 1, below).store(node::DEAD, Relaxed);
                            self.withdraw(level - 1, below, node::group(node), 0..=advert::HALF);
                        } else {
                            value = node::with_split(value, child, word::level::FULL);
                        }
                    }
                }
            }
            child += 1;
        }
        let whole = node::serves(node::with_absent(value, node::split(value)));
        value = node::with_advert(value, whole.max(served.min(advert::CHILD)));
        at.store(value, Relaxed);
        self.announce(level, index, advert::NONE, value);
        Ok(value)
    }

    /// Derives a word that its area calls split: its value, [`word::DEAD`] if it is wholly free. The caller stores what the
    /// area says of it.
    fn recover_word(&self, area: usize, child: u32, holed: bool) -> Result<u64, RecoverError> {
        let at = self.word(self.child_index(1, area, child));
        let mut value = at.load(Relaxed);
        if value == word::DEAD {
            return Ok(value);
        }
        if word::is_owned(value) {
            value = word::singles(value as u32);
        }
        if !holed {
            for (offset, order) in word::heads(value, Frame::Absent) {
                let whole = order < word::ORDER
                    && offset & ((1 << order) - 1) == 0
                    && word::holds(value ^ word::away(offset), offset, order);
                if !whole {
                    let pfn = Pfn::new(self.child_pfn(1, area, child) + u64::from(offset));
                    return Err(RecoverError::Broken { pfn });
                }
                value = word::with_free(value, offset, order);
            }
        }
        let mut offset = 0;
        while offset < word::FRAMES {
            let pfn = self.child_pfn(1, area, child) + u64::from(offset);
            let mut frames = 1;
            let sound = match word::frame(value, offset) {
                Frame::Head => {
                    let order = word::order_of(value, offset);
                    frames = 1 << order;
                    order < word::ORDER && offset & (frames - 1) == 0 && word::holds(value, offset, order)
                }
                Frame::Free => self.span().contains(Pfn::new(pfn)),
                Frame::Tail => false,
                Frame::Absent => true,
            };
            if !sound {
                return Err(RecoverError::Broken { pfn: Pfn::new(pfn) });
            }
            offset += frames;
        }
        let stored = if value == word::EMPTY || word::is_absent(value) { word::DEAD } else { value };
        at.store(stored, Relaxed);
        Ok(if word::is_absent(value) { value } else { stored })
    }

    /// Makes all books below a child dead that is decided above.
    fn bury(&self, level: usize, index: usize, child: u32) {
        if !self.has_children(level, index, child) {
            return;
        }
        let below = self.child_index(level, index, child);
        if level == 1 {
            return self.word(below).store(word::DEAD, Relaxed);
        }
        self.node(level - 1, below).store(node::DEAD, Relaxed);
        (0..CHILDREN).for_each(|child| self.bury(level - 1, below, child));
    }

    /// Whether all frames of a child lie in the zone.
    fn is_inside(&self, level: usize, index: usize, child: u32) -> bool {
        let first = self.child_pfn(level, index, child);
        let last = first + ((1 << crate::geometry::child_order(level)) - 1);
        first >= self.span().start().get() && last < self.span().end().get()
    }

    /// Derives what the zone knows of its ranges, and marks the areas of those that are isolated.
    fn recover_ranges(&self) -> Result<(), RecoverError> {
        let mut withheld = 0;
        let all = || self.listed(Part::Isolated).chain(self.listed(Part::Offline));
        for (number, range) in all().enumerate() {
            let apart = all().take(number).all(|other| other.intersection(range).is_none());
            if !self.span().contains_range(range) || !apart {
                return Err(RecoverError::BrokenRange { range });
            }
        }
        for range in self.listed(Part::Offline) {
            if self.range_use(range).absent != range.frames() {
                return Err(RecoverError::BrokenRange { range });
            }
        }
        for range in self.listed(Part::Isolated) {
            withheld += self.range_use(range).absent;
            self.closed.fetch_add(ISOLATED_RANGE, Relaxed);
        }
        self.withheld.store(withheld, Relaxed);
        self.managed.store(self.span().frames() - self.stats().absent_frames + withheld, Relaxed);
        self.listed(Part::Isolated).for_each(|range| self.withhold(range));
        Ok(())
    }
}

/// Crashes that tests ask for: at the n-th access to the metadata.
#[cfg(all(test, not(loom)))]
pub(crate) mod crash {
    extern crate std;

    use std::boxed::Box;
    use std::cell::Cell;

    std::thread_local! {
        static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    }

    /// An access to the metadata.
    pub(crate) fn tick() {
        let left = LEFT.get();
        if left == u64::MAX {
            return;
        }
        if left == 0 {
            LEFT.set(u64::MAX);
            std::panic::resume_unwind(Box::new("crash"));
        }
        LEFT.set(left - 1);
    }

    /// Runs `work` until it is done (`true`), or has accessed the metadata so often.
    pub(crate) fn after(accesses: u64, work: impl FnOnce()) -> bool {
        LEFT.set(accesses);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
        LEFT.set(u64::MAX);
        done
    }
}
