//! [`Handler`]: one thread's way to the service, with a call for each thing that happens to a page.

use core::fmt;

use pnode_core::PageOrigin;

use super::Cram;
use super::error::{DemoteError, FaultError, Retry};
use super::frames::{Resident, Stale, State, Turned};
use super::medium::{Medium, ReadError, TrimFailed, WriteError};
use super::stats::Event;

/// One thread's way to a [`Cram`].
pub struct Handler<'c, 'm, M: Medium> {
    cram: &'c Cram<'m>,
    medium: M,
    /// Pages whose frames are to be trimmed, in the first `waiting` places. Until then they are being freed.
    deferred: &'c mut [Resident],
    waiting: usize,
}

impl<'c, 'm, M: Medium> Handler<'c, 'm, M> {
    pub(super) fn new(cram: &'c Cram<'m>, medium: M, deferred: &'c mut [Resident]) -> Self {
        Self { cram, medium, deferred, waiting: 0 }
    }

    /// The service.
    pub fn shared(&self) -> &'c Cram<'m> {
        self.cram
    }

    /// This thread's way to the medium. To change its contents behind the service is to damage pages.
    pub fn medium(&mut self) -> &mut M {
        &mut self.medium
    }

    /// Takes a page in. The caller has made sure that it does not change meanwhile, and says what it is for: only private
    /// anonymous pages come in. Those of files and of shared memory are written by system calls past any fence of a page
    /// table, and unmovable ones by whoever has their address.
    ///
    /// Admission is tested for each page, so a node that fills up in the middle of a batch turns the rest away.
    ///
    /// # Errors
    ///
    /// [`DemoteError`]; nothing is left of the page in the node.
    pub fn demote(&mut self, origin: PageOrigin, page: &[u8]) -> Result<Resident, DemoteError> {
        let taken = match origin {
            PageOrigin::PrivateAnonymous => self.take_in(page),
            _ => Err(DemoteError::Origin { origin }),
        };
        self.cram.note(if taken.is_ok() { Event::Demoted } else { Event::Refused });
        taken
    }

    fn take_in(&mut self, page: &[u8]) -> Result<Resident, DemoteError> {
        let size = self.medium.page_size();
        if page.len() != size.bytes() {
            return Err(DemoteError::PageLength { bytes: page.len(), page: size });
        }
        let mut resident = self.cram.admit(self.medium.usage());
        if resident == Err(DemoteError::NoFrame) && self.flush() > 0 {
            resident = self.cram.admit(self.medium.usage());
        }
        let resident = resident?;
        match self.medium.write(resident.frame(), page) {
            Ok(()) => {
                // The frame is ours while it is being filled, so the turn cannot fail.
                let _ = self.cram.frames.turn(resident, State::Filling, State::Resident);
                Ok(resident)
            }
            Err(error) => {
                // The destination was not used: scrubbed, as whatever the attempt left there costs memory.
                self.medium.discard(resident.frame());
                self.cram.note(Event::Zeroed);
                self.cram.vacate(resident);
                Err(match error {
                    WriteError::Full | WriteError::Fixed => DemoteError::Full,
                    WriteError::Busy => DemoteError::Busy,
                })
            }
        }
    }

    /// Reads a resident page, which stays where it is.
    ///
    /// # Errors
    ///
    /// [`FaultError`]. If the contents are lost, the page stays resident until it is freed.
    pub fn read(&mut self, page: Resident, out: &mut [u8]) -> Result<(), FaultError> {
        self.check_length(out)?;
        if !self.readable(page) {
            return Err(Stale { page }.into());
        }
        let read = self.medium.read(page.frame(), out);
        // The frame may have got another page while it was read; then the bytes are not this page's.
        if !self.readable(page) {
            return Err(Stale { page }.into());
        }
        self.settle_read(read)
    }

    fn settle_read(&self, read: Result<(), ReadError>) -> Result<(), FaultError> {
        match read {
            Ok(()) => {
                self.cram.note(Event::Read);
                Ok(())
            }
            Err(ReadError::Busy) => {
                self.cram.note(Event::Retried);
                Err(FaultError::Retry(Retry::Busy))
            }
            Err(ReadError::Poisoned | ReadError::Nothing) => {
                self.cram.note(Event::Poisoned);
                Err(FaultError::Poisoned)
            }
        }
    }

    fn readable(&self, page: Resident) -> bool {
        matches!(self.cram.frames.state(page), Some(State::Resident | State::Promoting | State::Writable))
    }

    fn check_length(&self, out: &[u8]) -> Result<(), FaultError> {
        let page = self.medium.page_size();
        if out.len() == page.bytes() {
            Ok(())
        } else {
            Err(FaultError::PageLength { bytes: out.len(), page })
        }
    }

    /// Begins to promote a resident page that is to be written. Of all callers one gets the promotion.
    ///
    /// The page can still be read until the promotion is finished, and stays resident if it is dropped.
    ///
    /// # Errors
    ///
    /// [`FaultError::Stale`] if the page is gone, [`FaultError::Retry`] if somebody else promotes or frees it, or if it is
    /// open for writing: then it may be written where it is, or is to be closed first.
    pub fn write_fault(&mut self, page: Resident) -> Result<Promotion<'_, 'c, 'm, M>, FaultError> {
        self.turn(page, State::Promoting)?;
        Ok(Promotion { handler: self, page })
    }

    /// Frees a resident page that nobody maps any more.
    ///
    /// # Errors
    ///
    /// As [`write_fault`](Self::write_fault).
    pub fn free(&mut self, page: Resident) -> Result<(), FaultError> {
        loop {
            if self.cram.frames.turn(page, State::Writable, State::Freeing).is_ok() {
                self.closed(page);
                break;
            }
            match self.turn(page, State::Freeing) {
                // Opened in between.
                Err(FaultError::Retry(Retry::Writable)) => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.cram.note(Event::Freed);
        self.scrub(page);
        Ok(())
    }

    fn turn(&self, page: Resident, to: State) -> Result<(), FaultError> {
        self.cram.frames.turn(page, State::Resident, to).map_err(|turned| {
            let retry = match turned {
                Turned::Stale => return Stale { page }.into(),
                Turned::Is(State::Promoting) => Retry::Promoting,
                Turned::Is(State::Freeing) => Retry::Freeing,
                Turned::Is(State::Writable) => Retry::Writable,
                // A page that is still being filled has not been handed out: the name was made up.
                Turned::Is(_) => return Stale { page }.into(),
            };
            self.cram.note(Event::Retried);
            FaultError::Retry(retry)
        })
    }

    /// Makes the frame of a page that is being freed cost nothing, and gives it back; later, if there is room to wait.
    fn scrub(&mut self, page: Resident) {
        match self.deferred.get_mut(self.waiting) {
            Some(place) => {
                *place = page;
                self.waiting += 1;
            }
            None => {
                self.medium.discard(page.frame());
                self.cram.note(Event::Zeroed);
                self.cram.vacate(page);
            }
        }
    }

    /// Trims the frames of the pages that were freed since the last call, and gives them back. Returns how many.
    ///
    /// If the medium does not trim them, each is discarded. Dropping the handler flushes too, so nothing is forgotten.
    pub fn flush(&mut self) -> usize {
        let pages = &self.deferred[..self.waiting];
        if pages.is_empty() {
            return 0;
        }
        let event = match self.medium.trim(pages) {
            Ok(()) => Event::Trimmed,
            Err(TrimFailed) => {
                pages.iter().for_each(|page| self.medium.discard(page.frame()));
                Event::Zeroed
            }
        };
        for page in pages {
            self.cram.note(event);
            self.cram.vacate(*page);
        }
        core::mem::take(&mut self.waiting)
    }
}

impl<M: Medium> Drop for Handler<'_, '_, M> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<M: Medium> fmt::Debug for Handler<'_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handler({:?})", self.cram)
    }
}

/// The right to promote a page: its owner is the one writer that won. Dropping it leaves the page resident.
#[must_use = "a promotion that is dropped leaves the page where it is"]
pub struct Promotion<'h, 'c, 'm, M: Medium> {
    handler: &'h mut Handler<'c, 'm, M>,
    page: Resident,
}

impl<'h, 'c, 'm, M: Medium> Promotion<'h, 'c, 'm, M> {
    /// Gives up for want of memory: the error that the fault has to return, so that the access is made again.
    pub fn no_memory(self) -> FaultError {
        self.handler.cram.note(Event::Retried);
        FaultError::Retry(Retry::NoMemory)
    }

    /// Copies the page to its new frame, `out`, which the host then maps writable.
    ///
    /// # Errors
    ///
    /// [`FaultError`]; the page stays resident.
    pub fn copy_to(self, out: &mut [u8]) -> Result<Copied<'h, 'c, 'm, M>, FaultError> {
        self.handler.check_length(out)?;
        let read = self.handler.medium.read(self.page.frame(), out);
        self.handler.settle_read(read)?;
        Ok(Copied { promotion: self })
    }
}

impl<M: Medium> Drop for Promotion<'_, '_, '_, M> {
    fn drop(&mut self) {
        // After `finish` the page is not being promoted any more, and the turn fails as it should.
        let _ = self.handler.cram.frames.turn(self.page, State::Promoting, State::Resident);
    }
}

impl<M: Medium> fmt::Debug for Promotion<'_, '_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promotion({:?})", self.page)
    }
}

/// A page that was copied to its new frame. Dropping it leaves the page resident, and the copy to the host.
#[must_use = "the page stays resident until the promotion is finished"]
pub struct Copied<'h, 'c, 'm, M: Medium> {
    promotion: Promotion<'h, 'c, 'm, M>,
}

impl<M: Medium> Copied<'_, '_, '_, M> {
    /// Ends the page's stay: the host has mapped the copy, and nobody can reach the resident page any more.
    pub fn finish(self) {
        let page = self.promotion.page;
        let handler = &mut *self.promotion.handler;
        // Only the owner of the promotion turns it, so this succeeds.
        if handler.cram.frames.turn(page, State::Promoting, State::Freeing).is_ok() {
            handler.cram.note(Event::Promoted);
            handler.scrub(page);
        }
    }
}

impl<M: Medium> fmt::Debug for Copied<'_, '_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Copied({:?})", self.promotion.page)
    }
}
