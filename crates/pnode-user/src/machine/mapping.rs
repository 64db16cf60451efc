//! Runs of addresses of anonymous memory, and serving their faults.

use core::fmt;
use core::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pnode_compress::cram::Resident;
use pnode_core::{AllocError, Frame, FrameRange, NodeId, Pfn, Request};

use super::compressed::Compressed;
use super::reclaim::DemoteError;
use super::{Machine, Shared};
use crate::fault::{self, Access, FaultError, Pager, Protection, View};
use crate::sys::SysError;

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nobody has touched it, or there is no such page.
    Untouched,
    /// In a frame.
    Resident {
        /// The frame's node.
        node: NodeId,
        /// The frame.
        pfn: Pfn,
    },
    /// In the store of a compressed node.
    Compressed {
        /// The node.
        node: NodeId,
    },
}

impl Place {
    /// Whether the page is in a frame of `node`.
    pub fn is_resident_on(self, node: NodeId) -> bool {
        matches!(self, Self::Resident { node: on, .. } if on == node)
    }

    /// Whether the page is in the store of `node`.
    pub fn is_compressed_on(self, node: NodeId) -> bool {
        self == Self::Compressed { node }
    }

    /// The node that the page is on.
    pub const fn node(self) -> Option<NodeId> {
        match self {
            Self::Untouched => None,
            Self::Resident { node, .. } | Self::Compressed { node } => Some(node),
        }
    }
}

/// A run of addresses of anonymous memory. Its frames go back when it is dropped.
///
/// A program may touch the addresses directly, from any thread, as long as the mapping lives. Such a touch of a page
/// that cannot be served ends the process; [`Mapping::read`] and [`Mapping::write`] touch in the same way and report
/// it instead.
pub struct Mapping {
    pub(super) region: Arc<Region>,
}

impl Mapping {
    /// The address of the first byte.
    ///
    /// Reading and writing there is what the mapping is for, and unsafe like every use of a raw pointer: the bytes
    /// are shared with all who have the mapping.
    pub fn as_ptr(&self) -> *mut u8 {
        self.region.view.start() as *mut u8
    }

    /// How many pages there are.
    pub fn pages(&self) -> usize {
        self.region.pages.len()
    }

    /// The view, for what the kernel has mapped now.
    pub fn view(&self) -> &View {
        &self.region.view
    }

    /// Copies bytes out, by touching them.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if a page cannot be served; the bytes before it have been copied.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), FaultError> {
        fault::read(&*self.region, offset, bytes)
    }

    /// Copies bytes in, by touching them.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if a page cannot be served; the bytes before it have been copied.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), FaultError> {
        fault::write(&*self.region, offset, bytes)
    }

    /// Where page `page` is now.
    pub fn place(&self, page: usize) -> Place {
        let Some(cell) = self.region.pages.get(page) else { return Place::Untouched };
        let cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
        match &cell.state {
            State::Untouched => Place::Untouched,
            State::Resident(frame) => Place::Resident { node: frame.node(), pfn: frame.pfn() },
            State::Stored { node, .. } => Place::Compressed { node: *node },
        }
    }

    /// Moves page `page` to ordinary node `node`, if it is in a frame of another node. A program that touches it
    /// meanwhile waits.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if that node has no frame, or the kernel refuses; the page stays where it is.
    pub fn migrate(&self, page: usize, node: NodeId) -> Result<(), FaultError> {
        let region = &*self.region;
        let mut cell = region.lock(page).ok_or(FaultError::NotMapped)?;
        let State::Resident(old) = &cell.state else { return Ok(()) };
        if old.node() == node {
            return Ok(());
        }
        let request = Request::page().prefer(node).this_node_only();
        let new = region.shared.nodes.alloc(request).map_err(FaultError::NoFrame)?;
        if let Err(error) = region.view.unmap(page, 1) {
            region.shared.give_back(new);
            return Err(FaultError::Kernel(error));
        }
        region.shared.copy(&new, old);
        region.settle(&mut cell, State::Resident(new));
        region.shared.counters.migrated.add(1);
        Ok(())
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({:?})", self.region.view)
    }
}

/// Why nothing was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// A mapping has at least one page.
    Empty,
    /// The machine has no such node.
    Unknown {
        /// The node.
        node: NodeId,
    },
    /// The kernel gave no addresses.
    Kernel(SysError),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a mapping has at least one page"),
            Self::Unknown { node } => write!(f, "the machine has no {node:?}"),
            Self::Kernel(error) => {
                write!(f, "the kernel gave no addresses ({error}); map less, or raise the limit")
            }
        }
    }
}

impl core::error::Error for MapError {}

impl Machine {
    /// Maps `pages` pages of anonymous memory. Nothing is taken until a page is touched; then its frame is the nearest
    /// ordinary one to `home`.
    ///
    /// # Errors
    ///
    /// [`MapError`].
    pub fn map(&self, pages: usize, home: NodeId) -> Result<Mapping, MapError> {
        if pages == 0 {
            return Err(MapError::Empty);
        }
        if self.shared.site(home).is_none() {
            return Err(MapError::Unknown { node: home });
        }
        let view = View::new(&self.shared.faults, pages, self.shared.page).map_err(MapError::Kernel)?;
        let pages = (0..pages).map(|_| Mutex::new(Page::default())).collect();
        let shared = Arc::clone(&self.shared);
        let region = Arc::new_cyclic(|me| Region { me: Weak::clone(me), shared, view, home, pages });
        fault::attach(&region);
        self.shared.regions().all.push(Arc::downgrade(&region));
        Ok(Mapping { region })
    }
}

/// What a [`Mapping`] stands for.
///
/// # Lock order
///
/// One page, then the window of a compressed node, then a view. Nobody waits for a page while holding another one.
pub(super) struct Region {
    pub(super) me: Weak<Region>,
    pub(super) shared: Arc<Shared>,
    pub(super) view: View,
    pub(super) home: NodeId,
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
    pub(super) fn lock(&self, page: usize) -> Option<MutexGuard<'_, Page>> {
        Some(self.pages.get(page)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn serve(&self, page: usize, cell: &mut Page, access: Access) -> Result<(), FaultError> {
        let counters = &self.shared.counters;
        let mapped = self.view.mapped(page).map(|(_, protection)| protection);
        cell.referenced = true;
        match cell.state {
            State::Untouched => {
                let frame = self.shared.take_page(self.home)?;
                self.shared.zero(&frame);
                self.settle_mapped(page, cell, frame)?;
                counters.hard_faults.add(1);
            }
            State::Resident(_) if mapped == Some(Protection::ReadWrite) => counters.spurious_faults.add(1),
            State::Resident(ref frame) => {
                self.map(page, frame)?;
                counters.soft_faults.add(1);
            }
            State::Stored { .. } if mapped.is_some() && access == Access::Read => {
                counters.spurious_faults.add(1)
            }
            State::Stored { node, page: stored } if mapped.is_none() && access != Access::Write => {
                self.service(node)?.show(self, page, stored)?;
                counters.read_faults.add(1);
            }
            State::Stored { node, page: stored } => {
                self.bring_back(page, cell, node, stored, |frame| self.map(page, frame))?;
                counters.promoted.add(1);
            }
        }
        Ok(())
    }

    /// Maps `frame` at `page` for reading and writing.
    fn map(&self, page: usize, frame: &Frame) -> Result<(), FaultError> {
        let (site, index) = self.shared.locate(frame.pfn()).ok_or(FaultError::NotMapped)?;
        self.view.map(page, 1, &site.backing, index, Protection::ReadWrite).map_err(FaultError::Kernel)
    }

    /// Makes `frame` the page and maps it, or gives it back.
    fn settle_mapped(&self, page: usize, cell: &mut Page, frame: Frame) -> Result<(), FaultError> {
        match self.map(page, &frame) {
            Ok(()) => {
                self.settle(cell, State::Resident(frame));
                Ok(())
            }
            Err(error) => {
                self.shared.give_back(frame);
                Err(error)
            }
        }
    }

    /// Makes `state` the page's, and gives the frame back that it had. Nothing maps that frame any more.
    pub(super) fn settle(&self, cell: &mut Page, state: State) {
        if let State::Resident(old) = core::mem::replace(&mut cell.state, state) {
            self.shared.give_back(old);
        }
    }

    fn service(&self, node: NodeId) -> Result<&Arc<Compressed>, FaultError> {
        self.shared.site(node).and_then(|site| site.compressed()).ok_or(FaultError::NotMapped)
    }

    /// Moves a stored page to a frame of ordinary memory; `settle` changes the mapping, from which the page must not be
    /// read any more.
    pub(super) fn bring_back(
        &self,
        page: usize,
        cell: &mut Page,
        node: NodeId,
        stored: Resident,
        settle: impl FnOnce(&Frame) -> Result<(), FaultError>,
    ) -> Result<(), FaultError> {
        let service = self.service(node)?;
        let frame =
            self.shared.take_page(self.home).inspect_err(|_| service.no_memory(&self.shared, stored))?;
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

    /// Moves a resident page into the store of `target`.
    pub(super) fn demote(
        &self,
        page: usize,
        cell: &mut Page,
        target: &Compressed,
    ) -> Result<(), DemoteError> {
        let State::Resident(frame) = &cell.state else { return Err(DemoteError::NotResident) };
        // A program that touches the page from here on waits for the lock of the page, which we hold.
        self.view.unmap(page, 1).map_err(DemoteError::Kernel)?;
        match target.demote(&self.shared, frame) {
            Ok(page) => {
                let node = target.node();
                self.settle(cell, State::Stored { node, page });
                self.shared.counters.demoted.add(1);
                Ok(())
            }
            Err(error) => {
                self.shared.counters.demotion_refused.add(1);
                Err(error)
            }
        }
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
    /// A frame for a page of a program: reclaims if there is none.
    fn take_page(&self, home: NodeId) -> Result<Frame, FaultError> {
        const BATCH: usize = 32;
        let request = Request::page().prefer(home);
        loop {
            match self.nodes.alloc(request) {
                Err(AllocError::NoMemory { .. }) if self.reclaim(BATCH) > 0 => {}
                result => return result.map_err(FaultError::NoFrame),
            }
        }
    }

    pub(super) fn give_back(&self, frame: Frame) {
        let pfn = frame.pfn();
        if let Err(error) = self.nodes.free(frame) {
            // The token came from `Nodes::alloc`; only a broken allocator refuses it.
            unreachable!("{pfn:?} was not taken back: {error}");
        }
    }

    pub(super) fn zero(&self, frame: &Frame) {
        if let Some((site, index)) = self.locate(frame.pfn()) {
            let zeroed = site.backing.zero(index);
            debug_assert!(zeroed, "{frame:?} is in its site");
        }
    }

    pub(super) fn copy(&self, to: &Frame, from: &Frame) {
        if let (Some((to, to_index)), Some((from, from_index))) =
            (self.locate(to.pfn()), self.locate(from.pfn()))
        {
            let copied = to.backing.copy_frame(to_index, &from.backing, from_index);
            debug_assert!(copied, "both frames are in their sites");
        }
    }
}
