//! The soak: 32 threads touch, write, fork, bind, migrate, demote, promote, reclaim, unplug, map and unmap at once, and
//! every page is checked against what was last written to it. Private memory, memory that processes share, the pages of a file,
//! and a swap file under all of it.
//!
//! `PNODE_SOAK_SECONDS=60 cargo test --release -p pnode-user --test soak -- --nocapture` is the long run (so long on each
//! backend, roomy and tight); without the variable each takes half a second.

mod memory;
#[path = "../support/random.rs"]
mod random;
mod world;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pnode_core::{Features, MemoryClass};
use pnode_user::fault::Choice;
use pnode_user::machine::{BuildError, Rights};
use pnode_user::{Machine, NodeSpec};

use memory::{Commons, Crowd, Shared, load};
use random::Random;
use world::{ROLES, World};

/// Where the words of a page are that programs write to.
const PLACES: [usize; 4] = [0, 8, 2048, 4088];
const PAGE: usize = 4096;

/// A thread that takes no step for so long hangs; on the busiest machine each is a small part of it.
const HUNG: Duration = Duration::from_secs(300);

/// Whether there is ordinary memory for everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Roomy,
    Tight,
}

const NODES: usize = 6;

fn machine(choice: Choice, room: Room) -> Result<Machine, BuildError> {
    let tier = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION | Features::HOTUNPLUG;
    let fenced = Features::RECLAIM | Features::DEMOTION | Features::HOTUNPLUG | Features::WRITE_FENCE;
    let device = NodeSpec::private(MemoryClass::HBM, 276).features(Features::USER_NUMA | Features::HOTUNPLUG);
    let ordinary = if room == Room::Roomy { 2048 } else { 700 };
    Machine::builder()
        .node(NodeSpec::ordinary(ordinary).zone(200, 16))
        .node(NodeSpec::ordinary(ordinary + 30).hole(100, 30))
        .node(NodeSpec::private(MemoryClass::FAR, 512).features(tier))
        .node(NodeSpec::private(MemoryClass::FAR, 256).features(fenced))
        .node(NodeSpec::compressed(137, 384).hole(61, 9))
        .node(device.zone(100, 0).zone(60, 0).hole(90, 20))
        .swap(512)
        .faults(choice)
        .build()
}

fn soak(choice: Choice, room: Room, length: Duration) {
    let machine = match machine(choice, room) {
        Ok(machine) => machine,
        Err(BuildError::Faults(error)) if choice != Choice::Signal => return println!("SKIPPED: {error}"),
        Err(error) => panic!("{error}"),
    };
    let nodes = [0, 1, 2, 3, 4, 5].map(|number| machine.node(number).unwrap());
    let seed = std::env::var("PNODE_SOAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    let memory = machine.map(1536, nodes[0]).unwrap();
    // Half of the time, so that both kinds of mappings are moved and taken apart.
    if seed % 2 == 1 {
        memory.advise_huge();
    }
    // Half of the pages do not compress.
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for page in 0..memory.pages() {
        let noise: Vec<u8> = (0..PAGE / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        let bytes = if page % 2 == 0 { noise } else { vec![page as u8; PAGE] };
        memory.write(page * PAGE, &bytes).unwrap();
        PLACES.iter().for_each(|place| memory.write(page * PAGE + place, &[0; 8]).unwrap());
    }
    let process = machine.process(96, nodes[0]).unwrap();
    assert_eq!(process.map(96, Rights::ReadWrite), Ok(0..96));
    let versions = (0..process.pages()).map(|_| Mutex::default()).collect();
    let world = World {
        machine: &machine,
        nodes,
        crowd: Crowd { process, versions },
        commons: Commons::new(&machine, nodes[0]),
        shared: Shared { memory: &memory, words: (0..memory.pages()).map(|_| Mutex::default()).collect() },
        room,
        stop: AtomicBool::new(false),
        steps: Default::default(),
    };
    let running = AtomicUsize::new(ROLES.iter().map(|(_, count)| count).sum());
    let first_problem = Mutex::new(None);
    thread::scope(|scope| {
        let mut thread_number = 0;
        for (index, (role, count)) in ROLES.into_iter().enumerate() {
            for number in 0..count {
                thread_number += 1;
                let mut random = Random((seed << 16 | thread_number).wrapping_mul(0x2545_f491_4f6c_dd1d));
                let (world, running, first_problem) = (&world, &running, &first_problem);
                scope.spawn(move || {
                    while !world.stop.load(Ordering::Relaxed) {
                        if let Err(problem) = world.step(role, number, &mut random) {
                            let problem = format!("{role:?}: {problem}");
                            first_problem
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(problem);
                            world.stop.store(true, Ordering::Relaxed);
                        }
                        world.steps[index].fetch_add(1, Ordering::Relaxed);
                    }
                    running.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
        let start = Instant::now();
        // Longer than that only until each role had a turn: a busy machine gives some of them none for a while.
        let starved = || world.steps.iter().any(|steps| steps.load(Ordering::Relaxed) == 0);
        while (start.elapsed() < length || starved()) && !world.stop.load(Ordering::Relaxed) {
            if start.elapsed() > length + HUNG {
                eprintln!(
                    "{choice:?} {room:?} seed {seed}: some never came to their turn: {:?}",
                    world.steps
                );
                std::process::abort();
            }
            thread::sleep(Duration::from_millis(20));
        }
        world.stop.store(true, Ordering::Relaxed);
        let patience = Instant::now();
        while running.load(Ordering::Relaxed) > 0 {
            if patience.elapsed() > HUNG {
                eprintln!(
                    "{choice:?} {room:?} seed {seed}: {running:?} threads hang; steps {:?}",
                    world.steps
                );
                std::process::abort();
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    let problem = first_problem.into_inner().unwrap_or_else(PoisonError::into_inner);
    if problem.is_some() {
        // What a reader needs first: who has the memory.
        println!("audit: {:?}\n{}{}", machine.audit(), machine.counters(), machine.occupancy());
    }
    assert_eq!(problem, None, "{choice:?} {room:?} seed {seed}");

    for (page, words) in world.shared.words.iter().enumerate() {
        let words = words.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, word) in words.iter().enumerate() {
            assert_eq!(
                world.shared.read(page, place, false),
                Ok(*word),
                "page {page} of {choice:?}, seed {seed}"
            );
        }
    }
    for (page, version) in world.crowd.versions().into_iter().enumerate() {
        assert_eq!(
            load(&world.crowd.process, page),
            Ok(version),
            "page {page} of the crowd, {choice:?}, seed {seed}"
        );
    }
    world.commons.check();
    machine.audit().unwrap();
    let counters = machine.counters();
    let steps: Vec<_> = ROLES
        .iter()
        .zip(&world.steps)
        .map(|((role, _), steps)| format!("{role:?} {}", steps.load(Ordering::Relaxed)))
        .collect();
    println!("{choice:?} {room:?} seed {seed}: {}\n{counters}", steps.join(", "));
    drop(world);
    drop(memory);
    machine.audit().unwrap();
    // The window of the compressed node goes with the node.
    machine.unplug(nodes[4]).unwrap();
    for node in nodes.into_iter().filter(|node| *node != nodes[4]) {
        assert_eq!(machine.free_frames(node), machine.frames(node), "{node:?} has lost frames");
    }
}

/// What the process has that a machine could leave behind.
fn left_behind() -> [usize; 2] {
    ["/proc/self/task", "/proc/self/fd"]
        .map(|what| std::fs::read_dir(what).map_or(0, |entries| entries.count()))
}

#[test]
fn nothing_is_lost_whatever_32_threads_do() {
    let seconds =
        std::env::var("PNODE_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.5);
    for choice in [Choice::Signal, Choice::Userfaultfd, Choice::UserfaultfdEvents] {
        for room in [Room::Roomy, Room::Tight] {
            let before = left_behind();
            soak(choice, room, Duration::from_secs_f64(seconds));
            assert_eq!(left_behind(), before, "threads and file descriptors after {choice:?}");
        }
    }
}
