//! What each thread does: one step of its role at a time.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::Duration;

use pnode_core::policy::{Mode, Wish};
use pnode_core::{NodeId, NodeMask, Request};
use pnode_user::Machine;
use pnode_user::fault::FaultError;
use pnode_user::machine::{Existing, MapError, Placement, ProcessError, Rights, UnplugError};

use super::memory::{Commons, Crowd, Shared, load, store, tolerate};
use super::random::Random;
use super::{NODES, PAGE, Room};

/// What each thread does, and how many do it.
pub(super) const ROLES: [(Role, usize); 11] = [
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
pub(super) enum Role {
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

/// Everything that one step of a thread needs.
pub(super) struct World<'m> {
    pub(super) machine: &'m Machine,
    pub(super) nodes: [NodeId; NODES],
    pub(super) shared: Shared<'m>,
    pub(super) crowd: Crowd,
    pub(super) commons: Commons,
    pub(super) room: Room,
    pub(super) stop: AtomicBool,
    /// How many steps each role did.
    pub(super) steps: [AtomicU64; ROLES.len()],
}

impl World<'_> {
    pub(super) fn step(&self, role: Role, number: usize, random: &mut Random) -> Result<(), String> {
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
        let low = self.machine.zones(self.nodes[5])[0].span.end();
        let request = if random.below(2) == 0 { Request::page().below(low) } else { Request::page() };
        if let Ok(frame) = grant.alloc(request) {
            if request.limit().is_some_and(|limit| frame.pfn() >= limit) {
                return Err(format!("{frame:?} is beyond the limit"));
            }
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
