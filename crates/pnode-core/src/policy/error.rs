//! Why a policy is refused. Nothing has changed then.

use core::fmt;

use super::Mode;
use crate::node::NodeId;

/// Why a policy cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// The mode takes no nodes, and some were named.
    TakesNoNodes {
        /// The mode.
        mode: Mode,
    },
    /// No node was named.
    NoNodes {
        /// The mode.
        mode: Mode,
    },
    /// The mode takes no home node.
    TakesNoHome {
        /// The mode.
        mode: Mode,
    },
    /// The registry has no slot for the home node.
    UnknownHome {
        /// The home node.
        node: NodeId,
    },
    /// The owner of a private node did not open `USER_NUMA`.
    NotConsenting {
        /// The lowest such node.
        node: NodeId,
    },
    /// Page cache never lives on a private node: its pages belong to the file, and whoever touches them first places
    /// them.
    PageCache {
        /// The lowest private node that was named.
        node: NodeId,
    },
    /// None of the named nodes is left: they are outside the cpuset, have no memory, or are private and the mode is not
    /// bind.
    NothingLeft {
        /// The mode.
        mode: Mode,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakesNoNodes { mode } => write!(f, "{mode} takes no nodes; name none"),
            Self::NoNodes { mode } => write!(f, "{mode} needs nodes; name one at least"),
            Self::TakesNoHome { mode } => {
                write!(f, "{mode} takes no home node; bind and preferred-many do")
            }
            Self::UnknownHome { node } => write!(f, "{node:?} has no slot in this registry"),
            Self::NotConsenting { node } => {
                write!(f, "{node:?} is private and its owner did not open USER_NUMA")
            }
            Self::PageCache { node } => write!(
                f,
                "page cache cannot be bound to {node:?}, which is private: its pages belong to the file; copy the data to \
                 anonymous memory and bind that"
            ),
            Self::NothingLeft { mode } => write!(
                f,
                "{mode} has no node left: those that were named are outside the cpuset, have no memory, or are private"
            ),
        }
    }
}

impl core::error::Error for PolicyError {}
