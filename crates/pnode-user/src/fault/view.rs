//! A run of addresses whose pages the kernel maps exactly where we say.

use core::fmt;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pnode_core::PageSize;
use pnode_core::sync::Ordering;

use super::uffd::Watch;
use super::{Backend, signal};
use crate::backing::Backing;
use crate::sys::{Reservation, Rights, SysError};

/// What a mapping of a frame admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Reads. A write traps: the fence of a node with `WRITE_FENCE`, and of a page that is being moved.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// What stands at one page of a view. Two pages that [continue](Slot::is_continued_by) each other share one mapping
/// of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// Nothing; touches trap.
    Absent(Trap),
    /// Frame `frame` of the memory file `file`.
    Mapped { file: i32, frame: u64, protection: Protection, trap: Trap },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trap {
    Signal,
    Event,
}

impl Slot {
    fn is_continued_by(self, next: Self) -> bool {
        match (self, next) {
            (Self::Mapped { file, frame, protection, trap }, next) => {
                next == Self::Mapped { file, frame: frame + 1, protection, trap }
            }
            (absent, next) => absent == next,
        }
    }
}

/// A run of addresses that a program may touch.
///
/// Frames lie in any order, and the kernel keeps one mapping for each run of consecutive frames; it allows
/// `vm.max_map_count` of them (65,530 by default), which would end the program at 256 MiB of scattered pages. So
/// what is mapped is a *cache* of what may be mapped, as a processor's TLB is a cache of page tables: above the
/// backend's budget, pages lose their mapping, oldest place first, and are mapped again at their next touch. The
/// table of pages is the caller's; the view knows only what the kernel has mapped now.
///
/// Every change is atomic for the threads of the program: they see the page before or the page after. A touch that
/// is not admitted waits for the [`super::Pager`].
///
/// # Invariants
///
/// - **V1** `slots` says what the kernel has mapped at each page, while `hardware` is locked.
pub struct View {
    reservation: Reservation,
    page: PageSize,
    backend: Arc<Backend>,
    hardware: Mutex<Hardware>,
}

struct Hardware {
    slots: Vec<Slot>,
    /// How many mappings the kernel keeps for the slots.
    mappings: usize,
    /// The page at which the search for mappings to give up goes on.
    hand: usize,
}

/// A view keeps at least so many mappings however tight the budget is, so that it can make progress.
const FLOOR: usize = 16;
/// How many pages lose their mapping at a time.
const CHUNK: usize = 64;

impl View {
    /// Reserves addresses for `pages` pages of `page` bytes; nothing is mapped there.
    ///
    /// # Errors
    ///
    /// [`SysError`] if the address space has no such run, or a limit (`RLIMIT_AS`) forbids it.
    pub fn new(backend: &Arc<Backend>, pages: usize, page: PageSize) -> Result<Self, SysError> {
        let too_large = SysError { call: "mmap", errno: 12 };
        let bytes = pages.checked_mul(page.bytes()).ok_or(too_large)?;
        let mut slots = Vec::new();
        slots.try_reserve_exact(pages).map_err(|_| too_large)?;
        slots.resize(pages, Slot::Absent(Trap::Signal));
        let reservation = Reservation::new(bytes)?;
        let hardware = Mutex::new(Hardware { slots, mappings: 1, hand: 0 });
        let view = Self { reservation, page, backend: Arc::clone(backend), hardware };
        view.backend.budget.used.fetch_add(1, Ordering::Relaxed);
        view.make_absent(&mut view.lock(), 0, pages)?;
        Ok(view)
    }

    /// The address of the first page.
    pub fn start(&self) -> usize {
        self.reservation.start()
    }

    /// How many pages there are.
    pub fn pages(&self) -> usize {
        self.reservation.bytes() >> self.page.shift()
    }

    /// The size of a page.
    pub const fn page(&self) -> PageSize {
        self.page
    }

    /// How many mappings of the kernel the view takes now.
    pub fn mappings(&self) -> usize {
        self.lock().mappings
    }

    /// What is mapped at `page` now: the frame of its backing and the protection. `None` if a touch would trap, for
    /// want of a frame or of a mapping (see the type's description).
    pub fn mapped(&self, page: usize) -> Option<(u64, Protection)> {
        match self.lock().slots.get(page) {
            Some(Slot::Mapped { frame, protection, .. }) => Some((*frame, *protection)),
            _ => None,
        }
    }

    /// Maps `count` frames of `backing` from `frame` on at the pages from `page` on, in place of what is there.
    ///
    /// # Errors
    ///
    /// [`SysError`] from the kernel; what was there is still there. Pages or frames that do not exist are `EINVAL`.
    pub fn map(
        &self,
        page: usize,
        count: usize,
        backing: &Backing,
        frame: u64,
        protection: Protection,
    ) -> Result<(), SysError> {
        let invalid = SysError { call: "mmap", errno: 22 };
        let frames_end = frame.checked_add(count as u64).filter(|end| *end <= backing.frames());
        if !self.has(page, count) || frames_end.is_none() || backing.page() != self.page {
            return Err(invalid);
        }
        let rights = match protection {
            Protection::ReadOnly => Rights::Read,
            Protection::ReadWrite => Rights::ReadWrite,
        };
        let (offset, bytes) = (page * self.page.bytes(), count * self.page.bytes());
        let file_offset = frame as usize * self.page.bytes();
        let mut hardware = self.lock();
        let map = || self.reservation.map_file(offset, bytes, backing.file(), file_offset, rights);
        let mut mapped = map();
        while mapped.is_err_and(SysError::is_no_memory)
            && self.give_up_chunk(&mut hardware, page..page + count)
        {
            // Somebody else in the process took the mappings that the budget counted on.
            mapped = map();
        }
        mapped?;
        let trap = match protection {
            Protection::ReadWrite => Trap::Signal,
            Protection::ReadOnly => self.watch(offset, bytes, Watch::Writes),
        };
        let file = backing.file().as_raw_fd();
        self.set(&mut hardware, page, count, |index| Slot::Mapped {
            file,
            frame: frame + index as u64,
            protection,
            trap,
        });
        while self.is_over_budget(&hardware) && self.give_up_chunk(&mut hardware, page..page + count) {}
        Ok(())
    }

    /// Lets writes to `page` trap from now on, if a frame is mapped there. All earlier writes are in the frame when
    /// this returns.
    ///
    /// # Errors
    ///
    /// [`SysError`] from the kernel; nothing has changed. A page that does not exist is `EINVAL`.
    pub fn write_protect(&self, page: usize) -> Result<(), SysError> {
        let mut hardware = self.lock();
        let slot = hardware.slots.get(page).copied().ok_or(SysError { call: "mprotect", errno: 22 })?;
        if let Slot::Mapped { file, frame, protection: Protection::ReadWrite, trap } = slot {
            let offset = page * self.page.bytes();
            self.reservation.protect(offset, self.page.bytes(), Rights::Read)?;
            let read_only = Slot::Mapped { file, frame, protection: Protection::ReadOnly, trap };
            self.set(&mut hardware, page, 1, |_| read_only);
        }
        Ok(())
    }

    /// Takes the mappings of `count` pages from `page` on away: the next touch of each traps.
    ///
    /// # Errors
    ///
    /// [`SysError`] from the kernel; what was mapped still is. Pages that do not exist are `EINVAL`.
    pub fn unmap(&self, page: usize, count: usize) -> Result<(), SysError> {
        if !self.has(page, count) {
            return Err(SysError { call: "mmap", errno: 22 });
        }
        self.make_absent(&mut self.lock(), page, count)
    }

    /// Makes what is an event at `page` (a touch, or a write to a page that is fenced) a signal to the thread that does
    /// it.
    pub(super) fn shut(&self, page: usize) {
        let mut hardware = self.lock();
        let (rights, shut) = match hardware.slots.get(page) {
            Some(Slot::Absent(Trap::Event)) => (Rights::None, Slot::Absent(Trap::Signal)),
            Some(&Slot::Mapped { file, frame, protection, trap: Trap::Event }) => {
                (Rights::Read, Slot::Mapped { file, frame, protection, trap: Trap::Signal })
            }
            _ => return,
        };
        let bytes = self.page.bytes();
        if self.reservation.protect(page * bytes, bytes, rights).is_ok() {
            self.set(&mut hardware, page, 1, |_| shut);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Hardware> {
        self.hardware.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, page: usize, count: usize) -> bool {
        count > 0 && page.checked_add(count).is_some_and(|end| end <= self.pages())
    }

    fn make_absent(&self, hardware: &mut Hardware, page: usize, count: usize) -> Result<(), SysError> {
        let (offset, bytes) = (page * self.page.bytes(), count * self.page.bytes());
        self.reservation.map_nothing(offset, bytes)?;
        let trap = self.watch(offset, bytes, Watch::Missing);
        self.set(hardware, page, count, |_| Slot::Absent(trap));
        Ok(())
    }

    /// Puts a run that traps by signals under userfaultfd, if there is one. Whatever fails on the way leaves a run
    /// that traps by signals.
    fn watch(&self, offset: usize, bytes: usize, watch: Watch) -> Trap {
        let Some(catcher) = &self.backend.uffd else { return Trap::Signal };
        // Only when every such touch is an event may the mapping admit everything else.
        let watched = catcher
            .watch(self.start() + offset, bytes, watch)
            .and_then(|()| self.reservation.protect(offset, bytes, Rights::ReadWrite));
        if watched.is_ok() { Trap::Event } else { Trap::Signal }
    }

    fn set(&self, hardware: &mut Hardware, page: usize, count: usize, slot: impl Fn(usize) -> Slot) {
        let around = page.saturating_sub(1)..(page + count + 1).min(hardware.slots.len());
        let breaks =
            |slots: &[Slot]| slots.windows(2).filter(|pair| !pair[0].is_continued_by(pair[1])).count();
        let before = breaks(&hardware.slots[around.clone()]);
        for (index, place) in hardware.slots[page..page + count].iter_mut().enumerate() {
            *place = slot(index);
        }
        let after = breaks(&hardware.slots[around]);
        hardware.mappings = hardware.mappings + after - before;
        let used = &self.backend.budget.used;
        // A statistic that orders nothing.
        used.fetch_add(after, Ordering::Relaxed);
        used.fetch_sub(before, Ordering::Relaxed);
    }

    fn is_over_budget(&self, hardware: &Hardware) -> bool {
        self.backend.mappings() > self.backend.budget.limit && hardware.mappings > FLOOR
    }

    /// Takes the mappings of one chunk of pages away, outside `keep`; false if nothing outside it is mapped.
    fn give_up_chunk(&self, hardware: &mut Hardware, keep: core::ops::Range<usize>) -> bool {
        let pages = hardware.slots.len();
        for _ in 0..=pages / CHUNK {
            let start = if hardware.hand < pages { hardware.hand } else { 0 };
            let end = (start / CHUNK * CHUNK + CHUNK).min(pages);
            hardware.hand = end;
            let kept = start < keep.end && keep.start < end;
            let is_mapped = |slot: &Slot| matches!(slot, Slot::Mapped { .. });
            if !kept && hardware.slots[start..end].iter().any(is_mapped) {
                return self.make_absent(hardware, start, end - start).is_ok();
            }
        }
        false
    }
}

impl Drop for View {
    fn drop(&mut self) {
        signal::detach(self.start());
        self.backend.budget.used.fetch_sub(self.lock().mappings, Ordering::Relaxed);
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:#x}, {} pages, {} mappings)", self.start(), self.pages(), self.mappings())
    }
}
