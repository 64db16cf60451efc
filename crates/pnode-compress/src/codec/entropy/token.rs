//! Tokens: what a sequence is, up to a few extra bits.
//!
//! A token stands for a kind of distance, a class of the number of literals and a class of the length of the match.
//! Kinds and classes have a base and a fixed number of extra bits, so that a decoder splits a sequence with shifts
//! alone, without a branch.

use super::PART;
use super::parse::{MIN_MATCH, Sequence};
use super::trained;

/// The number of tokens.
pub(super) const TOKENS: usize = KINDS.len() * RUNS.len() * LENGTHS.len();
/// The tokens of a kind of distance.
const PER_KIND: usize = RUNS.len() * LENGTHS.len();
/// The longest code of a token.
pub(super) const TOKEN_BITS: u32 = 10;
/// The entries of a decoding table of tokens.
pub(super) const TOKEN_TABLE: usize = 1 << TOKEN_BITS;

/// Kinds of distances: extra bits, and the power of two that the distance is a multiple of. The first repeats the last
/// distance.
const KINDS: [(u32, u32); 6] = [(0, 0), (3, 3), (6, 3), (9, 3), (8, 0), (12, 0)];
/// Classes of numbers of literals: the least, and extra bits.
const RUNS: [(usize, u32); 6] = [(0, 0), (1, 0), (2, 1), (4, 2), (8, 4), (24, 12)];
/// Classes of lengths of matches: the least, and extra bits.
const LENGTHS: [(usize, u32); 7] = [
    (MIN_MATCH, 0),
    (MIN_MATCH + 1, 0),
    (MIN_MATCH + 2, 0),
    (MIN_MATCH + 3, 1),
    (MIN_MATCH + 5, 3),
    (MIN_MATCH + 13, 5),
    (MIN_MATCH + 45, 12),
];

/// What a token stands for, laid out for the decoder.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Shape {
    /// How many extra bits follow: those of the distance, of the literals, and of the length. 36 at the most.
    pub(super) bits: u8,
    /// How many of them are of the length.
    pub(super) length_bits: u8,
    /// How many of them are of the length and of the literals.
    pub(super) tail_bits: u8,
    /// By how much a distance is shifted.
    pub(super) shift: u8,
    /// The least number of literals.
    pub(super) least_run: u8,
    /// The least length.
    pub(super) least_length: u8,
    /// The least distance; 0 if it is the last one.
    pub(super) least_distance: u8,
    /// As many ones as the literals have extra bits.
    pub(super) run_mask: u16,
    /// As many ones as the length has extra bits.
    pub(super) length_mask: u16,
    /// All ones if the distance is the last one, else 0: a mask, as the choice is one that no branch predicts.
    pub(super) repeats: i16,
}

/// The shapes of all tokens. The entries behind the last token are never read, as no code stands for them.
pub(super) static SHAPES: [Shape; 256] = {
    let mut shapes = [const { shape_of(0) }; 256];
    let mut token = 0;
    while token < TOKENS {
        shapes[token] = shape_of(token);
        token += 1;
    }
    shapes
};

const fn shape_of(token: usize) -> Shape {
    let (distance_bits, shift) = KINDS[token / PER_KIND];
    let (run, run_bits) = RUNS[token / LENGTHS.len() % RUNS.len()];
    let (length, length_bits) = LENGTHS[token % LENGTHS.len()];
    let repeats = token < PER_KIND;
    Shape {
        bits: (distance_bits + run_bits + length_bits) as u8,
        length_bits: length_bits as u8,
        tail_bits: (run_bits + length_bits) as u8,
        shift: shift as u8,
        least_run: run as u8,
        least_length: length as u8,
        least_distance: if repeats { 0 } else { 1 << shift },
        run_mask: (1 << run_bits) - 1,
        length_mask: (1 << length_bits) - 1,
        repeats: -(repeats as i16),
    }
}

/// A class, laid out for the encoder.
#[derive(Clone, Copy)]
struct Class {
    /// What it adds to a token.
    token: u8,
    least: u8,
    bits: u8,
}

/// The classes of small numbers of literals and of small lengths; the last entry is that of all larger.
static RUN_CLASS: [Class; 25] = classes(&RUNS, LENGTHS.len());
static LENGTH_CLASS: [Class; MIN_MATCH + 46] = classes(&LENGTHS, 1);

const fn classes<const N: usize>(of: &[(usize, u32)], step: usize) -> [Class; N] {
    let mut class = [Class { token: 0, least: of[0].0 as u8, bits: 0 }; N];
    let mut value = 0;
    while value < N {
        let mut c = 0;
        while c + 1 < of.len() && value >= of[c + 1].0 {
            c += 1;
        }
        class[value] = Class { token: (c * step) as u8, least: of[c].0 as u8, bits: of[c].1 as u8 };
        value += 1;
    }
    class
}

/// A token, the value of its extra bits, and how many these are.
pub(super) struct Split {
    pub(super) token: usize,
    pub(super) extra: u64,
    pub(super) bits: usize,
}

/// Splits a sequence, where `last` is the distance of the sequence before.
#[inline(always)]
pub(super) fn split(sequence: Sequence, last: u16) -> Split {
    let (run, length) = (usize::from(sequence.literals), usize::from(sequence.length));
    let runs = &RUN_CLASS[run.min(RUN_CLASS.len() - 1)];
    let lengths = &LENGTH_CLASS[length.min(LENGTH_CLASS.len() - 1)];
    let distance = usize::from(sequence.distance);
    // Masks, as no branch predicts these.
    let new = usize::from(sequence.distance == last).wrapping_sub(1);
    let any = usize::from(distance % 8 == 0).wrapping_sub(1);
    let near = 1 + usize::from(distance > 64) + usize::from(distance > 512);
    let kind = (near & !any | (4 + usize::from(distance > 256)) & any) & new;
    // A distance that repeats has no extra bits.
    let back = ((distance >> (3 & !any)) - 1) & new;
    let extra = back << (runs.bits & 15) | (run - usize::from(runs.least));
    let extra = extra << (lengths.bits & 15) | (length - usize::from(lengths.least));
    Split {
        token: kind * PER_KIND + usize::from(runs.token) + usize::from(lengths.token),
        extra: extra as u64,
        bits: KINDS[kind].0 as usize + usize::from(runs.bits) + usize::from(lengths.bits),
    }
}

/// How long the codes of a token are in each of the four sets, 16 bits each.
pub(super) static COSTS: [u64; 256] = {
    let mut costs = [0; 256];
    let mut token = 0;
    while token < TOKENS {
        let mut set = 0;
        while set < 4 {
            costs[token] |= (digit(trained::TOKENS[set][token]) as u64) << (16 * set);
            set += 1;
        }
        token += 1;
    }
    costs
};

/// The codes of each set: the bits above, their number in the lowest 4 bits.
pub(super) static CODES: [[u16; 256]; 4] = {
    let mut codes = [[0; 256]; 4];
    let mut set = 0;
    while set < 4 {
        let (mut length, mut next) = (1, 0);
        while length <= TOKEN_BITS as u16 {
            let mut token = 0;
            while token < TOKENS {
                if digit(trained::TOKENS[set][token]) == length {
                    codes[set][token] = next << 4 | length;
                    next += 1;
                }
                token += 1;
            }
            next <<= 1;
            length += 1;
        }
        set += 1;
    }
    codes
};

/// The decoding tables: by the next bits, the token above and the length of its code in the lower 8 bits.
pub(super) static TABLES: [[u16; TOKEN_TABLE]; 4] = {
    let mut tables = [[0; TOKEN_TABLE]; 4];
    let mut set = 0;
    while set < 4 {
        let mut token = 0;
        while token < TOKENS {
            let (code, length) = (CODES[set][token] >> 4, CODES[set][token] & 15);
            let (mut at, span) =
                ((code as usize) << (TOKEN_BITS as u16 - length), 1 << (TOKEN_BITS as u16 - length));
            let end = at + span;
            while at < end {
                assert!(tables[set][at] == 0, "the codes of a set are complete");
                tables[set][at] = (token as u16) << 8 | length;
                at += 1;
            }
            token += 1;
        }
        let mut at = 0;
        while at < TOKEN_TABLE {
            assert!(tables[set][at] != 0, "the codes of a set are complete");
            at += 1;
        }
        set += 1;
    }
    tables
};

/// The value of a hexadecimal digit.
pub(super) const fn digit(byte: u8) -> u16 {
    (if byte <= b'9' { byte - b'0' } else { byte - b'a' + 10 }) as u16
}

const _: () = assert!(TOKENS == 252 && PART <= 1 << 12);
