//! What a world is made of: the steps that bring it about, and who asks for memory in it.

use std::fmt;

use pnode::core::policy::Mode;
use pnode::core::request::Depth;
use pnode::core::{Features, NodeId, NodeMask, Order, PageOrigin, Reason, Watermarks};

/// How many node ids a world has. Each has a zone of [`FRAMES`] frames that may come online on any of them.
pub(crate) const NODES: usize = 3;
/// How many frames a zone has.
pub(crate) const FRAMES: u64 = 2;
/// Zone `z` starts at frame `z * STRIDE`, so a frame's number tells whose it is, whatever the registry says.
pub(crate) const STRIDE: u64 = 64;

/// The distances of all nodes from all, row by row; `None` if they are equal.
pub(crate) type Table = Option<[u8; NODES * NODES]>;

/// The distance tables that are tried.
pub(crate) const TABLES: [Table; 2] = [None, Some([10, 30, 20, 20, 10, 30, 40, 20, 10])];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ordinary,
    Private(Features),
}

/// A step in the life of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Register {
        node: usize,
        kind: Kind,
    },
    Online {
        node: usize,
        zone: usize,
        keeps: Keeps,
    },
    Offline {
        node: usize,
        zone: usize,
    },
    Close {
        node: usize,
        zone: usize,
    },
    Reopen {
        node: usize,
        zone: usize,
    },
    Drain {
        node: usize,
    },
    Resume {
        node: usize,
    },
    Unregister {
        node: usize,
    },
    /// The owner of the node takes a grant and keeps it.
    Hold {
        node: usize,
    },
    LetGo {
        node: usize,
    },
    /// Somebody has this many frames of the zone.
    Use {
        zone: usize,
        frames: u64,
    },
    GiveBack {
        zone: usize,
    },
}

impl Step {
    /// The same step with less to it, if there is less.
    pub(crate) fn plainer(self) -> Option<Self> {
        match self {
            Self::Register { node, kind: Kind::Private(doors) } if doors != Features::NONE => {
                Some(Self::Register { node, kind: Kind::Private(Features::NONE) })
            }
            Self::Online { node, zone, keeps: Keeps::Reserve } => {
                Some(Self::Online { node, zone, keeps: Keeps::Nothing })
            }
            Self::Use { zone, frames: 2.. } => Some(Self::Use { zone, frames: 1 }),
            _ => None,
        }
    }
}

/// What a zone keeps back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    Nothing,
    /// One frame below min, two below low.
    Reserve,
}

impl Keeps {
    pub(crate) fn watermarks(self) -> Watermarks {
        match self {
            Self::Nothing => Watermarks::NONE,
            Self::Reserve => Watermarks::new(1, 2, 2).expect("they rise"),
        }
    }

    /// How many frames a walk of this depth must leave.
    pub(crate) fn below(self, depth: Depth) -> u64 {
        match (self, depth) {
            (Self::Nothing, _) | (_, Depth::Emergency) => 0,
            (Self::Reserve, Depth::Min) => 1,
            (Self::Reserve, Depth::Low) => 2,
        }
    }
}

/// By what right somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// None: an ordinary request.
    Anybody,
    /// The owner of the node mints a grant.
    Owner(usize),
    /// As [`Right::Owner`], but of an earlier life of the node's id.
    FormerOwner(usize),
    /// By the grant that a step took and kept.
    Holder(usize),
    /// A service asks the registry for a grant.
    Service(usize, Reason),
    /// None but a policy, under which a page is faulted in: the mask is what it names, the preference is the CPU's node.
    Policy(Fault),
}

/// A hard fault under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) mode: Mode,
    pub(crate) origin: PageOrigin,
    pub(crate) on: Setting,
}

/// What a policy is set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Task,
    /// The range that is faulted on; for shared memory, that of the object.
    Range,
}

/// A set of nodes by bits.
pub(crate) type Bits = u8;

/// Somebody asks for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) right: Right,
    pub(crate) preferred: Option<usize>,
    pub(crate) mask: Option<Bits>,
    /// What the asker's cpuset allows; `None` where cpusets are off.
    pub(crate) cpuset: Option<Bits>,
    pub(crate) only: Only,
    pub(crate) depth: Depth,
    pub(crate) order: Order,
    /// The zone whose last block is asked for by its number; `None` if any block will do.
    pub(crate) at: Option<usize>,
}

/// Whether the preferred node is the only one that will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Only {
    Nearest,
    ThisNode,
}

impl Ask {
    /// The plainest request by `right`.
    pub(crate) fn plain(right: Right) -> Self {
        Self {
            right,
            preferred: None,
            mask: None,
            cpuset: None,
            only: Only::Nearest,
            depth: Depth::Min,
            order: Order::ZERO,
            at: None,
        }
    }

    /// Whether mask and cpuset both allow `node`.
    pub(crate) fn allows(&self, node: usize) -> bool {
        [self.mask, self.cpuset].into_iter().flatten().all(|bits| bits >> node & 1 == 1)
    }

    /// The nodemask of the request: mask and cpuset together.
    pub(crate) fn nodemask(&self) -> Option<NodeMask> {
        (self.mask.is_some() || self.cpuset.is_some())
            .then(|| (0..NODES).filter(|node| self.allows(*node)).map(id).collect())
    }
}

/// A world and one request in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) table: Table,
    pub(crate) steps: Vec<Step>,
    pub(crate) ask: Ask,
}

pub(crate) fn id(node: usize) -> NodeId {
    u16::try_from(node).ok().and_then(|node| NodeId::new(node).ok()).expect("a small number")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { node, kind: Kind::Ordinary } => {
                write!(f, "node {node} is registered as ordinary")
            }
            Self::Register { node, kind: Kind::Private(doors) } => {
                write!(f, "node {node} is registered as private, open to {doors}")
            }
            Self::Online { node, zone, keeps } => {
                write!(f, "zone {zone} comes online on node {node}")?;
                if *keeps == Keeps::Reserve { f.write_str(" and keeps a reserve") } else { Ok(()) }
            }
            Self::Offline { node, zone } => write!(f, "zone {zone} goes offline from node {node}"),
            Self::Close { node, zone } => write!(f, "zone {zone} of node {node} is closed"),
            Self::Reopen { node, zone } => write!(f, "zone {zone} of node {node} is opened again"),
            Self::Drain { node } => write!(f, "node {node} is drained"),
            Self::Resume { node } => write!(f, "node {node} is resumed"),
            Self::Unregister { node } => write!(f, "node {node} is given up"),
            Self::Hold { node } => write!(f, "the owner of node {node} takes a grant and keeps it"),
            Self::LetGo { node } => write!(f, "the owner of node {node} lets go of that grant"),
            Self::Use { zone, frames } => write!(f, "{frames} of {FRAMES} frames of zone {zone} are used"),
            Self::GiveBack { zone } => write!(f, "the used frames of zone {zone} are free again"),
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.right {
            Right::Anybody => f.write_str("somebody asks for")?,
            Right::Owner(node) => write!(f, "the owner of node {node} asks for")?,
            Right::FormerOwner(node) => write!(f, "a former owner of node {node} asks for")?,
            Right::Holder(node) => write!(f, "the holder of a grant on node {node} asks for")?,
            Right::Service(node, reason) => write!(f, "a service asks, for {reason} on node {node}, for")?,
            Right::Policy(Fault { mode, origin, on }) => {
                let on = match on {
                    Setting::Task => "the task",
                    Setting::Range => "the range",
                };
                write!(f, "a fault on {origin}, under {mode} of {on}, asks for")?;
            }
        }
        write!(f, " {} frame(s)", self.order.frames())?;
        if let Some(zone) = self.at {
            write!(f, ", the last of zone {zone}")?;
        }
        if let Some(node) = self.preferred {
            write!(f, ", best from node {node}")?;
        }
        if self.only == Only::ThisNode {
            f.write_str(", only from that node")?;
        }
        for (name, bits) in [("nodemask", self.mask), ("cpuset", self.cpuset)] {
            if let Some(bits) = bits {
                let nodes: NodeMask = (0..NODES).filter(|node| bits >> node & 1 == 1).map(id).collect();
                write!(f, ", {name} {nodes}")?;
            }
        }
        match self.depth {
            Depth::Low => f.write_str(", above the low watermark"),
            Depth::Min => Ok(()),
            Depth::Emergency => f.write_str(", to the last frame"),
        }
    }
}
