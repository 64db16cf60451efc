//! What can be done to policies and their world, done to the registry and by the rules.

use pnode_core::policy::{Mode, Numbering, PlaceError, PolicyError, Target, Weights, Wish};
use pnode_core::{Distances, Mems, NodeMask, Nodes, Order, PageOrigin, Placement, Policy, Storage, WordZone};

use super::policy_world::{IDS, Kind, World, id, mask, numbers, zones};
use super::rules::{Group, Model, Rule, Set, Who};

/// One policy on both sides.
#[derive(Clone, Debug)]
struct Pair {
    real: Policy,
    model: Rule,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Leave(u16),
    Join(u16, Kind),
    Drain(u16),
    Resume(u16),
    Group(Set),
    /// A new cpuset that all policies follow, as a host does it.
    Follow(Set),
    Set {
        slot: usize,
        mode: Mode,
        numbering: Numbering,
        named: Set,
        home: Option<u16>,
        cache: bool,
    },
    Rebind(usize),
}
fn refusal(error: PolicyError) -> &'static str {
    match error {
        PolicyError::TakesNoNodes { .. } => "takes no nodes",
        PolicyError::NoNodes { .. } => "no nodes",
        PolicyError::TakesNoHome { .. } => "home",
        PolicyError::NotConsenting { .. } => "consent",
        PolicyError::PageCache { .. } => "page cache",
        PolicyError::NothingLeft { .. } => "nothing left",
        _ => "another reason",
    }
}

/// A world, and what is done in it. After each step every kind of page is placed from a CPU, at a turn of its interleaving.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// The nodes at the start. Node 0 is ordinary, whatever is said here.
    pub(crate) kinds: Vec<Kind>,
    /// [`IDS`] times [`IDS`] distances.
    pub(crate) table: Vec<u8>,
    /// How many frames a node has.
    pub(crate) frames: u64,
    pub(crate) weights: Vec<u8>,
    /// Each with the CPU's node and the turn.
    pub(crate) steps: Vec<(Step, u16, u64)>,
}

impl History {
    /// Lives it in the registry and by the rules.
    ///
    /// # Panics
    ///
    /// At the first step after which the two differ.
    pub(crate) fn check(&self) {
        let mut storage = Storage::<WordZone, IDS, IDS>::new();
        let distances = Distances::from_table(IDS, &self.table).unwrap();
        let nodes = Nodes::new(storage.slots(), distances).unwrap();
        let zones = zones(self.frames);
        let mut kinds = self.kinds.clone();
        kinds[0] = Kind::Ordinary;
        let mut both = Both::new(World::on(&nodes, &zones, &kinds), &kinds, self.table.clone());
        for (step, cpu, turn) in &self.steps {
            both.apply(step);
            both.compare(*cpu, *turn, &self.weights, self.frames);
        }
    }
}

struct Both<'m> {
    world: World<'m>,
    model: Model,
    mems: Mems,
    group: Group,
    policies: Vec<Pair>,
}

impl<'m> Both<'m> {
    fn new(world: World<'m>, kinds: &[Kind], distances: Vec<u8>) -> Self {
        let mut model = Model { distances, ..Model::default() };
        kinds.iter().enumerate().for_each(|(number, kind)| model.join(number as u16, *kind));
        let policies = vec![Pair { real: Policy::DEFAULT, model: Rule::none() }; 3];
        Self { mems: Mems::root(world.nodes).unwrap(), group: model.root(), world, model, policies }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            // Node 0 is ordinary and stays: a machine without ordinary memory has no cpuset.
            Step::Leave(0) | Step::Drain(0) => {}
            Step::Leave(number) if self.world.is_there(*number) => {
                self.world.leave(*number);
                self.model.nodes.remove(number);
            }
            Step::Join(number, kind) if !self.world.is_there(*number) => {
                self.world.join(*number, *kind);
                self.model.join(*number, *kind);
            }
            Step::Drain(number) | Step::Resume(number) => {
                let draining = matches!(step, Step::Drain(_));
                let Some(life) = self.model.nodes.get_mut(number) else { return };
                life.draining = draining;
                let handle = self.world.handle(*number);
                if draining { handle.drain() } else { handle.resume() }.unwrap();
            }
            Step::Leave(_) | Step::Join(..) => {}
            Step::Group(asked) => {
                let named: Vec<u16> = asked.iter().copied().collect();
                self.mems = Mems::root(self.world.nodes).unwrap().child(&mask(&named));
                self.group = self.model.child(&self.model.root(), asked);
                assert_eq!(
                    numbers(self.mems.ordinary()),
                    self.group.ordinary.iter().copied().collect::<Vec<_>>()
                );
                assert_eq!(
                    numbers(self.mems.private()),
                    self.group.private.iter().copied().collect::<Vec<_>>()
                );
            }
            Step::Follow(asked) => {
                self.apply(&Step::Group(asked.clone()));
                (0..self.policies.len()).for_each(|slot| self.apply(&Step::Rebind(slot)));
            }
            Step::Set { slot, mode, numbering, named, home, cache } => {
                let nodes: NodeMask = named.iter().copied().map(id).collect();
                let mut wish = Wish::new(*mode, nodes).numbering(*numbering);
                if let Some(home) = home {
                    wish = wish.home(id(*home));
                }
                let target = match (slot, cache) {
                    (0, _) => Target::Task,
                    (_, true) => Target::Range(PageOrigin::PageCache),
                    (_, false) => Target::Range(PageOrigin::PrivateAnonymous),
                };
                let real = Policy::new(self.world.nodes, &wish, target, &self.mems);
                let model = self.model.set(*mode, *numbering, named, *home, &self.group, *cache);
                match (real, model) {
                    (Ok(real), Ok(model)) => self.policies[*slot] = Pair { real, model },
                    (Err(error), Err(reason)) => assert_eq!(refusal(error), reason, "{step:?}"),
                    (real, model) => panic!("{step:?}: {real:?}, and the model says {model:?}"),
                }
            }
            Step::Rebind(slot) => {
                let Pair { real, model } = &mut self.policies[*slot];
                real.rebind(self.world.nodes, &self.mems);
                self.model.rebind(model, &self.group);
            }
        }
    }

    fn compare(&self, cpu: u16, turn: u64, weights: &[u8], frames: u64) {
        for Pair { real, model } in &self.policies {
            let (ordinary, private): (Vec<_>, Vec<_>) =
                model.members.iter().partition(|(_, ordinary)| *ordinary);
            let ids = |members: Vec<(u16, bool)>| members.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
            assert_eq!((numbers(real.ordinary()), numbers(real.private())), (ids(ordinary), ids(private)));
        }
        let [task, range, object] = &self.policies[..] else { unreachable!() };
        for origin in [
            PageOrigin::PrivateAnonymous,
            PageOrigin::SharedAnonymous,
            PageOrigin::PageCache,
            PageOrigin::Unmovable,
        ] {
            let placement = Placement::new(origin, id(cpu))
                .task(&task.real)
                .range(&range.real)
                .object(&object.real)
                .mems(&self.mems)
                .weights(Weights::new(weights))
                .turn(turn);
            let who = Who {
                origin,
                cpu,
                task: task.model.clone(),
                range: range.model.clone(),
                object: object.model.clone(),
                group: self.group.clone(),
                weights: weights.to_vec(),
                turn,
            };
            let (order, bound) = self.model.order(&who);
            // A draining ordinary node has its place in the order and gives nothing.
            let serving = order.iter().filter(|n| !self.model.nodes[n].draining);
            let expected: Vec<u16> = serving.flat_map(|n| std::iter::repeat_n(*n, frames as usize)).collect();
            let order = Order::ZERO;
            let error = match bound {
                Some(node) => PlaceError::BoundNodesFull { node: id(node), order },
                None => PlaceError::NoMemory { order },
            };
            assert_eq!(
                self.world.exhaust(&placement),
                (expected, error),
                "{origin}, CPU on {cpu}, turn {turn}"
            );
        }
    }
}
