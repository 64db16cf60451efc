//! The pool: blocks of frames, who holds which granule of them, and the bytes.
//!
//! All access to a frame's bytes goes through two values that cannot be forged or copied: a [`Claim`] is the right to
//! write granules that nobody can read yet, and a [`Pin`] the right to read those of an entry that nobody can take back
//! yet. Everything else in the store is safe code that cannot break these rules, only waste space.
//!
//! ```text
//!  words   | entries: one a page | one a shared object | users of each shared object | block 0 | block 1 | ..
//!
//!  block   +-----------+---------------------------+------------------------+------ .. -----+---- .. ----+
//!          | pfn + 1   | previous 26 | next 26     | queued 1 | next 32     | bitmap: a bit | halves of  |
//!          | 0: absent | in the bin  | bin 12      | in the shard's queue   | a granule     | checksums  |
//!          +-----------+---------------------------+------------------------+------ .. -----+---- .. ----+
//! ```
//!
//! # Invariants
//!
//! - **C1** A bit of a present block is set while exactly one [`Claim`] or object entry covers its granule, and clear
//!   while none does. An absent block has all bits set and nobody covers them. While an object goes from one entry to
//!   another ([`Pin::share`], [`Lifted`](lift::Lifted)) both cover it, and who moves it alone says what becomes of it.
//! - **C2** A block is present while its first word holds the frame number plus one; its frames are held from the
//!   store's memory meanwhile. Only the holder of a claim on all of its granules makes it absent.
//! - **C3** The bytes of a granule are written only by the holder of its claim, and read only by that holder or by a
//!   pin of the entry that covers it.
//! - **C4** An entry's reader count is the number of its living pins. The claim is taken out of an entry by who turns
//!   it into something else in one compare-and-swap from a state without readers, or by its last, single pin.
#![allow(unsafe_code)]

pub(crate) mod ahead;
mod lift;
mod object;
mod share;

pub(crate) use object::Object;

use core::slice;

use pnode_core::sync::{AtomicU64, Ordering};
use pnode_core::{FrameRange, MigrateType, Order, Pfn};

use super::entry::{Entry, GRANULE, Inline};
use super::holes::{Holes, masks};
use super::shape::{ConfigError, Shape};
use crate::memory::FrameMemory;

const HOME: usize = 0;
const LINKS: usize = 1;
const QUEUE: usize = 2;
const BITMAP: usize = super::shape::BLOCK_HEADER_WORDS;

/// The right to granules of one block: nobody else covers them, so their bytes may be written.
///
/// A claim that is dropped leaks its granules; give it back with [`Pool::release`].
#[derive(Debug)]
#[must_use = "granules of a dropped claim are lost"]
pub(crate) struct Claim {
    place: u64,
    granules: u32,
}

/// The right to read the object of an entry: it stays where it is while the pin lives.
pub(crate) struct Pin<'p, 'm, P: FrameMemory> {
    pool: &'p Pool<'m, P>,
    slot: u32,
    /// The entry when it was pinned; its place, length and tag stay as they are.
    entry: Entry,
}

/// What became of an entry's last reader.
#[must_use]
pub(crate) enum Unpinned {
    /// The object is still there.
    Kept,
    /// It was removed meanwhile, and this was its last reader.
    Last(Claim),
}

/// The blocks, their frames and the page entries.
pub(crate) struct Pool<'m, P> {
    frames: P,
    /// Those of the pages, and then those of the shared objects.
    entries: &'m [AtomicU64],
    /// How many pages are each of the shared objects.
    users: &'m [AtomicU64],
    blocks: &'m [AtomicU64],
    pub(crate) shape: Shape,
    order: Order,
}

impl<'m, P: FrameMemory> Pool<'m, P> {
    /// A pool without blocks, and no page stored. What the words held is overwritten.
    pub(crate) fn new(frames: P, shape: Shape, words: &'m mut [AtomicU64]) -> Result<Self, ConfigError> {
        let order = shape.order(frames.page_size())?;
        let too_few = ConfigError::TooFewWords { words: words.len(), needed: shape.words };
        let words = &*words;
        let words = words.get(..shape.words).ok_or(too_few)?;
        let shared = shape.shared as usize;
        let (entries, blocks) = words.split_at(shape.slots as usize + 2 * shared);
        for entry in entries {
            // No page, and no user.
            entry.store(Entry::EMPTY.bits(), Ordering::Relaxed);
        }
        let (entries, users) = entries.split_at(shape.slots as usize + shared);
        for block in blocks.chunks_exact(shape.stride) {
            for (i, word) in block.iter().enumerate() {
                // INVARIANT: C1 and C2: the block is absent and its bits are set.
                word.store(if i < BITMAP { 0 } else { u64::MAX }, Ordering::Relaxed);
            }
        }
        Ok(Self { frames, entries, users, blocks, shape, order })
    }

    /// The memory that the pool was made of, once the caller has made every block absent.
    pub(crate) fn into_frames(self) -> P {
        self.frames
    }

    /// A word of a block's descriptor. `block` is below the number of blocks, `word` below the stride.
    #[inline]
    fn word(&self, block: u32, word: usize) -> &AtomicU64 {
        &self.blocks[block as usize * self.shape.stride + word]
    }

    /// The word for a block's place in the lists of its shard. Says nothing that the pool relies on.
    pub(crate) fn links(&self, block: u32) -> &AtomicU64 {
        self.word(block, LINKS)
    }

    /// The word for a block's place in the queue of its shard. Says nothing that the pool relies on.
    pub(crate) fn queue(&self, block: u32) -> &AtomicU64 {
        self.word(block, QUEUE)
    }

    #[inline]
    fn bitmap(&self, block: u32) -> &[AtomicU64] {
        let start = block as usize * self.shape.stride + BITMAP;
        &self.blocks[start..start + self.shape.places() as usize / 64]
    }

    #[inline]
    pub(crate) fn block_of(&self, place: u64) -> u32 {
        (place >> self.shape.places_shift) as u32
    }

    /// The first frame of a present block.
    pub(crate) fn pfn(&self, block: u32) -> Option<Pfn> {
        // Relaxed: whoever covers a granule of the block learned of it after the block was made present, through the
        // shard's lock or the entry's Acquire; for others the answer is a snapshot.
        let home = self.word(block, HOME).load(Ordering::Relaxed);
        Some(Pfn::new(home.checked_sub(1)?))
    }

    /// Takes frames for an absent block, whose bits are then clear. Tells whether it did.
    pub(crate) fn install(&self, block: u32) -> bool {
        let Ok(pfn) = self.frames.alloc(self.order, MigrateType::Unmovable) else { return false };
        let mapped =
            FrameRange::block(pfn, self.order).is_some_and(|range| self.frames.address(range).is_some());
        let home = pfn.checked_add(1).filter(|_| mapped).map(Pfn::get);
        // INVARIANT: C2. Relaxed: the frames are handed on by the claims on the block, which pair as said there.
        let installed = home.is_some_and(|home| {
            self.word(block, HOME).compare_exchange(0, home, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        });
        if !installed {
            // The frames came from this source just now, so it takes them back.
            let _ = self.frames.free(pfn, self.order);
            return false;
        }
        for word in self.bitmap(block) {
            // INVARIANT: C1: the block is present, by us, and nobody covers any of it. Relaxed: the lock of the shard is
            // held here and by whoever claims a granule.
            word.store(0, Ordering::Relaxed);
        }
        true
    }

    /// Gives the frames of a block back. The claim is one on the whole block; a smaller one is only released.
    pub(crate) fn retire(&self, whole: Claim) -> bool {
        let block = self.block_of(whole.place);
        if whole.granules != self.shape.places() {
            self.unset(&whole);
            return false;
        }
        let Some(pfn) = self.pfn(block) else { return false };
        // INVARIANT: C2 by the claim on all granules; C1: the bits stay set, and nobody covers them from here on.
        self.word(block, HOME).store(0, Ordering::Relaxed);
        // A source that refuses its own block keeps it; there is nothing that the store could do about it.
        let _ = self.frames.free(pfn, self.order);
        true
    }

    /// The holes of a block.
    #[inline]
    pub(crate) fn holes(&self, block: u32, want: u32) -> Holes {
        Holes::find(self.bitmap(block).iter().map(|word| word.load(Ordering::Relaxed)), want)
    }

    /// How many granules of a block are covered.
    pub(crate) fn used(&self, block: u32) -> u32 {
        self.bitmap(block).iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }

    /// Claims `granules` granules from `first` on; `None` if some of them are covered, or there are no such granules.
    #[inline]
    pub(crate) fn claim(&self, block: u32, first: u32, granules: u32) -> Option<Claim> {
        let end = first.checked_add(granules)?;
        if granules == 0 || end > self.shape.places() || block >= self.shape.blocks {
            return None;
        }
        let bitmap = self.bitmap(block);
        for (taken, (word, mask)) in masks(first, granules).enumerate() {
            // Acquire pairs with the Release in `unset`: the last holder and its readers are done with the bytes.
            let before = bitmap[word as usize].fetch_or(mask, Ordering::Acquire);
            if before & mask != 0 {
                // Only what this call has set is ours to clear again. INVARIANT: C1.
                bitmap[word as usize].fetch_and(before | !mask, Ordering::Release);
                for (word, mask) in masks(first, granules).take(taken) {
                    bitmap[word as usize].fetch_and(!mask, Ordering::Release);
                }
                return None;
            }
        }
        // INVARIANT: C1: every bit went from clear to set here, so nobody else covers the granules. An absent block has
        // no clear bit.
        Some(Claim { place: (u64::from(block) << self.shape.places_shift) + u64::from(first), granules })
    }

    /// Ends a claim; the granules are free. Returns the block, whose holes have changed.
    #[inline]
    pub(crate) fn release(&self, claim: Claim) -> u32 {
        self.unset(&claim);
        self.block_of(claim.place)
    }

    #[inline]
    fn unset(&self, claim: &Claim) {
        let block = self.block_of(claim.place);
        let first = (claim.place & u64::from(self.shape.places() - 1)) as u32;
        let bitmap = self.bitmap(block);
        for (word, mask) in masks(first, claim.granules) {
            // Release pairs with the Acquire in `claim`.
            if mask == u64::MAX {
                // By C1 all bits of the word are the claim's: nobody else clears one, and nobody can set one.
                bitmap[word as usize].store(0, Ordering::Release);
            } else {
                bitmap[word as usize].fetch_and(!mask, Ordering::Release);
            }
        }
    }

    /// The frames that hold a run of granules, and the offset of the run in bytes.
    #[inline]
    fn locate(&self, place: u64, granules: u32) -> Option<(FrameRange, usize)> {
        let first = (place & u64::from(self.shape.places() - 1)) as u32;
        if first + granules > self.shape.places() {
            return None;
        }
        let range = FrameRange::block(self.pfn(self.block_of(place))?, self.order)?;
        Some((range, first as usize * GRANULE))
    }

    /// The bytes of a claim, to write the first `len` of; `None` if the claim is shorter.
    #[inline]
    pub(crate) fn write<R>(
        &self,
        claim: &mut Claim,
        len: usize,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        if len > claim.granules as usize * GRANULE {
            return None;
        }
        let (range, offset) = self.locate(claim.place, claim.granules)?;
        let base = self.frames.address(range)?;
        // SAFETY: `locate` checked that the claim lies inside the block, and by C2 and M1 all of the block is there.
        let start = unsafe { base.add(offset) };
        let access = || {
            // SAFETY: by M1 the bytes are valid and initialised; by C1, C3 and M4 nobody else touches them while the
            // claim is borrowed exclusively, which lasts longer than the slice.
            f(unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) })
        };
        #[cfg(loom)]
        if let Some(cell) = self.frames.watch(range, offset) {
            return Some(cell.with_mut(|_| access()));
        }
        Some(access())
    }

    /// The entry of a page, if there is such a page. A snapshot.
    #[inline]
    pub(crate) fn page(&self, slot: u32) -> Option<Entry> {
        if slot < self.shape.slots { self.entry(slot) } else { None }
    }

    /// The entry of a page or, past those of the pages, of a shared object. A snapshot.
    #[inline]
    pub(crate) fn entry(&self, index: u32) -> Option<Entry> {
        // Relaxed: who wants to read the object pins the entry first.
        Some(Entry::from_bits(self.entries.get(index as usize)?.load(Ordering::Relaxed)))
    }

    /// Pins the object of `seen`, or says what the entry is by now.
    #[inline]
    pub(crate) fn pin(&self, slot: u32, seen: Entry, age: u8) -> Result<Pin<'_, 'm, P>, Entry> {
        if !seen.is_object() || seen.is_dying() || seen.readers() == Entry::MAX_READERS {
            return Err(seen);
        }
        let pinned = seen.with_reader().with_age(age);
        // Acquire pairs with the Release in `replace`: the object's bytes are visible. INVARIANT: C4.
        let swapped = self.entries[slot as usize].compare_exchange_weak(
            seen.bits(),
            pinned.bits(),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        match swapped {
            Ok(_) => Ok(Pin { pool: self, slot, entry: seen }),
            Err(now) => Err(Entry::from_bits(now)),
        }
    }

    /// Puts the object of `len` bytes that was written to a claim, or a word, or nothing, into an entry.
    ///
    /// `seen` is what the caller last saw in the entry. Returns what the entry was before, with the claim if it was an
    /// object; on failure the new claim comes back.
    #[inline]
    pub(crate) fn replace(&self, slot: u32, seen: Entry, new: New) -> Result<Option<Claim>, (New, Entry)> {
        if seen.is_object() && (seen.readers() > 0 || seen.is_dying()) {
            return Err((new, seen));
        }
        let bits = new.entry.bits();
        // Release pairs with the Acquire in `pin`: who finds the object finds its bytes. Acquire pairs with the Release
        // of the readers that unpinned the old object: they are done with its bytes. INVARIANT: C4: without readers.
        let entry = &self.entries[slot as usize];
        match entry.compare_exchange(seen.bits(), bits, Ordering::AcqRel, Ordering::Relaxed) {
            // INVARIANT: C1: by N1 the entry covers the new claim's granules from here on; the old object's are ours.
            Ok(_) => Ok(self.claim_of(seen)),
            Err(now) => Err((new, Entry::from_bits(now))),
        }
    }

    /// Marks the object of `seen` as removed although it is read: its last reader takes the claim out.
    pub(crate) fn doom(&self, slot: u32, seen: Entry) -> Result<(), Entry> {
        if !seen.is_object() || seen.readers() == 0 || seen.is_dying() {
            return Err(seen);
        }
        // The last reader takes the claim in `unpin`. Release pairs with the Acquire there: what came before, the last use of
        // a shared object's number among it, comes before whatever the entry is used for next.
        self.entries[slot as usize]
            .compare_exchange(seen.bits(), seen.dying().bits(), Ordering::Release, Ordering::Relaxed)
            .map(|_| ())
            .map_err(Entry::from_bits)
    }

    /// Sets the age of an object that has not changed since it was seen.
    pub(crate) fn set_age(&self, slot: u32, seen: Entry, age: u8) {
        if seen.is_object() && !seen.is_dying() {
            // A failure means that the page was used meanwhile, and so is not old. Relaxed: an age hands nothing over.
            let _ = self.entries[slot as usize].compare_exchange(
                seen.bits(),
                seen.with_age(age).bits(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// The claim inside an object's entry. The caller has just taken the entry away by C4.
    #[inline]
    fn claim_of(&self, taken: Entry) -> Option<Claim> {
        taken.is_object().then(|| Claim { place: taken.place(), granules: self.shape.covered(taken) })
    }
}

/// What an entry is to become.
///
/// # Invariants
///
/// - **N1** `claim` covers exactly the granules of `entry`, and is there if and only if that is an object.
#[derive(Debug)]
#[must_use]
pub(crate) struct New {
    entry: Entry,
    claim: Option<Claim>,
}

impl New {
    /// No page.
    pub(crate) const EMPTY: Self = Self { entry: Entry::EMPTY, claim: None };

    /// A page that is a shared object.
    pub(crate) fn shared(number: u32) -> Self {
        Self { entry: Entry::shared(number), claim: None }
    }

    /// A page that repeats a word.
    pub(crate) fn inline(inline: Inline) -> Self {
        Self { entry: inline.entry(), claim: None }
    }

    /// The entry that this becomes.
    pub(crate) fn entry(&self) -> Entry {
        self.entry
    }

    /// The claim, if it was not used.
    pub(crate) fn into_claim(self) -> Option<Claim> {
        self.claim
    }
}

impl<P: FrameMemory> Pin<'_, '_, P> {
    /// Where the entry is among all entries.
    pub(crate) fn index(&self) -> u32 {
        self.slot
    }

    /// The entry as it was when it was pinned.
    #[inline]
    pub(crate) fn entry(&self) -> Entry {
        self.entry
    }

    /// Calls `f` with the object; `None` if its memory is not mapped any more.
    #[inline]
    pub(crate) fn read<R>(&self, f: impl FnOnce(Object<'_>) -> R) -> Option<R> {
        let granules = self.pool.shape.covered(self.entry);
        let (range, offset) = self.pool.locate(self.entry.place(), granules)?;
        let base = self.pool.frames.address(range)?;
        // SAFETY: `locate` checked that the object lies inside the block, which by C1 and C2 is present while the entry
        // covers a granule of it.
        let start = unsafe { base.add(offset) };
        let access = || {
            // SAFETY: by M1 the bytes are valid and initialised; by C3 and C4 nobody writes them while this pin lives,
            // which is longer than the slice.
            f(self.object_in(unsafe { slice::from_raw_parts(start.as_ptr(), granules as usize * GRANULE) }))
        };
        #[cfg(loom)]
        if let Some(cell) = self.pool.frames.watch(range, offset) {
            return Some(cell.with(|_| access()));
        }
        Some(access())
    }

    /// Ends the pin.
    #[inline]
    pub(crate) fn unpin(self) -> Unpinned {
        let entry = &self.pool.entries[self.slot as usize];
        let mut seen = Entry::from_bits(entry.load(Ordering::Relaxed));
        loop {
            let last = seen.is_dying() && seen.readers() == 1;
            let after = if last { Entry::EMPTY } else { seen.without_reader() };
            // Release pairs with the Acquire of who takes the claim, in `replace` or below: this reader is done with
            // the bytes. Acquire below, as this may be who takes it from earlier readers.
            match entry.compare_exchange_weak(seen.bits(), after.bits(), Ordering::AcqRel, Ordering::Relaxed)
            {
                // INVARIANT: C4: this was the last pin, and the entry is empty now.
                Ok(_) if last => {
                    let granules = self.pool.shape.covered(seen);
                    return Unpinned::Last(Claim { place: seen.place(), granules });
                }
                Ok(_) => return Unpinned::Kept,
                Err(now) => seen = Entry::from_bits(now),
            }
        }
    }

    /// Puts `new` in the place of the pinned object and ends the pin, if this is its only reader and it was not removed.
    /// Returns the old entry and its claim. Otherwise nothing has changed, and both come back.
    pub(crate) fn replace(self, new: New) -> Result<(Entry, Claim), (Self, New)> {
        let entry = &self.pool.entries[self.slot as usize];
        let seen = Entry::from_bits(entry.load(Ordering::Relaxed));
        if seen.readers() != 1 || seen.is_dying() {
            return Err((self, new));
        }
        // Orderings as in `Pool::replace`. INVARIANT: C4: the only reader is this pin, which ends here.
        match entry.compare_exchange(seen.bits(), new.entry.bits(), Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                let granules = self.pool.shape.covered(seen);
                Ok((seen, Claim { place: seen.place(), granules }))
            }
            Err(_) => Err((self, new)),
        }
    }
}
