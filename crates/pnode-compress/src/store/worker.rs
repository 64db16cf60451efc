//! [`Worker`]: one thread's way to a store.

use core::fmt;

use pnode_core::sync::{RawLock, SpinLock, spin_loop};

use super::checksum::checksum;
use super::entry::{Entry, GRANULE, Inline, Kind};
use super::error::{Damage, LoadError, StoreError};
use super::pool::ahead::about_to_write;
use super::pool::{New, Pin, Unpinned};
use super::shard::Growth;
use super::{Checksums, PATIENCE, Slot, Store};
use crate::codec::{self, Codec, EncodeError, Scratch, Tag};
use crate::memory::FrameMemory;

/// One thread's way to a store: where its objects go, and the memory that encoding and decoding need.
pub struct Worker<'s, 'm, P: FrameMemory, L: RawLock = SpinLock> {
    store: &'s Store<'m, P, L>,
    home: usize,
    scratch: &'s mut Scratch,
    buffer: &'s mut [u8],
    /// The slot after the one that was loaded last.
    next: u32,
}

/// How a page was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    tag: Tag,
    len: usize,
}

impl Stored {
    /// The tag of the page's object.
    pub const fn tag(self) -> Tag {
        self.tag
    }

    /// The bytes of the object in the pool; 0 for a page that repeats a word and lies in its entry.
    pub const fn bytes(self) -> usize {
        self.len
    }
}

/// Why there is no such worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerError {
    /// The store has no such shard.
    NoShard {
        /// The shard.
        shard: usize,
        /// How many there are.
        shards: usize,
    },
    /// The buffer does not hold a page.
    BufferTooShort {
        /// Its length in bytes.
        bytes: usize,
        /// The length that is needed.
        needed: usize,
    },
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoShard { shard, shards } => write!(f, "there is no shard {shard}; the store has {shards}"),
            Self::BufferTooShort { bytes, needed } => {
                write!(f, "a buffer of {bytes} bytes does not hold a page; lend {needed}")
            }
        }
    }
}

impl core::error::Error for WorkerError {}

impl<'m, P: FrameMemory, L: RawLock> Store<'m, P, L> {
    /// A worker whose objects go to the blocks of `shard`, with a buffer of a page's length at least.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] if there is no such shard, or the buffer is too short.
    pub fn worker<'s>(
        &'s self,
        shard: usize,
        scratch: &'s mut Scratch,
        buffer: &'s mut [u8],
    ) -> Result<Worker<'s, 'm, P, L>, WorkerError> {
        let (bytes, needed) = (buffer.len(), self.page_size().bytes());
        if shard >= self.shards.len() {
            return Err(WorkerError::NoShard { shard, shards: self.shards.len() });
        }
        let buffer = buffer.get_mut(..needed).ok_or(WorkerError::BufferTooShort { bytes, needed })?;
        Ok(Worker { store: self, home: shard, scratch, buffer, next: 0 })
    }
}

impl<'s, 'm, P: FrameMemory, L: RawLock> Worker<'s, 'm, P, L> {
    /// The store.
    pub fn shared(&self) -> &'s Store<'m, P, L> {
        self.store
    }

    /// Compresses a page and keeps it in `slot`, in the place of the page that was there.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the slot then holds what it held.
    pub fn store(&mut self, slot: Slot, page: &[u8]) -> Result<Stored, StoreError> {
        let size = self.store.page_size();
        if slot.get() >= self.store.slots() {
            return Err(StoreError::NoSlot { slot });
        }
        let wrong = StoreError::PageLength { bytes: page.len(), page: size };
        if page.len() != size.bytes() {
            return Err(wrong);
        }
        // What would save less than two granules is kept as it is: copied once, from where it is to the pool, and loaded
        // by a copy.
        let room = size.bytes() - 2 * GRANULE;
        match codec::encode(page, &mut self.buffer[..room], self.scratch) {
            Ok(object) => self.put(slot, object.tag(), &self.buffer[..object.len()]),
            Err(EncodeError::TooLarge { .. }) => self.put(slot, Tag::plain(Codec::Raw), page),
            Err(_) => Err(wrong),
        }
    }

    /// Keeps a page that was encoded elsewhere: by a device, or by this store before it was written back.
    ///
    /// The bytes are not decoded here. If they are no encoding of a page, loading the page says so; but a raw page that is
    /// not as long as a page is refused.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the slot then holds what it held.
    pub fn store_encoded(&mut self, slot: Slot, tag: Tag, object: &[u8]) -> Result<Stored, StoreError> {
        if slot.get() >= self.store.slots() {
            return Err(StoreError::NoSlot { slot });
        }
        let page = self.store.page_size().bytes();
        let fits = if tag.codec() == Codec::Raw { object.len() == page } else { object.len() <= page };
        if object.is_empty() || !fits {
            return Err(StoreError::PageLength { bytes: object.len(), page: self.store.page_size() });
        }
        self.put(slot, tag, object)
    }

    /// Keeps an object in `slot`.
    fn put(&self, slot: Slot, tag: Tag, object: &[u8]) -> Result<Stored, StoreError> {
        let (store, len) = (self.store, object.len());
        if tag.codec() == Codec::Same {
            let word = object.try_into().ok().map(u64::from_ne_bytes);
            if let Some(inline) = word.and_then(Inline::new) {
                store.put(self.home, slot, New::inline(inline))?;
                return Ok(Stored { tag, len: 0 });
            }
        }
        let new =
            store.write(self.home, tag, object, Growth::Allowed, 0).ok_or(StoreError::Full { bytes: len })?;
        store.put(self.home, slot, new)?;
        Ok(Stored { tag, len })
    }

    pub(super) fn home(&self) -> usize {
        self.home
    }

    pub(super) fn lent(&mut self) -> (&mut Scratch, &mut [u8]) {
        (self.scratch, self.buffer)
    }

    /// Decompresses the page in `slot` into `page`. The page stays stored, and counts as young.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; a damaged object is an error of its own page only.
    pub fn load(&mut self, slot: Slot, page: &mut [u8]) -> Result<(), LoadError> {
        let next = slot.get().wrapping_add(1);
        if core::mem::replace(&mut self.next, next) == slot.get() {
            // One page after the other: what the next one needs comes while this one is decoded.
            self.store.expect(Slot::new(next));
        }
        self.load_page(slot, page)
    }

    pub(super) fn load_page(&mut self, slot: Slot, page: &mut [u8]) -> Result<(), LoadError> {
        let store = self.store;
        let size = store.page_size();
        if page.len() != size.bytes() {
            return Err(LoadError::PageLength { bytes: page.len(), page: size });
        }
        match store.pin(slot, 0)? {
            Held::Inline(word) => {
                for bytes in page.chunks_exact_mut(8) {
                    bytes.copy_from_slice(&word.to_ne_bytes());
                }
                Ok(())
            }
            Held::Object(pin) => {
                let outcome = self.decode(slot, &pin, page);
                store.unpin(pin);
                outcome
            }
        }
    }

    pub(super) fn decode(
        &mut self,
        slot: Slot,
        pin: &Pin<'_, 'm, P>,
        page: &mut [u8],
    ) -> Result<(), LoadError> {
        let damaged = |damage| LoadError::Damaged { slot, damage };
        let tag = pin.entry().tag().ok_or(damaged(Damage::Entry))?;
        let read = pin.read(|object| {
            if tag.codec() == Codec::Raw {
                about_to_write(page);
            }
            // The checksum comes second, when the bytes are in the nearest cache; the decoder takes any bytes.
            let decoded = codec::decode(tag, object.bytes(), page, self.scratch);
            object.verified().ok_or(damaged(Damage::Checksum))?;
            decoded.map_err(|error| damaged(Damage::Encoding(error)))
        });
        read.unwrap_or(Err(damaged(Damage::Entry)))
    }

    /// Removes the page in `slot`, as [`Store::remove`] does.
    ///
    /// # Errors
    ///
    /// [`super::RemoveError`] if there is no such page.
    pub fn remove(&mut self, slot: Slot) -> Result<(), super::RemoveError> {
        self.store.remove(slot)
    }
}

/// What a slot holds, held fast.
pub(super) enum Held<'p, 'm, P: FrameMemory> {
    Inline(u64),
    Object(Pin<'p, 'm, P>),
}

impl<'m, P: FrameMemory, L: RawLock> Store<'m, P, L> {
    /// Holds what is in a slot, whose age becomes `age`.
    pub(super) fn pin(&self, slot: Slot, age: u8) -> Result<Held<'_, 'm, P>, LoadError> {
        let mut patience = PATIENCE;
        let mut seen = self.pool.page(slot.get()).ok_or(LoadError::NoSlot { slot })?;
        loop {
            match seen.kind() {
                Kind::Empty => return Err(LoadError::NotStored { slot }),
                Kind::Inline(word) => return Ok(Held::Inline(word)),
                Kind::Object if seen.is_dying() => return Err(LoadError::NotStored { slot }),
                Kind::Object => {}
                Kind::Shared(_) => return self.pin_shared(slot, seen, age),
            }
            if seen.readers() == Entry::MAX_READERS {
                if patience == 0 {
                    return Err(LoadError::Busy { slot });
                }
                patience -= 1;
                spin_loop();
                seen = self.pool.page(slot.get()).unwrap_or(seen);
                continue;
            }
            match self.pool.pin(slot.get(), seen, age) {
                Ok(pin) => return Ok(Held::Object(pin)),
                Err(now) => seen = now,
            }
        }
    }

    /// Writes an object to the pool, ready to be put into an entry.
    pub(super) fn write(&self, home: usize, tag: Tag, bytes: &[u8], growth: Growth, age: u8) -> Option<New> {
        let shape = &self.pool.shape;
        let claim = self.place(home, shape.granules(tag, bytes.len()), growth)?;
        let new = self.pool.object(claim, tag, bytes.len(), age, |place| {
            if tag.codec() == Codec::Raw {
                about_to_write(place);
            }
            let sum = if shape.checksums == Checksums::On { checksum(bytes) } else { 0 };
            place.copy_from_slice(bytes);
            sum
        });
        new.map_err(|claim| self.release(claim)).ok()
    }

    /// Asks for what a load of `slot` will need.
    #[inline]
    pub(super) fn expect(&self, slot: Slot) {
        self.pool.expect(slot.get());
    }

    pub(super) fn unpin(&self, pin: Pin<'_, 'm, P>) {
        if let Unpinned::Last(claim) = pin.unpin() {
            self.release(claim);
        }
    }
}

impl<P: FrameMemory, L: RawLock> fmt::Debug for Worker<'_, '_, P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker(shard {} of {:?})", self.home, self.store)
    }
}
