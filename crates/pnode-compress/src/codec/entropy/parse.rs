//! Sequences of a part, and the quick search for them: one probe a position.

use super::PART;
use crate::codec::lz4::reach::load;

/// The most sequences that an encoder makes of a part.
pub(super) const MAX_SEQUENCES: usize = 2048 / 3;
/// The shortest match.
pub(super) const MIN_MATCH: usize = 3;
/// A match is looked for where this many bytes are left.
const REACH: usize = 16;
/// The bytes of a match that is no repeat of the last distance.
const HASHED: u32 = 6;

/// So many literals, then so many bytes from so far back.
#[derive(Clone, Copy)]
pub(super) struct Sequence {
    pub(super) literals: u16,
    pub(super) length: u16,
    pub(super) distance: u16,
}

/// The sequences of a part, three words each.
pub(super) struct Sequences<'s> {
    pub(super) words: &'s mut [u16; 2048],
    pub(super) count: usize,
}

impl Sequences<'_> {
    /// Whether there is no room for another one.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.count >= MAX_SEQUENCES
    }

    /// Appends a sequence; nothing if there is no room.
    #[inline(always)]
    pub(super) fn push(&mut self, literals: usize, length: usize, distance: usize) {
        if let Some(room) = self.words.get_mut(3 * self.count..3 * self.count + 3) {
            room.copy_from_slice(&[literals as u16, length as u16, distance as u16]);
            self.count += 1;
        }
    }
}

/// How many bytes at `at` and at `at - distance` are the same, where the first `known` are.
#[inline(always)]
pub(super) fn match_length(part: &[u8; PART], at: usize, distance: usize, known: usize) -> usize {
    let mut stop = at + known;
    while stop + 8 <= PART {
        // REACH: just tested, as `distance <= at`.
        let differ = load!(u64, part, stop) ^ load!(u64, part, stop - distance);
        if differ != 0 {
            return stop - at + differ.trailing_zeros() as usize / 8;
        }
        stop += 8;
    }
    while stop < PART && part[stop] == part[stop - distance] {
        stop += 1;
    }
    stop - at
}

/// How many bytes before `at` and before `at - distance` are the same, at most `most`.
#[inline(always)]
pub(super) fn match_before(part: &[u8; PART], at: usize, distance: usize, most: usize) -> usize {
    let from = at - distance;
    if from >= 8 {
        // REACH: `8 <= from < at`, and `at <= PART`.
        let differ = load!(u64, part, at - 8) ^ load!(u64, part, from - 8);
        return (differ.leading_zeros() as usize / 8).min(most);
    }
    (1..=most.min(from)).take_while(|&n| part[at - n] == part[from - n]).count()
}

/// The slot of the first `bytes` bytes of a word in a table of 4,096.
#[inline(always)]
pub(super) fn slot(word: u64, bytes: u32) -> usize {
    ((word << (64 - 8 * bytes)).wrapping_mul(0x9E37_79B1_85EB_CA87) >> 52) as usize & 4095
}

/// Finds the sequences of a part; what follows the last one is literals.
pub(super) fn quick<'s>(
    part: &[u8; PART],
    table: &mut [u16; 4096],
    words: &'s mut [u16; 2048],
) -> Sequences<'s> {
    // Invariants of the loop, which the `REACH` comments cite:
    // E1: positions in the table are 0 or were `at` before, so they are below `at` when they are read.
    // E2: `1 <= last <= at`.
    table.fill(0);
    let mut found = Sequences { words, count: 0 };
    let (mut at, mut last, mut taken) = (1, 1, 0);
    let mut misses = 1 << 6;
    while at + REACH <= PART && !found.is_full() {
        // REACH: just tested.
        let word = load!(u64, part, at);
        let candidate = usize::from(core::mem::replace(&mut table[slot(word, HASHED)], at as u16));
        // REACH: E2.
        let (mut differ, mut distance) = (word ^ load!(u64, part, at - last), last);
        if differ as u32 != 0 {
            // REACH: E1.
            differ = word ^ load!(u64, part, candidate);
            if differ << (64 - 8 * HASHED) != 0 {
                at += misses >> 6;
                misses += 1;
                continue;
            }
            distance = at - candidate;
        }
        misses = 1 << 6;
        let before = match_before(part, at, distance, at - taken);
        let length = match differ {
            0 => match_length(part, at, distance, 8),
            _ => differ.trailing_zeros() as usize / 8,
        };
        found.push(at - before - taken, before + length, distance);
        (at, last) = (at + length, distance);
        taken = at;
        if at + 8 <= PART {
            // REACH: just tested, as `at >= 4`.
            table[slot(load!(u64, part, at - 2), HASHED)] = (at - 2) as u16;
        }
    }
    found
}
