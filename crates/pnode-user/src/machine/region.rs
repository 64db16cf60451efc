//! What a mapping stands for: its page table, serving its faults, and moving its pages.

use core::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pnode_compress::cram::Resident;
use pnode_core::sync::AtomicU32;
use pnode_core::{AllocError, Features, Frame, FrameRange, NodeId, Stamp};

use super::Shared;
use super::compressed::Compressed;
use super::mapping::Placement;
use super::reclaim::{DemoteError, Target};
use super::site::Site;
use crate::fault::{Access, FaultError, Pager, Protection, Standing, View};
use crate::sys::SysError;

/// What a [`Mapping`] stands for.
///
/// # Lock order
///
/// The life of a node, then one page, then the window of a compressed node, then a view. Nobody waits for a page while holding another one.
pub(super) struct Region {
    pub(super) me: Weak<Region>,
    pub(super) shared: Arc<Shared>,
    pub(super) view: View,
    pub(super) placement: Placement,
    /// The life of the placement's node when the mapping was made.
    pub(super) life: u32,
    /// When the mapping was made, among the registrations of nodes.
    pub(super) stamp: Stamp,
    /// How many pages look for no run of frames.
    pub(super) discouraged: AtomicU32,
    pub(super) pages: Box<[Mutex<Page>]>,
}

/// A page of a mapping: the entry of our own page table.
#[derive(Default)]
pub(super) struct Page {
    pub(super) state: State,
    /// Whether it was touched since reclaim last looked.
    pub(super) referenced: bool,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Untouched,
    Resident(Frame),
    Stored {
        node: NodeId,
        page: Resident,
    },
}

impl Pager for Region {
    fn view(&self) -> &View {
        &self.view
    }

    fn fault(&self, page: usize, access: Access) -> Result<(), FaultError> {
        let mut cell = self.lock(page).ok_or(FaultError::NotMapped)?;
        let served = self.serve(page, &mut cell, access);
        if served.is_err() {
            self.shared.counters.failed_faults.add(1);
        }
        served
    }
}

impl Region {
    pub(super) fn new(shared: &Arc<Shared>, view: View, placement: Placement, life: u32) -> Arc<Self> {
        let pages = (0..view.pages()).map(|_| Mutex::new(Page::default())).collect();
        let shared = Arc::clone(shared);
        let stamp = shared.nodes.stamp();
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            shared,
            view,
            placement,
            life,
            stamp,
            discouraged: AtomicU32::new(0),
            pages,
        })
    }

    pub(super) fn lock(&self, page: usize) -> Option<MutexGuard<'_, Page>> {
        Some(self.pages.get(page)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn serve(&self, page: usize, cell: &mut Page, access: Access) -> Result<(), FaultError> {
        let counters = &self.shared.counters;
        let standing = self.view.standing(page);
        let mapped = match standing {
            Standing::Mapped(protection) => Some(protection),
            _ => None,
        };
        // What traps although it is mapped can only have been a write.
        let writes = access == Access::Write || access == Access::Unknown && mapped.is_some();
        cell.referenced = true;
        match cell.state {
            State::Untouched => {
                let around = self.shared.fault_around;
                let first = page & !(around - 1);
                self.bring(page, cell, standing, first..first + around)?;
            }
            State::Resident(ref frame) => {
                let fenced = self.shared.protection(frame) == Protection::ReadOnly;
                if fenced && writes {
                    let new = self.ordinary_frame()?;
                    self.shared.copy(&new, frame);
                    let mapped = self.map(page, &new);
                    self.settle_mapped(cell, new, mapped)?;
                    counters.promoted.add(1);
                } else if mapped == Some(Protection::ReadWrite) || fenced && mapped.is_some() {
                    counters.spurious_faults.add(1);
                } else {
                    self.map(page, frame)?;
                    counters.soft_faults.add(1);
                }
            }
            State::Stored { node, page: stored } if writes => {
                self.bring_back(page, cell, node, stored, |frame| self.map(page, frame))?;
                counters.promoted.add(1);
            }
            State::Stored { .. } if mapped.is_some() => counters.spurious_faults.add(1),
            State::Stored { node, page: stored } => {
                self.service(node)?.show(self, page, stored)?;
                counters.read_faults.add(1);
            }
        }
        Ok(())
    }

    /// Maps `frame` at `page`, read-only if its node is fenced.
    pub(super) fn map(&self, page: usize, frame: &Frame) -> Result<(), FaultError> {
        let (site, index) = self.shared.locate(frame.pfn()).ok_or(FaultError::NotMapped)?;
        let protection = self.shared.protection(frame);
        self.view.map(page, 1, &site.backing, index, protection).map_err(FaultError::Kernel)
    }

    /// Fills `frame` with zeroes and maps it at `page`, as [`Region::map`] does.
    pub(super) fn map_zeroed(&self, page: usize, frame: &Frame) -> Result<(), FaultError> {
        let (site, index) = self.shared.locate(frame.pfn()).ok_or(FaultError::NotMapped)?;
        match self.shared.protection(frame) {
            Protection::ReadWrite => {
                self.view.map_zeroed(page, 1, &site.backing, index).map_err(FaultError::Kernel)
            }
            Protection::ReadOnly => {
                self.shared.zero(frame);
                self.map(page, frame)
            }
        }
    }

    /// Makes `frame` the page if it was `mapped`, or gives it back.
    pub(super) fn settle_mapped(
        &self,
        cell: &mut Page,
        frame: Frame,
        mapped: Result<(), FaultError>,
    ) -> Result<(), FaultError> {
        match mapped {
            Ok(()) => self.settle(cell, State::Resident(frame)),
            Err(_) => self.shared.give_back(frame),
        }
        mapped
    }

    /// Moves a page that is in a frame of another node to a frame of `node` that `take` takes.
    pub(super) fn relocate(
        &self,
        page: usize,
        node: NodeId,
        take: impl FnOnce() -> Result<Frame, AllocError>,
    ) -> Result<(), FaultError> {
        let mut cell = self.lock(page).ok_or(FaultError::NotMapped)?;
        match &cell.state {
            State::Resident(old) if old.node() != node => {}
            _ => return Ok(()),
        }
        let new = take().map_err(FaultError::NoFrame)?;
        self.move_to(page, &mut cell, new).map_err(FaultError::Kernel)?;
        self.shared.counters.migrated.add(1);
        Ok(())
    }

    /// Moves a page that is in a frame to `new`, or gives `new` back.
    pub(super) fn move_to(&self, page: usize, cell: &mut Page, new: Frame) -> Result<(), SysError> {
        // A program that touches the page from here on waits for its lock, which the caller holds.
        if let Err(error) = self.view.unmap(page, 1) {
            self.shared.give_back(new);
            return Err(error);
        }
        if let State::Resident(old) = &cell.state {
            self.shared.copy(&new, old);
        }
        self.settle(cell, State::Resident(new));
        Ok(())
    }

    /// Moves a page to ordinary memory, wherever it is; its next touch maps it.
    pub(super) fn move_to_ordinary(&self, page: usize, cell: &mut Page) -> Result<(), FaultError> {
        match cell.state {
            State::Untouched => Ok(()),
            State::Resident(_) => {
                let new = self.ordinary_frame()?;
                self.move_to(page, cell, new).map_err(FaultError::Kernel)
            }
            State::Stored { node, page: stored } => {
                let unmap = |_: &_| self.view.unmap(page, 1).map_err(FaultError::Kernel);
                self.bring_back(page, cell, node, stored, unmap)
            }
        }
    }

    /// Makes `state` the page's, and gives the frame back that it had. Nothing maps that frame any more.
    pub(super) fn settle(&self, cell: &mut Page, state: State) {
        if let State::Resident(old) = core::mem::replace(&mut cell.state, state) {
            self.shared.give_back(old);
        }
    }

    fn service(&self, node: NodeId) -> Result<Arc<Compressed>, FaultError> {
        self.shared.site(node).and_then(|site| site.compressed()).ok_or(FaultError::NotMapped)
    }

    /// Moves a stored page to a frame of ordinary memory; `settle` changes the mapping, from which the page must not be
    /// read any more.
    fn bring_back(
        &self,
        page: usize,
        cell: &mut Page,
        node: NodeId,
        stored: Resident,
        settle: impl FnOnce(&Frame) -> Result<(), FaultError>,
    ) -> Result<(), FaultError> {
        let service = self.service(node)?;
        let frame = self.ordinary_frame().inspect_err(|_| service.no_memory(&self.shared, stored))?;
        match service.promote(&self.shared, stored, &frame, || settle(&frame)) {
            Ok(()) => {
                self.settle(cell, State::Resident(frame));
                service.forget(self, page);
                Ok(())
            }
            Err(error) => {
                self.shared.give_back(frame);
                Err(error)
            }
        }
    }

    /// Moves a page that is in a frame to the node of `target`.
    pub(super) fn demote(&self, page: usize, cell: &mut Page, target: &Target) -> Result<(), DemoteError> {
        let moved = self.move_into(page, cell, target);
        let counters = &self.shared.counters;
        if moved.is_ok() {
            counters.demoted.add(1)
        } else {
            counters.demotion_refused.add(1)
        }
        moved
    }

    fn move_into(&self, page: usize, cell: &mut Page, target: &Target) -> Result<(), DemoteError> {
        let State::Resident(frame) = &cell.state else { return Err(DemoteError::NotResident) };
        let Target::Compressed(service, _) = target else {
            let new = target.frame(&self.shared)?;
            return self.move_to(page, cell, new).map_err(DemoteError::Kernel);
        };
        // As in `move_to`.
        self.view.unmap(page, 1).map_err(DemoteError::Kernel)?;
        let page = service.demote(&self.shared, frame)?;
        self.settle(cell, State::Stored { node: service.node(), page });
        Ok(())
    }

    /// Calls `each` with every block that the mapping holds, and its node.
    pub(super) fn each_frame(&self, mut each: impl FnMut(NodeId, FrameRange)) {
        for page in self.pages.iter() {
            if let State::Resident(frame) = &page.lock().unwrap_or_else(PoisonError::into_inner).state {
                if let Some(frames) = FrameRange::block(frame.pfn(), frame.order()) {
                    each(frame.node(), frames);
                }
            }
        }
    }

    /// The pages of `range` that exist.
    pub(super) fn clamp(&self, range: Range<usize>) -> Range<usize> {
        range.start.min(self.pages.len())..range.end.min(self.pages.len())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.give_all_back();
    }
}

impl Region {
    /// Ends the mapping: nothing is mapped any more, and every page is as if nobody had touched it.
    ///
    /// A search for cold pages or the evacuation of a node may hold the region for a while after that; they find
    /// untouched pages.
    pub(super) fn give_all_back(&self) {
        // Whoever touched the addresses is gone: nobody has the mapping. They go away with the view, after this, but
        // until then a stray pointer must not reach frames that somebody else gets.
        let all = self.view.pages();
        if self.view.unmap(0, all).is_err() {
            // The kernel does not even replace a mapping by nothing; the frames stay in use rather than be shared.
            return;
        }
        for page in 0..all {
            let Some(mut cell) = self.lock(page) else { continue };
            match core::mem::take(&mut cell.state) {
                State::Untouched => {}
                State::Resident(frame) => self.shared.give_back(frame),
                State::Stored { node, page: stored } => {
                    if let Ok(service) = self.service(node) {
                        service.forget(self, page);
                        service.free(&self.shared, stored);
                    }
                }
            }
        }
    }
}

impl Shared {
    /// What a mapping of `frame` admits: its node may be fenced.
    pub(super) fn protection(&self, frame: &Frame) -> Protection {
        let fenced = |site: &Site| site.features.contains(Features::WRITE_FENCE);
        match self.site(frame.node()).is_some_and(fenced) {
            true => Protection::ReadOnly,
            false => Protection::ReadWrite,
        }
    }

    pub(super) fn give_back(&self, frame: Frame) {
        let pfn = frame.pfn();
        if let Err(error) = self.nodes.free(frame) {
            // The token came from `Nodes::alloc`; only a broken allocator refuses it.
            unreachable!("{pfn:?} was not taken back: {error}");
        }
    }

    fn zero(&self, frame: &Frame) {
        if let Some((site, index)) = self.locate(frame.pfn()) {
            let zeroed = site.backing.zero(index);
            debug_assert!(zeroed, "{frame:?} is in its site");
        }
    }

    fn copy(&self, to: &Frame, from: &Frame) {
        if let (Some((to, to_index)), Some((from, from_index))) =
            (self.locate(to.pfn()), self.locate(from.pfn()))
        {
            let copied = to.backing.copy_frame(to_index, &from.backing, from_index);
            debug_assert!(copied, "both frames are in their sites");
        }
    }
}
