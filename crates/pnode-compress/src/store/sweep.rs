//! Sweeps over the pages of a store: growing older, recompressing what is old, writing it back elsewhere.
//!
//! An age is three bits of the page's entry: the number of [`Store::grow_older`] sweeps since the page was stored or
//! loaded, up to 6. A page that recompression could not make smaller is marked with 7 and not tried again until it is
//! used, as zram does.
//!
//! A sweep is a range of slots per call, so the host decides how long it runs and where it goes on.

use core::ops::Range;

use pnode_core::sync::RawLock;

use super::entry::{Entry, Kind};
use super::error::Damage;
use super::pool::{New, Object, Pin};
use super::shard::Growth;
use super::worker::Worker;
use super::{LoadError, Slot, Store};
use crate::codec::{Codec, Ladder, ReencodeError, Tag, Temperature};
use crate::memory::FrameMemory;

/// Which pages to recompress, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recompression {
    /// By which rule an object is encoded again.
    pub ladder: Ladder,
    /// How cold the pages are taken to be. Objects of its codec or a colder one are left alone, and so are same-filled
    /// pages.
    pub temperature: Temperature,
    /// Pages of at least this age: 0 is all of them, 6 the oldest.
    pub min_age: u8,
}

/// What a sweep came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Pages that met the condition.
    pub tried: u32,
    /// Pages that were made smaller, or written back.
    pub done: u32,
    /// Bytes that this freed in the pool, less those that it took.
    pub saved_bytes: u64,
    /// Pages that were found to be damaged. They stay; loading them says so.
    pub damaged: u32,
}

/// What the host did with a page that was offered to it for writing back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteBack {
    /// It is safe elsewhere: the store removes it.
    Written,
    /// The store keeps it.
    Keep,
}

impl<'m, P: FrameMemory, L: RawLock> Store<'m, P, L> {
    /// Makes the pages of `slots` one sweep older. Slots past the end are ignored.
    pub fn grow_older(&self, slots: Range<u32>) {
        for slot in slots.start..slots.end.min(self.slots()) {
            // A shared object ages with the page that has its number, so that a sweep over all pages meets it once.
            for index in [slot, self.pool.index_of(slot)] {
                let Some(entry) = self.pool.entry(index) else { continue };
                if entry.is_object() && entry.age() < Entry::OLDEST {
                    self.pool.set_age(index, entry, entry.age() + 1);
                }
            }
        }
    }

    /// The age of the page in `slot`, if it is an object in the pool; of a shared object it is the age of its last use.
    pub fn age(&self, slot: Slot) -> Option<u8> {
        let entry = self.pool.page(slot.get())?;
        let object = match entry.kind() {
            Kind::Shared(number) => self.pool.entry(self.pool.index_of(number))?,
            _ => entry,
        };
        (object.is_object() && !object.is_dying()).then(|| object.age())
    }

    /// Removes the pages of `slots`. Returns how many there were.
    ///
    /// Blocks are looked at again once for all that was removed from them, so this costs less than it seems.
    pub fn remove_range(&self, slots: Range<u32>) -> u32 {
        let mut count = 0;
        let slots = slots.start..slots.end.min(self.slots());
        self.remove_batch(slots.map(Slot::new), |_, removed| count += u32::from(removed.is_ok()));
        count
    }

    /// Pins the object of a page for a sweep, its own or a shared one, if it is one of at least `min_age` that nobody else
    /// reads. With the page's entry.
    fn pin_old(&self, slot: u32, min_age: u8) -> Option<(Entry, Pin<'_, 'm, P>)> {
        let entry = self.pool.page(slot)?;
        match entry.kind() {
            Kind::Object if entry.age() >= min_age && entry.readers() == 0 => {
                Some((entry, self.pool.pin(slot, entry, entry.age()).ok()?))
            }
            Kind::Shared(number) => {
                let object = self.pool.entry(self.pool.index_of(number))?;
                if !object.is_object() || object.age() < min_age || object.readers() > 0 {
                    return None;
                }
                Some((entry, self.pin_named(slot, entry, None).ok()?))
            }
            _ => None,
        }
    }

    /// Removes a page that is a shared object, pinned here, if its entry is `named` still. Tells whether it did, and how
    /// many granules that freed.
    fn remove_named(&self, slot: u32, named: Entry, pin: Pin<'_, 'm, P>) -> Option<u32> {
        let granules = self.pool.shape.covered(pin.entry());
        let removed = self.pool.replace(slot, named, New::EMPTY).is_ok();
        self.unpin(pin);
        removed.then(|| {
            self.recount(0, named, Entry::EMPTY);
            let last = matches!(named.kind(), Kind::Shared(number) if self.leave(number));
            if last { granules } else { 0 }
        })
    }

    /// Puts `new` in the place of a pinned page. Tells whether it did; if not, the page is as it was.
    fn exchange(&self, home: usize, pin: Pin<'_, 'm, P>, new: New) -> bool {
        let fresh = new.entry();
        match pin.replace(new) {
            Ok((old, claim)) => {
                self.recount(home, old, fresh);
                self.release(claim);
                true
            }
            Err((pin, new)) => {
                new.into_claim().into_iter().for_each(|claim| self.release(claim));
                self.unpin(pin);
                false
            }
        }
    }
}

/// What came of encoding an object again.
enum Smaller {
    /// This, which takes fewer granules.
    Object(New),
    /// Nothing that does.
    Not,
    /// There is no hole for it, and no block more.
    NoRoom,
}

impl<'m, P: FrameMemory, L: RawLock> Worker<'_, 'm, P, L> {
    /// Recompresses old pages of `slots`; `page` is room for one page.
    ///
    /// A page is replaced only if that frees memory, and leaves a hole for the next one. So recompression takes at most one
    /// block more than there are, for its first page if no hole fits that, and none if the store may have no more.
    ///
    /// # Errors
    ///
    /// [`LoadError::PageLength`] if `page` does not have the size of the store's pages.
    pub fn recompress(
        &mut self,
        slots: Range<u32>,
        how: Recompression,
        page: &mut [u8],
    ) -> Result<Swept, LoadError> {
        let store = self.shared();
        let size = store.page_size();
        if page.len() != size.bytes() {
            return Err(LoadError::PageLength { bytes: page.len(), page: size });
        }
        let mut swept = Swept::default();
        for slot in slots.start..slots.end.min(store.slots()) {
            let Some((_, pin)) = store.pin_old(slot, how.min_age) else { continue };
            let (index, old) = (pin.index(), pin.entry());
            let tag = old.tag().filter(|tag| match tag.codec() {
                Codec::Same => false,
                Codec::Raw => true,
                codec => codec < how.temperature.codec(),
            });
            let Some(tag) = tag.filter(|_| old.age() != Entry::SETTLED) else {
                store.unpin(pin);
                continue;
            };
            swept.tried += 1;
            match self.encode_smaller(how, tag, &pin, page) {
                Ok(Smaller::Object(new)) => {
                    let saved = store.pool.shape.covered(old) - store.pool.shape.covered(new.entry());
                    if store.exchange(self.home(), pin, new) {
                        swept.done += 1;
                        swept.saved_bytes += u64::from(saved) * super::entry::GRANULE as u64;
                    }
                }
                Ok(Smaller::NoRoom) => store.unpin(pin),
                Ok(Smaller::Not) => {
                    store.unpin(pin);
                    if let Some(now) = store.pool.entry(index).filter(|now| *now == old) {
                        store.pool.set_age(index, now, Entry::SETTLED);
                    }
                }
                Err(_) => {
                    swept.damaged += 1;
                    store.unpin(pin);
                }
            }
        }
        Ok(swept)
    }

    /// Encodes a pinned object again and writes it to the pool, if the ladder says so and that takes fewer granules.
    fn encode_smaller(
        &mut self,
        how: Recompression,
        tag: Tag,
        pin: &Pin<'_, 'm, P>,
        page: &mut [u8],
    ) -> Result<Smaller, Damage> {
        let store = self.shared();
        let (shape, old, home) = (&store.pool.shape, pin.entry(), self.home());
        let budget = (shape.covered(old) as usize - 1) * super::entry::GRANULE;
        let (scratch, buffer) = self.lent();
        let room = budget.saturating_sub(shape.checksum_bytes()).min(buffer.len());
        let encoded = pin.read(|object| {
            let bytes = object.verified().ok_or(Damage::Checksum)?;
            let out = &mut buffer[..room];
            if tag.codec() != Codec::Raw {
                let again = how.ladder.reencode(tag, bytes, how.temperature, page, out, scratch);
                return match again {
                    Ok(encoded) => Ok(encoded),
                    Err(ReencodeError::Decode(error)) => Err(Damage::Encoding(error)),
                    Err(_) => Ok(None),
                };
            }
            // The hot codec gave up on it, which says little of a colder one.
            Ok(how.ladder.encode(how.temperature, bytes, out, scratch).ok())
        });
        let Some(object) = encoded.unwrap_or(Err(Damage::Entry))? else { return Ok(Smaller::Not) };
        let (tag, bytes) = (object.tag(), &buffer[..object.len()]);
        let written = store
            .write(home, tag, bytes, Growth::Never, old.age())
            .or_else(|| store.write(home, tag, bytes, Growth::Fresh, old.age()));
        Ok(written.map_or(Smaller::NoRoom, Smaller::Object))
    }

    /// Offers pages of `slots` that are at least `min_age` old to `sink`, encoded as they are, and removes those that it
    /// has written. Same-filled pages are not offered: they cost nothing.
    ///
    /// The sink gets the page's slot, its tag, and its verified bytes; [`crate::codec::decode`] reads them back. A page that is
    /// replaced meanwhile, or is being loaded when the sink is done, stays in the store.
    pub fn write_back(
        &mut self,
        slots: Range<u32>,
        min_age: u8,
        mut sink: impl FnMut(Slot, Tag, &[u8]) -> WriteBack,
    ) -> Swept {
        let store = self.shared();
        let mut swept = Swept::default();
        for slot in slots.start..slots.end.min(store.slots()) {
            let Some((entry, pin)) = store.pin_old(slot, min_age) else { continue };
            swept.tried += 1;
            let tag = pin.entry().tag().ok_or(Damage::Entry);
            let offered = tag.and_then(|tag| {
                let offer =
                    |object: Object<'_>| object.verified().map(|bytes| sink(Slot::new(slot), tag, bytes));
                pin.read(offer).flatten().ok_or(Damage::Checksum)
            });
            match offered {
                Ok(WriteBack::Written) if !entry.is_object() => {
                    if let Some(granules) = store.remove_named(slot, entry, pin) {
                        swept.done += 1;
                        swept.saved_bytes += u64::from(granules) * super::entry::GRANULE as u64;
                    }
                }
                Ok(WriteBack::Written) => {
                    let granules = store.pool.shape.covered(pin.entry());
                    let bytes = u64::from(granules) * super::entry::GRANULE as u64;
                    if store.exchange(self.home(), pin, New::EMPTY) {
                        swept.done += 1;
                        swept.saved_bytes += bytes;
                    }
                }
                Ok(WriteBack::Keep) => store.unpin(pin),
                Err(_) => {
                    swept.damaged += 1;
                    store.unpin(pin);
                }
            }
        }
        swept
    }
}
