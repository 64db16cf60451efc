//! Runs of addresses of anonymous memory, as a program has them.

use core::fmt;
use std::sync::Arc;

use pnode_core::{Denied, NodeId, Pfn, Request};

use super::common::{Held, Inner};
use super::region::Region;
use super::{Machine, MachineGrant};
use crate::fault::{self, FaultError, View};
use crate::sys::SysError;

/// Which node the pages of a mapping are on when they are first touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The nearest ordinary node to this one that has a frame; never a private one.
    Near(NodeId),
    /// This node, by a user's bind policy: a private one must have opened `USER_NUMA`. A touch finds a frame there or
    /// fails; it never spills. While the node is leaving, and once it is unplugged, the policy does not apply; also not
    /// if the node comes back.
    Bound(NodeId),
    /// This private node, mapped by its owner as a driver's `mmap` does. A touch finds a frame there or fails.
    Owner(NodeId),
}

impl Placement {
    /// The node that it names.
    pub const fn node(self) -> NodeId {
        match self {
            Self::Near(node) | Self::Bound(node) | Self::Owner(node) => node,
        }
    }
}

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
    /// In the swap file.
    Swapped,
    /// In the file that it belongs to.
    OnDisk,
}

impl Place {
    /// Where a page is that several may have.
    pub(super) fn of_common(inner: &Inner) -> Self {
        match inner.held() {
            Held::Resident(frame) => Self::Resident { node: frame.node(), pfn: frame.pfn() },
            Held::Swapped(_) => Self::Swapped,
            Held::OnDisk => Self::OnDisk,
            Held::Zero | Held::Gone => Self::Untouched,
        }
    }

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
            Self::Untouched | Self::Swapped | Self::OnDisk => None,
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
        fault::read(&*self.region, offset, bytes)?;
        self.region.charge(offset..offset + bytes.len());
        Ok(())
    }

    /// Copies bytes in, by touching them.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if a page cannot be served; the bytes before it have been copied.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), FaultError> {
        fault::write(&*self.region, offset, bytes)?;
        self.region.charge(offset..offset + bytes.len());
        Ok(())
    }

    /// Where page `page` is now.
    pub fn place(&self, page: usize) -> Place {
        self.region.place(page)
    }

    /// Moves page `page` to ordinary node `node`, if it is in a frame of another node. A program that touches it
    /// meanwhile waits. A huge mapping moves as a whole if the node has a free block for it.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if that node has no frame, is private, or the kernel refuses; the page stays where it is.
    pub fn migrate(&self, page: usize, node: NodeId) -> Result<(), FaultError> {
        let shared = &self.region.shared;
        if self.region.relocate_huge(page, node, || shared.huge_frames_on(node))? {
            return Ok(());
        }
        let request = Request::page().prefer(node).this_node_only();
        self.region.relocate(page, node, || shared.nodes.alloc(request))
    }

    /// Moves page `page` to the private node of `grant`, as [`Mapping::migrate`] does.
    ///
    /// # Errors
    ///
    /// As [`Mapping::migrate`].
    pub fn migrate_with(&self, page: usize, grant: &MachineGrant<'_>) -> Result<(), FaultError> {
        if !grant.machine.shows_frames(grant.node()) {
            return Err(FaultError::WholeOnly { node: grant.node() });
        }
        let shared = &self.region.shared;
        if self.region.relocate_huge(page, grant.node(), || shared.huge_frames_of(&grant.grant))? {
            return Ok(());
        }
        self.region.relocate(page, grant.node(), || grant.grant.alloc(Request::page()))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Here and not when the last one lets the region go: who looks through all mappings holds each of them, and the
        // memory of those that have ended would be missing for as long.
        self.region.give_all_back();
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
    /// The node did not consent.
    Denied(Denied),
    /// Single frames of the node cannot be mapped.
    WholeOnly {
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
            Self::Denied(denied) => denied.fmt(f),
            Self::WholeOnly { node } => {
                write!(f, "single frames of {node:?} cannot be mapped; take blocks of it, or a heap")
            }
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
        self.map_at(pages, Placement::Near(home))
    }

    /// Maps `pages` pages of anonymous memory, whose frames come from where `placement` says.
    ///
    /// # Errors
    ///
    /// [`MapError`], [`MapError::Denied`] among them: a policy that the node did not consent to is refused when it is
    /// set.
    pub fn map_at(&self, pages: usize, placement: Placement) -> Result<Mapping, MapError> {
        if pages == 0 {
            return Err(MapError::Empty);
        }
        let node = placement.node();
        let site = self.shared.site(node).ok_or(MapError::Unknown { node })?;
        site.check(placement).map_err(MapError::Denied)?;
        if !site.backing.shows_frames() {
            return Err(MapError::WholeOnly { node });
        }
        let view = View::new(&self.shared.faults, pages, self.shared.page).map_err(MapError::Kernel)?;
        let region = Region::new(&self.shared, view, placement, site.life(), None);
        fault::attach(&region);
        self.shared.regions().all.push(Arc::downgrade(&region));
        Ok(Mapping { region })
    }
}

#[cfg(test)]
mod tests {
    use core::ops::Range;

    use super::*;
    use crate::NodeSpec;

    #[test]
    fn a_drivers_page_that_was_swapped_does_not_wait_for_its_node() {
        let device =
            NodeSpec::private(pnode_core::MemoryClass::HBM, 16).features(pnode_core::Features::HOTUNPLUG);
        let machine = Machine::builder().node(NodeSpec::ordinary(32)).node(device).swap(64).build().unwrap();
        let device = machine.node(1).unwrap();
        let memory = machine.map_at(8, Placement::Owner(device)).unwrap();
        let bytes = machine.page().bytes();
        (0..8).for_each(|page| memory.write(page * bytes, &[page as u8 + 1]).unwrap());
        machine.unplug(device).unwrap();
        machine.age();
        assert_eq!(machine.reclaim(8), 8);
        assert!((0..8).all(|page| memory.place(page) == Place::Swapped));
        let check = |pages: Range<usize>| {
            for page in pages {
                let mut byte = [0];
                memory.read(page * bytes, &mut byte).unwrap();
                assert_eq!(byte, [page as u8 + 1]);
            }
        };
        check(0..4);
        // The node comes back, and is full.
        machine.plug(device).unwrap();
        let grant = machine.owner_grant(device).unwrap();
        let taken: Vec<_> = (0..16).map(|_| grant.alloc(Request::page()).unwrap()).collect();
        check(4..8);
        taken.into_iter().for_each(|frame| machine.free(frame).unwrap());
    }

    #[test]
    fn frames_go_back_when_a_mapping_ends_whoever_looks_through_the_mappings() {
        let machine = Machine::builder()
            .node(NodeSpec::ordinary(64))
            .node(NodeSpec::compressed(32, 64))
            .build()
            .unwrap();
        let [dram, compressed] = [machine.node(0).unwrap(), machine.node(1).unwrap()];
        let memory = machine.map(40, dram).unwrap();
        (0..40).for_each(|page| memory.write(page * machine.page().bytes(), &[1]).unwrap());
        memory.demote(0..10, compressed).unwrap();
        // As a search for cold pages has them.
        let held = machine.shared.live_regions();
        drop(memory);
        assert_eq!(machine.free_frames(dram), 64);
        assert_eq!(machine.compressed(compressed).unwrap().stats.pages, 0);
        // What the search does then finds nothing.
        machine.reclaim(64);
        machine.age();
        machine.unplug(compressed).unwrap();
        drop(held);
        machine.audit().unwrap();
    }
}
