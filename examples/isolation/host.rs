//! The machine under test: the real registry, driven through its public interface, sound or with one door left open.

use pnode::core::policy::{PolicyError, Target, Wish};
use pnode::core::{
    Distances, Frame, FrameError, FrameRange, FrameSource, FrameZone, FreeError, Grant, MemoryClass, Mems,
    MigrateType, NodeHandle, Nodes, Order, Owner, PageOrigin, Pfn, Placement, Policy, Private, Request,
    Storage, WordZone,
};

use crate::doors::Door;
use crate::world::{Ask, Bits, FRAMES, Fault, Kind, NODES, Only, Right, STRIDE, Setting, Step, Table, id};

/// A zone as the registry sees it.
pub(crate) struct Memory<'z> {
    zones: &'z [WordZone],
    own: usize,
    door: Door,
}

impl FrameSource for Memory<'_> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        let own = self.zones[self.own].alloc(order, migrate);
        if self.door == Door::NeighboursFrames {
            return own.or_else(|_| self.zones[(self.own + 1) % NODES].alloc(order, migrate));
        }
        own
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.zones[zone_of(pfn)].free(pfn, order)
    }
}

impl FrameZone for Memory<'_> {
    fn span(&self) -> FrameRange {
        self.zones[self.own].span()
    }
    fn alloc_at(&self, pfn: Pfn, order: Order, migrate: MigrateType) -> Result<(), FrameError> {
        self.zones[self.own].alloc_at(pfn, order, migrate)
    }
    fn free_frames(&self) -> u64 {
        self.zones[self.own].free_frames()
    }
    fn managed_frames(&self) -> u64 {
        self.zones[self.own].managed_frames()
    }
    fn isolate(&self) {
        self.zones[self.own].isolate();
    }
    fn reopen(&self) {
        self.zones[self.own].reopen();
    }
    fn used_frames(&self) -> u64 {
        self.zones[self.own].used_frames()
    }
}

/// The block at the end of a zone: that of order 0 is free as long as any is.
fn last_block(zone: usize, order: Order) -> Pfn {
    Pfn::new(zone as u64 * STRIDE + FRAMES - order.frames())
}

/// The zone that a frame is of, by its number alone.
fn zone_of(pfn: Pfn) -> usize {
    (pfn.get() / STRIDE) as usize
}

enum Handle<'m> {
    Ordinary(NodeHandle<'m, Memory<'m>>),
    Private(Owner<'m, Memory<'m>>),
}

impl<'m> Handle<'m> {
    fn node(&self) -> &NodeHandle<'m, Memory<'m>> {
        match self {
            Self::Ordinary(node) => node,
            Self::Private(owner) => owner,
        }
    }
}

/// A machine with what its drivers and services hold.
pub(crate) struct Host<'m> {
    nodes: &'m Nodes<'m, Memory<'m>>,
    memory: &'m [Memory<'m>],
    door: Door,
    handles: [Option<Handle<'m>>; NODES],
    former: [Option<Owner<'m, Memory<'m>>>; NODES],
    held: [Option<Grant<'m, Memory<'m>>>; NODES],
}

/// Makes a machine without nodes and lends it to `f`.
pub(crate) fn with_host<R>(table: Table, door: Door, f: impl FnOnce(Host<'_>) -> R) -> R {
    let zones: [WordZone; NODES] = std::array::from_fn(|zone| {
        let range = FrameRange::new(Pfn::new(zone as u64 * STRIDE), FRAMES).expect("a short range");
        WordZone::new(range).expect("a few frames")
    });
    let memory: [Memory<'_>; NODES] = std::array::from_fn(|own| Memory { zones: &zones, own, door });
    let distances = match &table {
        Some(table) => Distances::from_table(NODES, table),
        None => Distances::uniform(NODES),
    };
    let mut storage = Storage::<Memory<'_>, NODES, NODES>::new();
    let nodes = Nodes::new(storage.slots(), distances.expect("a sound table")).expect("slots that fit");
    f(Host {
        nodes: &nodes,
        memory: &memory,
        door,
        handles: Default::default(),
        former: Default::default(),
        held: Default::default(),
    })
}

impl<'m> Host<'m> {
    /// Makes `step`; whether the registry accepted it.
    pub(crate) fn step(&mut self, step: Step) -> bool {
        let span = |zone: usize| self.memory[zone].span();
        let node = |node: usize| self.handles[node].as_ref().map(Handle::node);
        match step {
            Step::Register { node, kind } => {
                let handle = match kind {
                    Kind::Private(doors) if self.door != Door::DriverForgetsPrivate => self
                        .nodes
                        .register(id(node), Private::class(MemoryClass::FAR), doors)
                        .map(Handle::Private),
                    _ => self.nodes.ordinary(id(node), MemoryClass::DRAM).map(Handle::Ordinary),
                };
                handle.map(|handle| self.handles[node] = Some(handle)).is_ok()
            }
            Step::Online { node: on, zone, keeps } => {
                node(on).is_some_and(|node| node.online_with(&self.memory[zone], keeps.watermarks()).is_ok())
            }
            Step::Offline { node: of, zone } => node(of).is_some_and(|node| node.offline(span(zone)).is_ok()),
            Step::Close { node: of, zone } => node(of).is_some_and(|node| node.close(span(zone)).is_ok()),
            Step::Reopen { node: of, zone } => node(of).is_some_and(|node| node.reopen(span(zone)).is_ok()),
            Step::Drain { node: of } => node(of).is_some_and(|node| node.drain().is_ok()),
            Step::Resume { node: of } => node(of).is_some_and(|node| node.resume().is_ok()),
            Step::Unregister { node: of } => {
                let given_up = node(of).is_some_and(|node| node.unregister().is_ok());
                if given_up {
                    self.former[of] = match self.handles[of].take() {
                        Some(Handle::Private(owner)) => Some(owner),
                        _ => None,
                    };
                }
                given_up
            }
            Step::Hold { node } => {
                if self.held[node].is_none() {
                    self.held[node] = self.owner(node).and_then(|owner| owner.grant().ok());
                    self.held[node].is_some()
                } else {
                    false
                }
            }
            Step::LetGo { node } => self.held[node].take().is_some(),
            Step::Use { zone, frames } => {
                let zone = &self.memory[zone].zones[zone];
                (0..frames).all(|_| zone.alloc(Order::ZERO, MigrateType::Movable).is_ok())
            }
            Step::GiveBack { zone } => {
                let zone = &self.memory[zone].zones[zone];
                zone.used_frames() > 0
                    && zone
                        .span()
                        .iter()
                        .take(zone.used_frames() as usize)
                        .all(|pfn| zone.free(pfn, Order::ZERO).is_ok())
            }
        }
    }

    /// Asks, gives the frame back, and says which zone it was of.
    pub(crate) fn ask(&self, ask: &Ask) -> Option<usize> {
        let mask = ask.nodemask();
        let mut request = Request::order(ask.order).depth(ask.depth);
        if let Some(node) = ask.preferred {
            request = request.prefer(id(node));
        }
        if let Some(mask) = &mask {
            request = request.nodemask(mask);
        }
        if ask.only == Only::ThisNode {
            request = request.this_node_only();
        }
        let granted = |grant: &Grant<'m, Memory<'m>>| match ask.at {
            Some(zone) => grant.alloc_at(last_block(zone, ask.order), request).ok(),
            None => grant.alloc(request).ok(),
        };
        let frame = match ask.right {
            Right::Anybody => self.serve_anybody(ask, request),
            Right::Owner(node) => self.owner(node).and_then(|owner| granted(&owner.grant().ok()?)),
            Right::Holder(node) => self.held[node].as_ref().and_then(granted),
            Right::FormerOwner(node) => {
                let owner = match self.door {
                    Door::RightsById => self.former[node].as_ref().and(self.owner(node)),
                    _ => self.former[node].as_ref(),
                };
                owner.and_then(|owner| granted(&owner.grant().ok()?))
            }
            Right::Service(node, reason) => match self.nodes.grant(id(node), reason) {
                Ok(grant) => granted(&grant),
                Err(_) if self.door == Door::ServiceUsesOwnersGrant => self.lend(node, request),
                Err(_) => None,
            },
            Right::Policy(fault) => self.fault(ask, fault),
        }?;
        let zone = zone_of(frame.pfn());
        self.nodes.free(frame).expect("a frame that was just handed out");
        Some(zone)
    }

    /// Sets the policy and faults a page in under it.
    fn fault(&self, ask: &Ask, fault: Fault) -> Option<Frame> {
        let named = |bits: Bits| (0..NODES).filter(move |node| bits >> node & 1 == 1).map(id).collect();
        let mems = match ask.cpuset {
            Some(bits) => Mems::root(self.nodes).ok()?.child(&named(bits)),
            None => Mems::UNRESTRICTED,
        };
        let target = match fault.on {
            Setting::Task => Target::Task,
            Setting::Range => Target::Range(fault.origin),
        };
        let wish = Wish::new(fault.mode, named(ask.mask.unwrap_or(0)));
        let policy = match Policy::new(self.nodes, &wish, target, &mems) {
            Ok(policy) => policy,
            Err(PolicyError::NotConsenting { node }) if self.door == Door::BindIsConsent => {
                return self.lend(node.index(), Request::page());
            }
            Err(_) => return None,
        };
        let placement = Placement::new(fault.origin, id(ask.preferred.unwrap_or(0))).mems(&mems);
        let placement = match (fault.on, fault.origin) {
            (Setting::Task, _) => placement.task(&policy),
            (Setting::Range, PageOrigin::SharedAnonymous) => placement.object(&policy),
            (Setting::Range, _) => placement.range(&policy),
        };
        self.nodes.place(&placement).ok().map(|placed| placed.frame)
    }

    fn serve_anybody(&self, ask: &Ask, request: Request<'_>) -> Option<Frame> {
        let private = |node: &usize| self.owner(*node).is_some();
        if self.door == Door::PreferenceIsConsent {
            let lent = ask.preferred.filter(|node| *node < NODES && private(node));
            if let Some(frame) = lent.and_then(|node| self.lend(node, request)) {
                return Some(frame);
            }
        }
        if let Some(zone) = ask.at {
            let block = last_block(zone, ask.order);
            return self.nodes.alloc_at(block, request).ok().or_else(|| match self.door {
                Door::NumberIsConsent => self
                    .owner(self.nodes.node_of(block)?.index())
                    .and_then(|owner| owner.grant().ok()?.alloc_at(block, Request::order(ask.order)).ok()),
                _ => None,
            });
        }
        self.nodes.alloc(request).ok().or_else(|| {
            let lenders = (0..NODES).filter(private).filter(|node| match self.door {
                Door::SpillsWhenFull => true,
                Door::MaskIsConsent => ask.mask.is_some_and(|bits| bits >> node & 1 == 1),
                _ => false,
            });
            lenders.into_iter().find_map(|node| self.lend(node, Request::order(ask.order)))
        })
    }

    /// A block by a grant of the owner's, for whoever asks.
    fn lend(&self, node: usize, request: Request<'_>) -> Option<Frame> {
        self.owner(node)?.grant().ok()?.alloc(request).ok()
    }

    fn owner(&self, node: usize) -> Option<&Owner<'m, Memory<'m>>> {
        match &self.handles[node] {
            Some(Handle::Private(owner)) => Some(owner),
            _ => None,
        }
    }
}
