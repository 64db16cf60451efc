//! Everybody behind one interface: ours, the published peers, the floors, and nothing at all.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};

use bitmap_allocator::{BitAlloc, BitAlloc16M};
use frame_alloc::{
    DepotAllocator, NoCpuId, PageSize, PhysicalAllocator, Provenance, RegionInit, SummaryBuddyAllocator,
};
use pnode_buddy::{Cpu, Geometry, Keep, Line, Metadata, Zone};
use pnode_core::{FrameRange, MigrateType, Order, Pfn};

/// One CPU's way to an allocator.
pub trait Frames {
    fn alloc(&mut self, order: u8) -> Option<u64>;
    fn free(&mut self, pfn: u64, order: u8);
    /// Gives back what is cached.
    fn drain(&mut self) {}
}

/// An allocator over frames `0..frames`.
pub trait Peer: Sync {
    const NAME: &'static str;
    /// Whether it ever runs out.
    const REFUSES: bool = true;
    /// The largest order that it serves in reasonable time.
    const MOST: u8 = 10;
    fn new(frames: u64) -> Self;
    type Frames<'a>: Frames
    where
        Self: 'a;
    fn cpu(&self) -> Self::Frames<'_>;
}

const MOVABLE: MigrateType = MigrateType::Movable;

fn order(order: u8) -> Order {
    Order::new(order).expect("an order up to 18")
}

fn zone(frames: u64) -> Zone<'static> {
    let range = FrameRange::new(Pfn::new(0), frames).expect("a range");
    let lines = Geometry::new(range).expect("a geometry").lines();
    Zone::new(range, Metadata::assume_zeroed(vec![Line::ZERO; lines].leak())).expect("a zone")
}

/// `Zone` itself: shared, exact counts.
pub struct Shared(Zone<'static>);
impl Frames for &Shared {
    fn alloc(&mut self, size: u8) -> Option<u64> {
        self.0.alloc(order(size), MOVABLE).ok().map(Pfn::get)
    }
    fn free(&mut self, pfn: u64, size: u8) {
        self.0.free(Pfn::new(pfn), order(size)).expect("a good free");
    }
}
impl Peer for Shared {
    const NAME: &'static str = "pnode Zone";
    fn new(frames: u64) -> Self {
        Self(zone(frames))
    }
    type Frames<'a> = &'a Shared;
    fn cpu(&self) -> &Self {
        self
    }
}

impl Frames for Cpu<'_, '_> {
    fn alloc(&mut self, size: u8) -> Option<u64> {
        Cpu::alloc(self, order(size), MOVABLE).ok().map(Pfn::get)
    }
    fn free(&mut self, pfn: u64, size: u8) {
        Cpu::free(self, Pfn::new(pfn), order(size)).expect("a good free");
    }
    fn drain(&mut self) {
        Cpu::drain(self);
    }
}

/// `Cpu` with counts only: the core operations.
pub struct Counting(Zone<'static>);
impl Peer for Counting {
    const NAME: &'static str = "pnode core";
    fn new(frames: u64) -> Self {
        Self(zone(frames))
    }
    type Frames<'a> = Cpu<'a, 'static>;
    fn cpu(&self) -> Cpu<'_, 'static> {
        Cpu::new(&self.0, Keep::Counts)
    }
}

/// `Cpu` with a cache of frames.
pub struct Caching(Zone<'static>);
impl Peer for Caching {
    const NAME: &'static str = "pnode cached";
    fn new(frames: u64) -> Self {
        Self(zone(frames))
    }
    type Frames<'a> = Cpu<'a, 'static>;
    fn cpu(&self) -> Cpu<'_, 'static> {
        Cpu::new(&self.0, Keep::Frames)
    }
}

unsafe extern "C" {
    fn mmap(at: *mut u8, length: usize, protection: i32, flags: i32, file: i32, offset: i64) -> *mut u8;
    fn munmap(at: *mut u8, length: usize) -> i32;
}
/// Reading and writing; private, without a file, and without a promise of memory: a pool may be larger than the machine.
const PROTECTION: i32 = 1 | 2;
const FLAGS: i32 = 0x02 | 0x20 | 0x4000;
const ALIGN: usize = 4 << 20;

/// Address space, of which a peer touches what it keeps its books in.
struct Pool(NonNull<u8>, usize);
// SAFETY: the pool is plain memory.
unsafe impl Sync for Pool {}
// SAFETY: as above.
unsafe impl Send for Pool {}
impl Pool {
    fn new(bytes: usize) -> Self {
        let bytes = bytes + ALIGN;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { mmap(std::ptr::null_mut(), bytes, PROTECTION, FLAGS, -1, 0) };
        assert!(at.addr() != usize::MAX, "address space for the pool");
        Self(NonNull::new(at).expect("no mapping at zero"), bytes)
    }
    fn address(&self) -> usize {
        self.0.as_ptr().expose_provenance().next_multiple_of(ALIGN)
    }
}
impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody uses it any more.
        unsafe { munmap(self.0.as_ptr(), self.1) };
    }
}

pub struct Identity;
// SAFETY: the pool's provenance is exposed by `Pool::address`.
unsafe impl Provenance for Identity {
    unsafe fn create(phys: usize) -> NonNull<u8> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(phys)).expect("not null")
    }
    unsafe fn destroy<T>(ptr: NonNull<T>) -> usize {
        ptr.addr().get()
    }
}

const BASE: PageSize = PageSize::from_log2(12);
pub type Summary = SummaryBuddyAllocator<11, Identity>;
pub type Depot = DepotAllocator<Summary, NoCpuId, 1>;

pub struct FrameAlloc<A> {
    allocator: A,
    pool: Pool,
}
impl<A: PhysicalAllocator> Frames for &FrameAlloc<A> {
    fn alloc(&mut self, order: u8) -> Option<u64> {
        let count = NonZeroUsize::new(1 << order)?;
        let at = self.allocator.allocate_physical(BASE, count).ok()?;
        Some((at - self.pool.address()) as u64 >> 12)
    }
    fn free(&mut self, pfn: u64, order: u8) {
        let count = NonZeroUsize::new(1 << order).expect("not zero");
        // SAFETY: the block was allocated with this count; the oracle run checks the harness.
        unsafe {
            self.allocator.deallocate_physical(BASE, count, self.pool.address() + ((pfn as usize) << 12))
        }
    }
}
fn frame_alloc<A: RegionInit>(allocator: A, frames: u64) -> FrameAlloc<A> {
    let pool = Pool::new((frames as usize) << 12);
    // SAFETY: the pool is ours and nobody uses it yet.
    unsafe { allocator.init_region(pool.address(), (frames as usize) << 12) };
    FrameAlloc { allocator, pool }
}
impl Peer for FrameAlloc<Summary> {
    const NAME: &'static str = "frame-alloc SummaryBuddy";
    fn new(frames: u64) -> Self {
        frame_alloc(Summary::new(BASE), frames)
    }
    type Frames<'a> = &'a Self;
    fn cpu(&self) -> &Self {
        self
    }
}
impl Peer for FrameAlloc<Depot> {
    const NAME: &'static str = "frame-alloc Depot";
    fn new(frames: u64) -> Self {
        frame_alloc(Depot::new(BASE, Summary::new(BASE)), frames)
    }
    type Frames<'a> = &'a Self;
    fn cpu(&self) -> &Self {
        self
    }
}
pub type SummaryPeer = FrameAlloc<Summary>;
pub type DepotPeer = FrameAlloc<Depot>;

/// `buddy_system_allocator` behind the mutex of the standard library.
pub struct BuddySystem(Mutex<buddy_system_allocator::FrameAllocator<20>>);
impl Frames for &BuddySystem {
    fn alloc(&mut self, order: u8) -> Option<u64> {
        self.0.lock().expect("not poisoned").alloc(1 << order).map(|pfn| pfn as u64)
    }
    fn free(&mut self, pfn: u64, order: u8) {
        self.0.lock().expect("not poisoned").dealloc(pfn as usize, 1 << order);
    }
}
impl Peer for BuddySystem {
    const NAME: &'static str = "buddy_system_allocator";
    fn new(frames: u64) -> Self {
        let mut allocator = buddy_system_allocator::FrameAllocator::new();
        allocator.add_frame(0, frames as usize);
        Self(Mutex::new(allocator))
    }
    type Frames<'a> = &'a Self;
    fn cpu(&self) -> &Self {
        self
    }
}

/// `bitmap-allocator` behind the mutex of the standard library.
pub struct Bitmap(Mutex<Box<BitAlloc16M>>);
impl Frames for &Bitmap {
    fn alloc(&mut self, order: u8) -> Option<u64> {
        let mut bits = self.0.lock().expect("not poisoned");
        let at =
            if order == 0 { bits.alloc() } else { bits.alloc_contiguous(None, 1 << order, order.into()) };
        at.map(|pfn| pfn as u64)
    }
    fn free(&mut self, pfn: u64, order: u8) {
        let mut bits = self.0.lock().expect("not poisoned");
        let freed = if order == 0 {
            bits.dealloc(pfn as usize)
        } else {
            bits.dealloc_contiguous(pfn as usize, 1 << order)
        };
        assert!(freed);
    }
}
impl Peer for Bitmap {
    const NAME: &'static str = "bitmap-allocator";
    /// Larger blocks take it microseconds.
    const MOST: u8 = 0;
    fn new(frames: u64) -> Self {
        // SAFETY: the type is arrays of integers, for which zero is valid (and means "none free").
        let mut bits = unsafe { Box::<BitAlloc16M>::new_zeroed().assume_init() };
        bits.insert(0..frames as usize);
        Self(Mutex::new(bits))
    }
    type Frames<'a> = &'a Self;
    fn cpu(&self) -> &Self {
        self
    }
}

/// The floor of a shared bitmap: one read-modify-write an operation, order 0 only.
pub struct SharedFloor(Vec<AtomicU64>);
pub struct SharedFloorCpu<'a>(&'a SharedFloor, usize);
impl Frames for SharedFloorCpu<'_> {
    fn alloc(&mut self, _: u8) -> Option<u64> {
        for _ in 0..=self.0.0.len() {
            let word = &self.0.0[self.1];
            let mut value = word.load(Relaxed);
            while value != !0 {
                let bit = value.trailing_ones();
                match word.compare_exchange_weak(value, value | 1 << bit, AcqRel, Relaxed) {
                    Ok(_) => return Some(self.1 as u64 * 64 + u64::from(bit)),
                    Err(now) => value = now,
                }
            }
            self.1 = (self.1 + 1) % self.0.0.len();
        }
        None
    }
    fn free(&mut self, pfn: u64, _: u8) {
        self.0.0[pfn as usize / 64].fetch_and(!(1 << (pfn % 64)), Release);
    }
}
impl Peer for SharedFloor {
    const NAME: &'static str = "floor: shared bitmap";
    const MOST: u8 = 0;
    fn new(frames: u64) -> Self {
        Self((0..frames / 64).map(|_| AtomicU64::new(0)).collect())
    }
    type Frames<'a> = SharedFloorCpu<'a>;
    fn cpu(&self) -> SharedFloorCpu<'_> {
        SharedFloorCpu(self, 0)
    }
}

/// The floor of an owned word: 64 frames taken with one read-modify-write, then private.
pub struct OwnedFloor(Vec<AtomicU64>);
pub struct OwnedFloorCpu<'a> {
    floor: &'a OwnedFloor,
    word: usize,
    free: u64,
}
impl Frames for OwnedFloorCpu<'_> {
    fn alloc(&mut self, _: u8) -> Option<u64> {
        let mut tries = 0;
        while self.free == 0 {
            self.word = (self.word + 1) % self.floor.0.len();
            if self.floor.0[self.word].load(Relaxed) != !0 {
                self.free = !self.floor.0[self.word].swap(!0, AcqRel);
            }
            tries += 1;
            if tries > self.floor.0.len() {
                return None;
            }
        }
        let bit = self.free.trailing_zeros();
        self.free &= self.free - 1;
        Some(self.word as u64 * 64 + u64::from(bit))
    }
    fn free(&mut self, pfn: u64, _: u8) {
        if pfn as usize / 64 == self.word {
            self.free |= 1 << (pfn % 64);
        } else {
            self.floor.0[pfn as usize / 64].fetch_and(!(1 << (pfn % 64)), Release);
        }
    }
    fn drain(&mut self) {
        self.floor.0[self.word].fetch_and(!self.free, Release);
        self.free = 0;
    }
}
impl Peer for OwnedFloor {
    const NAME: &'static str = "floor: owned word";
    const MOST: u8 = 0;
    fn new(frames: u64) -> Self {
        Self((0..frames / 64).map(|_| AtomicU64::new(0)).collect())
    }
    type Frames<'a> = OwnedFloorCpu<'a>;
    fn cpu(&self) -> OwnedFloorCpu<'_> {
        OwnedFloorCpu { floor: self, word: 0, free: 0 }
    }
}

/// Nothing: what the harness itself costs.
pub struct Nothing(AtomicUsize, u64);
pub struct NothingCpu(u64, u64);
impl Frames for NothingCpu {
    fn alloc(&mut self, order: u8) -> Option<u64> {
        self.0 = (self.0 + (1 << order)) % self.1;
        Some(self.0)
    }
    fn free(&mut self, _: u64, _: u8) {}
}
impl Peer for Nothing {
    const NAME: &'static str = "harness only";
    const REFUSES: bool = false;
    fn new(frames: u64) -> Self {
        Self(AtomicUsize::new(0), frames)
    }
    type Frames<'a> = NothingCpu;
    fn cpu(&self) -> NothingCpu {
        NothingCpu(self.0.load(Relaxed) as u64, self.1)
    }
}
