//! What the opaque pointers of the C interface point to.
//!
//! In Rust, registries, zones and grants borrow from one another, and the compiler sees to it that what is borrowed
//! lives long enough. Across a C interface nobody does, so this file counts: a [`Space`] owns all metadata at addresses
//! that never change, and cannot be destroyed while a [`NodeHandle`] or a [`GrantHandle`] is left.

use core::fmt;
use core::ptr::{self, NonNull};

use pnode_buddy::Zone;
use pnode_compress::memory::Mapped;
use pnode_core::registry::Stale;
use pnode_core::sync::{AtomicPtr, AtomicU32, Lock, Ordering};
use pnode_core::{
    Distances, Features, Frame, FrameError, FrameRange, FrameSource, FrameZone, FreeError, Grant,
    MemoryClass, MigrateType, NodeId, Nodes, OfflineError, Order, Owner, Pfn, Private, Reason, Request,
};

use super::Stats;
use crate::cpus::CpuZone;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mapping::Mapping;
use crate::own::Own;
use crate::storage::{CpuStorage, RegistryStorage, ZoneStorage};

/// How many ranges can be online in one space.
const ZONES: usize = 64;

/// `struct pnode_space`: a registry with the memory that it stands on.
///
/// # Invariants
///
/// - **C1** `storage` and every range in `ranges` stay where they are until the space is dropped, and are dropped after
///   everything that borrows from them as `'static`: `nodes`, and handles.
/// - **C2** `holders` counts the `Held` values, one in each handle; a space is dropped only when there are none.
pub struct Space<K: Kernel> {
    nodes: Nodes<'static, KnownRange<K>, K::Lock>,
    /// The newest range that was ever registered; each knows the one before it.
    ranges: Lock<Option<&'static KnownRange<K>>, K::Lock>,
    holders: AtomicU32,
    kernel: K,
    _storage: Own<RegistryStorage<K>, K>,
}

/// A range that is online, or that was: a zone of the registry that knows where its frames are mapped.
///
/// Frees look through the zones of the registry without a lock, so a zone's metadata stays until the space goes; a range
/// that comes back finds it again.
pub(super) struct KnownRange<K: Kernel> {
    zone: CpuZone<'static, K>,
    frames: FrameRange,
    /// Where the range is mapped, null while no node has it.
    base: AtomicPtr<u8>,
    older: Option<&'static KnownRange<K>>,
    /// What the zone borrows, in the order in which it is given back.
    _slots: Own<CpuStorage<K>, K>,
    _zone: Own<Zone<'static>, K>,
    _storage: Own<ZoneStorage<K>, K>,
}

/// A reference to a space that keeps it.
pub(super) struct Held<K: Kernel>(&'static Space<K>);

/// A reference that the borrow checker takes for permanent.
///
/// # Safety
///
/// The value stays valid and in place until after the last use of the result.
unsafe fn forever<T: ?Sized>(value: &T) -> &'static T {
    // SAFETY: by the caller.
    unsafe { &*ptr::from_ref(value) }
}

/// As [`forever`], for exclusive use.
///
/// # Safety
///
/// As [`forever`], and nobody else uses the value until after the last use of the result.
pub(super) unsafe fn forever_mut<T: ?Sized>(value: &mut T) -> &'static mut T {
    // SAFETY: by the caller.
    unsafe { &mut *ptr::from_mut(value) }
}

impl<K: Kernel> Held<K> {
    /// Counts another holder of `space`.
    ///
    /// # Safety
    ///
    /// The space is not dropped before the first holder is counted: a caller of the interface is using it now.
    unsafe fn of(space: &Space<K>) -> Self {
        space.holders.fetch_add(1, Ordering::Relaxed);
        // SAFETY: by C2 the space stays in place for as long as this holder is counted.
        Self(unsafe { forever(space) })
    }
}

impl<K: Kernel> Drop for Held<K> {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `check_unused`.
        self.0.holders.fetch_sub(1, Ordering::Release);
    }
}

impl<K: Kernel> Space<K> {
    pub(super) fn create(kernel: K, nodes: usize) -> Result<Own<Self, K>, Errno> {
        let distances = Distances::uniform(nodes)?;
        let mut storage = Own::new(kernel, RegistryStorage::new(kernel, nodes, ZONES)?)?;
        // SAFETY: by C1 the storage stays in place until the registry is dropped, and nobody else uses it.
        let slots = unsafe { forever_mut(&mut *storage) }.slots()?;
        let nodes = Nodes::with_lock(slots, distances)?;
        let (ranges, holders) = (Lock::new(None), AtomicU32::new(0));
        // INVARIANT: C1 by the order of the fields; C2 as there are no handles.
        let space = Own::new(kernel, Self { nodes, ranges, holders, kernel, _storage: storage })?;
        // SAFETY: the handle that this returns is dropped at once, and the space is in place.
        unsafe { forever(&*space) }.nodes.ordinary(NodeId::new(0)?, MemoryClass::DRAM)?;
        Ok(space)
    }

    /// Whether nothing refers to the space any more.
    pub(super) fn check_unused(&self) -> Result<(), Errno> {
        // Acquire pairs with the Release of the last holder: what it did with the space happened before.
        if self.holders.load(Ordering::Acquire) == 0 { Ok(()) } else { Err(Errno::EBUSY) }
    }

    pub(super) fn nodes(&self) -> &Nodes<'static, KnownRange<K>, K::Lock> {
        &self.nodes
    }

    pub(super) fn register(
        &self,
        id: NodeId,
        claim: Private,
        features: Features,
        mapping: Mapping<'static>,
    ) -> Result<Own<NodeHandle<K>, K>, Errno> {
        // All memory first: giving a node up that is online could not be undone for want of it.
        let room = Own::room(self.kernel)?;
        let range = self.claim(mapping)?;
        // SAFETY: the caller of the interface is using the space now.
        let held = unsafe { Held::of(self) };
        let online = || {
            let owner = held.0.nodes.register(id, claim, features)?;
            if let Err(error) = owner.online(range) {
                owner.unregister()?;
                return Err(Errno::from(error));
            }
            Ok(owner)
        };
        match online() {
            Ok(owner) => Ok(room.fill(NodeHandle { owner, range, held })),
            Err(errno) => {
                range.release();
                Err(errno)
            }
        }
    }

    pub(super) fn ask(&self, node: NodeId, reason: Reason) -> Result<Own<GrantHandle<K>, K>, Errno> {
        let room = Own::room(self.kernel)?;
        // SAFETY: the caller of the interface is using the space now.
        let held = unsafe { Held::of(self) };
        let grant = held.0.nodes.grant(node, reason)?;
        Ok(room.fill(GrantHandle { grant, _held: held }))
    }

    /// The range of `mapping`, with a zone of which every frame is free, for one node.
    fn claim(&self, mapping: Mapping<'static>) -> Result<&'static KnownRange<K>, Errno> {
        let known = *self.ranges.lock();
        if let Some(range) = Self::walk(known).find(|range| range.claim(mapping)) {
            return Ok(range);
        }
        let mut storage = Own::new(self.kernel, ZoneStorage::new(self.kernel, mapping.range())?)?;
        // SAFETY: by C1 the storage stays in place until the space is dropped, and nobody else uses it.
        let zone = unsafe { forever_mut(&mut *storage) }.zone()?;
        let mut slots = Own::new(self.kernel, CpuStorage::new(self.kernel)?)?;
        // SAFETY: as for the storage, with which the zone stays.
        let of_zone = unsafe { forever(&*zone) };
        // SAFETY: as for the storage; the slots go before the zone.
        let of_slots = unsafe { forever_mut(&mut *slots) };
        let range = KnownRange {
            zone: CpuZone::new(self.kernel, of_zone, of_slots.slots(of_zone)),
            frames: mapping.range(),
            base: AtomicPtr::new(mapping.base().as_ptr()),
            older: None,
            _slots: slots,
            _zone: zone,
            _storage: storage,
        };
        let mut range = Own::new(self.kernel, range)?;
        let mut newest = self.ranges.lock();
        range.older = *newest;
        let range = range.into_raw();
        // SAFETY: by C1 the range stays in place until the space is dropped.
        let range: &'static KnownRange<K> = unsafe { range.as_ref() };
        *newest = Some(range);
        Ok(range)
    }

    /// `range` and all that are older. Ranges are never taken out, so this needs no lock.
    fn walk(range: Option<&'static KnownRange<K>>) -> impl Iterator<Item = &'static KnownRange<K>> {
        core::iter::successors(range, |range| range.older)
    }
}

impl<K: Kernel> Drop for Space<K> {
    fn drop(&mut self) {
        let mut next = self.ranges.lock().take();
        while let Some(range) = next {
            next = range.older;
            // SAFETY: the range came from `into_raw`. By C2 no handle is left, so nothing borrows from it but slots of
            // the registry, which is not used again.
            drop(unsafe { Own::from_raw(self.kernel, NonNull::from(range)) });
        }
    }
}

impl<K: Kernel> KnownRange<K> {
    /// Takes the range for a node whose frames `mapping` has, if they are the same frames and no node has them.
    fn claim(&self, mapping: Mapping<'static>) -> bool {
        let base = mapping.base().as_ptr();
        // Acquire pairs with the Release in `release`: the last node's life is over.
        self.frames == mapping.range()
            && self.base.compare_exchange(ptr::null_mut(), base, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn release(&self) {
        self.base.store(ptr::null_mut(), Ordering::Release);
    }

    /// Where `pfn` is mapped, if the range has it and belongs to a node.
    fn address(&self, pfn: Pfn, page_shift: u32) -> Option<NonNull<u8>> {
        let offset = usize::try_from(pfn.checked_sub(self.frames.start())?).ok()? << page_shift;
        let base = NonNull::new(self.base.load(Ordering::Acquire)).filter(|_| self.frames.contains(pfn))?;
        // SAFETY: the range is mapped from `base` on for as long as a node has it, and has the frame.
        Some(unsafe { base.add(offset) })
    }
}

impl<K: Kernel> FrameSource for KnownRange<K> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        self.zone.alloc(order, migrate)
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.zone.free(pfn, order)
    }
}

impl<K: Kernel> FrameZone for KnownRange<K> {
    #[inline]
    fn span(&self) -> FrameRange {
        self.frames
    }

    #[inline(always)]
    fn alloc_at_hand(&self, migrate: MigrateType) -> Option<Pfn> {
        self.zone.alloc_at_hand(migrate)
    }

    fn free_frames(&self) -> u64 {
        self.zone.free_frames()
    }

    fn managed_frames(&self) -> u64 {
        self.zone.managed_frames()
    }

    fn alloc_at(&self, pfn: Pfn, order: Order, migrate: MigrateType) -> Result<(), FrameError> {
        self.zone.alloc_at(pfn, order, migrate)
    }

    fn isolate(&self) {
        self.zone.isolate();
    }

    fn reopen(&self) {
        self.zone.reopen();
    }

    fn used_frames(&self) -> u64 {
        self.zone.used_frames()
    }
}

/// The frames of a node on a grant, with their bytes.
pub(super) type Memory<K> = Mapped<Grant<'static, KnownRange<K>, <K as Kernel>::Lock>>;

/// `struct pnode_node`: the owner of a private node on one range.
pub struct NodeHandle<K: Kernel> {
    owner: Owner<'static, KnownRange<K>, K::Lock>,
    range: &'static KnownRange<K>,
    held: Held<K>,
}

impl<K: Kernel> NodeHandle<K> {
    pub(super) fn grant(&self) -> Result<Own<GrantHandle<K>, K>, Errno> {
        let room = Own::room(self.held.0.kernel)?;
        let grant = self.owner.grant()?;
        // SAFETY: this node holds the space.
        let held = unsafe { Held::of(self.held.0) };
        Ok(room.fill(GrantHandle { grant, _held: held }))
    }

    /// The frames of the node on a grant of their own, with their bytes, for a store.
    pub(super) fn memory(&self) -> Result<(Memory<K>, Held<K>), Errno> {
        let grant = self.owner.grant()?;
        let base = NonNull::new(self.range.base.load(Ordering::Acquire)).ok_or(Errno::ENODEV)?;
        // SAFETY: the range is mapped from `base` on for as long as a node has it, which the grant keeps. Its zone hands a
        // frame to one holder at a time, and clients keep to the frames that they hold, by the words of the header.
        let memory = unsafe { Mapped::new(grant, base, self.range.frames, K::PAGE) };
        // SAFETY: this node holds the space.
        Ok((memory, unsafe { Held::of(self.held.0) }))
    }

    /// Closes the node and gives it up, or says that somebody still uses it.
    pub(super) fn give_up(&self) -> Result<(), Errno> {
        self.owner.drain()?;
        match self.owner.offline(self.range.frames) {
            // The range went offline in an earlier call, which then met a grant.
            Ok(_) | Err(OfflineError::UnknownRange { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.owner.unregister()?;
        self.range.release();
        Ok(())
    }

    pub(super) fn stats(&self) -> Result<Stats, Stale> {
        let (state, zone) = (self.owner.state()?, &self.range.zone);
        // Frames in the caches of CPUs are free to whoever asks.
        zone.drain();
        Ok(Stats {
            first_pfn: zone.span().start().get(),
            managed_frames: zone.managed_frames(),
            free_frames: zone.free_frames(),
            used_frames: zone.used_frames(),
            references: state.references(),
            draining: u32::from(state.is_draining()),
        })
    }

    /// Draws how full the node is, a line a row; see [`Zone::occupancy`].
    pub(super) fn map(&self, columns: usize, rows: usize, out: &mut impl fmt::Write) -> Result<(), Errno> {
        // Frames in the caches of CPUs are free to whoever asks.
        self.range.zone.drain();
        write!(out, "{}", self.range.zone.zone().occupancy(columns, rows)).map_err(|_| Errno::ENOSPC)
    }

    pub(super) fn audit(&self) -> Result<(), Errno> {
        self.range.zone.audit().map_err(|_| Errno::EUCLEAN)
    }
}

/// `struct pnode_grant`.
pub struct GrantHandle<K: Kernel> {
    grant: Grant<'static, KnownRange<K>, K::Lock>,
    _held: Held<K>,
}

impl<K: Kernel> GrantHandle<K> {
    /// A frame of the grant's node that this CPU keeps.
    #[inline(always)]
    pub(super) fn alloc_cached(&self) -> Option<Pfn> {
        self.grant.alloc_at_hand(MigrateType::default())
    }

    /// Takes a block of the grant's node.
    pub(super) fn alloc(&self, order: Order) -> Result<Pfn, Errno> {
        match FrameSource::alloc(&self.grant, order, MigrateType::default()) {
            Ok(pfn) => Ok(pfn),
            // Asks once more, for an answer with a reason.
            Err(_) => Ok(self.grant.alloc(Request::order(order))?.into_raw().0),
        }
    }

    /// Takes `2^order` adjacent frames of the grant's node, aligned to that, each of which is freed by itself.
    ///
    /// A block is found, given back, and its frames are taken one by one: who is faster with one of them keeps it, and
    /// the answer is [`Errno::EAGAIN`].
    pub(super) fn alloc_frames(&self, order: Order) -> Result<Pfn, Errno> {
        let first = self.alloc(order)?;
        if order == Order::ZERO {
            return Ok(first);
        }
        // Past the caches of CPUs, which could keep it from us.
        self.grant.zone_of(first).ok_or(Errno::ENODEV)?.zone.zone().free(first, order)?;
        let frames = || (0..order.frames()).map_while(|index| first.checked_add(index));
        let taken = frames()
            .take_while(|pfn| {
                self.grant.alloc_at(*pfn, Request::order(Order::ZERO)).map(Frame::into_raw).is_ok()
            })
            .count();
        if taken as u64 == order.frames() {
            return Ok(first);
        }
        for pfn in frames().take(taken) {
            self.free(pfn, Order::ZERO)?;
        }
        Err(Errno::EAGAIN)
    }

    /// Gives a frame of the grant's node to this CPU, if it may keep it.
    #[inline(always)]
    pub(super) fn free_cached(&self, pfn: Pfn) -> Option<Result<(), Errno>> {
        let freed = self.grant.zone_of(pfn)?.zone.free_cached(pfn)?;
        Some(freed.map_err(Errno::from))
    }

    /// Gives frames of the grant's node back.
    pub(super) fn free(&self, pfn: Pfn, order: Order) -> Result<(), Errno> {
        Ok(FrameSource::free(&self.grant, pfn, order)?)
    }

    /// Where a frame of the grant's node is mapped.
    pub(super) fn address(&self, pfn: Pfn) -> Option<NonNull<u8>> {
        self.grant.zone_of(pfn)?.address(pfn, K::PAGE.shift())
    }
}
