//! Memory that values are placed in later: [`Buffer`].
#![allow(unsafe_code)]

use core::mem::{MaybeUninit, align_of, needs_drop};

use crate::kernel::{Kernel, NoMemory};
use crate::own::Own;

/// Bytes in memory of the kernel, aligned to a pair of cache lines, in which a slice can be made.
///
/// It does not know what is in it, so what is in it may borrow from the buffer's neighbours: the compiler lets a
/// structure borrow from memory that only frees itself when dropped.
pub struct Buffer<K: Kernel> {
    lines: Own<[Line], K>,
}

#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Line(MaybeUninit<[u8; 128]>);

impl<K: Kernel> Buffer<K> {
    /// Room for `len` values of type `T`.
    ///
    /// # Errors
    ///
    /// [`NoMemory`], also if so many values fit no address space.
    pub fn for_slice<T>(kernel: K, len: usize) -> Result<Self, NoMemory> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(NoMemory { bytes: usize::MAX })?;
        let lines = Own::slice(kernel, bytes.div_ceil(size_of::<Line>()), |_| Line(MaybeUninit::uninit()))?;
        Ok(Self { lines })
    }

    /// `len` values, each made by `make` from its index, in place of all that was here before; `None` if there is no
    /// room for so many.
    pub fn slice<T>(&mut self, len: usize, mut make: impl FnMut(usize) -> T) -> Option<&mut [T]> {
        const {
            assert!(!needs_drop::<T>(), "nobody drops what is in a buffer");
            assert!(align_of::<T>() <= align_of::<Line>(), "a buffer is aligned to a pair of cache lines");
        }
        if len.checked_mul(size_of::<T>())? > size_of_val(&*self.lines) {
            return None;
        }
        let first = self.lines.as_mut_ptr().cast::<T>();
        for index in 0..len {
            // SAFETY: `index < len`, and by the test above `len` values lie within the lines.
            let slot = unsafe { first.add(index) };
            // SAFETY: the slot is ours by `&mut self`, aligned by the assertion above.
            unsafe { slot.write(make(index)) };
        }
        // SAFETY: the loop has initialised `len` values, which are ours for as long as the buffer is borrowed.
        Some(unsafe { core::slice::from_raw_parts_mut(first, len) })
    }
}
