//! Objects that several pages share: how one comes to be, who may name it, and when it goes.
//!
//! A shared object lies in an entry of its own, past those of the pages, so that whatever moves or re-encodes objects
//! finds it there. The pages' entries name it, and a word counts them. Who removes the last of them takes the object out.
//!
//! ```text
//!  users   0 ------> MAKING + 1 ------> 1 ------> 2 ------> 1 ------> 0     and then the object is taken out
//!            take_number         made      join      leave     leave
//! ```
//!
//! # Invariants
//!
//! - **S1** A page's entry names a number only while it is counted among the number's users.
//! - **S2** The object of a number that has users, and is not being made, is in its entry and not dying.
#![deny(unsafe_code)]

use pnode_core::sync::{Ordering, spin_loop};

use super::{Pin, Pool};
use crate::memory::FrameMemory;
use crate::store::entry::Entry;

/// Set while the object of a number is on its way to its entry: nobody joins meanwhile.
const MAKING: u64 = 1 << 63;

impl<P: FrameMemory> Pool<'_, P> {
    /// Where the entry of a shared object is among all entries; past the end if there is no such number.
    #[inline]
    pub(crate) fn index_of(&self, number: u32) -> u32 {
        self.shape.slots.saturating_add(number)
    }

    /// How many pages are a shared object.
    pub(crate) fn users(&self, number: u32) -> u64 {
        self.users.get(number as usize).map_or(0, |users| users.load(Ordering::Relaxed) & !MAKING)
    }

    /// Takes a number that nobody uses, from `from` on and around, for one page to name. It is in the making.
    pub(crate) fn take_number(&self, from: u32) -> Option<u32> {
        let count = self.shape.shared;
        (0..count).map(|i| ((u64::from(from) + u64::from(i)) % u64::from(count)) as u32).find(|&number| {
            // The entry of a number that is no longer used is empty when its last reader is done.
            self.entry(self.index_of(number)) == Some(Entry::EMPTY)
                && self.users[number as usize]
                    // Relaxed: what the number is taken for is handed over by its entry.
                    .compare_exchange(0, MAKING | 1, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        })
    }

    /// Gives back a number in the making that no page has named.
    pub(crate) fn unmake(&self, number: u32) {
        if let Some(users) = self.users.get(number as usize) {
            users.store(0, Ordering::Relaxed);
        }
    }

    /// Ends the making of a number. Tells whether the page that named it has left meanwhile, so that nobody uses it.
    pub(crate) fn made(&self, number: u32) -> bool {
        // Release pairs with the Acquire of the last to leave: he finds the object in the number's entry. Acquire as in
        // `leave`, which this is if the page has left.
        self.users
            .get(number as usize)
            .is_some_and(|users| users.fetch_and(!MAKING, Ordering::AcqRel) == MAKING)
    }

    /// Counts one page more that is to name the number, if it is in use and not in the making.
    pub(crate) fn join(&self, number: u32) -> bool {
        // Relaxed: the page's entry hands the number on, and the object's entry the object.
        let joined = |users: &u64| *users != 0 && users & MAKING == 0;
        self.users.get(number as usize).is_some_and(|users| {
            users
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |users| joined(&users).then(|| users + 1))
                .is_ok()
        })
    }

    /// Counts one page less, whose entry does not name the number any more. Tells whether it was the last, who has to take
    /// the object out.
    pub(crate) fn leave(&self, number: u32) -> bool {
        // Release pairs with the Acquire of the last: all that named the number have ceased to before it is used again,
        // so a reader that finds another object in its entry finds another entry in its page's slot, too.
        self.users.get(number as usize).is_some_and(|users| users.fetch_sub(1, Ordering::AcqRel) == 1)
    }
}

impl<'p, 'm, P: FrameMemory> Pin<'p, 'm, P> {
    /// Moves the pinned object of a page to the entry of a number in the making, which the page then names, and the pin
    /// with it. Nothing moves if the page has other readers, was removed, or the number's entry is not empty.
    pub(crate) fn share(self, number: u32) -> Result<Self, Self> {
        let (pool, index) = (self.pool, self.pool.index_of(number));
        let Some(target) = pool.entries.get(index as usize).filter(|_| index != self.slot) else {
            return Err(self);
        };
        let source = &pool.entries[self.slot as usize];
        let object = self.entry.with_one_reader();
        // Release pairs with the Acquire in `Pool::pin`: who finds the object here finds its bytes. He also finds what came
        // before the entry was emptied: all changes of it are read-modify-write, so what was released there is still.
        let moved =
            target.compare_exchange(Entry::EMPTY.bits(), object.bits(), Ordering::Release, Ordering::Relaxed);
        if moved.is_err() {
            return Err(self);
        }
        // INVARIANT: C1: both entries cover the object, and both count this pin as a reader, so neither gives it up.
        let seen = Entry::from_bits(source.load(Ordering::Relaxed));
        let named = Entry::shared(number).bits();
        // Acquire pairs with the Release of who has read the object through the page's entry meanwhile: the next to take its
        // claim comes by the number's entry. Nothing is released here: who goes on to that entry asks it by a pin, and who
        // goes on to the number's count finds the object by that.
        if seen.readers() == 1
            && !seen.is_dying()
            && source.compare_exchange(seen.bits(), named, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            // INVARIANT: C1: the page's entry covers nothing any more.
            return Ok(Self { pool, slot: index, entry: object });
        }
        let mut seen = Entry::from_bits(target.load(Ordering::Relaxed));
        loop {
            // Somebody who knew the number from an earlier use may look at it, for a moment.
            if seen.readers() > 1 {
                spin_loop();
                seen = Entry::from_bits(target.load(Ordering::Relaxed));
                continue;
            }
            // INVARIANT: C1 and C4: this pin is the last of the entry, and the page's entry covers the object still. Relaxed:
            // no page has named the number, so nobody has read the object through it.
            match target.compare_exchange_weak(
                seen.bits(),
                Entry::EMPTY.bits(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Err(self),
                Err(now) => seen = Entry::from_bits(now),
            }
        }
    }
}
