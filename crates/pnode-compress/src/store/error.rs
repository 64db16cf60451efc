//! Why a store, a load or a removal did not happen.

use core::fmt;

use pnode_core::PageSize;

use super::Slot;
use crate::codec::DecodeError;

/// Why a page was not stored. The slot holds what it held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// The store has no such slot.
    NoSlot {
        /// The slot.
        slot: Slot,
    },
    /// The page does not have the size of this store's pages.
    PageLength {
        /// The length that was given, in bytes.
        bytes: usize,
        /// The size of the store's pages.
        page: PageSize,
    },
    /// No hole fits, and no block more is to be had: the pool is at its limit, or its frames are used up.
    Full {
        /// The bytes that the object would have taken.
        bytes: usize,
    },
    /// The page in the slot is being read or moved, for longer than a store waits.
    Busy {
        /// The slot.
        slot: Slot,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot { slot } => {
                write!(f, "the store has no {slot:?}; ask for more slots when it is made")
            }
            Self::PageLength { bytes, page } => {
                write!(f, "{bytes} bytes are no page of this store, whose pages have {page:?}")
            }
            Self::Full { bytes } => {
                write!(
                    f,
                    "no room for {bytes} bytes: free or write back pages, raise the limit, or keep the page elsewhere"
                )
            }
            Self::Busy { slot } => write!(f, "{slot:?} is being read or moved; try again"),
        }
    }
}

impl core::error::Error for StoreError {}

/// Why a page was not loaded. If the error is [`LoadError::Damaged`], the output holds unspecified bytes; otherwise it is
/// as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
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
    /// The output does not have the size of this store's pages.
    PageLength {
        /// The length that was given, in bytes.
        bytes: usize,
        /// The size of the store's pages.
        page: PageSize,
    },
    /// As many readers as an entry counts are reading this very page.
    Busy {
        /// The slot.
        slot: Slot,
    },
    /// The page's object is not what was stored. Other pages are not affected; remove this one.
    Damaged {
        /// The slot.
        slot: Slot,
        /// How it was noticed.
        damage: Damage,
    },
}

/// How a damaged object was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// Its checksum does not match its bytes.
    Checksum,
    /// Its bytes are no encoding of a page.
    Encoding(DecodeError),
    /// Its entry has no meaning, or its memory is not mapped any more.
    Entry,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot { slot } => write!(f, "the store has no {slot:?}"),
            Self::NotStored { slot } => write!(f, "{slot:?} holds no page"),
            Self::PageLength { bytes, page } => {
                write!(f, "{bytes} bytes are no page of this store, whose pages have {page:?}")
            }
            Self::Busy { slot } => write!(f, "{slot:?} has as many readers as can be counted; try again"),
            Self::Damaged { slot, damage } => {
                write!(f, "the page in {slot:?} is damaged (")?;
                match damage {
                    Damage::Checksum => f.write_str("its checksum does not match")?,
                    Damage::Encoding(error) => write!(f, "{error}")?,
                    Damage::Entry => f.write_str("its memory is gone")?,
                }
                f.write_str("); other pages are not affected, remove this one")
            }
        }
    }
}

impl core::error::Error for LoadError {}

/// Why no page was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoveError {
    /// The store has no such slot.
    NoSlot {
        /// The slot.
        slot: Slot,
    },
    /// The slot holds no page: it was removed before, or never stored.
    NotStored {
        /// The slot.
        slot: Slot,
    },
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot { slot } => write!(f, "the store has no {slot:?}"),
            Self::NotStored { slot } => write!(f, "{slot:?} holds no page (removed twice?)"),
        }
    }
}

impl core::error::Error for RemoveError {}
