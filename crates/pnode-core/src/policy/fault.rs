//! What faults came to: where a page is, and where a policy wanted it.
//!
//! A *hard* fault allocates the page. A *soft* fault finds it present, maps it and never moves it: who touched it first
//! decided where it is. Both are reported alike, so a policy that did not get its way is seen and can be counted.

use core::fmt;

use super::{Placement, Wanted};
use crate::distance::Distances;
use crate::node::NodeId;
use crate::sync::{AtomicU64, Ordering};

/// Whether the page had to be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It was absent and was allocated now.
    Hard,
    /// It was present and was only mapped.
    Soft,
}

/// Whether the policy of the mapping got its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// No policy wanted the page anywhere.
    Unasked,
    /// The page is where the policy wanted it.
    AsWanted,
    /// The page is on another node.
    Elsewhere,
}

/// What a fault came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultReport {
    kind: FaultKind,
    wanted: Option<Wanted>,
    actual: NodeId,
}

impl FaultReport {
    pub(super) const fn new(kind: FaultKind, wanted: Option<Wanted>, actual: NodeId) -> Self {
        Self { kind, wanted, actual }
    }

    /// Whether the page had to be allocated.
    pub const fn kind(&self) -> FaultKind {
        self.kind
    }

    /// The nodes that the policy of the mapping wanted.
    pub const fn wanted(&self) -> Option<&Wanted> {
        self.wanted.as_ref()
    }

    /// The node that the page is on.
    pub const fn actual(&self) -> NodeId {
        self.actual
    }

    /// Whether the policy got its way.
    pub fn outcome(&self) -> Outcome {
        match &self.wanted {
            None => Outcome::Unasked,
            Some(wanted) if wanted.any().contains(self.actual) => Outcome::AsWanted,
            Some(_) => Outcome::Elsewhere,
        }
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Hard => "hard",
            FaultKind::Soft => "soft",
        };
        write!(f, "{kind} fault, page on {:?}", self.actual)?;
        match &self.wanted {
            Some(wanted) if wanted.any().contains(self.actual) => f.write_str(", as wanted"),
            Some(wanted) => write!(f, ", wanted {:?}", wanted.first()),
            None => Ok(()),
        }
    }
}

impl Placement<'_> {
    /// Reports a soft fault: the page is present on `actual` and stays there, whatever the policies say.
    pub fn soft(&self, actual: NodeId, distances: &Distances<'_>) -> FaultReport {
        FaultReport::new(FaultKind::Soft, self.wanted(distances), actual)
    }
}

/// Counters of faults, for a process, a node or a whole machine: the host has as many as it likes.
///
/// All methods may be called from any context. The counters are independent: a reader may see one fault in one of them
/// and not yet in another.
#[derive(Debug)]
pub struct FaultCounters {
    hard: AtomicU64,
    soft: AtomicU64,
    hard_elsewhere: AtomicU64,
    soft_elsewhere: AtomicU64,
    failed: AtomicU64,
}

/// Counts of faults at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FaultCounts {
    /// Hard faults that ended in a page.
    pub hard: u64,
    /// Soft faults.
    pub soft: u64,
    /// Those of the hard ones that a policy did not get its way in.
    pub hard_elsewhere: u64,
    /// Those of the soft ones that a policy did not get its way in.
    pub soft_elsewhere: u64,
    /// Hard faults that ended without a page.
    pub failed: u64,
}

impl FaultCounters {
    crate::const_fn! {
        /// All zero.
        pub fn new() -> Self {
            Self {
                hard: AtomicU64::new(0),
                soft: AtomicU64::new(0),
                hard_elsewhere: AtomicU64::new(0),
                soft_elsewhere: AtomicU64::new(0),
                failed: AtomicU64::new(0),
            }
        }
    }

    /// Counts a fault that ended in a page.
    pub fn count(&self, report: &FaultReport) {
        let (all, elsewhere) = match report.kind() {
            FaultKind::Hard => (&self.hard, &self.hard_elsewhere),
            FaultKind::Soft => (&self.soft, &self.soft_elsewhere),
        };
        // Relaxed: the counters order nothing.
        all.fetch_add(1, Ordering::Relaxed);
        if report.outcome() == Outcome::Elsewhere {
            elsewhere.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a fault that ended without a page.
    pub fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn read(&self) -> FaultCounts {
        FaultCounts {
            hard: self.hard.load(Ordering::Relaxed),
            soft: self.soft.load(Ordering::Relaxed),
            hard_elsewhere: self.hard_elsewhere.load(Ordering::Relaxed),
            soft_elsewhere: self.soft_elsewhere.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

impl Default for FaultCounters {
    fn default() -> Self {
        Self::new()
    }
}
