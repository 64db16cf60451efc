//! From policies to a walk: which nodes are asked for a page, in which order. No frame is touched here.

use super::{Mode, Policy};
use crate::addr::Order;
use crate::cpuset::Mems;
use crate::distance::{Distances, REMOTE};
use crate::node::{NodeId, NodeMask, Stamp};
use crate::page::{Decider, PageOrigin, PrivateNodes};
use crate::request::{Contents, Depth};

/// How often each node is taken by weighted interleave: entry n is for node n. Nodes past the end, and nodes with 0,
/// count once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights<'w>(&'w [u8]);

impl<'w> Weights<'w> {
    /// Every node counts once.
    pub const EQUAL: Self = Self(&[]);

    /// The weights in `table`.
    pub const fn new(table: &'w [u8]) -> Self {
        Self(table)
    }

    /// The weight of `node`, at least 1.
    pub fn of(&self, node: NodeId) -> u64 {
        self.0.get(node.index()).map_or(1, |weight| u64::from((*weight).max(1)))
    }
}

/// Everything that decides where one page goes.
///
/// ```
/// # use pnode_core::{Distances, FrameRange, MemoryClass, Mems, NodeId, NodeMask, Nodes, Pfn, Storage, WordZone};
/// use pnode_core::policy::{Mode, Placement, Policy, Step, Target, Wish};
/// use pnode_core::PageOrigin;
///
/// # let mut storage = Storage::<WordZone, 2, 2>::new();
/// # let nodes = Nodes::new(storage.slots(), Distances::uniform(2)?)?;
/// # let zones = [0, 16].map(|pfn| WordZone::new(FrameRange::new(Pfn::new(pfn), 16).unwrap()).unwrap());
/// # for (id, zone) in zones.iter().enumerate() {
/// #     nodes.ordinary(NodeId::new(id as u16)?, MemoryClass::DRAM)?.online(zone)?;
/// # }
/// let far = NodeId::new(1)?;
/// let mems = Mems::root(&nodes)?;
/// let bind = Policy::new(&nodes, &Wish::new(Mode::Bind, NodeMask::of(far)), Target::Task, &mems)?;
/// let placement = Placement::new(PageOrigin::PrivateAnonymous, NodeId::new(0)?).task(&bind).mems(&mems);
/// let plan = placement.plan(nodes.distances());
/// let mut steps = plan.steps(nodes.distances());
/// assert!(matches!(steps.next(), Some(Step::Ordinary { within, .. }) if *within == NodeMask::of(far)));
/// assert!(steps.next().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Placement<'p> {
    pub(super) origin: PageOrigin,
    pub(super) cpu: NodeId,
    task: &'p Policy,
    range: &'p Policy,
    object: &'p Policy,
    mems: &'p Mems,
    weights: Weights<'p>,
    turn: u64,
    pub(super) order: Order,
    pub(super) contents: Contents,
    pub(super) depth: Depth,
}

impl<'p> Placement<'p> {
    /// One page of `origin`, wanted by a CPU of the node `cpu`, without any policy or cpuset.
    pub const fn new(origin: PageOrigin, cpu: NodeId) -> Self {
        Self {
            origin,
            cpu,
            task: &Policy::DEFAULT,
            range: &Policy::DEFAULT,
            object: &Policy::DEFAULT,
            mems: &Mems::UNRESTRICTED,
            weights: Weights::EQUAL,
            turn: 0,
            order: Order::ZERO,
            contents: Contents::Any,
            depth: Depth::Min,
        }
    }

    /// With the policy of the task. In an interrupt there is no task: leave it out.
    #[must_use]
    pub const fn task(mut self, policy: &'p Policy) -> Self {
        self.task = policy;
        self
    }

    /// With the policy of the range of the address space.
    #[must_use]
    pub const fn range(mut self, policy: &'p Policy) -> Self {
        self.range = policy;
        self
    }

    /// With the policy of the range of the shared object.
    #[must_use]
    pub const fn object(mut self, policy: &'p Policy) -> Self {
        self.object = policy;
        self
    }

    /// Within the task's cpuset.
    #[must_use]
    pub const fn mems(mut self, mems: &'p Mems) -> Self {
        self.mems = mems;
        self
    }

    /// With these weights for weighted interleave.
    #[must_use]
    pub const fn weights(mut self, weights: Weights<'p>) -> Self {
        self.weights = weights;
        self
    }

    /// Whose turn it is for interleaving: the page's index in its range, or how often the task has been served.
    #[must_use]
    pub const fn turn(mut self, turn: u64) -> Self {
        self.turn = turn;
        self
    }

    /// A block of `order` instead of one frame.
    #[must_use]
    pub const fn order(mut self, order: Order) -> Self {
        self.order = order;
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

    /// The policy that decides where the page goes, and what becomes of its private nodes.
    pub fn deciding(&self) -> (&'p Policy, PrivateNodes) {
        let rule = self.origin.rule();
        let first = match rule.decider {
            Decider::Range => self.range,
            Decider::Object => self.object,
            Decider::Task => self.task,
        };
        if first.is_default() { (self.task, rule.task_private) } else { (first, rule.decider_private) }
    }

    /// The policy that the user of this mapping set for it. It decides only if the page's origin lets it; where it does
    /// not, fault reports tell.
    pub fn wishing(&self) -> &'p Policy {
        let object = match self.origin {
            PageOrigin::SharedAnonymous => self.object,
            _ => &Policy::DEFAULT,
        };
        [object, self.range].into_iter().find(|policy| !policy.is_default()).unwrap_or(self.task)
    }

    /// The nodes that the user of this mapping wants the page on, `None` if no policy says so.
    pub fn wanted(&self, distances: &Distances<'_>) -> Option<Wanted> {
        let policy = self.wishing();
        let plan = Plan::of(policy, PrivateNodes::Used, self, distances);
        let any = match policy.mode() {
            Mode::Default => return None,
            Mode::Local => NodeMask::of(self.cpu),
            // The policy does not apply here: it stopped, or the cpuset leaves it no node.
            _ if plan.named().is_empty() => return None,
            Mode::Bind | Mode::PreferredMany => plan.named(),
            Mode::Preferred | Mode::Interleave | Mode::WeightedInterleave => NodeMask::of(plan.from),
        };
        let first = plan.first.or_else(|| nearest(distances, plan.from, &any))?;
        Some(Wanted { first, any })
    }

    /// Which nodes are asked for the page, in which order.
    pub fn plan(&self, distances: &Distances<'_>) -> Plan {
        let (policy, private) = self.deciding();
        Plan::of(policy, private, self, distances)
    }
}

/// Where a policy wants a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    first: NodeId,
    any: NodeMask,
}

impl Wanted {
    /// The node it asks first.
    pub const fn first(&self) -> NodeId {
        self.first
    }

    /// All nodes that satisfy it.
    pub const fn any(&self) -> &NodeMask {
        &self.any
    }
}

/// What follows when none of a plan's nodes gave a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    /// The ordinary nodes of the cpuset.
    Always,
    /// A shortage if a node was full; the ordinary nodes of the cpuset if all of them have left.
    IfAllLeft,
}

/// Which nodes are asked for a page, in which order: a value worked out from policies, cpuset and distances alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Distances are seen from here.
    pub(super) from: NodeId,
    /// The private node that is asked before ordinary ones.
    first: Option<NodeId>,
    /// The nodes of the policy that are asked; empty if it does not apply.
    ordinary: NodeMask,
    private: NodeMask,
    pub(super) spare: Spare,
    /// The ordinary nodes of the cpuset.
    pub(super) mems: NodeMask,
    pub(super) stamp: Stamp,
}

/// One step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'p> {
    /// Ordinary nodes within a mask, nearest to a node first: one ordinary request.
    Ordinary {
        /// The node that distances are seen from.
        prefer: NodeId,
        /// The nodes.
        within: &'p NodeMask,
    },
    /// One private node, which takes a grant for [`Reason::UserPolicy`](crate::Reason::UserPolicy).
    Private {
        /// The node.
        node: NodeId,
    },
}

impl Plan {
    fn of(
        policy: &Policy,
        private: PrivateNodes,
        placement: &Placement<'_>,
        distances: &Distances<'_>,
    ) -> Self {
        let Placement { cpu, mems, weights, turn, .. } = *placement;
        let ordinary = policy.ordinary().intersection(mems.ordinary());
        let private = match private {
            PrivateNodes::Used => policy.private().intersection(mems.private()),
            PrivateNodes::LeftOut => NodeMask::EMPTY,
        };
        let anywhere = Self {
            from: cpu,
            first: None,
            ordinary: NodeMask::EMPTY,
            private: NodeMask::EMPTY,
            spare: Spare::Always,
            mems: *mems.ordinary(),
            stamp: policy.stamp(),
        };
        let start = policy.home().unwrap_or(cpu);
        match policy.mode() {
            Mode::Default | Mode::Local => anywhere,
            // The cpuset, the page's origin or the nodes' departure left nothing: the policy does not apply.
            _ if ordinary.is_empty() && private.is_empty() => anywhere,
            Mode::Bind => {
                let first = if private.contains(start) {
                    Some(start)
                } else if ordinary.is_empty() {
                    nearest(distances, start, &private)
                } else {
                    None
                };
                Self { from: start, first, ordinary, private, spare: Spare::IfAllLeft, ..anywhere }
            }
            Mode::PreferredMany => Self { from: start, ordinary, ..anywhere },
            // One node of the policy, else the nearest to it.
            mode @ (Mode::Preferred | Mode::Interleave | Mode::WeightedInterleave) => {
                let node = match mode {
                    Mode::Preferred => ordinary.first(),
                    Mode::Interleave => chosen(&ordinary, Weights::EQUAL, turn),
                    _ => chosen(&ordinary, weights, turn),
                };
                let from = node.unwrap_or(cpu);
                Self { from, ordinary: NodeMask::of(from), ..anywhere }
            }
        }
    }

    /// The steps, while the nodes of the plan are there.
    ///
    /// A bind's start comes first if it is private (the home node, the faulting CPU's, or the nearest if the bind names
    /// no ordinary node); then its ordinary nodes; then its other private nodes, nearest first. Each private node is
    /// asked by its own grant: none serves for another.
    pub fn steps<'p>(&'p self, distances: &'p Distances<'_>) -> impl Iterator<Item = Step<'p>> + 'p {
        let ordinary = |within: &'p NodeMask| {
            (!within.is_empty()).then_some(Step::Ordinary { prefer: self.from, within })
        };
        let others = match self.first {
            Some(first) => self.private.without(first),
            None => self.private,
        };
        let others = core::iter::successors(nearest(distances, self.from, &others).map(|n| (n, others)), {
            move |(last, left)| {
                let left = left.without(*last);
                nearest(distances, self.from, &left).map(|node| (node, left))
            }
        });
        let spare = match self.spare {
            Spare::Always => ordinary(&self.mems),
            Spare::IfAllLeft => None,
        };
        self.first
            .map(|node| Step::Private { node })
            .into_iter()
            .chain(ordinary(&self.ordinary))
            .chain(others.map(|(node, _)| Step::Private { node }))
            .chain(spare)
    }

    /// The nodes whose memory could end a shortage of this plan: the scope in which a victim is looked for.
    pub fn scope(&self) -> NodeMask {
        match self.spare {
            Spare::Always => self.named().union(&self.mems),
            Spare::IfAllLeft => self.named(),
        }
    }

    /// The nodes of the policy that are asked; empty if it does not apply.
    fn named(&self) -> NodeMask {
        self.ordinary.union(&self.private)
    }

    /// The node of the policy that is asked first.
    pub(super) fn asked_first(&self, distances: &Distances<'_>) -> NodeId {
        self.first.or_else(|| nearest(distances, self.from, &self.ordinary)).unwrap_or(self.from)
    }
}

/// The node of `set` that is nearest to `from`, the lowest of those.
fn nearest(distances: &Distances<'_>, from: NodeId, set: &NodeMask) -> Option<NodeId> {
    set.iter().min_by_key(|node| distances.between(from, *node).unwrap_or(REMOTE))
}

/// The node of `set` whose turn it is.
fn chosen(set: &NodeMask, weights: Weights<'_>, turn: u64) -> Option<NodeId> {
    let total = set.iter().map(|node| weights.of(node)).sum::<u64>();
    let mut left = turn.checked_rem(total)?;
    set.iter().find(|node| {
        let weight = weights.of(*node);
        let found = left < weight;
        left = left.saturating_sub(weight);
        found
    })
}
