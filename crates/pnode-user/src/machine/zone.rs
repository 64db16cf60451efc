//! The allocator of a node's frames.

use std::sync::{Mutex, PoisonError};

use pnode_core::{FrameError, FrameRange, FrameSource, FrameZone, FreeError, MigrateType, Order, Pfn};

#[derive(Debug)]
pub(super) struct Zone {
    range: FrameRange,
    state: Mutex<State>,
}
#[derive(Debug)]
struct State {
    used: Vec<bool>,
    isolated: bool,
}

impl Zone {
    pub(super) fn new(range: FrameRange) -> Self {
        Self {
            range,
            state: Mutex::new(State { used: vec![false; range.frames() as usize], isolated: false }),
        }
    }
    pub(super) fn is_used(&self, pfn: Pfn) -> bool {
        self.lock().used[pfn.checked_sub(self.range.start()).unwrap() as usize]
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FrameSource for Zone {
    fn alloc(&self, order: Order, _migrate: MigrateType) -> Result<Pfn, FrameError> {
        let mut state = self.lock();
        if state.isolated {
            return Err(FrameError::Closed { order });
        }
        let n = order.frames() as usize;
        let start = self.range.start().get() as usize;
        let mut at = 0;
        while at + n <= state.used.len() {
            if (start + at) % n == 0 && !state.used[at..at + n].contains(&true) {
                state.used[at..at + n].fill(true);
                return Ok(Pfn::new((start + at) as u64));
            }
            at += 1;
        }
        Err(FrameError::Exhausted { order })
    }
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let mut state = self.lock();
        let at = pfn.checked_sub(self.range.start()).ok_or(FreeError::OutOfZone { pfn })? as usize;
        let n = order.frames() as usize;
        if state.used[at..at + n].contains(&false) {
            return Err(FreeError::NotAllocated { pfn });
        }
        state.used[at..at + n].fill(false);
        Ok(())
    }
}

impl FrameZone for Zone {
    fn span(&self) -> FrameRange {
        self.range
    }
    fn free_frames(&self) -> u64 {
        self.lock().used.iter().filter(|u| !**u).count() as u64
    }
    fn managed_frames(&self) -> u64 {
        self.range.frames()
    }
    fn isolate(&self) {
        self.lock().isolated = true;
    }
    fn reopen(&self) {
        self.lock().isolated = false;
    }
    fn used_frames(&self) -> u64 {
        self.lock().used.iter().filter(|u| **u).count() as u64
    }
}
