//! A shard: the blocks of one worker, ordered by their largest hole, behind one lock.
//!
//! A block is always of the same shard: the remainder of its number by the number of shards. Placing an object takes
//! the shard's lock for a moment; freeing one takes none: the bits are cleared, and the block is queued for its shard,
//! which looks at the holes of all queued blocks at its next chance. So a block from which a hundred objects were freed
//! meanwhile costs the shard one look (the batching that users of zram ask for).

use core::fmt;

use pnode_core::sync::{AtomicU32, AtomicU64, Lock, Ordering, RawLock, SpinLock};

use super::bins::{ABSENT, BINS, Bins, FULL, LISTS, NONE, VICTIM, bin_of};
use super::pool::{Claim, Pool};
use crate::memory::FrameMemory;

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
    pub(crate) sharing: AtomicU64,
    pub(crate) shared: AtomicU64,
}

impl Tally {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { objects: zero(), bytes: zero(), inline: zero(), sharing: zero(), shared: zero() }
    }
}

impl<L: RawLock> Shard<L> {
    /// A shard without blocks.
    pub fn new() -> Self {
        Self { bins: Lock::new(Bins::new()), queue: AtomicU32::new(0), tally: Tally::new() }
    }

    /// Forgets its blocks, in place: a shard is too large for a kernel's stack.
    pub(crate) fn reset(&mut self) {
        let mut bins = self.bins.lock();
        bins.clear();
        drop(bins);
        self.queue = AtomicU32::new(0);
        self.tally = Tally::new();
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

/// Set in a block's word while the block is queued, or is about to be.
const QUEUED: u64 = 1 << 63;

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
            let marked = bin < BINS && bins.is_marked(bin);
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
