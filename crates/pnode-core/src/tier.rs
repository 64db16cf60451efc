//! Tiers: where cold pages go, and where hot ones come back to.
//!
//! A node's class says how far its memory is from DRAM; nodes at about the same distance are one [`Tier`]. Cold pages go
//! to a lower tier, in an order that is worked out from the registry and refreshed when it changes. A private node
//! receives pages if its owner opened [`Features::DEMOTION`], and loses them if it opened [`Features::RECLAIM`]; so a
//! private node above DRAM may demote into DRAM.
//!
//! After `mm/memory-tiers.c` of Linux and mail *Private Memory Nodes (w/ Compressed RAM)*, February 2026.

use core::fmt;

use crate::distance::{Distances, REMOTE};
use crate::frame::FrameZone;
use crate::node::{Features, MemoryClass, NodeId, NodeMask};
use crate::registry::Nodes;
use crate::sync::RawLock;

/// How far memory is from DRAM, in steps: a larger tier is slower. Lower tiers, in the words of Linux, are those with
/// larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier(u32);

impl Tier {
    /// The abstract distance of DRAM, in the middle of its tier, as in Linux.
    const DRAM_DISTANCE: u128 = 4 * Self::STEP + Self::STEP / 2;
    /// How much abstract distance one tier spans.
    const STEP: u128 = 128;

    /// The tier of `class`: its latency as a multiple of DRAM's, times DRAM's bandwidth as a multiple of its own.
    pub const fn of(class: MemoryClass) -> Self {
        let (latency, dram_latency) = (class.latency_ns() as u128, MemoryClass::DRAM.latency_ns() as u128);
        let (bandwidth, dram_bandwidth) =
            (class.bandwidth_mib_s() as u128, MemoryClass::DRAM.bandwidth_mib_s() as u128);
        if bandwidth == 0 {
            return Self(u32::MAX);
        }
        // No overflow: two 32-bit numbers and a small one.
        let distance = Self::DRAM_DISTANCE * latency * dram_bandwidth / (dram_latency * bandwidth);
        let tier = distance / Self::STEP;
        Self(if tier < u32::MAX as u128 { tier as u32 } else { u32::MAX })
    }

    /// Its number; DRAM's is 4.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What [`Tiers`] keeps of one node; a slot that the caller supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TierSlot {
    tier: Option<Tier>,
}

impl TierSlot {
    /// A slot without a node.
    pub const EMPTY: Self = Self { tier: None };
}

/// The tiers of a registry's nodes as they were at the last refresh, on slots that the caller supplies.
///
/// A table that is out of date is safe: it opens nothing. Where a page really goes takes a grant, or an ordinary request.
///
/// ```
/// # use pnode_core::{Distances, Features, FrameRange, MemoryClass, NodeId, NodeMask, Nodes, Pfn, Private, Storage, WordZone};
/// use pnode_core::tier::{TierSlot, Tiers};
///
/// # let mut storage = Storage::<WordZone, 2, 2>::new();
/// # let nodes = Nodes::new(storage.slots(), Distances::uniform(2)?)?;
/// # let zones = [0, 16].map(|pfn| WordZone::new(FrameRange::new(Pfn::new(pfn), 16).unwrap()).unwrap());
/// # nodes.ordinary(NodeId::new(0)?, MemoryClass::DRAM)?.online(&zones[0])?;
/// let doors = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION;
/// let far = nodes.register(NodeId::new(1)?, Private::class(MemoryClass::FAR), doors)?;
/// far.online(&zones[1])?;
/// let mut slots = [TierSlot::EMPTY; 2];
/// let mut tiers = Tiers::new(&mut slots);
/// tiers.refresh(&nodes)?;
/// let dram = NodeId::new(0)?;
/// assert!(tiers.targets(dram, &NodeMask::ALL, nodes.distances()).eq([far.id()]));
/// assert_eq!(tiers.promotion(far.id(), dram, &NodeMask::ALL, nodes.distances()), Some(dram));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tiers<'s> {
    slots: &'s mut [TierSlot],
    ordinary: NodeMask,
    /// The nodes that pages may be demoted from.
    sources: NodeMask,
    /// The nodes that pages may be demoted into.
    receivers: NodeMask,
    /// The nodes whose hot pages may be promoted.
    promoting: NodeMask,
    changes: Option<u32>,
}

impl<'s> Tiers<'s> {
    /// Tiers of no nodes; refresh them.
    pub fn new(slots: &'s mut [TierSlot]) -> Self {
        slots.fill(TierSlot::EMPTY);
        Self {
            slots,
            ordinary: NodeMask::EMPTY,
            sources: NodeMask::EMPTY,
            receivers: NodeMask::EMPTY,
            promoting: NodeMask::EMPTY,
            changes: None,
        }
    }

    /// Works the tiers out anew. The host calls this when memory came or went and when a node begins to drain.
    ///
    /// # Errors
    ///
    /// [`TierError`]; nothing has changed then.
    pub fn refresh<Z: FrameZone, L: RawLock>(&mut self, nodes: &Nodes<'_, Z, L>) -> Result<(), TierError> {
        if self.slots.len() < nodes.capacity() {
            return Err(TierError { slots: self.slots.len(), nodes: nodes.capacity() });
        }
        // Read first: a change that comes meanwhile is seen as one.
        self.changes = Some(nodes.changes());
        let states = nodes.states();
        self.ordinary = states.ordinary_memory.difference(&states.draining);
        self.sources = self.ordinary.union(&nodes.opened(Features::RECLAIM));
        self.receivers = self.ordinary.union(&nodes.opened(Features::DEMOTION));
        self.promoting = self.ordinary.union(&nodes.opened(Features::PROMOTION));
        let known = self.sources.union(&self.receivers).union(&self.promoting);
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let node = NodeId::from_index(index).filter(|node| known.contains(*node));
            slot.tier = node.and_then(|node| nodes.class(node)).map(Tier::of);
        }
        Ok(())
    }

    /// Whether memory came or went since the last refresh.
    pub fn is_stale<Z: FrameZone, L: RawLock>(&self, nodes: &Nodes<'_, Z, L>) -> bool {
        self.changes != Some(nodes.changes())
    }

    /// The tier of `node`, if pages may come or go there.
    pub fn tier(&self, node: NodeId) -> Option<Tier> {
        self.slots.get(node.index())?.tier
    }

    /// The nodes that pages of `from` may be demoted into, within `allowed`: each once, the next tier first, in a tier the
    /// nearest first. None if pages of `from` must stay.
    pub fn targets(
        &self,
        from: NodeId,
        allowed: &NodeMask,
        distances: &Distances<'_>,
    ) -> impl Iterator<Item = NodeId> {
        let own = self.tier(from).filter(|_| self.sources.contains(from));
        let receivers = self.receivers.intersection(allowed);
        let count = distances.nodes().max(1);
        let rank = move |node: NodeId| {
            let below = self
                .tier(node)
                .filter(|tier| receivers.contains(node) && own.is_some_and(|own| own < *tier))?;
            // Ties by number, seen from the node itself, as in zonelists.
            let ring = (node.index() + count - from.index() % count) % count;
            Some((below, distances.between(from, node).unwrap_or(REMOTE), ring, node))
        };
        let next = move |after: Option<(Tier, u8, usize, NodeId)>| {
            receivers.iter().filter_map(rank).filter(|rank| after.is_none_or(|after| *rank > after)).min()
        };
        core::iter::successors(next(None), move |rank| next(Some(*rank))).map(|(.., node)| node)
    }

    /// Where a hot page of `page` goes that a CPU of `cpu` uses: the ordinary node within `allowed` that is nearest to the
    /// CPU. `None` if pages of that node must stay, or no such node is in a higher tier.
    pub fn promotion(
        &self,
        page: NodeId,
        cpu: NodeId,
        allowed: &NodeMask,
        distances: &Distances<'_>,
    ) -> Option<NodeId> {
        let own = self.tier(page).filter(|_| self.promoting.contains(page))?;
        let above = |node: &NodeId| self.tier(*node).is_some_and(|tier| tier < own);
        let candidates = self.ordinary.intersection(allowed);
        candidates.iter().filter(above).min_by_key(|node| distances.between(cpu, *node).unwrap_or(REMOTE))
    }
}

/// There are fewer slots than nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierError {
    /// How many slots there are.
    pub slots: usize,
    /// How many nodes the registry has slots for.
    pub nodes: usize,
}

impl fmt::Display for TierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tier slots for {} nodes; give one for each", self.slots, self.nodes)
    }
}

impl core::error::Error for TierError {}

/// Whether a node takes pages now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It takes the next page.
    Open,
    /// It takes nothing: its service is under pressure, or it is full.
    Blocked,
}

/// What became of one page that was offered to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is there.
    Arrived,
    /// The node does not take this page; it may take others.
    Refused,
    /// The node takes no page now.
    Full,
}

/// Demotes `pages` into `targets`, in one round: each target is visited once, each page is offered to each at most once.
///
/// `admit` is asked before each page, so a node that is blocked in the middle of a batch receives nothing more.
/// `deliver` moves one page. Afterwards the pages that arrived come first, and the number of them is returned; those
/// behind go on to swap. Both parts keep their order, so that the coldest pages stay first in line.
///
/// ```
/// use pnode_core::NodeId;
/// use pnode_core::tier::{Admission, Delivery, demote};
///
/// let (near, far) = (NodeId::new(1)?, NodeId::new(2)?);
/// let mut pages = ['a', 'b', 'c'];
/// // `near` has room for one page; `far` does not take 'b'.
/// let mut room = 1;
/// let demoted = demote(&mut pages, [near, far], |_| Admission::Open, |node, page| {
///     if node == near && room == 0 {
///         Delivery::Full
///     } else if node == far && *page == 'b' {
///         Delivery::Refused
///     } else {
///         room = 0;
///         Delivery::Arrived
///     }
/// });
/// assert_eq!((pages, demoted), (['a', 'c', 'b'], 2));
/// # Ok::<(), pnode_core::NodeIdTooLarge>(())
/// ```
pub fn demote<P>(
    pages: &mut [P],
    targets: impl IntoIterator<Item = NodeId>,
    mut admit: impl FnMut(NodeId) -> Admission,
    mut deliver: impl FnMut(NodeId, &mut P) -> Delivery,
) -> usize {
    let mut arrived = 0;
    for node in targets {
        let first = arrived;
        for next in first..pages.len() {
            if admit(node) == Admission::Blocked {
                break;
            }
            let Some(offered) = pages.get_mut(arrived..=next) else { break };
            let Some(page) = offered.last_mut() else { break };
            match deliver(node, page) {
                Delivery::Arrived => {
                    offered.rotate_right(1);
                    arrived += 1;
                }
                Delivery::Refused => {}
                Delivery::Full => break,
            }
        }
        if arrived == pages.len() {
            break;
        }
    }
    arrived
}
