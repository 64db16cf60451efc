//! Taking a block through a zonelist, and giving it back.

use core::fmt;

use super::storage::{ListSlot, Owned, ZoneSlot, ZoneWord};
use super::{Nodes, Registration};
use crate::addr::{Order, Pfn};
use crate::frame::{FrameError, FrameZone, FreeError, MigrateType};
use crate::node::{Facts, NodeId};
use crate::request::{Contents, Depth, Fallback, Request};
use crate::sync::{AtomicU16, Ordering, RawLock, fence};

/// A block of frames that was handed out: a token that cannot be copied, so it is given back once.
///
/// It has no destructor and holds no reference; a block that is forgotten stays in use. A driver that writes the frame
/// number into a device's table keeps the number by [`Frame::into_raw`] and gets the token back by [`Nodes::adopt`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a block that is dropped stays in use; give it back with `Nodes::free`"]
pub struct Frame {
    pfn: Pfn,
    order: Order,
    node: NodeId,
    zone: u16,
    contents: Contents,
}

impl Frame {
    /// The first frame, aligned to the order.
    #[inline]
    pub const fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// The order of the block.
    #[inline]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// The node that the block is on.
    #[inline]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// [`Contents::Zeroed`] if the request asked for zeroes: the caller must clear the frames before their first use.
    #[inline]
    pub const fn contents(&self) -> Contents {
        self.contents
    }

    /// Gives up the token and keeps the number and the order.
    #[inline]
    pub const fn into_raw(self) -> (Pfn, Order) {
        (self.pfn, self.order)
    }
}

/// Why no block was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// The zones that may serve the request have no such block, or must keep it back.
    NoMemory {
        /// The order that was asked for.
        order: Order,
    },
    /// Blocks that might have served were on their way between two places for too long ([`FrameError::Contended`]).
    ///
    /// This is no shortage: let the other CPUs run, and ask again. Reclaim would evict pages for nothing.
    Contended {
        /// The order that was asked for.
        order: Order,
    },
    /// The registry has no slot for the preferred node.
    Unknown {
        /// The preferred node.
        node: NodeId,
    },
    /// The request insists on a private node. That takes a grant: ask the node's owner, or the registry for a reason.
    Private {
        /// The preferred node.
        node: NodeId,
    },
    /// The nodemask holds no node that could serve the request; a mask never adds a node.
    Masked {
        /// The preferred node, or the granted one.
        node: NodeId,
    },
    /// The request was made on a grant for another node than it prefers.
    OtherNode {
        /// The granted node.
        granted: NodeId,
        /// The preferred node.
        preferred: NodeId,
    },
    /// The grant's reason does not include taking frames.
    NotForFrames {
        /// The grant's reason.
        reason: crate::grant::Reason,
    },
    /// The node is being torn down.
    Draining {
        /// The granted node.
        node: NodeId,
    },
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory { order } => {
                write!(
                    f,
                    "no block of order {order} is left on the nodes that may serve this; free some or ask for less"
                )
            }
            Self::Contended { order } => {
                write!(f, "blocks that might serve order {order} are in motion; let others run and try again")
            }
            Self::Unknown { node } => write!(f, "{node:?} has no slot in this registry"),
            Self::Private { node } => {
                write!(
                    f,
                    "{node:?} is private; its frames take a grant, and this request insists on that node"
                )
            }
            Self::Masked { node } => {
                write!(f, "the nodemask leaves no node for a request that starts at {node:?}")
            }
            Self::OtherNode { granted, preferred } => {
                write!(f, "the grant is for {granted:?}, the request prefers {preferred:?}")
            }
            Self::NotForFrames { reason } => write!(f, "a grant for {reason} does not include taking frames"),
            Self::Draining { node } => write!(f, "{node:?} is draining; nothing new lands there"),
        }
    }
}

impl core::error::Error for AllocError {}

/// Why a frame number does not become a [`Frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdoptError {
    /// No zone of any node has this frame.
    NoZone {
        /// The frame.
        pfn: Pfn,
    },
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoZone { pfn } => write!(f, "no zone of any node has {pfn:?}"),
        }
    }
}

impl core::error::Error for AdoptError {}

/// Which zones a walk may use.
#[derive(Clone, Copy)]
enum Reach {
    /// Any zone of an ordinary node.
    Ordinary,
    /// The zones of this owner.
    Only(Owned),
}

/// Why the zones that a walk asked did not serve: a set, for a walk asks several.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Missed(u8);

impl Missed {
    /// They have no such block, or the walk may not use them.
    const PASSED: Self = Self(0);
    /// A watermark keeps back what one of them has: a walk that reaches deeper may get it.
    const KEPT_BACK: Self = Self(1);
    /// Blocks of one of them were in motion.
    const CONTENDED: Self = Self(2);

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl<'m, Z: FrameZone, L: RawLock> Nodes<'m, Z, L> {
    /// Takes a block from ordinary memory: the nearest zone to the preferred node (node 0 if none is) that has one.
    ///
    /// No request reaches a private node this way, whatever it prefers and whatever its nodemask says. Takes no lock;
    /// may be called in any context that `Z` allows.
    ///
    /// The way to the nearest zone is inlined into the caller, where much of the request is known; see `benches/gate.rs`
    /// for what is left of it.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; nothing has changed then.
    #[inline(always)]
    pub fn alloc(&self, request: Request<'_>) -> Result<Frame, AllocError> {
        let from = match request.preferred() {
            Some(node) => node,
            None => const { first_node() },
        };
        // The nearest zone in line, all others in a call: most requests are served here.
        match self.take_nearest(from, &request) {
            Some(frame) => Ok(frame),
            None => self.alloc_anywhere(from, &request),
        }
    }

    /// Takes a block of the granted node.
    #[inline]
    pub(crate) fn alloc_granted(
        &self,
        granted: Registration,
        request: &Request<'_>,
    ) -> Result<Frame, AllocError> {
        let node = granted.node;
        if let Some(preferred) = request.preferred().filter(|preferred| *preferred != node) {
            return Err(AllocError::OtherNode { granted: node, preferred });
        }
        let first = self.slot(node).map(|slot| slot.first.load(Ordering::Relaxed));
        match first.and_then(|zone| self.take_at_once(zone, Reach::Only(Owned::private(node)), request)) {
            Some(frame) => Ok(frame),
            None => self.alloc_on(node, request),
        }
    }

    /// The first zone of a granted node, with its slot and the word under which it was found there, unless a watermark
    /// keeps something back.
    #[inline(always)]
    fn first_of(&self, node: NodeId) -> Option<(&ZoneSlot<'m, Z>, ZoneWord, &'m Z)> {
        let slot = self.zones.get(usize::from(self.slot(node)?.first.load(Ordering::Relaxed)))?;
        let word = slot.load();
        if word.owner() != Owned::private(node) || slot.low.load(Ordering::Relaxed) > 0 {
            return None;
        }
        Some((slot, word, slot.source.get()?))
    }

    /// Takes a block of the first zone of a granted node.
    #[inline]
    pub(crate) fn take_first(&self, node: NodeId, order: Order, migrate: MigrateType) -> Option<Pfn> {
        let (slot, word, source) = self.first_of(node)?;
        let pfn = source.alloc(order, migrate).ok()?;
        // As in `take`.
        if slot.load().same_use(word) { Some(pfn) } else { give_back(source, pfn, order) }
    }

    /// Takes a frame that the first zone of a granted node has at hand.
    #[inline(always)]
    pub(crate) fn take_at_hand(&self, node: NodeId, migrate: MigrateType) -> Option<Pfn> {
        let (slot, word, source) = self.first_of(node)?;
        let pfn = source.alloc_at_hand(migrate)?;
        // As in `take`.
        if slot.load().same_use(word) { Some(pfn) } else { give_back(source, pfn, Order::ZERO) }
    }

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
        let only = (request.fallback() == Fallback::ThisNodeOnly).then_some(request.preferred()).flatten();
        if only.is_some_and(|only| only != node) {
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

    /// Gives a block back to its zone.
    ///
    /// # Errors
    ///
    /// [`FreeError`] only for a token adopted from a number that was not handed out so; nothing has changed then.
    #[inline]
    pub fn free(&self, frame: Frame) -> Result<(), FreeError> {
        let zone = self.zones.get(usize::from(frame.zone)).and_then(|slot| slot.source.get());
        zone.ok_or(FreeError::OutOfZone { pfn: frame.pfn })?.free(frame.pfn, frame.order)
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
        Ok(Frame { pfn, order, node, zone, contents: Contents::Any })
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
        // Acquire pairs with the Release in `chain`.
        let first = self.slot(node)?.first.load(Ordering::Acquire);
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
        Ok(Frame { pfn, order, node, zone, contents: Contents::Any })
    }

    /// The source of the zone of `node` that has `pfn`.
    #[inline(always)]
    pub(crate) fn source_on(&self, node: NodeId, pfn: Pfn) -> Option<&'m Z> {
        self.zone_on(node, pfn).map(|(_, source)| source)
    }

    /// Tries the first zone of the fallback list of `from`.
    #[inline(always)]
    fn take_nearest(&self, from: NodeId, request: &Request<'_>) -> Option<Frame> {
        if request.fallback() != Fallback::Nearest {
            return None;
        }
        // Whatever entry of whatever epoch this reads, the zone's word decides; a miss is settled by a whole walk.
        let entry = self.lists.get(self.list_start(self.epoch.load(Ordering::Relaxed), from))?;
        self.take_at_once(entry.0.load(Ordering::Relaxed), Reach::Ordinary, request)
    }

    /// Tries one zone, which is the first of a walk.
    #[inline(always)]
    fn take_at_once(&self, zone: u16, reach: Reach, request: &Request<'_>) -> Option<Frame> {
        self.take(zone, self.zones.get(usize::from(zone))?, reach, request, Depth::Low).ok()
    }

    /// Walks the whole list that the request asks for.
    #[cold]
    #[inline(never)]
    fn alloc_anywhere(&self, from: NodeId, request: &Request<'_>) -> Result<Frame, AllocError> {
        if from.index() >= self.nodes.len() {
            return Err(AllocError::Unknown { node: from });
        }
        match request.fallback() {
            Fallback::Nearest => self.retried(|epoch| {
                descend(request, |depth| self.walk_fallback(self.fallback(epoch, from), request, depth))
            }),
            Fallback::ThisNodeOnly => self.alloc_own(from, Owned::ordinary(from), request),
        }
        .map_err(|missed| self.refusal(from, request, missed))
    }

    /// Walks the whole own list of a granted node.
    #[cold]
    #[inline(never)]
    fn alloc_on(&self, node: NodeId, request: &Request<'_>) -> Result<Frame, AllocError> {
        self.alloc_own(node, Owned::private(node), request).map_err(|missed| {
            let draining = self.state(node).is_none_or(|state| state.is_draining());
            if draining { AllocError::Draining { node } } else { no_memory(node, request, missed) }
        })
    }

    /// Walks a fallback list to the first zone that serves.
    fn walk_fallback(&self, list: &[ListSlot], request: &Request<'_>, depth: Depth) -> Result<Frame, Missed> {
        let mut missed = Missed::PASSED;
        for entry in list {
            let zone = entry.0.load(Ordering::Relaxed);
            let Some(slot) = self.zones.get(usize::from(zone)) else { break };
            match self.take(zone, slot, Reach::Ordinary, request, depth) {
                Ok(frame) => return Ok(frame),
                Err(why) => missed = missed.and(why),
            }
        }
        Err(missed)
    }

    /// Walks the own list of `node`.
    fn alloc_own(&self, node: NodeId, owner: Owned, request: &Request<'_>) -> Result<Frame, Missed> {
        let first = &self.nodes.get(node.index()).ok_or(Missed::PASSED)?.first;
        self.retried(|_| descend(request, |depth| self.walk_own(first, owner, request, depth)))
    }

    /// Walks the chain of zones that begins at `first` to the first one that serves.
    fn walk_own(
        &self,
        first: &AtomicU16,
        owner: Owned,
        request: &Request<'_>,
        depth: Depth,
    ) -> Result<Frame, Missed> {
        let mut missed = Missed::PASSED;
        // Acquire, here and below, pairs with the Release in `chain`: who follows a link sees where it leads on to.
        let mut zone = first.load(Ordering::Acquire);
        // The chain may be rewritten while it is walked: no walk is longer than there are zones.
        for _ in 0..self.zones.len() {
            let Some(slot) = self.zones.get(usize::from(zone)) else { break };
            match self.take(zone, slot, Reach::Only(owner), request, depth) {
                Ok(frame) => return Ok(frame),
                Err(why) => missed = missed.and(why),
            }
            zone = slot.next.load(Ordering::Acquire);
        }
        Err(missed)
    }

    /// Walks again as long as the lists changed under a walk that found nothing.
    #[inline]
    fn retried(&self, mut walk: impl FnMut(u32) -> Result<Frame, Missed>) -> Result<Frame, Missed> {
        // Acquire pairs with the Release in `rebuild`: who sees this epoch sees its lists.
        let mut epoch = self.epoch.load(Ordering::Acquire);
        loop {
            let missed = match walk(epoch) {
                Ok(frame) => return Ok(frame),
                Err(missed) => missed,
            };
            // Pairs with the fence in `rebuild` and the Release stores in `chain`: a walk that read an entry or a link
            // of a later change sees an epoch here that is not its own.
            fence(Ordering::Acquire);
            let now = self.epoch.load(Ordering::Acquire);
            if now == epoch {
                return Err(missed);
            }
            epoch = now;
        }
    }

    /// Takes a block of one zone, if the walk may use it and it has one to spare.
    #[inline(always)]
    fn take(
        &self,
        zone: u16,
        slot: &ZoneSlot<'m, Z>,
        reach: Reach,
        request: &Request<'_>,
        depth: Depth,
    ) -> Result<Frame, Missed> {
        self.take_by(zone, slot, reach, request, depth, |source| {
            source.alloc(request.block_order(), request.migrate_type())
        })
    }

    /// [`Nodes::take`], where `alloc` takes the block of the zone.
    #[inline(always)]
    fn take_by(
        &self,
        zone: u16,
        slot: &ZoneSlot<'m, Z>,
        reach: Reach,
        request: &Request<'_>,
        depth: Depth,
        alloc: impl FnOnce(&Z) -> Result<Pfn, FrameError>,
    ) -> Result<Frame, Missed> {
        let word = slot.load();
        let ours = match reach {
            Reach::Ordinary => word.owner().is_ordinary(),
            Reach::Only(owner) => word.owner() == owner,
        };
        let node = word.node();
        if !ours || request.mask().is_some_and(|mask| !mask.contains(node)) {
            return Err(Missed::PASSED);
        }
        let source = slot.source.get().ok_or(Missed::PASSED)?;
        let order = request.block_order();
        let kept = match depth {
            Depth::Low => slot.low.load(Ordering::Relaxed),
            Depth::Min => slot.min.load(Ordering::Relaxed),
            Depth::Emergency => 0,
        };
        if kept > 0 && keeps_back(slot, source, kept, request) {
            return Err(Missed::KEPT_BACK);
        }
        let pfn = alloc(source).map_err(why)?;
        // A slot lost its word before its zone was published or reopened elsewhere. Who got a block because of either
        // sees that here: of a publication by the Acquire in `get`, of a reopening by that of the source's `alloc`.
        let now = slot.load();
        if now != word && !now.same_use(word) {
            give_back(source, pfn, order);
            return Err(Missed::PASSED);
        }
        Ok(Frame { pfn, order, node, zone, contents: request.contents() })
    }

    /// Why an ordinary walk found nothing.
    #[cold]
    fn refusal(&self, from: NodeId, request: &Request<'_>, missed: Missed) -> AllocError {
        let private = self.state(from).is_some_and(|state| state.facts.has(Facts::PRIVATE));
        if private && request.fallback() == Fallback::ThisNodeOnly {
            return AllocError::Private { node: from };
        }
        match request.mask() {
            Some(mask) if !mask.intersects(&self.states().ordinary_memory) => {
                AllocError::Masked { node: from }
            }
            _ => no_memory(from, request, missed),
        }
    }
}

/// Undoes an allocation of a zone that changed hands meanwhile: nothing was allocated.
#[cold]
#[inline(never)]
fn give_back<Z: FrameZone>(source: &Z, pfn: Pfn, order: Order) -> Option<Pfn> {
    // The block was handed out a moment ago, so its source takes it back.
    let _ = source.free(pfn, order);
    None
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

const fn first_node() -> NodeId {
    match NodeId::new(0) {
        Ok(node) => node,
        Err(_) => unreachable!(),
    }
}

/// What a zone's refusal says of the walk.
#[cold]
fn why(error: FrameError) -> Missed {
    match error {
        FrameError::Contended { .. } => Missed::CONTENDED,
        FrameError::Exhausted { .. } | FrameError::Closed { .. } => Missed::PASSED,
    }
}

fn no_memory(node: NodeId, request: &Request<'_>, missed: Missed) -> AllocError {
    match request.mask() {
        Some(mask) if request.fallback() == Fallback::ThisNodeOnly && !mask.contains(node) => {
            AllocError::Masked { node }
        }
        _ if missed.has(Missed::CONTENDED) => AllocError::Contended { order: request.block_order() },
        _ => AllocError::NoMemory { order: request.block_order() },
    }
}

/// Walks above the low watermark first, and then as deep as the request may if a watermark kept something back.
#[inline]
fn descend(
    request: &Request<'_>,
    mut walk: impl FnMut(Depth) -> Result<Frame, Missed>,
) -> Result<Frame, Missed> {
    match (walk(Depth::Low), request.reserve_depth()) {
        (Err(missed), deeper) if missed.has(Missed::KEPT_BACK) && deeper > Depth::Low => walk(deeper),
        (result, _) => result,
    }
}

/// Whether the zone has no more to spare than the `kept` frames, of which the lowmem reserve is open to the unmovable.
#[cold]
fn keeps_back<Z: FrameZone>(slot: &ZoneSlot<'_, Z>, source: &Z, kept: u64, request: &Request<'_>) -> bool {
    let open = match request.migrate_type() {
        MigrateType::Unmovable => slot.lowmem.load(Ordering::Relaxed),
        MigrateType::Movable | MigrateType::Huge => 0,
    };
    source.free_frames() < kept.saturating_sub(open).saturating_add(request.block_order().frames())
}
