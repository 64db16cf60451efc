//! Heaps on the nodes of a machine.

use core::fmt;

use pnode_compress::memory::Mapped;
use pnode_core::{
    AllocError, FrameError, FrameSource, FreeError, Grant, MigrateType, NodeId, Order, Pfn, Request,
};

use super::{Machine, MachineGrant, Registry, Zone};
use crate::backing::OnBacking;
use crate::heap::{HeapError, NodeHeap};

/// A heap on a node of a machine, which it borrows.
pub type MachineHeap<'a> = NodeHeap<Mapped<OnBacking<NodeFrames<'a>>>>;

/// Frames of one node of a machine, and the right to them.
pub struct NodeFrames<'a> {
    // The registry and the grant refer to each other for longer than `'a` says; neither is handed out.
    source: Source,
    _machine: &'a Machine,
}

enum Source {
    Ordinary(&'static Registry, NodeId),
    Granted(Grant<'static, Zone>),
}

impl FrameSource for NodeFrames<'_> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        match &self.source {
            Source::Granted(grant) => FrameSource::alloc(grant, order, migrate),
            Source::Ordinary(nodes, node) => {
                let request = Request::order(order).migrate(migrate).prefer(*node).this_node_only();
                nodes.alloc(request).map(|frame| frame.pfn()).map_err(|error| match error {
                    AllocError::NoMemory { order } => FrameError::Exhausted { order },
                    AllocError::Contended { order } => FrameError::Contended { order },
                    _ => FrameError::Closed { order },
                })
            }
        }
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        match &self.source {
            Source::Granted(grant) => FrameSource::free(grant, pfn, order),
            Source::Ordinary(nodes, node) => {
                let frame = nodes.adopt(pfn, order).ok().filter(|frame| frame.node() == *node);
                nodes.free(frame.ok_or(FreeError::OutOfZone { pfn })?)
            }
        }
    }
}

impl fmt::Debug for NodeFrames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Ordinary(_, node) => node.fmt(f),
            Source::Granted(grant) => grant.fmt(f),
        }
    }
}

impl Machine {
    /// A heap on an ordinary node: all of its objects are on that node, or there is no memory for them.
    ///
    /// While the heap has frames the node cannot be unplugged.
    ///
    /// # Errors
    ///
    /// [`HeapError::Private`] for a private node: that takes a grant, and [`MachineGrant::into_heap`].
    pub fn heap(&self, node: NodeId) -> Result<MachineHeap<'_>, HeapError> {
        let site = self.shared.site(node).ok_or(HeapError::Unknown { node })?;
        if site.is_private() {
            return Err(HeapError::Private { node });
        }
        self.heap_of(Source::Ordinary(self.shared.nodes, node), node)
    }

    fn heap_of(&self, source: Source, node: NodeId) -> Result<MachineHeap<'_>, HeapError> {
        let site = self.shared.site(node).ok_or(HeapError::Unknown { node })?;
        let source = NodeFrames { source, _machine: self };
        NodeHeap::new(OnBacking::mapped(source, &site.backing, site.frames), site.frames)
    }
}

impl<'a> MachineGrant<'a> {
    /// A heap on the node of the grant: all of its objects are on that node, or there is no memory for them. The heap
    /// holds the grant, so the node cannot be given up before the heap is dropped.
    ///
    /// # Errors
    ///
    /// [`HeapError`].
    pub fn into_heap(self) -> Result<MachineHeap<'a>, HeapError> {
        let Self { grant, machine } = self;
        let node = grant.node();
        machine.heap_of(Source::Granted(grant), node)
    }
}
