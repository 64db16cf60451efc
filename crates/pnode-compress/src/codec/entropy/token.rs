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
    /// As many ones as the literals have extra bits.
    pub(super) run_mask: u16,
    /// As many ones as the length has extra bits.
    pub(super) length_mask: u16,
    /// All ones if the distance is the last one, else 0: a mask, as the choice is one that no branch predicts.
    pub(super) repeats: i16,
}

/// The shapes of all tokens. The entries behind the last token are never read, as no code stands for them.
pub(super) static SHAPES: [Shape; 256] = {
    let none = Shape {
        bits: 0,
        length_bits: 0,
        tail_bits: 0,
        shift: 0,
        least_run: 0,
        least_length: 0,
        run_mask: 0,
        length_mask: 0,
        repeats: 0,
    };
    let mut shapes = [none; 256];
    let mut token = 0;
    while token < TOKENS {
        let (distance_bits, shift) = KINDS[token / PER_KIND];
        let (run, run_bits) = RUNS[token / LENGTHS.len() % RUNS.len()];
        let (length, length_bits) = LENGTHS[token % LENGTHS.len()];
        shapes[token] = Shape {
            bits: (distance_bits + run_bits + length_bits) as u8,
            length_bits: length_bits as u8,
            tail_bits: (run_bits + length_bits) as u8,
            shift: shift as u8,
            least_run: run as u8,
            least_length: length as u8,
            run_mask: (1 << run_bits) - 1,
            length_mask: (1 << length_bits) - 1,
            repeats: -((token < PER_KIND) as i16),
        };
        token += 1;
    }
    shapes
};

/// The classes of small numbers of literals and of lengths less [`MIN_MATCH`]; the last entry is that of all larger.
const RUN_CLASS: [u8; 25] = classes(&RUNS, 0);
const LENGTH_CLASS: [u8; 46] = classes(&LENGTHS, MIN_MATCH);

const fn classes<const N: usize>(of: &[(usize, u32)], least: usize) -> [u8; N] {
    let mut class = [0; N];
    let mut value = 0;
    while value < N {
        let mut c = 0;
        while c + 1 < of.len() && value + least >= of[c + 1].0 {
            c += 1;
        }
        class[value] = c as u8;
        value += 1;
    }
    class
}

/// The token of a sequence and the value of its extra bits, where `last` is the distance of the sequence before.
#[inline(always)]
pub(super) fn split(sequence: Sequence, last: u16) -> (usize, u64) {
    let (run, length) = (usize::from(sequence.literals), usize::from(sequence.length));
    let run_class = usize::from(RUN_CLASS[run.min(RUN_CLASS.len() - 1)]);
    let length_class = usize::from(LENGTH_CLASS[(length - MIN_MATCH).min(LENGTH_CLASS.len() - 1)]);
    let distance = usize::from(sequence.distance);
    // Masks, as no branch predicts these.
    let new = usize::from(sequence.distance == last).wrapping_sub(1);
    let any = usize::from(distance % 8 == 0).wrapping_sub(1);
    let near = 1 + usize::from(distance > 64) + usize::from(distance > 512);
    let kind = (near & !any | (4 + usize::from(distance > 256)) & any) & new;
    let token = kind * PER_KIND + run_class * LENGTHS.len() + length_class;
    let shape = &SHAPES[token % 256];
    // A distance that repeats has none of these bits.
    let back = ((distance >> (shape.shift & 15)) - 1) & new;
    let run = run - usize::from(shape.least_run);
    let length = length - usize::from(shape.least_length);
    (token, (back << (shape.tail_bits & 31) | run << (shape.length_bits & 15) | length) as u64)
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
