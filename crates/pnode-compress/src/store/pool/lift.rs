//! A page on its way from one entry to another, in the pool where it is.
//!
//! ```text
//!  from    page ------> held ------> held ------> empty        held: dying, with one reader, who is the mover
//!                lift                 |
//!  to      empty                      +---------> page         or back, if the entry is taken
//!                                      put_down
//! ```
//!
//! # Invariants
//!
//! - **L1** While an entry is held, whoever has its [`Lifted`] is the only one who changes it: nobody pins what is dying,
//!   nobody replaces what has a reader, and no reader is left who could end a pin. So the mover alone says what becomes of
//!   the object, though two entries cover it for a moment.
#![deny(unsafe_code)]

use pnode_core::sync::Ordering;

use super::Pool;
use crate::codec::{Codec, Tag};
use crate::memory::FrameMemory;
use crate::store::entry::Entry;

/// What was taken out of an entry that is kept free for it until it has a place.
#[must_use = "the entry is held until the page is put down"]
pub(crate) struct Lifted {
    slot: u32,
    page: Entry,
    held: Entry,
}

impl<P: FrameMemory> Pool<'_, P> {
    /// Takes the page of `seen` out of its entry, which is held meanwhile; or says what the entry is by now. A page that is
    /// read stays where it is.
    pub(crate) fn lift(&self, slot: u32, seen: Entry) -> Result<Lifted, Entry> {
        if seen == Entry::EMPTY || seen.is_object() && (seen.readers() > 0 || seen.is_dying()) {
            return Err(seen);
        }
        let object = if seen.is_object() { seen } else { Entry::object(Tag::plain(Codec::Same), 0, 8) };
        let held = object.with_one_reader().dying();
        // Acquire pairs with the Release of the readers that unpinned the object: the next to take its claim comes by
        // another entry.
        self.entries[slot as usize]
            .compare_exchange(seen.bits(), held.bits(), Ordering::Acquire, Ordering::Relaxed)
            .map(|_| Lifted { slot, page: seen, held })
            .map_err(Entry::from_bits)
    }

    /// Puts a lifted page into an empty entry. It comes back if the entry is not empty.
    pub(crate) fn put_down(&self, lifted: Lifted, slot: u32) -> Result<(), Lifted> {
        let (empty, page) = (Entry::EMPTY.bits(), lifted.page.bits());
        // Release pairs with the Acquire in `pin`: who finds the object here finds its bytes.
        if self.entries[slot as usize]
            .compare_exchange(empty, page, Ordering::Release, Ordering::Relaxed)
            .is_err()
        {
            return Err(lifted);
        }
        // INVARIANT: C1 and L1: the entry gives up the object without its claim, which is the other's.
        self.let_go_of(&lifted, Entry::EMPTY);
        Ok(())
    }

    /// Puts a lifted page back to where it was.
    pub(crate) fn put_back(&self, lifted: Lifted) {
        self.let_go_of(&lifted, lifted.page);
    }

    fn let_go_of(&self, lifted: &Lifted, after: Entry) {
        // By L1 the entry is as it was left. Relaxed: it is changed by read-modify-write, so what was released to it before
        // is still.
        let was = self.entries[lifted.slot as usize].swap(after.bits(), Ordering::Relaxed);
        debug_assert_eq!(was, lifted.held.bits(), "somebody else changed a held entry");
    }
}
