//! The checksum of an object: four multiply-and-fold lanes over strides of 64 bytes, folded to 32 bits.
//!
//! The step is that of wyhash (Wang Yi, public domain): both halves of a 64 by 64 bit product, joined by exclusive or.
//! Each lane goes into its own next product, so the order counts; the lanes do not wait for each other, so four
//! multiplies are under way at a time.
//!
//! It is there to notice damage, not malice: damage goes unnoticed with a chance of about one in four thousand million.

/// Odd constants with about as many ones as zeroes.
const KEYS: [u64; 4] =
    [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0xd6e8_feb8_6659_fd93];

/// Bytes that the lanes take at a time.
const STRIDE: usize = 64;

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn word(stride: &[u8; STRIDE], i: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&stride[8 * i..8 * i + 8]);
    u64::from_le_bytes(bytes)
}

#[inline(always)]
fn add(lanes: [u64; 4], stride: &[u8; STRIDE]) -> [u64; 4] {
    let [a, b, c, d] = lanes;
    [
        fold(word(stride, 0) ^ KEYS[0], word(stride, 1) ^ a),
        fold(word(stride, 2) ^ KEYS[1], word(stride, 3) ^ b),
        fold(word(stride, 4) ^ KEYS[2], word(stride, 5) ^ c),
        fold(word(stride, 6) ^ KEYS[3], word(stride, 7) ^ d),
    ]
}

/// The checksum of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let mut lanes = [KEYS[3], KEYS[2], KEYS[1], KEYS[0]];
    let mut strides = bytes.chunks_exact(STRIDE);
    for stride in &mut strides {
        if let Some(stride) = stride.first_chunk() {
            lanes = add(lanes, stride);
        }
    }
    let rest = strides.remainder();
    if !rest.is_empty() {
        let mut tail = [0; STRIDE];
        tail[..rest.len()].copy_from_slice(rest);
        lanes = add(lanes, &tail);
    }
    let [a, b, c, d] = lanes;
    let folded =
        fold(fold(a, KEYS[0] ^ b.rotate_left(32)), fold(c, KEYS[1] ^ d.rotate_left(32)) ^ bytes.len() as u64);
    (folded ^ folded >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_length_counts() {
        let mut bytes = [0; 200];
        for fill in [0, 0xff, 0x5a] {
            bytes.fill(fill);
            for len in 1..bytes.len() {
                let sum = checksum(&bytes[..len]);
                assert_ne!(sum, checksum(&bytes[..len - 1]), "{len}");
                for bit in 0..len * 8 {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    assert_ne!(sum, checksum(&bytes[..len]), "length {len}, bit {bit}");
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }

    #[test]
    fn moved_words_count() {
        let mut bytes = [0; 128];
        bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 37) as u8);
        let sum = checksum(&bytes);
        for (a, b) in (0..16).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let mut swapped = bytes;
            (0..8).for_each(|i| swapped.swap(a * 8 + i, b * 8 + i));
            assert_ne!(sum, checksum(&swapped), "{a} and {b}");
        }
    }
}
