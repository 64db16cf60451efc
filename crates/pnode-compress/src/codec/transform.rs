//! Transforms of a part before its entropy coding, for data that LZ cannot see through.
//!
//! Sorted integers never repeat, but their differences do; the bytes of weights are noise side by side, but the upper
//! bytes among themselves are not. A sample of a part says whether one of these is worth trying.

use super::entropy::PART;

/// What was done to a part before it was coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transform {
    /// Nothing.
    None = 0,
    /// Little-endian 32-bit words were replaced by their differences from the word before (the first from 0), modulo
    /// 2^32, and the bytes of the differences sorted into four planes, lowest first.
    Delta = 1,
}

impl Transform {
    /// All transforms, by the number that a tag has for them.
    pub const ALL: [Self; 2] = [Self::None, Self::Delta];

    /// The transform that a sample of a page speaks for.
    ///
    /// Of 64 pairs of neighbouring 32-bit words, spread over the page, 56 must rise by 1 to 65,535.
    pub(super) fn choose(page: &[u8]) -> Self {
        let rising = page
            .chunks_exact(page.len().max(64) / 64)
            .filter_map(|chunk| {
                let (first, rest) = chunk.split_first_chunk::<4>()?;
                let step = u32::from_le_bytes(*rest.first_chunk()?).wrapping_sub(u32::from_le_bytes(*first));
                Some((1..1 << 16).contains(&step))
            })
            .filter(|&rises| rises)
            .count();
        if rising >= 56 { Self::Delta } else { Self::None }
    }

    /// Writes the transformed `part` to `to`.
    pub(super) fn apply(self, part: &[u8; PART], to: &mut [u8; PART]) {
        match self {
            Self::None => *to = *part,
            Self::Delta => {
                let mut before = 0u32;
                for (i, word) in part.chunks_exact(4).enumerate() {
                    let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    for (plane, byte) in word.wrapping_sub(before).to_le_bytes().into_iter().enumerate() {
                        to[plane * (PART / 4) + i] = byte;
                    }
                    before = word;
                }
            }
        }
    }

    /// Undoes [`apply`](Self::apply).
    pub(super) fn undo(self, from: &[u8; PART], part: &mut [u8]) {
        match self {
            Self::None => part.copy_from_slice(from),
            Self::Delta => {
                let mut word = 0u32;
                for (i, bytes) in part.chunks_exact_mut(4).enumerate() {
                    let plane = |plane: usize| from[plane * (PART / 4) + i];
                    word = word.wrapping_add(u32::from_le_bytes([plane(0), plane(1), plane(2), plane(3)]));
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
            }
        }
    }
}
