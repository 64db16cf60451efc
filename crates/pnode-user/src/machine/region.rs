//! What a mapping stands for: its page table, serving its faults, and moving its pages.

use core::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pnode_compress::cram::Resident;
use pnode_core::sync::{AtomicBool, AtomicU32};
use pnode_core::{AllocError, Features, Frame, FrameRange, NodeId, Stamp};

use super::Shared;
use super::common::{Common, Writes};
use super::compressed::Compressed;
use super::inject::Point;
use super::mapping::{Place, Placement};
use super::process::Layout;
use super::reclaim::{DemoteError, Target};
use super::swap::Slot;
use super::trace::{Note, What, Why};
use crate::fault::{Access, FaultError, Pager, Protection, Standing, View};
use crate::sys::SysError;

/// What a [`Mapping`] stands for.
///
/// # Lock order
///
/// The life of a node, then one page, then the common page that it may refer to, then the window of a compressed node or
/// the layout of a process, then a view. Nobody waits for a page while holding another one.
pub(super) struct Region {
    pub(super) me: Weak<Region>,
    pub(super) shared: Arc<Shared>,
    pub(super) view: View,
    pub(super) placement: Placement,
    /// The life of the placement's node when the mapping was made.
    pub(super) life: u32,
    /// When the mapping was made, among the registrations of nodes.
    pub(super) stamp: Stamp,
    /// What is where in the address space of a process; `None` for a mapping, which is anonymous memory throughout.
    pub(super) layout: Option<Layout>,
    /// Whether a mapping asks for huge mappings; a process says so by area.
    pub(super) huge: AtomicBool,
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
    /// Whether the program does not want the bytes any more, and did not write since it said so. Only what is
    /// [resident](State::Resident) is, and no mapping admits writes to it.
    pub(super) freeable: bool,
}

impl Page {
    /// The node of its own frame.
    pub(super) fn node(&self) -> Option<NodeId> {
        match &self.state {
            State::Resident(frame) => Some(frame.node()),
            _ => None,
        }
    }
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
    /// In a frame that other page tables may map, too.
    Common(Arc<Common>),
    /// In the swap file.
    Swapped(Slot),
}

impl Pager for Region {
    fn view(&self) -> &View {
        &self.view
    }

    fn fault(&self, page: usize, access: Access) -> Result<(), FaultError> {
        if !self.service_passes_on(page, access) {
            return Ok(());
        }
        let mut cell = self.lock(page).ok_or(FaultError::NotMapped)?;
        let served = self.serve(page, &mut cell, access);
        match served {
            Ok(()) => self.charge_fault(&cell.state),
            Err(_) => {
                self.shared.counters.failed_faults.add(1);
                self.fault_was(Why::Refused, None);
            }
        }
        served
    }
}

impl Region {
    pub(super) fn new(
        shared: &Arc<Shared>,
        view: View,
        placement: Placement,
        life: u32,
        layout: Option<Layout>,
    ) -> Arc<Self> {
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
            layout,
            huge: AtomicBool::new(false),
            discouraged: AtomicU32::new(0),
            pages,
        })
    }

    pub(super) fn lock(&self, page: usize) -> Option<MutexGuard<'_, Page>> {
        Some(self.pages.get(page)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn serve(&self, page: usize, cell: &mut Page, access: Access) -> Result<(), FaultError> {
        let counters = &self.shared.counters;
        let standing = self.view.standing(page);
        let mapped = match standing {
            Standing::Mapped(protection) => Some(protection),
            _ => None,
        };
        // What traps although it is mapped can only have been a write.
        let writes = access == Access::Write || access == Access::Unknown && mapped.is_some();
        let admitted = self.admitted(page)?;
        if writes && admitted == Protection::ReadOnly {
            return Err(FaultError::ReadOnly);
        }
        cell.referenced = true;
        cell.freeable &= !writes;
        if let (State::Untouched, Some(common)) = (&cell.state, self.object_page(page)) {
            common.join(self, page);
            cell.state = State::Common(common);
        }
        if let State::Common(common) = &cell.state {
            let common = Arc::clone(common);
            let writes = if writes { Writes::Yes } else { Writes::No };
            self.serve_common(page, cell, &common, writes, mapped)?;
            if writes == Writes::No || !matches!(cell.state, State::Resident(_)) {
                return Ok(());
            }
            if self.view.standing(page) == Standing::Mapped(Protection::ReadWrite) {
                return Ok(());
            }
            // The page is ours alone now, and is served as such.
        }
        match cell.state {
            // Served above.
            State::Common(_) => {}
            State::Swapped(ref slot) => {
                let frame = self.frame_again(page, standing)?;
                let filled = self.shared.swap_in(slot, &frame);
                let mapped = if filled { self.map(page, &frame) } else { Err(FaultError::NotMapped) };
                self.settle_mapped(cell, frame, mapped)?;
                self.note(What::Fault, Why::In, cell);
            }
            State::Untouched => {
                let around = self.shared.fault_around;
                let first = page & !(around - 1);
                if !self.bring_huge(page, cell) {
                    self.bring(page, cell, standing, first..first + around)?;
                }
            }
            State::Resident(ref frame) => {
                let fenced = self.shared.protection(frame) == Protection::ReadOnly;
                if fenced && writes {
                    let new = self.ordinary_frame()?;
                    let copied = self.shared.copy(&new, frame).map_err(FaultError::Kernel);
                    let copied = copied.inspect(|()| self.shared.moved(frame, &new));
                    let mapped = copied.and_then(|()| self.map(page, &new));
                    self.settle_mapped(cell, new, mapped)?;
                    counters.promoted.add(1);
                    self.note(What::Promote, Why::Write, cell);
                } else if mapped == Some(Protection::ReadWrite) || mapped.is_some() && (fenced || !writes) {
                    counters.spurious_faults.add(1);
                    self.fault_was(Why::Settled, Some(frame));
                } else {
                    match cell.freeable {
                        true => self.map_as(page, frame, Protection::ReadOnly)?,
                        false => self.map(page, frame)?,
                    }
                    counters.soft_faults.add(1);
                    self.fault_was(Why::Present, Some(frame));
                }
            }
            State::Stored { node, page: stored } if writes => {
                self.bring_back(page, cell, node, stored, |frame| self.map(page, frame))?;
                counters.promoted.add(1);
                self.note(What::Promote, Why::Write, cell);
            }
            State::Stored { node, .. } if mapped.is_some() => {
                counters.spurious_faults.add(1);
                self.shared.note(|| Note::new(What::Fault, Why::Settled).on(node));
            }
            State::Stored { node, page: stored } => {
                self.service(node)?.show(self, page, stored)?;
                counters.read_faults.add(1);
                self.shared.note(|| Note::new(What::Fault, Why::Stored).on(node));
            }
        }
        Ok(())
    }

    /// Where `page` is.
    pub(super) fn place(&self, page: usize) -> Place {
        let Some(cell) = self.lock(page) else { return Place::Untouched };
        let resident = |frame: &Frame| Place::Resident { node: frame.node(), pfn: frame.pfn() };
        match &cell.state {
            State::Untouched => Place::Untouched,
            State::Resident(frame) => resident(frame),
            State::Common(common) => Place::of_common(&common.lock()),
            State::Swapped(_) => Place::Swapped,
            State::Stored { node, .. } => Place::Compressed { node: *node },
        }
    }

    /// Moves the page to `to`, which has no mapping and is free, within the table. Nobody maps it meanwhile.
    pub(super) fn move_page(&self, from: usize, to: usize) -> Result<(), SysError> {
        let Some(mut cell) = self.lock(from) else { return Ok(()) };
        if matches!(self.view.standing(from), Standing::Mapped(_)) {
            self.view.unmap(from, 1)?;
        }
        let page = core::mem::take(&mut *cell);
        match &page.state {
            State::Common(common) => common.lock().rename(self, from, to),
            State::Stored { node, .. } => {
                if let Ok(service) = self.service(*node) {
                    service.forget(self, from);
                }
            }
            State::Untouched | State::Resident(_) | State::Swapped(_) => {}
        }
        drop(cell);
        if let Some(mut cell) = self.lock(to) {
            *cell = page;
        }
        Ok(())
    }

    /// Maps `frame` at `page`, read-only if its node is fenced.
    pub(super) fn map(&self, page: usize, frame: &Frame) -> Result<(), FaultError> {
        self.map_as(page, frame, self.protection(page, frame)?)
    }

    pub(super) fn map_as(
        &self,
        page: usize,
        frame: &Frame,
        protection: Protection,
    ) -> Result<(), FaultError> {
        self.shared.check(Point::Map).map_err(FaultError::Kernel)?;
        let (site, index) = self.shared.locate(frame.pfn()).ok_or(FaultError::NotMapped)?;
        if site.features.contains(Features::WRITE_FENCE) {
            self.shared.note(|| Note::new(What::Fence, Why::FencedNode).frame(frame));
        }
        self.view.map(page, 1, &site.backing, index, protection).map_err(FaultError::Kernel)
    }

    /// What a mapping of `frame` at `page` admits: its node may be fenced, and the process may have said read-only.
    pub(super) fn protection(&self, page: usize, frame: &Frame) -> Result<Protection, FaultError> {
        Ok(match self.admitted(page)? {
            Protection::ReadOnly => Protection::ReadOnly,
            Protection::ReadWrite => self.shared.protection(frame),
        })
    }

    /// What the process may do at `page`.
    fn admitted(&self, page: usize) -> Result<Protection, FaultError> {
        self.layout.as_ref().map_or(Ok(Protection::ReadWrite), |layout| layout.admitted(page))
    }

    /// Fills `frame` with zeroes and maps it at `page`, as [`Region::map`] does.
    pub(super) fn map_zeroed(&self, page: usize, frame: &Frame) -> Result<(), FaultError> {
        let (site, index) = self.shared.locate(frame.pfn()).ok_or(FaultError::NotMapped)?;
        match self.protection(page, frame)? {
            Protection::ReadWrite => {
                let checked = self.shared.check(Point::Map);
                let mapped = checked.and_then(|()| self.view.map_zeroed(page, 1, &site.backing, index));
                mapped.map_err(FaultError::Kernel)
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
            State::Common(common) if common.lock().node().is_some_and(|on| on != node) => {}
            _ => return Ok(()),
        }
        let new = take().map_err(FaultError::NoFrame)?;
        self.move_to(page, &mut cell, new).map_err(FaultError::Kernel)?;
        self.migrated(&cell);
        Ok(())
    }

    /// Moves a page that is in a frame to `new`, or gives `new` back.
    pub(super) fn move_to(&self, page: usize, cell: &mut Page, new: Frame) -> Result<(), SysError> {
        if let State::Common(common) = &cell.state {
            return common.move_to(&self.shared, new);
        }
        // A program that touches the page from here on waits for its lock, which the caller holds.
        if let Err(error) = self.view.unmap(page, 1) {
            self.shared.give_back(new);
            return Err(error);
        }
        if let State::Resident(old) = &cell.state {
            if let Err(error) = self.shared.copy(&new, old) {
                self.shared.give_back(new);
                return Err(error);
            }
            self.shared.moved(old, &new);
        }
        self.settle(cell, State::Resident(new));
        Ok(())
    }

    /// Moves a page to ordinary memory, wherever it is; its next touch maps it.
    pub(super) fn move_to_ordinary(&self, page: usize, cell: &mut Page) -> Result<(), FaultError> {
        match cell.state {
            State::Untouched | State::Swapped(_) => Ok(()),
            State::Resident(_) | State::Common(_) => {
                let new = self.ordinary_frame()?;
                self.move_to(page, cell, new).map_err(FaultError::Kernel)
            }
            State::Stored { node, page: stored } => {
                let unmap = |_: &_| self.view.unmap(page, 1).map_err(FaultError::Kernel);
                self.bring_back(page, cell, node, stored, unmap)
            }
        }
    }

    /// Makes `state` the page's, and gives the frame or the slot back that it had. Nothing maps that frame any more.
    pub(super) fn settle(&self, cell: &mut Page, state: State) {
        cell.freeable = false;
        match core::mem::replace(&mut cell.state, state) {
            State::Resident(old) => self.shared.give_back(old),
            State::Swapped(slot) => self.shared.free_slot(slot),
            State::Untouched | State::Stored { .. } | State::Common(_) => {}
        }
    }

    /// Gives up what `page` holds, which nothing maps here any more.
    pub(super) fn discard(&self, page: usize, cell: &mut Page) {
        cell.freeable = false;
        match core::mem::take(&mut cell.state) {
            State::Untouched => {}
            State::Resident(frame) => self.shared.give_back(frame),
            State::Common(common) => common.leave(&self.shared, self, page),
            State::Swapped(slot) => self.shared.free_slot(slot),
            State::Stored { node, page: stored } => {
                if let Ok(service) = self.service(node) {
                    service.forget(self, page);
                    service.free(&self.shared, stored);
                }
            }
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
                self.shared.charge_copy(frame.node(), node);
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
            counters.demoted.add(1);
            self.note(What::Demote, Why::Asked, cell);
        } else {
            counters.demotion_refused.add(1);
            self.note(What::Demote, Why::Refused, cell);
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
        self.shared.charge_copy(service.node(), frame.node());
        self.settle(cell, State::Stored { node: service.node(), page });
        Ok(())
    }

    /// Calls `each` with every block that the mapping holds, and its node. A page that several share counts for one of
    /// them; those of objects count for none.
    pub(super) fn each_frame(&self, mut each: impl FnMut(NodeId, FrameRange)) {
        let mut block = |frame: &Frame| {
            if let Some(frames) = FrameRange::block(frame.pfn(), frame.order()) {
                each(frame.node(), frames);
            }
        };
        for (page, cell) in self.pages.iter().enumerate() {
            match &cell.lock().unwrap_or_else(PoisonError::into_inner).state {
                State::Resident(frame) => block(frame),
                State::Common(common) => {
                    let inner = common.lock();
                    let counts = !common.is_kept() && inner.is_counted_at(self, page);
                    inner.frame().filter(|_| counts).into_iter().for_each(&mut block);
                }
                State::Untouched | State::Stored { .. } | State::Swapped(_) => {}
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
            if let Some(mut cell) = self.lock(page) {
                self.discard(page, &mut cell);
            }
        }
    }
}
