//! The heap's bytes: where they are, writing to them, and the interface that Rust's own containers speak.
//!
//! With [`super::object`] this is the heap's only room with unsafe code.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use std::thread;

use pnode_compress::memory::FrameMemory;
use pnode_core::sync::{RawLock, SpinLock};

use super::error::{HeapAllocError, HeapFreeError};
use super::{NodeHeap, Object};

/// The first byte of the frames; addresses are computed from it and nothing more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base(pub(super) NonNull<u8>);

// SAFETY: an address is a number here; who reads or writes there answers for it.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

/// A spin lock whose waiter soon lets other threads run: with more threads than processors its holder may be one that
/// waits for a processor.
pub(super) struct YieldLock(SpinLock);

// SAFETY: taken and given back as the spin lock is.
unsafe impl RawLock for YieldLock {
    fn new() -> Self {
        Self(SpinLock::new())
    }

    #[inline]
    fn acquire(&self) {
        const SPINS: u32 = 64;
        let mut spins = 0;
        while !self.0.try_acquire() {
            spins += 1;
            if spins % SPINS == 0 { thread::yield_now() } else { core::hint::spin_loop() }
        }
    }

    fn try_acquire(&self) -> bool {
        self.0.try_acquire()
    }

    #[inline]
    unsafe fn release(&self) {
        // SAFETY: the caller holds the lock.
        unsafe { self.0.release() }
    }
}

impl<M: FrameMemory> NodeHeap<M> {
    /// Allocates memory for `layout`, filled with zeroes.
    ///
    /// # Errors
    ///
    /// [`HeapAllocError`].
    pub fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, HeapAllocError> {
        let start = self.allocate(layout)?;
        // SAFETY: the object has the bytes of the layout, and until we return it nobody else has its address (H1).
        unsafe { start.as_ptr().write_bytes(0, layout.size()) };
        Ok(start)
    }

    /// Gives an object back.
    ///
    /// What can be seen to be wrong is refused: an address of another heap or inside an object, an object that is free
    /// already (until it is handed out again), a layout that asks for another size class.
    ///
    /// # Errors
    ///
    /// [`HeapFreeError`]; nothing has changed then.
    ///
    /// # Safety
    ///
    /// If an object of this heap begins at `start`, nobody uses it any more.
    pub unsafe fn free(&self, start: NonNull<u8>, layout: Layout) -> Result<(), HeapFreeError> {
        self.take_back(start.as_ptr() as usize, layout)
    }

    /// Makes an object larger or smaller: where it is if its size class stays the same, else by moving it. The first
    /// bytes, as many as both sizes have, stay.
    ///
    /// # Errors
    ///
    /// [`HeapAllocError`]; the object is as it was then. [`HeapAllocError::NoObject`] if there is none of this layout.
    ///
    /// # Safety
    ///
    /// `start` is an object of this heap, allocated for `layout`, and nobody else uses it during the call. When the
    /// call succeeds, the old address is not used any more.
    pub unsafe fn resize(
        &self,
        start: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Result<NonNull<u8>, HeapAllocError> {
        let wanted = Layout::from_size_align(size, layout.align())
            .map_err(|_| HeapAllocError::TooLarge { bytes: size })?;
        let object = self.object_of(start.as_ptr() as usize, layout);
        let object = object.map_err(HeapAllocError::NoObject)?;
        if self.fits(&object, wanted) {
            return Ok(start);
        }
        let moved = self.allocate(wanted)?;
        let bytes = layout.size().min(size);
        // SAFETY: both objects have that many bytes, and by H1 they are different ones.
        unsafe { ptr::copy_nonoverlapping(start.as_ptr(), moved.as_ptr(), bytes) };
        // SAFETY: the caller does not use the old address any more.
        let freed = unsafe { self.free(start, layout) };
        debug_assert_eq!(freed, Ok(()), "the object was found just now");
        Ok(moved)
    }
}

/// What cannot be answered with an error here is a null pointer, or, when an object is given back that is none, counted
/// in [`super::HeapStats::refused`] and otherwise ignored.
// SAFETY: by H1 an allocation is a run of bytes that nobody else has until it is freed, aligned and as long as its
// layout says; no method unwinds.
unsafe impl<M: FrameMemory> GlobalAlloc for NodeHeap<M> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if let Some(start) = NonNull::new(start) {
            // SAFETY: by the contract of `dealloc` the object is not used any more. A refusal is counted.
            let _ = unsafe { self.free(start, layout) };
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.allocate_zeroed(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = NonNull::new(start) else { return ptr::null_mut() };
        // SAFETY: the contract of `realloc` is that of `resize`.
        unsafe { self.resize(start, layout, size) }.map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}

impl Base {
    /// The address `offset` bytes after the first one; `offset` is inside the frames.
    pub(super) fn at(self, offset: usize) -> NonNull<u8> {
        // SAFETY: the offset of an object is inside the frames, which are one mapping (H2).
        unsafe { self.0.add(offset) }
    }
}

impl<M: FrameMemory> NodeHeap<M> {
    pub(super) fn fits(&self, object: &Object, wanted: Layout) -> bool {
        object.class == super::Class::of(wanted, self.page.bytes())
            && (object.class.is_some() || self.block_order(wanted) == Some(object.order))
    }
}
