//! How a search that found nothing learns that it may have looked in the wrong moment.
//!
//! Free frames move between levels of the tree and in and out of the search index. Each such move hides them for a
//! moment; nothing is lost, but a search that passes by just then misses them. Every move stands between
//! [`Gate::enter`] and [`Gate::leave`], and a search that fails looks at the gate: if anything moved since it began,
//! it looks again. Successful operations never touch the gate, and moves of whole areas are rare, so the line is not
//! written in the steady state.

use pnode_core::sync::AtomicU64;
use pnode_core::sync::Ordering::{AcqRel, Acquire};

const MOVED: u64 = 1 << 16;
const MOVING: u64 = MOVED - 1;

/// Counts moves: begun and not finished in the low 16 bits, finished ones above.
pub(crate) struct Gate(AtomicU64);

/// What the gate said when a search began.
#[derive(Clone, Copy)]
pub(crate) struct Seen(u64);

impl Seen {
    /// The same after a move of the searcher's own, begun and finished since.
    pub(crate) fn after_own(self) -> Self {
        Self(self.0.wrapping_add(MOVED))
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn raw(self) -> u64 {
        self.0
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Begins a move.
    pub(crate) fn enter(&self) {
        // Acquire keeps the move after this; the Release of the move's own writes publishes it: who sees frames
        // hidden also sees the gate entered.
        self.0.fetch_add(1, AcqRel);
    }

    /// Ends a move.
    pub(crate) fn leave(&self) {
        // Release pairs with the Acquire in `look`: a search that begins after the end sees where the frames went.
        self.0.fetch_add(MOVED - 1, AcqRel);
    }

    /// Looks before a search.
    #[inline]
    pub(crate) fn look(&self) -> Seen {
        Seen(self.0.load(Acquire))
    }

    /// Whether nothing moved since `seen`.
    pub(crate) fn still(&self, seen: Seen) -> bool {
        seen.0 & MOVING == 0 && self.0.load(Acquire) == seen.0
    }
}
