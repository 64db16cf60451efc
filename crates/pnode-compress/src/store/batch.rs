//! Many pages in one call.
//!
//! A batch does to each page what the call for one page does, in the same order, and says how each fared. It is faster
//! where memory is what a call waits for: while one page is encoded, the bytes of the one before are on their way to the
//! pool; while one is decoded, the object of the next is on its way to the caches. Intel's batched zswap work asks its
//! stores for such calls; nothing here is held over a whole batch, so a batch may be as long as its caller likes.

use pnode_core::sync::RawLock;

use super::entry::Entry;
use super::error::{LoadError, RemoveError, StoreError};
use super::worker::{Ready, Stored, Worker};
use super::{Change, Slot, Store};
use crate::codec::Tag;
use crate::memory::FrameMemory;

/// A page of a batch that is to be stored.
#[derive(Clone, Copy, Debug)]
pub enum Incoming<'p> {
    /// A page as it is.
    Page(&'p [u8]),
    /// A page that was encoded elsewhere, as for [`Worker::store_encoded`].
    Encoded(Tag, &'p [u8]),
}

impl<'p> From<&'p [u8]> for Incoming<'p> {
    fn from(page: &'p [u8]) -> Self {
        Self::Page(page)
    }
}

/// The page of a batch that is in the pool and not in its slot. Its room is given back if a closure of the caller panics.
struct UnderWay<'s, 'm, P: FrameMemory, L: RawLock> {
    store: &'s Store<'m, P, L>,
    home: usize,
    ready: Option<Ready>,
}

impl<P: FrameMemory, L: RawLock> UnderWay<'_, '_, P, L> {
    fn publish(&mut self, each: &mut impl FnMut(Slot, Result<Stored, StoreError>)) {
        if let Some(ready) = self.ready.take() {
            let slot = ready.slot();
            each(slot, self.store.publish(self.home, ready));
        }
    }
}

impl<P: FrameMemory, L: RawLock> Drop for UnderWay<'_, '_, P, L> {
    fn drop(&mut self) {
        let claim = self.ready.take().and_then(|ready| ready.into_new().into_claim());
        claim.into_iter().for_each(|claim| self.store.release(claim));
    }
}

impl<'m, P: FrameMemory, L: RawLock> Worker<'_, 'm, P, L> {
    /// Stores pages one after the other, each as [`Worker::store`] or [`Worker::store_encoded`] does, and tells `each` in
    /// their order how they fared.
    ///
    /// A slot holds its page when `each` hears of it, and perhaps not before the page after it was encoded.
    pub fn store_batch<'p, I: Into<Incoming<'p>>>(
        &mut self,
        pages: impl IntoIterator<Item = (Slot, I)>,
        mut each: impl FnMut(Slot, Result<Stored, StoreError>),
    ) {
        let mut before = UnderWay { store: self.shared(), home: self.home(), ready: None };
        for (slot, page) in pages {
            let page = page.into();
            let mut ready = self.prepare(slot, page);
            if matches!(ready, Err(StoreError::Full { .. })) && before.ready.is_some() {
                // The page before may free the room of the one that it replaces.
                before.publish(&mut each);
                ready = self.prepare(slot, page);
            }
            before.publish(&mut each);
            match ready {
                Ok(ready) => before.ready = Some(ready),
                Err(error) => each(slot, Err(error)),
            }
        }
        before.publish(&mut each);
    }

    fn prepare(&mut self, slot: Slot, page: Incoming<'_>) -> Result<Ready, StoreError> {
        match page {
            Incoming::Page(page) => self.encode(slot, page),
            Incoming::Encoded(tag, object) => self.take(slot, tag, object),
        }
    }

    /// Loads pages one after the other, each as [`Worker::load`] does, and tells `each` in their order how they fared.
    pub fn load_batch<'p>(
        &mut self,
        pages: impl IntoIterator<Item = (Slot, &'p mut [u8])>,
        mut each: impl FnMut(Slot, Result<(), LoadError>),
    ) {
        let mut pages = pages.into_iter();
        let mut ahead = pages.next();
        while let Some((slot, page)) = ahead {
            ahead = pages.next();
            if let Some((next, _)) = &ahead {
                self.shared().expect(*next);
            }
            each(slot, self.load_page(slot, page));
        }
    }
}

impl<P: FrameMemory, L: RawLock> Store<'_, P, L> {
    /// Removes pages one after the other, each as [`Store::remove`] does, and tells `each` in their order how they fared.
    ///
    /// [`Store::stats`] learns of all of them at the end.
    pub fn remove_batch(
        &self,
        slots: impl IntoIterator<Item = Slot>,
        mut each: impl FnMut(Slot, Result<(), RemoveError>),
    ) {
        let mut change = Uncounted { store: self, change: Change::NONE };
        for slot in slots {
            let removed = self.take_out(slot).map(|entry| change.change.add(Change::of(entry, Entry::EMPTY)));
            each(slot, removed);
        }
    }
}

/// What a batch has changed and not counted yet.
struct Uncounted<'s, 'm, P: FrameMemory, L: RawLock> {
    store: &'s Store<'m, P, L>,
    change: Change,
}

impl<P: FrameMemory, L: RawLock> Drop for Uncounted<'_, '_, P, L> {
    fn drop(&mut self) {
        self.store.count(0, self.change);
    }
}
