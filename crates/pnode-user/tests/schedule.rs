//! Schedules: a seed names a life, to the byte of its trace; and what a failure does not need is left out.

mod support;

use core::num::NonZeroUsize;
use std::cell::Cell;

use pnode_core::{Features, MemoryClass, NodeId};
use pnode_user::machine::{Builder, KeepFree, Mapping, Place, Process, Rights};
use pnode_user::schedule::{self, Outcome, Stage};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;
const PAGES: usize = 40;
const KEEP: KeepFree = KeepFree { low: 8, high: 14 };

fn builder() -> Builder {
    let tier = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION;
    Machine::builder()
        .node(NodeSpec::ordinary(48))
        .node(NodeSpec::private(MemoryClass::FAR, 16).features(tier))
        .node(NodeSpec::compressed(24, 16))
        .swap(128)
}

/// Two programs, the kernel's background thread, its idle tracking, and somebody who forks.
struct Life {
    machine: Machine,
    memory: [Mapping; 2],
    words: [[u64; PAGES]; 2],
    /// By program: what its chance is drawn from.
    chance: [u64; 2],
    process: Process,
    children: Vec<Process>,
}

impl Life {
    fn new(machine: Machine) -> Self {
        let dram = machine.node(0).unwrap();
        machine.start_trace(NonZeroUsize::new(1 << 16).unwrap());
        let process = machine.process(8, dram).unwrap();
        process.map(8, Rights::ReadWrite).unwrap();
        Self {
            memory: [0, 1].map(|_| machine.map(PAGES, dram).unwrap()),
            words: [[0; PAGES]; 2],
            chance: [1, 2],
            process,
            children: Vec::new(),
            machine,
        }
    }
}

impl Stage for Life {
    type Failure = String;

    fn actors(&self) -> usize {
        5
    }

    fn step(&mut self, actor: usize) -> Result<(), String> {
        let say = |error: pnode_user::fault::FaultError| error.to_string();
        match actor {
            0 | 1 => {
                let chance = &mut self.chance[actor];
                *chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let page = (*chance >> 33) as usize % PAGES;
                let mut found = [0; 8];
                self.memory[actor].read(page * PAGE, &mut found).map_err(say)?;
                let word = &mut self.words[actor][page];
                if u64::from_le_bytes(found) != *word {
                    return Err(format!("page {page} of program {actor} has lost its bytes"));
                }
                *word = *chance;
                self.memory[actor].write(page * PAGE, &chance.to_le_bytes()).map_err(say)?;
            }
            2 => self.machine.background_step(KEEP),
            3 => drop(self.machine.age()),
            _ => {
                self.process.write(0, 0, &[self.children.len() as u8]).map_err(say)?;
                if self.children.len() == 3 {
                    self.children.clear();
                }
                self.children.push(self.process.fork().map_err(|error| error.to_string())?);
            }
        }
        Ok(())
    }
}

#[test]
fn a_seed_names_a_life_to_the_byte() {
    let kind = Cell::new(None);
    let lives = |seed: u64| -> (Outcome<String>, String) {
        let machine = builder().faults(kind.get().unwrap()).build().unwrap();
        let mut life = Life::new(machine);
        let outcome = schedule::run(&mut life, seed, 600);
        life.machine.audit().unwrap();
        let trace = life.machine.trace();
        assert_eq!(trace.lost, 0);
        (outcome, trace.to_csv())
    };
    support::on_all(builder, |machine| {
        use pnode_user::fault::{BackendKind, Choice};
        kind.set(Some(match machine.faults().kind() {
            BackendKind::Signal => Choice::Signal,
            BackendKind::Userfaultfd => Choice::Userfaultfd,
            BackendKind::UserfaultfdEvents => Choice::UserfaultfdEvents,
        }));
        let mut before: Option<String> = None;
        for seed in [1, 2, 0x5eed] {
            let (first, trace) = lives(seed);
            assert_eq!(first.failure, None, "seed {seed}");
            assert_eq!(lives(seed), (first, trace.clone()), "seed {seed} is two lives");
            for what in ["fault,", "alloc,", "demote,", "swap,", "promote,", "reclaim,", "copied"] {
                assert!(trace.contains(what), "seed {seed}: no {what}");
            }
            assert_ne!(before.replace(trace.clone()), Some(trace), "two seeds are one life");
        }
    });
}

/// A driver that remembers where a page is, and a kernel that moves it: a mistake that needs three turns in one order.
struct Careless {
    machine: Machine,
    memory: Mapping,
    far: NodeId,
    remembered: Option<Place>,
}

impl Stage for Careless {
    type Failure = &'static str;

    fn actors(&self) -> usize {
        4
    }

    fn step(&mut self, actor: usize) -> Result<(), &'static str> {
        match actor {
            // The driver looks its page up, and later uses what it found.
            0 if self.remembered.is_none() => self.remembered = Some(self.memory.place(0)),
            0 if self.remembered != Some(self.memory.place(0)) => return Err("stale"),
            0 => self.remembered = None,
            // A program uses another page.
            1 => self.memory.write(PAGE, &[1]).map_err(|_| "no memory")?,
            // The kernel looks for cold pages, which takes two looks.
            2 => drop(self.machine.reclaim(1)),
            // The page is used again, and comes back.
            _ => {
                self.memory.write(0, &[1]).map_err(|_| "no memory")?;
                self.memory.promote(0..4, self.far).map_err(|_| "no promotion")?;
            }
        }
        Ok(())
    }
}

#[test]
fn a_failing_schedule_shrinks_to_the_turns_that_it_needs() {
    let new = || {
        let machine = builder().build().unwrap();
        let [dram, far] = [0, 1].map(|number| machine.node(number).unwrap());
        let memory = machine.map(4, dram).unwrap();
        memory.write(0, &[1]).unwrap();
        Careless { machine, memory, far, remembered: None }
    };
    for seed in 0..5 {
        let outcome = schedule::run(&mut new(), seed, 400);
        assert_eq!(outcome.failure, Some("stale"), "seed {seed}");
        let short = schedule::shrink(&outcome.turns, new, |failure| *failure == "stale");
        assert!(short.len() <= 4, "seed {seed}: {short:?}");
        assert_eq!(schedule::replay(&mut new(), &short).failure, Some("stale"), "seed {seed}: {short:?}");
        // None of them can be left out.
        for at in 0..short.len() {
            let without: Vec<usize> = short[..at].iter().chain(&short[at + 1..]).copied().collect();
            let outcome = schedule::replay(&mut new(), &without);
            assert_eq!(outcome.failure, None, "seed {seed}: {short:?} without turn {at}");
        }
    }
    // What does not fail stays as it is; an actor that there is not is passed over.
    assert_eq!(schedule::shrink(&[1, 1, 9], new, |_| true), [1, 1, 9]);
    assert_eq!(schedule::replay(&mut new(), &[1, 9, 1]).turns, [1, 1]);
}
