//! Owned memory from the kernel around us: [`Own`], the adapter's only heap.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::{self, ManuallyDrop, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

use crate::kernel::{Kernel, NoMemory};

/// A value, or a slice of values, in memory of the kernel; dropped and given back when this is dropped.
///
/// # Invariants
///
/// - **W1** `value` points to an initialised value in memory that came from `kernel.alloc` with the value's layout (any
///   well-aligned address if that layout has no size), and that nobody else owns.
pub struct Own<T: ?Sized, K: Kernel> {
    value: NonNull<T>,
    kernel: K,
    _own: PhantomData<T>,
}

// SAFETY: by W1 an `Own` is the only owner of its value, as a `T` by value would be.
unsafe impl<T: ?Sized + Send, K: Kernel> Send for Own<T, K> {}
// SAFETY: a shared `Own` gives out shared references to its value only.
unsafe impl<T: ?Sized + Sync, K: Kernel> Sync for Own<T, K> {}

impl<T, K: Kernel> Own<T, K> {
    /// Moves `value` into memory of `kernel`.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; the value is dropped then.
    pub fn new(kernel: K, value: T) -> Result<Self, NoMemory> {
        let memory = allocate(kernel, Layout::new::<T>())?.cast::<T>();
        // SAFETY: by K1 the memory fits a `T` and is ours.
        unsafe { memory.write(value) };
        // INVARIANT: W1 holds by the line above.
        Ok(Self { value: memory, kernel, _own: PhantomData })
    }

    /// Memory for a value that is made later, by steps that must not fail for want of memory.
    ///
    /// # Errors
    ///
    /// [`NoMemory`].
    pub fn room(kernel: K) -> Result<Room<T, K>, NoMemory> {
        Ok(Room(Own::new(kernel, MaybeUninit::uninit())?))
    }

    /// Gives the value up as a bare pointer, for a caller on the other side of a C interface.
    pub fn into_raw(self) -> NonNull<T> {
        ManuallyDrop::new(self).value
    }

    /// Takes a value back that [`into_raw`](Self::into_raw) gave up.
    ///
    /// # Safety
    ///
    /// `raw` came from `into_raw` of an `Own` of the same kernel, and nobody uses it after this call.
    pub unsafe fn from_raw(kernel: K, raw: NonNull<T>) -> Self {
        // INVARIANT: W1 held when the pointer was given up, and by the caller nobody else owns it now.
        Self { value: raw, kernel, _own: PhantomData }
    }
}

impl<T, K: Kernel> Own<[T], K> {
    /// `len` values, each made by `make` from its index.
    ///
    /// # Errors
    ///
    /// [`NoMemory`], also if so many values fit no address space.
    pub fn slice(kernel: K, len: usize, mut make: impl FnMut(usize) -> T) -> Result<Self, NoMemory> {
        const { assert!(!mem::needs_drop::<T>(), "a panic in `make` would leak what was made before") };
        let layout = Layout::array::<T>(len).map_err(|_| NoMemory { bytes: usize::MAX })?;
        let first = allocate(kernel, layout)?.cast::<T>();
        for index in 0..len {
            // SAFETY: `index < len`, so the address is inside the memory.
            let slot = unsafe { first.add(index) };
            // SAFETY: by K1 the memory is ours and aligned for a `T`.
            unsafe { slot.write(make(index)) };
        }
        // INVARIANT: W1 holds because the loop has initialised all `len` values.
        Ok(Self { value: NonNull::slice_from_raw_parts(first, len), kernel, _own: PhantomData })
    }
}

/// Memory for a value; see [`Own::room`].
pub struct Room<T, K: Kernel>(Own<MaybeUninit<T>, K>);

impl<T, K: Kernel> Room<T, K> {
    /// Moves `value` into the memory.
    #[inline(always)]
    pub fn fill(mut self, value: T) -> Own<T, K> {
        self.0.write(value);
        let kernel = self.0.kernel;
        // INVARIANT: W1 holds by the line above; `MaybeUninit<T>` has the layout of `T`.
        Own { value: self.0.into_raw().cast(), kernel, _own: PhantomData }
    }
}

/// Memory for `layout`; a dangling address if it has no size.
fn allocate<K: Kernel>(kernel: K, layout: Layout) -> Result<NonNull<u8>, NoMemory> {
    if layout.size() == 0 {
        let dangling = ptr::without_provenance_mut(layout.align());
        return NonNull::new(dangling).ok_or(NoMemory { bytes: 0 });
    }
    kernel.alloc(layout).ok_or(NoMemory { bytes: layout.size() })
}

impl<T: ?Sized, K: Kernel> Deref for Own<T, K> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: by W1 the value is initialised, and `&self` keeps it.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized, K: Kernel> DerefMut for Own<T, K> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by W1 nobody else owns the value, and `&mut self` makes this the only access.
        unsafe { self.value.as_mut() }
    }
}

impl<T: ?Sized, K: Kernel> Drop for Own<T, K> {
    fn drop(&mut self) {
        // SAFETY: by W1 the value is initialised.
        let layout = Layout::for_value(unsafe { self.value.as_ref() });
        // SAFETY: by W1 nobody else owns the value, which is not used again.
        unsafe { self.value.drop_in_place() };
        if layout.size() != 0 {
            // SAFETY: by W1 the memory came from `alloc` with this layout.
            unsafe { self.kernel.free(self.value.cast(), layout) };
        }
    }
}
