//! The token for a block that was handed out, and why there is none.

use core::fmt;

use crate::addr::{Order, Pfn};
use crate::node::NodeId;
use crate::request::Contents;

/// A block of frames that was handed out: a token that cannot be copied, so it is given back once.
///
/// It has no destructor and holds no reference; a block that is forgotten stays in use. A driver that writes the frame
/// number into a device's table keeps the number by [`Frame::into_raw`] and gets the token back by
/// [`Nodes::adopt`](crate::Nodes::adopt).
///
/// Only the registry that handed it out takes it back; see [`Nodes::issued`](crate::Nodes::issued).
#[derive(PartialEq, Eq)]
#[must_use = "a block that is dropped stays in use; give it back with `Nodes::free`"]
pub struct Frame {
    pub(super) pfn: Pfn,
    pub(super) order: Order,
    pub(super) node: NodeId,
    pub(super) zone: u16,
    pub(super) contents: Contents,
    pub(super) mark: Mark,
}

/// What tells the blocks of one registry from those of any other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(pub(super) u64);

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

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the mark: it is an address as a rule, and says nothing to a reader.
        let Self { pfn, order, node, zone, contents, .. } = self;
        f.debug_struct("Frame")
            .field("pfn", pfn)
            .field("order", order)
            .field("node", node)
            .field("zone", zone)
            .field("contents", contents)
            .finish()
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
    /// Blocks that might have served were on their way between two places for too long
    /// ([`FrameError::Contended`](crate::FrameError::Contended)).
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
