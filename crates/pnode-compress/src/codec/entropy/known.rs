//! Codes of literals that come with the format: the literals of most pages are nearer to one of these than a description of
//! their own code would cost, and neither side has a table to build.

use super::lengths::{LITERAL_TABLE, MAX_BITS, SYMBOLS, number};
use super::token::digit;
use super::trained;

/// The sets of codes.
pub(super) const SETS: usize = trained::LITERALS.len();

/// How long the code of each symbol is in each set.
static LENGTHS: [[u16; SYMBOLS]; SETS] = {
    let mut lengths = [[0; SYMBOLS]; SETS];
    let mut i = 0;
    while i < SETS * SYMBOLS {
        lengths[i / SYMBOLS][i % SYMBOLS] = digit(trained::LITERALS[i / SYMBOLS][i % SYMBOLS]);
        i += 1;
    }
    lengths
};

/// The codes of each set: the bits above, their number in the lowest 4 bits.
pub(super) static CODES: [[u16; SYMBOLS]; SETS] = {
    let mut codes = LENGTHS;
    let mut set = 0;
    while set < SETS {
        number(&mut codes[set]);
        set += 1;
    }
    codes
};

/// The decoding tables: by the next bits, the symbol above and the length of its code in the lower 8 bits.
pub(super) static TABLES: [[u16; LITERAL_TABLE]; SETS] = {
    let mut tables = [[0; LITERAL_TABLE]; SETS];
    let mut i = 0;
    while i < SETS * SYMBOLS {
        let (set, symbol) = (i / SYMBOLS, i % SYMBOLS);
        let (code, length) = (CODES[set][symbol] >> 4, CODES[set][symbol] & 15);
        let spare = MAX_BITS as u16 - length;
        let (mut at, end) = ((code as usize) << spare, (code as usize + 1) << spare);
        while at < end {
            assert!(tables[set][at] == 0, "no code of a set starts with another");
            tables[set][at] = (symbol as u16) << 8 | length;
            at += 1;
        }
        i += 1;
    }
    let mut i = 0;
    while i < SETS * LITERAL_TABLE {
        assert!(tables[i / LITERAL_TABLE][i % LITERAL_TABLE] != 0, "the codes of a set are complete");
        i += 1;
    }
    tables
};

/// The set under which symbols with these counts, 4,096 in all at the most, take the fewest bits, and how many these are.
pub(super) fn nearest(counts: &[u16; SYMBOLS]) -> (usize, usize) {
    let mut best = (0, usize::MAX);
    for (set, lengths) in LENGTHS.iter().enumerate() {
        let bits = bits_under(counts, lengths);
        if bits < best.1 {
            best = (set, bits);
        }
    }
    best
}

/// How many bits these counts of symbols take. Out of line: with all sets in one loop a compiler keeps the counts on the stack.
#[inline(never)]
fn bits_under(counts: &[u16; SYMBOLS], lengths: &[u16; SYMBOLS]) -> usize {
    // No sum passes 16 bits, which makes a few wide operations of this.
    let add = |bits: u16, (&count, &length): (&u16, &u16)| bits.wrapping_add(count.wrapping_mul(length));
    usize::from(counts.iter().zip(lengths).fold(0, add))
}

const _: () = assert!(super::PART * MAX_BITS as usize <= u16::MAX as usize);
