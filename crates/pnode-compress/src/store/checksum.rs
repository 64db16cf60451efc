//! The checksum of an object: four multiply-and-fold lanes over 64-byte strides, folded to 32 bits.
//!
//! The mixing step is the widening multiply of wyhash (Wang Yi, public domain idea): both halves of a 64 by 64 bit
//! product, added by exclusive or. It is there to notice damage, not malice: every flipped bit changes an operand of a
//! multiply by an odd constant, and any damage goes unnoticed with a chance of about one in four thousand million.

/// Odd constants with as many ones as zeroes, so that no product loses a half.
const KEYS: [u64; 5] = [
    0x9e37_79b9_7f4a_7c15,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
];

/// The low half plus, exclusively, the high half of a product, mixed with its operands so that a zero among them does
/// not hide the other.
#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64 ^ a ^ b.rotate_left(32)
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => 0,
    }
}

/// The checksum of `bytes`, which differs for different seeds.
pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u32 {
    let seed = seed ^ bytes.len() as u64;
    let mut lanes = [seed, seed ^ KEYS[4], seed.rotate_left(32), !seed];
    let mut strides = bytes.chunks_exact(64);
    for stride in &mut strides {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = mix(word(stride, 16 * i) ^ KEYS[i] ^ *lane, word(stride, 16 * i + 8) ^ KEYS[4]);
        }
    }
    let rest = strides.remainder();
    let mut tail = [0; 64];
    tail[..rest.len()].copy_from_slice(rest);
    if !rest.is_empty() {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = mix(word(&tail, 16 * i) ^ KEYS[i] ^ *lane, word(&tail, 16 * i + 8) ^ KEYS[4]);
        }
    }
    let folded = mix(mix(lanes[0] ^ KEYS[1], lanes[1]), mix(lanes[2] ^ KEYS[2], lanes[3]));
    (folded ^ folded >> 32) as u32
}
