//! A run of addresses whose pages the kernel maps exactly where we say.

use core::fmt;
use core::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pnode_core::PageSize;
use pnode_core::sync::Ordering;

use super::slot::{Slot, Slots, Trap};
use super::uffd::{Catcher, Watch};
use super::{Backend, Delivery, signal};
use crate::backing::Backing;
use crate::sys::{Pages, Reservation, Rights, SysError};

/// What a mapping of a frame admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Reads. A write traps: the fence of a node with `WRITE_FENCE`, and of a page that is being moved.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// A run of addresses that a program may touch.
///
/// Frames lie in any order, and the kernel keeps one mapping for each run of consecutive frames; it allows
/// `vm.max_map_count` of them (65,530 by default), which would end the program at 256 MiB of scattered pages. So
/// what is mapped is a *cache* of what may be mapped, as a processor's TLB is a cache of page tables: above the
/// backend's budget, pages lose their mapping, oldest place first, and are mapped again at their next touch. The
/// table of pages is the caller's; the view knows only what the kernel has mapped now.
///
/// Under userfaultfd a run of consecutive frames may be [laid](View::lay) before any of its pages is touched: one
/// mapping that shows none of them. Then mapping one of these pages, protecting it and taking it away again changes the
/// page table only and no mapping of the kernel, which is several times cheaper.
///
/// Every change is atomic for the threads of the program: they see the page before or the page after. A touch that
/// is not admitted waits for the [`super::Pager`].
///
/// # Invariants
///
/// - **V1** `slots` says what the kernel has mapped at each page, while it is locked.
pub struct View {
    reservation: Reservation,
    page: PageSize,
    backend: Arc<Backend>,
    slots: Mutex<Slots>,
}

/// What stands at a page of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing.
    Absent,
    /// A run of frames was laid here, of which this page's would be `frame` of the memory file `file`.
    Laid { file: i32, frame: u64 },
    /// A frame.
    Mapped(Protection),
}

/// A view keeps at least so many mappings however tight the budget is, so that it can make progress.
const FLOOR: usize = 16;

const INVALID: SysError = SysError { call: "mmap", errno: 22 };

impl View {
    /// Reserves addresses for `pages` pages of `page` bytes; nothing is mapped there.
    ///
    /// # Errors
    ///
    /// [`SysError`] if the address space has no such run, or a limit (`RLIMIT_AS`) forbids it.
    pub fn new(backend: &Arc<Backend>, pages: usize, page: PageSize) -> Result<Self, SysError> {
        let too_large = SysError { call: "mmap", errno: 12 };
        let bytes = pages.checked_mul(page.bytes()).ok_or(too_large)?;
        let slots = Mutex::new(Slots::new(pages).ok_or(too_large)?);
        let reservation = Reservation::new(bytes)?;
        let view = Self { reservation, page, backend: Arc::clone(backend), slots };
        view.backend.budget.used.fetch_add(1, Ordering::Relaxed);
        view.make_absent(&mut view.lock(), 0..pages)?;
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
        self.lock().mappings()
    }

    /// What is mapped at `page` now: the frame of its backing and the protection. `None` if a touch would trap, for
    /// want of a frame or of a mapping (see the type's description).
    pub fn mapped(&self, page: usize) -> Option<(u64, Protection)> {
        match self.lock().get(page)? {
            Slot::Mapped { frame, protection, .. } => Some((frame, protection)),
            Slot::Laid { frame, shown, .. } => shown.map(|protection| (frame, protection)),
            Slot::Absent(_) => None,
        }
    }

    /// What stands at `page` now.
    pub(crate) fn standing(&self, page: usize) -> Standing {
        match self.lock().get(page) {
            None | Some(Slot::Absent(_)) => Standing::Absent,
            Some(Slot::Mapped { protection, .. } | Slot::Laid { shown: Some(protection), .. }) => {
                Standing::Mapped(protection)
            }
            Some(Slot::Laid { file, frame, shown: None }) => Standing::Laid { file, frame },
        }
    }

    /// Maps `count` frames of `backing` from `frame` on at the pages from `page` on, in place of what is there.
    ///
    /// # Errors
    ///
    /// [`SysError`] from the kernel; what was there is still there, or touches trap. Pages or frames that do not exist
    /// are `EINVAL`.
    pub fn map(
        &self,
        page: usize,
        count: usize,
        backing: &Backing,
        frame: u64,
        protection: Protection,
    ) -> Result<(), SysError> {
        self.check(page, count, backing, frame)?;
        backing.use_frames(frame, count);
        self.map_locked(&mut self.lock(), page, count, backing, frame, protection)
    }

    /// Fills `count` frames of `backing` from `frame` on with zeroes, and maps them for reading and writing as
    /// [`View::map`] does. Nothing else maps the frames, and nobody uses them.
    ///
    /// Frames that were never used cost the kernel's own clearing only, and nothing is cleared twice.
    ///
    /// # Errors
    ///
    /// As [`View::map`].
    pub fn map_zeroed(
        &self,
        page: usize,
        count: usize,
        backing: &Backing,
        frame: u64,
    ) -> Result<(), SysError> {
        self.check(page, count, backing, frame)?;
        let unused = backing.are_unused(frame, count);
        if unused {
            backing.use_frames(frame, count);
            let mut slots = self.lock();
            if let Some(catcher) = self.laid_here(&slots, page, count, backing, frame) {
                let pages = page..page + count;
                if slots.part(pages.clone()).iter().all(Slot::shows_nothing) {
                    let (offset, bytes) = self.bytes(&pages);
                    if catcher.zero(self.start() + offset, bytes).is_ok() {
                        slots.set_shown(pages, Some(Protection::ReadWrite));
                        return Ok(());
                    }
                    // Somebody used one of the frames, and the others may be there now.
                    self.reservation.zap(offset, bytes)?;
                }
            }
        }
        backing.zero_all(frame, count, unused)?;
        self.map_locked(&mut self.lock(), page, count, backing, frame, Protection::ReadWrite)
    }

    /// States that the pages from `page` on will probably have the frames of `backing` from `frame` on. Nothing is
    /// mapped by this, and pages that are mapped are left alone; but [mapping](View::map) those frames at those pages will
    /// be cheap. Without userfaultfd it does nothing.
    ///
    /// # Errors
    ///
    /// As [`View::map`].
    pub fn lay(&self, page: usize, count: usize, backing: &Backing, frame: u64) -> Result<(), SysError> {
        self.check(page, count, backing, frame)?;
        let Some(catcher) = &self.backend.uffd else { return Ok(()) };
        let mut slots = self.lock();
        let all = page..page + count;
        for (pages, slot) in slots.runs(all.clone(), |a, b| a.shows_nothing() == b.shows_nothing()) {
            if slot.shows_nothing() {
                let first = frame + (pages.start - page) as u64;
                self.lay_run(&mut slots, catcher, pages, backing, first)?;
            }
        }
        self.keep_budget(&mut slots, &all);
        Ok(())
    }

    /// Whether [laying](View::lay) is of any use.
    pub fn can_lay(&self) -> bool {
        self.backend.uffd.is_some()
    }

    /// Lets writes to `page` trap from now on, if a frame is mapped there. All earlier writes are in the frame when
    /// this returns.
    ///
    /// # Errors
    ///
    /// [`SysError`] from the kernel; nothing has changed. A page that does not exist is `EINVAL`.
    pub fn write_protect(&self, page: usize) -> Result<(), SysError> {
        let mut slots = self.lock();
        let slot = slots.get(page).ok_or(SysError { call: "mprotect", errno: 22 })?;
        let (offset, bytes) = self.bytes(&(page..page + 1));
        match (slot, &self.backend.uffd) {
            (Slot::Mapped { file, frame, protection: Protection::ReadWrite, .. }, _) => {
                self.reservation.protect(offset, bytes, Rights::Read)?;
                let trap = self.watch(offset, bytes, Watch::Writes);
                let read_only = Slot::Mapped { file, frame, protection: Protection::ReadOnly, trap };
                self.set(&mut slots, page..page + 1, |_| read_only);
            }
            (Slot::Laid { shown: Some(Protection::ReadWrite), .. }, Some(catcher)) => {
                catcher.fence(self.start() + offset, bytes, Protection::ReadOnly)?;
                slots.set_shown(page..page + 1, Some(Protection::ReadOnly));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes what is mapped at `count` pages from `page` on away: the next touch of each traps.
    ///
    /// # Errors
    ///
    /// [`SysError`] from the kernel; some of the pages may be mapped still. Pages that do not exist are `EINVAL`.
    pub fn unmap(&self, page: usize, count: usize) -> Result<(), SysError> {
        if !self.has(page, count) {
            return Err(INVALID);
        }
        let mut slots = self.lock();
        let all = page..page + count;
        let is_laid = |slot: &Slot| matches!(slot, Slot::Laid { .. });
        let kind = |slot: &Slot| (slot.has_mapping(), is_laid(slot));
        if slots.part(all.clone()).iter().all(|slot| !slot.has_mapping() || is_laid(slot)) {
            // One call for all: where nothing is mapped it changes nothing.
            if !slots.part(all.clone()).iter().all(Slot::shows_nothing) {
                let (offset, bytes) = self.bytes(&all);
                self.reservation.zap(offset, bytes)?;
                slots.set_shown(all, None);
            }
            return Ok(());
        }
        for (pages, slot) in slots.runs(all, |a, b| kind(a) == kind(b)) {
            if is_laid(&slot) {
                let (offset, bytes) = self.bytes(&pages);
                self.reservation.zap(offset, bytes)?;
                slots.set_shown(pages, None);
            } else if slot.has_mapping() {
                self.make_absent(&mut slots, pages)?;
            }
        }
        Ok(())
    }

    /// Whether its touches are caught by the catcher of this number.
    pub(super) fn is_caught_by(&self, catcher: RawFd) -> bool {
        self.backend.uffd.as_ref().is_some_and(|uffd| uffd.number() == catcher)
    }

    /// Makes what is an event at `page` (a touch, or a write to a page that is fenced) a signal to the thread that does
    /// it.
    ///
    /// At the limit of mappings, where the kernel splits none, the whole mapping around the page gets signals instead.
    pub(super) fn shut(&self, page: usize) {
        let mut slots = self.lock();
        while !self.shut_pages(&mut slots, page..page + 1) {
            let around = slots.mapping_around(page);
            if !self.give_up_chunk(&mut slots, &around) {
                self.shut_pages(&mut slots, around);
                return;
            }
        }
    }

    /// [`View::shut`] for pages of one mapping; false if the kernel refuses.
    fn shut_pages(&self, slots: &mut Slots, pages: Range<usize>) -> bool {
        let (offset, bytes) = self.bytes(&pages);
        match slots.get(pages.start) {
            Some(Slot::Absent(Trap::Event)) => {
                let done = self.reservation.protect(offset, bytes, Rights::None).is_ok();
                if done {
                    self.set(slots, pages, |_| Slot::Absent(Trap::Signal));
                }
                done
            }
            Some(Slot::Mapped { file, frame, protection, trap: Trap::Event }) => {
                let done = self.reservation.protect(offset, bytes, Rights::Read).is_ok();
                if done {
                    self.set(slots, pages, |index| Slot::Mapped {
                        file,
                        frame: frame + index as u64,
                        protection,
                        trap: Trap::Signal,
                    });
                }
                done
            }
            Some(Slot::Laid { file, frame, shown: Some(Protection::ReadOnly) }) if pages.len() == 1 => {
                let done = self.reservation.protect(offset, bytes, Rights::Read).is_ok();
                if done {
                    // Of the same kind as a fenced page of its own mapping that was shut, so that the kernel keeps both in
                    // one mapping.
                    self.catch(offset, bytes, Watch::Writes);
                    let (protection, trap) = (Protection::ReadOnly, Trap::Signal);
                    self.set(slots, pages, |index| {
                        let frame = frame + index as u64;
                        Slot::Mapped { file, frame, protection, trap }
                    });
                }
                done
            }
            Some(Slot::Laid { .. }) => {
                let done = self.reservation.map_nothing(offset, bytes).is_ok();
                if done {
                    // Of the same kind as an absent page that was shut, so that the kernel keeps both in one mapping.
                    self.catch(offset, bytes, Watch::Missing);
                    self.set(slots, pages, |_| Slot::Absent(Trap::Signal));
                }
                done
            }
            _ => true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, page: usize, count: usize) -> bool {
        count > 0 && page.checked_add(count).is_some_and(|end| end <= self.pages())
    }

    fn check(&self, page: usize, count: usize, backing: &Backing, frame: u64) -> Result<(), SysError> {
        let frames_end = frame.checked_add(count as u64).filter(|end| *end <= backing.frames());
        let fits = self.has(page, count) && frames_end.is_some() && backing.page() == self.page;
        if fits { Ok(()) } else { Err(INVALID) }
    }

    /// Where pages start in the reservation, and how many bytes they have.
    fn bytes(&self, pages: &Range<usize>) -> (usize, usize) {
        (pages.start * self.page.bytes(), pages.len() * self.page.bytes())
    }

    /// The catcher, if these frames are laid at these pages.
    fn laid_here(
        &self,
        slots: &Slots,
        page: usize,
        count: usize,
        backing: &Backing,
        frame: u64,
    ) -> Option<&Catcher> {
        let file = backing.file().as_raw_fd();
        let is_it = |(index, slot): (usize, &Slot)| match slot {
            Slot::Laid { file: of, frame: laid, .. } => (*of, *laid) == (file, frame + index as u64),
            _ => false,
        };
        let laid = slots.part(page..page + count).iter().enumerate().all(is_it);
        self.backend.uffd.as_ref().filter(|_| laid)
    }

    fn map_locked(
        &self,
        slots: &mut Slots,
        page: usize,
        count: usize,
        backing: &Backing,
        frame: u64,
        protection: Protection,
    ) -> Result<(), SysError> {
        let pages = page..page + count;
        if let Some(catcher) = self.laid_here(slots, page, count, backing, frame) {
            if self.show(slots, catcher, pages.clone(), protection).is_ok() {
                return Ok(());
            }
            // A kernel that cannot do it this way may be able to map the frames themselves.
        }
        let rights = match protection {
            Protection::ReadOnly => Rights::Read,
            Protection::ReadWrite => Rights::ReadWrite,
        };
        let (offset, bytes) = self.bytes(&pages);
        let file_offset = frame as usize * self.page.bytes();
        let map =
            || self.reservation.map_file(offset, bytes, backing.file(), file_offset, rights, Pages::Present);
        let mut mapped = map();
        while mapped.is_err_and(SysError::is_no_memory) && self.give_up_chunk(slots, &pages) {
            // Somebody else in the process took the mappings that the budget counted on.
            mapped = map();
        }
        mapped?;
        let trap = match protection {
            Protection::ReadWrite => Trap::Signal,
            Protection::ReadOnly => self.watch(offset, bytes, Watch::Writes),
        };
        let file = backing.file().as_raw_fd();
        self.set(slots, pages.clone(), |index| Slot::Mapped {
            file,
            frame: frame + index as u64,
            protection,
            trap,
        });
        self.keep_budget(slots, &pages);
        Ok(())
    }

    /// Lets pages that are laid show their frames.
    fn show(
        &self,
        slots: &mut Slots,
        catcher: &Catcher,
        pages: Range<usize>,
        protection: Protection,
    ) -> Result<(), SysError> {
        let shown = |slot: &Slot| match slot {
            Slot::Laid { shown, .. } => *shown,
            _ => None,
        };
        for (run, slot) in slots.runs(pages, |a, b| shown(a) == shown(b)) {
            let (offset, bytes) = self.bytes(&run);
            let start = self.start() + offset;
            match shown(&slot) {
                Some(as_wanted) if as_wanted == protection => {}
                Some(_) => catcher.fence(start, bytes, protection)?,
                None => catcher.present(start, bytes, protection)?,
            }
            slots.set_shown(run, Some(protection));
        }
        Ok(())
    }

    fn lay_run(
        &self,
        slots: &mut Slots,
        catcher: &Catcher,
        pages: Range<usize>,
        backing: &Backing,
        frame: u64,
    ) -> Result<(), SysError> {
        let (offset, bytes) = self.bytes(&pages);
        let file_offset = frame as usize * self.page.bytes();
        self.reservation.map_file(offset, bytes, backing.file(), file_offset, Rights::None, Pages::Absent)?;
        // Nobody gets through to the file before every touch is caught.
        let caught = catcher
            .watch(self.start() + offset, bytes, Watch::Everything)
            .and_then(|()| self.reservation.protect(offset, bytes, Rights::ReadWrite));
        if caught.is_err() {
            self.make_absent(slots, pages)?;
            return caught;
        }
        let file = backing.file().as_raw_fd();
        self.set(slots, pages, |index| Slot::Laid { file, frame: frame + index as u64, shown: None });
        Ok(())
    }

    fn make_absent(&self, slots: &mut Slots, pages: Range<usize>) -> Result<(), SysError> {
        let (offset, bytes) = self.bytes(&pages);
        self.reservation.map_nothing(offset, bytes)?;
        let trap = self.watch(offset, bytes, Watch::Missing);
        self.set(slots, pages, |_| Slot::Absent(trap));
        Ok(())
    }

    /// Puts a run that traps by signals under userfaultfd, if there is one with a thread. Whatever fails on the way
    /// leaves a run that traps by signals.
    fn watch(&self, offset: usize, bytes: usize, watch: Watch) -> Trap {
        // Only when every such touch is an event may the mapping admit everything else.
        let admits = || self.reservation.protect(offset, bytes, Rights::ReadWrite).is_ok();
        if self.catch(offset, bytes, watch) && admits() { Trap::Event } else { Trap::Signal }
    }

    /// Turns touches that are not admitted into events, if there is a userfaultfd with a thread.
    fn catch(&self, offset: usize, bytes: usize, watch: Watch) -> bool {
        let thread = |catcher: &&Catcher| catcher.delivery() == Delivery::Thread;
        let catcher = self.backend.uffd.as_ref().filter(thread);
        catcher.is_some_and(|catcher| catcher.watch(self.start() + offset, bytes, watch).is_ok())
    }

    fn set(&self, slots: &mut Slots, pages: Range<usize>, slot: impl Fn(usize) -> Slot) {
        let change = slots.set(pages.start, pages.len(), slot);
        // A statistic that orders nothing; wraps as the sum of all changes does not.
        self.backend.budget.used.fetch_add(change as usize, Ordering::Relaxed);
    }

    /// Gives up mappings outside `keep` until the budget is kept.
    fn keep_budget(&self, slots: &mut Slots, keep: &Range<usize>) {
        let over =
            |slots: &Slots| self.backend.mappings() > self.backend.budget.limit && slots.mappings() > FLOOR;
        while over(slots) && self.give_up_chunk(slots, keep) {}
    }

    /// Takes the mappings of one chunk of pages away, outside `keep`; false if nothing outside it is mapped.
    fn give_up_chunk(&self, slots: &mut Slots, keep: &Range<usize>) -> bool {
        let chunk = slots.next_to_give_up(keep);
        chunk.is_some_and(|pages| self.make_absent(slots, pages).is_ok())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        signal::detach(self.start());
        self.backend.budget.used.fetch_sub(self.lock().mappings(), Ordering::Relaxed);
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:#x}, {} pages, {} mappings)", self.start(), self.pages(), self.mappings())
    }
}
