//! How a store of compressed pages makes room: denser codecs for what has lain longest, and compaction, as pages are
//! saved.
//!
//! A store that has room does none of this. From three quarters of its frames on, whoever saves a page also compresses
//! a few stored ones again with the entropy codec, in the order of their slots, round and round: swap hands slots out
//! in that order, so these are about the oldest. It pays a little more for each page rather than stand still once; and
//! what is done while there are still frames finds holes to put the smaller objects into. When there is no room left,
//! the same is done in larger steps until there is, or until all pages were looked at.
//!
//! Replacing pages by others leaves holes. When the pool has grown by an eighth and a part of it is holes, each save that
//! took a new block moves some objects together, until a pass over all pages is done; then the next eighth is awaited. So
//! a store that does not hold more takes little more, and one whose objects leave holes by their sizes is not moved about.

use pnode_compress::codec::{Ladder, Temperature};
use pnode_compress::store::{Compaction, Recompression};
use pnode_core::sync::{AtomicU32, AtomicU64, Lock, Ordering, SpinLock};

use super::store::StoreHandle;
use crate::kernel::Kernel;

/// The entropy codec for every page that it makes smaller. A raw page is tried, too.
const DENSER: Recompression =
    Recompression { ladder: Ladder::STANDARD, temperature: Temperature::Cold, min_age: 0 };

/// How many pages a save compresses again when the store is nearly full, and among how many slots it looks for them.
const A_FEW: (u32, u32) = (2, 16);
/// The same when there is no room at all.
const MANY: (u32, u32) = (64, 512);

/// About so many bytes of objects a save moves when it took a block of a loose store.
const SMALL_STEP: usize = 32 << 10;
/// The same when there is no room.
const STEP: usize = 256 << 10;

/// Smaller stores are not worth a pass, nor are those with fewer bytes than this for each slot: a pass looks at each slot
/// in sixteen rounds, whether there is a page or not.
const FEW: (u32, u64) = (64, 128);

/// A store with holes of this part of its pool is loose.
const LOOSE: u64 = 12;

/// How far a store has come with making room.
pub(super) struct Squeeze {
    /// The pass of compaction that is under way.
    pass: Lock<Compaction, SpinLock>,
    /// The slot that is looked at next. Two that look at the same ones find that the other has done the work.
    hand: AtomicU32,
    /// Blocks that the store had when growth was last looked at.
    seen: AtomicU32,
    /// Blocks at which the node had no more, [`u32::MAX`] if that has not happened.
    ceiling: AtomicU32,
    /// Blocks from which on growth begins a pass of compaction.
    compact_from: AtomicU32,
    /// Slots that saves without room may still look at. Each page that is saved adds some: what was looked at since the
    /// last change is not looked at again, so a full store fails soon.
    credit: AtomicU32,
    recompressed: AtomicU64,
}

impl Squeeze {
    /// For a store of `slots` slots, each of which may be looked at twice: when it first was there may have been no hole.
    pub(super) fn new(slots: u32) -> Self {
        Self {
            pass: Lock::new(Compaction::new()),
            hand: AtomicU32::new(0),
            seen: AtomicU32::new(0),
            ceiling: AtomicU32::new(u32::MAX),
            compact_from: AtomicU32::new(FEW.0),
            credit: AtomicU32::new(slots.saturating_mul(2)),
            recompressed: AtomicU64::new(0),
        }
    }

    pub(super) fn recompressed(&self) -> u64 {
        self.recompressed.load(Ordering::Relaxed)
    }
}

impl<K: Kernel> StoreHandle<K> {
    /// Makes room in a store that has none. Tells whether it is worth trying again.
    pub(super) fn make_room(&self) -> bool {
        let Squeeze { credit, ceiling, .. } = &self.squeeze;
        // Relaxed here and below: numbers by which it is decided what to try; they guard nothing.
        let left = credit.load(Ordering::Relaxed);
        if left == 0 {
            return false;
        }
        credit.store(left.saturating_sub(MANY.1), Ordering::Relaxed);
        ceiling.store(self.store.blocks(), Ordering::Relaxed);
        self.compress_again(MANY);
        if self.is_loose() {
            self.compact(STEP);
        }
        self.desks.relax();
        true
    }

    /// After a page was saved: the part of a save in keeping a store dense.
    pub(super) fn keep_dense(&self) {
        let Squeeze { seen, ceiling, credit, .. } = &self.squeeze;
        let blocks = self.store.blocks();
        let before = seen.load(Ordering::Relaxed);
        if blocks != before {
            seen.store(blocks, Ordering::Relaxed);
        }
        let most = self.store.limit().min(ceiling.load(Ordering::Relaxed));
        if blocks > most {
            // Whoever had the node's frames has given some back.
            ceiling.store(u32::MAX, Ordering::Relaxed);
        }
        if blocks > before {
            self.grown_to(blocks);
        }
        if blocks >= most - most / 4 {
            self.compress_again(A_FEW);
            let more = credit.load(Ordering::Relaxed).saturating_add(A_FEW.1);
            credit.store(more.min(self.store.slots().saturating_mul(2)), Ordering::Relaxed);
        }
    }

    /// The store took a block more: moves objects together if it is time for that.
    fn grown_to(&self, blocks: u32) {
        if u64::from(blocks) * (self.store.block_bytes() as u64) < u64::from(self.store.slots()) * FEW.1 {
            return;
        }
        let from = &self.squeeze.compact_from;
        let later = blocks.saturating_add(blocks / 8 + FEW.0);
        // A store that has become much smaller is to be looked at sooner.
        if from.load(Ordering::Relaxed) > later {
            from.store(later, Ordering::Relaxed);
        }
        if blocks >= from.load(Ordering::Relaxed) && (!self.is_loose() || self.compact(SMALL_STEP).1) {
            from.store(later, Ordering::Relaxed);
        }
    }

    /// Compresses some pages again, from where the last call stopped.
    fn compress_again(&self, (pages, slots): (u32, u32)) {
        let first = self.squeeze.hand.load(Ordering::Relaxed) % self.store.slots();
        let (mut next, mut tried) = (first, 0);
        self.desks.with(|desk| {
            let Ok(mut worker) = self.store.worker(desk.number % self.shards(), desk.scratch, desk.buffer)
            else {
                return;
            };
            while tried < pages && next - first < slots && next < self.store.slots() {
                let Ok(swept) = worker.recompress(next..next + 1, DENSER, desk.page) else { return };
                next += 1;
                tried += swept.tried;
                self.squeeze.recompressed.fetch_add(u64::from(swept.done), Ordering::Relaxed);
            }
        });
        self.squeeze.hand.store(next, Ordering::Relaxed);
    }

    /// Whether a good part of the pool is holes.
    fn is_loose(&self) -> bool {
        let pool = self.store.stats().pool_bytes;
        pool.saturating_sub(self.store.used_bytes()) > pool / LOOSE
    }

    /// Moves about so many bytes of objects together, and gives blocks that became empty back. How many frames that
    /// were, none if somebody else is at it; and whether the pass is done.
    pub(super) fn compact(&self, bytes: usize) -> (u64, bool) {
        let Some(mut pass) = self.squeeze.pass.try_lock() else { return (0, false) };
        let mut done = false;
        let before = self.store.blocks();
        self.desks.with(|desk| {
            if let Ok(mut worker) = self.store.worker(desk.number % self.shards(), desk.scratch, desk.buffer)
            {
                done = worker.compact(&mut pass, bytes).done;
                if done {
                    *pass = Compaction::new();
                }
            }
        });
        self.store.trim(usize::MAX);
        let blocks = u64::from(before.saturating_sub(self.store.blocks()));
        (blocks * (self.store.block_bytes() / K::PAGE.bytes()) as u64, done)
    }
}
