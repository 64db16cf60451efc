//! Taking part of a zone out of service, and bringing it back: isolation, offlining, return.
//!
//! ```text
//! in service --isolate_range--> isolated --offline_range--> offline
//!      ^                            |                          |
//!      +-------reopen_range---------+--------------------------+
//! ```
//!
//! A range is whole areas (Linux isolates page blocks): its first and last frames are multiples of 512, or the ends of
//! the zone. Its areas that are live are marked isolated: no search looks there, frees land as they always do, and no
//! block of them goes onto a shelf. What is wholly free, an area or more, is *withheld*: the tree calls it absent, like a
//! hole. When all is absent the range may go offline, and then it costs nobody anything.
//!
//! A search that had looked before the mark was set asks [`Zone::admit`], which gives the block back; and so is a block of
//! an area or more caught that was freed into an isolated range and is free in a node above: whoever takes it withholds
//! it instead.
//!
//! # Invariants
//!
//! - **I1** children become absent or stop being so, and areas isolated, only by the holder of the range lock; every
//!   absent frame is in a hole or in a range of the table.
//! - **I2** an isolated range is in the table before the zone says that it has one, and the zone says so before its areas
//!   are marked: so an allocation finds the range, or the isolation finds its block allocated.
//!
//! The lock is only ever tried. Who does not get it either reports [`IsolateError::Busy`] or leaves a note ([`NOTE`])
//! that its holder reads before it lets go; nobody waits.

use core::fmt;
use core::ops::ControlFlow;

use pnode_core::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use pnode_core::sync::spin_loop;
use pnode_core::{FrameRange, FreeError, MigrateType, Order, Pfn};

use crate::count::UNCLAIMED;
use crate::geometry::{AREA, TOP, child_order, group_of};
use crate::node::{self, CHILDREN, Child, advert};
use crate::table::{Part, SLOTS};
use crate::walk::{Look, Use};
use crate::word::{self, level};
use crate::zone::{ISOLATED_RANGE, PATIENCE, Zone};

/// What the frames of a range are at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeUse {
    /// Frames that can be handed out.
    pub free: u64,
    /// Frames in allocated blocks.
    pub used: u64,
    /// Frames in the caches of CPUs: drain these.
    pub cached: u64,
    /// Frames that are withheld because the range is isolated, offline, or in a hole.
    pub absent: u64,
}

/// Why a range was not isolated. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsolateError {
    /// The range is not inside the zone.
    OutOfZone {
        /// The range.
        range: FrameRange,
    },
    /// Some of it is isolated or offline already.
    Overlaps {
        /// The range that is.
        with: FrameRange,
    },
    /// It does not begin and end at multiples of [`Zone::AREA_FRAMES`] or with the zone.
    Misaligned {
        /// Where it does not: its first frame, or the one after its last.
        pfn: Pfn,
    },
    /// It has a hole.
    Hole {
        /// The first frame of the hole inside the range.
        pfn: Pfn,
    },
    /// So many ranges are isolated already.
    TooMany {
        /// How many.
        limit: usize,
    },
    /// Another CPU is changing the ranges of this zone.
    Busy,
}

/// Why a range was not taken offline. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfflineError {
    /// This is no range that was isolated as a whole.
    NotIsolated {
        /// The range.
        range: FrameRange,
    },
    /// Frames of it are allocated or wait in CPU caches: migrate these, drain those.
    InUse {
        /// The first of them.
        pfn: Pfn,
        /// Allocated frames.
        used: u64,
        /// Frames in the caches of CPUs.
        cached: u64,
    },
    /// So many ranges are offline already.
    TooMany {
        /// How many.
        limit: usize,
    },
    /// Frames of it were on their way between two levels of the zone for too long.
    Contended {
        /// The first of them.
        pfn: Pfn,
    },
    /// Another CPU is changing the ranges of this zone.
    Busy,
}

/// Why a range was not brought back. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReopenError {
    /// This is no range that was isolated or taken offline as a whole.
    NotIsolated {
        /// The range.
        range: FrameRange,
    },
    /// Another CPU is changing the ranges of this zone.
    Busy,
}

const BUSY: &str = "another CPU is changing the ranges of this zone; try again";

impl fmt::Display for IsolateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfZone { range } => write!(f, "{range:?} is not inside this zone; cut it to the zone"),
            Self::Misaligned { pfn } => {
                write!(f, "{pfn:?} is no multiple of {} frames and no end of the zone", Zone::AREA_FRAMES)
            }
            Self::Overlaps { with } => write!(f, "{with:?} is isolated or offline already; reopen it first"),
            Self::Hole { pfn } => write!(f, "the range has a hole at {pfn:?}; isolate what lies around it"),
            Self::TooMany { limit } => {
                write!(f, "{limit} ranges are isolated already; take one offline or reopen one")
            }
            Self::Busy => f.write_str(BUSY),
        }
    }
}

impl fmt::Display for OfflineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotIsolated { range } => {
                write!(f, "{range:?} was not isolated as one range; do that first")
            }
            Self::InUse { pfn, used, cached } => write!(
                f,
                "{used} frames are allocated and {cached} in CPU caches, the first at {pfn:?}; migrate and drain them"
            ),
            Self::TooMany { limit } => {
                write!(f, "{limit} ranges are offline already; use fewer and larger ones")
            }
            Self::Contended { pfn } => write!(f, "the frames at {pfn:?} were moving; try again"),
            Self::Busy => f.write_str(BUSY),
        }
    }
}

impl fmt::Display for ReopenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotIsolated { range } => {
                write!(f, "{range:?} is neither isolated nor offline as one range")
            }
            Self::Busy => f.write_str(BUSY),
        }
    }
}

impl core::error::Error for IsolateError {}
impl core::error::Error for OfflineError {}
impl core::error::Error for ReopenError {}

/// Somebody changes the ranges.
const HELD: u64 = 1;
/// Somebody freed frames of an isolated range meanwhile.
const NOTE: u64 = 2;

/// The right to change the ranges of a zone; given back by the drop.
struct Ranges<'z, 'm>(&'z Zone<'m>);

impl Drop for Ranges<'_, '_> {
    fn drop(&mut self) {
        // Release pairs with the Acquire of the next holder.
        while self.0.range_lock.compare_exchange(HELD, 0, AcqRel, Relaxed).is_err() {
            // Acquire pairs with the Release of who left the note: we find the frames that it freed.
            if self.0.range_lock.fetch_and(!NOTE, AcqRel) & NOTE != 0 {
                self.0.listed(Part::Isolated).for_each(|range| self.0.withhold(range));
            }
        }
    }
}

impl Zone<'_> {
    /// Frames in an area: what is isolated and taken offline as a whole.
    pub const AREA_FRAMES: u64 = AREA;
}

impl<'m> Zone<'m> {
    fn ranges(&self) -> Option<Ranges<'_, 'm>> {
        // Made only when the lock is ours: its drop gives the lock back.
        // Acquire pairs with the Release of the last holder: we see the table and the tree as it left them.
        self.range_lock.compare_exchange(0, HELD, Acquire, Relaxed).is_ok().then(|| Ranges(self))
    }

    /// Takes `range` out of service: its free frames are no longer handed out, frees into it land and stay in it.
    /// `O(range)`.
    ///
    /// The range begins and ends at multiples of [`Zone::AREA_FRAMES`] or with the zone, and stands for itself until
    /// [`Zone::reopen_range`]. What is still in use is reported, and [`Zone::each_block_in`] names the blocks for whoever
    /// moves their contents. Frames that are free, but in an area that is not, count as free ([`Zone::free_frames`]) until
    /// the range is offline, though nobody gets them. A frame in the cache of a [`Cpu`](crate::Cpu) stays there until
    /// that CPU allocates next (it then gives back all it has) or is drained; a CPU that is inside an allocation at this
    /// moment may still hand out one that it had.
    ///
    /// Meanwhile all blocks come from the zone, none from caches, and each allocation looks at the table.
    ///
    /// # Errors
    ///
    /// [`IsolateError`], and nothing has changed.
    pub fn isolate_range(&self, range: FrameRange) -> Result<RangeUse, IsolateError> {
        if !self.span().contains_range(range) {
            return Err(IsolateError::OutOfZone { range });
        }
        let ends = [(range.start(), self.span().start()), (range.end(), self.span().end())];
        if let Some((pfn, _)) = ends.into_iter().find(|(pfn, zone)| pfn != zone && pfn.get() % AREA != 0) {
            return Err(IsolateError::Misaligned { pfn });
        }
        let _ranges = self.ranges().ok_or(IsolateError::Busy)?;
        let both = self.listed(Part::Isolated).chain(self.listed(Part::Offline));
        if let Some(with) = both.into_iter().find(|other| other.intersection(range).is_some()) {
            return Err(IsolateError::Overlaps { with });
        }
        // By I1 and the test above, what is absent here is a hole.
        if let Some(pfn) = self.first_in(range, |what| what == Use::Absent) {
            return Err(IsolateError::Hole { pfn });
        }
        if !self.list(Part::Isolated, range) {
            return Err(IsolateError::TooMany { limit: SLOTS });
        }
        // INVARIANT: I2: Release pairs with the Acquire in `admit`: who sees this sees the table.
        self.closed.fetch_add(ISOLATED_RANGE, Release);
        self.withhold(range);
        // Whoever takes what this does not report finds the range isolated.
        Ok(self.range_use_at(range, Look::Certain))
    }

    /// Takes an isolated range offline: none of its frames counts as managed any more, a free into it is refused with
    /// [`FreeError::Offline`]. `O(range)`.
    ///
    /// # Errors
    ///
    /// [`OfflineError`], and nothing has changed: above all [`OfflineError::InUse`] while a frame is allocated or cached.
    pub fn offline_range(&self, range: FrameRange) -> Result<(), OfflineError> {
        let _ranges = self.ranges().ok_or(OfflineError::Busy)?;
        if !self.listed(Part::Isolated).any(|isolated| isolated == range) {
            return Err(OfflineError::NotIsolated { range });
        }
        self.withhold(range);
        if let Some(pfn) = self.first_in(range, |what| matches!(what, Use::Block | Use::Cached)) {
            let RangeUse { used, cached, .. } = self.range_use(range);
            return Err(OfflineError::InUse { pfn, used, cached });
        }
        if let Some(pfn) = self.first_in(range, |what| what == Use::Free) {
            return Err(OfflineError::Contended { pfn });
        }
        if !self.list(Part::Offline, range) {
            return Err(OfflineError::TooMany { limit: self.slots(Part::Offline) });
        }
        self.unlist(Part::Isolated, range);
        self.closed.fetch_sub(ISOLATED_RANGE, AcqRel);
        self.managed.fetch_sub(range.frames(), Relaxed);
        self.withheld.fetch_sub(range.frames(), Relaxed);
        Ok(())
    }

    /// Brings a range back that was isolated or offline; what of it is not in use is free. `O(range)`.
    ///
    /// # Errors
    ///
    /// [`ReopenError`], and nothing has changed.
    pub fn reopen_range(&self, range: FrameRange) -> Result<(), ReopenError> {
        let _ranges = self.ranges().ok_or(ReopenError::Busy)?;
        if self.unlist(Part::Isolated, range) {
            let restored = self.restore(range);
            self.withheld.fetch_sub(restored, Relaxed);
            self.closed.fetch_sub(ISOLATED_RANGE, AcqRel);
        } else if self.unlist(Part::Offline, range) {
            self.managed.fetch_add(range.frames(), Relaxed);
            self.restore(range);
        } else {
            return Err(ReopenError::NotIsolated { range });
        }
        Ok(())
    }

    /// What the frames of `range` are, as far as they are in the zone: `O(range)`, a snapshot.
    pub fn range_use(&self, range: FrameRange) -> RangeUse {
        self.range_use_at(range, Look::Glance)
    }

    pub(crate) fn range_use_at(&self, range: FrameRange, look: Look) -> RangeUse {
        let mut found = RangeUse::default();
        if let Some(range) = range.intersection(self.span()) {
            let _ = self.walk_range(range, look, &mut |piece| {
                let first = piece.pfn.max(range.start().get());
                let frames = piece.last().min(range.end().get() - 1) - first + 1;
                match piece.what {
                    Use::Free => found.free += frames,
                    Use::Block => found.used += frames,
                    Use::Cached => found.cached += frames,
                    Use::Absent => found.absent += frames,
                }
                ControlFlow::Continue(())
            });
        }
        found
    }

    /// Visits every allocated block that has frames in `range`, in order of address, until `visit` says stop: what has
    /// to be migrated before [`Zone::offline_range`]. A block may begin before the range or end after it. `O(range)`, a
    /// snapshot; what lies in a CPU cache is not visited.
    pub fn each_block_in(&self, range: FrameRange, visit: &mut dyn FnMut(Pfn, Order) -> ControlFlow<()>) {
        if let Some(range) = range.intersection(self.span()) {
            let _ = self.walk_range(range, Look::Glance, &mut |piece| match (
                piece.what,
                Order::new(piece.order),
            ) {
                (Use::Block, Ok(order)) => visit(Pfn::new(piece.pfn), order),
                _ => ControlFlow::Continue(()),
            });
        }
    }

    /// The first frame of the range of a kind.
    fn first_in(&self, range: FrameRange, of: impl Fn(Use) -> bool) -> Option<Pfn> {
        let mut found = None;
        let _ = self.walk_range(range, Look::Glance, &mut |piece| {
            if of(piece.what) {
                found = Some(Pfn::new(piece.pfn.max(range.start().get())));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        found
    }

    /// Whether some frame of `first..=last` is isolated, for those who read `closed` with Acquire.
    #[cold]
    pub(crate) fn is_isolated(&self, first: u64, last: u64) -> bool {
        self.listed(Part::Isolated).any(|range| range.start().get() <= last && first < range.end().get())
    }

    /// Withholds what of `first..=last`, which was just freed, is isolated. If another CPU is changing the ranges, that one
    /// does it before it returns.
    #[cold]
    pub(crate) fn keep_isolated(&self, first: u64, last: u64) {
        let Some(_ranges) = self.ranges() else {
            // Release pairs with the Acquire in the drop of `Ranges`: the holder reads the note, be it ourselves.
            if self.range_lock.fetch_or(HELD | NOTE, AcqRel) & HELD == 0 {
                drop(Ranges(self));
            }
            return;
        };
        for isolated in self.listed(Part::Isolated) {
            // Whole areas, because a part of one is not withheld.
            let (low, high) = (isolated.start().get(), isolated.end().get() - 1);
            let (first, last) = (low.max(first & !(AREA - 1)), high.min(last | (AREA - 1)));
            if let Some(Ok(range)) =
                (first <= last).then(|| FrameRange::new(Pfn::new(first), last - first + 1))
            {
                self.withhold(range);
            }
        }
    }

    /// Why an absent frame cannot be freed.
    #[cold]
    pub(crate) fn absence(&self, pfn: Pfn) -> FreeError {
        if self.listed_around(Part::Offline, pfn).is_some() {
            return FreeError::Offline { pfn };
        }
        match self.listed_around(Part::Isolated, pfn) {
            Some(_) => FreeError::NotAllocated { pfn },
            None => FreeError::Hole { pfn },
        }
    }

    /// Isolates the areas of a range and makes those absent that are wholly free, as far as they stand still. The caller
    /// has the range lock and the range is isolated (I1).
    pub(crate) fn withhold(&self, range: FrameRange) {
        let (first, last) = (range.start().get(), range.end().get() - 1);
        for _ in 0..PATIENCE {
            let mut busy = false;
            for index in self.index(TOP, first)..=self.index(TOP, last) {
                self.withhold_in(TOP, index, (first, last), &mut busy);
            }
            if !busy {
                break;
            }
            spin_loop();
        }
    }

    fn withhold_in(&self, level: usize, index: usize, (first, last): (u64, u64), busy: &mut bool) {
        let at = self.node(level, index);
        let size = 1 << child_order(level);
        for child in 0..CHILDREN {
            let start = self.child_pfn(level, index, child);
            let end = start + (size - 1);
            if start > last || end < first {
                continue;
            }
            loop {
                // Acquire pairs with the Release that made the node live, and with the frees in it.
                let value = at.load(Acquire);
                if value == node::DEAD {
                    *busy = true;
                    return;
                }
                match node::child(value, child) {
                    // A free child has all its frames in the zone, and an area is in the range or is not.
                    Child::Free if first <= start && end <= last => {
                        let new = node::with_absent(value, 1 << child);
                        if at.compare_exchange(value, new, AcqRel, Relaxed).is_ok() {
                            self.count_withheld(UNCLAIMED, size);
                            break;
                        }
                    }
                    Child::Free => {
                        self.gate.enter();
                        let new = node::with_split(value, child, level::EMPTY);
                        if at.compare_exchange(value, new, AcqRel, Relaxed).is_ok() {
                            let below = self.child_index(level, index, child);
                            self.bring_to_life(level - 1, below, node::empty(0));
                        }
                        self.gate.leave();
                    }
                    Child::Split(_) if level == 2 => {
                        *busy |= !self.withhold_area(index, child);
                        break;
                    }
                    Child::Split(_) => {
                        let below = self.child_index(level, index, child);
                        self.withhold_in(level - 1, below, (first, last), busy);
                        break;
                    }
                    Child::Head | Child::Tail | Child::Absent => break,
                }
            }
        }
    }

    /// Isolates a live area and makes it absent if it is wholly free; `false` if it is in motion.
    fn withhold_area(&self, parent: usize, child: u32) -> bool {
        let area = self.child_index(2, parent, child);
        let at = self.node(1, area);
        let mut value = at.load(Acquire);
        while value != node::DEAD && value & node::ISOLATED == 0 {
            // From here on no search takes anything here but one that has looked already, and that one asks `admit`.
            match at.compare_exchange_weak(value, value | node::ISOLATED, AcqRel, Acquire) {
                Ok(_) => {
                    self.gate.enter();
                    self.withdraw(1, area, node::group(value), 0..=advert::HALF);
                    self.gate.leave();
                    break;
                }
                Err(now) => value = now,
            }
        }
        if value == node::DEAD {
            return false;
        }
        let mut split = node::split(value);
        while split != 0 {
            let at = split.trailing_zeros();
            if !self.withhold_word(area, at, value) {
                return true;
            }
            split &= split - 1;
        }
        let value = at.load(Acquire);
        if value == node::DEAD || value & node::SETTLING != 0 {
            return false;
        }
        if node::free(value) | node::absent(value) != 0xffff {
            return true;
        }
        self.gate.enter();
        // Release pairs with the Acquire of the next owner, Acquire with the frees. By B2 the dead area is ours.
        let gone = at.compare_exchange(value, node::DEAD, AcqRel, Relaxed).is_ok();
        if gone {
            let frames = u64::from(node::free(value).count_ones()) << word::ORDER;
            self.count_withheld(node::class(value), frames);
            self.withdraw(1, area, node::group(value), 0..=advert::HALF);
            self.set_absent(2, parent, 1 << child);
        }
        self.gate.leave();
        gone
    }

    /// Moves a word up to its isolated area if it has no allocated frame; `false` if it has.
    fn withhold_word(&self, area: usize, child: u32, books: u64) -> bool {
        let at = self.word(self.child_index(1, area, child));
        let value = at.load(Acquire);
        if value == word::EMPTY {
            // Release pairs with the Acquire of the next owner, Acquire with the frees. By B2 the dead word is ours.
            let gone = at.compare_exchange(value, word::DEAD, AcqRel, Relaxed).is_ok();
            if gone {
                self.set_free(1, area, 1 << child);
            }
            return gone;
        }
        // The word at an end of the zone: what is absent lies outside.
        let free = word::free(value);
        if books & node::HOLED == 0 || value == word::DEAD || free | word::absent_frames(value) != !0 {
            return false;
        }
        let gone = !word::is_owned(value) && at.compare_exchange(value, word::DEAD, AcqRel, Relaxed).is_ok();
        if gone {
            self.count_withheld(node::class(books), u64::from(free.count_ones()));
            self.set_absent(1, area, 1 << child);
        }
        gone
    }

    fn count_withheld(&self, class: u8, frames: u64) {
        self.counts().take(class, frames);
        self.withheld.fetch_add(frames, Relaxed);
    }

    /// Sets every child of `mask` absent, which the caller alone may do (B2).
    fn set_absent(&self, level: usize, index: usize, mask: u64) {
        let at = self.node(level, index);
        let mut old = at.load(Relaxed);
        while let Err(now) = at.compare_exchange_weak(old, node::with_absent(old, mask), Release, Relaxed) {
            old = now;
        }
    }

    /// Makes the absent frames of a range free, opens its areas, and says how many frames were absent. The caller has the
    /// range lock, and the range has just left the table (I1).
    fn restore(&self, range: FrameRange) -> u64 {
        let (first, last) = (range.start().get(), range.end().get() - 1);
        let tops = self.index(TOP, first)..=self.index(TOP, last);
        tops.map(|index| self.restore_in(TOP, index, first, last)).sum()
    }

    fn restore_in(&self, level: usize, index: usize, first: u64, last: u64) -> u64 {
        let at = self.node(level, index);
        let size = 1 << child_order(level);
        let mut restored = 0;
        for child in 0..CHILDREN {
            let start = self.child_pfn(level, index, child);
            let end = start + (size - 1);
            if start > last || end < first {
                continue;
            }
            let inside = first <= start && end <= last;
            let below = self.child_index_or(level, index, child);
            loop {
                let value = at.load(Acquire);
                if value == node::DEAD {
                    // A node with an absent or isolated child is never dead: nothing here is ours.
                    return restored;
                }
                let class = if level == 1 { node::class(value) } else { UNCLAIMED };
                match (node::child(value, child), below) {
                    (Child::Absent, _) if inside => {
                        let new = node::advertised_up(node::with_free(value, 1 << child));
                        // Release pairs with the Acquire of the search that takes the child.
                        if at.compare_exchange(value, new, AcqRel, Relaxed).is_ok() {
                            self.counts().give(class, size);
                            self.rose(level, index, node::advertised(value), new);
                            restored += size;
                            break;
                        }
                    }
                    (Child::Absent, Some(below)) if level == 1 => {
                        // The word at an end of the zone. INVARIANT: S2: the area is holed before the word is.
                        let new = node::with_split(value, child, level::FULL) | node::HOLED;
                        if at.compare_exchange(value, new, AcqRel, Relaxed).is_ok() {
                            let (low, high) = (first.max(start), last.min(end));
                            let mut word = word::EMPTY;
                            if low != start {
                                word = word::absent(word, 0, (low - start) as u32 - 1);
                            }
                            if high != end {
                                word = word::absent(word, (high - start) as u32 + 1, word::FRAMES - 1);
                            }
                            // By B2 the word is ours. Release pairs with the Acquire loads of the word.
                            self.word(below).store(word, Release);
                            self.counts().give(class, high - low + 1);
                            self.raise(1, index, child, word::serves(word), word::largest(word));
                            restored += high - low + 1;
                            break;
                        }
                    }
                    (Child::Absent, Some(below)) => {
                        self.gate.enter();
                        let new = node::with_split(value, child, level::FULL);
                        if at.compare_exchange(value, new, AcqRel, Relaxed).is_ok() {
                            let group = if level == 2 { group_of(0, MigrateType::Movable as u8) } else { 0 };
                            let absent = node::with_absent(node::empty(group), 0xffff);
                            self.bring_to_life(level - 1, below, absent);
                        }
                        self.gate.leave();
                    }
                    (Child::Split(_), Some(below)) if level > 1 => {
                        restored += self.restore_in(level - 1, below, first, last);
                        break;
                    }
                    _ => break,
                }
            }
        }
        if level == 1 {
            self.open_area(index);
        }
        restored
    }

    /// Puts an isolated area back into the index.
    fn open_area(&self, area: usize) {
        let at = self.node(1, area);
        let mut value = at.load(Acquire);
        while value & node::ISOLATED != 0 {
            let new = node::advertised_up(value & !node::ISOLATED);
            match at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                Ok(_) => return self.rose(1, area, advert::NONE, new),
                Err(now) => value = now,
            }
        }
    }

    /// The index of the books of a child, if it has some: children wholly outside the zone have none.
    fn child_index_or(&self, level: usize, index: usize, child: u32) -> Option<usize> {
        self.has_children(level, index, child).then(|| self.child_index(level, index, child))
    }
}
