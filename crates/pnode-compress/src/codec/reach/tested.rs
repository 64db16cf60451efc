//! Accesses that test their range themselves, each by one comparison.

use super::access;

/// The `N` bytes at `bytes[at..]`; zero bytes if they do not all lie there.
#[inline(always)]
pub(in crate::codec) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    match bytes.len().checked_sub(N) {
        // REACH: just tested.
        Some(last) if at <= last => access::array!(bytes, at, N),
        _ => [0; N],
    }
}

/// Puts `value` at `bytes[at..]`; nothing happens if there is not all the room.
#[inline(always)]
pub(in crate::codec) fn put_at<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    match bytes.len().checked_sub(N) {
        // REACH: just tested.
        Some(last) if at <= last => access::put_array!(bytes, at, N, value),
        _ => {}
    }
}

/// `load!(u64, bytes, at)`: the little-endian integer at `bytes[at..]`, 0 if it does not lie there.
macro_rules! load {
    ($int:ty, $bytes:expr, $at:expr) => {
        <$int>::from_le_bytes($crate::codec::reach::bytes_at(&$bytes[..], $at))
    };
}

/// `store!(u64, bytes, at, value)`: puts a little-endian integer at `bytes[at..]`, if it fits there.
macro_rules! store {
    ($int:ty, $bytes:expr, $at:expr, $value:expr) => {{
        let value = <$int>::to_le_bytes($value);
        $crate::codec::reach::put_at(&mut $bytes[..], $at, value)
    }};
}

pub(in crate::codec) use {load, store};

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length of a slice against every offset, and offsets whose end does not fit a number.
    #[test]
    fn only_what_lies_in_the_slice_is_accessed() {
        let memory: [u8; 24] = core::array::from_fn(|i| i as u8 + 1);
        for len in 0..=memory.len() {
            for at in (0..=len + 9).chain([usize::MAX - 8, usize::MAX - 7, usize::MAX]) {
                let inside = at.checked_add(8).is_some_and(|end| end <= len);
                let expected = if inside { core::array::from_fn(|i| (at + i) as u8 + 1) } else { [0; 8] };
                assert_eq!(bytes_at::<8>(&memory[..len], at), expected, "{len} {at}");

                let (mut changed, mut expected) = (memory, memory);
                put_at(&mut changed[..len], at, [0xEE; 8]);
                if inside {
                    expected[at..at + 8].fill(0xEE);
                }
                assert_eq!(changed, expected, "{len} {at}");
            }
        }
    }
}
