//! Why a step in a node's life is refused. Nothing has changed then.

use core::fmt;

use crate::addr::FrameRange;
use crate::node::{FeatureError, NodeId};

/// The handle is from an earlier life of its node id: the node was unregistered since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The node id.
    pub node: NodeId,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} was unregistered since; register it again", self.node)
    }
}

impl core::error::Error for Stale {}

/// Why a node cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The registry has no slot for this id.
    Unknown {
        /// The node id.
        node: NodeId,
    },
    /// Somebody else claimed the id, or the same owner with another claim.
    Busy {
        /// The node id.
        node: NodeId,
    },
    /// The features contradict one another.
    Features(FeatureError),
    /// The id was registered and given up 2^24 times: a further life could not be told from the first.
    Spent {
        /// The node id.
        node: NodeId,
    },
    /// The owner's handle is stale.
    Stale(Stale),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { node } => write!(f, "{node:?} has no slot in this registry; use a lower id"),
            Self::Busy { node } => write!(f, "{node:?} is claimed by another owner or with another claim"),
            Self::Features(error) => error.fmt(f),
            Self::Spent { node } => write!(f, "{node:?} has no generations left; use another id"),
            Self::Stale(stale) => stale.fmt(f),
        }
    }
}

impl core::error::Error for RegisterError {}

impl From<FeatureError> for RegisterError {
    fn from(error: FeatureError) -> Self {
        Self::Features(error)
    }
}

/// Why memory cannot come online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnlineError {
    /// The node's handle is stale.
    Stale(Stale),
    /// The node is being torn down.
    Draining {
        /// The node id.
        node: NodeId,
    },
    /// Some of the frames belong to a zone that is online.
    Overlaps {
        /// The span of the zone that was to come online.
        span: FrameRange,
        /// The span of the zone that has those frames.
        with: FrameRange,
        /// That zone's node.
        node: NodeId,
    },
    /// Every zone slot of the registry is taken.
    Full {
        /// How many zones the registry has slots for.
        zones: usize,
    },
}

impl fmt::Display for OnlineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(stale) => stale.fmt(f),
            Self::Draining { node } => write!(f, "{node:?} is draining; unregister it, or resume it first"),
            Self::Overlaps { span, with, node } => write!(f, "{span:?} overlaps {with:?} of {node:?}"),
            Self::Full { zones } => write!(f, "all {zones} zone slots are taken; give the registry more"),
        }
    }
}

impl core::error::Error for OnlineError {}

/// Why memory cannot go offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfflineError {
    /// The node's handle is stale.
    Stale(Stale),
    /// No zone of the node has this span.
    UnknownRange {
        /// The span that was to go offline.
        range: FrameRange,
    },
    /// The node is being torn down; its ranges stay closed.
    Draining {
        /// The node id.
        node: NodeId,
    },
    /// Frames of the zone are in use; evacuate them first.
    StillUsed {
        /// The span of the zone.
        range: FrameRange,
        /// How many frames are in use.
        frames: u64,
    },
}

impl fmt::Display for OfflineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(stale) => stale.fmt(f),
            Self::UnknownRange { range } => write!(f, "no zone of the node spans {range:?}"),
            Self::Draining { node } => write!(f, "{node:?} is draining; resume it first"),
            Self::StillUsed { range, frames } => {
                write!(f, "{frames} frames of {range:?} are in use; close it and move them away first")
            }
        }
    }
}

impl core::error::Error for OfflineError {}

/// Why a service cannot be installed or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceError {
    /// The node's handle is stale.
    Stale(Stale),
    /// A service has been installed already.
    Busy {
        /// The node id.
        node: NodeId,
    },
    /// The node has no memory yet.
    NoMemory {
        /// The node id.
        node: NodeId,
    },
    /// The node is being torn down.
    Draining {
        /// The node id.
        node: NodeId,
    },
    /// No service is installed.
    NotServiced {
        /// The node id.
        node: NodeId,
    },
    /// Pages that the service answers for are still on the node; evict them first.
    StillUsed {
        /// The node id.
        node: NodeId,
        /// How many frames are in use.
        frames: u64,
    },
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(stale) => stale.fmt(f),
            Self::Busy { node } => write!(f, "{node:?} has a service already"),
            Self::NoMemory { node } => write!(f, "{node:?} has no memory yet; online some first"),
            Self::Draining { node } => write!(f, "{node:?} is draining; resume it first"),
            Self::NotServiced { node } => write!(f, "{node:?} has no service"),
            Self::StillUsed { node, frames } => {
                write!(f, "{frames} frames of {node:?} are in use; drain the node and evict them first")
            }
        }
    }
}

impl core::error::Error for ServiceError {}

/// Why a node cannot be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnregisterError {
    /// The node's handle is stale: it was given up already.
    Stale(Stale),
    /// The node has memory; take its ranges offline first.
    HasMemory {
        /// The node id.
        node: NodeId,
    },
    /// The node's service is still installed; end it first.
    Serviced {
        /// The node id.
        node: NodeId,
    },
    /// Grants or running callbacks hold the node; call again when they are gone. A draining node hands out no new ones.
    Referenced {
        /// The node id.
        node: NodeId,
        /// How many.
        references: u32,
    },
}

impl fmt::Display for UnregisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(stale) => stale.fmt(f),
            Self::HasMemory { node } => write!(f, "{node:?} has memory; take its ranges offline first"),
            Self::Serviced { node } => write!(f, "{node:?} has a service; end it first"),
            Self::Referenced { node, references } => {
                write!(f, "{references} grants or callbacks hold {node:?}; drop them and call again")
            }
        }
    }
}

impl core::error::Error for UnregisterError {}

macro_rules! from_stale {
    ($($error:ty),*) => {$(
        impl From<Stale> for $error {
            fn from(stale: Stale) -> Self {
                Self::Stale(stale)
            }
        }
    )*};
}
from_stale!(RegisterError, OnlineError, OfflineError, ServiceError, UnregisterError);
