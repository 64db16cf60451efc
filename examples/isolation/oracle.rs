//! The rules once more, from first principles and without any of the registry's code: facts in arrays, one `if` a rule.

use pnode::core::request::Depth;
use pnode::core::{Features, Reason};

use crate::wishes;
use crate::world::{Ask, FRAMES, Keeps, Kind, NODES, Only, Right, Step, Table};

#[derive(Clone, Copy, Default)]
struct Node {
    kind: Option<Kind>,
    draining: bool,
    held: bool,
}

#[derive(Clone, Copy)]
struct Zone {
    /// The node it is online on, and the slot it took there.
    on: Option<(usize, usize)>,
    keeps: Keeps,
    closed: bool,
    used: u64,
}

/// What is true of a world.
#[derive(Clone, Copy)]
pub(crate) struct Oracle {
    table: Table,
    nodes: [Node; NODES],
    zones: [Zone; NODES],
}

impl Oracle {
    pub(crate) fn new(table: Table) -> Self {
        let offline = Zone { on: None, keeps: Keeps::Nothing, closed: false, used: 0 };
        Self { table, nodes: Default::default(), zones: [offline; NODES] }
    }

    /// Whether the machine must accept `step` now; if so, it happens.
    pub(crate) fn step(&mut self, step: Step) -> bool {
        let before = *self;
        let registered = |node: usize| before.nodes[node].kind.is_some();
        let zones_of = |node: usize| (0..NODES).filter(move |zone| before.node_of(*zone) == Some(node));
        let accepted = match step {
            Step::Register { node, kind } => {
                let sound = match kind {
                    Kind::Ordinary => true,
                    Kind::Private(doors) => {
                        let has = |door| doors.contains(door);
                        let fenced = has(Features::WRITE_FENCE);
                        (!has(Features::DEMOTION) || has(Features::RECLAIM))
                            && !(fenced && (has(Features::USER_NUMA) || has(Features::PIN)))
                    }
                };
                sound && !registered(node)
            }
            Step::Online { node, zone, .. } => {
                registered(node) && !before.nodes[node].draining && before.zones[zone].on.is_none()
            }
            Step::Offline { node, zone } => {
                before.node_of(zone) == Some(node) && before.zones[zone].used == 0
            }
            Step::Close { node, zone } => before.node_of(zone) == Some(node),
            Step::Reopen { node, zone } => before.node_of(zone) == Some(node) && !before.nodes[node].draining,
            Step::Drain { node } | Step::Resume { node } => registered(node),
            Step::Unregister { node } => {
                registered(node) && zones_of(node).next().is_none() && !before.nodes[node].held
            }
            Step::Hold { node } => {
                matches!(before.nodes[node].kind, Some(Kind::Private(_)))
                    && !before.nodes[node].draining
                    && !before.nodes[node].held
            }
            Step::LetGo { node } => before.nodes[node].held,
            Step::Use { zone, .. } => !before.zones[zone].closed && before.zones[zone].used == 0,
            Step::GiveBack { zone } => before.zones[zone].used > 0,
        };
        if !accepted {
            return false;
        }
        match step {
            Step::Register { node, kind } => self.nodes[node].kind = Some(kind),
            Step::Online { node, zone, keeps } => {
                let taken = |slot| before.zones.iter().any(|zone| zone.on.is_some_and(|on| on.1 == slot));
                let slot = (0..NODES).find(|slot| !taken(*slot)).unwrap_or(NODES);
                let used = before.zones[zone].used;
                self.zones[zone] = Zone { on: Some((node, slot)), keeps, closed: false, used };
            }
            Step::Offline { zone, .. } => {
                self.zones[zone].on = None;
                self.zones[zone].closed = true;
            }
            Step::Close { zone, .. } => self.zones[zone].closed = true,
            Step::Reopen { zone, .. } => self.zones[zone].closed = false,
            Step::Drain { node } => {
                self.nodes[node].draining = true;
                zones_of(node).for_each(|zone| self.zones[zone].closed = true);
            }
            Step::Resume { node } => {
                self.nodes[node].draining = false;
                zones_of(node).for_each(|zone| self.zones[zone].closed = false);
            }
            Step::Unregister { node } => self.nodes[node] = Node::default(),
            Step::Hold { node } => self.nodes[node].held = true,
            Step::LetGo { node } => self.nodes[node].held = false,
            Step::Use { zone, frames } => self.zones[zone].used = frames,
            Step::GiveBack { zone } => self.zones[zone].used = 0,
        }
        true
    }

    /// The zone that must serve `ask`, `None` if it must be refused.
    pub(crate) fn serves(&self, ask: &Ask) -> Option<usize> {
        if let Right::Policy(fault) = ask.right {
            let has_room = |zone: &usize| !self.zones[*zone].closed && self.zones[*zone].used < FRAMES;
            let zones_of = |node| (0..NODES).filter(move |zone| self.node_of(*zone) == Some(node));
            return wishes::order(self, ask, fault)?.into_iter().flat_map(zones_of).find(has_room);
        }
        let reachable = |zone: usize| {
            let node = self.node_of(zone)?;
            if ask.at.is_some_and(|at| at != zone) {
                return None;
            }
            let rank = match ask.right {
                Right::Anybody => {
                    let from = ask.preferred.unwrap_or(0);
                    // A block that is named by its number needs no node to start from.
                    if ask.at.is_none() && from >= NODES
                        || self.is_private(node)
                        || ask.only == Only::ThisNode && node != from
                    {
                        return None;
                    }
                    match ask.at {
                        Some(_) => (0, 0),
                        None => (self.distance(from, node), (node + NODES - from) % NODES),
                    }
                }
                _ => {
                    if !self.entitled(ask, node) || ask.preferred.is_some_and(|from| from != node) {
                        return None;
                    }
                    (0, 0)
                }
            };
            ask.allows(node).then_some((rank, self.zones[zone].on, zone))
        };
        let mut ranked: Vec<_> = (0..NODES).filter_map(reachable).collect();
        ranked.sort_unstable();
        let serving = |depth: Depth| {
            ranked.iter().map(|(.., zone)| *zone).find(|zone| {
                let Zone { keeps, closed, used, .. } = self.zones[*zone];
                // A used zone has its first frame used, so a pair is free only if both frames are.
                let fits = if ask.order.get() == 0 { used < FRAMES } else { used == 0 };
                let kept = keeps.below(depth);
                !closed && fits && (kept == 0 || FRAMES - used >= kept + ask.order.frames())
            })
        };
        serving(Depth::Low).or_else(|| if ask.depth > Depth::Low { serving(ask.depth) } else { None })
    }

    /// Whether the world says that the right by which `ask` asks opens `node`'s memory now.
    pub(crate) fn entitled(&self, ask: &Ask, node: usize) -> bool {
        let Node { kind: Some(Kind::Private(doors)), draining, held } = self.nodes[node] else {
            return false;
        };
        match ask.right {
            Right::Anybody | Right::FormerOwner(_) => false,
            Right::Policy(fault) => wishes::opened(self, ask, fault, node),
            Right::Owner(of) => of == node && !draining,
            Right::Holder(of) => of == node && held,
            Right::Service(of, reason) => {
                let opened = match reason {
                    Reason::Reclaim => doors.contains(Features::RECLAIM),
                    Reason::Demotion => doors.contains(Features::DEMOTION),
                    Reason::Compaction => doors.contains(Features::COMPACTION),
                    Reason::Contig => doors.contains(Features::CONTIG),
                    Reason::UserPolicy | Reason::UserMigrate => doors.contains(Features::USER_NUMA),
                    // The owner's own, and those that work on pages but take no frames.
                    _ => false,
                };
                of == node && opened && !draining
            }
        }
    }

    /// Whether the memory of `zone` is private.
    pub(crate) fn private_zone(&self, zone: usize) -> Option<usize> {
        self.node_of(zone).filter(|node| self.is_private(*node))
    }

    /// The doors of a private node; none for any other.
    pub(crate) fn doors(&self, node: usize) -> Option<Features> {
        match self.nodes[node].kind {
            Some(Kind::Private(doors)) => Some(doors),
            _ => None,
        }
    }

    pub(crate) fn has_memory(&self, node: usize) -> bool {
        (0..NODES).any(|zone| self.node_of(zone) == Some(node))
    }

    /// Whether the node has memory and is not being torn down.
    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.has_memory(node) && !self.nodes[node].draining
    }

    fn is_private(&self, node: usize) -> bool {
        matches!(self.nodes[node].kind, Some(Kind::Private(_)))
    }

    fn node_of(&self, zone: usize) -> Option<usize> {
        self.zones[zone].on.map(|(node, _)| node)
    }

    pub(crate) fn distance(&self, from: usize, to: usize) -> u8 {
        match self.table {
            Some(table) => table[from * NODES + to],
            None if from == to => 10,
            None => 20,
        }
    }
}
