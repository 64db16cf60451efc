//! Grants: the right to a private node, as a value.
//!
//! A [`Grant`] names one node and one [`Reason`]. Only a registration mints it: the node's [`Owner`](crate::Owner) for
//! itself, or the registry for a service whose door the owner opened. It cannot be copied, widened or used for another
//! node, it holds a reference by which teardown waits for it, and one from an earlier life of a node id fits no later one.

use core::fmt;

use crate::addr::{Order, Pfn};
use crate::frame::{FrameError, FrameSource, FrameZone, FreeError, MigrateType};
use crate::node::{Features, NodeId};
use crate::registry::{AdoptError, AllocError, Frame, Nodes, Registration};
use crate::request::Request;
use crate::sync::{RawLock, SpinLock};

/// What a grant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The owner's own use.
    Owner,
    /// Evicting pages of the node, and bringing back what was evicted from it.
    Reclaim,
    /// Moving cold pages into the node.
    Demotion,
    /// Finding hot pages of the node and moving them out.
    Promotion,
    /// Moving pages about within the node.
    Compaction,
    /// Claiming a contiguous range by address.
    Contig,
    /// Serving a fault under a user's bind policy.
    UserPolicy,
    /// Moving a user's pages on request: move_pages, migrate_pages.
    UserMigrate,
    /// Pinning pages of the node for long.
    Pin,
    /// Moving pages off because the memory goes; the one door that stays open while a node drains.
    HotUnplug,
    /// Counting the node's memory when a victim is looked for.
    Oom,
}

/// What a reason entitles to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Taking frames of the node.
    TakeFrames,
    /// Working on pages that are there.
    WorkOnPages,
}

/// The door table: which door a reason needs, and what it entitles to. `None`: only the owner has it.
pub const DOORS: [(Reason, Option<Features>, Right); 11] = [
    (Reason::Owner, None, Right::TakeFrames),
    (Reason::Reclaim, Some(Features::RECLAIM), Right::TakeFrames),
    (Reason::Demotion, Some(Features::DEMOTION), Right::TakeFrames),
    (Reason::Promotion, Some(Features::PROMOTION), Right::WorkOnPages),
    (Reason::Compaction, Some(Features::COMPACTION), Right::TakeFrames),
    (Reason::Contig, Some(Features::CONTIG), Right::TakeFrames),
    (Reason::UserPolicy, Some(Features::USER_NUMA), Right::TakeFrames),
    (Reason::UserMigrate, Some(Features::USER_NUMA), Right::TakeFrames),
    (Reason::Pin, Some(Features::PIN), Right::WorkOnPages),
    (Reason::HotUnplug, Some(Features::HOTUNPLUG), Right::WorkOnPages),
    (Reason::Oom, Some(Features::OOM), Right::WorkOnPages),
];

/// The table has a row for each reason, in their order: a reason is the number of its row.
const _: () = {
    let mut row = 0;
    while row < DOORS.len() {
        assert!(DOORS[row].0 as usize == row);
        row += 1;
    }
    assert!(Reason::Oom as usize == DOORS.len() - 1);
};

impl Reason {
    /// The door that must be open, `None` for what only the owner may do.
    pub const fn door(self) -> Option<Features> {
        DOORS[self as usize].1
    }

    /// What the reason entitles to.
    #[inline]
    pub const fn right(self) -> Right {
        DOORS[self as usize].2
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "the owner's use",
            Self::Reclaim => "reclaim",
            Self::Demotion => "demotion",
            Self::Promotion => "promotion",
            Self::Compaction => "compaction",
            Self::Contig => "contiguous allocation",
            Self::UserPolicy => "user policy",
            Self::UserMigrate => "user migration",
            Self::Pin => "long-term pinning",
            Self::HotUnplug => "hot-unplug",
            Self::Oom => "the OOM killer",
        })
    }
}

/// Why a grant is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denied {
    /// Nobody registered the node, or the registry has no slot for it.
    Unknown {
        /// The node id.
        node: NodeId,
    },
    /// The node is ordinary: its memory takes no grant.
    NotPrivate {
        /// The node id.
        node: NodeId,
    },
    /// The owner did not open the door that the reason needs.
    NotOpened {
        /// The node id.
        node: NodeId,
        /// The reason.
        reason: Reason,
        /// The shut door.
        door: Features,
    },
    /// Only the owner mints grants for the owner's use.
    OwnerOnly {
        /// The node id.
        node: NodeId,
    },
    /// The node is being torn down.
    Draining {
        /// The node id.
        node: NodeId,
    },
    /// The owner's handle, or whoever remembered the id, is of an earlier life of it.
    Stale {
        /// The node id.
        node: NodeId,
    },
    /// 2^32 - 1 references are held already.
    TooManyReferences {
        /// The node id.
        node: NodeId,
    },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { node } => write!(f, "{node:?} is not registered; ask again when its driver came"),
            Self::NotPrivate { node } => write!(f, "{node:?} is ordinary; allocate from it without a grant"),
            Self::NotOpened { node, reason, door } => {
                write!(f, "{node:?} is closed to {reason}: its owner did not open {door}")
            }
            Self::OwnerOnly { node } => {
                write!(f, "only the owner of {node:?} has this grant; ask with the reason of your service")
            }
            Self::Draining { node } => {
                write!(f, "{node:?} is draining; nothing new lands there, use another node")
            }
            Self::Stale { node } => write!(f, "{node:?} was unregistered since; look its id up again"),
            Self::TooManyReferences { node } => {
                write!(f, "{node:?} has too many references; drop some grants")
            }
        }
    }
}

impl core::error::Error for Denied {}

/// The right to one private node for one reason.
///
/// A grant counts as a reference on the node until it is dropped; a service keeps one for as long as it works on the
/// node, not for each page. It is a [`FrameSource`] of its node, so a store or a cache can stand on it.
pub struct Grant<'m, Z: FrameZone, L: RawLock = SpinLock> {
    nodes: &'m Nodes<'m, Z, L>,
    registration: Registration,
    reason: Reason,
}

impl<'m, Z: FrameZone, L: RawLock> Grant<'m, Z, L> {
    pub(crate) const fn new(nodes: &'m Nodes<'m, Z, L>, registration: Registration, reason: Reason) -> Self {
        Self { nodes, registration, reason }
    }

    /// The node.
    pub const fn node(&self) -> NodeId {
        self.registration.node
    }

    /// The reason.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// Takes a block of the node: of this node, or an error.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; nothing has changed then. A grant never falls back to another node.
    #[inline]
    pub fn alloc(&self, request: Request<'_>) -> Result<Frame, AllocError> {
        if self.reason.right() != Right::TakeFrames {
            return Err(AllocError::NotForFrames { reason: self.reason });
        }
        self.nodes.alloc_granted(self.registration, &request.this_node_only())
    }

    /// Takes exactly the block at `pfn` of the node, or fails.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; [`AllocError::NoMemory`] if the block is not free or not of this node.
    pub fn alloc_at(&self, pfn: Pfn, request: Request<'_>) -> Result<Frame, AllocError> {
        if self.reason.right() != Right::TakeFrames {
            return Err(AllocError::NotForFrames { reason: self.reason });
        }
        self.nodes.alloc_granted_at(self.registration, pfn, &request.this_node_only())
    }
}

impl<'m, Z: FrameZone, L: RawLock> Grant<'m, Z, L> {
    /// Makes a token of a block of this node that is known by its number only, as [`Nodes::adopt`] does for any node.
    ///
    /// # Errors
    ///
    /// [`AdoptError::NoZone`] if no zone of this node has the frame.
    #[inline]
    pub fn adopt(&self, pfn: Pfn, order: Order) -> Result<Frame, AdoptError> {
        self.nodes.adopt_on(self.node(), pfn, order)
    }

    /// A frame that the node's first zone has at hand: the part of [`Grant::alloc`] that serves most requests, in line.
    /// `None` says no more than that another way must be tried.
    #[inline(always)]
    pub fn alloc_at_hand(&self, migrate: MigrateType) -> Option<Pfn> {
        match self.reason.right() {
            Right::TakeFrames => self.nodes.take_at_hand(self.node(), migrate),
            Right::WorkOnPages => None,
        }
    }

    /// The zone of this node that has `pfn`, for a host whose zones know more of their frames than the registry does.
    #[inline(always)]
    pub fn zone_of(&self, pfn: Pfn) -> Option<&'m Z> {
        self.nodes.source_on(self.node(), pfn)
    }
}

/// A grant hands out frames of its node and takes back frames of its node only.
impl<Z: FrameZone, L: RawLock> FrameSource for Grant<'_, Z, L> {
    /// As [`Grant::alloc`] with a request that has an order and a migrate type only, which is all that most callers ask
    /// for: the way to the node's first zone is in line, all others are in a call.
    #[inline]
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        if self.reason.right() == Right::TakeFrames {
            if let Some(pfn) = self.nodes.take_first(self.node(), order, migrate) {
                return Ok(pfn);
            }
        }
        self.alloc_request(order, migrate)
    }

    #[inline]
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        // The zone says whether the frame is handed out; that it is this node's has been seen here.
        self.zone_of(pfn).ok_or(FreeError::OutOfZone { pfn })?.free(pfn, order)
    }
}

impl<Z: FrameZone, L: RawLock> Grant<'_, Z, L> {
    #[cold]
    #[inline(never)]
    fn alloc_request(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        match self.alloc(Request::order(order).migrate(migrate)) {
            Ok(frame) => Ok(frame.into_raw().0),
            Err(AllocError::NoMemory { order }) => Err(FrameError::Exhausted { order }),
            Err(AllocError::Contended { order }) => Err(FrameError::Contended { order }),
            Err(_) => Err(FrameError::Closed { order }),
        }
    }
}

impl<Z: FrameZone, L: RawLock> Drop for Grant<'_, Z, L> {
    fn drop(&mut self) {
        self.nodes.release(self.registration.node);
    }
}

impl<Z: FrameZone, L: RawLock> fmt::Debug for Grant<'_, Z, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grant on {:?} for {}", self.registration.node, self.reason)
    }
}
