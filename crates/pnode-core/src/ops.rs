//! What a service answers for the pages of its node.
//!
//! A node has at most one service. The host calls it through [`Nodes::with_service`](crate::Nodes::with_service), which
//! holds a reference on the node for as long as the callback runs: teardown waits for it. Where a callback may sleep is
//! in its type: [`MaySleep`] and [`NoSleep`] are handed out by the host and cannot be made from one another.
//!
//! | callback | may sleep | what the caller holds |
//! | --- | --- | --- |
//! | [`migrate_to`](NodeOps::migrate_to) | yes | the blocks, which nobody else moves; frames on the node may not exist yet |
//! | [`migrated`](NodeOps::migrated) | no | both blocks, which nobody can reach |
//! | [`free`](NodeOps::free) | no | the block's last reference |
//! | [`fault`](NodeOps::fault) | yes | the block, but not the page-table lock |
//! | [`split`](NodeOps::split) | no | the whole block, which nobody can reach |
//! | [`reclaim_policy`](NodeOps::reclaim_policy) | no | nothing |
//! | [`memory_failure`](NodeOps::memory_failure) | no | nothing: the frame may be free |
//!
//! In all of them the node itself is held. The right to sleep cannot be had from within a callback that has it not:
//!
//! ```compile_fail,E0308
//! # use pnode_core::ops::{Access, Block, MaySleep, NodeOps, NoSleep};
//! fn careless(ops: &dyn NodeOps, cx: NoSleep<'_>, block: Block) {
//!     ops.fault(cx, block, Access::Write);
//! }
//! ```
//!
//! and the callbacks cannot be kept beyond the reference:
//!
//! ```compile_fail
//! # use pnode_core::{NodeId, NodeOps, Nodes, WordZone};
//! fn hoard<'m>(nodes: &'m Nodes<'m, WordZone>, node: NodeId) -> Option<&'m dyn NodeOps> {
//!     nodes.with_service(node, |service| service.ops())
//! }
//! ```
//!
//! After `node_private_ops` of the Linux series (mail *Private Memory Nodes (w/ Compressed RAM)*, February 2026), whose
//! callbacks could outlive their table; here each one holds the node.

use core::fmt;
use core::marker::PhantomData;

use crate::addr::{Order, Pfn};
use crate::node::NodeId;

/// The right to sleep, handed to a callback by its caller.
#[derive(Debug)]
pub struct MaySleep<'c>(PhantomData<&'c mut ()>);

/// The duty not to sleep: the caller holds a spinning lock or runs in an interrupt.
#[derive(Debug)]
pub struct NoSleep<'c>(PhantomData<&'c mut ()>);

impl MaySleep<'_> {
    /// States that the caller may sleep now.
    pub const fn here() -> Self {
        Self(PhantomData)
    }

    /// Gives the right up for the length of a borrow.
    pub const fn without_sleeping(&mut self) -> NoSleep<'_> {
        NoSleep(PhantomData)
    }
}

impl NoSleep<'_> {
    /// States that the caller must not sleep now.
    pub const fn here() -> Self {
        Self(PhantomData)
    }
}

/// A block of frames, as a callback sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first frame, aligned to the order.
    pub pfn: Pfn,
    /// The order.
    pub order: Order,
}

/// What becomes of a block whose last user let go of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeVerdict {
    /// It goes back to its zone.
    Release,
    /// The service keeps it and frees it later.
    Kept,
}

/// How a page of the node was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A read.
    Read,
    /// A write.
    Write,
}

/// What a fault on a page of the node came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultVerdict {
    /// The service has nothing to say; ordinary handling goes on.
    PassOn,
    /// Settled: the access may be made again and will succeed, or fault on another page.
    Settled,
    /// Nothing changed, for want of memory or because another CPU is at it; make the access again later.
    Retry,
}

/// How far a batch was moved onto the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// How many blocks arrived.
    pub arrived: usize,
}

/// Why a service did not take the rest of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MoveError {
    /// The node takes nothing now: its pressure is at the limit.
    Full {
        /// How many blocks arrived before.
        arrived: usize,
    },
    /// The service does not move pages in.
    Unsupported,
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { arrived } => {
                write!(
                    f,
                    "the node takes nothing more now, after {arrived} blocks; try the next tier or swap"
                )
            }
            Self::Unsupported => f.write_str("the node's service does not move pages in"),
        }
    }
}

impl core::error::Error for MoveError {}

/// What reclaim may do on the node beyond its gentle default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReclaimPolicy {
    /// Whether a boosted pass may write pages to swap.
    pub swap: SwapRule,
    /// Who owns the watermark boost.
    pub boost: BoostOwner,
}

/// Whether a boosted reclaim pass may swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SwapRule {
    /// As the host does elsewhere: a boosted pass does not swap.
    #[default]
    Gentle,
    /// It may.
    MaySwap,
}

/// Who raises and lowers a zone's watermark boost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BoostOwner {
    /// The host: it takes the boost back after a pass.
    #[default]
    Host,
    /// The service: the host leaves the boost alone.
    Service,
}

/// The callbacks of a service. Each default is the answer of a node without a service.
pub trait NodeOps: Sync {
    /// Moves the contents of `blocks`, which are on other nodes, onto `node`. The rest stays with the caller.
    ///
    /// # Errors
    ///
    /// [`MoveError`]; what arrived before it has arrived.
    fn migrate_to(&self, cx: MaySleep<'_>, node: NodeId, blocks: &[Block]) -> Result<Moved, MoveError> {
        let _ = (cx, node, blocks);
        Err(MoveError::Unsupported)
    }

    /// The contents of `from`, on the node, now are at `to`; nobody can reach either until this returns.
    fn migrated(&self, cx: NoSleep<'_>, from: Block, to: Block) {
        let _ = (cx, from, to);
    }

    /// The last user of `block` let go of it.
    fn free(&self, cx: NoSleep<'_>, block: Block) -> FreeVerdict {
        let _ = (cx, block);
        FreeVerdict::Release
    }

    /// A present page of the node was touched in a way that its mapping forbids.
    fn fault(&self, cx: MaySleep<'_>, block: Block, access: Access) -> FaultVerdict {
        let _ = (cx, block, access);
        FaultVerdict::PassOn
    }

    /// `whole` is being split; called once for each new `part`, and last with the part that keeps the first frame.
    fn split(&self, cx: NoSleep<'_>, whole: Block, part: Block) {
        let _ = (cx, whole, part);
    }

    /// What reclaim may do; asked once a pass.
    fn reclaim_policy(&self, cx: NoSleep<'_>) -> ReclaimPolicy {
        let _ = cx;
        ReclaimPolicy::default()
    }

    /// The memory of `pfn` failed. The frame may be free at this moment.
    fn memory_failure(&self, cx: NoSleep<'_>, pfn: Pfn) {
        let _ = (cx, pfn);
    }
}

/// A service ready to be installed on a node: a thin holder for its callbacks.
///
/// It cannot be copied and lends its callbacks only for as long as it is borrowed itself: what
/// [`Nodes::with_service`](crate::Nodes::with_service) shows to its closure does not outlive the reference that is held
/// meanwhile.
pub struct Service<'m> {
    ops: &'m dyn NodeOps,
}

impl<'m> Service<'m> {
    /// The service that answers with `ops`.
    pub const fn new(ops: &'m dyn NodeOps) -> Self {
        Self { ops }
    }

    /// The callbacks.
    pub const fn ops(&self) -> &dyn NodeOps {
        self.ops
    }
}

impl fmt::Debug for Service<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service(..)")
    }
}
