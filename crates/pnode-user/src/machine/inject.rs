//! Failing on purpose: which calls of the harness to its own outside fail.

use std::sync::{Mutex, PoisonError};

use pnode_core::failing::When;
use pnode_core::sync::{AtomicU64, Ordering};

use super::trace::{Note, What, Why};
use super::watch::{On, Watch};
use super::{Machine, Shared};
use crate::sys::SysError;

/// A kind of call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Point {
    /// A zone is asked for a block: by a page, a driver, a store, a search for a run of frames.
    Alloc,
    /// A page is copied to another frame.
    Copy,
    /// A frame is mapped for a program.
    Map,
    /// A page is written to the swap file.
    SwapOut,
    /// A page is read from the swap file.
    SwapIn,
    /// A page is read from its file.
    FileRead,
    /// A page is written to its file.
    FileWrite,
    /// A node that was unplugged starts again.
    Plug,
}

impl Point {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::Alloc,
        Self::Copy,
        Self::Map,
        Self::SwapOut,
        Self::SwapIn,
        Self::FileRead,
        Self::FileWrite,
        Self::Plug,
    ];

    /// A word for it, the same in every version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alloc => "alloc",
            Self::Copy => "copy",
            Self::Map => "map",
            Self::SwapOut => "swap-out",
            Self::SwapIn => "swap-in",
            Self::FileRead => "file-read",
            Self::FileWrite => "file-write",
            Self::Plug => "plug",
        }
    }
}

const POINTS: usize = Point::ALL.len();

/// Which calls fail, and how many there were.
#[derive(Default)]
pub(super) struct Plan {
    rules: Mutex<[When; POINTS]>,
    /// By point: how many calls there were, and how many of them failed. Relaxed throughout: counts that order nothing.
    calls: [AtomicU64; POINTS],
    failed: [AtomicU64; POINTS],
}

impl Plan {
    fn set(&self, rules: &[(Point, When)]) {
        let mut all = [When::Never; POINTS];
        rules.iter().for_each(|(point, when)| all[*point as usize] = *when);
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = all;
        self.calls.iter().chain(&self.failed).for_each(|count| count.store(0, Ordering::Relaxed));
    }

    fn strikes(&self, point: Point) -> bool {
        let call = self.calls[point as usize].fetch_add(1, Ordering::Relaxed);
        let rule = self.rules.lock().unwrap_or_else(PoisonError::into_inner)[point as usize];
        let strikes = rule.strikes(call);
        if strikes {
            self.failed[point as usize].fetch_add(1, Ordering::Relaxed);
        }
        strikes
    }
}

impl Watch {
    /// Whether the call that is made now is to fail.
    #[inline(always)]
    pub(super) fn fails(&self, point: Point) -> bool {
        self.is_on(On::Injection) && self.fails_now(point)
    }

    #[cold]
    fn fails_now(&self, point: Point) -> bool {
        let strikes = self.plan.strikes(point);
        if strikes {
            self.note(|| Note::new(What::Injected, Why::At(point)));
        }
        strikes
    }
}

/// How many calls there were, and how many of them failed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injections {
    calls: [u64; POINTS],
    failed: [u64; POINTS],
}

impl Injections {
    /// How many calls of this kind there were.
    pub const fn calls(&self, point: Point) -> u64 {
        self.calls[point as usize]
    }

    /// How many of them failed.
    pub const fn failed(&self, point: Point) -> u64 {
        self.failed[point as usize]
    }
}

impl Machine {
    /// Lets calls fail from now on: for each point the ones that its [`When`] names, counted from here. A point that is not
    /// named never fails and is counted too; so a run with `&[]` says how many calls there are, and then each of them can be
    /// let fail in a run of its own.
    ///
    /// A failure is what the real one would be: a zone is exhausted, the kernel has no memory for a mapping, a file or a copy has
    /// an I/O error. The caller gets the error, or the harness takes another way; no page is lost, and a call that failed may be
    /// made again.
    ///
    /// ```
    /// use pnode_core::Request;
    /// use pnode_core::failing::When;
    /// use pnode_user::machine::Point;
    /// use pnode_user::{Machine, NodeSpec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let machine = Machine::builder().node(NodeSpec::ordinary(16)).build()?;
    /// machine.inject(&[(Point::Alloc, When::From(1))]);               // a request that fails looks twice
    /// let first = machine.alloc(Request::page())?;
    /// assert!(machine.alloc(Request::page()).is_err());
    /// machine.free(first)?;
    /// let seen = machine.stop_injecting();
    /// assert_eq!(seen.calls(Point::Alloc), 1 + seen.failed(Point::Alloc));
    /// # Ok(())
    /// # }
    /// ```
    pub fn inject(&self, rules: &[(Point, When)]) {
        self.shared.watch.plan.set(rules);
        self.shared.watch.start(On::Injection);
    }

    /// Lets no call fail any more; says how many there were.
    pub fn stop_injecting(&self) -> Injections {
        self.shared.watch.stop(On::Injection);
        self.injections()
    }

    /// How many calls there were since [`Machine::inject`], and how many of them failed.
    pub fn injections(&self) -> Injections {
        let read =
            |counts: &[AtomicU64; POINTS]| counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let plan = &self.shared.watch.plan;
        Injections { calls: read(&plan.calls), failed: read(&plan.failed) }
    }
}

impl Shared {
    /// Whether the call that is made now is to fail.
    pub(super) fn fails(&self, point: Point) -> bool {
        self.watch.fails(point)
    }

    /// The error of a call that is to fail, if this is one.
    pub(super) fn check(&self, point: Point) -> Result<(), SysError> {
        const ENOMEM: i32 = 12;
        const EIO: i32 = 5;
        match (self.fails(point), point) {
            (false, _) => Ok(()),
            (true, Point::Map) => Err(SysError { call: "mmap", errno: ENOMEM }),
            (true, _) => Err(SysError { call: point.name(), errno: EIO }),
        }
    }
}
