//! What a user asks for.

use core::fmt;

use crate::node::{NodeId, NodeMask};

/// How a policy chooses nodes. The words and meanings are those of `set_mempolicy(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// No policy here: the next one in the lookup order counts, in the end the nearest node.
    Default,
    /// The node of the CPU that faults, whatever the task's policy says.
    Local,
    /// The named nodes and no other. The one mode that may name private nodes.
    Bind,
    /// The first named node, else the nearest to it.
    Preferred,
    /// The named nodes, else the nearest to the faulting CPU.
    PreferredMany,
    /// The named nodes in turn.
    Interleave,
    /// The named nodes in turn, each as often as its weight says.
    WeightedInterleave,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 7] = [
        Self::Default,
        Self::Local,
        Self::Bind,
        Self::Preferred,
        Self::PreferredMany,
        Self::Interleave,
        Self::WeightedInterleave,
    ];

    /// Whether the mode chooses among nodes that are named.
    pub const fn takes_nodes(self) -> bool {
        !matches!(self, Self::Default | Self::Local)
    }

    /// Whether the mode may be given a home node.
    pub const fn takes_home(self) -> bool {
        matches!(self, Self::Bind | Self::PreferredMany)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Local => "local",
            Self::Bind => "bind",
            Self::Preferred => "preferred",
            Self::PreferredMany => "preferred-many",
            Self::Interleave => "interleave",
            Self::WeightedInterleave => "weighted interleave",
        })
    }
}

/// What the numbers of the named nodes mean when the cpuset or the nodes change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Numbering {
    /// Positions: the n-th allowed node becomes the n-th node of those allowed then, and is not restored later.
    #[default]
    Positional,
    /// Node ids: a node that is not allowed drops out and is restored when it is allowed again.
    Static,
    /// Positions from the start: node 0 is the first allowed node, counted round.
    Relative,
}

/// A policy as a user asks for it, not yet compared with the nodes there are.
///
/// ```
/// use pnode_core::policy::{Mode, Numbering, Wish};
/// use pnode_core::{NodeId, NodeMask};
///
/// let device = NodeId::new(2)?;
/// let wish = Wish::new(Mode::Bind, NodeMask::of(device)).numbering(Numbering::Static).home(device);
/// assert_eq!(wish.mode(), Mode::Bind);
/// # Ok::<(), pnode_core::NodeIdTooLarge>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    mode: Mode,
    nodes: NodeMask,
    numbering: Numbering,
    home: Option<NodeId>,
}

impl Wish {
    /// `mode` over `nodes`, which must be empty for default and local.
    pub const fn new(mode: Mode, nodes: NodeMask) -> Self {
        Self { mode, nodes, numbering: Numbering::Positional, home: None }
    }

    /// With other node numbers than positions.
    #[must_use]
    pub const fn numbering(mut self, numbering: Numbering) -> Self {
        self.numbering = numbering;
        self
    }

    /// Starting from `node` instead of the faulting CPU's node. A hint: any node that the registry knows will do, and no
    /// door is needed, for a home opens none.
    #[must_use]
    pub const fn home(mut self, node: NodeId) -> Self {
        self.home = Some(node);
        self
    }

    /// The mode.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The nodes that are named.
    pub const fn nodes(&self) -> &NodeMask {
        &self.nodes
    }

    pub(super) const fn node_numbering(&self) -> Numbering {
        self.numbering
    }

    pub(super) const fn home_node(&self) -> Option<NodeId> {
        self.home
    }
}
