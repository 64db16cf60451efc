//! Free frames by class, one counter a cache line.

use pnode_core::sync::AtomicU64;
use pnode_core::sync::Ordering::Relaxed;

use crate::geometry::CLASSES;

/// The count of frames in areas that no class has claimed, and of blocks larger than an area.
pub(crate) const UNCLAIMED: u8 = CLASSES as u8;

/// No count: the frame went into the cache of a CPU, which counts it.
pub(crate) const CACHED: u8 = UNCLAIMED + 1;

#[repr(align(128))]
struct Padded(AtomicU64);

/// Free frames of each class, and unclaimed ones. A sum of deltas: single counters may pass through zero for a moment.
pub(crate) struct Counts([Padded; CLASSES + 1]);

impl Counts {
    pub(crate) fn new() -> Self {
        Self(core::array::from_fn(|_| Padded(AtomicU64::new(0))))
    }

    // Relaxed everywhere: the counts guard nothing, they are for people and watermarks.

    #[inline]
    pub(crate) fn take(&self, class: u8, frames: u64) {
        self.0[class as usize].0.fetch_sub(frames, Relaxed);
    }

    /// Adds a sum of deltas, which may be negative in two's complement.
    #[inline]
    pub(crate) fn give(&self, class: u8, frames: u64) {
        self.0[class as usize].0.fetch_add(frames, Relaxed);
    }

    pub(crate) fn transfer(&self, from: u8, to: u8, frames: u64) {
        self.take(from, frames);
        self.give(to, frames);
    }

    pub(crate) fn set(&self, class: u8, frames: u64) {
        self.0[class as usize].0.store(frames, Relaxed);
    }

    pub(crate) fn class(&self, class: u8) -> u64 {
        clamp(self.0[class as usize].0.load(Relaxed))
    }

    pub(crate) fn free(&self) -> u64 {
        clamp(self.0.iter().fold(0, |sum, count| sum.wrapping_add(count.0.load(Relaxed))))
    }
}

/// A count read in the middle of a transfer may have wrapped below zero.
fn clamp(count: u64) -> u64 {
    if count >> 63 == 1 { 0 } else { count }
}
