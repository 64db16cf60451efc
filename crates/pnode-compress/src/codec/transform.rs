//! Transforms of a part before its entropy coding, for data that LZ cannot see through.
//!
//! Sorted integers never repeat, but their differences do; the bytes of weights are noise side by side, but the upper
//! bytes among themselves are not. A sample of a page says whether one of these is worth trying; most pages are told by
//! their first line, as a sample of scattered words would cost more than it tells.

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
    /// The bytes of 2-byte words, such as bfloat16 weights, were sorted into two planes, lowest first.
    Planes2 = 2,
    /// The bytes of 4-byte words were sorted into four planes, lowest first.
    Planes4 = 3,
    /// The bytes of 8-byte words, such as measured doubles, were sorted into eight planes, lowest first.
    Planes8 = 4,
}

/// The words of a sample that speaks for a transform.
const SAMPLE: usize = 64;
/// The words of the first look.
const GLANCE: usize = 16;

impl Transform {
    /// All transforms, by the number that a tag has for them.
    pub const ALL: [Self; 5] = [Self::None, Self::Delta, Self::Planes2, Self::Planes4, Self::Planes8];

    /// The transform that a sample of a page speaks for.
    ///
    /// - *Delta*: of the pairs of neighbouring 32-bit words in 64 places seven eighths rise by 1 to 65,535.
    /// - *Planes*: of 64 words at most 24 differ in the highest byte, and at least 44 in those bytes that are noise in
    ///   numbers with a fraction. Text, code, records and pointers have either few low bytes or many high ones, and
    ///   fractions rounded to a few decimals repeat, which LZ sees.
    pub(super) fn choose(page: &[u8]) -> Self {
        if rises(page, GLANCE, 4) && rises(page, SAMPLE, page.len() / SAMPLE) {
            return Self::Delta;
        }
        if !is_dense(page) {
            return Self::None;
        }
        for (transform, width) in [(Self::Planes2, 2), (Self::Planes4, 4), (Self::Planes8, 8)] {
            if is_fraction(page, width, GLANCE, width)
                && is_fraction(page, width, SAMPLE, page.len() / SAMPLE / 8 * 8)
            {
                return transform;
            }
        }
        Self::None
    }

    /// Whether the bytes of words are sorted and nothing more.
    pub(super) const fn is_planes(self) -> bool {
        matches!(self, Self::Planes2 | Self::Planes4 | Self::Planes8)
    }

    /// The bytes of a plane; 0 if there are none.
    pub(super) const fn plane(self) -> usize {
        match self {
            Self::None => 0,
            Self::Planes2 => PART / 2,
            Self::Delta | Self::Planes4 => PART / 4,
            Self::Planes8 => PART / 8,
        }
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
            Self::Planes2 => sort::<2>(part, to),
            Self::Planes4 => sort::<4>(part, to),
            Self::Planes8 => sort::<8>(part, to),
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
            Self::Planes2 => merge::<2>(from, part),
            Self::Planes4 => merge::<4>(from, part),
            Self::Planes8 => merge::<8>(from, part),
        }
    }
}

/// Sorts the bytes of words of `WIDTH` bytes into planes.
fn sort<const WIDTH: usize>(part: &[u8; PART], to: &mut [u8; PART]) {
    for (plane, to) in to.chunks_exact_mut(PART / WIDTH).enumerate() {
        for (word, to) in part.chunks_exact(WIDTH).zip(to) {
            *to = word[plane];
        }
    }
}

/// Undoes [`sort`].
fn merge<const WIDTH: usize>(from: &[u8; PART], part: &mut [u8]) {
    for (plane, from) in from.chunks_exact(PART / WIDTH).enumerate() {
        for (word, from) in part.chunks_exact_mut(WIDTH).zip(from) {
            word[plane] = *from;
        }
    }
}

/// Whether of `places` so many bytes apart seven eighths hold a 32-bit word that the next one passes by less than 65,536.
fn rises(page: &[u8], places: usize, step: usize) -> bool {
    let rising = page
        .chunks(step)
        .take(places)
        .enumerate()
        .filter_map(|(i, _)| page[i * step..].first_chunk::<8>())
        .filter(|words| {
            let [a, b, c, d, rest @ ..] = **words;
            (1..1 << 16).contains(&u32::from_le_bytes(rest).wrapping_sub(u32::from_le_bytes([a, b, c, d])))
        });
    rising.count() >= places - places / 8
}

/// Whether the first line is neither text nor numbers with zeroes above them: few pages are not told from fractions by that.
fn is_dense(page: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (mut zeroes, mut high) = (0, 0);
    for word in page.chunks_exact(8).take(8).filter_map(|word| word.first_chunk()) {
        let word = u64::from_le_bytes(*word);
        zeroes += (word.wrapping_sub(HIGH >> 7) & !word & HIGH).count_ones();
        high |= word & HIGH;
    }
    zeroes <= 8 && high != 0
}

/// Whether of so many words so many bytes apart few differ in the highest byte and nearly all in those that are noise.
fn is_fraction(page: &[u8], width: usize, words: usize, step: usize) -> bool {
    let distinct = |byte: usize| {
        let mut seen = [0u64; 4];
        for word in page.chunks(step).take(words) {
            if let Some(&byte) = word.get(byte) {
                seen[usize::from(byte >> 6)] |= 1 << (byte & 63);
            }
        }
        seen.iter().map(|word| word.count_ones() as usize).sum::<usize>()
    };
    let noise = words * 11 / 16;
    distinct(width - 1) <= (SAMPLE * 3 / 8).min(words * 5 / 8)
        && distinct(0) >= noise
        && (width < 8 || distinct(3) >= noise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_was_never_done() {
        let mut state = 1u64;
        let part: [u8; PART] = core::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        for transform in Transform::ALL {
            let (mut to, mut back) = ([0; PART], [0; PART]);
            transform.apply(&part, &mut to);
            assert!(transform == Transform::None || to != part, "{transform:?}");
            transform.undo(&to, &mut back);
            assert_eq!(back, part, "{transform:?}");
        }
    }

    /// A byte of plane `p` comes from place `p` of its word, lowest plane first.
    #[test]
    fn planes_are_in_the_order_of_the_format() {
        let part: [u8; PART] = core::array::from_fn(|i| (i % 8) as u8);
        let mut to = [0; PART];
        for transform in [Transform::Planes2, Transform::Planes4, Transform::Planes8] {
            transform.apply(&part, &mut to);
            let width = PART / transform.plane();
            for (i, &byte) in to.iter().enumerate() {
                assert_eq!(usize::from(byte) % width, i / transform.plane(), "{transform:?} {i}");
            }
        }
    }
}
