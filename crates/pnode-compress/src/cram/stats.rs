//! [`CramStats`]: what a service counts.

use pnode_core::sync::Ordering;

use super::Cram;

/// What a service counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Event {
    Demoted,
    Refused,
    Read,
    Promoted,
    Retried,
    Freed,
    Poisoned,
    Trimmed,
    Zeroed,
    Opened,
    Fenced,
    OverBudget,
    HotAccepted,
    HotLimited,
    HotStale,
    Inflated,
    Deflated,
    Migrate,
    Reclaim,
    OutOfMemory,
    Superseded,
}

pub(super) const COUNTERS: usize = Event::Superseded as usize + 1;

/// What a service has done since it was made.
///
/// Each counter is exact by itself. They are read one after the other, so a snapshot that is taken while others work may
/// have seen an event in one counter and not yet its companion in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CramStats {
    /// Pages that came in.
    pub demoted: u64,
    /// Pages that were turned away, for whatever reason.
    pub refused: u64,
    /// Reads of resident pages that were served.
    pub read: u64,
    /// Pages that left by being written.
    pub promoted: u64,
    /// Accesses that have to be made again.
    pub retried: u64,
    /// Pages that were freed while resident.
    pub freed: u64,
    /// Reads that found a page damaged.
    pub poisoned: u64,
    /// Frames that were scrubbed by a trim.
    pub trimmed: u64,
    /// Frames that were scrubbed one by one: no room to wait, a trim that failed, or a destination that was not used.
    pub zeroed: u64,
    /// Pages that were opened for writing where they are.
    pub opened: u64,
    /// Open pages that were closed again, but for those that were freed.
    pub fenced: u64,
    /// Pages that were not opened because the budget was used up.
    pub over_budget: u64,
    /// Pages that their device named as hot and that were to be promoted. Those that were count in `promoted` too.
    pub hot_accepted: u64,
    /// Resident pages that their device named and that the rate limit kept where they are.
    pub hot_limited: u64,
    /// Frames that the device named and that had no page to promote by then.
    pub hot_stale: u64,
    /// Frames that were put into the balloon.
    pub inflated: u64,
    /// Frames that were taken out of the balloon.
    pub deflated: u64,
    /// Balloon steps that asked to migrate pages.
    pub balloon_migrate: u64,
    /// Balloon steps that asked to reclaim pages.
    pub balloon_reclaim: u64,
    /// Balloon steps that asked to kill a user.
    pub balloon_oom: u64,
    /// Targets of the balloon that gave way to another one before it had their size.
    pub balloon_superseded: u64,
}

impl Cram<'_> {
    /// What the service has done.
    pub fn stats(&self) -> CramStats {
        let of = |event: Event| self.counters[event as usize].load(Ordering::Relaxed);
        CramStats {
            demoted: of(Event::Demoted),
            refused: of(Event::Refused),
            read: of(Event::Read),
            promoted: of(Event::Promoted),
            retried: of(Event::Retried),
            freed: of(Event::Freed),
            poisoned: of(Event::Poisoned),
            trimmed: of(Event::Trimmed),
            zeroed: of(Event::Zeroed),
            opened: of(Event::Opened),
            fenced: of(Event::Fenced),
            over_budget: of(Event::OverBudget),
            hot_accepted: of(Event::HotAccepted),
            hot_limited: of(Event::HotLimited),
            hot_stale: of(Event::HotStale),
            inflated: of(Event::Inflated),
            deflated: of(Event::Deflated),
            balloon_migrate: of(Event::Migrate),
            balloon_reclaim: of(Event::Reclaim),
            balloon_oom: of(Event::OutOfMemory),
            balloon_superseded: of(Event::Superseded),
        }
    }

    pub(super) fn note(&self, event: Event) {
        // Relaxed: the counters guard no memory.
        self.counters[event as usize].fetch_add(1, Ordering::Relaxed);
    }
}
