//! Zonelists: which zones serve whom, rebuilt while others walk them.
//!
//! For each node there are two lists. Its *fallback* list holds the zones of every ordinary node, nearest first; private
//! zones stand in no fallback list, not even that of their own node. Its *own* list, a chain through the zone slots,
//! holds its own zones; for a private node only a grant leads there.
//!
//! Fallback lists exist twice. A rebuild writes the copy that is not current and then makes it current by one store. A
//! walker that is overtaken by two rebuilds may see a list that never was; it looks each zone's word up before and after
//! it takes a block, so it never takes one that it must not have, and when it finds nothing it looks whether the lists
//! changed meanwhile and walks again. After `build_zonelists` and `zonelist_update_seq` of Linux (`mm/page_alloc.c`).

use super::storage::END;
use super::{Admin, ListSlot, NodeSlot, Nodes};
use crate::distance::REMOTE;
use crate::frame::FrameZone;
use crate::node::NodeId;
use crate::sync::{Guard, Ordering, RawLock, fence};

impl<'m, Z: FrameZone, L: RawLock> Nodes<'m, Z, L> {
    /// Writes the fallback lists anew and makes them current.
    pub(super) fn rebuild(&self, admin: &mut Guard<'_, Admin<'m>, L>) {
        let epoch = self.epoch.load(Ordering::Relaxed).wrapping_add(1);
        // Pairs with the fence in `walk`: who reads an entry that is written below sees the epoch before this one, and so
        // that the copy it walked is being written again.
        fence(Ordering::Release);
        // The zones of ordinary nodes, closed ones too: closing is short and needs no rebuild.
        let mut count = 0;
        for (index, slot) in self.zones.iter().enumerate() {
            if slot.load().open().owner().is_ordinary() {
                admin.scratch[count] = index as u16;
                count += 1;
            }
        }
        for from in (0..self.nodes.len()).filter_map(NodeId::from_index) {
            let zones = &mut admin.scratch[..count];
            zones.sort_unstable_by_key(|zone| {
                let node = self.zones[usize::from(*zone)].load().node();
                let distance = self.distances.between(from, node).unwrap_or(REMOTE);
                // Ties by number, seen from the node itself: its neighbours are not all sent to node 0 first.
                let ring = (node.index() + self.nodes.len() - from.index()) % self.nodes.len();
                (distance, ring, *zone)
            });
            let list = self.fallback(epoch, from);
            for (slot, zone) in list.iter().zip(zones.iter().copied().chain([END])) {
                slot.0.store(zone, Ordering::Relaxed);
            }
        }
        // Release pairs with the Acquire in `walk`: who sees this epoch sees its lists.
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The fallback list of `from`, one of the nodes, in `epoch`; it ends with [`END`] or with the slice.
    pub(super) fn fallback(&self, epoch: u32, from: NodeId) -> &'m [ListSlot] {
        let start = self.list_start(epoch, from);
        &self.lists[start..start + self.zones.len()]
    }

    /// Where that list starts: past all lists for a node without a slot.
    #[inline]
    pub(super) fn list_start(&self, epoch: u32, from: NodeId) -> usize {
        (from.index() * 2 + epoch as usize % 2) * self.zones.len()
    }

    /// Writes the own list of `node` anew, by slot number, from its end: at each moment a walker finds every zone that
    /// was on the list before and stays on it.
    ///
    /// The link of a slot that left the list leads on to the rest until the slot's next use, which a walker that stands
    /// there notices by the epoch.
    pub(super) fn chain(&self, node: NodeId, slot: &NodeSlot<'m>, admin: &Guard<'_, Admin<'m>, L>) {
        let mut next = END;
        for (index, zone, _) in self.zones_of(node, admin).rev() {
            // Release pairs with the Acquire in `walk_own`: who follows this link finds the rest of the list, and sees the
            // epoch of the change before this one.
            zone.next.store(next, Ordering::Release);
            next = index as u16;
        }
        // Release pairs with the Acquire in `walk_own`, as above.
        slot.first.store(next, Ordering::Release);
    }
}
