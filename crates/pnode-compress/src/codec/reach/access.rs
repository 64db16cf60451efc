//! The accesses, as macros that only this directory sees.

/// `load!(u64, bytes, at)`: the little-endian integer at `bytes[at..]`.
macro_rules! load {
    ($int:ty, $bytes:expr, $at:expr) => {{
        let (bytes, at): (&[u8], usize) = (&*$bytes, $at);
        const WIDTH: usize = size_of::<$int>();
        debug_assert!(at + WIDTH <= bytes.len());
        #[cfg(feature = "raw")]
        // SAFETY: the `REACH` comment of the use proves `at + WIDTH <= bytes.len()`, so the offset is in the slice.
        let from = unsafe { bytes.as_ptr().add(at) };
        #[cfg(feature = "raw")]
        // SAFETY: as above the whole array is in the slice; arrays of bytes have no alignment and no invalid value.
        let array = unsafe { *from.cast::<[u8; WIDTH]>() };
        #[cfg(not(feature = "raw"))]
        let array: [u8; WIDTH] = match bytes[at..].first_chunk::<WIDTH>() {
            Some(array) => *array,
            None => [0; WIDTH],
        };
        <$int>::from_le_bytes(array)
    }};
}

/// `store!(u64, bytes, at, value)`: puts a little-endian integer at `bytes[at..]`.
macro_rules! store {
    ($int:ty, $bytes:expr, $at:expr, $value:expr) => {{
        const WIDTH: usize = size_of::<$int>();
        let value: [u8; WIDTH] = <$int>::to_le_bytes($value);
        let (bytes, at): (&mut [u8], usize) = (&mut *$bytes, $at);
        debug_assert!(at + WIDTH <= bytes.len());
        #[cfg(feature = "raw")]
        // SAFETY: the `REACH` comment of the use proves `at + WIDTH <= bytes.len()`, so the offset is in the slice.
        let to = unsafe { bytes.as_mut_ptr().add(at) };
        #[cfg(feature = "raw")]
        // SAFETY: as above the whole array is in the slice; arrays of bytes have no alignment.
        unsafe {
            *to.cast::<[u8; WIDTH]>() = value;
        }
        #[cfg(not(feature = "raw"))]
        if let Some(array) = bytes[at..].first_chunk_mut::<WIDTH>() {
            *array = value;
        }
    }};
}

/// `copy!(u64, bytes, from, to)`: copies as many bytes within `bytes` as the type has, all read before one is written.
macro_rules! copy {
    ($int:ty, $bytes:expr, $from:expr, $to:expr) => {{
        #[cfg(feature = "raw")]
        store!($int, $bytes, $to, load!($int, $bytes, $from));
        #[cfg(not(feature = "raw"))]
        $bytes.copy_within($from..$from + size_of::<$int>(), $to);
    }};
}

pub(super) use copy;
pub(super) use load;
pub(super) use store;
