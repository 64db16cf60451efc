//! A small machine for the policy tests: nodes of a few frames, built in one line.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use pnode_core::policy::{Mode, Numbering, PlaceError, Policy, PolicyError, Target, Wish};
use pnode_core::{
    Distances, Features, FrameRange, MemoryClass, Mems, NodeHandle, NodeId, NodeMask, Nodes, Offlined, Owner,
    PageOrigin, Pfn, Placement, Private, Storage, WordZone,
};

pub(crate) type Registry<'m> = Nodes<'m, WordZone>;

/// Nodes of the worlds: `A` and `B` are ordinary, `C` and `D` private in most of them.
pub(crate) const A: u16 = 0;
pub(crate) const B: u16 = 1;
pub(crate) const C: u16 = 2;
pub(crate) const D: u16 = 3;

/// How many node ids a world has.
pub(crate) const IDS: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Absent,
    Ordinary,
    Private(Features),
}

pub(crate) const OPEN: Kind = Kind::Private(Features::USER_NUMA);
pub(crate) const CLOSED: Kind = Kind::Private(Features::NONE);

/// Who registered a node.
enum Holder<'m> {
    Ordinary(NodeHandle<'m, WordZone>),
    Private(Owner<'m, WordZone>),
}

pub(crate) struct World<'m> {
    pub(crate) nodes: &'m Registry<'m>,
    zones: &'m [WordZone],
    holders: Vec<Option<Holder<'m>>>,
}

pub(crate) fn id(number: u16) -> NodeId {
    NodeId::new(number).unwrap()
}

pub(crate) fn mask(numbers: &[u16]) -> NodeMask {
    numbers.iter().copied().map(id).collect()
}

pub(crate) fn numbers(mask: &NodeMask) -> Vec<u16> {
    mask.iter().map(NodeId::get).collect()
}

/// The zone of each node id, of `frames` frames.
pub(crate) fn zones(frames: u64) -> Vec<WordZone> {
    let zone = |number| WordZone::new(FrameRange::new(Pfn::new(number * 64), frames).unwrap()).unwrap();
    (0..IDS as u64).map(zone).collect()
}

impl World<'static> {
    /// Nodes of `kinds`, `frames` frames each, equally far from one another.
    pub(crate) fn new(kinds: &[Kind], frames: u64) -> Self {
        Self::with_distances(kinds, frames, Distances::uniform(IDS).unwrap())
    }

    /// The memory is leaked: a world lives as long as its test.
    pub(crate) fn with_distances(kinds: &[Kind], frames: u64, distances: Distances<'static>) -> Self {
        let storage = Box::leak(Box::new(Storage::<WordZone, IDS, IDS>::new()));
        let nodes = Box::leak(Box::new(Nodes::new(storage.slots(), distances).unwrap()));
        Self::on(nodes, zones(frames).leak(), kinds)
    }

    /// Two ordinary nodes A and B, two private ones C and D of `kind`.
    pub(crate) fn of_two_and_two(kind: Kind, frames: u64) -> Self {
        Self::new(&[Kind::Ordinary, Kind::Ordinary, kind, kind], frames)
    }
}

impl<'m> World<'m> {
    /// Nodes of `kinds`, whose memory is in `zones`, by number.
    pub(crate) fn on(nodes: &'m Registry<'m>, zones: &'m [WordZone], kinds: &[Kind]) -> Self {
        let mut world = Self { nodes, zones, holders: (0..IDS).map(|_| None).collect() };
        for (number, kind) in kinds.iter().enumerate() {
            world.join(number as u16, *kind);
        }
        world
    }

    /// Registers a node and brings its memory online.
    pub(crate) fn join(&mut self, number: u16, kind: Kind) {
        let holder = match kind {
            Kind::Absent => return,
            Kind::Ordinary => Holder::Ordinary(self.nodes.ordinary(id(number), MemoryClass::DRAM).unwrap()),
            Kind::Private(features) => Holder::Private(
                self.nodes.register(id(number), Private::class(MemoryClass::FAR), features).unwrap(),
            ),
        };
        holder.handle().online(&self.zones[usize::from(number)]).unwrap();
        self.holders[usize::from(number)] = Some(holder);
    }

    pub(crate) fn handle(&self, number: u16) -> &NodeHandle<'m, WordZone> {
        self.holders[usize::from(number)].as_ref().unwrap().handle()
    }

    pub(crate) fn owner(&self, number: u16) -> &Owner<'m, WordZone> {
        match self.holders[usize::from(number)].as_ref().unwrap() {
            Holder::Private(owner) => owner,
            Holder::Ordinary(_) => panic!("node {number} is ordinary"),
        }
    }

    /// Takes a node's memory offline and gives the node up.
    pub(crate) fn leave(&mut self, number: u16) {
        let holder = self.holders[usize::from(number)].take().unwrap();
        let handle = holder.handle();
        let mut ranges = Vec::new();
        handle.ranges(|range| ranges.push(range));
        for range in ranges {
            handle.close(range).unwrap();
            assert_eq!(handle.offline(range).unwrap(), Offlined::WasTheLast);
        }
        handle.unregister().unwrap();
    }

    pub(crate) fn is_there(&self, number: u16) -> bool {
        self.holders[usize::from(number)].is_some()
    }

    pub(crate) fn mems(&self) -> Mems {
        Mems::root(self.nodes).unwrap()
    }

    pub(crate) fn set(&self, mode: Mode, named: &[u16]) -> Result<Policy, PolicyError> {
        self.wish(&Wish::new(mode, mask(named)))
    }

    pub(crate) fn wish(&self, wish: &Wish) -> Result<Policy, PolicyError> {
        Policy::new(self.nodes, wish, Target::Range(PageOrigin::PrivateAnonymous), &self.mems())
    }

    pub(crate) fn bind(&self, named: &[u16]) -> Policy {
        self.set(Mode::Bind, named).unwrap()
    }

    pub(crate) fn bind_static(&self, named: &[u16]) -> Policy {
        self.wish(&Wish::new(Mode::Bind, mask(named)).numbering(Numbering::Static)).unwrap()
    }

    /// Where `placement` takes frames until it fails, and how it fails. All frames are given back.
    pub(crate) fn exhaust(&self, placement: &Placement<'_>) -> (Vec<u16>, PlaceError) {
        let mut taken = Vec::new();
        let error = loop {
            match self.nodes.place(placement) {
                Ok(placed) => {
                    assert_eq!(placed.report.actual(), placed.frame.node());
                    taken.push(placed.frame);
                }
                Err(error) => break error,
            }
        };
        let order = taken.iter().map(|frame| frame.node().get()).collect();
        taken.into_iter().for_each(|frame| self.nodes.free(frame).unwrap());
        (order, error)
    }

    /// As [`World::exhaust`] for private anonymous memory under `policy`, from a CPU of node `cpu`.
    pub(crate) fn exhaust_bound(&self, policy: &Policy, cpu: u16) -> (Vec<u16>, PlaceError) {
        self.exhaust(&Placement::new(PageOrigin::PrivateAnonymous, id(cpu)).range(policy))
    }

    pub(crate) fn used(&self, number: u16) -> u64 {
        self.handle(number).used_frames()
    }
}

impl<'m> Holder<'m> {
    fn handle(&self) -> &NodeHandle<'m, WordZone> {
        match self {
            Self::Ordinary(handle) => handle,
            Self::Private(owner) => owner,
        }
    }
}
