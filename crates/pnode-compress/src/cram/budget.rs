//! The writable budget: a few resident pages that may be written where they are.
//!
//! A page that is written again and again is promoted and demoted again and again. A host that would rather take a bounded
//! risk lets so many pages of a node be *open*: mapped writable, in place. The dial is the administrator's (discussion of
//! the compressed RAM series, April and May 2026). As that discussion found, a counter alone bounds nothing: an open page
//! can be rewritten at the speed of a processor with what does not compress. So here an open page is also paid for in
//! advance: the medium sets the worst case of the whole page aside for as long as it is open, and refuses to if it has not
//! got that much. A device cannot be overrun by its open pages, however many the budget allows.
//!
//! | when | the host |
//! | --- | --- |
//! | a write hits a resident page | calls [`Handler::open`]; maps the page writable, or on [`OpenError::OverBudget`] fences [`Cram::coldest_writable`] and asks again, or promotes as without a budget |
//! | a page is to be closed | maps it read-only everywhere, flushes what caches that, then calls [`Handler::fence`] |
//! | an open page is to be promoted, or the node goes | closes it first |
//! | an open page is freed | calls [`Handler::free`] as for any other |
//!
//! The budget is 0 until somebody sets it: nothing is ever writable in place.

use pnode_core::sync::Ordering;

use super::error::OpenError;
use super::frames::{Resident, State, Turned};
use super::handler::Handler;
use super::medium::{Medium, WriteError};
use super::stats::Event;
use super::{Cram, FaultError, Phase, Stale};

impl Cram<'_> {
    /// Lets up to `pages` resident pages be open for writing. A lower budget closes nothing by itself: the host fences
    /// [`Cram::coldest_writable`] until [`Cram::over_budget`] is 0.
    pub fn set_writable_budget(&self, pages: u64) {
        // Relaxed: the count is tested anew for each page.
        self.budget.store(pages, Ordering::Relaxed);
    }

    /// How many pages may be open.
    pub fn writable_budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// How many pages more than the budget allows are open, since it was lowered.
    pub fn over_budget(&self) -> u64 {
        self.writable.load(Ordering::Relaxed).saturating_sub(self.writable_budget())
    }

    /// The pages that are open, by frame. A snapshot, as [`Cram::residents`] is, which names them too.
    pub fn writables(&self) -> impl Iterator<Item = Resident> + '_ {
        (0..self.frames.count()).filter_map(|frame| self.frames.writable_at(frame))
    }

    /// An open page that was not written for long, if any is open: the one to close first.
    ///
    /// `used` tells whether a page was written since it was asked last, and forgets it: the dirty bits of the page tables.
    /// Corbató's clock (*A paging experiment with the Multics system*, 1968): a hand goes round over the frames, passes
    /// the pages that were used once, and stops at one that was not. If all are in use, it is the first that it met.
    pub fn coldest_writable(&self, mut used: impl FnMut(Resident) -> bool) -> Option<Resident> {
        let count = self.frames.count();
        // Relaxed: callers at the same time may get the same page, of which one closes it.
        let start = self.hand.load(Ordering::Relaxed) % count;
        let mut first = None;
        let round = || (start..count).chain(0..start).filter_map(|frame| self.frames.writable_at(frame));
        let cold = round().chain(round()).find(|&page| {
            first = first.or(Some(page));
            !used(page)
        });
        let found = cold.or(first)?;
        self.hand.store(found.frame() + 1, Ordering::Relaxed);
        Some(found)
    }

    fn take_from_budget(&self) -> Result<(), u64> {
        let budget = self.writable_budget();
        // Relaxed: the count guards no memory.
        let one_more = |open| (open < budget).then(|| open + 1);
        self.writable
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map(|_| ())
            .map_err(|_| budget)
    }
}

impl<M: Medium> Handler<'_, '_, M> {
    /// Opens a resident page for writing where it is, if the budget, the pressure and the medium allow it. The host maps it
    /// writable after this, and not before. A page that is open already stays so.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the page is what it was. Whatever the reason, the write can promote the page instead.
    pub fn open(&mut self, page: Resident) -> Result<(), OpenError> {
        let cram = self.shared();
        if cram.frames.state(page) == Some(State::Writable) {
            return Ok(());
        }
        let phase = cram.phase();
        if phase != Phase::Open {
            return Err(OpenError::NotOpen { phase });
        }
        let pressure = cram.press(self.medium().usage());
        if !pressure.admits() {
            return Err(OpenError::Pressure { pressure });
        }
        if let Err(budget) = cram.take_from_budget() {
            cram.note(Event::OverBudget);
            return Err(OpenError::OverBudget { budget });
        }
        if let Err(error) = self.medium().open(page.frame()) {
            cram.writable.fetch_sub(1, Ordering::Relaxed);
            return Err(match error {
                WriteError::Fixed => OpenError::Fixed,
                _ => OpenError::Full,
            });
        }
        match cram.frames.turn(page, State::Resident, State::Writable) {
            Ok(()) => {
                cram.note(Event::Opened);
                Ok(())
            }
            Err(turned) => {
                self.closed(page);
                match turned {
                    Turned::Is(State::Writable) => Ok(()),
                    Turned::Is(State::Promoting | State::Freeing) => Err(OpenError::Busy),
                    _ => Err(OpenError::Stale(Stale { page })),
                }
            }
        }
    }

    /// Closes an open page that the host has mapped read-only everywhere: no write can reach it any more. A page that is
    /// closed already stays so.
    ///
    /// # Errors
    ///
    /// [`FaultError::Stale`] if the page is gone.
    pub fn fence(&mut self, page: Resident) -> Result<(), FaultError> {
        match self.shared().frames.turn(page, State::Writable, State::Resident) {
            Ok(()) => {
                self.closed(page);
                self.shared().note(Event::Fenced);
                Ok(())
            }
            Err(Turned::Is(State::Resident | State::Promoting | State::Freeing)) => Ok(()),
            Err(_) => Err(Stale { page }.into()),
        }
    }

    /// Gives back what an open page has taken of the budget and of the medium.
    pub(super) fn closed(&mut self, page: Resident) {
        self.medium().close(page.frame());
        self.shared().writable.fetch_sub(1, Ordering::Relaxed);
    }
}
