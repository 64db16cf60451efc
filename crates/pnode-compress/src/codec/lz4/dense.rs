//! The thorough encoder: hash chains and a lazy parse, for pages that will be read more often than written.
#![cfg_attr(feature = "raw", allow(unsafe_code))]

use super::reach::load;
use super::sink::{finish, put_sequence};
use super::{LAST_LITERALS, MATCH_LIMIT, MIN_MATCH};
use crate::codec::Scratch;

/// How many earlier positions are tried at the most.
const DEPTH: usize = 12;
/// A match of this length is taken without looking whether the next position has a longer one.
const GOOD: usize = 24;
/// The chains reach this far back; on a 4 KiB page that is everywhere.
const WINDOW: usize = 4096;

/// Encodes `page` (up to 64 KiB) as an LZ4 block at the start of `out` and returns the block's length, or `None` if it
/// would pass `out.len()`.
pub fn encode_dense(page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Option<usize> {
    if page.len() < MATCH_LIMIT || page.len() > 1 << 16 {
        return None;
    }
    let mut chains = Chains::new(page, scratch);
    let mut block = crate::codec::reach::Block::new(out);
    let mut taken = 0;
    let last_start = page.len() - MATCH_LIMIT;
    let mut at = 0;
    let mut misses = 1 << 7;
    while at <= last_start {
        let mut found = chains.longest(at, MIN_MATCH - 1, DEPTH);
        if found.length < MIN_MATCH {
            at += misses >> 7;
            misses += 1;
            continue;
        }
        misses = 1 << 7;
        while found.length < GOOD && at < last_start {
            let next = chains.longest(at + 1, found.length, DEPTH / 2);
            if next.length <= found.length {
                break;
            }
            (at, found) = (at + 1, next);
        }
        let n = put_sequence(&page[taken..at], found.distance, found.length - MIN_MATCH, block.rest())?;
        block.take(n);
        at += found.length;
        taken = at;
    }
    finish(block, &page[taken..])
}

/// A match: `length` bytes that also lie `distance` bytes before.
#[derive(Clone, Copy)]
struct Match {
    length: usize,
    distance: usize,
}

/// Earlier positions by the hash of their first 4 bytes, the nearest first.
///
/// # Invariants
///
/// - **C1** Positions in `heads` and `chain`, stored plus 1, are below `next`, and `next + 4 <= page.len()` at each
///   insertion.
struct Chains<'p, 's> {
    page: &'p [u8],
    heads: &'s mut [u16; 2048],
    chain: &'s mut [u16; WINDOW],
    next: usize,
}

impl<'p, 's> Chains<'p, 's> {
    fn new(page: &'p [u8], scratch: &'s mut Scratch) -> Self {
        // The chain needs no clearing: it is read only where a head or a link points, all of them written here.
        scratch.links.fill(0);
        Self { page, heads: &mut scratch.links, chain: &mut scratch.table, next: 0 }
    }

    /// The longest match at `at` that is longer than `than`, or one of length `than` or less if there is none.
    #[inline]
    fn longest(&mut self, at: usize, than: usize, depth: usize) -> Match {
        while self.next < at {
            self.insert();
        }
        let limit = self.page.len() - LAST_LITERALS;
        let mut best = Match { length: than, distance: 0 };
        // REACH: `at + MATCH_LIMIT <= page.len()` for every caller.
        let word = load!(u32, self.page, at);
        let mut link = self.heads[slot(word)];
        for _ in 0..depth {
            // Positions are stored plus 1; in a page of 64 KiB the last one that is inserted still fits.
            let Some(candidate) = usize::from(link).checked_sub(1) else { break };
            // Links older than the window have been overwritten by younger ones.
            if candidate >= at || at - candidate > WINDOW {
                break;
            }
            // Only a candidate that agrees at the end of the best match can be longer.
            if at + best.length >= limit {
                break;
            }
            // REACH: `3 <= best.length` and `at + best.length < limit`.
            let tail = load!(u32, self.page, at + best.length - 3);
            // REACH: as above, as `candidate < at`.
            if load!(u32, self.page, candidate + best.length - 3) == tail {
                let length = self.agree(at, candidate, limit);
                if length > best.length {
                    best = Match { length, distance: at - candidate };
                }
            }
            link = self.chain[candidate % WINDOW];
        }
        best
    }

    /// How many bytes at `at` and `candidate` are the same, up to `limit`.
    #[inline]
    fn agree(&self, at: usize, candidate: usize, limit: usize) -> usize {
        let mut length = 0;
        while at + length + 8 <= limit {
            // REACH: just tested, as `candidate < at` and `limit < page.len()`.
            let differ = load!(u64, self.page, at + length) ^ load!(u64, self.page, candidate + length);
            if differ != 0 {
                return length + differ.trailing_zeros() as usize / 8;
            }
            length += 8;
        }
        while at + length < limit && self.page[at + length] == self.page[candidate + length] {
            length += 1;
        }
        length
    }

    /// Puts the next position in front of its chain.
    #[inline(always)]
    fn insert(&mut self) {
        // REACH: C1: `next` is below a position that `longest` was asked for.
        let slot = slot(load!(u32, self.page, self.next));
        self.chain[self.next % WINDOW] = self.heads[slot];
        self.heads[slot] = self.next as u16 + 1;
        self.next += 1;
    }
}

#[inline(always)]
fn slot(word: u32) -> usize {
    (word.wrapping_mul(0x9E37_79B1) >> 21) as usize
}
