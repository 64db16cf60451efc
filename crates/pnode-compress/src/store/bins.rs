//! The lists of a shard's blocks, one for each size of their largest hole.
//!
//! The bins follow the two-level segregated fit of Masmano, Ripoll, Crespo and Real (ECRTS 2004), with exact bins in the
//! range of one page.

use pnode_core::sync::Ordering;

use super::holes::Holes;
use super::pool::{Claim, Pool};
use crate::memory::FrameMemory;

/// Holes of up to this many granules have a bin for each size.
const EXACT: u32 = 256;
/// Bins for each doubling above.
const STEPS_SHIFT: u32 = 5;
/// The bin of a hole of 4,096 granules, the largest.
const LARGEST: u32 = EXACT + 4 * (1 << STEPS_SHIFT);
pub(super) const BINS: usize = LARGEST as usize + 1;

/// Blocks without a hole are in no list.
pub(super) const FULL: u32 = 0;
/// The lists of absent blocks, and of those that compaction empties, are kept like bins.
pub(super) const ABSENT: u32 = BINS as u32;
pub(super) const VICTIM: u32 = BINS as u32 + 1;
pub(super) const LISTS: usize = BINS + 2;

/// No block.
pub(super) const NONE: u32 = (1 << 26) - 1;

/// The largest bin whose holes have at most `granules` granules: where a hole of this size goes.
pub(super) const fn bin_of(granules: u32) -> u32 {
    if granules <= EXACT {
        return granules;
    }
    let doubling = granules.ilog2() - EXACT.ilog2();
    let step = (granules - (EXACT << doubling)) >> (EXACT.ilog2() + doubling - STEPS_SHIFT);
    EXACT + (doubling << STEPS_SHIFT) + step
}

/// The smallest bin all of whose holes have at least `granules` granules.
pub(super) const fn bin_for(granules: u32) -> u32 {
    let bin = bin_of(granules);
    // A hole of `granules - 1` in the same bin means that the bin holds smaller ones too.
    if granules > EXACT && bin_of(granules - 1) == bin { bin + 1 } else { bin }
}

/// The lists of a shard's blocks.
pub(super) struct Bins {
    /// The number plus one of the first block of each list; 0 if none.
    firsts: [u32; LISTS],
    /// A bit a bin that is not empty.
    map: [u64; BINS.div_ceil(64)],
    /// The number plus one of the first block that was taken out of the queue and not looked at; 0 if none.
    pub(super) backlog: u32,
}

/// The links of a block in its list, as they lie in its descriptor.
#[derive(Clone, Copy)]
pub(super) struct Links {
    pub(super) previous: u32,
    pub(super) next: u32,
    pub(super) bin: u32,
}

impl Links {
    const fn from_bits(bits: u64) -> Self {
        let mask = NONE as u64;
        Self { previous: (bits & mask) as u32, next: (bits >> 26 & mask) as u32, bin: (bits >> 52) as u32 }
    }

    const fn bits(self) -> u64 {
        self.previous as u64 | (self.next as u64) << 26 | (self.bin as u64) << 52
    }
}

impl Bins {
    /// No lists.
    pub(super) fn new() -> Self {
        Self { firsts: [0; LISTS], map: [0; BINS.div_ceil(64)], backlog: 0 }
    }

    /// Forgets all lists, in place.
    pub(super) fn clear(&mut self) {
        self.firsts = [0; LISTS];
        self.map = [0; BINS.div_ceil(64)];
        self.backlog = 0;
    }

    /// Whether the list of a bin is marked as having a block.
    pub(super) fn is_marked(&self, bin: usize) -> bool {
        self.map[bin / 64] >> (bin % 64) & 1 == 1
    }

    pub(super) fn links<P: FrameMemory>(pool: &Pool<'_, P>, block: u32) -> Links {
        // Relaxed, here and below: the lock of the shard orders all accesses to the links of its blocks.
        Links::from_bits(pool.links(block).load(Ordering::Relaxed))
    }

    fn set_links<P: FrameMemory>(pool: &Pool<'_, P>, block: u32, links: Links) {
        pool.links(block).store(links.bits(), Ordering::Relaxed);
    }

    /// Takes a block out of its list, if it is in one.
    fn unlink<P: FrameMemory>(&mut self, pool: &Pool<'_, P>, block: u32) {
        let Links { previous, next, bin } = Self::links(pool, block);
        if bin == FULL {
            return;
        }
        if next != NONE {
            Self::set_links(pool, next, Links { previous, ..Self::links(pool, next) });
        }
        if previous != NONE {
            Self::set_links(pool, previous, Links { next, ..Self::links(pool, previous) });
        } else {
            self.set_head(bin, next);
            if next == NONE && bin < ABSENT {
                self.map[bin as usize / 64] &= !(1 << (bin % 64));
            }
        }
    }

    /// The first block of a list, or [`NONE`].
    pub(super) fn head(&self, bin: u32) -> u32 {
        self.firsts[bin as usize].wrapping_sub(1) & NONE
    }

    /// Makes `block`, or [`NONE`], the first of a list.
    fn set_head(&mut self, bin: u32, block: u32) {
        self.firsts[bin as usize] = (block + 1) & NONE;
    }

    /// Puts a block that is in no list at the head of the list of `bin`, or marks it as being in none.
    pub(super) fn link<P: FrameMemory>(&mut self, pool: &Pool<'_, P>, block: u32, bin: u32) {
        let mut next = NONE;
        if bin != FULL {
            next = self.head(bin);
            self.set_head(bin, block);
            if next != NONE {
                Self::set_links(pool, next, Links { previous: block, ..Self::links(pool, next) });
            }
            if bin < ABSENT {
                self.map[bin as usize / 64] |= 1 << (bin % 64);
            }
        }
        Self::set_links(pool, block, Links { previous: NONE, next, bin });
    }

    pub(super) fn relink<P: FrameMemory>(&mut self, pool: &Pool<'_, P>, block: u32, bin: u32) {
        if Self::links(pool, block).bin != bin {
            self.unlink(pool, block);
            self.link(pool, block, bin);
        }
    }

    /// The first bin from `bin` on that is not empty.
    fn first_from(&self, bin: u32) -> Option<u32> {
        let mut word = bin as usize / 64;
        let mut bits = self.map.get(word)? & u64::MAX << (bin % 64);
        while bits == 0 {
            word += 1;
            bits = *self.map.get(word)?;
        }
        Some(word as u32 * 64 + bits.trailing_zeros())
    }

    /// Claims `granules` granules in the smallest hole that the bins tell of.
    pub(super) fn fit<P: FrameMemory>(&mut self, pool: &Pool<'_, P>, granules: u32) -> Option<Claim> {
        while let Some(bin) = self.first_from(bin_for(granules)) {
            let block = self.head(bin);
            let places = pool.shape.places();
            // By the lock an empty block stays empty, and it is alone in its bin.
            let holes =
                if bin == bin_of(places) { Holes::whole(places) } else { pool.holes(block, granules) };
            let claim = holes.best.and_then(|(start, _)| pool.claim(block, start, granules));
            let left = if claim.is_some() { holes.largest_after(granules) } else { holes.largest };
            self.relink(pool, block, bin_of(left));
            if claim.is_some() {
                return claim;
            }
            if bin_of(left) == bin {
                // The claim of a hole that was there failed, which only a broken bitmap explains; the block is left alone.
                self.relink(pool, block, FULL);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_monotone_and_bin_for_is_safe() {
        for granules in 1..=4096 {
            assert!(bin_of(granules) >= bin_of(granules - 1), "{granules}");
            assert!(bin_of(granules) <= LARGEST);
            // Every hole that lies in a bin from `bin_for` on holds the granules.
            assert!(granules == 1 || bin_of(granules - 1) < bin_for(granules), "{granules}");
            // No better bin is passed over while sizes are exact.
            assert!(granules > EXACT || bin_for(granules) == granules);
        }
        assert_eq!(bin_of(4096), LARGEST);
        for places in [512, 1024, 2048, 4096] {
            // The bin of an empty block holds nothing else.
            assert!(bin_of(places - 1) < bin_of(places));
        }
    }
}
