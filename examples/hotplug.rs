//! A node that leaves under load and comes back.
//!
//! `cargo run --release --example hotplug`

#[macro_use]
#[path = "support/pipe.rs"]
mod pipe;
#[path = "support/cli.rs"]
mod cli;

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use pnode::core::{Denied, Features, NodeId, Request};
use pnode::user::Machine;
use pnode::user::machine::{Mapping, Placement, UnplugError};

use cli::{Options, ensure, say};

const HELP: &str = "\
A node that leaves under load and comes back.

Two programs work on memory that they bound to a device's node. Five times the device is pulled out: its
pages move to ordinary memory while the programs go on, its id is given up, and it is plugged in again.
A bind whose node left stops applying and does not attach to the node that has the id now; each round the
programs bind anew. Every value that was written is found again.";

const ROUNDS: u32 = 5;
/// The most pages of a program.
const LARGEST: usize = 1000;
/// Pages that nobody touches before the device is back.
const SPARE: usize = 8;

const MACHINE: &str = "\
node dram ordinary 4096frames
node device private 2500frames class hbm doors USER_NUMA|HOTUNPLUG";

fn main() -> ExitCode {
    cli::main("hotplug", HELP, MACHINE, run)
}

fn run(options: &Options) -> Result<(), String> {
    let description = &options.machine;
    let doors = Features::USER_NUMA | Features::HOTUNPLUG;
    let device = description.role(
        "a private node with the doors USER_NUMA and HOTUNPLUG",
        |spec| spec.is_private() && spec.doors().contains(doors),
        "node device private 8MiB class hbm doors USER_NUMA|HOTUNPLUG",
    )?;
    let machine = options.build()?;
    let room = description.ordinary_frames().min(machine.frames(device) as usize);
    let pages = (room.saturating_sub(SPARE) / 2).min(LARGEST);
    if pages == 0 {
        return Err(description.about("the programs need 10 frames on the device, and 10 ordinary ones"));
    }
    for round in 1..=ROUNDS {
        let memory = machine.map_at(2 * pages + SPARE, Placement::Bound(device)).map_err(say)?;
        let (stop, touches) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
        thread::scope(|scope| {
            let (machine, memory, stop, touches) = (&machine, &memory, &stop, &touches);
            let programs = [0, 1].map(|program| {
                scope.spawn(move || {
                    let outcome = work(
                        machine,
                        memory,
                        program * pages..(program + 1) * pages,
                        stop,
                        &touches[program],
                    );
                    // Nobody waits for a program that has given up.
                    outcome.inspect_err(|_| stop.store(true, Ordering::Relaxed))
                })
            });
            let wait = || wait_for_both(touches, pages, stop);
            let outcome = pull_and_plug(machine, round, device, memory, touches, wait);
            stop.store(true, Ordering::Relaxed);
            for program in programs {
                program.join().map_err(|_| "a program did not end well")??;
            }
            outcome
        })?;
        cli::draw(&machine, &format!("hotplug: round {round}"), options.svg.as_ref())?;
    }
    machine.audit().map_err(say)?;
    for (node, (name, spec)) in machine.nodes().zip(description.file.nodes()) {
        let is_whole = machine.free_frames(node) == machine.frames(node) || spec.advertised().is_some();
        ensure(is_whole, &format!("node {name} has lost a frame"))?;
    }
    println!("\nNo program found a wrong value, and every frame has gone back.");
    options.write_trace(&machine, "hotplug: five rounds")?;
    Ok(())
}

/// Lets both programs touch all of their pages, unless one of them gives up.
fn wait_for_both(touches: &[AtomicU64; 2], pages: usize, stop: &AtomicBool) {
    for touches in touches {
        let start = touches.load(Ordering::Relaxed);
        while touches.load(Ordering::Relaxed) < start + pages as u64 && !stop.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }
}

fn pull_and_plug(
    machine: &Machine,
    round: u32,
    device: NodeId,
    memory: &Mapping,
    touches: &[AtomicU64; 2],
    wait_for_both: impl Fn(),
) -> Result<(), String> {
    let all = || touches.iter().map(|touches| touches.load(Ordering::Relaxed)).sum::<u64>();
    wait_for_both();
    ensure(memory.place(0).is_resident_on(device), "a bind must find the device")?;
    let before = all();
    let unplugged = loop {
        match machine.unplug(device) {
            // Its memory is gone, and a fault that found it there before has not ended yet.
            Err(UnplugError::Unregister(_)) => thread::yield_now(),
            unplugged => break unplugged.map_err(say)?,
        }
    };
    let meanwhile = all() - before;
    println!(
        "round {round}: pulled out, {} pages moved, {meanwhile} accesses went on meanwhile",
        unplugged.pages
    );
    match machine.owner_grant(device) {
        Err(Denied::Stale { .. }) => {}
        other => return Err(format!("the owner's handle of the old life still answers: {other:?}")),
    }
    let near = machine.alloc(Request::page().prefer(device)).map_err(say)?;
    ensure(near.node() != device, "a request near a node that is gone is served by ordinary memory")?;
    machine.free(near).map_err(say)?;

    machine.plug(device).map_err(say)?;
    wait_for_both();
    memory.write((memory.pages() - SPARE) * machine.page().bytes(), &[1]).map_err(say)?;
    let stays = (0..memory.pages()).all(|page| !memory.place(page).is_resident_on(device));
    ensure(stays, "a bind attached to a node that only has the same id")?;
    println!(
        "         plugged in, {} frames free; the old bind stays in ordinary memory",
        machine.free_frames(device)
    );
    Ok(())
}

/// Writes values to `pages` and finds them again, until told to stop.
fn work(
    machine: &Machine,
    memory: &Mapping,
    pages: Range<usize>,
    stop: &AtomicBool,
    touches: &AtomicU64,
) -> Result<(), String> {
    let mut written = vec![0u64; pages.len()];
    for access in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Every page once, then every page again; the value says which page and when.
        let index = access as usize % pages.len();
        let page = pages.start + index;
        let offset = page * machine.page().bytes();
        let mut found = [0; 8];
        memory.read(offset, &mut found).map_err(say)?;
        let found = u64::from_le_bytes(found);
        if found != written[index] {
            return Err(format!("page {page} holds {found:#x}, and {:#x} was written", written[index]));
        }
        let value = (page as u64) << 40 | (access + 1);
        memory.write(offset, &value.to_le_bytes()).map_err(say)?;
        written[index] = value;
        touches.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
