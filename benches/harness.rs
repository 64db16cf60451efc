//! What a machine in a process adds to an allocator that runs in it, and what that is beside the allocator's own work.
//!
//! `cargo bench --bench harness` prints instructions per pair of alloc and free of one frame, counted by callgrind, and
//! checks what the machine adds against the limit below. Each line compares like with like: the same zone of 65,536
//! frames, the same 64 blocks held, the same calls; once on values that the bench made itself, once on those of a
//! [`Machine`].
//!
//! | line | bare | through the machine |
//! | --- | --- | --- |
//! | requests | `Nodes::alloc`, `Nodes::free` | `Machine::alloc`, `Machine::free` |
//! | granted requests | `Grant::alloc`, `Nodes::free` | `MachineGrant::alloc`, `Machine::free` |
//! | the zone alone | `Zone::alloc`, `Zone::free` | as granted requests |
//!
//! The last line is no like with like, and has no limit: it has the gate on one side only, which `benches/gate.rs` measures
//! and limits. Without valgrind the bench says so and checks only that every path does
//! what it claims; `cargo bench -- --test` runs that part alone.

#[path = "support/callgrind.rs"]
mod callgrind;

use std::hint::black_box;
use std::process::ExitCode;

use pnode::buddy::Zone;
use pnode::core::{
    BoxedStorage, Distances, Features, FrameRange, Grant, MemoryClass, MigrateType, NodeId, Nodes, Order,
    Pfn, Private, Request,
};
use pnode::user::fault::Choice;
use pnode::user::machine::MachineGrant;
use pnode::user::{Machine, NodeSpec};

/// What the machine may add, in parts of the bare pair.
const LIMIT: f64 = 0.05;

const FRAMES: u64 = 65_536;
const HELD: usize = 64;

/// Which calls are made, and on whose values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    Requests(Side),
    Granted(Side),
    Zone(Side),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Bare,
    Machine,
}

/// A line of the table: two paths, and what the second one may add to the first.
struct Line {
    name: &'static str,
    path: fn(Side) -> Path,
    limit: Option<f64>,
}

const LINES: [Line; 3] = [
    Line { name: "requests", path: Path::Requests, limit: Some(LIMIT) },
    Line { name: "granted requests", path: Path::Granted, limit: Some(LIMIT) },
    Line { name: "the zone alone", path: Path::Zone, limit: None },
];

/// Replaces one of the blocks that are held, `times` times; returns how often that was possible.
fn churn<T>(times: u32, alloc: impl Fn() -> Option<T>, free: impl Fn(T) -> bool) -> u32 {
    let mut held: [_; HELD] = core::array::from_fn(|_| alloc());
    let replace = |turn: &u32| {
        let new = alloc();
        let worked = new.is_some();
        let old = core::mem::replace(&mut held[*turn as usize * 7 % HELD], new);
        worked && old.is_some_and(&free)
    };
    let done = (0..times).filter(replace).count() as u32;
    let all_back = held.into_iter().flatten().all(free);
    if all_back { done } else { 0 }
}

/// The bare registry, with an ordinary node and a private one.
fn with_nodes<R>(work: impl FnOnce(&Nodes<'_, Zone<'_>>, &Grant<'_, Zone<'_>>) -> R) -> R {
    let zone =
        |start| Zone::boxed(FrameRange::new(Pfn::new(start), FRAMES).expect("a range"), &[]).expect("a zone");
    let zones = [zone(0), zone(1 << 32)];
    let mut storage = BoxedStorage::new(2, 2).expect("room for two nodes");
    let distances = Distances::uniform(2).expect("distances");
    let nodes: Nodes<'_, Zone<'_>> = Nodes::new(storage.slots(), distances).expect("a registry");
    let [dram, card] = [0, 1].map(|number| NodeId::new(number).expect("an id"));
    nodes.ordinary(dram, MemoryClass::DRAM).expect("a node").online(&zones[0]).expect("its memory");
    let owner = nodes
        .register(card, Private::class(MemoryClass::DEVICE_BUFFER), Features::NONE)
        .expect("a private node");
    owner.online(&zones[1]).expect("its memory");
    work(&nodes, &owner.grant().expect("the owner's grant"))
}

fn with_machine<R>(work: impl FnOnce(&Machine, &MachineGrant<'_>) -> R) -> R {
    let machine = Machine::builder()
        .node(NodeSpec::ordinary(FRAMES))
        .node(NodeSpec::private(MemoryClass::DEVICE_BUFFER, FRAMES))
        .faults(Choice::Signal)
        .build()
        .expect("a machine");
    let grant = machine.owner_grant(machine.node(1).expect("a private node")).expect("the owner's grant");
    work(&machine, &grant)
}

impl Path {
    fn run(self, times: u32) -> u32 {
        let request = || black_box(Request::page());
        match self {
            Self::Requests(Side::Bare) => with_nodes(|nodes, _| {
                churn(times, || nodes.alloc(request()).ok(), |frame| nodes.free(frame).is_ok())
            }),
            Self::Requests(Side::Machine) => with_machine(|machine, _| {
                churn(times, || machine.alloc(request()).ok(), |frame| machine.free(frame).is_ok())
            }),
            Self::Granted(Side::Bare) => with_nodes(|nodes, grant| {
                churn(times, || grant.alloc(request()).ok(), |frame| nodes.free(frame).is_ok())
            }),
            Self::Granted(Side::Machine) | Self::Zone(Side::Machine) => with_machine(|machine, grant| {
                churn(times, || grant.alloc(request()).ok(), |frame| machine.free(frame).is_ok())
            }),
            Self::Zone(Side::Bare) => {
                let range = FrameRange::new(Pfn::new(0), FRAMES).expect("a range");
                let zone = Zone::boxed(range, &[]).expect("a zone");
                let alloc = || zone.alloc(black_box(Order::ZERO), MigrateType::Movable).ok();
                churn(times, alloc, |pfn| zone.free(pfn, Order::ZERO).is_ok())
            }
        }
    }
}

/// Prints the counts and says which limits they break.
fn report() -> Result<Vec<String>, String> {
    let mut broken = Vec::new();
    println!(
        "{:<20} {:>8} {:>8} {:>8} {:>8} {:>13}",
        "a pair of calls", "bare", "machine", "added", "limit", "atomic writes"
    );
    for Line { name, path, limit } in LINES {
        let [bare, machine] =
            [Side::Bare, Side::Machine].map(|side| callgrind::count(&[&format!("{:?}", path(side))]));
        let (bare, machine) = (bare?, machine?);
        let added = machine.instructions / bare.instructions - 1.0;
        println!(
            "{name:<20} {:>8.1} {:>8.1} {:>7.1}% {:>8} {:>6.2} {:>6.2}",
            bare.instructions,
            machine.instructions,
            100.0 * added,
            limit.map_or("none".into(), |limit| format!("{:.0}%", 100.0 * limit)),
            bare.atomic_writes,
            machine.atomic_writes,
        );
        if limit.is_some_and(|limit| added > limit) {
            broken.push(format!("{name}: a machine adds {:.1} %", 100.0 * added));
        }
        if machine.atomic_writes > bare.atomic_writes + 0.01 {
            broken.push(format!("{name}: a machine adds atomic writes"));
        }
    }
    Ok(broken)
}

fn main() -> ExitCode {
    let all = || LINES.into_iter().flat_map(|Line { path, .. }| [path(Side::Bare), path(Side::Machine)]);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, path, times] = &arguments[..] {
        let path = all().find(|known| format!("{known:?}") == *path);
        if let ("--repeat", Some(path), Ok(times)) = (&flag[..], path, times.parse()) {
            return if path.run(times) == times { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    }
    for path in all() {
        assert_eq!(path.run(20), 20, "{path:?} must do what it is measured for");
    }
    callgrind::judge(report)
}
