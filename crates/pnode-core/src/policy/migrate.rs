//! Which pages may be moved on a user's request: move_pages, migrate_pages, and a bind that moves what is there.

use core::fmt;

use crate::cpuset::Mems;
use crate::frame::FrameZone;
use crate::node::{Features, NodeId};
use crate::registry::Nodes;
use crate::sync::RawLock;

/// Why a page is not moved on a user's request. The order of the variants is that of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MoveDenied {
    /// The page is on a private node that is closed to users: for them it is not there (`ENOENT`).
    From {
        /// The node.
        node: NodeId,
    },
    /// There is no such node for users: it has no memory, or is private and closed to them (`ENODEV`).
    To {
        /// The node.
        node: NodeId,
    },
    /// The node is outside the task's cpuset (`EACCES`).
    NotAllowed {
        /// The node.
        node: NodeId,
    },
}

impl fmt::Display for MoveDenied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From { node } => {
                write!(
                    f,
                    "pages on {node:?} are not moved: it is private and its owner did not open USER_NUMA"
                )
            }
            Self::To { node } => {
                write!(f, "nothing is moved to {node:?}: it has no memory that is open to users")
            }
            Self::NotAllowed { node } => write!(f, "{node:?} is outside the task's cpuset"),
        }
    }
}

impl core::error::Error for MoveDenied {}

impl<Z: FrameZone, L: RawLock> Nodes<'_, Z, L> {
    /// Tests whether a user may move a page from `from` to `to`. The move itself takes a grant for
    /// [`Reason::UserMigrate`](crate::Reason::UserMigrate) if `to` is private.
    ///
    /// # Errors
    ///
    /// [`MoveDenied`].
    pub fn check_move(&self, from: NodeId, to: NodeId, mems: &Mems) -> Result<(), MoveDenied> {
        let private = self.state(from).is_some_and(|state| state.is_private());
        if private && !self.is_opened(from, Features::USER_NUMA) {
            return Err(MoveDenied::From { node: from });
        }
        let states = self.states();
        let ordinary = states.ordinary_memory.contains(to) && !states.draining.contains(to);
        if !ordinary && !self.is_opened(to, Features::USER_NUMA) {
            return Err(MoveDenied::To { node: to });
        }
        if !mems.contains(to) {
            return Err(MoveDenied::NotAllowed { node: to });
        }
        Ok(())
    }
}
