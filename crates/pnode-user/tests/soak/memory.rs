//! The memory that the threads share, and what each page of it must hold.

use std::sync::{Mutex, PoisonError};

use pnode_core::NodeId;
use pnode_user::Machine;
use pnode_user::fault::FaultError;
use pnode_user::machine::{Mapping, Object, Process, Rights, Sharing};

use super::random::Random;
use super::{PAGE, PLACES, Room};

/// The mapping that all threads share, and what its pages must hold.
pub(super) struct Shared<'m> {
    pub(super) memory: &'m Mapping,
    /// By page: the word at each place. Its lock is the right to touch those words.
    pub(super) words: Vec<Mutex<[u64; PLACES.len()]>>,
}

impl Shared<'_> {
    /// Writes to a word of a page and reads all of them.
    pub(super) fn touch(&self, random: &mut Random, room: Room) -> Result<(), String> {
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

    pub(super) fn read(&self, page: usize, place: usize, by_pointer: bool) -> Result<u64, FaultError> {
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
pub(super) struct Crowd {
    pub(super) process: Process,
    /// By page: how often it was written, which is what it holds. Its lock is the right to write.
    pub(super) versions: Vec<Mutex<u64>>,
}

impl Crowd {
    pub(super) fn touch(&self, random: &mut Random, room: Room) -> Result<(), String> {
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

    pub(super) fn versions(&self) -> Vec<u64> {
        self.versions.iter().map(|version| *version.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}

/// Memory that two processes share, and a file that both map.
pub(super) struct Commons {
    pub(super) objects: [Object; 2],
    pub(super) processes: [Process; 2],
    /// By object and page: what the page holds. Its lock is the right to touch it.
    pub(super) versions: [Vec<Mutex<u64>>; 2],
}

impl Commons {
    const PAGES: usize = 48;

    pub(super) fn new(machine: &Machine, near: NodeId) -> Self {
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
    pub(super) fn touch(&self, random: &mut Random, room: Room) -> Result<(), String> {
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
    pub(super) fn check(&self) {
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

pub(super) fn load(process: &Process, page: usize) -> Result<u64, FaultError> {
    let mut bytes = [0; 8];
    process.read(page, 40, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

pub(super) fn store(process: &Process, page: usize, value: u64) -> Result<(), FaultError> {
    process.write(page, 40, &value.to_le_bytes())
}

/// A shortage is no defect where there is little room, as long as it is said.
pub(super) fn tolerate(error: FaultError, room: Room) -> Result<(), String> {
    match error {
        FaultError::NoFrame(_) | FaultError::NoPlace(_) | FaultError::Stored(_) if room == Room::Tight => {
            Ok(())
        }
        error => Err(format!("a touch could not be served: {error}")),
    }
}
