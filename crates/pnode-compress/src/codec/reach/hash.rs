//! The one hash of all encoders.

/// The hash of the first `BYTES` bytes of a word, in `BITS` bits: a multiplication, whose upper bits depend on all of
/// them (D. Knuth's multiplicative hashing). A key whose low bits are 0 leaves out the bytes that follow.
#[inline(always)]
pub(in crate::codec) fn hash<const BYTES: usize, const BITS: u32>(word: u64) -> usize {
    const { assert!(0 < BYTES && BYTES <= 8 && 0 < BITS && BITS < 64) };
    (word.wrapping_mul(0x9E37_79B1_85EB_CA87 << (64 - 8 * BYTES)) >> (64 - BITS)) as usize
}
