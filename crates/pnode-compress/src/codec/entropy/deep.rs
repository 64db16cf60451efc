//! The thorough search: a table of long and one of short repeats, and a look at the next position before a match is
//! taken.

use super::PART;
use super::parse::Sequences;
use crate::codec::reach::{hash, load, match_length};

/// A match is looked for where this many bytes are left.
const REACH: usize = 8;
/// How many more bits a match one position later has to save.
const LATER: isize = 6;
/// A match that saves so many bits is taken without a look at the next position.
const GOOD: isize = 25;

/// A match and what it saves, in bits; nothing if it is none.
#[derive(Clone, Copy)]
struct Match {
    length: usize,
    distance: usize,
    gain: isize,
}

/// Earlier positions by their first bytes.
///
/// # Invariants
///
/// - **D1** Positions in the tables are 0 or were looked at before.
struct Earlier<'p, 's> {
    part: &'p [u8; PART],
    /// By 7 bytes.
    long: &'s mut [u16; 2048],
    /// By 3 bytes.
    short: &'s mut [u16; 2048],
}

/// What a match saves, near enough: a literal costs 6 bits, a token 7, and a distance its extra bits and a bit more.
#[inline(always)]
fn gain(length: usize, distance: usize, last: usize) -> isize {
    let distance_bits = match distance {
        _ if distance == last => 0,
        _ if distance % 8 == 0 || distance <= 256 => 9,
        _ => 13,
    };
    6 * length as isize - distance_bits - 7
}

impl Earlier<'_, '_> {
    /// Puts a position into its slots, and returns those that were there.
    #[inline(always)]
    fn exchange(&mut self, word: u64, at: usize) -> [usize; 2] {
        let (long, short) = (hash::<7, 11>(word), hash::<3, 11>(word));
        let exchange = |place: &mut u16| usize::from(core::mem::replace(place, at as u16));
        [exchange(&mut self.long[long]), exchange(&mut self.short[short])]
    }

    /// The match at `at` that saves most, where `1 <= last <= at` and `at + REACH <= PART`.
    #[inline(always)]
    fn best(&mut self, at: usize, last: usize) -> Match {
        let word = load!(u64, self.part, at);
        let [long, short] = self.exchange(word, at);
        let mut best = Match { length: 0, distance: 0, gain: 0 };
        for candidate in [at - last, long, short] {
            let differ = word ^ load!(u64, self.part, candidate);
            if differ << 40 == 0 {
                let distance = at - candidate;
                let length = match_length(self.part, at, distance, differ, PART);
                let gain = gain(length, distance, last);
                if gain > best.gain {
                    best = Match { length, distance, gain };
                }
            }
        }
        best
    }
}

/// How many bytes before `at` and before `at - distance` are the same, at most `most`.
#[inline(always)]
fn match_before(part: &[u8; PART], at: usize, distance: usize, most: usize) -> usize {
    let from = at - distance;
    if from >= 8 {
        let differ = load!(u64, part, at - 8) ^ load!(u64, part, from - 8);
        return (differ.leading_zeros() as usize / 8).min(most);
    }
    (1..=most.min(from)).take_while(|&n| part[at - n] == part[from - n]).count()
}

/// Finds the sequences of a part; what follows the last one is literals.
#[inline(never)]
pub(super) fn thorough<'s>(
    part: &[u8; PART],
    table: &mut [u16; 4096],
    words: &'s mut [u16; 2048],
) -> Sequences<'s> {
    table.fill(0);
    let mut found = Sequences { words, count: 0 };
    let (long, short) = table.split_at_mut(2048);
    let (Some(long), Some(short)) = (long.first_chunk_mut(), short.first_chunk_mut()) else { return found };
    let mut earlier = Earlier { part, long, short };
    let (mut at, mut last, mut taken) = (1, 1, 0);
    let mut misses = 1 << 6;
    while at + REACH <= PART && !found.is_full() {
        let mut best = earlier.best(at, last);
        if best.gain <= 0 {
            at += misses >> 6;
            misses += 1;
            continue;
        }
        misses = 1 << 6;
        if best.gain < GOOD && at + 1 + REACH <= PART {
            let next = earlier.best(at + 1, last);
            if next.gain > best.gain + LATER {
                (at, best) = (at + 1, next);
            }
        }
        let before = match_before(part, at, best.distance, at - taken);
        found.push(at - before - taken, before + best.length, best.distance);
        (at, last) = (at + best.length, best.distance);
        taken = at;
        // The end of a match is where the next repeat of it will be cut.
        if at + 6 <= PART {
            let word = load!(u64, part, at - 2);
            earlier.exchange(word, at - 2);
        }
    }
    found
}
