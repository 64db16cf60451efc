//! What a machine counts.

use core::fmt;

use pnode_core::sync::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $label:literal,)*) => {
        /// The counters of a machine, as they stood at one moment or another during the call that read them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Default)]
        pub(super) struct Live {
            $(pub(super) $name: Count,)*
        }

        impl Live {
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.read(),)* }
            }
        }

        impl fmt::Display for Counters {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{:<28}{:>12}", $label, self.$name)?;)*
                Ok(())
            }
        }
    };
}

counters! {
    /// Faults that found no page and took a frame.
    hard_faults: "hard faults",
    /// Pages that came along with the page of a hard fault, or by populating.
    faulted_around: "pages faulted around",
    /// First touches that were served by a huge mapping; they count as hard faults, too.
    huge_faults: "huge faults",
    /// First touches that found no free block for a huge mapping, and were served by a page.
    huge_refused: "huge faults without a block",
    /// Huge mappings that moved to another node as a whole.
    huge_moves: "huge mappings moved",
    /// Faults that found the page and only mapped it again.
    soft_faults: "soft faults",
    /// Address spaces that were forked.
    forks: "forks",
    /// Writes to a page that a fork shared, which copied it.
    copied_on_write: "pages copied on write",
    /// Writes to a page that a fork shared, by the last one who had it.
    taken_over: "pages taken over by a write",
    /// Faults that read a page of a compressed node.
    read_faults: "reads of compressed pages",
    /// Faults that another thread had served meanwhile.
    spurious_faults: "spurious faults",
    /// Faults that could not be served.
    failed_faults: "failed faults",
    /// Pages that moved into a private node.
    demoted: "pages demoted",
    /// Pages that a private node did not take.
    demotion_refused: "demotions refused",
    /// Pages that a write moved back to ordinary memory.
    promoted: "pages promoted by a write",
    /// Hot pages that were moved back to ordinary memory in the background.
    promoted_hot: "hot pages promoted",
    /// Pages whose bytes were not wanted any more when reclaim came by (`MADV_FREE`).
    freed_lazily: "pages freed lazily",
    /// Pages that were written to the swap file.
    swapped_out: "pages swapped out",
    /// Pages that were read from the swap file.
    swapped_in: "pages swapped in",
    /// Pages that were read from files.
    read_in: "pages read from files",
    /// Pages that were written to files.
    written_back: "pages written to files",
    /// Pages that were moved because their node went away.
    evacuated: "pages evacuated",
    /// Pages that were moved between ordinary nodes.
    migrated: "pages migrated",
    /// Searches for cold pages, by hand or because memory ran out.
    reclaim_passes: "reclaim passes",
}

/// A number of events, which orders nothing.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, events: u64) {
        self.0.fetch_add(events, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
