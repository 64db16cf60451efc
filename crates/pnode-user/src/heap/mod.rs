//! A heap on one node: Rust objects that are nowhere else.
//!
//! [`NodeHeap`] takes blocks of frames from one source (a [`Grant`](pnode_core::Grant) on a private node, an ordinary
//! node of a [`Machine`](crate::Machine), or any [`FrameMemory`] of the caller's) and hands out objects of any size and
//! alignment. Objects up to 16 KiB share *slabs*: blocks of frames for objects of one size class. A larger object has a
//! block of its own.
//!
//! ```
//! use pnode_core::MemoryClass;
//! use pnode_user::{Machine, NodeSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let machine = Machine::builder()
//!     .node(NodeSpec::ordinary(64))
//!     .node(NodeSpec::private(MemoryClass::ACCELERATOR, 64))
//!     .build()?;
//! let [dram, gpu] = [machine.node(0)?, machine.node(1)?];
//!
//! assert!(machine.heap(gpu).is_err());                    // it is private: only a grant opens it
//! let heap = machine.owner_grant(gpu)?.into_heap()?;
//! let mut weights = heap.vec();
//! for weight in 0..10_000u32 {
//!     weights.push(weight)?;
//! }
//! let model = heap.boxed((weights.len(), "a model"))?;
//! assert_eq!((weights[9_999], model.0), (9_999, 10_000));
//! assert_eq!(machine.free_frames(dram), 64);              // not a byte is anywhere else
//!
//! drop((weights, model));
//! assert_eq!(heap.stats().objects, 0);
//! drop(heap);
//! assert_eq!(machine.free_frames(gpu), 64);
//! # Ok(())
//! # }
//! ```
//!
//! What the heap knows of its frames is 64 bytes a frame ([`Slab`]) that stand apart from them, so no stray write of a
//! program changes it, and an object that is freed twice is noticed as long as it has not been handed out again.
//!
//! Any number of threads may use a heap. Each class has eight bins, each with a lock of its own, and a thread uses those
//! that its number falls on; an object may be freed by any thread. When the node runs out of frames, empty slabs go
//! back and then the other bins are asked, so an allocation fails only if no free object of its class is left.
//!
//! An object costs about twice what it costs the system's allocator, whose threads have caches without locks: 1.6 times for
//! random sizes by two threads, 3 times for one object at a time (`cargo bench -p pnode-user --bench heap`).
//!
//! Slabs with their state outside and bitmaps are after J. Bonwick, *The Slab Allocator* (USENIX 1994), and jemalloc;
//! the size classes too.

mod bin;
mod class;
mod error;
mod object;
mod raw;
mod slab;

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use pnode_compress::memory::FrameMemory;
use pnode_core::sync::{AtomicU64, Ordering};
use pnode_core::{FrameError, FrameRange, MigrateType, Order, PageSize, Pfn};

use bin::{Address, Bin};
use class::Class;
use raw::Base;
use slab::Tag;

pub use error::{HeapAllocError, HeapError, HeapFreeError};
pub use object::{NodeBox, NodeVec, Refused};
pub use slab::Slab;

/// How many bins a class has.
const SHARDS: usize = 8;

/// A heap on the frames of one source. See the [module](self).
///
/// When it is dropped, all its frames go back; a pointer that [`NodeHeap::allocate`] gave is not valid any more then.
///
/// # Invariants
///
/// - **H1** An object is handed out to one holder until it is freed: its bit in its slab (or the tag of its block) is
///   set under the bin's lock (or by the thread that took the block), and objects have no byte in common.
/// - **H2** `base` is the first byte of `frames`, which are mapped one after the other for as long as `memory` lives.
pub struct NodeHeap<M: FrameMemory> {
    base: Base,
    frames: FrameRange,
    page: PageSize,
    slabs: Slabs,
    bins: [[Bin; Class::COUNT]; SHARDS],
    blocks: AtomicU64,
    block_bytes: AtomicU64,
    held: AtomicU64,
    refused: AtomicU64,
    memory: M,
}

/// Where the heap's knowledge of its frames is.
enum Slabs {
    Owned(Box<[Slab]>),
    Lent(&'static [Slab]),
}

/// What a heap has handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapStats {
    /// Objects in use.
    pub objects: u64,
    /// Their bytes, with what size classes and blocks have beyond what was asked for.
    pub bytes: u64,
    /// Frames that the heap has taken from its source.
    pub frames: u64,
    /// Attempts to free what was not in use, was not ours, or had another layout.
    pub refused: u64,
}

/// What an address and a layout say about an object.
struct Object {
    /// `None` for one with a block of its own.
    class: Option<Class>,
    order: Order,
    head: u32,
    /// The frame in which it begins.
    frame: usize,
}

impl<M: FrameMemory> NodeHeap<M> {
    /// A heap of what `memory` hands out of `frames`. It allocates one [`Slab`] for each frame from the system.
    ///
    /// # Errors
    ///
    /// [`HeapError::NotMapped`] unless all of `frames` are mapped in one piece.
    pub fn new(memory: M, frames: FrameRange) -> Result<Self, HeapError> {
        let slabs = (0..frames.frames()).map(|_| Slab::default()).collect();
        Self::on(memory, frames, Slabs::Owned(slabs))
    }

    /// As [`NodeHeap::new`], but on `slabs` of the caller, all zero, one for each frame: nothing is allocated. So a heap
    /// can be the global allocator of a program.
    ///
    /// # Errors
    ///
    /// As [`NodeHeap::new`], and [`HeapError::Slabs`] for too few.
    pub fn with_slabs(memory: M, frames: FrameRange, slabs: &'static mut [Slab]) -> Result<Self, HeapError> {
        let wanted = usize::try_from(frames.frames()).unwrap_or(usize::MAX);
        if slabs.len() < wanted || slabs.iter().any(|slab| slab.tag() != Tag::None) {
            return Err(HeapError::Slabs { wanted });
        }
        Self::on(memory, frames, Slabs::Lent(slabs))
    }

    fn on(memory: M, frames: FrameRange, slabs: Slabs) -> Result<Self, HeapError> {
        if u32::try_from(frames.frames()).is_err() {
            return Err(HeapError::NotMapped);
        }
        // INVARIANT: H2 by the contract of `FrameMemory`: one address for all the frames, one after the other.
        let base = Base(memory.address(frames).ok_or(HeapError::NotMapped)?);
        Ok(Self {
            base,
            frames,
            page: memory.page_size(),
            slabs,
            bins: core::array::from_fn(|_| core::array::from_fn(|_| Bin::new())),
            blocks: AtomicU64::new(0),
            block_bytes: AtomicU64::new(0),
            held: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            memory,
        })
    }

    /// Allocates memory for `layout`. Its bytes are anything.
    ///
    /// # Errors
    ///
    /// [`HeapAllocError`].
    pub fn allocate(&self, layout: Layout) -> Result<NonNull<u8>, HeapAllocError> {
        let taken = match Class::of(layout, self.page.bytes()) {
            Some(class) => self.small(Address { shard: shard(), class }),
            None => return self.block(layout),
        };
        // INVARIANT: H1: the object was free, and its bit is set now.
        let offset = taken.map_err(|error| HeapAllocError::NoFrames { bytes: layout.size(), error })?;
        Ok(self.base.at(offset))
    }

    fn small(&self, at: Address) -> Result<usize, FrameError> {
        let bin = &self.bins[usize::from(at.shard)][at.class.index()];
        let error = match self.take_new(&mut bin.lock(), at) {
            Ok(offset) => return Ok(offset),
            Err(error) => error,
        };
        if self.trim() > 0 {
            if let Ok(offset) = self.take_new(&mut bin.lock(), at) {
                return Ok(offset);
            }
        }
        let others = self.bins.iter().map(|shard| &shard[at.class.index()]);
        others.into_iter().find_map(|bin| self.take_open(&mut bin.lock(), at.class)).ok_or(error)
    }

    /// An object with a block of its own.
    fn block(&self, layout: Layout) -> Result<NonNull<u8>, HeapAllocError> {
        let bytes = layout.size();
        let order = self.block_order(layout).ok_or(HeapAllocError::TooLarge { bytes })?;
        let take = || self.take_frames(order, MigrateType::Unmovable);
        let taken = match take() {
            Err(FrameError::Exhausted { .. }) if self.trim() > 0 => take(),
            taken => taken,
        };
        let head = taken.map_err(|error| HeapAllocError::NoFrames { bytes, error })?;
        let offset = self.offset(head);
        let start = self.base.at(offset);
        // The first aligned address; `block_order` left room for it.
        let offset = offset + start.as_ptr().align_offset(layout.align());
        // INVARIANT: H1: the block is ours alone until its tag is taken away.
        self.slabs()[offset >> self.page.shift()].set_tag(Tag::Block { order: order.get(), head });
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.block_bytes.fetch_add(order.frames() << self.page.shift(), Ordering::Relaxed);
        Ok(self.base.at(offset))
    }

    /// Takes a block of frames; gives the number of its first one among ours.
    fn take_frames(&self, order: Order, migrate: MigrateType) -> Result<u32, FrameError> {
        let pfn = self.memory.alloc(order, migrate)?;
        let ours = FrameRange::block(pfn, order).is_some_and(|block| self.frames.contains_range(block));
        if !ours {
            // Frames of the source that are not mapped here are of no use to us.
            self.free_to_source(pfn, order);
            return Err(FrameError::Exhausted { order });
        }
        self.held.fetch_add(order.frames(), Ordering::Relaxed);
        // In range: `on` counted the frames.
        Ok((pfn.get() - self.frames.start().get()) as u32)
    }

    /// Gives empty slabs back to the source. Returns how many frames.
    pub fn trim(&self) -> u64 {
        self.bins.iter().flatten().map(|bin| self.trim_bin(&mut bin.lock())).sum()
    }

    /// What is handed out now. Exact while no other thread uses the heap.
    pub fn stats(&self) -> HeapStats {
        let mut stats = HeapStats {
            objects: self.blocks.load(Ordering::Relaxed),
            bytes: self.block_bytes.load(Ordering::Relaxed),
            frames: self.held.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        };
        for shard in &self.bins {
            for (class, bin) in shard.iter().enumerate() {
                let objects = bin.lock().objects;
                stats.objects += objects;
                stats.bytes += objects * Class::from_index(class).size() as u64;
            }
        }
        stats
    }

    /// As [`NodeHeap::free`], whose caller answers for what an address cannot show.
    fn take_back(&self, address: usize, layout: Layout) -> Result<(), HeapFreeError> {
        if self.put_small(address, layout) {
            return Ok(());
        }
        let freed = self.end_block(address, layout);
        if freed.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        freed
    }

    /// The usual case in few steps: takes back an object of a slab that is in use and was allocated for `layout`. Says
    /// whether it was one.
    fn put_small(&self, address: usize, layout: Layout) -> bool {
        let Some(offset) = self.offset_of(address) else { return false };
        let word = self.slabs()[offset >> self.page.shift()].tag_word();
        let Tag::Slab { class, shard, order, head } = Tag::of(word) else { return false };
        let number = offset.checked_sub(self.offset(head)).and_then(|offset| class.object_at(offset));
        let (Some(number), Ok(order)) = (number, Order::new(order)) else { return false };
        if Class::of(layout, self.page.bytes()) != Some(class) {
            return false;
        }
        let mut bin = self.bins[usize::from(shard) % SHARDS][class.index()].lock();
        // While nobody held the lock the slab may have become another one.
        self.slabs()[head as usize].tag_word() == word && self.put(&mut bin, head, order, number)
    }

    /// Takes back an object with a block of its own.
    ///
    /// # Errors
    ///
    /// [`HeapFreeError`] for everything else, also for an object of a slab: [`NodeHeap::put_small`] has seen it.
    #[cold]
    fn end_block(&self, address: usize, layout: Layout) -> Result<(), HeapFreeError> {
        let object = self.object_of(address, layout)?;
        let tag = Tag::Block { order: object.order.get(), head: object.head };
        if object.class.is_some() || !self.slabs()[object.frame].end_block(tag) {
            return Err(HeapFreeError::DoubleFree { address });
        }
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        self.block_bytes.fetch_sub(object.order.frames() << self.page.shift(), Ordering::Relaxed);
        self.give_frames(object.head, object.order);
        Ok(())
    }

    /// The object at `address`, which was allocated for `layout`. Whether an object of a slab is in use is not looked at.
    fn object_of(&self, address: usize, layout: Layout) -> Result<Object, HeapFreeError> {
        let offset = self.offset_of(address).ok_or(HeapFreeError::NotOurs { address })?;
        let frame = offset >> self.page.shift();
        let nothing = HeapFreeError::NoObject { address };
        let wanted = Class::of(layout, self.page.bytes());
        let wrong = |size| HeapFreeError::WrongLayout { address, size };
        let (class, order, head) = match self.slabs()[frame].tag() {
            Tag::None => return Err(nothing),
            Tag::Slab { class, order, head, .. } => {
                let number = offset.checked_sub(self.offset(head)).and_then(|offset| class.object_at(offset));
                number.ok_or(nothing)?;
                if wanted != Some(class) {
                    return Err(wrong(class.size()));
                }
                (Some(class), order, head)
            }
            Tag::Block { order, head } => {
                let start = self.base.at(self.offset(head));
                if self.offset(head) + start.as_ptr().align_offset(layout.align()) != offset {
                    return Err(nothing);
                }
                if wanted.is_some() || self.block_order(layout).map(Order::get) != Some(order) {
                    return Err(wrong(self.page.bytes() << order));
                }
                (None, order, head)
            }
        };
        let order = Order::new(order).map_err(|_| nothing)?;
        Ok(Object { class, order, head, frame })
    }

    /// The frame that `address` is in, if it is one of this heap's.
    pub fn pfn_of(&self, address: *const u8) -> Option<Pfn> {
        let frame = self.offset_of(address as usize)? >> self.page.shift();
        self.frames.start().checked_add(frame as u64)
    }

    /// Whether an object of the heap that is in use begins at `address`.
    pub fn is_object(&self, address: *const u8) -> bool {
        let Some(offset) = self.offset_of(address as usize) else { return false };
        match self.slabs()[offset >> self.page.shift()].tag() {
            Tag::None => false,
            Tag::Block { head, .. } => self.offset(head) <= offset,
            Tag::Slab { class, head, .. } => {
                let number = offset.checked_sub(self.offset(head)).and_then(|offset| class.object_at(offset));
                number.is_some_and(|number| self.slabs()[head as usize].is_used(number))
            }
        }
    }
}

impl<M: FrameMemory> NodeHeap<M> {
    fn slabs(&self) -> &[Slab] {
        match &self.slabs {
            Slabs::Owned(slabs) => slabs,
            Slabs::Lent(slabs) => slabs,
        }
    }

    /// How many bytes after the first one the frame number `frame` begins.
    const fn offset(&self, frame: u32) -> usize {
        (frame as usize) << self.page.shift()
    }

    fn offset_of(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.base.0.as_ptr() as usize)?;
        ((offset >> self.page.shift()) < self.frames.frames() as usize).then_some(offset)
    }

    /// The order of a block for `layout`, which the mapping may not be aligned to beyond a page.
    fn block_order(&self, layout: Layout) -> Option<Order> {
        let page = self.page.bytes();
        let bytes = layout.size().max(1).checked_add(layout.align().saturating_sub(page))?;
        Order::for_frames(bytes.div_ceil(page) as u64)
    }

    fn give_frames(&self, head: u32, order: Order) {
        if let Some(pfn) = self.frames.start().checked_add(head.into()) {
            self.free_to_source(pfn, order);
            self.held.fetch_sub(order.frames(), Ordering::Relaxed);
        }
    }

    fn free_to_source(&self, pfn: Pfn, order: Order) {
        let freed = self.memory.free(pfn, order);
        // Only a broken source does not take back what it handed out; in a release build the block is lost then, not shared.
        debug_assert_eq!(freed, Ok(()), "the source gave us the block");
    }
}

/// The bins that the calling thread uses, by where its local variables are: these are megabytes apart.
fn shard() -> u8 {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    let here = HERE.try_with(|here| core::ptr::from_ref(here) as usize).unwrap_or(0);
    (((here as u64 >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 61) as u8
}

const _: () = assert!(SHARDS == 1 << (64 - 61));

impl<M: FrameMemory> Drop for NodeHeap<M> {
    fn drop(&mut self) {
        for frame in 0..self.slabs().len() as u32 {
            let (order, head) = match self.slabs()[frame as usize].tag() {
                Tag::Slab { order, head, .. } if head == frame => (order, head),
                Tag::Block { order, head } => (order, head),
                Tag::None | Tag::Slab { .. } => continue,
            };
            if let Ok(order) = Order::new(order) {
                self.give_frames(head, order);
            }
        }
        if let Slabs::Lent(slabs) = &self.slabs {
            slabs.iter().for_each(|slab| slab.set_tag(Tag::None));
        }
    }
}

impl<M: FrameMemory> fmt::Debug for NodeHeap<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeHeap({:?}, {} of them taken)", self.frames, self.held.load(Ordering::Relaxed))
    }
}
