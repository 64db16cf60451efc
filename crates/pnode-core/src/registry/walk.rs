//! Taking a block through a zonelist, and giving it back.

use super::storage::{ListSlot, ZoneSlot};
use super::token::{AllocError, Frame};
use super::zone_word::{Owned, ZoneWord};
use super::{Nodes, Registration};
use crate::addr::{Order, Pfn};
use crate::frame::{FrameError, FrameZone, FreeError, MigrateType};
use crate::node::{Facts, NodeId};
use crate::request::{Depth, Fallback, Request};
use crate::sync::{AtomicU16, Ordering, RawLock, fence};

/// Which zones a walk may use.
#[derive(Clone, Copy)]
pub(super) enum Reach {
    /// Any zone of an ordinary node.
    Ordinary,
    /// The zones of this owner.
    Only(Owned),
}

/// Why the zones that a walk asked did not serve: a set, for a walk asks several.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Missed(u8);

impl Missed {
    /// They have no such block, or the walk may not use them.
    pub(super) const PASSED: Self = Self(0);
    /// A watermark keeps back what one of them has: a walk that reaches deeper may get it.
    const KEPT_BACK: Self = Self(1);
    /// Blocks of one of them were in motion.
    pub(super) const CONTENDED: Self = Self(2);

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn has(self, other: Self) -> bool {
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

    /// Gives a block back to its zone.
    ///
    /// # Errors
    ///
    /// [`FreeError`] only for a token adopted from a number that was not handed out so, and [`FreeError::Foreign`] for one
    /// of another registry; nothing has changed then.
    #[inline]
    pub fn free(&self, frame: Frame) -> Result<(), FreeError> {
        if !self.issued(&frame) {
            return Err(FreeError::Foreign { pfn: frame.pfn });
        }
        let zone = self.zones.get(usize::from(frame.zone)).and_then(|slot| slot.source.get());
        zone.ok_or(FreeError::OutOfZone { pfn: frame.pfn })?.free(frame.pfn, frame.order)
    }

    /// Whether the token is of this registry: handed out or adopted here. See [`Nodes::marked`].
    #[inline]
    pub fn issued(&self, frame: &Frame) -> bool {
        frame.mark == self.mark
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
    pub(super) fn take_by(
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
        if request.limit().is_some_and(|limit| source.span().end() > limit) {
            return Err(Missed::PASSED);
        }
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
        Ok(Frame { pfn, order, node, zone, contents: request.contents(), mark: self.mark })
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

pub(super) const fn first_node() -> NodeId {
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
pub(super) fn descend(
    request: &Request<'_>,
    mut walk: impl FnMut(Depth) -> Result<Frame, Missed>,
) -> Result<Frame, Missed> {
    match (walk(Depth::Low), request.reserve_depth()) {
        (Err(missed), deeper) if missed.has(Missed::KEPT_BACK) && deeper > Depth::Low => walk(deeper),
        (result, _) => result,
    }
}

/// Whether the zone has no more to spare than the `kept` frames, of which the lowmem reserve is open to those who cannot go
/// elsewhere: the unmovable, and who must be below a limit.
#[cold]
fn keeps_back<Z: FrameZone>(slot: &ZoneSlot<'_, Z>, source: &Z, kept: u64, request: &Request<'_>) -> bool {
    let open = match (request.migrate_type(), request.limit()) {
        (MigrateType::Movable | MigrateType::Huge, None) => 0,
        _ => slot.lowmem.load(Ordering::Relaxed),
    };
    source.free_frames() < kept.saturating_sub(open).saturating_add(request.block_order().frames())
}
