//! The packed store: pages as objects in blocks of frames, with little lost between them.
//!
//! ```text
//!  slot 7 --> entry (8 bytes) --> place, length, tag
//!                                   |
//!             block (16 KiB)        v
//!             +---------+-----------+---------+------+--------+
//!             | object  | object    | hole    |object|  hole  |     objects are whole in one block,
//!             +---------+-----------+---------+------+--------+     and are decoded where they lie
//! ```
//!
//! A store has a fixed number of *slots*, one a page, that its user numbers as he likes (swap offsets, frames of a
//! compressed node). A [`Worker`] is a thread's way to it: it lends the store what encoding needs, and names the
//! [`Shard`] whose blocks new objects go to.
//!
//! **Who waits for whom.** Placing an object takes one lock, that of a shard, for some hundred instructions. Loading and
//! removing take none. A load never waits. A store to a slot that is being read waits a moment, then says
//! [`StoreError::Busy`]. A removal never waits: if the page is being read, its last reader frees it. The memory's
//! [`FrameSource`](pnode_core::FrameSource) is called under a shard's lock.
//!
//! **Why it packs well.** Every hole is of use to every smaller object, and with thousands of objects there is nearly
//! always a hole of almost the right size: best fit into the holes of 16 KiB blocks wastes 3 to 4 % under steady
//! replacement with nothing moved, where size classes (zsmalloc, zblock) waste 11 to 17 % at such pool sizes.
//!
//! ```
//! use pnode_compress::codec::Scratch;
//! use pnode_compress::memory::{BufferFrames, PageBytes};
//! use pnode_compress::store::{Config, Shard, Slot, Store};
//! use pnode_core::sync::AtomicU64;
//!
//! // Everything a store needs is lent by its caller: frames, words of metadata, a shard for each worker.
//! let config = Config::new(100, 16);
//! let mut pages = vec![PageBytes::ZEROED; 64];
//! let mut taken = [AtomicU64::new(0)];
//! let mut words: Vec<AtomicU64> = (0..config.words()?).map(|_| AtomicU64::new(0)).collect();
//! let mut shards: [Shard; 1] = [Shard::new()];
//! let store = Store::new(config, BufferFrames::new(&mut pages, &mut taken)?, &mut words, &mut shards)?;
//!
//! let (mut scratch, mut buffer) = (Scratch::new(), [0; 4096]);
//! let mut worker = store.worker(0, &mut scratch, &mut buffer)?;
//!
//! let page = [*b"a line in a log\n"; 256].concat();
//! worker.store(Slot::new(42), &page)?;
//! let mut back = [0; 4096];
//! worker.load(Slot::new(42), &mut back)?;
//! assert_eq!(page, back);
//! assert_eq!(store.stats().original_bytes, 4096);
//! assert!(store.stats().compressed_bytes < 100);
//! store.remove(Slot::new(42))?;
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod audit;
mod batch;
mod bins;
mod checksum;
mod compact;
mod dedup;
mod entry;
mod error;
mod holes;
mod moving;
mod pool;
mod shape;
mod shard;
mod share;
mod stats;
mod sweep;
mod worker;

pub use audit::AuditError;
pub use batch::Incoming;
pub use compact::{Compaction, Progress};
pub use dedup::{Deduplicated, Deduplication};
pub use error::{Damage, LoadError, RemoveError, StoreError};
pub use moving::MoveError;
pub use shape::{BlockSize, Checksums, Config, ConfigError};
pub use shard::Shard;
pub use stats::Stats;
pub use sweep::{Recompression, Swept, WriteBack};
pub use worker::{Stored, Worker, WorkerError};

use core::fmt;

use pnode_core::PageSize;
use pnode_core::sync::{AtomicU32, AtomicU64, Ordering, RawLock, SpinLock, spin_loop};

use crate::memory::FrameMemory;
use entry::{Entry, Kind};
use pool::{Claim, New, Pool};
use shape::Shape;
use shard::{Growth, Limit};

/// The number of a page in a store, 0 to one below [`Config`]'s slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// The slot with number `number`.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The slot's number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// How often a change of a slot looks again before it says that the slot is busy.
#[cfg(not(loom))]
const PATIENCE: u32 = 4096;
#[cfg(loom)]
const PATIENCE: u32 = 2;

/// A packed store of compressed pages over the frames of a [`FrameMemory`]; see the [module](self).
///
/// All calls may come from many threads at once. Dropping a store leaks its frames; [`Store::dismantle`] gives them back.
pub struct Store<'m, P: FrameMemory, L: RawLock = SpinLock> {
    pool: Pool<'m, P>,
    shards: &'m [Shard<L>],
    limit: Limit,
}

impl<'m, P: FrameMemory, L: RawLock> Store<'m, P, L> {
    /// An empty store over `memory`, which it takes frames from when it needs them.
    ///
    /// `words` holds at least [`Config::words`] words; what they and the shards hold is overwritten. A shard for each
    /// worker keeps workers out of each other's way; one is enough.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there can be no such store.
    pub fn new(
        config: Config,
        memory: P,
        words: &'m mut [AtomicU64],
        shards: &'m mut [Shard<L>],
    ) -> Result<Self, ConfigError> {
        let shape = Shape::new(config)?;
        if shards.is_empty() || shards.len() > shape.blocks as usize {
            let Config { slots, blocks, .. } = config;
            return Err(ConfigError::Empty { slots, blocks, shards: shards.len() });
        }
        let pool = Pool::new(memory, shape, words)?;
        for shard in shards.iter_mut() {
            shard.reset();
        }
        let shards = &*shards;
        for (i, shard) in shards.iter().enumerate() {
            shard.adopt(&pool, (i as u32..shape.blocks).step_by(shards.len()));
        }
        let limit = Limit { blocks: AtomicU32::new(0), most: AtomicU32::new(shape.blocks) };
        Ok(Self { pool, shards, limit })
    }

    /// The size of the store's pages.
    pub fn page_size(&self) -> PageSize {
        self.pool.shape.page
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.pool.shape.slots
    }

    /// The bytes of a block, the unit in which the store takes frames.
    pub fn block_bytes(&self) -> usize {
        self.pool.shape.block.bytes()
    }

    /// Whether the slot holds a page, by now.
    pub fn contains(&self, slot: Slot) -> bool {
        self.pool.page(slot.0).is_some_and(|entry| entry.kind() != Kind::Empty && !entry.is_dying())
    }

    /// Removes the page in `slot`. Its bytes in the pool are free, at once or when its last reader is done.
    ///
    /// # Errors
    ///
    /// [`RemoveError`] if there is no such page.
    pub fn remove(&self, slot: Slot) -> Result<(), RemoveError> {
        self.take_out(slot).map(|entry| self.recount(self.home_of(entry), entry, Entry::EMPTY))
    }

    /// Removes the page in `slot` without counting it, and returns its entry.
    #[inline]
    fn take_out(&self, slot: Slot) -> Result<Entry, RemoveError> {
        let mut seen = self.pool.page(slot.0).ok_or(RemoveError::NoSlot { slot })?;
        loop {
            if seen.kind() == Kind::Empty || seen.is_dying() {
                return Err(RemoveError::NotStored { slot });
            }
            let outcome = if seen.readers() > 0 && seen.is_object() {
                self.pool.doom(slot.0, seen).map(|()| None)
            } else {
                self.pool.replace(slot.0, seen, New::EMPTY).map_err(|(_, now)| now)
            };
            match outcome {
                Ok(claim) => {
                    self.let_go(seen, claim);
                    return Ok(seen);
                }
                Err(now) => seen = now,
            }
        }
    }

    /// The most blocks that the store may have from now on. A lower limit takes nothing away: the store refuses to grow
    /// until removals and compaction have brought it below.
    pub fn set_limit(&self, blocks: u32) {
        self.limit.most.store(blocks.min(self.pool.shape.blocks), Ordering::Relaxed);
    }

    /// The most blocks that the store may have.
    pub fn limit(&self) -> u32 {
        self.limit.most.load(Ordering::Relaxed)
    }

    /// The blocks that the store has frames for.
    pub fn blocks(&self) -> u32 {
        self.limit.blocks.load(Ordering::Relaxed)
    }

    /// Gives the frames of up to `most` empty blocks back to the memory. Returns how many blocks it gave.
    ///
    /// Each shard keeps one empty block otherwise, so that a store and a removal in turn do not take and give frames.
    pub fn trim(&self, most: usize) -> usize {
        self.shards.iter().fold(0, |given, shard| given + shard.trim(&self.pool, &self.limit, most - given))
    }

    /// The bytes of the pool that objects cover, at most: each object with its checksum, rounded up to 32 bytes.
    ///
    /// What of [`Stats::pool_bytes`] is not covered is room for further objects that needs no block more.
    pub fn used_bytes(&self) -> u64 {
        let stats = self.stats();
        let rounding = (self.pool.shape.checksum_bytes() + entry::GRANULE - 1) as u64;
        let objects = stats.pages - stats.inline_pages - stats.shared_pages + stats.shared_objects;
        stats.compressed_bytes + objects * rounding
    }

    /// What the store holds.
    pub fn stats(&self) -> Stats {
        let sum = |part: fn(&shard::Tally) -> &AtomicU64| {
            let parts = self.shards.iter().map(|shard| part(&shard.tally).load(Ordering::Relaxed));
            let sum = parts.fold(0, u64::wrapping_add);
            // While calls are in flight a removal may be seen without what it removed: less than nothing is nothing.
            if sum > i64::MAX as u64 { 0 } else { sum }
        };
        let inline_pages = sum(|tally| &tally.inline);
        let shared_pages = sum(|tally| &tally.sharing);
        let pages = sum(|tally| &tally.objects) + inline_pages + shared_pages;
        let blocks = u64::from(self.limit.blocks.load(Ordering::Relaxed));
        Stats {
            pages,
            inline_pages,
            shared_pages,
            shared_objects: sum(|tally| &tally.shared),
            original_bytes: pages * self.pool.shape.page.bytes() as u64,
            compressed_bytes: sum(|tally| &tally.bytes),
            pool_bytes: blocks * self.pool.shape.block.bytes() as u64,
            metadata_bytes: (self.pool.shape.words * 8 + size_of_val(self.shards)) as u64,
        }
    }

    /// Removes every page and gives all frames back, and the memory with them.
    pub fn dismantle(self) -> P {
        for slot in 0..self.pool.shape.slots {
            // A slot that holds no page is what this is for.
            let _ = self.remove(Slot(slot));
        }
        self.trim(usize::MAX);
        self.pool.into_frames()
    }

    #[inline]
    fn shard_number(&self, block: u32) -> usize {
        // There are at most as many shards as blocks, so their number fits; a narrow division is a quick one.
        (block % self.shards.len() as u32) as usize
    }

    #[inline]
    fn shard_of(&self, block: u32) -> &'m Shard<L> {
        &self.shards[self.shard_number(block)]
    }

    /// The shard of an entry's object; any shard for an entry that is no object.
    fn home_of(&self, entry: Entry) -> usize {
        if entry.is_object() { self.shard_number(self.pool.block_of(entry.place())) } else { 0 }
    }

    /// Claims granules for an object: in the shard `home`, or else in any.
    fn place(&self, home: usize, granules: u32, growth: Growth) -> Option<Claim> {
        let count = self.shards.len();
        (home..home + count)
            .find_map(|shard| self.shards[shard % count].place(&self.pool, &self.limit, granules, growth))
    }

    #[inline]
    fn release(&self, claim: Claim) {
        let block = self.pool.release(claim);
        self.shard_of(block).freed(&self.pool, block);
    }

    /// Counts that an entry has turned from `old` into `new`. Only the sums over all shards mean anything, so what can be
    /// counted in one place is.
    fn recount(&self, home: usize, old: Entry, new: Entry) {
        self.count(home, Change::of(self.page_size(), old, new));
    }

    #[inline]
    fn count(&self, home: usize, change: Change) {
        let tally = &self.shards[home].tally;
        let Change { bytes, objects, inline, sharing, shared } = change;
        for (part, more) in [
            (&tally.bytes, bytes),
            (&tally.objects, objects),
            (&tally.inline, inline),
            (&tally.sharing, sharing),
            (&tally.shared, shared),
        ] {
            if more != 0 {
                part.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// Puts `new` into a slot and frees what it held.
    fn put(&self, home: usize, slot: Slot, mut new: New) -> Result<(), StoreError> {
        let fresh = new.entry();
        let mut patience = PATIENCE;
        let mut seen = self.pool.page(slot.0).ok_or(StoreError::NoSlot { slot })?;
        loop {
            match self.pool.replace(slot.0, seen, new) {
                Ok(claim) => {
                    // A page that was removed while it is read cannot be replaced, so `seen` still counts.
                    self.recount(home, seen, fresh);
                    self.let_go(seen, claim);
                    return Ok(());
                }
                Err((unused, now)) if patience == 0 => {
                    let _ = now;
                    unused.into_claim().into_iter().for_each(|claim| self.release(claim));
                    return Err(StoreError::Busy { slot });
                }
                Err((unused, now)) => {
                    if now == seen {
                        patience -= 1;
                        spin_loop();
                    }
                    new = unused;
                    seen = self.pool.page(slot.0).unwrap_or(now);
                }
            }
        }
    }
}

/// By how much the counters of a store change, modulo 2^64.
#[derive(Clone, Copy)]
struct Change {
    bytes: u64,
    /// Pages that have an object of their own.
    objects: u64,
    inline: u64,
    /// Pages that are a shared object.
    sharing: u64,
    /// Shared objects.
    shared: u64,
}

impl Change {
    const NONE: Self = Self { bytes: 0, objects: 0, inline: 0, sharing: 0, shared: 0 };

    /// The change when the entry of a page of size `page` turns from `old` into `new`.
    fn of(page: PageSize, old: Entry, new: Entry) -> Self {
        let there = |entry: Entry| u64::from(entry != Entry::EMPTY);
        let sharing = |entry: Entry| u64::from(entry.is_shared());
        let sharing = sharing(new).wrapping_sub(sharing(old));
        let (mut bytes, mut objects) = (0u64, 0u64);
        // Pages that repeat a word are the quick ones, so they pass this by with one test.
        if old.is_object() || new.is_object() {
            let len = |entry: Entry| if entry.is_object() { entry.len(page) as u64 } else { 0 };
            bytes = len(new).wrapping_sub(len(old));
            objects = u64::from(new.is_object()).wrapping_sub(u64::from(old.is_object()));
        }
        // What is neither object nor shared, and not empty, is a word.
        let inline = there(new).wrapping_sub(there(old)).wrapping_sub(objects).wrapping_sub(sharing);
        Self { bytes, objects, inline, sharing, shared: 0 }
    }

    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.objects = self.objects.wrapping_add(other.objects);
        self.inline = self.inline.wrapping_add(other.inline);
        self.sharing = self.sharing.wrapping_add(other.sharing);
        self.shared = self.shared.wrapping_add(other.shared);
    }
}

impl<P: FrameMemory, L: RawLock> fmt::Debug for Store<'_, P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({:?})", self.stats())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::{BufferFrames, PageBytes};

    #[test]
    fn a_removal_that_is_counted_before_its_page_is_no_panic() {
        let config = Config::new(8, 1);
        let mut pages = [PageBytes::ZEROED; 4];
        let mut taken = [AtomicU64::new(0)];
        let mut words = [const { AtomicU64::new(0) }; 64];
        let mut shards = [Shard::<SpinLock>::new()];
        let memory = BufferFrames::new(&mut pages, &mut taken).unwrap();
        let store = Store::new(config, memory, &mut words, &mut shards).unwrap();
        let tally = &store.shards[0].tally;
        tally.inline.store(3, Ordering::Relaxed);
        tally.objects.store(u64::MAX, Ordering::Relaxed);
        tally.bytes.store(100u64.wrapping_neg(), Ordering::Relaxed);
        let stats = store.stats();
        assert_eq!((stats.pages, stats.inline_pages, stats.compressed_bytes), (3, 3, 0));
        assert_eq!(store.used_bytes(), 0);
    }
}
