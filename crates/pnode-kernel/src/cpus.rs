//! A zone with a cache for each CPU: [`CpuZone`].

use core::fmt;
use core::mem::ManuallyDrop;

use pnode_buddy::{AuditError, Cpu, Keep, Zone};
use pnode_core::sync::{Guard, Lock, SpinLock};
use pnode_core::{FrameError, FrameRange, FrameSource, FrameZone, FreeError, MigrateType, Order, Pfn};

use crate::kernel::Kernel;

/// What one CPU keeps of a zone, on cache lines of its own.
///
/// Its lock is never waited for: who finds it taken, be it an interrupt on the same CPU or somebody who gathers the
/// frames of all CPUs, goes to the zone instead, which takes no lock at all. So a slot is safe to use from any context,
/// and a CPU that is gone needs nobody's care: its frames are found when they are missed. (Linux's page allocator locks
/// its per-CPU lists in this way: `pcp_spin_trylock` in `mm/page_alloc.c`.)
#[repr(align(128))]
pub struct CpuSlot<'m>(Lock<ManuallyDrop<Cpu<'m, 'm>>, SpinLock>);

impl<'m> CpuSlot<'m> {
    /// A CPU that keeps nothing of `zone` yet.
    ///
    /// A slot that is dropped gives nothing back: it goes with its zone.
    pub fn new(zone: &'m Zone<'m>) -> Self {
        Self(Lock::new(ManuallyDrop::new(Cpu::new(zone, Keep::Frames))))
    }
}

/// A [`Zone`] that single frames come from and go to through a cache of the CPU.
///
/// It is a zone for the registry, so every path to a frame leads through the gate first and through the caches second.
pub struct CpuZone<'m, K: Kernel> {
    zone: &'m Zone<'m>,
    slots: &'m [CpuSlot<'m>],
    kernel: K,
}

/// How many caches were in use and could not be looked into.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Passed(usize);

impl<'m, K: Kernel> CpuZone<'m, K> {
    /// `zone` with a slot of it for each CPU. A CPU without a slot uses the zone itself.
    pub const fn new(kernel: K, zone: &'m Zone<'m>, slots: &'m [CpuSlot<'m>]) -> Self {
        Self { zone, slots, kernel }
    }

    /// The zone behind the caches.
    pub const fn zone(&self) -> &'m Zone<'m> {
        self.zone
    }

    /// Gives back what all CPUs keep, and reports what they have not counted. Exact if no call is under way.
    pub fn drain(&self) {
        self.gather();
    }

    /// Checks the zone from end to end.
    ///
    /// # Errors
    ///
    /// [`AuditError`], also for what looks wrong only because a call is under way.
    pub fn audit(&self) -> Result<(), AuditError> {
        self.drain();
        self.zone.audit().map(drop)
    }

    /// The slot of this CPU, if nobody is using it.
    #[inline(always)]
    fn cpu(&self) -> Option<Guard<'_, ManuallyDrop<Cpu<'m, 'm>>>> {
        self.slots.get(self.kernel.cpu())?.0.try_lock()
    }

    /// Takes a frame back that this CPU may keep, as [`FrameSource::free`] does; `None` if it may not, and nothing has
    /// happened.
    #[inline(always)]
    pub fn free_cached(&self, pfn: Pfn) -> Option<Result<(), FreeError>> {
        self.cpu()?.free_cached(pfn)
    }

    fn gather(&self) -> Passed {
        let drained = |slot: &CpuSlot<'m>| slot.0.try_lock().map(|mut cpu| cpu.drain());
        Passed(self.slots.iter().filter(|slot| drained(slot).is_none()).count())
    }

    /// The zone has nothing left but what other CPUs keep.
    #[cold]
    #[inline(never)]
    fn alloc_from_all(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        let passed = self.gather();
        match self.zone.alloc(order, migrate) {
            // Another CPU may be keeping the very frame.
            Err(FrameError::Exhausted { order }) if passed != Passed(0) => {
                Err(FrameError::Contended { order })
            }
            found => found,
        }
    }
}

impl<K: Kernel> FrameSource for CpuZone<'_, K> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        let found = match self.cpu() {
            Some(mut cpu) => cpu.alloc(order, migrate),
            None => self.zone.alloc(order, migrate),
        };
        match found {
            Err(FrameError::Exhausted { .. }) => self.alloc_from_all(order, migrate),
            found => found,
        }
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        match self.cpu() {
            Some(mut cpu) => cpu.free(pfn, order),
            None => self.zone.free(pfn, order),
        }
    }
}

impl<K: Kernel> FrameZone for CpuZone<'_, K> {
    #[inline]
    fn span(&self) -> FrameRange {
        self.zone.span()
    }

    /// A frame that this CPU keeps.
    #[inline(always)]
    fn alloc_at_hand(&self, migrate: MigrateType) -> Option<Pfn> {
        self.cpu()?.alloc_cached(migrate)
    }

    fn free_frames(&self) -> u64 {
        self.zone.free_frames()
    }

    fn managed_frames(&self) -> u64 {
        self.zone.managed_frames()
    }

    fn alloc_at(&self, pfn: Pfn, order: Order, migrate: MigrateType) -> Result<(), FrameError> {
        FrameZone::alloc_at(self.zone, pfn, order, migrate)
    }

    fn isolate(&self) {
        // Closed first: a CPU that hands out of its cache after that took the frame before, and none fills up again.
        self.zone.isolate();
        self.drain();
    }

    fn reopen(&self) {
        self.zone.reopen();
    }

    fn used_frames(&self) -> u64 {
        // Who was inside a slot when the zone was closed may still take a frame. As nobody can wait for him here, he
        // counts as the holder of one; who enters a slot after us finds the zone closed, by the slot's lock.
        let Passed(inside) = self.gather();
        self.zone.used_frames() + inside as u64
    }
}

impl<K: Kernel> fmt::Debug for CpuZone<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuZone({:?}, {} CPUs)", self.zone, self.slots.len())
    }
}
