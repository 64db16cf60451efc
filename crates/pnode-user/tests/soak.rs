//! The soak: 32 threads touch, write, fork, bind, migrate, demote, promote, reclaim, unplug, map and unmap at once, and
//! every page is checked against what was last written to it. Private memory, memory that processes share, the pages of a file,
//! and a swap file under all of it.
//!
//! `PNODE_SOAK_SECONDS=60 cargo test --release -p pnode-user --test soak -- --nocapture` is the long run (so long on each
//! backend, roomy and tight); without the variable each takes half a second.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pnode_core::policy::{Mode, Wish};
use pnode_core::{Features, MemoryClass, NodeId, NodeMask, Request};
use pnode_user::fault::{Choice, FaultError};
use pnode_user::machine::{
    BuildError, Existing, MapError, Mapping, Object, Placement, Process, ProcessError, Rights, Sharing,
    UnplugError,
};
use pnode_user::{Machine, NodeSpec};

/// Where the words of a page are that programs write to.
const PLACES: [usize; 4] = [0, 8, 2048, 4088];
const PAGE: usize = 4096;

/// A thread that takes no step for so long hangs; on the busiest machine each is a small part of it.
const HUNG: Duration = Duration::from_secs(300);

/// What each thread does, and how many do it.
const ROLES: [(Role, usize); 11] = [
    (Role::Toucher, 7),
    (Role::Sharer, 3),
    (Role::Forker, 4),
    (Role::Migrator, 4),
    (Role::Demoter, 3),
    (Role::Promoter, 2),
    (Role::Reclaimer, 2),
    (Role::Unplugger, 2),
    (Role::Mapper, 3),
    (Role::Allocator, 1),
    (Role::Observer, 1),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Toucher,
    Sharer,
    Forker,
    Migrator,
    Demoter,
    Promoter,
    Reclaimer,
    Unplugger,
    Mapper,
    Allocator,
    Observer,
}

/// Whether there is ordinary memory for everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Roomy,
    Tight,
}

/// The mapping that all threads share, and what its pages must hold.
struct Shared<'m> {
    memory: &'m Mapping,
    /// By page: the word at each place. Its lock is the right to touch those words.
    words: Vec<Mutex<[u64; PLACES.len()]>>,
}

impl Shared<'_> {
    /// Writes to a word of a page and reads all of them.
    fn touch(&self, random: &mut Random, room: Room) -> Result<(), String> {
        let page = random.below(self.words.len());
        let mut words = self.words[page].lock().unwrap_or_else(PoisonError::into_inner);
        let by_pointer = room == Room::Roomy && random.below(2) == 0;
        if random.below(3) > 0 {
            let (place, value) = (random.below(PLACES.len()), random.next());
            match self.write(page, place, value, by_pointer) {
                Ok(()) => words[place] = value,
                Err(error) => return tolerate(error, room),
            }
        }
        for (place, word) in words.iter().enumerate() {
            match self.read(page, place, by_pointer) {
                Ok(found) if found == *word => {}
                Ok(found) => {
                    return Err(format!(
                        "page {page} holds {found:#x} at {place}, and {word:#x} was written"
                    ));
                }
                Err(error) => return tolerate(error, room),
            }
        }
        Ok(())
    }

    fn write(&self, page: usize, place: usize, value: u64, by_pointer: bool) -> Result<(), FaultError> {
        let offset = page * PAGE + PLACES[place];
        if !by_pointer {
            return self.memory.write(offset, &value.to_le_bytes());
        }
        // SAFETY: the word is in the mapping, and whoever touches it holds the page's lock in `words`.
        unsafe { self.memory.as_ptr().wrapping_add(offset).cast::<u64>().write_volatile(value) };
        Ok(())
    }

    fn read(&self, page: usize, place: usize, by_pointer: bool) -> Result<u64, FaultError> {
        let offset = page * PAGE + PLACES[place];
        if by_pointer {
            // SAFETY: as in `write`.
            return Ok(unsafe { self.memory.as_ptr().wrapping_add(offset).cast::<u64>().read_volatile() });
        }
        let mut bytes = [0; 8];
        self.memory.read(offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// A process that threads touch while others fork it.
struct Crowd {
    process: Process,
    /// By page: how often it was written, which is what it holds. Its lock is the right to write.
    versions: Vec<Mutex<u64>>,
}

impl Crowd {
    fn touch(&self, random: &mut Random, room: Room) -> Result<(), String> {
        let page = random.below(self.versions.len());
        let mut version = self.versions[page].lock().unwrap_or_else(PoisonError::into_inner);
        match load(&self.process, page) {
            Ok(found) if found == *version => {}
            Ok(found) => return Err(format!("page {page} of the crowd holds {found}, not {version}")),
            Err(error) => return tolerate(error, room),
        }
        match store(&self.process, page, *version + 1) {
            Ok(()) => *version += 1,
            Err(error) => return tolerate(error, room),
        }
        Ok(())
    }

    fn versions(&self) -> Vec<u64> {
        self.versions.iter().map(|version| *version.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}

/// Memory that two processes share, and a file that both map.
struct Commons {
    objects: [Object; 2],
    processes: [Process; 2],
    /// By object and page: what the page holds. Its lock is the right to touch it.
    versions: [Vec<Mutex<u64>>; 2],
}

impl Commons {
    const PAGES: usize = 48;

    fn new(machine: &Machine, near: NodeId) -> Self {
        let file = machine.file(vec![0; Self::PAGES * PAGE], near).unwrap();
        let objects = [machine.shared_memory(Self::PAGES, near).unwrap(), file];
        let processes = [0, 1].map(|_| {
            let process = machine.process(2 * Self::PAGES, near).unwrap();
            for (number, object) in objects.iter().enumerate() {
                let start = number * Self::PAGES;
                let room = process.map_object(object, 0..Self::PAGES, Rights::ReadWrite, Sharing::Shared);
                assert_eq!(room, Ok(start..start + Self::PAGES));
            }
            process
        });
        let versions = [0, 1].map(|_| (0..Self::PAGES).map(|_| Mutex::default()).collect());
        Self { objects, processes, versions }
    }

    /// Reads and writes a page through a mapping of one process or as the object, and sees what the others wrote.
    fn touch(&self, random: &mut Random, room: Room) -> Result<(), String> {
        let (number, page) = (random.below(2), random.below(Self::PAGES));
        let object = &self.objects[number];
        if number == 1 && random.below(200) == 0 {
            object.sync().map(drop).or_else(|error| tolerate(error, room))?;
        }
        let mut version = self.versions[number][page].lock().unwrap_or_else(PoisonError::into_inner);
        let offset = page * PAGE + 40;
        let at = number * Self::PAGES + page;
        let mut bytes = [0; 8];
        let read = match random.below(3) {
            2 => object.read(offset, &mut bytes),
            who => self.processes[who].read(at, 40, &mut bytes),
        };
        match read.map(|()| u64::from_le_bytes(bytes)) {
            Ok(found) if found == *version => {}
            Ok(found) => return Err(format!("page {page} of object {number} holds {found}, not {version}")),
            Err(error) => return tolerate(error, room),
        }
        let new = (*version + 1).to_le_bytes();
        let written = match random.below(3) {
            2 => object.write(offset, &new),
            who => self.processes[who].write(at, 40, &new),
        };
        match written {
            Ok(()) => *version += 1,
            Err(error) => return tolerate(error, room),
        }
        Ok(())
    }

    /// Looks at everything once more, also at what the file has on its disk.
    fn check(&self) {
        self.objects[1].sync().unwrap();
        let disk = self.objects[1].on_disk();
        for (number, versions) in self.versions.iter().enumerate() {
            for (page, version) in versions.iter().enumerate() {
                let version = *version.lock().unwrap_or_else(PoisonError::into_inner);
                for process in &self.processes {
                    assert_eq!(
                        load(process, number * Self::PAGES + page),
                        Ok(version),
                        "{number}, page {page}"
                    );
                }
                if number == 1 {
                    let word = &disk[page * PAGE + 40..][..8];
                    assert_eq!(word, version.to_le_bytes(), "page {page} on the disk");
                }
            }
        }
    }
}

fn load(process: &Process, page: usize) -> Result<u64, FaultError> {
    let mut bytes = [0; 8];
    process.read(page, 40, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn store(process: &Process, page: usize, value: u64) -> Result<(), FaultError> {
    process.write(page, 40, &value.to_le_bytes())
}

/// A shortage is no defect where there is little room, as long as it is said.
fn tolerate(error: FaultError, room: Room) -> Result<(), String> {
    match error {
        FaultError::NoFrame(_) | FaultError::NoPlace(_) | FaultError::Stored(_) if room == Room::Tight => {
            Ok(())
        }
        error => Err(format!("a touch could not be served: {error}")),
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() >> 11) as usize % most
    }

    fn range(&mut self, pages: usize, most: usize) -> Range<usize> {
        let start = self.below(pages);
        start..(start + 1 + self.below(most)).min(pages)
    }
}

const NODES: usize = 6;

fn machine(choice: Choice, room: Room) -> Result<Machine, BuildError> {
    let tier = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION | Features::HOTUNPLUG;
    let fenced = Features::RECLAIM | Features::DEMOTION | Features::HOTUNPLUG | Features::WRITE_FENCE;
    let ordinary = if room == Room::Roomy { 2048 } else { 700 };
    Machine::builder()
        .node(NodeSpec::ordinary(ordinary))
        .node(NodeSpec::ordinary(ordinary))
        .node(NodeSpec::private(MemoryClass::FAR, 512).features(tier))
        .node(NodeSpec::private(MemoryClass::FAR, 256).features(fenced))
        .node(NodeSpec::compressed(128, 384))
        .node(NodeSpec::private(MemoryClass::HBM, 256).features(Features::USER_NUMA | Features::HOTUNPLUG))
        .swap(512)
        .faults(choice)
        .build()
}

/// Everything that one step of a thread needs.
struct World<'m> {
    machine: &'m Machine,
    nodes: [NodeId; NODES],
    shared: Shared<'m>,
    crowd: Crowd,
    commons: Commons,
    room: Room,
    stop: AtomicBool,
    /// How many steps each role did.
    steps: [AtomicU64; ROLES.len()],
}

impl World<'_> {
    fn step(&self, role: Role, number: usize, random: &mut Random) -> Result<(), String> {
        let memory = self.shared.memory;
        let [near, other, far, fenced, compressed, device] = self.nodes;
        match role {
            Role::Toucher if random.below(4) == 0 => self.crowd.touch(random, self.room)?,
            Role::Sharer => self.commons.touch(random, self.room)?,
            Role::Forker => {
                self.fork_the_crowd(random)?;
                self.family(random)?;
            }
            Role::Toucher => self.shared.touch(random, self.room).map_err(|error| {
                let free: Vec<u64> = self.nodes.iter().map(|node| self.machine.free_frames(*node)).collect();
                format!("{error}; free frames by node: {free:?}\n{}", self.machine.occupancy())
            })?,
            Role::Migrator => {
                let page = random.below(memory.pages());
                let moved = match random.below(3) {
                    0 => memory.migrate(page, near),
                    1 => memory.migrate(page, other),
                    _ => match self.machine.owner_grant(device) {
                        Ok(grant) => memory.migrate_with(page, &grant),
                        // The device is unplugged now.
                        Err(_) => Ok(()),
                    },
                };
                match moved {
                    Ok(()) | Err(FaultError::NoFrame(_) | FaultError::Stored(_)) => {}
                    Err(error) => return Err(format!("a page did not migrate: {error}")),
                }
            }
            Role::Demoter => {
                let target = [far, fenced, compressed][random.below(3)];
                // A refusal says why and is counted; an error is a node that is away.
                let _ = memory.demote(random.range(memory.pages(), 24), target);
            }
            Role::Promoter => match memory.promote(random.range(memory.pages(), 24), far) {
                // Nothing was there to promote, or no room: let it become something else.
                Ok(0) | Err(FaultError::Denied(_) | FaultError::NoFrame(_)) => {
                    thread::sleep(Duration::from_micros(100));
                }
                Ok(_) => {}
                Err(error) => return Err(format!("a page was not promoted: {error}")),
            },
            Role::Reclaimer => {
                if random.below(20) == 0 {
                    self.machine.age();
                }
                self.machine.reclaim(1 + random.below(32));
                thread::sleep(Duration::from_micros(300));
            }
            Role::Unplugger => {
                let node = if number == 0 { [far, device] } else { [fenced, compressed] }[random.below(2)];
                self.pull_and_plug(node)?;
                thread::sleep(Duration::from_millis(2));
            }
            Role::Mapper => self.map_and_unmap(random)?,
            Role::Allocator => self.allocate(random)?,
            Role::Observer => {
                let occupancy = self.machine.occupancy();
                if occupancy.nodes.len() != NODES || self.machine.counters().hard_faults == 0 {
                    return Err("the machine cannot be read back".into());
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Takes a node away and brings it back. What keeps it is said, and it is asked for again.
    fn pull_and_plug(&self, node: NodeId) -> Result<(), String> {
        loop {
            match self.machine.unplug(node) {
                Ok(_) => break,
                Err(
                    UnplugError::Evacuate { error: FaultError::NoFrame(_) | FaultError::Stored(_), .. }
                    | UnplugError::Offline(_)
                    | UnplugError::Service(_),
                ) => return Ok(()),
                // Its memory is gone, and somebody holds a grant: it must go in the end, or the soak hangs and says so.
                Err(UnplugError::Unregister(_)) => thread::yield_now(),
                Err(error) => return Err(format!("{node:?} was not unplugged: {error}")),
            }
        }
        self.machine.plug(node).map_err(|error| format!("{node:?} was not plugged in: {error}"))
    }

    fn map_and_unmap(&self, random: &mut Random) -> Result<(), String> {
        let device = self.nodes[5];
        let placement = [Placement::Near(self.nodes[1]), Placement::Bound(device), Placement::Owner(device)]
            [random.below(3)];
        let mapping = match self.machine.map_at(48, placement) {
            Ok(mapping) => mapping,
            // The device is unplugged now.
            Err(MapError::Denied(_)) => return Ok(()),
            Err(error) => return Err(format!("nothing was mapped: {error}")),
        };
        let seed = random.next();
        let value = |page: usize| seed ^ page as u64;
        let mut written = 0;
        for page in 0..mapping.pages() {
            match mapping.write(page * PAGE + 16, &value(page).to_le_bytes()) {
                Ok(()) => written += 1,
                // The device is full, or away, and nothing spills.
                Err(FaultError::NoFrame(_) | FaultError::Denied(_)) => break,
                Err(error) => return Err(format!("a new mapping cannot be written to: {error}")),
            }
        }
        thread::yield_now();
        for page in 0..written {
            let mut found = [0; 8];
            match mapping.read(page * PAGE + 16, &mut found) {
                Ok(()) => {}
                // A bound page that was swapped while its node was away waits for room there: a bind does not spill.
                Err(FaultError::NoFrame(_)) if placement == Placement::Bound(device) => continue,
                Err(error) => {
                    tolerate(error, self.room)?;
                    continue;
                }
            }
            if u64::from_le_bytes(found) != value(page) {
                return Err(format!("page {page} of a new mapping has lost its bytes"));
            }
        }
        Ok(())
    }

    /// A child has for each page what was there at some moment of the fork, and keeps it whatever the parent does.
    fn fork_the_crowd(&self, random: &mut Random) -> Result<(), String> {
        let before = self.crowd.versions();
        let child = match self.crowd.process.fork() {
            Ok(child) => child,
            Err(ProcessError::Page { error, .. }) => return tolerate(error, self.room),
            Err(error) => return Err(format!("the crowd was not forked: {error}")),
        };
        let after = self.crowd.versions();
        let mut seen = Vec::new();
        for page in 0..after.len() {
            match load(&child, page) {
                Ok(found) if (before[page]..=after[page]).contains(&found) => seen.push((page, found)),
                Ok(found) => {
                    let (before, after) = (before[page], after[page]);
                    return Err(format!("page {page} of a child holds {found}, not {before} to {after}"));
                }
                Err(error) => tolerate(error, self.room)?,
            }
        }
        thread::yield_now();
        for (page, value) in seen {
            match load(&child, page) {
                Ok(found) if found == value => {}
                Ok(found) => return Err(format!("page {page} of a child became {found}, and was {value}")),
                Err(error) => tolerate(error, self.room)?,
            }
            if random.below(8) == 0 {
                // The crowd must not see it; its own checks would say so.
                store(&child, page, u64::MAX).or_else(|error| tolerate(error, self.room))?;
            }
        }
        Ok(())
    }

    /// A family of processes, forked from one another, with policies that come and go.
    fn family(&self, random: &mut Random) -> Result<(), String> {
        const PAGES: usize = 24;
        let [near, other, far, _, _, device] = self.nodes;
        let problem = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        let process = self.machine.process(PAGES, near).map_err(|error| problem("no process", &error))?;
        process.map(PAGES, Rights::ReadWrite).map_err(|error| problem("nothing was mapped", &error))?;
        let mut family = vec![(process, [0u64; PAGES])];
        for _ in 0..40 {
            let who = random.below(family.len());
            let page = random.below(PAGES);
            let members = family.len();
            let (process, values) = &mut family[who];
            match random.below(12) {
                0..=4 => match store(process, page, random.next()) {
                    // Read what was written, so that the model and the page agree on it.
                    Ok(()) => match load(process, page) {
                        Ok(found) => values[page] = found,
                        Err(error) => {
                            return Err(problem("a page that was just written cannot be read", &error));
                        }
                    },
                    // A bind to a full device does not spill.
                    Err(FaultError::NoFrame(_) | FaultError::NoPlace(_) | FaultError::Denied(_)) => {}
                    Err(error) => tolerate(error, self.room)?,
                },
                5..=6 => match load(process, page) {
                    Ok(found) if found == values[page] => {}
                    Ok(found) => {
                        let value = values[page];
                        return Err(format!("page {page} of a family holds {found:#x}, not {value:#x}"));
                    }
                    Err(FaultError::NoFrame(_) | FaultError::NoPlace(_) | FaultError::Denied(_)) => {}
                    Err(error) => tolerate(error, self.room)?,
                },
                7 if members < 4 => match process.fork() {
                    Ok(child) => {
                        let values = *values;
                        family.push((child, values));
                    }
                    Err(ProcessError::Page { error, .. }) => tolerate(error, self.room)?,
                    Err(error) => return Err(problem("a family was not forked", &error)),
                },
                8 if members > 1 => drop(family.swap_remove(who)),
                9 => {
                    // Nodes are away now and then, and pages that others share do not move: each says so.
                    process.move_pages(&[(page, [near, other, device, far][random.below(4)])]);
                }
                10 => {
                    let nodes = NodeMask::of([near, device][random.below(2)]).with(other);
                    let moves = [Existing::Stay, Existing::Move][random.below(2)];
                    let _ = process.mbind(page..PAGES, &Wish::new(Mode::Bind, nodes), moves);
                }
                _ => {
                    let wish = [
                        Wish::new(Mode::Interleave, NodeMask::of(near).with(other)),
                        Wish::new(Mode::Default, NodeMask::EMPTY),
                        Wish::new(Mode::Preferred, NodeMask::of(other)),
                    ][random.below(3)];
                    process.set_mempolicy(&wish).map_err(|error| problem("a policy was refused", &error))?;
                }
            }
        }
        Ok(())
    }

    /// A driver's own frames, and objects on its node.
    fn allocate(&self, random: &mut Random) -> Result<(), String> {
        let Ok(grant) = self.machine.owner_grant(self.nodes[5]) else {
            thread::yield_now();
            return Ok(());
        };
        if let Ok(frame) = grant.alloc(Request::page()) {
            let value = random.next().to_le_bytes();
            let mut found = [0; 8];
            if !self.machine.write(&frame, 100, &value)
                || !self.machine.read(&frame, 100, &mut found)
                || found != value
            {
                return Err("a driver's frame has lost its bytes".into());
            }
            self.machine.free(frame).map_err(|error| error.to_string())?;
        }
        let heap = grant.into_heap().map_err(|error| error.to_string())?;
        let mut objects = heap.vec();
        for number in 0..1000 {
            // The node may be full or leaving.
            if objects.push(number).is_err() {
                break;
            }
        }
        if objects.iter().enumerate().any(|(number, object)| number != *object) {
            return Err("an object has lost its bytes".into());
        }
        thread::sleep(Duration::from_micros(200));
        Ok(())
    }
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
