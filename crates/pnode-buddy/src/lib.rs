//! Which frame: a concurrent allocator of page frames on memory of the caller, which validates every free.
//!
//! [`Zone`] hands out naturally aligned blocks of `2^order` frames, orders 0 to 18, from any range of frame numbers with
//! any holes. Every operation takes `&self`; [`Cpu`] is a CPU's own part of it, a value used through `&mut`. Nothing
//! allocates, nothing blocks, no frame is ever touched, and the books are memory that the caller lent
//! ([`Geometry`] says how much, [`Metadata`] takes it): about 76 KiB a GiB at 4 KiB pages, and zeros mean "all free",
//! so a new zone costs no pass over them.
//!
//! # One word decides
//!
//! The zone is a tree. A leaf is a *word* of 32 frames, two bits a frame: taken, and "continues the frame before". An
//! inner node is one `u64` too: three bits for each of its 16 children, which are words in an *area* (512 frames) and
//! nodes above.
//!
//! ```text
//! level 4   2^21 frames   blocks of order 17, 18      child: free | head | tail | absent | split
//! level 3   2^17          orders 13 to 16
//! level 2   2^13          orders  9 to 12
//! area      2^9           orders  5 to  8
//! word      2^5           orders  0 to  4             frame: free | head | tail | absent
//! ```
//!
//! A child is decided by its parent's word until the parent calls it *split*; then its own word decides. So every
//! block of every order is claimed by **one** compare-and-swap and freed by **one**, and that one sees where the block
//! starts, where it ends and that it is allocated: a double free, a free with the wrong order and a free of a part
//! are refused with certainty, in release builds. (A second free that *overlaps* the first in time is refused as well, but
//! for frames that a CPU owns: the module docs of `owned` say why.) There is no claim that spans words and so nothing to undo; that is
//! where the published lock-free peers hand out blocks twice (LLFree's multi-word claims).
//!
//! Frames change level one node at a time, and whoever moves them has the exclusive right to (invariant **B2**
//! of [`Zone`]): a child that its parent calls split while it is itself *dead* (zero) is in somebody's hands.
//! *Down*, when an allocation needs a smaller piece: the parent says split, then the child comes to life. *Up*, when
//! an allocation needs a larger one: the wholly free child is made dead, then the parent says free. **Frees never move
//! anything.** They change one word and at most raise hints, so the cost of a free has a bound, and a pair of
//! allocation and free at a boundary does not rebuild the levels above it.
//!
//! # Finding one
//!
//! Three layers of upper bounds lead from a request to a word: a bitmap by class and largest free order over all nodes
//! of a level, with 64-fold summaries; the node's *advert*; and its children's *hints*. A free raises those that
//! promise too little before it returns; a search that a promise disappointed lowers it, and looks again at what it
//! speaks of. Therefore a search that finds no promise knows, after a few loads, that nothing was free from its
//! beginning to its end. While something moves, the search knows that too (a gate counts moves, dead children show)
//! and looks again; if the mover's CPU stands still, the answer is [`FrameError::Contended`], never a false
//! "exhausted". The module docs of `hint`, `gate` and `collect` have the proofs; `tests/loom` checks them.
//!
//! Among the areas that promise enough, the one that promises least is used first, the lowest of them, and inside it
//! the smallest sufficient hole: whole areas stay whole (address-ordered best fit; see the measurements in
//! `benches/frames`).
//!
//! # Stealing
//!
//! An area belongs to the [`MigrateType`] that first used it and to blocks of orders 0 to 3 or to larger ones, as that one
//! was, until it is wholly free and moves up. A request looks in areas of its own type and size, then takes an unclaimed
//! area, then uses what others have, the least harmful first, without changing whose area it is: its own type of the other
//! size; then unmovable blocks go to huge areas before movable ones, huge blocks to movable areas before unmovable ones.
//! Movable blocks use the holes of unmovable areas *before* they take a new one, and huge areas last: an area with an
//! unmovable frame is no huge page for long, so its holes cost nothing. Single frames that fill the holes which larger
//! blocks need would make those break whole areas, which is why sizes are kept apart. (Linux steals by retyping page
//! blocks, `mm/page_alloc.c`; here a type is a preference and never makes a request fail.)
//!
//! # Runs and bulk
//!
//! Frames that are no block, an exact range ([`Zone::alloc_range`]) or any number of them, aligned and within limits
//! ([`Zone::alloc_run`] with a [`Run`]), are in the books as the naturally aligned blocks that they consist of, and are
//! freed by [`Zone::free_range`]. [`Zone::alloc_bulk`] and [`Zone::free_bulk`] (on [`Cpu`] too) change up to 32 single
//! frames by one compare-and-swap.
//!
//! # Taking part of it away
//!
//! [`Zone::isolate_range`] takes a range of areas out of service, [`Zone::offline_range`] makes it absent once all of it is
//! free, [`Zone::reopen_range`] brings it back (the life of a memory block at hot-unplug, `mm/memory_hotplug.c`). Searches
//! meet a mark on the areas, then nothing at all, so the paths of other frames stay what they are. The module docs of
//! `isolate` have the protocol.
//!
//! # After a crash
//!
//! [`Zone::recover`] takes over metadata that outlived its CPUs (memory of a device, a kernel that was restarted): the truth
//! is what each frame is, one word decides about it, and everything else is derived again. What was under way is on one
//! side or the other. The module docs of `recover` say which.
//!
//! # Known zeros
//!
//! [`Zeroed`] remembers, on further lines of the caller, which frames are known to be zero, so that a host that scrubs
//! ahead of time, or whose device does, need not zero them again. The zone's own paths know nothing of it.
//!
//! # Per CPU
//!
//! [`Cpu`] with [`Keep::Frames`] *owns* words of one area for each type and is the only one that writes them, with plain
//! stores: no atomic read-modify-write on that path. It takes one word of 32 frames, or, where whole ones are free and the
//! zone is large, several at once, and one read-modify-write for each of them when it comes to its turn. Everybody else can still read the word, so freeing a cached
//! frame again is [`FreeError::Cached`], whoever tries. A frame of an owned word that another CPU frees goes into the
//! area's inbox with one compare-and-swap. Where words hold blocks of several frames, a CPU that finds none to own in a
//! few areas takes single frames from the zone, and looks again later. An area has one owner at most, so CPUs that
//! allocate and free within what they own write no line in common. A CPU that goes through many words (a queue of 200
//! frames) writes its area's node and inbox too, and eight areas share such a line: in the simulation of 64 CPUs
//! (`sharing_tests`), about 0.1 lines an operation come from another CPU.
//!
//! It also has a *shelf*: blocks of orders 0 to 4 from anywhere that it freed and will hand out again, with one
//! read-modify-write each way, no search, and no hint to raise or to lower. That one operation marks the block in its
//! word, so it, too, is [`FreeError::Cached`] to whoever frees it again. Buddies on a shelf do not merge; it is short (at
//! most a 1024th of the zone an order), and a CPU gives it back before it lets an allocation fail.
//!
//! [`FrameError::Contended`]: pnode_core::FrameError::Contended
//! [`FreeError::Cached`]: pnode_core::FreeError::Cached
//! [`MigrateType`]: pnode_core::MigrateType
#![no_std]
#![deny(unsafe_code)]

#[cfg(all(loom, not(feature = "loom")))]
compile_error!("`--cfg loom` needs `--features loom`: run the models as CONTRIBUTING.md shows.");

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

mod at;
mod audit;
mod bitmap;
mod bulk;
mod collect;
mod count;
mod cpu;
mod error;
mod free;
mod gate;
mod geometry;
mod hint;
mod isolate;
mod map;
mod metadata;
mod node;
mod owned;
mod recent;
mod recover;
mod run;
mod search;
#[cfg(all(test, not(loom)))]
mod sharing_tests;
mod shelf;
mod stats;
mod table;
#[cfg(feature = "bitvec")]
mod view;
mod walk;
mod word;
mod zeroed;
mod zone;

pub use audit::AuditError;
pub use bulk::{BulkAllocError, BulkFreeError};
pub use cpu::{Cpu, Keep};
pub use error::{AllocAtError, ZoneError};
pub use geometry::Geometry;
pub use isolate::{IsolateError, OfflineError, RangeUse, ReopenError};
pub use map::{Occupancy, Svg};
pub use metadata::{Line, Metadata};
pub use recover::RecoverError;
pub use run::{FreeRangeError, Run, RunError};
pub use stats::{FreeCounts, Stats};
pub use zeroed::{Contents, MarkError, Zeroed};
pub use zone::Zone;
