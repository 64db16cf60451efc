//! The policy rules a second time, written naively over sets of numbers.
//!
//! They know nodes by life: a number that is registered again is another node. They list the nodes that a page may come from, in order.

use std::collections::{BTreeMap, BTreeSet};

use pnode_core::policy::{Mode, Numbering};
use pnode_core::{Features, PageOrigin};

use super::policy_world::{IDS, Kind};

pub(crate) type Set = BTreeSet<u16>;

/// What a model knows of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// How many registrations there had been before it.
    pub(crate) born: usize,
    pub(crate) kind: Kind,
    pub(crate) draining: bool,
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
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<u16, Life>,
    pub(crate) births: usize,
    pub(crate) distances: Vec<u8>,
}

/// A cpuset: ordinary and private nodes.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) ordinary: Set,
    pub(crate) private: Set,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) mode: Mode,
    pub(crate) numbering: Numbering,
    pub(crate) home: Option<u16>,
    /// (number, whether it was ordinary) of each node.
    pub(crate) members: BTreeSet<(u16, bool)>,
    pub(crate) named: Set,
    pub(crate) counted: Set,
    pub(crate) births: usize,
}

impl Rule {
    pub(crate) fn none() -> Self {
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
    pub(crate) fn join(&mut self, number: u16, kind: Kind) {
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

    pub(crate) fn root(&self) -> Group {
        Group { ordinary: self.ordinary(), private: self.private() }
    }

    pub(crate) fn child(&self, parent: &Group, asked: &Set) -> Group {
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

    pub(crate) fn set(
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

    pub(crate) fn rebind(&self, rule: &mut Rule, group: &Group) {
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
    pub(crate) fn order(&self, who: &Who) -> (Vec<u16>, Option<u16>) {
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
pub(crate) fn nth_of(named: &Set, choice: &Set) -> Set {
    let choice: Vec<u16> = choice.iter().copied().collect();
    named.iter().filter(|_| !choice.is_empty()).map(|n| choice[usize::from(*n) % choice.len()]).collect()
}

/// Everything that decides about a page, for the model.
pub(crate) struct Who {
    pub(crate) origin: PageOrigin,
    pub(crate) cpu: u16,
    pub(crate) task: Rule,
    pub(crate) range: Rule,
    pub(crate) object: Rule,
    pub(crate) group: Group,
    pub(crate) weights: Vec<u8>,
    pub(crate) turn: u64,
}
