//! Pages that are a shared object: reading one, and leaving it.

use pnode_core::sync::{RawLock, spin_loop};

use super::entry::{Entry, Kind};
use super::error::LoadError;
use super::pool::{Claim, New, Pin};
use super::worker::Held;
use super::{Change, PATIENCE, Slot, Store};
use crate::memory::FrameMemory;

impl<'m, P: FrameMemory, L: RawLock> Store<'m, P, L> {
    /// Frees what the entry of a page was, which the caller has just turned into something else.
    #[inline]
    pub(super) fn let_go(&self, was: Entry, claim: Option<Claim>) {
        claim.into_iter().for_each(|claim| self.release(claim));
        if let Kind::Shared(number) = was.kind() {
            self.leave(number);
        }
    }

    /// Ends a page's use of a number. Tells whether it was the last, so that the object went too.
    #[cold]
    pub(super) fn leave(&self, number: u32) -> bool {
        let last = self.pool.leave(number);
        if last {
            self.take_object_out(number);
        }
        last
    }

    /// Takes out the object of a number that nobody uses any more.
    pub(super) fn take_object_out(&self, number: u32) {
        let index = self.pool.index_of(number);
        let Some(mut seen) = self.pool.entry(index) else { return };
        // It may be moved or encoded anew meanwhile, but is taken out here only.
        while seen.is_object() && !seen.is_dying() {
            let outcome = match seen.readers() {
                0 => self.pool.replace(index, seen, New::EMPTY).map_err(|(_, now)| now),
                _ => self.pool.doom(index, seen).map(|()| None),
            };
            match outcome {
                Ok(claim) => {
                    claim.into_iter().for_each(|claim| self.release(claim));
                    let bytes = (seen.len(self.page_size()) as u64).wrapping_neg();
                    self.count(self.home_of(seen), Change { bytes, shared: u64::MAX, ..Change::NONE });
                    return;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Pins the shared object that the page in `slot` is, if its entry is `named` still.
    pub(super) fn pin_named(
        &self,
        slot: u32,
        named: Entry,
        age: Option<u8>,
    ) -> Result<Pin<'_, 'm, P>, Named> {
        let Kind::Shared(number) = named.kind() else { return Err(Named::Changed) };
        // The pin is what orders this: that the object is not there yet, or another, it finds out by itself.
        let index = self.pool.index_of(number);
        let Some(object) = self.pool.entry(index) else { return Err(Named::Changed) };
        if object.is_object() && !object.is_dying() && object.readers() == Entry::MAX_READERS {
            return Err(Named::Busy);
        }
        let pin = self.pool.pin(index, object, age.unwrap_or(object.age())).map_err(|_| Named::Changed)?;
        // The number may stand for another object by now; then the page's entry does not name it any more, or again.
        // While the pin lives the number keeps its object.
        if self.pool.page(slot) == Some(named) {
            return Ok(pin);
        }
        self.unpin(pin);
        Err(Named::Changed)
    }

    /// Holds a page whose entry named a shared object; see [`Store::pin`].
    #[cold]
    pub(super) fn pin_shared(
        &self,
        slot: Slot,
        mut seen: Entry,
        age: u8,
    ) -> Result<Held<'_, 'm, P>, LoadError> {
        let mut patience = PATIENCE;
        while let Kind::Shared(_) = seen.kind() {
            match self.pin_named(slot.get(), seen, Some(age)) {
                Ok(pin) => return Ok(Held::Object(pin)),
                Err(_) if patience == 0 => return Err(LoadError::Busy { slot }),
                Err(_) => {}
            }
            patience -= 1;
            spin_loop();
            seen = self.pool.page(slot.get()).unwrap_or(Entry::EMPTY);
        }
        self.pin(slot, age)
    }
}

/// Why a shared object was not pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// The page's entry names it no more, or somebody has changed the object's entry at this moment.
    Changed,
    /// It has as many readers as it can count.
    Busy,
}
