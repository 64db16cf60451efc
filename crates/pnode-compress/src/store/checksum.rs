//! The checksum of an object: eight multiply-and-fold lanes over strides of 128 bytes, folded to 32 bits.
//!
//! The step is that of wyhash (Wang Yi, public domain): both halves of a 64 by 64 bit product, joined by exclusive or.
//! Each lane goes into its own next product, so the order counts; the lanes do not wait for each other, so a core has
//! eight multiplications under way and takes 16 bytes with each. That is faster than a page comes from memory, so it is a
//! way to fetch a page that is about to be copied.
//!
//! It is there to notice damage, not malice: whatever was damaged, it goes unnoticed with a chance of about one in four
//! thousand million.

/// An odd constant with about as many ones as zeroes. One for all lanes, so that it and they stay in registers.
const KEY: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where the lanes start, each elsewhere: a word that strays into another lane counts otherwise there.
const START: [u64; LANES] = [
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
    0x1d8e_4e27_c47d_124f,
];

const LANES: usize = 8;
/// Bytes that the lanes take at a time.
const STRIDE: usize = 16 * LANES;

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
fn add(lanes: [u64; LANES], stride: &[u8; STRIDE]) -> [u64; LANES] {
    core::array::from_fn(|i| fold(word(stride, 2 * i) ^ KEY, word(stride, 2 * i + 1) ^ lanes[i]))
}

/// Takes the last bytes in, of which the lanes have not seen those past the last whole stride.
#[inline(always)]
fn finish(mut lanes: [u64; LANES], bytes: &[u8]) -> u32 {
    if bytes.len() % STRIDE != 0 {
        lanes = match bytes.last_chunk() {
            // Some bytes count twice, which costs less than to set them apart.
            Some(stride) => add(lanes, stride),
            None => {
                let mut stride = [0; STRIDE];
                stride[..bytes.len()].copy_from_slice(bytes);
                add(lanes, &stride)
            }
        };
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let pair = |a: u64, b: u64| fold(a ^ KEY, b.rotate_left(32) ^ KEY);
    let all = pair(pair(pair(a, b), pair(c, d)), pair(pair(e, f), pair(g, h)) ^ bytes.len() as u64);
    (all ^ all >> 32) as u32
}

/// The checksum of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let mut lanes = START;
    for stride in bytes.chunks_exact(STRIDE) {
        if let Some(stride) = stride.first_chunk() {
            lanes = add(lanes, stride);
        }
    }
    finish(lanes, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_length_counts() {
        let mut bytes = [0; 300];
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
        let mut bytes = [0; 256];
        bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 37) as u8);
        let sum = checksum(&bytes);
        for (a, b) in (0..32).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let mut swapped = bytes;
            (0..8).for_each(|i| swapped.swap(a * 8 + i, b * 8 + i));
            assert_ne!(sum, checksum(&swapped), "{a} and {b}");
        }
    }
}
