//! What a caller asks for. A request has no place to put a grant: ordinary requests cannot reach a private node.

use crate::addr::{Order, Pfn};
use crate::frame::MigrateType;
use crate::node::{NodeId, NodeMask};

/// A request for one block of frames.
///
/// A request says which nodes it would like; it never says that it may have private memory. That takes a
/// [`Grant`](crate::Grant), on which the request is then made.
///
/// ```
/// use pnode_core::{NodeId, NodeMask, Order, Request};
///
/// let near = NodeMask::of(NodeId::new(0)?).with(NodeId::new(1)?);
/// let request = Request::order(Order::HUGE).prefer(NodeId::new(1)?).nodemask(&near).zeroed();
/// assert_eq!(request.preferred(), Some(NodeId::new(1)?));
/// # Ok::<(), pnode_core::NodeIdTooLarge>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    order: Order,
    migrate: MigrateType,
    preferred: Option<NodeId>,
    nodemask: Option<&'r NodeMask>,
    fallback: Fallback,
    contents: Contents,
    depth: Depth,
    below: Option<Pfn>,
}

/// Which nodes may serve a request when the preferred one cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Every ordinary node, in distance order seen from the preferred one.
    Nearest,
    /// None: the preferred node or an error.
    ThisNodeOnly,
}

/// What the frames must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Anything.
    Any,
    /// Zeroes. This crate never touches memory: the caller clears the frames when [`Frame::contents`](crate::Frame::contents)
    /// says so.
    Zeroed,
}

/// How far into the reserve of a zone a request may reach. Later variants reach deeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Down to the low watermark.
    Low,
    /// Down to the min watermark, after the zones above low were tried.
    Min,
    /// To the last frame: for those who free memory by it (reclaim itself, an exiting task).
    Emergency,
}

impl<'r> Request<'r> {
    /// A movable block of `order` from the nearest ordinary node, with any contents, not below the min watermark.
    pub const fn order(order: Order) -> Self {
        Self {
            order,
            migrate: MigrateType::Movable,
            preferred: None,
            nodemask: None,
            fallback: Fallback::Nearest,
            contents: Contents::Any,
            depth: Depth::Min,
            below: None,
        }
    }

    /// One frame, otherwise as [`Request::order`].
    pub const fn page() -> Self {
        Self::order(Order::ZERO)
    }

    /// As near to `node` as can be. A private node is a place to start from and never serves the request.
    #[must_use]
    pub const fn prefer(mut self, node: NodeId) -> Self {
        self.preferred = Some(node);
        self
    }

    /// Only from nodes in `mask`. A mask filters; it never adds a node.
    #[must_use]
    pub const fn nodemask<'s>(self, mask: &'s NodeMask) -> Request<'s>
    where
        'r: 's,
    {
        Request { nodemask: Some(mask), ..self }
    }

    /// Only from the preferred node (node 0 if none is), or an error.
    #[must_use]
    pub const fn this_node_only(mut self) -> Self {
        self.fallback = Fallback::ThisNodeOnly;
        self
    }

    /// For contents of this mobility.
    #[must_use]
    pub const fn migrate(mut self, migrate: MigrateType) -> Self {
        self.migrate = migrate;
        self
    }

    /// The frames must hold zeroes.
    #[must_use]
    pub const fn zeroed(mut self) -> Self {
        self.contents = Contents::Zeroed;
        self
    }

    /// Reaches into reserves as deep as `depth`.
    #[must_use]
    pub const fn depth(mut self, depth: Depth) -> Self {
        self.depth = depth;
        self
    }

    /// Only from zones that end at `limit` or before it: for a device that cannot reach the frames beyond. A zone's lowmem
    /// reserve is for such requests. After `GFP_DMA32` of Linux, which names a zone where this names a frame.
    #[must_use]
    pub const fn below(mut self, limit: Pfn) -> Self {
        self.below = Some(limit);
        self
    }

    /// The order of the block.
    #[inline]
    pub const fn block_order(&self) -> Order {
        self.order
    }

    /// The mobility of what the block will hold.
    #[inline]
    pub const fn migrate_type(&self) -> MigrateType {
        self.migrate
    }

    /// The node to start from.
    #[inline]
    pub const fn preferred(&self) -> Option<NodeId> {
        self.preferred
    }

    /// The nodes that may serve the request, `None` for all.
    #[inline]
    pub const fn mask(&self) -> Option<&'r NodeMask> {
        self.nodemask
    }

    /// Who may serve the request when the preferred node cannot.
    #[inline]
    pub const fn fallback(&self) -> Fallback {
        self.fallback
    }

    /// What the frames must hold.
    #[inline]
    pub const fn contents(&self) -> Contents {
        self.contents
    }

    /// How deep into reserves the request may reach.
    #[inline]
    pub const fn reserve_depth(&self) -> Depth {
        self.depth
    }

    /// The frame that every frame of the block is to be below, `None` if any will do.
    #[inline]
    pub const fn limit(&self) -> Option<Pfn> {
        self.below
    }
}
