//! The policy rules a second time, written naively over sets of numbers, against random worlds and histories.
//!
//! The model knows nodes by life: a number that is registered again is another node. It lists the nodes that a page may
//! come from, in order, and serves frame after frame; the registry is exhausted page by page and must agree at each.
#![allow(missing_docs)]

mod policy_world;

use std::collections::{BTreeMap, BTreeSet};

use pnode_core::policy::{Mode, Numbering, PlaceError, PolicyError, Target, Weights, Wish};
use pnode_core::{Distances, Features, Mems, NodeMask, Order, PageOrigin, Placement, Policy};
use policy_world::{IDS, Kind, World, id, mask, numbers};
use proptest::prelude::*;

type Set = BTreeSet<u16>;

/// What a model knows of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    /// How many registrations there had been before it.
    born: usize,
    kind: Kind,
    draining: bool,
}

impl Life {
    fn is_ordinary(self) -> bool {
        self.kind == Kind::Ordinary
    }
    fn opened_user(self) -> bool {
        matches!(self.kind, Kind::Private(features) if features.contains(Features::USER_NUMA))
    }
}

#[derive(Clone, Debug, Default)]
struct Model {
    nodes: BTreeMap<u16, Life>,
    births: usize,
    distances: Vec<u8>,
}

/// A cpuset: ordinary and private nodes.
#[derive(Clone, Debug)]
struct Group {
    ordinary: Set,
    private: Set,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    mode: Mode,
    numbering: Numbering,
    home: Option<u16>,
    /// (number, whether it was ordinary) of each node.
    members: BTreeSet<(u16, bool)>,
    named: Set,
    counted: Set,
    births: usize,
}

impl Rule {
    fn none() -> Self {
        Self {
            mode: Mode::Default,
            numbering: Numbering::Positional,
            home: None,
            members: BTreeSet::new(),
            named: Set::new(),
            counted: Set::new(),
            births: 0,
        }
    }
}

impl Model {
    fn join(&mut self, number: u16, kind: Kind) {
        if kind != Kind::Absent {
            self.nodes.insert(number, Life { born: self.births, kind, draining: false });
            self.births += 1;
        }
    }

    /// The ordinary nodes with memory.
    fn ordinary(&self) -> Set {
        self.nodes.iter().filter(|(_, life)| life.is_ordinary()).map(|(n, _)| *n).collect()
    }

    fn private(&self) -> Set {
        self.nodes.iter().filter(|(_, life)| !life.is_ordinary()).map(|(n, _)| *n).collect()
    }

    fn root(&self) -> Group {
        Group { ordinary: self.ordinary(), private: self.private() }
    }

    fn child(&self, parent: &Group, asked: &Set) -> Group {
        let own: Set = parent.ordinary.intersection(asked).copied().collect();
        Group {
            ordinary: if own.is_empty() { parent.ordinary.clone() } else { own },
            private: parent.private.intersection(asked).copied().collect(),
        }
    }

    /// What a policy of `mode` that was set after `births` registrations may choose from.
    fn choice(&self, mode: Mode, group: &Group, births: usize) -> Set {
        let may = |number: u16, life: Life| {
            if life.draining {
                false
            } else if life.is_ordinary() {
                group.ordinary.contains(&number)
            } else {
                mode == Mode::Bind
                    && life.opened_user()
                    && life.born < births
                    && group.private.contains(&number)
            }
        };
        self.nodes.iter().filter(|(n, life)| may(**n, **life)).map(|(n, _)| *n).collect()
    }

    fn tagged(&self, numbers: impl IntoIterator<Item = u16>) -> BTreeSet<(u16, bool)> {
        numbers.into_iter().map(|n| (n, self.nodes[&n].is_ordinary())).collect()
    }

    fn set(
        &self,
        mode: Mode,
        numbering: Numbering,
        named: &Set,
        home: Option<u16>,
        group: &Group,
        cache: bool,
    ) -> Result<Rule, &'static str> {
        if home.is_some() && !matches!(mode, Mode::Bind | Mode::PreferredMany) {
            return Err("home");
        }
        if matches!(mode, Mode::Default | Mode::Local) {
            return if named.is_empty() { Ok(Rule { mode, ..Rule::none() }) } else { Err("takes no nodes") };
        }
        if named.is_empty() {
            return Err("no nodes");
        }
        let choice = self.choice(mode, group, self.births);
        let chosen: Set = match numbering {
            Numbering::Relative => nth_of(named, &choice),
            _ => named.intersection(&choice).copied().collect(),
        };
        if mode == Mode::Bind {
            let closed = |n: &u16| {
                self.nodes.get(n).is_some_and(|l| !l.is_ordinary() && !l.opened_user() && !l.draining)
                    && group.private.contains(n)
                    && numbering != Numbering::Relative
            };
            let open = |n: &u16| chosen.contains(n) && !self.nodes[n].is_ordinary();
            let all: Set = named.union(&chosen).copied().collect();
            if cache && all.iter().any(|n| closed(n) && named.contains(n) || open(n)) {
                return Err("page cache");
            }
            if named.iter().any(closed) {
                return Err("consent");
            }
        }
        if chosen.is_empty() {
            return Err("nothing left");
        }
        Ok(Rule {
            mode,
            numbering,
            home,
            members: self.tagged(chosen),
            named: named.clone(),
            counted: choice,
            births: self.births,
        })
    }

    fn rebind(&self, rule: &mut Rule, group: &Group) {
        if matches!(rule.mode, Mode::Default | Mode::Local) {
            return;
        }
        let choice = self.choice(rule.mode, group, rule.births);
        let chosen: Set = match rule.numbering {
            Numbering::Static => rule.named.intersection(&choice).copied().collect(),
            Numbering::Relative => nth_of(&rule.named, &choice),
            Numbering::Positional => {
                let there = |n: &u16| self.nodes.get(n).is_some_and(|life| self.speaks_of(rule, *life));
                let counted: Vec<u16> = rule.counted.iter().copied().filter(there).collect();
                let new: Vec<u16> = choice.iter().copied().collect();
                let mut chosen = Set::new();
                for (number, ordinary) in &rule.members {
                    let Some(life) = self.nodes.get(number) else { continue };
                    if !there(number) || life.is_ordinary() != *ordinary {
                        continue;
                    }
                    match counted.iter().position(|n| n == number) {
                        Some(position) if !new.is_empty() => {
                            chosen.insert(new[position % new.len()]);
                        }
                        Some(_) => {}
                        None => {
                            chosen.extend(choice.get(number));
                        }
                    }
                }
                rule.counted = choice.clone();
                chosen
            }
        };
        rule.members = self.tagged(chosen);
    }

    /// Whether a policy can mean this life of a node, whatever its cpuset.
    fn speaks_of(&self, rule: &Rule, life: Life) -> bool {
        !life.draining && (life.is_ordinary() || life.opened_user() && life.born < rule.births)
    }

    fn distance(&self, from: u16, to: u16) -> u8 {
        self.distances[usize::from(from) * IDS + usize::from(to)]
    }

    /// Nearest first; among equals by number, counted round from `from`.
    fn fallback(&self, from: u16, among: &Set) -> Vec<u16> {
        let mut order: Vec<u16> = among.iter().copied().collect();
        order.sort_by_key(|n| (self.distance(from, *n), (*n + IDS as u16 - from) % IDS as u16));
        order
    }

    /// The nodes that may serve, in order; and, for a bind that applies, the node whose shortage it is.
    fn order(&self, who: &Who) -> (Vec<u16>, Option<u16>) {
        let everywhere: Set = self.ordinary().intersection(&who.group.ordinary).copied().collect();
        let (rule, private) = match who.origin {
            PageOrigin::PrivateAnonymous if who.range.mode != Mode::Default => (&who.range, true),
            PageOrigin::PrivateAnonymous => (&who.task, true),
            PageOrigin::SharedAnonymous if who.object.mode != Mode::Default => (&who.object, true),
            _ => (&who.task, false),
        };
        // Members as the policy remembers them, cut by cpuset and origin; whether they still are is a later question.
        let ordinary: Set = rule
            .members
            .iter()
            .filter(|(n, o)| *o && who.group.ordinary.contains(n))
            .map(|(n, _)| *n)
            .collect();
        let private: Set = rule
            .members
            .iter()
            .filter(|(n, o)| private && !*o && who.group.private.contains(n))
            .map(|(n, _)| *n)
            .collect();
        let start = rule.home.unwrap_or(who.cpu);
        let local = (self.fallback(who.cpu, &everywhere), None);
        if ordinary.is_empty() && private.is_empty() {
            return local;
        }
        match rule.mode {
            Mode::Default | Mode::Local => local,
            Mode::Preferred => (self.with_rest(*ordinary.first().unwrap(), &everywhere), None),
            Mode::Interleave => {
                let turn = who.turn as usize % ordinary.len();
                (self.with_rest(*ordinary.iter().nth(turn).unwrap(), &everywhere), None)
            }
            Mode::WeightedInterleave => {
                let weight = |n: &u16| who.weights.get(usize::from(*n)).map_or(1, |w| usize::from(*w).max(1));
                let wheel: Vec<u16> =
                    ordinary.iter().flat_map(|n| std::iter::repeat_n(*n, weight(n))).collect();
                (self.with_rest(wheel[who.turn as usize % wheel.len()], &everywhere), None)
            }
            Mode::PreferredMany => {
                let mut order = self.fallback(start, &ordinary.intersection(&everywhere).copied().collect());
                order.extend(self.fallback(start, &everywhere).iter().filter(|n| !ordinary.contains(n)));
                (order, None)
            }
            Mode::Bind => {
                let near = |set: &Set| {
                    let mut order: Vec<u16> = set.iter().copied().collect();
                    order.sort_by_key(|n| (self.distance(start, *n), *n));
                    order
                };
                let first = match (private.contains(&start), ordinary.is_empty()) {
                    (true, _) => Some(start),
                    (false, true) => near(&private).first().copied(),
                    (false, false) => None,
                };
                let mut order: Vec<u16> = first.into_iter().collect();
                order.extend(self.fallback(start, &ordinary));
                order.extend(near(&private).into_iter().filter(|n| Some(*n) != first));
                let name = first.or_else(|| near(&ordinary).first().copied());
                // Those that are still the nodes that were meant.
                order.retain(|n| {
                    let meant = rule.members.iter().find(|(m, _)| m == n).is_some_and(|(_, o)| {
                        self.nodes.get(n).is_some_and(|l| l.is_ordinary() == *o && self.speaks_of(rule, *l))
                    });
                    meant && (ordinary.contains(n) || private.contains(n))
                });
                if order.is_empty() { (self.fallback(start, &everywhere), None) } else { (order, name) }
            }
        }
    }

    /// `first`, then the others in distance order from it.
    fn with_rest(&self, first: u16, everywhere: &Set) -> Vec<u16> {
        let mut order = vec![first];
        order.extend(self.fallback(first, everywhere).into_iter().filter(|n| *n != first));
        order.retain(|n| everywhere.contains(n));
        order
    }
}

/// Node n of `named` is the n-th of `choice`, counted round.
fn nth_of(named: &Set, choice: &Set) -> Set {
    let choice: Vec<u16> = choice.iter().copied().collect();
    named.iter().filter(|_| !choice.is_empty()).map(|n| choice[usize::from(*n) % choice.len()]).collect()
}

/// Everything that decides about a page, for the model.
struct Who {
    origin: PageOrigin,
    cpu: u16,
    task: Rule,
    range: Rule,
    object: Rule,
    group: Group,
    weights: Vec<u8>,
    turn: u64,
}

/// One policy on both sides.
#[derive(Clone, Debug)]
struct Pair {
    real: Policy,
    model: Rule,
}

#[derive(Clone, Debug)]
enum Step {
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

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Ordinary),
        3 => Just(policy_world::OPEN),
        1 => Just(policy_world::CLOSED),
        1 => Just(Kind::Private(Features::USER_NUMA | Features::RECLAIM)),
    ]
}

fn set() -> impl Strategy<Value = Set> {
    prop::collection::btree_set(0..IDS as u16, 0..=IDS)
}

fn numbering() -> impl Strategy<Value = Numbering> {
    prop::sample::select(vec![Numbering::Positional, Numbering::Static, Numbering::Relative])
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..IDS as u16;
    let mode = prop_oneof![3 => Just(Mode::Bind), 2 => prop::sample::select(Mode::ALL.to_vec())];
    let policy =
        (0..3usize, mode, numbering(), set(), prop::option::weighted(0.2, node.clone()), any::<bool>());
    prop_oneof![
        2 => node.clone().prop_map(Step::Leave),
        3 => (node.clone(), kind()).prop_map(|(node, kind)| Step::Join(node, kind)),
        1 => node.clone().prop_map(Step::Drain),
        1 => node.prop_map(Step::Resume),
        2 => set().prop_map(Step::Group),
        3 => set().prop_map(Step::Follow),
        6 => policy.prop_map(|(slot, mode, numbering, named, home, cache)| {
            Step::Set { slot, mode, numbering, named, home, cache: cache && slot == 1 }
        }),
        3 => (0..3usize).prop_map(Step::Rebind),
    ]
}

fn distances() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(11u8..14, IDS * IDS).prop_map(|mut table| {
        (0..IDS).for_each(|node| table[node * IDS + node] = 10);
        table
    })
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

struct Both {
    world: World,
    model: Model,
    mems: Mems,
    group: Group,
    policies: Vec<Pair>,
}

impl Both {
    fn new(kinds: &[Kind], table: Vec<u8>, frames: u64) -> Self {
        let distances = Distances::from_table(IDS, Box::leak(table.clone().into_boxed_slice())).unwrap();
        let world = World::with_distances(kinds, frames, distances);
        let mut model = Model { distances: table, ..Model::default() };
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_rules(
        kinds in prop::collection::vec(kind(), IDS - 1),
        table in distances(),
        frames in 1u64..3,
        steps in prop::collection::vec((step(), 0..IDS as u16, 0u64..9), 1..25),
        weights in prop::collection::vec(0u8..4, 0..=IDS),
    ) {
        let kinds: Vec<Kind> = std::iter::once(Kind::Ordinary).chain(kinds).collect();
        let mut both = Both::new(&kinds, table, frames);
        for (step, cpu, turn) in &steps {
            both.apply(step);
            both.compare(*cpu, *turn, &weights, frames);
        }
    }
}
