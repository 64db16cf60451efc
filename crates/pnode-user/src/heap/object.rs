//! Typed objects on a heap: [`NodeBox`] and [`NodeVec`].
//!
//! They borrow the heap, so it cannot end before them, and give the value back where there is no memory for it.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};
use core::slice;

use pnode_compress::memory::FrameMemory;

use super::NodeHeap;
use super::error::HeapAllocError;

/// There was no memory for a value: here it is back, with the reason.
pub struct Refused<T> {
    /// The value.
    pub value: T,
    /// Why.
    pub error: HeapAllocError,
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refused({:?})", self.error)
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> core::error::Error for Refused<T> {}

impl<M: FrameMemory> NodeHeap<M> {
    /// Puts `value` on the heap.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives the value back.
    pub fn boxed<T>(&self, value: T) -> Result<NodeBox<'_, T, M>, Refused<T>> {
        let start = match Layout::new::<T>() {
            layout if layout.size() == 0 => Ok(NonNull::dangling()),
            layout => self.allocate(layout).map(NonNull::cast::<T>),
        };
        match start {
            Ok(start) => {
                // SAFETY: the object has room and alignment for a `T` and is ours alone (H1); for a type without size any
                // aligned address does.
                unsafe { start.write(value) };
                // INVARIANT: B1 by the line above.
                Ok(NodeBox { start, heap: self, _owns: PhantomData })
            }
            Err(error) => Err(Refused { value, error }),
        }
    }

    /// An empty vector on the heap; it takes memory when something is pushed.
    pub const fn vec<T>(&self) -> NodeVec<'_, T, M> {
        // INVARIANT: V1 with no elements; V2 with no room.
        NodeVec { start: NonNull::dangling(), length: 0, room: 0, heap: self, _owns: PhantomData }
    }
}

/// A value on a [`NodeHeap`], as `Box` is one on the global heap. Made by [`NodeHeap::boxed`].
///
/// # Invariants
///
/// - **B1** `start` holds a valid `T`; unless `T` has no size, it is an object of `heap` allocated for it, and ours.
pub struct NodeBox<'h, T, M: FrameMemory> {
    start: NonNull<T>,
    heap: &'h NodeHeap<M>,
    _owns: PhantomData<T>,
}

// SAFETY: a box is its value and a shared reference to the heap.
unsafe impl<T: Send, M: FrameMemory + Sync> Send for NodeBox<'_, T, M> {}
// SAFETY: as above.
unsafe impl<T: Sync, M: FrameMemory + Sync> Sync for NodeBox<'_, T, M> {}

impl<T, M: FrameMemory> NodeBox<'_, T, M> {
    /// Takes the value out.
    pub fn into_inner(self) -> T {
        let this = ManuallyDrop::new(self);
        // SAFETY: by B1 there is a value, and nobody reads it again: `this` is not dropped.
        let value = unsafe { this.start.read() };
        this.free();
        value
    }

    /// Gives the object back; the value is gone.
    fn free(&self) {
        if size_of::<T>() > 0 {
            // SAFETY: by B1 the object is ours; both callers end with this.
            let freed = unsafe { self.heap.free(self.start.cast(), Layout::new::<T>()) };
            debug_assert_eq!(freed, Ok(()), "a box owns its object");
        }
    }
}

impl<T, M: FrameMemory> Deref for NodeBox<'_, T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: by B1 there is a value, which we share for as long as we are.
        unsafe { self.start.as_ref() }
    }
}

impl<T, M: FrameMemory> DerefMut for NodeBox<'_, T, M> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by B1 there is a value, which is ours alone for as long as we are borrowed so.
        unsafe { self.start.as_mut() }
    }
}

impl<T, M: FrameMemory> Drop for NodeBox<'_, T, M> {
    fn drop(&mut self) {
        // SAFETY: by B1 there is a value; nobody uses it after this.
        unsafe { self.start.drop_in_place() };
        self.free();
    }
}

impl<T: fmt::Debug, M: FrameMemory> fmt::Debug for NodeBox<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A growing run of values on a [`NodeHeap`], as `Vec` is one on the global heap; it reads as a slice. Made by
/// [`NodeHeap::vec`].
///
/// # Invariants
///
/// - **V1** the first `length` of `room` places from `start` on hold valid values.
/// - **V2** unless there is no room or `T` has no size, `start` is an object of `heap` allocated for `room` values, and
///   ours.
pub struct NodeVec<'h, T, M: FrameMemory> {
    start: NonNull<T>,
    length: usize,
    room: usize,
    heap: &'h NodeHeap<M>,
    _owns: PhantomData<T>,
}

// SAFETY: a vector is its values and a shared reference to the heap.
unsafe impl<T: Send, M: FrameMemory + Sync> Send for NodeVec<'_, T, M> {}
// SAFETY: as above.
unsafe impl<T: Sync, M: FrameMemory + Sync> Sync for NodeVec<'_, T, M> {}

impl<T, M: FrameMemory> NodeVec<'_, T, M> {
    /// Adds `value` at the end.
    ///
    /// # Errors
    ///
    /// [`Refused`] gives the value back; the vector is as it was.
    pub fn push(&mut self, value: T) -> Result<(), Refused<T>> {
        if self.length == self.room {
            if let Err(error) = self.reserve(1) {
                return Err(Refused { value, error });
            }
        }
        // SAFETY: by V2 and the line above there is room for a value there.
        let end = unsafe { self.start.add(self.length) };
        // SAFETY: as above; no valid value is overwritten (V1).
        unsafe { end.write(value) };
        self.length += 1;
        Ok(())
    }

    /// Takes the last value.
    pub fn pop(&mut self) -> Option<T> {
        self.length = self.length.checked_sub(1)?;
        // SAFETY: the place is one of the vector's.
        let last = unsafe { self.start.add(self.length) };
        // SAFETY: by V1 it held a value, and it does not count as one any more.
        Some(unsafe { last.read() })
    }

    /// Makes room for `more` values.
    ///
    /// # Errors
    ///
    /// [`HeapAllocError`]; the vector is as it was.
    pub fn reserve(&mut self, more: usize) -> Result<(), HeapAllocError> {
        let too_large = HeapAllocError::TooLarge { bytes: usize::MAX };
        let wanted = self.length.checked_add(more).ok_or(too_large)?;
        if wanted <= self.room {
            return Ok(());
        }
        if size_of::<T>() == 0 {
            // INVARIANT: V2 asks for no object.
            self.room = usize::MAX;
            return Ok(());
        }
        let room = wanted.max(self.room.saturating_mul(2)).max(4);
        let new = Layout::array::<T>(room).map_err(|_| too_large)?;
        let start = match self.layout() {
            None => self.heap.allocate(new)?,
            // SAFETY: by V2 the object is ours and was allocated for this layout; the old address is replaced below.
            Some(old) => unsafe { self.heap.resize(self.start.cast(), old, new.size()) }?,
        };
        // INVARIANT: V1 because resizing keeps the bytes; V2 by the calls above.
        (self.start, self.room) = (start.cast(), room);
        Ok(())
    }

    /// The layout of the object, if there is one.
    fn layout(&self) -> Option<Layout> {
        let has_object = size_of::<T>() > 0 && self.room > 0;
        has_object.then(|| Layout::array::<T>(self.room).ok()).flatten()
    }
}

impl<T, M: FrameMemory> Deref for NodeVec<'_, T, M> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: by V1 that many values are valid, and shared for as long as we are.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T, M: FrameMemory> DerefMut for NodeVec<'_, T, M> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: by V1 that many values are valid, and ours alone for as long as we are borrowed so.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl<T, M: FrameMemory> Drop for NodeVec<'_, T, M> {
    fn drop(&mut self) {
        let values = ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.length);
        // SAFETY: by V1 the values are valid; nobody uses them after this.
        unsafe { values.drop_in_place() };
        if let Some(layout) = self.layout() {
            // SAFETY: by V2 the object is ours, and its values are gone.
            let freed = unsafe { self.heap.free(self.start.cast(), layout) };
            debug_assert_eq!(freed, Ok(()), "a vector owns its object");
        }
    }
}

impl<T: fmt::Debug, M: FrameMemory> fmt::Debug for NodeVec<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
