//! Failing on purpose: which calls of a run fail, and a source of frames that does.
//!
//! The most useful test of code that takes memory runs it once for each of its allocations, and lets that one fail. [`Failing`]
//! is the source for it: ordinary code, no heap, so that a driver's tests can use it where the driver runs.
//!
//! After the kernel's fault injection (`Documentation/fault-injection/fault-injection.rst`: `interval`, `probability`,
//! `fail-nth`) and the middleware of smoltcp.
//!
//! ```
//! use pnode_core::failing::{Failing, When};
//! use pnode_core::{FrameError, FrameRange, FrameSource, FrameZone, MigrateType, Order, Pfn, WordZone};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! /// What is tested: takes two pages, or none.
//! fn two_pages(source: &impl FrameSource) -> Result<[Pfn; 2], FrameError> {
//!     let first = source.alloc(Order::ZERO, MigrateType::Unmovable)?;
//!     match source.alloc(Order::ZERO, MigrateType::Unmovable) {
//!         Ok(second) => Ok([first, second]),
//!         Err(error) => {
//!             source.free(first, Order::ZERO).expect("it was taken a moment ago");
//!             Err(error)
//!         }
//!     }
//! }
//!
//! let zone = WordZone::new(FrameRange::new(Pfn::new(0), 8)?).ok_or("8 frames fit a word")?;
//! // How many calls are there? Then each of them fails once.
//! let counting = Failing::new(&zone, When::Never);
//! let taken = two_pages(&counting)?;
//! taken.iter().try_for_each(|pfn| zone.free(*pfn, Order::ZERO))?;
//! for call in 0..counting.calls() {
//!     let failing = Failing::new(&zone, When::Nth(call));
//!     assert_eq!(two_pages(&failing), Err(FrameError::Exhausted { order: Order::ZERO }));
//!     assert_eq!(zone.used_frames(), 0, "call {call} leaks nothing");
//! }
//! # Ok(())
//! # }
//! ```

use core::num::NonZeroU64;

use crate::addr::{FrameRange, Order, Pfn};
use crate::frame::{FrameError, FrameSource, FrameZone, FreeError, MigrateType};
use crate::sync::{AtomicU64, Ordering};

/// Which calls fail, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum When {
    /// None.
    #[default]
    Never,
    /// This one.
    Nth(u64),
    /// This one and all after it.
    From(u64),
    /// Every so many-th: `Every(3)` fails calls 2, 5, 8.
    Every(NonZeroU64),
    /// One in so many, by chance; the same ones for the same seed.
    OneIn {
        /// In so many.
        calls: NonZeroU64,
        /// What the chance is drawn from.
        seed: u64,
    },
}

impl When {
    /// Whether call number `call` fails.
    pub const fn strikes(self, call: u64) -> bool {
        match self {
            Self::Never => false,
            Self::Nth(nth) => call == nth,
            Self::From(first) => call >= first,
            Self::Every(calls) => call % calls.get() == calls.get() - 1,
            Self::OneIn { calls, seed } => scatter(seed, call) % calls.get() == 0,
        }
    }
}

/// A number that looks as if it had nothing to do with its neighbours (the finalizer of SplitMix64, G. Steele and others, 2014).
const fn scatter(seed: u64, call: u64) -> u64 {
    let mut x = seed ^ call.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A source, or a zone, some of whose allocations fail. Its frees do not.
///
/// Any number of threads may use it at once; which of them has the call that fails is a matter of chance then.
#[derive(Debug)]
pub struct Failing<S> {
    source: S,
    when: When,
    error: FrameError,
    /// Relaxed throughout: a count that orders nothing.
    calls: AtomicU64,
}

impl<S> Failing<S> {
    /// `source`, whose allocations fail by `when` as if nothing were free ([`FrameError::Exhausted`]).
    pub fn new(source: S, when: When) -> Self {
        Self::with_error(source, when, FrameError::Exhausted { order: Order::ZERO })
    }

    /// As [`Failing::new`], with another error. The order in it is that of the call, whatever is said here.
    pub fn with_error(source: S, when: When, error: FrameError) -> Self {
        Self { source, when, error, calls: AtomicU64::new(0) }
    }

    /// How many allocations were asked for, those that failed among them.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The source.
    pub const fn source(&self) -> &S {
        &self.source
    }

    fn check(&self, order: Order) -> Result<(), FrameError> {
        if !self.when.strikes(self.calls.fetch_add(1, Ordering::Relaxed)) {
            return Ok(());
        }
        Err(match self.error {
            FrameError::Exhausted { .. } => FrameError::Exhausted { order },
            FrameError::Closed { .. } => FrameError::Closed { order },
            FrameError::Contended { .. } => FrameError::Contended { order },
        })
    }
}

impl<S: FrameSource> FrameSource for Failing<S> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        self.check(order)?;
        self.source.alloc(order, migrate)
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.source.free(pfn, order)
    }
}

impl<Z: FrameZone> FrameZone for Failing<Z> {
    fn span(&self) -> FrameRange {
        self.source.span()
    }

    fn free_frames(&self) -> u64 {
        self.source.free_frames()
    }

    fn managed_frames(&self) -> u64 {
        self.source.managed_frames()
    }

    fn alloc_at(&self, pfn: Pfn, order: Order, migrate: MigrateType) -> Result<(), FrameError> {
        self.check(order)?;
        self.source.alloc_at(pfn, order, migrate)
    }

    fn isolate(&self) {
        self.source.isolate();
    }

    fn reopen(&self) {
        self.source.reopen();
    }

    fn used_frames(&self) -> u64 {
        self.source.used_frames()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::WordZone;

    #[test]
    fn the_calls_that_fail_are_those_that_were_named() {
        let calls = NonZeroU64::new(3).unwrap();
        let struck = |when: When| -> u32 {
            (0..12).filter(|call| when.strikes(*call)).fold(0, |all, call| all | 1 << call)
        };
        for (when, expected) in [
            (When::Never, 0),
            (When::Nth(4), 1 << 4),
            (When::From(9), 0b1110_0000_0000),
            (When::Every(calls), 0b1001_0010_0100),
        ] {
            assert_eq!(struck(when), expected, "{when:?}");
        }
        let many = NonZeroU64::new(10).unwrap();
        for seed in 0..20 {
            let when = When::OneIn { calls: many, seed };
            let count = (0..10_000).filter(|call| when.strikes(*call)).count();
            assert!((800..1200).contains(&count), "seed {seed}: {count} of 10,000");
        }
    }

    #[test]
    fn chances_are_the_numbers_of_splitmix64() {
        // What the authors' program prints for seed 0.
        let published =
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f, 0xf88b_b8a8_724c_81ec];
        for (call, number) in (1..).zip(published) {
            assert_eq!(scatter(0, call), number, "call {call}");
        }
        // The seed is combined with the state: where they are the same, nothing is left to finish.
        assert_eq!(scatter(0x9e37_79b9_7f4a_7c15, 1), 0);
    }

    #[test]
    fn a_failing_zone_is_the_zone_in_all_but_the_calls_that_fail() {
        let zone = WordZone::new(FrameRange::new(Pfn::new(4), 8).unwrap()).unwrap();
        let failing = Failing::new(zone, When::Nth(2));
        let (order, movable) = (Order::new(1).unwrap(), MigrateType::Movable);
        let tells = |used| {
            let zone = failing.source();
            assert_eq!((failing.span(), failing.managed_frames()), (zone.span(), 8));
            assert_eq!((failing.used_frames(), failing.free_frames()), (used, 8 - used));
            assert_eq!((zone.used_frames(), zone.free_frames()), (used, 8 - used));
        };
        tells(0);
        assert_eq!(failing.alloc(order, movable), Ok(Pfn::new(4)));
        tells(2);
        assert_eq!(failing.alloc_at(Pfn::new(8), order, movable), Ok(()));
        assert_eq!(failing.alloc_at(Pfn::new(10), order, movable), Err(FrameError::Exhausted { order }));
        tells(4);
        assert_eq!(failing.alloc_at(Pfn::new(10), order, movable), Ok(()));
        tells(6);
        failing.isolate();
        assert_eq!(failing.source().alloc(order, movable), Err(FrameError::Closed { order }));
        failing.reopen();
        assert_eq!(failing.source().alloc(order, movable), Ok(Pfn::new(6)));
        tells(8);
    }

    #[test]
    fn a_failed_call_takes_nothing_and_names_its_order() {
        let zone = WordZone::new(FrameRange::new(Pfn::new(0), 16).unwrap()).unwrap();
        let closed = FrameError::Closed { order: Order::ZERO };
        let failing = Failing::with_error(&zone, When::Nth(1), closed);
        let order = Order::new(1).unwrap();
        let taken = failing.alloc(order, MigrateType::Movable).unwrap();
        assert_eq!(failing.alloc(order, MigrateType::Movable), Err(FrameError::Closed { order }));
        assert_eq!((failing.source().used_frames(), failing.calls()), (2, 2));
        failing.free(taken, order).unwrap();
        assert_eq!(failing.free(taken, order), Err(FreeError::NotAllocated { pfn: taken }));
        assert_eq!(zone.used_frames(), 0);
    }
}
