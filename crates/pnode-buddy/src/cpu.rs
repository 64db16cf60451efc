//! What one CPU keeps of a zone: frames to hand out without asking anybody, and counts not yet reported.

use core::fmt;

use pnode_core::sync::Ordering::{Acquire, Relaxed};
use pnode_core::{FrameError, FreeError, MigrateType, Order, Pfn};

use crate::count::{CACHED, UNCLAIMED};
use crate::geometry::{CLASSES, TOP, level_of};
use crate::node;
use crate::owned::Owned;
use crate::recent::Recent;
use crate::shelf::Shelf;
use crate::word;
use crate::zone::Zone;

/// What a [`Cpu`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    /// Counts and a place to look first: every block comes from and goes to the zone, with one atomic
    /// read-modify-write.
    Counts,
    /// Also single frames of each migrate type, which it hands out and takes back without any: 32, and in a zone of more
    /// than 32,768 frames up to a 512th of the zone, but no more than 512; and blocks of orders 0 to 4 that it freed, up to
    /// 1,152 frames and a 200th of the zone, which it hands out again with one.
    Frames,
}

/// Deltas are reported when they reach this many frames either way: small for areas of a type, larger for unclaimed
/// memory, which comes and goes in areas and more.
const BATCH: [u64; UNCLAIMED as usize + 1] = [128, 128, 128, 2048];

/// After a search for a word to own was in vain, so many frames come from the zone before the next.
const WAIT: u8 = 32;

/// A CPU's own part of a zone, a value of the caller: one a CPU, used with preemption off or by one thread.
///
/// Frames that it keeps are counted as used; counts that it has not reported make [`Zone::free_frames`] wrong by less
/// than 128 frames a CPU and type, and 2,048 of unclaimed memory. [`Cpu::drain`] gives all back, so does a drop; whoever
/// can reach the value may drain it, for instance when its CPU was unplugged.
///
/// ```
/// use pnode_buddy::{Cpu, Geometry, Keep, Line, Metadata, Zone};
/// use pnode_core::{FrameRange, FreeError, MigrateType, Order, Pfn};
///
/// let mut lines = [Line::ZERO; 64];
/// let zone = Zone::new(FrameRange::new(Pfn::new(0), 4096)?, Metadata::assume_zeroed(&mut lines))?;
/// let mut cpu = Cpu::new(&zone, Keep::Frames);
/// let frame = cpu.alloc(Order::ZERO, MigrateType::Movable)?;
/// cpu.free(frame, Order::ZERO)?;
/// // It waits in the cache; whoever frees it again is told so.
/// assert_eq!(zone.free(frame, Order::ZERO), Err(FreeError::Cached { pfn: frame }));
/// cpu.drain();
/// assert_eq!(zone.free_frames(), 4096);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Cpu<'z, 'm> {
    zone: &'z Zone<'m>,
    keep: Keep,
    owned: [Owned; CLASSES],
    shelf: Shelf,
    /// How many more frames of a type come from the zone before a word to own is looked for again.
    wait: [u8; CLASSES],
    /// The word that served last, by type; the last entry is no type's.
    near: [usize; CLASSES + 1],
    /// What it served: for another order, another hole may be a better place.
    near_order: [u8; CLASSES + 1],
    /// The node that served last, by level.
    near_node: [usize; TOP + 1],
    /// The large block that was freed last.
    recent: Recent,
    delta: [i64; UNCLAIMED as usize + 1],
}

impl<'z, 'm> Cpu<'z, 'm> {
    /// A CPU that keeps nothing yet.
    pub fn new(zone: &'z Zone<'m>, keep: Keep) -> Self {
        Self {
            zone,
            keep,
            owned: [Owned::NONE; CLASSES],
            shelf: if keep == Keep::Frames { Shelf::new(zone) } else { Shelf::NONE },
            wait: [0; CLASSES],
            near: [usize::MAX; CLASSES + 1],
            near_order: [0; CLASSES + 1],
            near_node: [usize::MAX; TOP + 1],
            recent: Recent::NONE,
            delta: [0; UNCLAIMED as usize + 1],
        }
    }

    /// The zone.
    pub fn zone(&self) -> &'z Zone<'m> {
        self.zone
    }

    /// How many frames it keeps.
    pub fn cached_frames(&self) -> u64 {
        self.owned.iter().map(Owned::frames).sum::<u64>() + self.shelf.frames()
    }

    /// Takes a block of `order`, aligned to its size.
    ///
    /// # Errors
    ///
    /// As [`Zone::alloc`]. What this CPU keeps is given back before it fails; frames in the caches of *other* CPUs are
    /// not found.
    #[inline]
    pub fn alloc(&mut self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        if order == Order::ZERO && self.shelf.is_empty(order) {
            if let Some(pfn) = self.alloc_cached(migrate) {
                return Ok(pfn);
            }
        }
        self.alloc_otherwise(order, migrate)
    }

    /// From the shelf, if there is a block of this order and type, else from the zone.
    #[inline(never)]
    fn alloc_otherwise(&mut self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        if self.zone.is_closed() {
            return self.alloc_while_closed(order, migrate);
        }
        if !self.shelf.is_empty(order) {
            if let Some(pfn) = self.zone.unshelve(&mut self.shelf, order, migrate as u8) {
                return match self.zone.admit(pfn, order) {
                    Ok(()) => Ok(pfn),
                    Err(refused) => {
                        // It is free now, and was counted as used when it lay here.
                        self.count(migrate as u8, order.frames() as i64);
                        Err(refused)
                    }
                };
            }
            if self.shelf.is_full(order) {
                self.clear_shelf();
            }
        }
        if order == Order::ZERO && self.keep == Keep::Frames {
            return match self.alloc_cached(migrate) {
                Some(pfn) => Ok(pfn),
                None => self.alloc_after_refill(migrate),
            };
        }
        self.alloc_shared(order, migrate)
    }

    /// A frame that this CPU keeps: all of [`Cpu::alloc`] that a caller may want in line. `None` if it keeps none, or
    /// the zone is isolated.
    #[inline(always)]
    pub fn alloc_cached(&mut self, migrate: MigrateType) -> Option<Pfn> {
        let owned = &mut self.owned[migrate as usize];
        (owned.cached != 0 && !self.zone.is_closed()).then(|| take_cached(self.zone, owned))
    }

    /// Takes a single frame back if it is of a word that this CPU owns, as [`Cpu::free`] does; `None` if it is not, and
    /// nothing has happened.
    #[inline(always)]
    pub fn free_cached(&mut self, pfn: Pfn) -> Option<Result<(), FreeError>> {
        let start = pfn.get() & !u64::from(word::FRAMES - 1);
        let owned = self.owned.iter_mut().find(|owned| owned.pfn == start)?;
        let bit = 1 << (pfn.get() as u32 & (word::FRAMES - 1));
        if owned.cached & bit != 0 || self.zone.was_freed_by_others(owned, bit) {
            return Some(Err(FreeError::Cached { pfn }));
        }
        owned.cached |= bit;
        self.zone.word(owned.word).store(word::owned(owned.cached), Relaxed);
        Some(Ok(()))
    }

    /// Gives back the block of `order` at `pfn`, whoever allocated it.
    ///
    /// # Errors
    ///
    /// As [`Zone::free`].
    #[inline]
    pub fn free(&mut self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        if order == Order::ZERO {
            if let Some(freed) = self.free_cached(pfn) {
                return freed;
            }
        }
        self.free_elsewhere(pfn, order)
    }

    /// Onto the shelf, if there is room, else into the zone.
    #[inline(never)]
    fn free_elsewhere(&mut self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let zone = self.zone;
        if order.get() >= word::ORDER {
            return self.free_large(pfn, order);
        }
        let Some((index, offset)) = zone.place(pfn, order.get()) else {
            return self.free_otherwise(pfn, order);
        };
        // Acquire: if the word was owned before, we see its area marked.
        let value = zone.word(index).load(Acquire);
        if self.shelf.has_room(order.get()) && zone.shelve(&mut self.shelf, pfn, order.get(), (index, value))
        {
            return Ok(());
        }
        self.free_into_word(pfn, order, (index, offset), value)
    }

    #[inline(always)]
    fn free_into_word(
        &mut self,
        pfn: Pfn,
        order: Order,
        (index, offset): (usize, u32),
        value: u64,
    ) -> Result<(), FreeError> {
        let Some(class) = self.zone.free_in_word(index, offset, order.get(), value) else {
            return self.free_otherwise(pfn, order);
        };
        self.count_small(class, order.frames() as i64);
        // A hole somewhere else may be a better place for the next block.
        let near = &mut self.near[class as usize];
        if *near != index {
            *near = usize::MAX;
        }
        Ok(())
    }

    #[inline(never)]
    fn free_large(&mut self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        if let Some(class) = self.zone.free_recent(&mut self.recent, pfn, order) {
            self.count(class, order.frames() as i64);
            return Ok(());
        }
        self.free_large_anywhere(pfn, order)
    }

    #[inline(never)]
    fn free_large_anywhere(&mut self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let zone = self.zone;
        if !zone.covers(pfn, order) || !pfn.is_aligned(order) {
            return self.free_otherwise(pfn, order);
        }
        let level = level_of(order.get());
        let index = zone.index(level, pfn.get());
        let Some(freed) = zone.free_in_node(level, index, pfn, order.get()) else {
            return self.free_otherwise(pfn, order);
        };
        self.count(freed.0, order.frames() as i64);
        if self.near_node[level] != index {
            self.near_node[level] = usize::MAX;
        }
        self.recent = zone.remember(pfn, order, index, freed);
        Ok(())
    }

    #[cold]
    fn free_otherwise(&mut self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let class = self.zone.free_otherwise(pfn, order)?;
        if class != CACHED {
            self.count(class, order.frames() as i64);
        }
        Ok(())
    }

    /// Gives back all frames and reports all counts.
    pub fn drain(&mut self) {
        self.give_back();
        for (class, delta) in (0..).zip(&mut self.delta) {
            self.zone.counts().give(class, core::mem::take(delta) as u64);
        }
    }

    /// Gives back all frames.
    fn give_back(&mut self) {
        for owned in &mut self.owned {
            let (class, frames) = self.zone.disown(core::mem::replace(owned, Owned::NONE));
            self.delta[class as usize] += frames as i64;
        }
        self.clear_shelf();
    }

    #[cold]
    fn clear_shelf(&mut self) {
        let freed = self.zone.clear(&mut self.shelf);
        for (delta, frames) in self.delta.iter_mut().zip(freed) {
            *delta += frames as i64;
        }
    }

    /// [`Self::count`] for frames of an area.
    #[inline]
    fn count_small(&mut self, class: u8, frames: i64) {
        let delta = &mut self.delta[class as usize];
        *delta += frames;
        if delta.unsigned_abs() >= BATCH[0] {
            self.report(class);
        }
    }

    #[cold]
    #[inline(never)]
    fn report(&mut self, class: u8) {
        let delta = core::mem::take(&mut self.delta[class as usize]);
        self.zone.counts().give(class, delta as u64);
    }

    /// While a part of the zone is isolated, what we keep may be of it: everything goes back first.
    #[cold]
    #[inline(never)]
    fn alloc_while_closed(&mut self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        if !self.zone.is_shut() {
            self.give_back();
        }
        self.zone.alloc(order, migrate)
    }

    #[inline]
    pub(crate) fn count(&mut self, class: u8, frames: i64) {
        let delta = &mut self.delta[class as usize];
        *delta += frames;
        if delta.unsigned_abs() >= BATCH[class as usize] {
            self.zone.counts().give(class, core::mem::take(delta) as u64);
        }
    }

    /// The cache has no frame of this type: what others freed into it, another word, or a frame from anywhere.
    #[cold]
    #[inline(never)]
    fn alloc_after_refill(&mut self, migrate: MigrateType) -> Result<Pfn, FrameError> {
        let zone = self.zone;
        let owned = &mut self.owned[migrate as usize];
        if owned.word != usize::MAX {
            zone.empty_inbox(owned);
            if owned.cached != 0 {
                return Ok(take_cached(zone, owned));
            }
            if let Some(given) = zone.turn(owned) {
                let (pfn, class) = (take_cached(zone, owned), owned.class);
                self.count_small(class, i64::from(given));
                return Ok(pfn);
            }
            let (class, frames) = zone.disown(core::mem::replace(owned, Owned::NONE));
            self.count_small(class, frames as i64);
        }
        let wait = &mut self.wait[migrate as usize];
        if *wait != 0 {
            *wait -= 1;
        } else if let Some((next, gained)) = zone.own(migrate as u8, &mut false) {
            self.owned[migrate as usize] = next;
            if gained != 0 {
                self.count(UNCLAIMED, -(gained as i64));
            }
            self.count_small(next.class, gained as i64 - next.frames() as i64);
            // As in `admit`: an owner that a walk did not find in the books finds the zone closed.
            if zone.is_closed() {
                self.give_back();
                return zone.alloc(Order::ZERO, migrate);
            }
            return Ok(take_cached(zone, &mut self.owned[migrate as usize]));
        } else {
            *wait = WAIT;
        }
        self.alloc_shared(Order::ZERO, migrate)
    }

    /// A block from the zone, near the last one if that is known.
    #[inline(always)]
    fn alloc_shared(&mut self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        let zone = self.zone;
        if order.get() >= word::ORDER {
            return self.alloc_large(order, migrate);
        }
        let near = self.near[migrate as usize];
        if near != usize::MAX && self.near_order[migrate as usize] == order.get() {
            if let Some(offset) = zone.alloc_in_word(near, order.get()) {
                let pfn = Pfn::new(zone.word_pfn(near) + u64::from(offset));
                zone.admit(pfn, order)?;
                let class = zone.class_of(near / node::CHILDREN as usize);
                self.count_small(class, -(order.frames() as i64));
                return Ok(pfn);
            }
        }
        self.alloc_anywhere(order, migrate)
    }

    #[cold]
    #[inline(never)]
    fn alloc_large_anywhere(&mut self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        let (zone, level) = (self.zone, level_of(order.get()));
        let near = self.near_node[level];
        if level > 1 && near != usize::MAX {
            if let Some(pfn) = zone.claim_near(level, near, order.get()) {
                zone.admit(pfn, order)?;
                self.count(UNCLAIMED, -(order.frames() as i64));
                return Ok(pfn);
            }
        }
        let (pfn, class) = self.search(order, migrate)?;
        self.near_node[level] = zone.index(level, pfn.get());
        self.count(class, -(order.frames() as i64));
        Ok(pfn)
    }

    #[cold]
    #[inline(never)]
    fn alloc_anywhere(&mut self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        let (pfn, class) = self.search(order, migrate)?;
        self.near[migrate as usize] = self.zone.word_index(pfn.get());
        self.near_order[migrate as usize] = order.get();
        self.count(class, -(order.frames() as i64));
        Ok(pfn)
    }

    #[inline(always)]
    fn alloc_large(&mut self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        if let Some((pfn, class)) = self.zone.claim_recent(&mut self.recent, order, migrate as u8) {
            self.zone.admit(pfn, order)?;
            self.count(class, -(order.frames() as i64));
            return Ok(pfn);
        }
        self.alloc_large_anywhere(order, migrate)
    }

    /// A block from anywhere, even if that needs what this CPU keeps; and whose count it leaves.
    fn search(&mut self, order: Order, migrate: MigrateType) -> Result<(Pfn, u8), FrameError> {
        let zone = self.zone;
        let found = match zone.search(order, migrate as u8) {
            Err(FrameError::Exhausted { .. }) if self.cached_frames() != 0 => {
                self.give_back();
                zone.search(order, migrate as u8)?
            }
            found => found?,
        };
        zone.admit(found.0, order)?;
        Ok(found)
    }
}

#[inline(always)]
fn take_cached(zone: &Zone<'_>, owned: &mut Owned) -> Pfn {
    let offset = owned.cached.trailing_zeros();
    owned.cached &= owned.cached - 1;
    // Relaxed: who frees this frame elsewhere got it from us, and so sees it handed out.
    zone.word(owned.word).store(word::owned(owned.cached), Relaxed);
    Pfn::new(owned.pfn + u64::from(offset))
}

impl Drop for Cpu<'_, '_> {
    fn drop(&mut self) {
        self.drain();
    }
}

impl fmt::Debug for Cpu<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cpu({:?}, {} frames cached)", self.keep, self.cached_frames())
    }
}
