//! Huge mappings: 2 MiB at the first touch, where the program asked for it.
//!
//! One fault takes the frames of one free block of order 9 and maps them by one mapping. They are taken one by one, by number,
//! as soon as the block is found and given back; so each page has a frame of its own from the start, and nothing has to be done
//! to *split* a huge mapping: whoever unmaps, protects, demotes or swaps a part of it does it to single pages, and the others
//! stay where they are. Who moves all of it (migration, a policy, a tier, a node that leaves) moves it to one block if there is
//! one, and reclaim takes it for cold only if none of its pages was touched. Where no such block is free, or somebody takes a frame of it first, pages are small.
//!
//! After transparent huge pages (`Documentation/admin-guide/mm/transhuge.rst`) with `enabled` at `madvise`.

use core::ops::Range;
use std::sync::{MutexGuard, TryLockError};

use pnode_core::sync::Ordering;
use pnode_core::{Frame, Grant, NodeId, Order, Pfn, Reason, Request};

use super::frames::order;
use super::inject::Point;
use super::mapping::{Mapping, Place, Placement};
use super::process::Process;
use super::region::{Page, Region, State};
use super::site::Site;
use super::trace::{Note, What, Why};
use super::{Machine, Shared, Zone};
use crate::fault::{FaultError, Protection, Standing};
use crate::sys::SysError;

const HUGE: Order = order(9);

/// When the pages of a huge mapping that moved are mapped again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// By one mapping, at once.
    AtOnce,
    /// Each at its next touch, for touches are to be seen.
    AtNextTouch,
}

/// Where a huge mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) node: NodeId,
    pub(super) first: Pfn,
}

impl Machine {
    /// How many pages a huge mapping has.
    pub const HUGE_PAGES: usize = 1 << HUGE.get();
}

/// The aligned run of pages around `page`.
const fn around(page: usize) -> Range<usize> {
    let start = page & !(Machine::HUGE_PAGES - 1);
    start..start + Machine::HUGE_PAGES
}

impl Mapping {
    /// Asks for huge mappings from now on: a first touch brings the aligned run of [`Machine::HUGE_PAGES`] pages around the
    /// page, if nobody touched any of them and the node has a free block for them. Pages that are there stay as they are.
    pub fn advise_huge(&self) {
        // Relaxed: advice, which orders nothing.
        self.region.huge.store(true, Ordering::Relaxed);
    }

    /// Whether the aligned run of pages around `page` is in one aligned block of frames.
    pub fn is_huge(&self, page: usize) -> bool {
        self.region.is_huge(page)
    }
}

impl Process {
    /// Whether the aligned run of pages around `page` is in one aligned block of frames.
    pub fn is_huge(&self, page: usize) -> bool {
        self.region().is_huge(page)
    }
}

impl Region {
    fn is_huge(&self, page: usize) -> bool {
        let frame = |page| match self.place(page) {
            Place::Resident { pfn, .. } => Some(pfn),
            _ => None,
        };
        let first = frame(around(page).start).filter(|pfn| pfn.get() % HUGE.frames() == 0);
        first.is_some_and(|first| {
            around(page).zip(first.get()..).all(|(page, pfn)| frame(page) == Some(Pfn::new(pfn)))
        })
    }

    /// The run of pages around `page`, if the program asked for huge mappings there.
    fn huge_around(&self, page: usize) -> Option<Range<usize>> {
        let run = around(page);
        let asked = match &self.layout {
            None => self.huge.load(Ordering::Relaxed),
            Some(layout) => layout.asks_for_huge(&run),
        };
        (asked && run.end <= self.pages.len()).then_some(run)
    }

    /// The other pages of `run`, if all can be had at once and `suit`. Never waits for a page while one is held.
    fn others(
        &self,
        page: usize,
        run: Range<usize>,
        suits: impl Fn(usize, &Page) -> bool,
    ) -> Option<Vec<MutexGuard<'_, Page>>> {
        let mut others = Vec::with_capacity(run.len());
        for other in run.filter(|other| *other != page) {
            let cell = match self.pages[other].try_lock() {
                Ok(cell) => cell,
                Err(TryLockError::Poisoned(cell)) => cell.into_inner(),
                Err(TryLockError::WouldBlock) => return None,
            };
            if !suits(other, &cell) {
                return None;
            }
            others.push(cell);
        }
        Some(others)
    }

    /// Serves the first touch of `page` by a huge mapping; whether there is one now. If not, nothing has changed.
    pub(super) fn bring_huge(&self, page: usize, cell: &mut Page) -> bool {
        let Some(run) = self.huge_around(page) else { return false };
        let untouched = |other: usize, cell: &Page| {
            matches!(cell.state, State::Untouched)
                && !matches!(self.view.standing(other), Standing::Mapped(_))
        };
        let Some(others) = self.others(page, run.clone(), untouched) else { return false };
        let Some(frames) = self.huge_frames(page) else {
            self.shared.counters.huge_refused.add(1);
            return false;
        };
        if self.map_huge(&run, &frames).is_err() {
            frames.into_iter().for_each(|frame| self.shared.give_back(frame));
            return false;
        }
        self.shared.note(|| Note::new(What::Fault, Why::FirstTouch).frame(&frames[0]).count(HUGE.frames()));
        self.settle_all(page, cell, others, run, frames);
        self.shared.counters.hard_faults.add(1);
        self.shared.counters.huge_faults.add(1);
        true
    }

    /// Moves the huge mapping that `page` is part of as a whole, if it is one, each of its pages `suits`, and `take` has a block
    /// for it. Returns the first of its new frames' numbers; `None` if nothing has changed.
    pub(super) fn move_huge(
        &self,
        page: usize,
        cell: &mut Page,
        shown: Shown,
        suits: impl Fn(&Page) -> bool,
        take: impl FnOnce() -> Option<Vec<Frame>>,
    ) -> Result<Option<Block>, SysError> {
        let Some(run) = self.huge_around(page) else { return Ok(None) };
        let State::Resident(frame) = &cell.state else { return Ok(None) };
        let first = frame.pfn().get().wrapping_sub((page - run.start) as u64);
        if first % HUGE.frames() != 0 || cell.freeable || !suits(cell) {
            return Ok(None);
        }
        let in_place = |other: usize, cell: &Page| {
            let wanted = Pfn::new(first + (other - run.start) as u64);
            let is_there = matches!(&cell.state, State::Resident(frame) if frame.pfn() == wanted);
            is_there && !cell.freeable && suits(cell)
        };
        let Some(others) = self.others(page, run.clone(), in_place) else { return Ok(None) };
        let Some(frames) = take() else { return Ok(None) };
        // In the order of the run: the page itself stands between those before it and those after it.
        let (before, after) = others.split_at(page - run.start);
        let pages =
            before.iter().map(|other| &**other).chain([&*cell]).chain(after.iter().map(|other| &**other));
        let resident = |page| match page {
            &Page { state: State::Resident(ref frame), .. } => Some(frame),
            _ => None,
        };
        let old: Vec<&Frame> = pages.filter_map(resident).collect();
        let mut copied = self.view.unmap(run.start, run.len());
        for (new, old) in frames.iter().zip(&old) {
            copied = copied.and_then(|()| self.shared.copy(new, old));
        }
        if let Err(error) = copied {
            frames.into_iter().for_each(|frame| self.shared.give_back(frame));
            return Err(error);
        }
        for (new, old) in frames.iter().zip(&old) {
            self.shared.moved(old, new);
        }
        let block = Block { node: frames[0].node(), first: frames[0].pfn() };
        if let (Shown::AtOnce, Ok(protection), Some((site, index))) =
            (shown, self.protection(run.start, &frames[0]), self.shared.locate(block.first))
        {
            // If the kernel refuses, each page is mapped at its next touch.
            let _ = self.view.map(run.start, run.len(), &site.backing, index, protection);
        }
        self.settle_all(page, cell, others, run, frames);
        self.shared.counters.huge_moves.add(1);
        Ok(Some(block))
    }

    /// [`Region::move_huge`] on somebody's request; whether it moved.
    pub(super) fn migrate_huge(
        &self,
        page: usize,
        cell: &mut Page,
        suits: impl Fn(&Page) -> bool,
        take: impl FnOnce() -> Option<Vec<Frame>>,
    ) -> Result<bool, SysError> {
        let moved = self.move_huge(page, cell, Shown::AtOnce, suits, take)?;
        if let Some(block) = moved {
            self.shared.counters.migrated.add(HUGE.frames());
            self.note_huge(What::Migrate, Why::Asked, block);
        }
        Ok(moved.is_some())
    }

    /// Moves the huge mapping that `page` is part of to node `node`, if there is one and `take` has a block for it; whether it
    /// moved.
    pub(super) fn relocate_huge(
        &self,
        page: usize,
        node: NodeId,
        take: impl FnOnce() -> Option<Vec<Frame>>,
    ) -> Result<bool, FaultError> {
        let Some(mut cell) = self.lock(page) else { return Ok(false) };
        let elsewhere = |page: &Page| page.node() != Some(node);
        self.migrate_huge(page, &mut cell, elsewhere, take).map_err(FaultError::Kernel)
    }

    /// [`Region::move_huge`] to where the mapping has its ordinary memory.
    pub(super) fn move_huge_to_ordinary(
        &self,
        page: usize,
        cell: &mut Page,
        suits: impl Fn(&Page) -> bool,
    ) -> Result<Option<Block>, SysError> {
        let mems = self.mems();
        let request = |order| Request::order(order).prefer(self.placement.node()).nodemask(mems.ordinary());
        let nodes = self.shared.nodes;
        self.move_huge(page, cell, Shown::AtOnce, suits, || {
            let block = nodes.alloc(request(HUGE)).ok()?;
            self.shared.pieces(block, |pfn| nodes.alloc_at(pfn, request(Order::ZERO)).ok())
        })
    }

    /// Notes that a huge mapping moved to `block`.
    pub(super) fn note_huge(&self, what: What, why: Why, block: Block) {
        self.shared.note(|| Note::new(what, why).at(block.node, block.first).count(HUGE.frames()));
    }

    /// Makes `frames` the pages of `run`, which are `page` and the others.
    fn settle_all(
        &self,
        page: usize,
        cell: &mut Page,
        others: Vec<MutexGuard<'_, Page>>,
        run: Range<usize>,
        frames: Vec<Frame>,
    ) {
        let mut others = others.into_iter();
        for (at, frame) in run.zip(frames) {
            if at == page {
                self.settle(cell, State::Resident(frame));
            } else if let Some(mut other) = others.next() {
                self.settle(&mut other, State::Resident(frame));
            }
        }
    }

    /// Clears the frames and maps them by one mapping, if the program may write there.
    fn map_huge(&self, run: &Range<usize>, frames: &[Frame]) -> Result<(), FaultError> {
        if self.protection(run.start, &frames[0])? != Protection::ReadWrite {
            return Err(FaultError::NotMapped);
        }
        self.shared.check(Point::Map).map_err(FaultError::Kernel)?;
        let (site, index) = self.shared.locate(frames[0].pfn()).ok_or(FaultError::NotMapped)?;
        self.view.map_zeroed(run.start, run.len(), &site.backing, index).map_err(FaultError::Kernel)
    }

    /// The frames of a free block where the mapping wants its memory.
    fn huge_frames(&self, page: usize) -> Option<Vec<Frame>> {
        if self.is_governed(page) {
            return self.policy_block(page);
        }
        let node = self.placement.node();
        let site = self.shared.site(node)?;
        let request = Request::order(HUGE);
        let block = match self.placement {
            Placement::Owner(_) => site.owner_grant().ok()?.alloc(request),
            Placement::Bound(_) if site.is_private() => {
                self.shared.nodes.grant_as_of(node, Reason::UserPolicy, self.stamp).ok()?.alloc(request)
            }
            Placement::Bound(_) | Placement::Near(_) => {
                self.shared.nodes.alloc(request.prefer(node).this_node_only())
            }
        };
        self.shared.pieces(block.ok()?, |pfn| self.exactly(page, pfn))
    }
}

impl Region {
    /// The frames of a free block where the policies of `page` want it, and nowhere else: single pages can spill by their rules.
    pub(super) fn policy_block(&self, page: usize) -> Option<Vec<Frame>> {
        let counting = self.counting(page)?;
        let (shared, nodes) = (&self.shared, self.shared.nodes);
        // Before the block is placed: its node is not taken for one that came since.
        let stamp = nodes.stamp();
        let placement = counting.placement().order(HUGE);
        let placed = nodes.place(&placement).ok()?;
        let node = placed.frame.node();
        let wanted = placement.wanted(nodes.distances()).is_none_or(|wanted| wanted.any().contains(node));
        let is_private = shared.site(node).is_some_and(Site::is_private);
        let grant = is_private.then(|| nodes.grant_as_of(node, Reason::UserPolicy, stamp));
        if !wanted || matches!(grant, Some(Err(_))) {
            shared.put_back(placed.frame);
            return None;
        }
        let frames = shared.pieces(placed.frame, |pfn| match &grant {
            Some(grant) => grant.as_ref().ok()?.alloc_at(pfn, Request::page()).ok(),
            None => nodes.alloc_at(pfn, Request::page().prefer(node).this_node_only()).ok(),
        })?;
        shared.faults_by_policy.count(&placed.report);
        Some(frames)
    }
}

impl Shared {
    /// The frames of a free block of the node of `grant`.
    pub(super) fn huge_frames_of(&self, grant: &Grant<'static, Zone>) -> Option<Vec<Frame>> {
        let block = grant.alloc(Request::order(HUGE)).ok()?;
        self.pieces(block, |pfn| grant.alloc_at(pfn, Request::page()).ok())
    }

    /// The frames of a free block of ordinary node `node`.
    pub(super) fn huge_frames_on(&self, node: NodeId) -> Option<Vec<Frame>> {
        let request = |order| Request::order(order).prefer(node).this_node_only();
        let block = self.nodes.alloc(request(HUGE)).ok()?;
        self.pieces(block, |pfn| self.nodes.alloc_at(pfn, request(Order::ZERO)).ok())
    }

    /// Gives the block back and takes its frames one by one; all of them, or none if somebody is quicker with one.
    fn pieces(&self, block: Frame, mut exactly: impl FnMut(Pfn) -> Option<Frame>) -> Option<Vec<Frame>> {
        let first = block.pfn().get();
        self.put_back(block);
        let mut frames = Vec::with_capacity(Machine::HUGE_PAGES);
        for pfn in first..first + HUGE.frames() {
            match exactly(Pfn::new(pfn)) {
                Some(frame) => frames.push(frame),
                None => {
                    frames.into_iter().for_each(|frame| self.put_back(frame));
                    return None;
                }
            }
        }
        Some(frames)
    }
}
