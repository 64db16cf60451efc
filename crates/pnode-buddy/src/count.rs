//! Free frames by class: one counter a pair of cache lines, in the metadata.

use pnode_core::sync::AtomicU64;
use pnode_core::sync::Ordering::Relaxed;

use crate::geometry::CLASSES;
use crate::metadata::Words;
use crate::zone::Zone;

/// The count of frames in areas that no class has claimed, and of blocks larger than an area.
pub(crate) const UNCLAIMED: u8 = CLASSES as u8;

/// No count: the frame went into the cache of a CPU, which counts it.
pub(crate) const CACHED: u8 = UNCLAIMED + 1;

/// Counters: one a class, and one of what is unclaimed.
pub(crate) const COUNTERS: usize = CLASSES + 1;
/// Words from one counter to the next: two lines, because some processors fetch lines in pairs.
pub(crate) const STRIDE: usize = 16;

/// Free frames of each class, and unclaimed ones. A sum of deltas: single counters may pass through zero for a moment.
#[derive(Clone, Copy)]
pub(crate) struct Counts<'a> {
    words: &'a Words<'a>,
    base: usize,
}

impl Zone<'_> {
    /// The counts of free frames.
    #[inline]
    pub(crate) fn counts(&self) -> Counts<'_> {
        Counts { words: &self.words, base: self.geometry.counts }
    }
}

impl Counts<'_> {
    #[inline]
    fn at(&self, class: u8) -> &AtomicU64 {
        self.words.at(self.base + class as usize * STRIDE)
    }

    // Relaxed everywhere: the counts guard nothing, they are for people and watermarks.

    #[inline]
    pub(crate) fn take(self, class: u8, frames: u64) {
        self.at(class).fetch_sub(frames, Relaxed);
    }

    /// Adds a sum of deltas, which may be negative in two's complement.
    #[inline]
    pub(crate) fn give(self, class: u8, frames: u64) {
        self.at(class).fetch_add(frames, Relaxed);
    }

    pub(crate) fn transfer(self, from: u8, to: u8, frames: u64) {
        self.take(from, frames);
        self.give(to, frames);
    }

    pub(crate) fn set(self, class: u8, frames: u64) {
        self.at(class).store(frames, Relaxed);
    }

    pub(crate) fn class(self, class: u8) -> u64 {
        clamp(self.at(class).load(Relaxed))
    }

    pub(crate) fn free(self) -> u64 {
        let counters = 0..COUNTERS as u8;
        clamp(counters.fold(0, |sum, class| sum.wrapping_add(self.at(class).load(Relaxed))))
    }
}

/// A count read in the middle of a transfer may have wrapped below zero.
fn clamp(count: u64) -> u64 {
    if count >> 63 == 1 { 0 } else { count }
}
