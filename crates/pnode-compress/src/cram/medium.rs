//! [`Medium`]: what keeps the contents of resident pages, and the packed store as one.

use core::fmt;

use pnode_core::PageSize;
use pnode_core::sync::RawLock;

use super::Resident;
use crate::memory::FrameMemory;
use crate::store::{LoadError, Slot, StoreError, Worker};

/// What keeps the contents of resident pages: a packed store, or a device that compresses what is written to it.
///
/// A value of this type is one thread's way to it. Each advertised frame is a place of its own; the service never calls
/// `write` or `discard` for a frame while another call for it is under way, but it may call `read` at any time.
pub trait Medium {
    /// The size of a page.
    fn page_size(&self) -> PageSize;

    /// Keeps `page` in an advertised frame.
    ///
    /// # Errors
    ///
    /// [`WriteError`] if it could not: the frame then holds nothing.
    fn write(&mut self, frame: u32, page: &[u8]) -> Result<(), WriteError>;

    /// Reads the page in an advertised frame.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the page is not what was written.
    fn read(&mut self, frame: u32, page: &mut [u8]) -> Result<(), ReadError>;

    /// Makes an advertised frame cost nothing, at once and without fail: its page is of no use any more.
    ///
    /// A device that compresses gets zeroes from the processor.
    fn discard(&mut self, frame: u32);

    /// Makes the frames of several pages cost nothing, in the cheapest way there is: a device's trim command.
    ///
    /// # Errors
    ///
    /// [`TrimFailed`] if some may still cost something; the service then discards each of them.
    fn trim(&mut self, pages: &[Resident]) -> Result<(), TrimFailed> {
        pages.iter().for_each(|page| self.discard(page.frame()));
        Ok(())
    }

    /// Sets aside what a page can need at worst that is to be written where it is, in an advertised frame, until
    /// [`Medium::close`].
    ///
    /// # Errors
    ///
    /// [`WriteError::Full`] if there is not so much; [`WriteError::Fixed`], as here, if pages cannot be written in place.
    fn open(&mut self, _frame: u32) -> Result<(), WriteError> {
        Err(WriteError::Fixed)
    }

    /// The page in an advertised frame is not written in place any more. Called once for each `open` that succeeded.
    fn close(&mut self, _frame: u32) {}

    /// The physical memory in use and in all.
    fn usage(&self) -> Usage;
}

/// The physical memory of a medium, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// In use; never less than the truth.
    pub used: u64,
    /// In all.
    pub physical: u64,
}

/// A trim that was not carried out, or not in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimFailed;

impl fmt::Display for TrimFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the device did not trim the frames; overwrite them with zeroes")
    }
}

impl core::error::Error for TrimFailed {}

/// Why a page was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no room for it.
    Full,
    /// The frame is in use for a moment; try again.
    Busy,
    /// Pages of this medium cannot be written where they are.
    Fixed,
}

/// Why a page could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The page is damaged: its reader must be told.
    Poisoned,
    /// The frame holds no page.
    Nothing,
    /// The frame has too many readers for a moment; try again.
    Busy,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the medium has no room for the page; keep it where it is, or swap it out",
            Self::Busy => "the frame is in use for a moment; try again",
            Self::Fixed => "pages of this medium cannot be written where they are; promote the page",
        })
    }
}

impl core::error::Error for WriteError {}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poisoned => "the page is damaged; tell its reader, and free it",
            Self::Nothing => "the frame holds no page",
            Self::Busy => "the frame has too many readers for a moment; try again",
        })
    }
}

impl core::error::Error for ReadError {}

/// The packed store as a medium: slot `n` keeps the page of frame `n`.
///
/// A store refuses what it cannot keep, so it cannot be overrun; its pressure only says when that is near.
impl<P: FrameMemory, L: RawLock> Medium for Worker<'_, '_, P, L> {
    fn page_size(&self) -> PageSize {
        self.shared().page_size()
    }

    fn write(&mut self, frame: u32, page: &[u8]) -> Result<(), WriteError> {
        self.store(Slot::new(frame), page).map(|_| ()).map_err(|error| match error {
            StoreError::Busy { .. } => WriteError::Busy,
            _ => WriteError::Full,
        })
    }

    fn read(&mut self, frame: u32, page: &mut [u8]) -> Result<(), ReadError> {
        self.load(Slot::new(frame), page).map_err(|error| match error {
            LoadError::Damaged { .. } => ReadError::Poisoned,
            LoadError::Busy { .. } => ReadError::Busy,
            _ => ReadError::Nothing,
        })
    }

    fn discard(&mut self, frame: u32) {
        // A frame that was never written holds nothing to remove.
        let _ = self.remove(Slot::new(frame));
    }

    fn usage(&self) -> Usage {
        let store = self.shared();
        Usage { used: store.used_bytes(), physical: u64::from(store.limit()) * store.block_bytes() as u64 }
    }
}
