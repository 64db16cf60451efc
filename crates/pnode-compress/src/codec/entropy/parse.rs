//! Matches of a part, found as the fast codec finds them, kept as sequences until their codes are known.
#![cfg_attr(feature = "raw", allow(unsafe_code))]

use super::PART;
use crate::codec::lz4::reach::load;

/// The most sequences of a part.
pub(super) const MAX_SEQUENCES: usize = 2048 / 3;
/// The shortest match.
pub(super) const MIN_MATCH: usize = 4;
const REACH: usize = 16;

/// So many literals, then so many bytes from so far back.
#[derive(Clone, Copy)]
pub(super) struct Sequence {
    pub(super) literals: u16,
    pub(super) length: u16,
    pub(super) distance: u16,
}

/// The sequences of a part, three words each.
pub(super) struct Sequences<'s> {
    words: &'s mut [u16; 2048],
    count: usize,
}

impl Sequences<'_> {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Sequence> + '_ {
        self.words.chunks_exact(3).take(self.count).map(|w| Sequence {
            literals: w[0],
            length: w[1],
            distance: w[2],
        })
    }

    #[inline(always)]
    fn push(&mut self, literals: usize, length: usize, distance: usize) {
        if let Some(room) = self.words.chunks_exact_mut(3).nth(self.count) {
            room.copy_from_slice(&[literals as u16, length as u16, distance as u16]);
            self.count += 1;
        }
    }
}

/// Finds the sequences of a part; what follows the last one is literals.
pub(super) fn parse<'s>(
    part: &[u8; PART],
    table: &mut [u16; 4096],
    words: &'s mut [u16; 2048],
) -> Sequences<'s> {
    table.fill(0);
    let mut found = Sequences { words, count: 0 };
    let (mut at, mut last, mut taken) = (1, 1, 0);
    let mut misses = 1 << 6;
    // E1: positions in the table are below `at`. E2: `1 <= last <= at`.
    while at + REACH <= PART && found.count < MAX_SEQUENCES {
        // REACH: just tested.
        let word = load!(u64, part, at);
        let slot = ((word << 24).wrapping_mul(0x9E37_79B1_85EB_CA87) >> 52) as usize & 4095;
        let candidate = usize::from(core::mem::replace(&mut table[slot], at as u16));
        // REACH: E2.
        let repeat = word ^ load!(u64, part, at - last);
        let mut distance = last;
        if repeat as u32 != 0 {
            // REACH: E1.
            if (word ^ load!(u64, part, candidate)) as u32 != 0 {
                at += misses >> 6;
                misses += 1;
                continue;
            }
            distance = at - candidate;
        }
        misses = 1 << 6;
        let mut start = at;
        while start > taken && start > distance && part[start - 1] == part[start - 1 - distance] {
            start -= 1;
        }
        let mut stop = at + MIN_MATCH;
        stop = loop {
            if stop + 8 > PART {
                while stop < PART && part[stop] == part[stop - distance] {
                    stop += 1;
                }
                break stop;
            }
            // REACH: just tested.
            let differ = load!(u64, part, stop) ^ load!(u64, part, stop - distance);
            if differ != 0 {
                break stop + differ.trailing_zeros() as usize / 8;
            }
            stop += 8;
        };
        found.push(start - taken, stop - start, distance);
        last = distance;
        if stop + 8 <= PART {
            // REACH: just tested, as `stop >= 4`.
            let word = load!(u64, part, stop - 2);
            table[((word << 24).wrapping_mul(0x9E37_79B1_85EB_CA87) >> 52) as usize & 4095] =
                (stop - 2) as u16;
        }
        (at, taken) = (stop, stop);
    }
    found
}
