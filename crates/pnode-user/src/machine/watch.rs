//! What watches a machine: its trace, its faults on purpose, its clock. All are off unless somebody asks, and then cost one
//! load.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pnode_core::sync::{AtomicU32, Ordering};

use super::clock::Clock;
use super::inject::Plan;
use super::trace::{Note, Ring};

/// The watchers of a machine.
#[derive(Default)]
pub(super) struct Watch {
    /// Which of them are on: bits of [`On`]. Relaxed throughout: who is watched a moment late is watched a moment late.
    on: AtomicU32,
    ring: Mutex<Ring>,
    pub(super) plan: Plan,
    pub(super) clock: Clock,
}

/// A watcher.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum On {
    Trace = 1,
    Injection = 2,
    /// Time is simulated.
    Clock = 4,
    /// ... and waited for.
    Delays = 8,
}

impl Watch {
    /// Whether nobody watches.
    #[inline(always)]
    pub(super) fn is_idle(&self) -> bool {
        self.on.load(Ordering::Relaxed) == 0
    }

    #[inline(always)]
    pub(super) fn is_on(&self, which: On) -> bool {
        self.on.load(Ordering::Relaxed) & which as u32 != 0
    }

    pub(super) fn start(&self, which: On) {
        self.on.fetch_or(which as u32, Ordering::Relaxed);
    }

    pub(super) fn stop(&self, which: On) {
        self.on.fetch_and(!(which as u32), Ordering::Relaxed);
    }

    /// Records what `what` says, if events are recorded now.
    #[inline(always)]
    pub(super) fn note(&self, what: impl FnOnce() -> Note) {
        if self.is_on(On::Trace) {
            self.record(what());
        }
    }

    #[cold]
    fn record(&self, note: Note) {
        let time = self.clock.now();
        self.ring().push(note, time);
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
