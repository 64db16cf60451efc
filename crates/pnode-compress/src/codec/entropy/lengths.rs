//! Code lengths of literals from their counts, the codes themselves, and their description.
//!
//! Lengths are those of Shannon's code with one threshold for rounding: each symbol gets its ideal length, rounded at the
//! fraction that just fills the code. That is within half a percent of an optimal code and needs neither sorting nor a
//! tree.

use super::bits::{BitWriter, peek};
use super::token::digit;
use super::trained;
use crate::codec::reach::store;

/// The longest code. A part has at most 4,096 symbols, so longer codes would hardly gain.
pub(super) const MAX_BITS: u32 = 10;
/// The entries of a decoding table.
pub(super) const LITERAL_TABLE: usize = FULL;
const FULL: usize = 1 << MAX_BITS;
/// The symbols.
pub(super) const SYMBOLS: usize = 256;

/// The symbols of one length are numbered in this many lanes, one after the other, by the remainder of the symbol: so
/// that four counters are at work side by side.
const LANES: usize = 4;

/// Ideal lengths are in 16ths of a bit.
const UNIT: usize = 16;
/// The ideal length of the longest code; rarer symbols count as if they were as frequent.
const RAREST: usize = MAX_BITS as usize * UNIT;
/// Stands for the ideal length of a symbol that does not occur.
const ABSENT: usize = RAREST + UNIT;

/// Working memory of [`assign`]: how many symbols have an ideal length, in [`LANES`].
pub(super) type Buckets = [u16; IDEALS * LANES];
const IDEALS: usize = ABSENT + UNIT;

/// Logarithms to the base 2 of 1 to 255, in 16ths, rounded.
const LOG: [u8; 256] = {
    let mut log = [0; 256];
    let mut n = 1u64;
    while n < 256 {
        let whole = n.ilog2();
        // The fraction in 32nds, a bit at a time: squaring doubles the logarithm.
        let (mut x, mut fraction, mut bit) = (n << (31 - whole), 0, 0);
        while bit < 5 {
            x = (x * x) >> 31;
            fraction <<= 1;
            if x >= 1 << 32 {
                x >>= 1;
                fraction |= 1;
            }
            bit += 1;
        }
        log[n as usize] = (whole * 16 + u32::div_ceil(fraction, 2)) as u8;
        n += 1;
    }
    log
};

/// The logarithm of a number from 1 to 4,096, in 16ths.
#[inline(always)]
fn log(n: usize) -> usize {
    if n < 256 { usize::from(LOG[n]) } else { usize::from(LOG[n >> 5 & 255]) + 5 * UNIT }
}

/// Makes a complete code for symbols with these counts, whose sum is `total`; a single symbol gets a companion. Returns
/// the bits that all symbols take.
///
/// In `codes` are the bits above, and their number, 1 to [`MAX_BITS`], in the lowest 4 bits; 0 for a symbol that does not
/// occur. `ideals` and `buckets` are working memory.
// Out of line, so that what only it keeps is not on the stack of all that the encoder calls.
#[inline(never)]
pub(super) fn assign(
    counts: &[u16; SYMBOLS],
    total: usize,
    codes: &mut [u16; SYMBOLS],
    ideals: &mut [u16; SYMBOLS],
    buckets: &mut Buckets,
) -> usize {
    let whole = log(total);
    buckets.fill(0);
    for (counts, ideals) in counts.chunks_exact(LANES).zip(ideals.chunks_exact_mut(LANES)) {
        for (lane, (&count, ideal)) in counts.iter().zip(ideals).enumerate() {
            let count = usize::from(count);
            let bits = whole.saturating_sub(log(count)).min(RAREST);
            let bits = if count == 0 { ABSENT } else { bits };
            *ideal = bits as u16;
            buckets[lane * IDEALS + bits] += 1;
        }
    }
    if usize::from((0..LANES).map(|lane| buckets[lane * IDEALS + ABSENT]).sum::<u16>()) == SYMBOLS - 1 {
        // A code of one symbol is not complete.
        let only = ideals.iter().position(|&ideal| usize::from(ideal) != ABSENT).unwrap_or(0);
        codes.fill(0);
        codes[only] = 1;
        codes[only ^ 1] = 1;
        number(codes);
        return total;
    }
    let (round, mut slack) = threshold(buckets);
    for (code, &ideal) in codes.iter_mut().zip(&*ideals) {
        let length = (ideal + round as u16) / UNIT as u16;
        *code = if ideal == ABSENT as u16 { 0 } else { length.clamp(1, MAX_BITS as u16) };
    }
    while slack > 0 {
        // What is left is a multiple of what the longest code takes, so that each turn takes something.
        for length in codes.iter_mut().filter(|length| **length > 1) {
            if FULL >> *length <= slack {
                slack -= FULL >> *length;
                *length -= 1;
                if slack == 0 {
                    break;
                }
            }
        }
    }
    let bits = |(&count, &length)| u32::from(count) * u32::from(length);
    let bits = counts.iter().zip(&*codes).map(bits).sum::<u32>();
    number(codes);
    bits as usize
}

/// The least number of 16ths that, added to all ideal lengths before their fractions are cut, makes lengths that a code
/// can have, and the room that is then left, in entries of a decoding table.
fn threshold(buckets: &Buckets) -> (usize, usize) {
    for whole in 0..=MAX_BITS as usize {
        // What the symbols of each fraction take if it is cut, and if it is carried.
        let (mut cut, mut carried) = ([0u32; UNIT], [0u32; UNIT]);
        for row in 0..=MAX_BITS as usize {
            let length = (row + whole).clamp(1, MAX_BITS as usize);
            let longer = (row + whole + 1).min(MAX_BITS as usize);
            for fraction in 0..UNIT {
                let lane = |lane: usize| buckets[lane * IDEALS + row * UNIT + fraction];
                let symbols = u32::from(lane(0) + lane(1) + lane(2) + lane(3));
                cut[fraction] += symbols << (MAX_BITS as usize - length);
                carried[fraction] += symbols << (MAX_BITS as usize - longer);
            }
        }
        let mut used: u32 = cut.iter().sum();
        for round in 0..UNIT {
            if used <= FULL as u32 {
                return (whole * UNIT + round, FULL - used as usize);
            }
            used = used + carried[UNIT - 1 - round] - cut[UNIT - 1 - round];
        }
    }
    // Not reached: 256 symbols of the longest length fit.
    (MAX_BITS as usize * UNIT, 0)
}

/// Turns lengths into canonical codes: ordered by length, then lane, then symbol, counting up.
#[inline(never)]
pub(super) const fn number(codes: &mut [u16; SYMBOLS]) {
    let mut next = [0u16; 16 * LANES];
    let mut symbol = 0;
    while symbol < SYMBOLS {
        next[(codes[symbol] & 15) as usize * LANES + symbol % LANES] += 1;
        symbol += 1;
    }
    let (mut code, mut place) = (0, LANES);
    while place < (MAX_BITS as usize + 1) * LANES {
        let population = next[place];
        next[place] = code << 4 | (place / LANES) as u16;
        code += population;
        place += 1;
        if place % LANES == 0 {
            code <<= 1;
        }
    }
    // The length 0 stands for no code, and stays 0.
    let mut lane = 0;
    while lane < LANES {
        next[lane] = 0;
        lane += 1;
    }
    symbol = 0;
    while symbol < SYMBOLS {
        let length = (codes[symbol] & 15) as usize;
        let place = length * LANES + symbol % LANES;
        codes[symbol] = next[place];
        next[place] += ((length > 0) as u16) << 4;
        symbol += 1;
    }
}

/// What a code of their own would take for symbols with these counts, whose sum is `total`, and its description, in bits:
/// near enough to decide whether to make it.
#[inline(never)]
pub(super) fn estimate(counts: &[u16; SYMBOLS], total: usize) -> usize {
    let whole = log(total);
    let (mut units, mut symbols) = (0, 0);
    for &count in counts {
        let count = usize::from(count);
        units += count * whole.saturating_sub(log(count)).clamp(UNIT, RAREST);
        symbols += usize::from(count > 0);
    }
    units / UNIT + 40 + 7 * symbols / 2
}

/// The symbols of a description: a length, 0 for no code, or eight symbols without a code.
const MARKS: usize = 12;
const EIGHT_ABSENT: usize = 11;
/// The longest code of a mark.
const MARK_BITS: u32 = 6;

/// The codes of marks in each set: the bits above, their number in the lowest 4 bits.
static MARK_CODES: [[u16; MARKS]; 4] = {
    let mut codes = [[0; MARKS]; 4];
    let mut set = 0;
    while set < 4 {
        let (mut length, mut next) = (1, 0);
        while length <= MARK_BITS as u16 {
            let mut mark = 0;
            while mark < MARKS {
                if digit(trained::DESCRIPTIONS[set][mark]) == length {
                    codes[set][mark] = next << 4 | length;
                    next += 1;
                }
                mark += 1;
            }
            next <<= 1;
            length += 1;
        }
        assert!(next == 1 << (MARK_BITS + 1), "the codes of a set are complete");
        set += 1;
    }
    codes
};

/// How long the codes of a mark are in each of the four sets, 16 bits each.
static MARK_COSTS: [u64; 16] = {
    let mut costs = [0; 16];
    let mut mark = 0;
    while mark < MARKS {
        let mut set = 0;
        while set < 4 {
            costs[mark] |= (digit(trained::DESCRIPTIONS[set][mark]) as u64) << (16 * set);
            set += 1;
        }
        mark += 1;
    }
    costs
};

/// The bits of a description that a table of marks is indexed by.
const LOOK_BITS: u32 = 8;
/// The most lengths that a lookup gives.
const LOOK_LENGTHS: usize = 6;

/// By the next bits of a description, the marks that lie in them: from the lowest bits, the bits used (8 bits), the
/// symbols described (8 bits), and the lengths of the first six (8 bits each).
static MARK_TABLES: [[u64; 1 << LOOK_BITS]; 4] = {
    let mut tables = [[0; 1 << LOOK_BITS]; 4];
    let mut set = 0;
    while set < 4 {
        let mut at = 0;
        while at < 1 << LOOK_BITS {
            let (mut bits, mut symbols, mut entry) = (0, 0, 0);
            while symbols < LOOK_LENGTHS {
                let (mark, used) = mark_at(set, at, bits);
                if bits + used > LOOK_BITS || (mark == EIGHT_ABSENT && symbols > 0) {
                    break;
                }
                bits += used;
                if mark == EIGHT_ABSENT {
                    symbols = 8;
                } else {
                    entry |= (mark as u64) << (16 + 8 * symbols);
                    symbols += 1;
                }
            }
            tables[set][at] = entry | (symbols as u64) << 8 | bits as u64;
            at += 1;
        }
        set += 1;
    }
    tables
};

/// The mark after `skip` bits of the [`LOOK_BITS`] of `word`, and the length of its code; too long a length if the mark
/// does not end in them.
const fn mark_at(set: usize, word: usize, skip: u32) -> (usize, u32) {
    let mut mark = 0;
    while mark < MARKS {
        let (code, length) = (MARK_CODES[set][mark] >> 4, (MARK_CODES[set][mark] & 15) as u32);
        if skip + length <= LOOK_BITS
            && (word >> (LOOK_BITS - skip - length)) & ((1 << length) - 1) == code as usize
        {
            return (mark, length);
        }
        mark += 1;
    }
    (0, LOOK_BITS + 1)
}

/// The set that describes the lengths of these codes in the fewest bits, and how many these are.
pub(super) fn description_cost(codes: &[u16; SYMBOLS]) -> (usize, usize) {
    let mut costs = 0;
    for group in codes.chunks_exact(8) {
        if group.iter().fold(0, |any, code| any | code) == 0 {
            costs += MARK_COSTS[EIGHT_ABSENT];
        } else {
            costs += group.iter().map(|code| MARK_COSTS[usize::from(code & 15)]).sum::<u64>();
        }
    }
    cheapest(costs)
}

/// Of four sums of 16 bits, the place and the value of the least.
#[inline]
pub(super) fn cheapest(sums: u64) -> (usize, usize) {
    let mut best = (0, usize::MAX);
    for set in 0..4 {
        let sum = (sums >> (16 * set)) as usize & 0xFFFF;
        if sum < best.1 {
            best = (set, sum);
        }
    }
    best
}

/// Writes the lengths of the codes.
pub(super) fn describe(codes: &[u16; SYMBOLS], set: usize, out: &mut BitWriter<'_>) {
    let marks = &MARK_CODES[set & 3];
    for group in codes.chunks_exact(8) {
        if group.iter().fold(0, |any, code| any | code) == 0 {
            out.put(u64::from(marks[EIGHT_ABSENT] >> 4), u32::from(marks[EIGHT_ABSENT] & 15));
        } else {
            for code in group {
                let mark = marks[usize::from(code & 15).min(MARKS - 1)];
                out.put(u64::from(mark >> 4), u32::from(mark & 15));
            }
        }
        // Eight marks of 6 bits fit what may wait.
        out.flush();
    }
}

/// Reads the description at bit `at` of `bytes` into a decoding table: by the next bits, the symbol above and the length
/// of its code in the lower 8 bits. Returns where the description ends, or `None` if the code is not complete.
///
/// `lengths` and `sorted` are working memory.
pub(super) fn read_table(
    bytes: &[u8],
    mut at: usize,
    set: usize,
    lengths: &mut [u8; SYMBOLS],
    sorted: &mut [u16; SYMBOLS],
    table: &mut [u16; LITERAL_TABLE],
) -> Option<usize> {
    let marks = &MARK_TABLES[set & 3];
    let mut symbol = 0;
    'lookups: loop {
        let mut word = peek(bytes, at);
        for _ in 0..7 {
            if symbol + 8 > SYMBOLS {
                break 'lookups;
            }
            let entry = marks[(word >> (64 - LOOK_BITS)) as usize];
            store!(u64, lengths, symbol, entry >> 16);
            symbol += (entry >> 8) as usize & 0xFF;
            word <<= entry & 63;
            at += entry as usize & 0xFF;
        }
    }
    // The last symbols one at a time, so that nothing behind the description is taken for a part of it.
    while symbol < SYMBOLS {
        let entry = marks[(peek(bytes, at) >> (64 - LOOK_BITS)) as usize];
        let length = (entry >> 16) as u8;
        if entry >> 8 & 0xFF == 8 {
            return None;
        }
        lengths[symbol] = length;
        at += usize::from(MARK_CODES[set & 3][usize::from(length) % MARKS] & 15);
        symbol += 1;
    }

    let mut next = [0u16; 16 * LANES];
    for (symbol, &length) in lengths.iter().enumerate() {
        next[usize::from(length & 15) * LANES + symbol % LANES] += 1;
    }
    let (mut starts, mut start, mut used) = ([0u16; MAX_BITS as usize + 2], 0, 0);
    // Symbols without a code come last.
    for length in (1..=MAX_BITS as usize).chain([0]) {
        starts[length] = start;
        for next in &mut next[length * LANES..][..LANES] {
            let population = *next;
            *next = start;
            start += population;
        }
        used += usize::from(start - starts[length]) << (MAX_BITS as usize - length);
    }
    let absent = SYMBOLS - usize::from(starts[0]);
    if used - absent * FULL != FULL {
        return None;
    }
    for (symbol, &length) in lengths.iter().enumerate() {
        let next = &mut next[usize::from(length & 15) * LANES + symbol % LANES];
        sorted[usize::from(*next) % SYMBOLS] = (symbol as u16) << 8 | u16::from(length);
        *next += 1;
    }
    starts[MAX_BITS as usize + 1] = starts[0];
    let mut rest = &mut table[..];
    for length in 1..=MAX_BITS as usize {
        let symbols = sorted.get(usize::from(starts[length])..usize::from(starts[length + 1]))?;
        let (group, after) = rest.split_at_mut_checked(symbols.len() << (MAX_BITS as usize - length))?;
        match length {
            10 => group.copy_from_slice(symbols),
            9 => fill::<2>(group, symbols),
            8 => fill::<4>(group, symbols),
            7 => fill::<8>(group, symbols),
            6 => fill::<16>(group, symbols),
            _ => {
                let span = 1 << (MAX_BITS as usize - length);
                group.chunks_exact_mut(span).zip(symbols).for_each(|(entries, &symbol)| entries.fill(symbol));
            }
        }
        rest = after;
    }
    Some(at)
}

/// Fills a table with each symbol `SPAN` times.
#[inline(always)]
fn fill<const SPAN: usize>(table: &mut [u16], symbols: &[u16]) {
    for (entries, &symbol) in table.chunks_exact_mut(SPAN).zip(symbols) {
        entries.copy_from_slice(&[symbol; SPAN]);
    }
}
