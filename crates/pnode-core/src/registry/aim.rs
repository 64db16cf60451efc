//! Blocks by their numbers: taking exactly this one, and making a token of one that is out.

use super::storage::ZoneSlot;
use super::token::{AdoptError, AllocError, Frame};
use super::walk::{Missed, Reach, descend, first_node};
use super::zone_word::Owned;
use super::{Nodes, Registration};
use crate::addr::{Order, Pfn};
use crate::frame::FrameZone;
use crate::node::NodeId;
use crate::request::{Contents, Fallback, Request};
use crate::sync::{Ordering, RawLock};

impl<'m, Z: FrameZone, L: RawLock> Nodes<'m, Z, L> {
    /// Takes exactly the block at `pfn`, if it is ordinary memory: what [`Nodes::alloc`] would admit there, or nothing.
    ///
    /// Of the request its order, migrate type, nodemask, contents and depth count, and its preferred node if it says
    /// this-node-only. For hosts that want neighbours, as a fault does that continues a run of frames.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; [`AllocError::NoMemory`] if the block is not free or no zone has it.
    pub fn alloc_at(&self, pfn: Pfn, request: Request<'_>) -> Result<Frame, AllocError> {
        let no_memory = AllocError::NoMemory { order: request.block_order() };
        let (zone, node) = self.zone_of(pfn).ok_or(no_memory)?;
        if self.state(node).is_some_and(|state| state.is_private()) {
            return Err(AllocError::Private { node });
        }
        let from = request.preferred().unwrap_or(const { first_node() });
        if request.fallback() == Fallback::ThisNodeOnly && from != node {
            return Err(no_memory);
        }
        self.take_exactly(zone, pfn, Reach::Ordinary, &request)
    }

    /// Takes exactly the block at `pfn` of the granted node.
    pub(crate) fn alloc_granted_at(
        &self,
        granted: Registration,
        pfn: Pfn,
        request: &Request<'_>,
    ) -> Result<Frame, AllocError> {
        let node = granted.node;
        if let Some(preferred) = request.preferred().filter(|preferred| *preferred != node) {
            return Err(AllocError::OtherNode { granted: node, preferred });
        }
        let (zone, _) = self
            .zone_of(pfn)
            .filter(|(_, on)| *on == node)
            .ok_or(AllocError::NoMemory { order: request.block_order() })?;
        self.take_exactly(zone, pfn, Reach::Only(Owned::private(node)), request)
    }

    fn take_exactly(
        &self,
        zone: u16,
        pfn: Pfn,
        reach: Reach,
        request: &Request<'_>,
    ) -> Result<Frame, AllocError> {
        let taken = |depth| {
            let slot = self.zones.get(usize::from(zone)).ok_or(Missed::PASSED)?;
            self.take_by(zone, slot, reach, request, depth, |source| {
                source.alloc_at(pfn, request.block_order(), request.migrate_type()).map(|()| pfn)
            })
        };
        descend(request, taken).map_err(|missed| match missed.has(Missed::CONTENDED) {
            true => AllocError::Contended { order: request.block_order() },
            false => AllocError::NoMemory { order: request.block_order() },
        })
    }

    /// Makes a token of a block that is known by its number only.
    ///
    /// The order is taken on trust here and tested when the block is freed.
    ///
    /// # Errors
    ///
    /// [`AdoptError::NoZone`] if no zone has the frame.
    pub fn adopt(&self, pfn: Pfn, order: Order) -> Result<Frame, AdoptError> {
        let (zone, node) = self.zone_of(pfn).ok_or(AdoptError::NoZone { pfn })?;
        Ok(Frame { pfn, order, node, zone, contents: Contents::Any, mark: self.mark })
    }

    /// The node that `pfn` is on, or `None` if no zone has it.
    pub fn node_of(&self, pfn: Pfn) -> Option<NodeId> {
        self.zone_of(pfn).map(|(_, node)| node)
    }

    /// The zone whose span holds `pfn`, and its node.
    fn zone_of(&self, pfn: Pfn) -> Option<(u16, NodeId)> {
        (0..).zip(self.zones).find_map(|(zone, slot)| Some((zone, holder(slot, pfn)?.0)))
    }

    /// The zone of `node` whose span holds `pfn`. Most nodes have one zone, so it is tried before all are looked at.
    #[inline(always)]
    fn zone_on(&self, node: NodeId, pfn: Pfn) -> Option<(u16, &'m Z)> {
        // Whatever zone this says, the zone's word decides.
        let first = self.slot(node)?.first.load(Ordering::Relaxed);
        let slot = self.zones.get(usize::from(first));
        match slot.and_then(|slot| holder(slot, pfn)).filter(|(of, _)| *of == node) {
            Some((_, source)) => Some((first, source)),
            None => self.any_zone_on(node, pfn),
        }
    }

    #[cold]
    #[inline(never)]
    fn any_zone_on(&self, node: NodeId, pfn: Pfn) -> Option<(u16, &'m Z)> {
        (0..).zip(self.zones).find_map(|(zone, slot)| {
            let (of, source) = holder(slot, pfn)?;
            (of == node).then_some((zone, source))
        })
    }

    /// As [`Nodes::adopt`], for a block of `node`.
    #[inline]
    pub(crate) fn adopt_on(&self, node: NodeId, pfn: Pfn, order: Order) -> Result<Frame, AdoptError> {
        let (zone, _) = self.zone_on(node, pfn).ok_or(AdoptError::NoZone { pfn })?;
        Ok(Frame { pfn, order, node, zone, contents: Contents::Any, mark: self.mark })
    }

    /// The source of the zone of `node` that has `pfn`.
    #[inline(always)]
    pub(crate) fn source_on(&self, node: NodeId, pfn: Pfn) -> Option<&'m Z> {
        self.zone_on(node, pfn).map(|(_, source)| source)
    }
}

/// The node and the source of a zone, if its span holds `pfn`.
#[inline]
fn holder<'m, Z: FrameZone>(slot: &ZoneSlot<'m, Z>, pfn: Pfn) -> Option<(NodeId, &'m Z)> {
    let word = slot.load();
    let node = word.taken()?;
    let source = slot.source.get().filter(|source| source.span().contains(pfn))?;
    // The source may be that of the slot's next use: then the Acquire in `get` shows the word of that use here.
    slot.load().same_use(word).then_some((node, source))
}
