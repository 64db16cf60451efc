//! The thorough encoder's search: the last few positions of each hash.

use super::access::load;
use super::{hash, match_length};

/// What the search loads at a position.
const REACH: usize = 8;
/// Positions that a bucket remembers.
const WAYS: usize = 4;
/// Of the positions that no search looked at, every fourth is remembered: the others would push out older ones that
/// are worth as much.
const STEP: usize = 4;
/// Nor is any further than this before the next place: what a long match covers is remembered where its source is.
const TAIL: usize = 32;

/// Earlier positions of a page, by the hash of `LONG` bytes (5 to 8) and by that of 4, each in buckets of the last four.
///
/// The long hash names places that are worth a look each; the short one finds what is shorter. A bucket is one load:
/// its candidates do not wait for each other, as those of a chain do.
///
/// # Invariants
///
/// - **R1** `last + REACH <= page.len()`, and `page.len() <= 65,536`.
/// - **R2** Each position in a bucket is below `next`, and at most `last`.
pub(in crate::codec) struct Recent<'p, 's, const LONG: usize> {
    page: &'p [u8],
    long: &'s mut [u16; 4096],
    short: &'s mut [u8; 4096],
    last: usize,
    limit: usize,
    next: usize,
}

/// A match: `length` bytes that also lie `distance` bytes before.
#[derive(Clone, Copy)]
pub(in crate::codec) struct Match {
    pub(in crate::codec) length: usize,
    pub(in crate::codec) distance: usize,
}

impl<'p, 's, const LONG: usize> Recent<'p, 's, LONG> {
    /// With a match of this length the short hash is not asked, which measures 7 bytes at the most.
    const ENOUGH: usize = if LONG < 7 { LONG } else { 7 };

    /// An empty memory for a page of up to 64 KiB, whose matches start at `last` at the latest and end by `limit`.
    pub(in crate::codec) fn new(
        page: &'p [u8],
        long: &'s mut [u16; 4096],
        short: &'s mut [u8; 4096],
        last: usize,
        limit: usize,
    ) -> Option<Self> {
        const { assert!(4 < LONG && LONG <= REACH) };
        let fits = last + REACH <= page.len() && last < limit && limit <= page.len() && page.len() <= 1 << 16;
        long.fill(0);
        short.fill(0);
        // INVARIANT: R1: `fits`. R2: 0 is below 1, and in the page.
        fits.then_some(Self { page, long, short, last, limit, next: 1 })
    }

    /// Remembers a position, and returns the candidates that the two hashes of the bytes there name, four of 16 bits each.
    #[inline(always)]
    fn exchange(&mut self, word: u64, position: usize) -> (u64, u64) {
        let (long, short) = (hash::<LONG, 10>(word), hash::<4, 9>(word));
        let (mut older, mut older_short) = (0, 0);
        // Both lie in their tables, by the number of bits of the hashes.
        if let Some(bucket) = self.long[long * WAYS..].first_chunk_mut::<WAYS>() {
            older = whole(*bucket);
            *bucket = parts(older << 16 | position as u64);
        }
        if let Some(bucket) = self.short[short * 2 * WAYS..].first_chunk_mut::<8>() {
            older_short = u64::from_le_bytes(*bucket);
            *bucket = (older_short << 16 | position as u64).to_le_bytes();
        }
        (older, older_short)
    }

    /// The longest match at `at` that is longer than `than`, if there is one; else its distance is 0. No earlier place
    /// can be asked about afterwards.
    #[inline(always)]
    pub(in crate::codec) fn longest(&mut self, at: usize, than: usize) -> Match {
        let mut best = Match { length: than, distance: 0 };
        if at < self.next || at > self.last {
            return best;
        }
        self.next = self.next.max(at.saturating_sub(TAIL));
        while self.next < at {
            // REACH: R1, as `next < at <= last`.
            let word = load!(u64, self.page, self.next);
            // INVARIANT: R2: `next` passes it.
            self.exchange(word, self.next);
            self.next += STEP;
        }
        // REACH: R1.
        let word = load!(u64, self.page, at);
        // INVARIANT: R2: `next` passes it.
        let (mut long, mut short) = self.exchange(word, at);
        self.next = at + 1;
        for _ in 0..WAYS {
            let from = usize::from(long as u16);
            long >>= 16;
            // REACH: R2.
            let differ = load!(u64, self.page, from) ^ word;
            if differ << (64 - 8 * LONG) == 0 && self.may_pass(at, from, best.length) {
                let length = match_length(self.page, at, at - from, differ, self.limit);
                if length > best.length {
                    best = Match { length, distance: at - from };
                }
            }
        }
        if best.length >= Self::ENOUGH {
            return best;
        }
        for _ in 0..WAYS {
            let from = usize::from(short as u16);
            short >>= 16;
            // REACH: R2.
            let differ = word ^ load!(u64, self.page, from);
            // With 8 bytes the same it says 7, which the long hash knows better. No branch: none could be predicted.
            let length = (differ | 1 << 63).trailing_zeros() as usize / 8;
            let better = length > best.length;
            best.length = if better { length } else { best.length };
            best.distance = if better { at - from } else { best.distance };
        }
        best
    }

    /// Whether a match that the long hash names can be longer than `length`.
    #[inline(always)]
    fn may_pass(&self, at: usize, from: usize, length: usize) -> bool {
        length < 8
            || self.page[..self.limit].get(at + length).is_some_and(|byte| *byte == self.page[from + length])
    }
}

/// A bucket as one word, which is loaded and stored at once: four loads would wait for the one store that was before.
#[cfg(feature = "raw")]
#[inline(always)]
fn whole(bucket: [u16; WAYS]) -> u64 {
    // SAFETY: both have 8 bytes, and any of them make a number.
    unsafe { core::mem::transmute(bucket) }
}

/// The bucket that [`whole`] makes `word` of.
#[cfg(feature = "raw")]
#[inline(always)]
fn parts(word: u64) -> [u16; WAYS] {
    // SAFETY: both have 8 bytes, and any of them make numbers.
    unsafe { core::mem::transmute(word) }
}

#[cfg(not(feature = "raw"))]
#[inline(always)]
fn whole(bucket: [u16; WAYS]) -> u64 {
    bucket.iter().rev().fold(0, |all, &at| all << 16 | u64::from(at))
}

#[cfg(not(feature = "raw"))]
#[inline(always)]
fn parts(word: u64) -> [u16; WAYS] {
    [word as u16, (word >> 16) as u16, (word >> 32) as u16, (word >> 48) as u16]
}
