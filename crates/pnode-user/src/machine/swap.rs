//! The swap file: where pages go that no node takes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use pnode_core::{Frame, PageSize};

use super::Shared;
use super::inject::Point;
use super::trace::{Note, What, Why};
use crate::sys::{self, SysError};

/// A file of slots, each of the size of a page.
pub(super) struct Swap {
    file: File,
    page: PageSize,
    slots: u32,
    /// The free ones.
    free: Mutex<Vec<u32>>,
}

/// A slot with a page in it. It is given back by [`Shared::free_slot`], not by being dropped.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a slot that is dropped stays in use"]
pub(super) struct Slot(u32);

impl Swap {
    /// A swap file of `slots` slots in memory.
    pub(super) fn new(slots: u64, page: PageSize) -> Result<Self, SysError> {
        const EFBIG: i32 = 27;
        let slots = u32::try_from(slots).map_err(|_| SysError { call: "ftruncate", errno: EFBIG })?;
        let file = sys::memory_file(u64::from(slots) * page.bytes() as u64, sys::Pool::Pages)?.into();
        Ok(Self { file, page, slots, free: Mutex::new((0..slots).rev().collect()) })
    }

    fn offset(&self, slot: &Slot) -> u64 {
        u64::from(slot.0) * self.page.bytes() as u64
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Copies the page in `frame` to a slot; `None` if there is none, or the file does not take it.
    pub(super) fn swap_out(&self, frame: &Frame) -> Option<Slot> {
        let swap = self.swap.as_ref()?;
        let (site, index) = self.locate(frame.pfn())?;
        let slot = Slot(swap.free().pop()?);
        let mut bytes = vec![0; swap.page.bytes()];
        let written = !self.fails(Point::SwapOut)
            && site.backing.read(index, 0, &mut bytes)
            && swap.file.write_all_at(&bytes, swap.offset(&slot)).is_ok();
        if written {
            self.counters.swapped_out.add(1);
            self.note(|| Note::new(What::Swap, Why::Out).frame(frame));
            Some(slot)
        } else {
            self.note(|| Note::new(What::Swap, Why::Refused).frame(frame));
            self.free_slot(slot);
            None
        }
    }

    /// Copies the page in `slot` to `frame`; whether that was possible. The slot keeps it.
    pub(super) fn swap_in(&self, slot: &Slot, frame: &Frame) -> bool {
        let (Some(swap), Some((site, index))) = (&self.swap, self.locate(frame.pfn())) else { return false };
        let mut bytes = vec![0; swap.page.bytes()];
        let read =
            !self.fails(Point::SwapIn) && swap.file.read_exact_at(&mut bytes, swap.offset(slot)).is_ok();
        let done = read && site.backing.write(index, 0, &bytes);
        self.counters.swapped_in.add(u64::from(done));
        self.note(|| Note::new(What::Swap, if done { Why::In } else { Why::Refused }).frame(frame));
        done
    }

    pub(super) fn free_slot(&self, slot: Slot) {
        if let Some(swap) = &self.swap {
            swap.free().push(slot.0);
        }
    }

    pub(super) const fn has_swap(&self) -> bool {
        self.swap.is_some()
    }

    /// Slots in use, and slots in all.
    pub(super) fn swap_use(&self) -> (u64, u64) {
        self.swap.as_ref().map_or((0, 0), |swap| {
            let slots = u64::from(swap.slots);
            (slots - swap.free().len() as u64, slots)
        })
    }
}
