//! The zone: a range of frames with its books, and the public operations on single blocks.

use core::fmt;

use pnode_core::sync::Ordering::{Acquire, Relaxed, Release};
use pnode_core::sync::{AtomicU64, spin_loop};
use pnode_core::{FrameError, FrameRange, FrameSource, FrameZone, FreeError, MigrateType, Order, Pfn};

use crate::bitmap::Bitmap;
use crate::count::UNCLAIMED;
use crate::error::{AllocAtError, ZoneError};
use crate::gate::Gate;
use crate::geometry::{Geometry, LEVELS, TOP, child_order, group_of, level_of, node_order};
use crate::isolate::RangeUse;
use crate::metadata::{Metadata, Words};
use crate::node::{self, CHILDREN};
use crate::walk::Look;
use crate::word;

/// How often a search that met frames in motion looks again before it gives up with a typed error.
pub(crate) const PATIENCE: u32 = if cfg!(loom) { 2 } else { 1 << 12 };

/// The whole zone is isolated.
const SHUT: u64 = 1;
/// One isolated range of the zone.
pub(crate) const ISOLATED_RANGE: u64 = 2;

/// A concurrent allocator of page frames over one range of frame numbers.
///
/// All operations take `&self` and may run on any number of CPUs at once. The frames themselves are never touched.
/// See the [crate documentation](crate) for how it works.
///
/// ```
/// use pnode_buddy::{Geometry, Line, Metadata, Zone};
/// use pnode_core::{FrameRange, FreeError, MigrateType, Order, Pfn};
///
/// let range = FrameRange::new(Pfn::new(1000), 5000)?;
/// let mut lines = [Line::ZERO; 64]; // `Geometry::new(range)?.lines()` says how many
/// let zone = Zone::new(range, Metadata::assume_zeroed(&mut lines))?;
///
/// let block = zone.alloc(Order::new(3)?, MigrateType::Movable)?;
/// assert_eq!(zone.free_frames(), 5000 - 8);
/// assert_eq!(zone.free(block, Order::ZERO), Err(FreeError::WrongOrder { pfn: block, order: Order::ZERO }));
/// zone.free(block, Order::new(3)?)?;
/// assert_eq!(zone.free(block, Order::new(3)?), Err(FreeError::NotAllocated { pfn: block }));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// # Invariants
///
/// - **B1** a child is free, allocated or absent by its parent's word *or* is split and then by its own; one word
///   decides, never two.
/// - **B2** a node or word is dead unless its parent calls it split; while it is dead under a split parent, exactly
///   one thread has the right to change either.
/// - **B3** an operation that has returned left no frame behind that a later search could miss: hints, adverts and
///   index bits are upper bounds of what is free, except inside a gate section or while a node is settling.
/// - **B4** if a node advertises that all of it is free, its parent's hint says so too, or somebody is about to say it.
pub struct Zone<'m> {
    pub(crate) geometry: Geometry,
    pub(crate) words: Words<'m>,
    pub(crate) gate: Gate,
    pub(crate) managed: AtomicU64,
    /// [`SHUT`] while the whole zone is isolated, and [`ISOLATED_RANGE`] times the isolated ranges.
    pub(crate) closed: AtomicU64,
    /// Frames that are absent because their range is isolated.
    pub(crate) withheld: AtomicU64,
    /// Not zero while somebody changes the table of ranges.
    pub(crate) range_lock: AtomicU64,
}

impl<'m> Zone<'m> {
    /// A zone over all frames of `range`, all free.
    ///
    /// Takes time for the edges only, not for the frames: zeroed metadata already describes a free zone.
    ///
    /// # Errors
    ///
    /// [`ZoneError`]: the range is too large, or the metadata too small.
    pub fn new(range: FrameRange, metadata: Metadata<'m>) -> Result<Self, ZoneError> {
        Self::with_holes(range, &[], metadata)
    }

    /// A zone over the frames of `range` without `holes`; holes may touch and overlap.
    ///
    /// # Errors
    ///
    /// [`ZoneError`]: as [`Zone::new`]; a hole that is not inside the range; holes that leave no frame.
    pub fn with_holes(
        range: FrameRange,
        holes: &[FrameRange],
        metadata: Metadata<'m>,
    ) -> Result<Self, ZoneError> {
        let geometry = Geometry::new(range)?;
        if let Some(&hole) = holes.iter().find(|hole| !range.contains_range(**hole)) {
            return Err(ZoneError::HoleOutside { hole });
        }
        let words = metadata.into_words(geometry.lines())?;
        let zone = Self::over(geometry, words);
        let top = zone.geometry.level(TOP);
        for index in 0..top.count {
            zone.node(TOP, index).store(node::empty(0), Relaxed);
        }
        // The tree covers whole nodes; what lies outside the range is absent.
        let first = top.first << node_order(TOP);
        let last = ((top.first + top.count as u64 - 1) << node_order(TOP)) | (Order::MAX.frames() * 8 - 1);
        if first < range.start().get() {
            zone.make_absent(first, range.start().get() - 1);
        }
        if range.end().get() <= last {
            zone.make_absent(range.end().get(), last);
        }
        let mut missing = 0;
        for hole in holes {
            missing += zone.make_absent(hole.start().get(), hole.end().get() - 1);
        }
        for index in 0..top.count {
            zone.announce(TOP, index, node::advert::NONE, zone.node(TOP, index).load(Relaxed));
        }
        if missing == range.frames() {
            return Err(ZoneError::NoFrames { range });
        }
        zone.managed.store(range.frames() - missing, Relaxed);
        zone.recount();
        Self::sign(&zone.geometry, &zone.words);
        Ok(zone)
    }

    /// A zone that knows nothing yet of what its books say.
    pub(crate) fn over(geometry: Geometry, words: Words<'m>) -> Self {
        Self {
            geometry,
            words,
            gate: Gate::new(),
            managed: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            withheld: AtomicU64::new(0),
            range_lock: AtomicU64::new(0),
        }
    }

    /// The frames that this zone can ever hand out lie within this range.
    pub fn span(&self) -> FrameRange {
        self.geometry.range()
    }

    /// The geometry of the zone: how large its metadata is.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// How many frames are managed: the span without holes and without what is offline.
    pub fn managed_frames(&self) -> u64 {
        self.managed.load(Relaxed)
    }

    /// How many frames are free: `O(1)`, exact when no operation is in flight.
    pub fn free_frames(&self) -> u64 {
        self.counts().free()
    }

    /// Takes a block of `order`, aligned to its size.
    ///
    /// Where: the lowest place in the smallest sufficient hole of an area of the same migrate type; else a new area;
    /// else an area of another type, the least harmful first (see [`crate#stealing`]).
    ///
    /// # Errors
    ///
    /// [`FrameError::Exhausted`] if no block was free all through the call; one that others free or take meanwhile may
    /// or may not be found;
    /// [`FrameError::Closed`] while the zone is isolated;
    /// [`FrameError::Contended`] if frames stayed in motion for very long because the CPU that moves them stands still.
    pub fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        for _ in 0..PATIENCE {
            let (pfn, class) = self.search(order, migrate as u8)?;
            match self.admit(pfn, order) {
                // Taken from a range that is being isolated: it was given back, and is not found again.
                Err(FrameError::Contended { .. }) => spin_loop(),
                admitted => {
                    admitted?;
                    self.counts().take(class, order.frames());
                    return Ok(pfn);
                }
            }
        }
        Err(FrameError::Contended { order })
    }

    /// Stops handing out blocks from the whole zone; frees still land. Idempotent. (For a part of it,
    /// [`Zone::isolate_range`].)
    ///
    /// No allocation that begins after this returned succeeds until [`Zone::reopen`]; one that is under way fails, or
    /// [`Zone::used_frames`] counts its block.
    pub fn isolate(&self) {
        // Release pairs with the Acquire in `used_frames`, whose walk hands it on to every later claim.
        self.closed.fetch_or(SHUT, Release);
    }

    /// Undoes [`Zone::isolate`]. Idempotent.
    pub fn reopen(&self) {
        // Release pairs with the Acquire in `admit`.
        self.closed.fetch_and(!SHUT, Release);
    }

    /// How many frames are handed out, CPU caches included: `O(1)` from the counts, or, while the zone is isolated,
    /// `O(zone)` from the books, exact but for calls under way: what these move or will give back counts as used.
    pub fn used_frames(&self) -> u64 {
        // Acquire pairs with the Release in `isolate`, if somebody else called that.
        if self.closed.load(Acquire) & SHUT == 0 {
            let unused = self.free_frames() + self.withheld.load(Relaxed);
            return self.managed_frames().saturating_sub(unused);
        }
        let RangeUse { used, cached, .. } = self.range_use_at(self.span(), Look::Certain);
        used + cached
    }

    /// Whether a block that was just taken may be handed out; gives it back if the zone, or a range that it lies in, was
    /// isolated meanwhile: [`FrameError::Contended`] for the latter, because another block may be had.
    #[inline(always)]
    pub(crate) fn admit(&self, pfn: Pfn, order: Order) -> Result<(), FrameError> {
        // No fence: the claim, an Acquire, is ordered with the walk of who isolated (`Look::Certain`) by the word that it
        // changed, and sees the isolation unless that walk saw the claim. Acquire: who sees that a range is isolated sees
        // it in the table; who sees the zone reopened sees all that came before.
        match self.closed.load(Acquire) {
            0 => Ok(()),
            closed => self.admit_while(closed, pfn, order),
        }
    }

    #[cold]
    #[inline(never)]
    fn admit_while(&self, closed: u64, pfn: Pfn, order: Order) -> Result<(), FrameError> {
        let (first, last) = (pfn.get(), pfn.get() + (order.frames() - 1));
        if closed & SHUT == 0 && !self.is_isolated(first, last) {
            return Ok(());
        }
        // It is allocated and nobody but us knows it, so this free cannot be refused.
        let _ = self.release(pfn, order);
        if closed & SHUT != 0 {
            return Err(FrameError::Closed { order });
        }
        self.keep_isolated(first, last);
        Err(FrameError::Contended { order })
    }

    /// Whether the whole zone is isolated.
    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        self.closed.load(Relaxed) & SHUT != 0
    }

    /// Whether the zone or a range of it is isolated.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed) != 0
    }

    /// [`Zone::alloc`] without the accounting: the block and whose count it leaves.
    #[inline]
    pub(crate) fn search(&self, order: Order, class: u8) -> Result<(Pfn, u8), FrameError> {
        let mut patience = PATIENCE;
        while !self.is_shut() {
            let seen = self.gate.look();
            let mut busy = false;
            let found = match level_of(order.get()) {
                0 | 1 => self.alloc_small(order.get(), class, &mut busy),
                level => self.claim(level, order.get(), &mut busy).map(|pfn| (pfn, UNCLAIMED)),
            };
            if let Some(found) = found {
                return Ok(found);
            }
            if !busy && self.gate.still(seen) {
                return Err(FrameError::Exhausted { order });
            }
            patience -= 1;
            if patience == 0 {
                return Err(FrameError::Contended { order });
            }
            spin_loop();
        }
        Err(FrameError::Closed { order })
    }

    /// Whether all frames of the block lie in the span.
    #[inline]
    pub(crate) fn covers(&self, pfn: Pfn, order: Order) -> bool {
        let range = self.geometry.range();
        match pfn.checked_sub(range.start()) {
            Some(offset) => offset < range.frames() && order.frames() <= range.frames() - offset,
            None => false,
        }
    }

    #[inline]
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        self.words.at(index)
    }

    #[inline]
    pub(crate) fn node(&self, level: usize, index: usize) -> &AtomicU64 {
        self.words.at(self.geometry.level(level).nodes + index)
    }

    /// The inbox of an area: frames of its owned word that others freed.
    #[inline]
    pub(crate) fn inbox(&self, area: usize) -> &AtomicU64 {
        self.words.at(self.geometry.inboxes + area)
    }

    /// The index of the node at `level` that covers `pfn`.
    #[inline]
    pub(crate) fn index(&self, level: usize, pfn: u64) -> usize {
        ((pfn >> node_order(level)) - self.geometry.level(level).first) as usize
    }

    /// The index of the word that covers `pfn`.
    #[inline]
    pub(crate) fn word_index(&self, pfn: u64) -> usize {
        ((pfn >> word::ORDER) - (self.geometry.level(1).first << 4)) as usize
    }

    /// The first frame of a word.
    #[inline]
    pub(crate) fn word_pfn(&self, index: usize) -> u64 {
        ((self.geometry.level(1).first << 4) + index as u64) << word::ORDER
    }

    /// The word of a block below the order of a word, and where in it the block starts, if its first frame is one of the
    /// zone and a place for such a block. (If it ends outside, the word says so: what lies outside is absent.)
    #[inline(always)]
    pub(crate) fn place(&self, pfn: Pfn, order: u8) -> Option<(usize, u32)> {
        let range = self.geometry.range();
        let inside = pfn.get().wrapping_sub(range.start().get()) < range.frames();
        let aligned = pfn.get() & ((1 << order) - 1) == 0;
        (inside && aligned).then(|| (self.word_index(pfn.get()), pfn.get() as u32 & (word::FRAMES - 1)))
    }

    /// The first frame of a child of a node.
    #[inline]
    pub(crate) fn child_pfn(&self, level: usize, index: usize, child: u32) -> u64 {
        ((self.geometry.level(level).first + index as u64) << node_order(level))
            + (u64::from(child) << child_order(level))
    }

    /// The index one level down of a child of a node; for an area, of its word.
    #[inline]
    pub(crate) fn child_index(&self, level: usize, index: usize, child: u32) -> usize {
        if level == 1 {
            index * CHILDREN as usize + child as usize
        } else {
            self.index(level - 1, self.child_pfn(level, index, child))
        }
    }

    /// The bitmap of the nodes at `level`, of `group`, that advertise at least `advert`.
    #[inline]
    pub(crate) fn map(&self, level: usize, group: u8, advert: u8) -> Bitmap<'_> {
        let geometry = &self.geometry;
        let base = geometry.map(level, group, advert);
        Bitmap { words: &self.words, base, shape: &geometry.level(level).shape }
    }

    /// Marks frames `first..=last` absent while the zone is not shared yet; the number of frames that were not.
    fn make_absent(&self, first: u64, last: u64) -> u64 {
        let top = self.geometry.level(TOP);
        (0..top.count).map(|index| self.make_absent_in(TOP, index, first, last)).sum()
    }

    fn make_absent_in(&self, level: usize, index: usize, first: u64, last: u64) -> u64 {
        let mut changed = 0;
        let mut value = self.node(level, index).load(Relaxed);
        for child in 0..CHILDREN {
            let start = self.child_pfn(level, index, child);
            let end = start | ((1 << child_order(level)) - 1);
            if end < first || start > last || node::child(value, child) == node::Child::Absent {
                continue;
            }
            if first <= start && end <= last && node::child(value, child) == node::Child::Free {
                value = node::with_absent(value, 1 << child);
                changed += 1 << child_order(level);
                continue;
            }
            let below = self.child_index(level, index, child);
            if node::child(value, child) == node::Child::Free {
                value = node::with_split(value, child, word::level::EMPTY);
                let live = if level == 1 { self.word(below) } else { self.node(level - 1, below) };
                let group = if level == 2 { group_of(0, MigrateType::Movable as u8) } else { 0 };
                live.store(if level == 1 { word::EMPTY } else { node::empty(group) }, Relaxed);
            }
            if level == 1 {
                let old = self.word(below).load(Relaxed);
                let (low, high) = ((first.max(start) - start) as u32, (last.min(end) - start) as u32);
                let new = word::absent(old, low, high);
                if (0..word::FRAMES).all(|at| word::frame(new, at) == word::Frame::Absent) {
                    // An area has no word of only absent frames.
                    self.word(below).store(word::DEAD, Relaxed);
                    value = node::with_absent(value, 1 << child);
                    changed += u64::from(word::free(old).count_ones());
                    continue;
                }
                self.word(below).store(new, Relaxed);
                changed += u64::from(word::free(old).count_ones() - word::free(new).count_ones());
                value = node::with_split(value, child, word::serves(new)) | node::HOLED;
            } else {
                changed += self.make_absent_in(level - 1, below, first, last);
                let whole = node::serves(self.node(level - 1, below).load(Relaxed)) == node::advert::EMPTY;
                value = node::with_split(value, child, if whole { 3 } else { 0 });
            }
        }
        value = node::with_advert(value, node::serves(value));
        self.node(level, index).store(value, Relaxed);
        if level < TOP {
            self.announce(level, index, node::advert::NONE, value);
        }
        changed
    }

    /// Sets every child of `mask` free, which the caller alone may do (B2).
    pub(crate) fn set_free(&self, level: usize, index: usize, mask: u64) {
        let node = self.node(level, index);
        let mut old = node.load(Relaxed);
        loop {
            let new = node::with_free(old, mask);
            // Release pairs with the Acquire of the search that takes the children: it sees their words dead.
            match node.compare_exchange_weak(old, new, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }
}

#[cfg(all(feature = "alloc", not(loom)))]
impl Zone<'static> {
    /// A zone that owns its metadata, on the heap.
    ///
    /// # Errors
    ///
    /// As [`Zone::with_holes`].
    pub fn boxed(range: FrameRange, holes: &[FrameRange]) -> Result<Self, ZoneError> {
        let geometry = Geometry::new(range)?;
        Self::with_holes(range, holes, Metadata::boxed(geometry.lines()))
    }
}

impl FrameSource for Zone<'_> {
    #[inline]
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        Zone::alloc(self, order, migrate)
    }
    #[inline]
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        Zone::free(self, pfn, order)
    }
}

impl FrameZone for Zone<'_> {
    fn span(&self) -> FrameRange {
        Zone::span(self)
    }
    fn free_frames(&self) -> u64 {
        Zone::free_frames(self)
    }
    fn managed_frames(&self) -> u64 {
        Zone::managed_frames(self)
    }
    fn alloc_at(&self, pfn: Pfn, order: Order, migrate: MigrateType) -> Result<(), FrameError> {
        Zone::alloc_at(self, pfn, order, migrate).map_err(|error| match error {
            AllocAtError::Contended { .. } => FrameError::Contended { order },
            _ => FrameError::Exhausted { order },
        })
    }
    fn isolate(&self) {
        Zone::isolate(self);
    }
    fn reopen(&self) {
        Zone::reopen(self);
    }
    fn used_frames(&self) -> u64 {
        Zone::used_frames(self)
    }
}

impl fmt::Debug for Zone<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({:?}, {} of {} free)", self.span(), self.free_frames(), self.managed_frames())
    }
}

const _: () = assert!(node_order(LEVELS) >= Order::MAX.get());
const _: () = assert!(1u64 << node_order(TOP) == Order::MAX.frames() * 8);
// A host may make a zone on a small stack: what is large lives in the metadata.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Zone<'_>>() <= 464);
