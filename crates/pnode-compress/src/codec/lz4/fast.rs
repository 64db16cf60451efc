//! The quick encoder: one probe a position.
//!
//! What makes it quick on pages, measured against the classic single-probe search:
//! - the hash covers 5 bytes, so that few probes end in a match of 4 bytes, which saves one byte and costs a branch
//!   that nothing predicts;
//! - records repeat with a fixed stride, so after each match the distance of that match is tried at the next four
//!   positions at once, by arithmetic on one word instead of a branch a position;
//! - the length of a match comes from the words that the test loaded, without a branch up to 16 bytes.
#![cfg_attr(feature = "raw", allow(unsafe_code))]

use super::reach::load;
use super::sink::Sink;
use super::{LAST_LITERALS, MIN_MATCH};
use crate::codec::Scratch;

/// A position where a match may start has this many bytes from it to the end of the page. The format asks for 12 only;
/// with 16 a match is measured by two words.
const REACH: usize = 16;
/// Where the last distance is tried at four positions from one on.
const STRIDE_REACH: usize = REACH + 4;

/// Encodes `page` (up to 64 KiB) as an LZ4 block at the start of `out` and returns the block's length, or `None` if it
/// would pass `out.len()`.
pub fn encode_fast(page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Option<usize> {
    // Invariants of the loop, which the `REACH` comments cite:
    // F1: positions in the table are 0 or were `at` before, so they are below `at` when they are read.
    // F2: `at + REACH <= page.len()` where a match was found at `at`.
    // F3: `1 <= last <= at`.
    let table = &mut scratch.table;
    table.fill(0);
    if page.len() < STRIDE_REACH || page.len() > 1 << 16 {
        return None;
    }
    let limit = page.len() - LAST_LITERALS;
    let mut sink = Sink::new(page, out);
    let (mut at, mut last) = (1, 1);
    'sequences: loop {
        let (distance, differ) = 'found: {
            if at + STRIDE_REACH <= page.len() {
                // REACH: just tested.
                let word = load!(u64, page, at);
                let candidate = exchange(table, word, at);
                // REACH: F1.
                let differ = word ^ load!(u64, page, candidate);
                if differ as u32 == 0 {
                    break 'found (at - candidate, differ);
                }
                // REACH: F3.
                if let Some(ahead) = first_five(word ^ load!(u64, page, at - last)) {
                    at += ahead;
                    // REACH: `ahead <= 3`, so STRIDE_REACH leaves F2; F3.
                    break 'found (last, load!(u64, page, at) ^ load!(u64, page, at - last));
                }
                at += 1;
            }
            // After 64 misses in a row every second position is tried, after 32 more every third, and so on.
            let mut misses = 1usize << 6;
            loop {
                if at + REACH > page.len() {
                    break 'sequences;
                }
                // REACH: just tested.
                let word = load!(u64, page, at);
                let candidate = exchange(table, word, at);
                // REACH: F1.
                let differ = word ^ load!(u64, page, candidate);
                if differ as u32 == 0 {
                    break 'found (at - candidate, differ);
                }
                at += misses >> 6;
                // A long run without a match is most likely noise, which is left behind at a growing pace.
                misses += misses >> 6;
            }
        };
        last = distance;
        let (mut start, from) = (at, at - distance);
        if from >= 8 {
            // REACH: `8 <= from < at`.
            let before = load!(u64, page, at - 8) ^ load!(u64, page, from - 8);
            start -= (before.leading_zeros() as usize / 8).min(at - sink.taken());
        }
        // REACH: F2, as 8 + 8 <= REACH.
        let next = load!(u64, page, at + 8) ^ load!(u64, page, at + 8 - distance);
        let stop = if differ | next != 0 {
            let (skip, differ) = if differ == 0 { (8, next) } else { (0, differ) };
            (at + skip + differ.trailing_zeros() as usize / 8).min(limit)
        } else {
            match_end(page, at + 16, distance, limit)
        };
        sink.sequence(start, distance, stop)?;
        if stop >= at + 16 && stop + REACH <= page.len() {
            // The end of a long match is where the next repeat of it will be cut; REACH: just tested.
            exchange(table, load!(u64, page, stop - 1), stop - 1);
        }
        at = stop;
    }
    sink.finish()
}

/// Puts a position into the slot of the first 5 bytes of `word`, and returns the one that was there.
#[inline(always)]
fn exchange(table: &mut [u16; 4096], word: u64, at: usize) -> usize {
    let slot = ((word << 24).wrapping_mul(0x9E37_79B1_85EB_CA87) >> 52) as usize;
    usize::from(core::mem::replace(&mut table[slot & 4095], at as u16))
}

/// The first of four places at which 5 zero bytes in a row start.
#[inline(always)]
fn first_five(differ: u64) -> Option<usize> {
    const ONES: u64 = 0x0101_0101;
    // Byte i of `any` gathers bytes i to i + 4.
    let pairs = differ | differ >> 8;
    let any = pairs | pairs >> 16 | differ >> 32;
    // The lowest bit that this sets is that of the first zero byte (Mycroft's test).
    let zero = any.wrapping_sub(ONES) & !any & (ONES << 7);
    (zero != 0).then(|| zero.trailing_zeros() as usize / 8)
}

/// How far a match goes that reaches `stop` already, `limit` at the most.
#[inline]
fn match_end(page: &[u8], mut stop: usize, distance: usize, limit: usize) -> usize {
    while stop + 8 <= limit {
        // REACH: just tested, as `limit < page.len()` and `distance < stop`.
        let differ = load!(u64, page, stop) ^ load!(u64, page, stop - distance);
        if differ != 0 {
            return stop + differ.trailing_zeros() as usize / 8;
        }
        stop += 8;
    }
    while stop < limit && page[stop] == page[stop - distance] {
        stop += 1;
    }
    stop.min(limit)
}

const _: () = assert!(MIN_MATCH == 4 && REACH >= 16 && LAST_LITERALS <= REACH);
