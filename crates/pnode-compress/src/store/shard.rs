//! A shard: the blocks of one worker, ordered by their largest hole, behind one lock.
//!
//! A block is always of the same shard: the remainder of its number by the number of shards. Placing an object takes
//! the shard's lock for a moment; freeing one takes none: the bits are cleared, and the block is queued for its shard,
//! which looks at the holes of all queued blocks at its next chance. So a block from which a hundred objects were freed
//! meanwhile costs the shard one look (the batching that users of zram ask for).
//!
//! The bins follow the two-level segregated fit of Masmano, Ripoll, Crespo and Real (ECRTS 2004), with exact bins in the
//! range of one page.

use core::fmt;

use pnode_core::sync::{AtomicU32, AtomicU64, Lock, Ordering, RawLock, SpinLock};

use super::holes::Holes;
use super::pool::{Claim, Pool};
use crate::memory::FrameMemory;

/// Holes of up to this many granules have a bin for each size.
const EXACT: u32 = 256;
/// Bins for each doubling above.
const STEPS_SHIFT: u32 = 5;
/// The bin of a hole of 4,096 granules, the largest.
const LARGEST: u32 = EXACT + 4 * (1 << STEPS_SHIFT);
const BINS: usize = LARGEST as usize + 1;

/// Blocks without a hole are in no list.
const FULL: u32 = 0;
/// The lists of absent blocks, and of those that compaction empties, are kept like bins.
const ABSENT: u32 = BINS as u32;
const VICTIM: u32 = BINS as u32 + 1;
const LISTS: usize = BINS + 2;

const NONE: u32 = (1 << 26) - 1;

/// The largest bin whose holes have at most `granules` granules: where a hole of this size goes.
pub(crate) const fn bin_of(granules: u32) -> u32 {
    if granules <= EXACT {
        return granules;
    }
    let doubling = granules.ilog2() - EXACT.ilog2();
    let step = (granules - (EXACT << doubling)) >> (EXACT.ilog2() + doubling - STEPS_SHIFT);
    EXACT + (doubling << STEPS_SHIFT) + step
}

/// The smallest bin all of whose holes have at least `granules` granules.
pub(crate) const fn bin_for(granules: u32) -> u32 {
    let bin = bin_of(granules);
    // A hole of `granules - 1` in the same bin means that the bin holds smaller ones too.
    if granules > EXACT && bin_of(granules - 1) == bin { bin + 1 } else { bin }
}

/// The lists of a shard's blocks.
struct Bins {
    /// The number plus one of the first block of each list; 0 if none.
    firsts: [u32; LISTS],
    /// A bit a bin that is not empty.
    map: [u64; BINS.div_ceil(64)],
    /// The number plus one of the first block that was taken out of the queue and not looked at; 0 if none.
    backlog: u32,
}

/// The blocks of one worker, and what it has stored. The caller lends a store one for each worker.
///
/// Takes part in one store at a time: [`super::Store::new`] borrows it exclusively.
#[repr(align(128))]
pub struct Shard<L: RawLock = SpinLock> {
    bins: Lock<Bins, L>,
    /// The number plus one of the block that was queued last; 0 if none.
    queue: AtomicU32,
    pub(crate) tally: Tally,
}

/// What was stored less what was removed by users of one shard. Each part may wrap; the sum over all shards is exact.
pub(crate) struct Tally {
    pub(crate) objects: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) inline: AtomicU64,
}

impl<L: RawLock> Shard<L> {
    /// A shard without blocks.
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            bins: Lock::new(Bins { firsts: [0; LISTS], map: [0; BINS.div_ceil(64)], backlog: 0 }),
            queue: AtomicU32::new(0),
            tally: Tally { objects: zero(), bytes: zero(), inline: zero() },
        }
    }

    /// Forgets its blocks, in place: a shard is too large for a kernel's stack.
    pub(crate) fn reset(&mut self) {
        let mut bins = self.bins.lock();
        bins.firsts = [0; LISTS];
        bins.map = [0; BINS.div_ceil(64)];
        bins.backlog = 0;
        drop(bins);
        self.queue = AtomicU32::new(0);
        self.tally =
            Tally { objects: AtomicU64::new(0), bytes: AtomicU64::new(0), inline: AtomicU64::new(0) };
    }
}

impl<L: RawLock> Default for Shard<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: RawLock> fmt::Debug for Shard<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shard(objects {})", self.tally.objects.load(Ordering::Relaxed) as i64)
    }
}

/// The links of a block in its list, as they lie in its descriptor.
#[derive(Clone, Copy)]
struct Links {
    previous: u32,
    next: u32,
    bin: u32,
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

const QUEUED: u64 = 1 << 63;

impl Bins {
    fn links<P: FrameMemory>(pool: &Pool<'_, P>, block: u32) -> Links {
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
    fn head(&self, bin: u32) -> u32 {
        self.firsts[bin as usize].wrapping_sub(1) & NONE
    }

    /// Makes `block`, or [`NONE`], the first of a list.
    fn set_head(&mut self, bin: u32, block: u32) {
        self.firsts[bin as usize] = (block + 1) & NONE;
    }

    /// Puts a block that is in no list at the head of the list of `bin`, or marks it as being in none.
    fn link<P: FrameMemory>(&mut self, pool: &Pool<'_, P>, block: u32, bin: u32) {
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

    fn relink<P: FrameMemory>(&mut self, pool: &Pool<'_, P>, block: u32, bin: u32) {
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
    fn fit<P: FrameMemory>(&mut self, pool: &Pool<'_, P>, granules: u32) -> Option<Claim> {
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

/// How many blocks a store has, and may have.
pub(crate) struct Limit {
    pub(crate) blocks: AtomicU32,
    pub(crate) most: AtomicU32,
}

impl Limit {
    /// Counts one block more, if the limit allows it.
    fn take(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        // Relaxed, as the count guards no memory: it is a number to compare with a limit.
        self.blocks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |blocks| {
                (blocks < most).then_some(blocks + 1)
            })
            .is_ok()
    }

    fn give_back(&self) {
        self.blocks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many queued blocks a store looks at before it places its object, so that one store does not pay for a million
/// frees.
const SETTLED_PER_STORE: usize = 8;

impl<L: RawLock> Shard<L> {
    /// Hands the shard its absent blocks.
    pub(crate) fn adopt<P: FrameMemory>(&self, pool: &Pool<'_, P>, blocks: impl Iterator<Item = u32>) {
        let mut bins = self.bins.lock();
        for block in blocks {
            bins.link(pool, block, ABSENT);
        }
    }

    /// Claims `granules` granules: the best hole in this shard, else a hole in a new block.
    pub(crate) fn place<P: FrameMemory>(
        &self,
        pool: &Pool<'_, P>,
        limit: &Limit,
        granules: u32,
        growth: Growth,
    ) -> Option<Claim> {
        let mut bins = self.bins.lock();
        self.settle(&mut bins, pool, limit, SETTLED_PER_STORE);
        if let Some(claim) = bins.fit(pool, granules) {
            return Some(claim);
        }
        if self.settle(&mut bins, pool, limit, usize::MAX) > 0 {
            if let Some(claim) = bins.fit(pool, granules) {
                return Some(claim);
            }
        }
        if growth != Growth::Never && self.grow(&mut bins, pool, limit) {
            return bins.fit(pool, granules);
        }
        if growth != Growth::Allowed {
            return None;
        }
        // Better to let compaction fail than a store: its victims have room.
        while bins.head(VICTIM) != NONE {
            let block = bins.head(VICTIM);
            bins.relink(pool, block, bin_of(pool.holes(block, 0).largest));
            if let Some(claim) = bins.fit(pool, granules) {
                return Some(claim);
            }
        }
        None
    }

    /// Takes frames for an absent block. Tells whether it did.
    fn grow<P: FrameMemory>(&self, bins: &mut Bins, pool: &Pool<'_, P>, limit: &Limit) -> bool {
        let block = bins.head(ABSENT);
        if block == NONE || !limit.take() {
            return false;
        }
        if !pool.install(block) {
            limit.give_back();
            return false;
        }
        bins.relink(pool, block, bin_of(pool.shape.places()));
        true
    }

    /// Sets a present block apart for compaction: nothing is placed in it until it is spared. An empty one is given back
    /// at once: no removal would bring it up again if the pass were dropped.
    pub(crate) fn condemn<P: FrameMemory>(&self, pool: &Pool<'_, P>, limit: &Limit, block: u32) {
        let mut bins = self.bins.lock();
        if Bins::links(pool, block).bin == ABSENT {
            return;
        }
        bins.relink(pool, block, VICTIM);
        if pool.holes(block, 0).largest == pool.shape.places() {
            self.retire(&mut bins, pool, limit, block);
        }
    }

    /// Puts a block that was set apart back into its bin, or gives it back if it is empty.
    pub(crate) fn spare<P: FrameMemory>(&self, pool: &Pool<'_, P>, limit: &Limit, block: u32) {
        let mut bins = self.bins.lock();
        if Bins::links(pool, block).bin == VICTIM {
            let largest = pool.holes(block, 0).largest;
            if largest < pool.shape.places() || !self.retire(&mut bins, pool, limit, block) {
                bins.relink(pool, block, bin_of(largest));
            }
        }
    }

    /// Whether the block is set apart. A snapshot.
    pub(crate) fn is_condemned<P: FrameMemory>(&self, pool: &Pool<'_, P>, block: u32) -> bool {
        Bins::links(pool, block).bin == VICTIM
    }

    /// Tells the shard that a granule of its block `block` was freed. Takes no lock.
    pub(crate) fn freed<P: FrameMemory>(&self, pool: &Pool<'_, P>, block: u32) {
        let word = pool.queue(block);
        // Release pairs with the Acquire in `settle`: who takes the block out of the queue sees the cleared bits, even
        // if another call has put it in. All later changes of the word are read-modify-write, so the pairing holds
        // through them.
        if word.fetch_or(QUEUED, Ordering::Release) & QUEUED != 0 {
            return;
        }
        let mut head = self.queue.load(Ordering::Relaxed);
        loop {
            word.swap(QUEUED | u64::from(head), Ordering::Relaxed);
            // Release pairs with the Acquire in `settle`: who finds the block finds its successor.
            match self.queue.compare_exchange_weak(head, block + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Looks at up to `most` queued blocks again. Returns how many there were.
    fn settle<P: FrameMemory>(
        &self,
        bins: &mut Bins,
        pool: &Pool<'_, P>,
        limit: &Limit,
        most: usize,
    ) -> usize {
        let mut settled = 0;
        while settled < most {
            if bins.backlog == 0 {
                if self.queue.load(Ordering::Relaxed) == 0 {
                    break;
                }
                // Acquire pairs with the Release in `freed`.
                bins.backlog = self.queue.swap(0, Ordering::Acquire);
            }
            let Some(block) = bins.backlog.checked_sub(1) else { break };
            // Acquire pairs with the Release in `freed`. The block may be queued again from here on, and the bits are
            // read after it: a granule that is freed too late to be seen below queues the block anew.
            let was = pool.queue(block).swap(0, Ordering::Acquire);
            bins.backlog = was as u32;
            self.look_at(bins, pool, limit, block);
            settled += 1;
        }
        settled
    }

    /// Puts a block into the bin of its largest hole, or gives it back if it is empty and not the only such block.
    fn look_at<P: FrameMemory>(&self, bins: &mut Bins, pool: &Pool<'_, P>, limit: &Limit, block: u32) {
        let bin = Bins::links(pool, block).bin;
        if bin == ABSENT {
            return;
        }
        let largest = pool.holes(block, 0).largest;
        if largest < pool.shape.places() {
            if bin != VICTIM {
                bins.relink(pool, block, bin_of(largest));
            }
            return;
        }
        let top = bin_of(largest);
        let spare = bins.head(top);
        if bin == VICTIM || spare != NONE && spare != block {
            self.retire(bins, pool, limit, block);
        } else {
            bins.relink(pool, block, top);
        }
    }

    /// Gives the frames of an empty block back. Tells whether it was empty.
    fn retire<P: FrameMemory>(&self, bins: &mut Bins, pool: &Pool<'_, P>, limit: &Limit, block: u32) -> bool {
        let Some(whole) = pool.claim(block, 0, pool.shape.places()) else { return false };
        if !pool.retire(whole) {
            return false;
        }
        bins.relink(pool, block, ABSENT);
        limit.give_back();
        true
    }

    /// Gives the frames of up to `most` empty blocks back. Returns how many it gave.
    pub(crate) fn trim<P: FrameMemory>(&self, pool: &Pool<'_, P>, limit: &Limit, most: usize) -> usize {
        let mut bins = self.bins.lock();
        self.settle(&mut bins, pool, limit, usize::MAX);
        let top = bin_of(pool.shape.places());
        let mut given = 0;
        while given < most && bins.head(top) != NONE {
            let block = bins.head(top);
            if !self.retire(&mut bins, pool, limit, block) {
                break;
            }
            given += 1;
        }
        given
    }

    /// Checks the lists of the shard's blocks. Returns the number of blocks in its lists, or the first block that is
    /// not where it should be.
    pub(crate) fn audit<P: FrameMemory>(
        &self,
        pool: &Pool<'_, P>,
        limit: &Limit,
        blocks: impl Iterator<Item = u32>,
    ) -> Result<(), u32> {
        let mut bins = self.bins.lock();
        self.settle(&mut bins, pool, limit, usize::MAX);
        let mut listed = 0usize;
        for bin in 0..LISTS {
            let head = bins.head(bin as u32);
            let (mut previous, mut block) = (NONE, head);
            while block != NONE {
                let links = Bins::links(pool, block);
                if links.bin as usize != bin || links.previous != previous {
                    return Err(block);
                }
                listed += 1;
                (previous, block) = (block, links.next);
            }
            let marked = bin < BINS && bins.map[bin / 64] >> (bin % 64) & 1 == 1;
            if bin < BINS && marked != (head != NONE) {
                return Err(head);
            }
        }
        for block in blocks {
            let bin = Bins::links(pool, block).bin;
            let home = if pool.pfn(block).is_none() { ABSENT } else { bin_of(pool.holes(block, 0).largest) };
            if bin != home && bin != VICTIM {
                return Err(block);
            }
            if bin != FULL {
                listed = listed.wrapping_sub(1);
            }
        }
        if listed == 0 { Ok(()) } else { Err(NONE) }
    }
}

/// Where an object may be placed, if no hole of an ordinary block fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// In a new block, or else in one that compaction has set apart.
    Allowed,
    /// In a new block.
    Fresh,
    /// Nowhere.
    Never,
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
