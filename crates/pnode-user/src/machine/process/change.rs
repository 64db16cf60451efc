//! Changing an address space: mapping, unmapping, moving, protecting, giving advice.

use core::convert::Infallible;
use core::ops::Range;
use std::sync::Arc;

use pnode_core::policy::Policy;

use super::super::object::Object;
use super::super::region::{Page, Region, State};
use super::layout::{Area, Attached, Grain};
use super::{Process, ProcessError, Rights, Sharing};
use crate::fault::Standing;
use crate::sys::SysError;

/// What a program says about its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It needs them no more (`MADV_DONTNEED`): their frames go back at once, and they are zero at the next touch. What
    /// is an object's is the object's again.
    DontNeed,
    /// It will write to them: they are made present (`MADV_POPULATE_WRITE`).
    Populate,
    /// It will not touch them for a while: reclaim takes them first (`MADV_COLD`).
    Cold,
    /// It will not touch them for a while, and their frames are wanted now (`MADV_PAGEOUT`): each page goes to a lower tier,
    /// to the swap file, or back to its file, if there is room. Pages that other processes map, too, stay.
    PageOut,
    /// It wants them in huge mappings (`MADV_HUGEPAGE`): a first touch brings the aligned run of
    /// [`Machine::HUGE_PAGES`](super::super::Machine::HUGE_PAGES) pages around it, if nobody touched any of them, all are in the
    /// area, may be written to, have no policy, and the node near the CPU has a free block for them.
    Huge,
    /// It wants single pages (`MADV_NOHUGEPAGE`), as without advice.
    Small,
    /// It does not want their bytes any more (`MADV_FREE`): reclaim may take them at any time and need not keep the bytes;
    /// then they are zero at the next touch. A write in between keeps a page. Pages that a fork shares stay as they are, and
    /// so do those of objects.
    Free,
}

impl Process {
    /// Maps `pages` pages of anonymous memory where there is room; gives back which pages these are.
    ///
    /// # Errors
    ///
    /// [`ProcessError`].
    pub fn map(&self, pages: usize, rights: Rights) -> Result<Range<usize>, ProcessError> {
        if pages == 0 {
            return Err(ProcessError::Empty);
        }
        let _changing = self.layout().changing();
        let mut table = self.layout().table_mut();
        let room = table.find_room(pages, self.pages()).ok_or(ProcessError::NoRoom { pages })?;
        table.set(
            room.clone(),
            Area { end: 0, rights, policy: Policy::DEFAULT, grain: Grain::Page, object: None },
        );
        Ok(room)
    }

    /// Maps pages `part` of `object` where there is room; gives back which pages of the process these are.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; [`ProcessError::NotMapped`] if the object does not have these pages.
    pub fn map_object(
        &self,
        object: &Object,
        part: Range<usize>,
        rights: Rights,
        sharing: Sharing,
    ) -> Result<Range<usize>, ProcessError> {
        if part.is_empty() {
            return Err(ProcessError::Empty);
        }
        if part.end > object.pages() {
            return Err(ProcessError::NotMapped { page: object.pages().max(part.start) });
        }
        let _changing = self.layout().changing();
        let mut table = self.layout().table_mut();
        let pages = part.len();
        let room = table.find_room(pages, self.pages()).ok_or(ProcessError::NoRoom { pages })?;
        let shift = part.start.wrapping_sub(room.start);
        let object = Some(Attached { body: Arc::clone(&object.body), shift, sharing });
        table.set(room.clone(), Area { end: 0, rights, policy: Policy::DEFAULT, grain: Grain::Page, object });
        Ok(room)
    }

    /// Unmaps `pages`, those that are mapped. Their frames go back.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; the pages are still mapped then, some of them without their bytes.
    pub fn unmap(&self, pages: Range<usize>) -> Result<(), ProcessError> {
        self.check_range(&pages)?;
        let _changing = self.layout().changing();
        let areas = self.layout().table().within(&pages);
        self.layout().table_mut().clear(&pages);
        // A fault that saw the areas before holds its page, for which this waits.
        let emptied = self.empty(&areas);
        if emptied.is_err() {
            let mut table = self.layout().table_mut();
            areas.into_iter().for_each(|(pages, area)| table.set(pages, area));
        }
        emptied
    }

    /// Changes what the program may do with `pages`, all of which are mapped.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; nothing has changed then.
    pub fn protect(&self, pages: Range<usize>, rights: Rights) -> Result<(), ProcessError> {
        let _changing = self.layout().changing();
        let areas = self.areas_of(&pages)?;
        let mut table = self.layout().table_mut();
        areas.iter().for_each(|(part, area)| table.set(part.clone(), Area { rights, ..area.clone() }));
        drop(table);
        // Each page is mapped again at its next touch, with its new rights. A fault that saw the old ones holds its page.
        let unmapped = self.mapped_pages(&pages, |region, page, _| region.view.unmap(page, 1));
        if let Err(error) = unmapped {
            let mut table = self.layout().table_mut();
            areas.into_iter().for_each(|(part, area)| table.set(part, area));
            return Err(ProcessError::Kernel(error));
        }
        Ok(())
    }

    /// Follows advice on `pages`, all of which are mapped.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; the advice was followed for some of the pages then.
    pub fn advise(&self, pages: Range<usize>, advice: Advice) -> Result<(), ProcessError> {
        let _changing = self.layout().changing();
        let areas = self.areas_of(&pages)?;
        match advice {
            Advice::DontNeed => self.empty(&areas),
            Advice::Populate => {
                let populated = self.region.populate(pages);
                populated.map(drop).map_err(|(page, error)| ProcessError::Page { page, error })
            }
            Advice::Cold => self
                .mapped_pages(&pages, |region, page, cell| {
                    cell.referenced = false;
                    if let State::Common(common) = &cell.state {
                        common.cool_if_alone();
                    }
                    region.view.unmap(page, 1)
                })
                .map_err(ProcessError::Kernel),
            Advice::PageOut => {
                let mut routes = self.region.shared.routes();
                let Ok(()) = self.mapped_pages(&pages, |region, page, cell| {
                    cell.referenced = false;
                    let alone = match &cell.state {
                        State::Common(common) => common.cool_if_alone(),
                        _ => true,
                    };
                    if alone {
                        region.visit(page, cell, &mut routes);
                    }
                    Ok::<_, Infallible>(())
                });
                Ok(())
            }
            Advice::Huge | Advice::Small => {
                let grain = if advice == Advice::Huge { Grain::Huge } else { Grain::Page };
                let mut table = self.layout().table_mut();
                areas.into_iter().for_each(|(part, area)| table.set(part, Area { grain, ..area }));
                Ok(())
            }
            Advice::Free => self.mapped_pages(&pages, Region::give_up_lazily).map_err(ProcessError::Kernel),
        }
    }

    /// Makes the area part `pages` one of `count` pages, where it is if there is room, else elsewhere with all its bytes;
    /// gives back where (`mremap`). Pointers into a range that moved are void.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; nothing has changed then.
    pub fn remap(&self, pages: Range<usize>, count: usize) -> Result<Range<usize>, ProcessError> {
        if count == 0 {
            return Err(ProcessError::Empty);
        }
        if count <= pages.len() {
            let kept = pages.start..pages.start + count;
            if kept.end < pages.end {
                self.unmap(kept.end..pages.end)?;
            }
            return Ok(kept);
        }
        let _changing = self.layout().changing();
        let areas = self.areas_of(&pages)?;
        let [(part, area)] = &areas[..] else {
            return Err(ProcessError::SeveralAreas { page: areas[0].0.end });
        };
        let mut table = self.layout().table_mut();
        // An object does not grow; nor does what was mapped of it.
        if area.object.is_some() {
            return Err(ProcessError::NoRoom { pages: count });
        }
        let longer = pages.end..pages.start.saturating_add(count);
        if longer.end <= self.pages() && table.within(&longer).is_empty() {
            table.set(part.start..longer.end, area.clone());
            return Ok(part.start..longer.end);
        }
        let room = table.find_room(count, self.pages()).ok_or(ProcessError::NoRoom { pages: count })?;
        drop(table);
        let (region, all) = (&self.region, pages.len());
        region.view.unmap(pages.start, all).map_err(ProcessError::Kernel)?;
        // Who touches either range from here on, before this returns, touches what is not mapped.
        self.layout().table_mut().clear(&pages);
        for (from, to) in pages.clone().zip(room.clone()) {
            if let Err(error) = region.move_page(from, to) {
                // Back to where they were; these had no mapping a moment ago.
                (pages.start..from).zip(room.clone()).for_each(|(from, to)| {
                    let _ = region.move_page(to, from);
                });
                self.layout().table_mut().set(pages, area.clone());
                return Err(ProcessError::Kernel(error));
            }
        }
        self.layout().table_mut().set(room.clone(), area.clone());
        Ok(room)
    }

    /// The areas of `pages`, which must have no gap.
    pub(super) fn areas_of(&self, pages: &Range<usize>) -> Result<Vec<(Range<usize>, Area)>, ProcessError> {
        self.check_range(pages)?;
        let table = self.layout().table();
        match table.first_gap(pages) {
            Some(page) => Err(ProcessError::NotMapped { page }),
            None => Ok(table.within(pages)),
        }
    }

    fn check_range(&self, pages: &Range<usize>) -> Result<(), ProcessError> {
        if pages.is_empty() {
            return Err(ProcessError::Empty);
        }
        let last = self.pages();
        if pages.end > last { Err(ProcessError::NotMapped { page: last.max(pages.start) }) } else { Ok(()) }
    }

    /// Gives up what the pages of `areas` hold. For all at once first; what is mapped again meanwhile goes one by one.
    fn empty(&self, areas: &[(Range<usize>, Area)]) -> Result<(), ProcessError> {
        for (pages, _) in areas {
            self.region.view.unmap(pages.start, pages.len()).map_err(ProcessError::Kernel)?;
            self.mapped_pages(pages, |region, page, cell| {
                if matches!(region.view.standing(page), Standing::Mapped(_)) {
                    region.view.unmap(page, 1)?;
                }
                region.discard(page, cell);
                Ok(())
            })
            .map_err(ProcessError::Kernel)?;
        }
        Ok(())
    }

    /// Calls `each` with every one of `pages` that somebody touched.
    fn mapped_pages<E>(
        &self,
        pages: &Range<usize>,
        mut each: impl FnMut(&Region, usize, &mut Page) -> Result<(), E>,
    ) -> Result<(), E> {
        for page in pages.clone() {
            if let Some(mut cell) = self.region.lock(page) {
                if !matches!(cell.state, State::Untouched) {
                    each(&self.region, page, &mut cell)?;
                }
            }
        }
        Ok(())
    }
}

impl Region {
    /// Lets reclaim take a page without keeping its bytes, until somebody writes to it.
    fn give_up_lazily(&self, page: usize, cell: &mut Page) -> Result<(), SysError> {
        match &cell.state {
            State::Resident(frame) if self.shared.may_reclaim(frame) => {
                // From here on a write faults, and says that the page is wanted after all.
                self.view.write_protect(page)?;
                cell.freeable = true;
            }
            State::Swapped(_) => self.discard(page, cell),
            State::Stored { .. } => {
                self.view.unmap(page, 1)?;
                self.discard(page, cell);
            }
            State::Resident(_) | State::Common(_) | State::Untouched => {}
        }
        Ok(())
    }
}
