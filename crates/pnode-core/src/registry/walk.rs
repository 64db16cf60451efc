//! Taking a block through a zonelist, and giving it back.

use core::fmt;

use super::storage::{Owned, ZoneSlot};
use super::{Nodes, Registration};
use crate::addr::{Order, Pfn};
use crate::frame::{FrameZone, FreeError};
use crate::node::{Facts, NodeId};
use crate::request::{Contents, Depth, Fallback, Request};
use crate::sync::{Ordering, RawLock, fence};

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

impl<'m, Z: FrameZone, L: RawLock> Nodes<'m, Z, L> {
    /// Takes a block from ordinary memory: the nearest zone to the preferred node (node 0 if none is) that has one.
    ///
    /// No request reaches a private node this way, whatever it prefers and whatever its nodemask says. Takes no lock;
    /// may be called in any context that `Z` allows.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; nothing has changed then.
    #[inline]
    pub fn alloc(&self, request: Request<'_>) -> Result<Frame, AllocError> {
        let from = match request.preferred() {
            Some(node) => node,
            None => const { first_node() },
        };
        if from.index() >= self.nodes.len() {
            return Err(AllocError::Unknown { node: from });
        }
        match request.fallback() {
            Fallback::Nearest => self.retried(|epoch| {
                let list = self.fallback(epoch, from);
                self.descend(request, |depth| {
                    list.iter()
                        .map(|slot| slot.0.load(Ordering::Relaxed))
                        .map_while(|zone| Some((zone, self.zones.get(usize::from(zone))?)))
                        .find_map(|(zone, slot)| self.take(zone, slot, Reach::Ordinary, request, depth))
                })
            }),
            Fallback::ThisNodeOnly => self.alloc_own(from, Owned::ordinary(from), request),
        }
        .ok_or_else(|| self.refusal(from, request))
    }

    /// Takes a block of the granted node.
    pub(crate) fn alloc_granted(
        &self,
        granted: Registration,
        request: Request<'_>,
    ) -> Result<Frame, AllocError> {
        let node = granted.node;
        if let Some(preferred) = request.preferred().filter(|preferred| *preferred != node) {
            return Err(AllocError::OtherNode { granted: node, preferred });
        }
        self.alloc_own(node, Owned::private(node), request).ok_or_else(|| {
            let draining = self.state(node).is_none_or(|state| state.is_draining());
            if draining { AllocError::Draining { node } } else { no_memory(node, request) }
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
        self.zones
            .iter()
            .enumerate()
            .find_map(|(zone, slot)| {
                let node = slot.load().node()?;
                slot.source.get()?.span().contains(pfn).then_some(Frame {
                    pfn,
                    order,
                    node,
                    zone: zone as u16,
                    contents: Contents::Any,
                })
            })
            .ok_or(AdoptError::NoZone { pfn })
    }

    /// The node that `pfn` is on, or `None` if no zone has it.
    pub fn node_of(&self, pfn: Pfn) -> Option<NodeId> {
        self.zones.iter().find_map(|slot| {
            slot.load().node().filter(|_| slot.source.get().is_some_and(|z| z.span().contains(pfn)))
        })
    }

    /// Walks the own list of `node`.
    fn alloc_own(&self, node: NodeId, owner: Owned, request: Request<'_>) -> Option<Frame> {
        let first = &self.nodes.get(node.index())?.first;
        self.retried(|_| {
            self.descend(request, |depth| {
                // The chain may be rewritten while it is walked: no walk is longer than there are zones.
                let mut zone = first.load(Ordering::Acquire);
                for _ in 0..self.zones.len() {
                    let slot = self.zones.get(usize::from(zone))?;
                    if let Some(frame) = self.take(zone, slot, Reach::Only(owner), request, depth) {
                        return Some(frame);
                    }
                    zone = slot.next.load(Ordering::Acquire);
                }
                None
            })
        })
    }

    /// Walks again as long as the lists changed under a walk that found nothing.
    #[inline]
    fn retried(&self, mut walk: impl FnMut(u32) -> Option<Frame>) -> Option<Frame> {
        // Acquire pairs with the Release in `rebuild`.
        let mut epoch = self.epoch.load(Ordering::Acquire);
        loop {
            if let Some(frame) = walk(epoch) {
                return Some(frame);
            }
            // The fence orders the walk's loads before the next one: a walk that read a link or a word of a later
            // rebuild sees that rebuild's epoch here.
            fence(Ordering::Acquire);
            let now = self.epoch.load(Ordering::Acquire);
            if now == epoch {
                return None;
            }
            epoch = now;
        }
    }

    /// Walks above the low watermark first, then as deep as the request may.
    #[inline]
    fn descend(&self, request: Request<'_>, mut walk: impl FnMut(Depth) -> Option<Frame>) -> Option<Frame> {
        walk(Depth::Low).or_else(|| match request.reserve_depth() {
            Depth::Low => None,
            deeper => walk(deeper),
        })
    }

    /// Takes a block of one zone, if the walk may use it and it has one to spare.
    #[inline]
    fn take(
        &self,
        zone: u16,
        slot: &ZoneSlot<'m, Z>,
        reach: Reach,
        request: Request<'_>,
        depth: Depth,
    ) -> Option<Frame> {
        let word = slot.load();
        let ours = match reach {
            Reach::Ordinary => word.owner().is_ordinary(),
            Reach::Only(owner) => word.owner() == owner,
        };
        let node = word.node().filter(|_| ours)?;
        if request.mask().is_some_and(|mask| !mask.contains(node)) {
            return None;
        }
        let source = slot.source.get()?;
        let order = request.block_order();
        let kept = match depth {
            Depth::Low => slot.low.load(Ordering::Relaxed),
            Depth::Min => slot.min.load(Ordering::Relaxed),
            Depth::Emergency => 0,
        };
        if kept > 0 && source.free_frames() < kept.saturating_add(order.frames()) {
            return None;
        }
        let pfn = source.alloc(order, request.migrate_type()).ok()?;
        // A zone that changed hands was isolated, got its new word and was reopened, in this order. If the block was
        // there because of that reopening, this load sees the new word; the source's own acquire orders it.
        if !slot.load().same_use(word) {
            // The block was handed out a moment ago, so its source takes it back.
            let _ = source.free(pfn, order);
            return None;
        }
        Some(Frame { pfn, order, node, zone, contents: request.contents() })
    }

    /// Why an ordinary walk found nothing.
    #[cold]
    fn refusal(&self, from: NodeId, request: Request<'_>) -> AllocError {
        let private = self.state(from).is_some_and(|state| state.facts.has(Facts::PRIVATE));
        if private && request.fallback() == Fallback::ThisNodeOnly {
            return AllocError::Private { node: from };
        }
        match request.mask() {
            Some(mask) if !mask.intersects(&self.states().ordinary_memory) => {
                AllocError::Masked { node: from }
            }
            _ => no_memory(from, request),
        }
    }
}

const fn first_node() -> NodeId {
    match NodeId::new(0) {
        Ok(node) => node,
        Err(_) => unreachable!(),
    }
}

fn no_memory(node: NodeId, request: Request<'_>) -> AllocError {
    match request.mask() {
        Some(mask) if request.fallback() == Fallback::ThisNodeOnly && !mask.contains(node) => {
            AllocError::Masked { node }
        }
        _ => AllocError::NoMemory { order: request.block_order() },
    }
}
