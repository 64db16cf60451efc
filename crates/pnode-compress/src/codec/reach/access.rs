//! The accesses, as macros that only this directory sees.

/// The `N` bytes at `bytes[at..]`.
macro_rules! array {
    ($bytes:expr, $at:expr, $n:expr) => {{
        let (bytes, at): (&[u8], usize) = (&*$bytes, $at);
        debug_assert!(at + $n <= bytes.len());
        #[cfg(feature = "raw")]
        // SAFETY: the `REACH` comment of the use proves `at + N <= bytes.len()`, so the offset is in the slice.
        let from = unsafe { bytes.as_ptr().add(at) };
        #[cfg(feature = "raw")]
        // SAFETY: as above the whole array is in the slice; arrays of bytes have no alignment and no invalid value.
        let array = unsafe { *from.cast::<[u8; $n]>() };
        #[cfg(not(feature = "raw"))]
        let array: [u8; $n] = match bytes[at..].first_chunk::<{ $n }>() {
            Some(array) => *array,
            None => [0; $n],
        };
        array
    }};
}

/// Puts `N` bytes at `bytes[at..]`.
macro_rules! put_array {
    ($bytes:expr, $at:expr, $n:expr, $value:expr) => {{
        let value: [u8; $n] = $value;
        let (bytes, at): (&mut [u8], usize) = (&mut *$bytes, $at);
        debug_assert!(at + $n <= bytes.len());
        #[cfg(feature = "raw")]
        // SAFETY: the `REACH` comment of the use proves `at + N <= bytes.len()`, so the offset is in the slice.
        let to = unsafe { bytes.as_mut_ptr().add(at) };
        #[cfg(feature = "raw")]
        // SAFETY: as above the whole array is in the slice; arrays of bytes have no alignment.
        unsafe {
            *to.cast::<[u8; $n]>() = value;
        }
        #[cfg(not(feature = "raw"))]
        if let Some(array) = bytes[at..].first_chunk_mut::<{ $n }>() {
            *array = value;
        }
    }};
}

/// `load!(u64, bytes, at)`: the little-endian integer at `bytes[at..]`.
macro_rules! load {
    ($int:ty, $bytes:expr, $at:expr) => {
        <$int>::from_le_bytes($crate::codec::reach::access::array!($bytes, $at, size_of::<$int>()))
    };
}

/// `store!(u64, bytes, at, value)`: puts a little-endian integer at `bytes[at..]`.
macro_rules! store {
    ($int:ty, $bytes:expr, $at:expr, $value:expr) => {
        $crate::codec::reach::access::put_array!($bytes, $at, size_of::<$int>(), <$int>::to_le_bytes($value))
    };
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

pub(super) use {array, copy, load, put_array, store};
