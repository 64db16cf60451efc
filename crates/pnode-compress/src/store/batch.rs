//! Many pages in one call.
//!
//! A batch does to each page what the call for one page does, in the same order, and says how each fared; nothing is held
//! over a whole batch, so it may be as long as its caller likes. Loads gain by it: while one page is decoded, the object of
//! the next is on its way to the caches, wherever it lies. Stores do not: that a page is put into its slot only while
//! the next one is encoded was tried, and changed nothing.

use pnode_core::sync::RawLock;

use super::entry::Entry;
use super::error::{LoadError, RemoveError, StoreError};
use super::worker::{Stored, Worker};
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

impl<'m, P: FrameMemory, L: RawLock> Worker<'_, 'm, P, L> {
    /// Stores pages one after the other, each as [`Worker::store`] or [`Worker::store_encoded`] does, and tells `each` in
    /// their order how they fared.
    pub fn store_batch<'p, I: Into<Incoming<'p>>>(
        &mut self,
        pages: impl IntoIterator<Item = (Slot, I)>,
        mut each: impl FnMut(Slot, Result<Stored, StoreError>),
    ) {
        for (slot, page) in pages {
            let stored = match page.into() {
                Incoming::Page(page) => self.store(slot, page),
                Incoming::Encoded(tag, object) => self.store_encoded(slot, tag, object),
            };
            each(slot, stored);
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
        let page = self.page_size();
        let mut change = Uncounted { store: self, change: Change::NONE };
        for slot in slots {
            let removed =
                self.take_out(slot).map(|entry| change.change.add(Change::of(page, entry, Entry::EMPTY)));
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
