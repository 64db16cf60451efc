//! Moving a page from slot to slot, without touching its bytes.

use core::fmt;

use pnode_core::sync::{RawLock, spin_loop};

use super::entry::{Entry, Kind};
use super::{PATIENCE, Slot, Store};
use crate::memory::FrameMemory;

/// Why a page was not moved. Both slots hold what they held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MoveError {
    /// The store has no such slot.
    NoSlot {
        /// The slot.
        slot: Slot,
    },
    /// The slot holds no page.
    NotStored {
        /// The slot.
        slot: Slot,
    },
    /// The slot that the page was to go to holds one.
    Occupied {
        /// The slot.
        slot: Slot,
    },
    /// The page is being read or moved, for longer than a move waits.
    Busy {
        /// The slot.
        slot: Slot,
    },
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot { slot } => {
                write!(f, "the store has no {slot:?}; ask for more slots when it is made")
            }
            Self::NotStored { slot } => write!(f, "{slot:?} holds no page"),
            Self::Occupied { slot } => write!(f, "{slot:?} holds a page; remove it first"),
            Self::Busy { slot } => write!(f, "{slot:?} is being read or moved; try again"),
        }
    }
}

impl core::error::Error for MoveError {}

impl<P: FrameMemory, L: RawLock> Store<'_, P, L> {
    /// Moves the page in `from` to the empty slot `to`: one entry of eight bytes, whatever the page's size. A page that is
    /// moved to where it is stays.
    ///
    /// While it is on its way the page is in neither slot for others: a load says that it is not stored, a store to `from`
    /// that the slot is busy.
    ///
    /// # Errors
    ///
    /// [`MoveError`]; both slots then hold what they held.
    pub fn move_page(&self, from: Slot, to: Slot) -> Result<(), MoveError> {
        let target = self.pool.page(to.0).ok_or(MoveError::NoSlot { slot: to })?;
        let mut seen = self.pool.page(from.0).ok_or(MoveError::NoSlot { slot: from })?;
        let mut patience = PATIENCE;
        let lifted = loop {
            if seen.kind() == Kind::Empty || seen.is_dying() {
                return Err(MoveError::NotStored { slot: from });
            }
            if from == to {
                return Ok(());
            }
            if target != Entry::EMPTY {
                return Err(MoveError::Occupied { slot: to });
            }
            match self.pool.lift(from.0, seen) {
                Ok(lifted) => break lifted,
                Err(_) if patience == 0 => return Err(MoveError::Busy { slot: from }),
                Err(now) => {
                    if now == seen {
                        patience -= 1;
                        spin_loop();
                    }
                    seen = self.pool.page(from.0).unwrap_or(now);
                }
            }
        };
        self.pool.put_down(lifted, to.0).map_err(|lifted| {
            self.pool.put_back(lifted);
            MoveError::Occupied { slot: to }
        })
    }
}
