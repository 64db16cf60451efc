//! A life of a machine in which every allocation, every copy, every mapping and every read and write of a file fails once, each in
//! a run of its own. Every page is compared with what was last written to it, and every frame must go back.

#[path = "support/random.rs"]
mod random;

use pnode_core::failing::When;
use pnode_core::{Features, MemoryClass, NodeId, Request};
use pnode_user::fault::{Choice, FaultError};
use pnode_user::machine::{
    BuildError, KeepFree, Mapping, Object, Placement, Point, Process, Rights, Sharing, What,
};
use pnode_user::{Machine, NodeSpec};

use random::Random;

const PAGE: usize = 4096;
const NODES: u16 = 6;
const PAGES: usize = 20;

fn machine(choice: Choice) -> Result<Machine, BuildError> {
    let tier = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION | Features::HOTUNPLUG;
    Machine::builder()
        .node(NodeSpec::ordinary(40))
        .node(NodeSpec::ordinary(24))
        .node(NodeSpec::private(MemoryClass::FAR, 8).features(tier))
        .node(NodeSpec::private(MemoryClass::FAR, 8).features(tier | Features::WRITE_FENCE))
        .node(NodeSpec::compressed(24, 8))
        .node(NodeSpec::private(MemoryClass::HBM, 12).features(Features::USER_NUMA | Features::HOTUNPLUG))
        .swap(64)
        .faults(choice)
        .build()
}

/// What has pages, and the word that each page must hold.
struct Life<'m> {
    machine: &'m Machine,
    nodes: [NodeId; NODES as usize],
    memory: (Mapping, [u64; PAGES]),
    device: (Mapping, [u64; PAGES]),
    family: Vec<(Process, [u64; PAGES])>,
    objects: Vec<(Object, [u64; PAGES])>,
    /// What failed and was told so.
    told: usize,
}

impl<'m> Life<'m> {
    fn new(machine: &'m Machine) -> Self {
        let nodes = std::array::from_fn(|number| machine.node(number as u16).unwrap());
        let process = machine.process(PAGES, nodes[0]).unwrap();
        process.map(PAGES, Rights::ReadWrite).unwrap();
        let objects = [machine.shared_memory(PAGES, nodes[0]), machine.file(vec![0; PAGES * PAGE], nodes[0])];
        Self {
            machine,
            nodes,
            memory: (machine.map(PAGES, nodes[0]).unwrap(), [0; PAGES]),
            device: (machine.map_at(PAGES, Placement::Bound(nodes[5])).unwrap(), [0; PAGES]),
            family: vec![(process, [0; PAGES])],
            objects: objects.into_iter().map(|object| (object.unwrap(), [0; PAGES])).collect(),
            told: 0,
        }
    }

    /// Notes what a caller is told.
    fn tell<T, E: std::fmt::Debug>(&mut self, outcome: Result<T, E>) -> Option<T> {
        self.told += usize::from(outcome.is_err());
        outcome.ok()
    }

    fn step(&mut self, random: &mut Random) {
        let [dram, other, far, fenced, zip, hbm] = self.nodes;
        let (page, value) = (random.below(PAGES), random.next());
        let bytes = value.to_le_bytes();
        match random.below(18) {
            0..=2 => {
                let written = self.memory.0.write(page * PAGE, &bytes);
                if self.tell(written).is_some() {
                    self.memory.1[page] = value;
                }
            }
            3 => {
                let page = page % 8;
                let written = self.device.0.write(page * PAGE, &bytes);
                if self.tell(written).is_some() {
                    self.device.1[page] = value;
                }
            }
            4..=5 => {
                let who = random.below(self.family.len());
                let written = self.family[who].0.write(page, 0, &bytes);
                if self.tell(written).is_some() {
                    self.family[who].1[page] = value;
                }
            }
            6..=7 => {
                let which = random.below(2);
                let written = self.objects[which].0.write(page * PAGE, &bytes);
                if self.tell(written).is_some() {
                    self.objects[which].1[page] = value;
                }
            }
            8 => {
                let synced = self.objects[1].0.sync();
                self.tell(synced);
            }
            9 => {
                let forked = self.family[0].0.fork();
                if let Some(child) = self.tell(forked) {
                    let words = self.family[0].1;
                    self.family.truncate(2);
                    self.family.push((child, words));
                }
            }
            10 => {
                let target = [far, fenced, zip][random.below(3)];
                let end = (page + 4).min(PAGES);
                let demoted = self.memory.0.demote(page..end, target);
                if let Some(demotion) = self.tell(demoted) {
                    self.told += demotion.refused;
                }
            }
            11 => {
                let promoted = self.memory.0.promote(0..PAGES, far);
                self.tell(promoted);
            }
            12 => {
                let moved = self.memory.0.migrate(page, [dram, other][random.below(2)]);
                self.tell(moved);
            }
            13 => {
                self.machine.age();
                self.machine.reclaim(6);
            }
            14 => {
                self.machine.balance(dram, KeepFree { low: 10, high: 14 });
                let _ = self.machine.promote_hot(far, 4);
            }
            15 => {
                let who = random.below(self.family.len());
                let moves = [(page, other), ((page + 1) % PAGES, hbm)];
                for moved in self.family[who].0.move_pages(&moves) {
                    self.told += usize::from(moved.is_err());
                }
            }
            16 => {
                let node = [far, fenced, zip, hbm][random.below(4)];
                let gone = self.machine.unplug(node);
                if self.tell(gone).is_some() {
                    let back = self.machine.plug(node);
                    if self.tell(back).is_none() {
                        self.machine.stop_injecting();
                        self.machine.plug(node).unwrap();
                    }
                }
            }
            _ => {
                let taken = self.machine.alloc(Request::page().prefer(other));
                if let Some(frame) = self.tell(taken) {
                    self.machine.free(frame).unwrap();
                }
                let process = self.machine.process(PAGES, dram).unwrap();
                let mapped = process.map_object(&self.objects[0].0, 0..PAGES, Rights::Read, Sharing::Shared);
                let mut found = [0; 8];
                let pages = mapped.unwrap();
                let read = process.read(pages.start + page, 0, &mut found);
                if self.tell(read).is_some() {
                    assert_eq!(u64::from_le_bytes(found), self.objects[0].1[page], "shared page {page}");
                }
            }
        }
    }

    /// Every page holds what it must.
    fn check(&self, what: &str) {
        let mut found = [0; 8];
        let mut compare =
            |name: &str, page: usize, read: &dyn Fn(&mut [u8]) -> Result<(), FaultError>, word| {
                read(&mut found).unwrap_or_else(|error| panic!("{what}: {name}, page {page}: {error}"));
                assert_eq!(u64::from_le_bytes(found), word, "{what}: {name}, page {page}");
            };
        for page in 0..PAGES {
            compare("memory", page, &|bytes| self.memory.0.read(page * PAGE, bytes), self.memory.1[page]);
            for (process, words) in &self.family {
                compare("family", page, &|bytes| process.read(page, 0, bytes), words[page]);
            }
            for (object, words) in &self.objects {
                compare("object", page, &|bytes| object.read(page * PAGE, bytes), words[page]);
            }
        }
        for page in 0..8 {
            compare("device", page, &|bytes| self.device.0.read(page * PAGE, bytes), self.device.1[page]);
        }
    }
}

/// How long a call goes on failing.
#[derive(Clone, Copy, Debug)]
enum Lasting {
    /// It fails once, and works when it is made again.
    Once,
    /// All calls of its kind fail until the step has ended.
    Step,
}

/// Runs the life with a failure at `point`; gives back how many calls there were, how many failed, and how many a caller was told of.
fn run(choice: Choice, failure: Option<(Point, u64, Lasting)>) -> Option<(Vec<u64>, u64, usize)> {
    let machine = match machine(choice) {
        Ok(machine) => machine,
        Err(BuildError::Faults(error)) if choice != Choice::Signal => {
            println!("SKIPPED: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let what = format!("{choice:?} {failure:?}");
    let mut life = Life::new(&machine);
    let rules: Vec<_> = failure
        .into_iter()
        .map(|(point, call, lasting)| match lasting {
            Lasting::Once => (point, When::Nth(call)),
            Lasting::Step => (point, When::From(call)),
        })
        .collect();
    machine.inject(&rules);
    let mut random = Random(0x5eed);
    let (mut failed, mut calls) = (0, Vec::new());
    for step in 0..150 {
        life.step(&mut random);
        let seen = machine.injections();
        calls = Point::ALL.map(|point| seen.calls(point)).to_vec();
        let now: u64 = Point::ALL.iter().map(|point| seen.failed(*point)).sum();
        if now > 0 {
            failed = now;
            machine.stop_injecting();
            machine.audit().unwrap_or_else(|error| panic!("{what}, step {step}: {error}"));
            life.check(&what);
            // Life goes on, and without a failure it goes on well.
            (0..20).for_each(|_| life.step(&mut random));
            break;
        }
    }
    machine.stop_injecting();
    life.check(&what);
    machine.audit().unwrap_or_else(|error| panic!("{what}: {error}"));
    let (told, nodes) = (life.told, life.nodes);
    drop(life);
    machine.audit().unwrap_or_else(|error| panic!("{what}: {error}"));
    machine.unplug(nodes[4]).unwrap_or_else(|error| panic!("{what}: {error}"));
    for node in nodes.into_iter().filter(|node| *node != nodes[4]) {
        assert_eq!(machine.free_frames(node), machine.frames(node), "{what}: {node:?} has lost frames");
    }
    assert_eq!(machine.swap_use().0, 0, "{what}: pages stay in the swap file");
    Some((calls, failed, told))
}

/// Every call fails once in a run of its own; and for as long as a step takes in another one, which is made for each call if
/// `PNODE_INJECT_ALL` is set, on each backend.
#[test]
fn nothing_is_lost_whichever_call_fails() {
    let all = std::env::var_os("PNODE_INJECT_ALL").is_some();
    // A part of the calls on the backends that are not everywhere; they differ in what maps a page.
    for (choice, stride) in [(Choice::Signal, 1), (Choice::Userfaultfd, 13), (Choice::UserfaultfdEvents, 29)]
    {
        let stride = if all { 1 } else { stride };
        let Some((calls, 0, untroubled)) = run(choice, None) else { continue };
        println!("{choice:?}: {:?}", Point::ALL.iter().zip(&calls).collect::<Vec<_>>());
        let (mut runs, mut told) = (0, 0);
        for (point, calls) in Point::ALL.into_iter().zip(calls) {
            assert!(calls > 0, "{point:?} is never called");
            for call in (0..calls).step_by(stride) {
                let lasting = [Lasting::Once, Lasting::Step];
                for lasting in &lasting[..if all || call % 5 == 0 { 2 } else { 1 }] {
                    let (_, failed, now) = run(choice, Some((point, call, *lasting))).unwrap();
                    assert!(failed > 0, "{point:?} {call} did not come");
                    runs += 1;
                    told += usize::from(now > 0);
                }
            }
        }
        println!(
            "{choice:?}: {runs} runs; a caller was told in {told}, and in {untroubled} steps without a failure"
        );
    }
}

#[test]
fn a_failure_on_purpose_is_an_event() {
    let machine = machine(Choice::Signal).unwrap();
    let memory = machine.map(4, machine.node(0).unwrap()).unwrap();
    machine.start_trace(core::num::NonZeroUsize::new(100).unwrap());
    machine.inject(&[(Point::Map, When::From(0))]);
    assert!(matches!(memory.write(0, &[1]), Err(FaultError::Kernel(error)) if error.is_no_memory()));
    let seen = machine.stop_injecting();
    assert!(seen.failed(Point::Map) > 0 && seen.failed(Point::Map) == seen.calls(Point::Map));
    memory.write(0, &[1]).unwrap();
    let trace = machine.trace();
    let injected = trace.events.iter().filter(|event| event.what == What::Injected).count() as u64;
    assert_eq!(injected, seen.failed(Point::Map));
}
