//! Bringing several pages at once: the neighbours of a fault, and whole ranges.

use core::ops::Range;
use std::sync::{Arc, MutexGuard, TryLockError};

use pnode_core::{Frame, Pfn};

use super::common::Writes;
use super::inject::Point;
use super::mapping::Mapping;
use super::region::{Page, Region, State};
use super::trace::{Note, What, Why};
use crate::fault::{Access, FaultError, Protection, Standing};

/// The most pages that are brought at once: what the processor maps by one entry.
const MOST: usize = 512;

/// A page that is brought along with another one.
struct Neighbour<'r> {
    cell: MutexGuard<'r, Page>,
    frame: Frame,
}

impl Region {
    /// Serves the first touch of page `page`, and brings those of `window` along that nobody touched, that nobody
    /// holds, and whose frames stand beside its own. Returns how many pages came in all.
    pub(super) fn bring(
        &self,
        page: usize,
        cell: &mut Page,
        standing: Standing,
        window: Range<usize>,
    ) -> Result<usize, FaultError> {
        let frame = self.first_frame(page, standing)?;
        let after = self.neighbours(page, frame.pfn(), (page + 1..window.end).zip(1..));
        let before =
            self.neighbours(page, frame.pfn(), (window.start..page).rev().zip((1..).map(|n: i64| -n)));
        let (first, pages) = (page - before.len(), before.len() + 1 + after.len());
        let mut mapped = Err(FaultError::NotMapped);
        if pages > 1 {
            mapped = self.map_run(first, pages, before.last().map_or(&frame, |lowest| &lowest.frame));
        }
        let together = mapped.is_ok();
        if !together {
            // The page itself comes alone, if it can.
            mapped = self.map_zeroed(page, &frame);
        }
        for Neighbour { mut cell, frame } in before.into_iter().chain(after) {
            match together {
                true => self.settle(&mut cell, State::Resident(frame)),
                false => self.shared.give_back(frame),
            }
        }
        let note = Note::new(What::Fault, Why::FirstTouch).frame(&frame);
        self.settle_mapped(cell, frame, mapped)?;
        let pages = if together { pages } else { 1 };
        self.shared.note(|| note.count(pages as u64));
        self.shared.counters.hard_faults.add(1);
        self.shared.counters.faulted_around.add(pages as u64 - 1);
        Ok(pages)
    }

    /// The pages that can come along, from the nearest on, and their distance from the frame `pfn`.
    fn neighbours(
        &self,
        near: usize,
        pfn: Pfn,
        pages: impl Iterator<Item = (usize, i64)>,
    ) -> Vec<Neighbour<'_>> {
        let mut found = Vec::new();
        for (page, distance) in pages {
            // Never waits for a page while one is held.
            let cell = match self.pages.get(page).map(|page| page.try_lock()) {
                Some(Ok(cell)) => cell,
                Some(Err(TryLockError::Poisoned(cell))) => cell.into_inner(),
                Some(Err(TryLockError::WouldBlock)) | None => break,
            };
            let is_free = matches!(cell.state, State::Untouched)
                && self.admits_like(page, near)
                && !matches!(self.view.standing(page), Standing::Mapped(_));
            let beside = pfn.get().checked_add_signed(distance).map(Pfn::new);
            let Some(frame) = beside.filter(|_| is_free).and_then(|pfn| self.exactly(page, pfn)) else {
                break;
            };
            found.push(Neighbour { cell, frame });
        }
        found
    }

    /// Fills consecutive frames from `frame` on with zeroes and maps them, if they are in one place and not fenced.
    fn map_run(&self, first: usize, pages: usize, frame: &Frame) -> Result<(), FaultError> {
        let (site, index) = self.shared.locate(frame.pfn()).ok_or(FaultError::NotMapped)?;
        if self.protection(first, frame)? != Protection::ReadWrite {
            return Err(FaultError::NotMapped);
        }
        let checked = self.shared.check(Point::Map);
        let mapped = checked.and_then(|()| self.view.map_zeroed(first, pages, &site.backing, index));
        mapped.map_err(FaultError::Kernel)
    }

    /// As [`Mapping::populate`]; an error names its page.
    pub(super) fn populate(&self, pages: Range<usize>) -> Result<usize, (usize, FaultError)> {
        let pages = self.clamp(pages);
        let (mut page, mut taken) = (pages.start, 0);
        while page < pages.end {
            let Some(mut cell) = self.lock(page) else { break };
            let standing = self.view.standing(page);
            let is_mapped = matches!(standing, Standing::Mapped(_));
            let brought = match &cell.state {
                State::Swapped(_) => self.serve(page, &mut cell, Access::Read).map(|()| 1),
                State::Untouched if self.is_of_object(page) => {
                    self.serve(page, &mut cell, Access::Read).map(|()| 1)
                }
                State::Untouched => {
                    let end = pages.end.min(page.saturating_add(MOST));
                    self.bring(page, &mut cell, standing, page..end).inspect(|brought| taken += brought)
                }
                // It is to be written to, so its bytes are wanted again. The next round maps it as one that is.
                State::Resident(_) if cell.freeable => {
                    cell.freeable = false;
                    self.view.unmap(page, 1).map_err(|error| (page, FaultError::Kernel(error)))?;
                    Ok(0)
                }
                State::Resident(frame) if !is_mapped => self.map(page, frame).map(|()| 1),
                State::Common(common) if !is_mapped => {
                    let common = Arc::clone(common);
                    self.serve_common(page, &mut cell, &common, Writes::No, None).map(|()| 1)
                }
                State::Resident(_) | State::Common(_) | State::Stored { .. } => Ok(1),
            };
            page += brought.map_err(|error| (page, error))?;
        }
        Ok(taken)
    }
}

impl Mapping {
    /// Makes `pages` present before anybody touches them, as `MADV_POPULATE_WRITE` does: those that nobody touched
    /// take frames, in runs that are as long as memory allows, and those in frames get their mappings back. Pages of a
    /// compressed node stay there. Returns how many pages took frames.
    ///
    /// What a system call is to read or write must be present, unless the backend lets system calls wait.
    ///
    /// # Errors
    ///
    /// [`FaultError`] at the first page that cannot be served; those before it are present.
    pub fn populate(&self, pages: Range<usize>) -> Result<usize, FaultError> {
        self.region.populate(pages).map_err(|(_, error)| error)
    }
}
