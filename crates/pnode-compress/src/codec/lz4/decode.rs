//! The decoder of LZ4 blocks.
//!
//! Two loops share the state of a decode. The quick one runs while a sequence of ordinary length cannot reach the end
//! of either slice, so that it copies fixed amounts and tests little; the careful one takes what is left: long runs,
//! and the last sequences. Both hold every field to the same limits.
#![cfg_attr(feature = "raw", allow(unsafe_code))]

use super::reach::{load, store};
use super::{LAST_LITERALS, MATCH_LIMIT, MIN_MATCH};
use crate::codec::{DecodeError, Fault};

/// What the quick loop wants before it in the block: a token, 16 bytes of literals, a distance and the first bytes of
/// a length.
const BLOCK_REACH: usize = 1 + 16 + 2 + 5;
/// What the quick loop wants before it in the page: 14 literals and a short match, each copied in larger steps.
const PAGE_REACH: usize = 64;
/// By how much a copy of a match may pass the end of the match.
const OVERSHOOT: usize = 32;

/// Decodes an LZ4 block that fills `page` exactly.
///
/// # Errors
///
/// [`DecodeError`] if the block breaks a rule of the format or does not fill the page.
pub fn decode(block: &[u8], page: &mut [u8]) -> Result<(), DecodeError> {
    let (mut at, mut end) = (0, 0);
    loop {
        (at, end) = quick(block, page, at, end)?;
        // One sequence that the quick loop does not reach.
        let token_at = at;
        let Some(&token) = block.get(at) else {
            return Err(DecodeError::new(Fault::Truncated, at));
        };
        at += 1;
        let literals = length(block, &mut at, usize::from(token >> 4), page.len())?;
        let (after, filled) = (at + literals, end + literals);
        let Some(run) = block.get(at..after) else {
            return Err(DecodeError::new(Fault::Truncated, token_at));
        };
        let Some(room) = page.get_mut(end..filled) else {
            return Err(DecodeError::new(Fault::Overrun, token_at));
        };
        room.copy_from_slice(run);
        (at, end) = (after, filled);
        if at == block.len() {
            return if end == page.len() { Ok(()) } else { Err(DecodeError::new(Fault::Short, at)) };
        }
        if end + MATCH_LIMIT > page.len() {
            let fault = if end == page.len() { Fault::Trailing } else { Fault::Overrun };
            return Err(DecodeError::new(fault, at));
        }
        // After a match come a token and the last literals, so this many bytes are left in a whole block.
        if at + 2 + 1 + LAST_LITERALS > block.len() {
            return Err(DecodeError::new(Fault::Truncated, at));
        }
        let distance_at = at;
        let distance = usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
        at += 2;
        if distance == 0 || distance > end {
            return Err(DecodeError::new(Fault::Distance { distance }, distance_at));
        }
        let stop = end + length(block, &mut at, usize::from(token & 15), page.len())? + MIN_MATCH;
        if stop + LAST_LITERALS > page.len() {
            return Err(DecodeError::new(Fault::Overrun, distance_at));
        }
        copy_match(page, end, distance, stop);
        end = stop;
    }
}

/// Decodes sequences of up to 14 literals while both ends are out of reach; returns where it stopped, between two
/// sequences.
#[inline(always)]
fn quick(
    block: &[u8],
    page: &mut [u8],
    mut at: usize,
    mut end: usize,
) -> Result<(usize, usize), DecodeError> {
    // Invariants of the loop, which the `REACH` comments cite:
    // Q1: `at + BLOCK_REACH <= block.len()`, tested before each sequence.
    // Q2: `end + PAGE_REACH <= page.len()`, tested before each sequence.
    while at + BLOCK_REACH <= block.len() && end + PAGE_REACH <= page.len() {
        // REACH: Q1.
        let token = usize::from(load!(u8, block, at));
        let mut literals = token >> 4;
        let mut run = at + 1;
        // REACH: the load by Q1, as 1 + 16 <= BLOCK_REACH; the store by Q2.
        store!(u128, page, end, load!(u128, block, run));
        if literals == 15 {
            literals = length(block, &mut run, 15, page.len())?;
            if run + literals + BLOCK_REACH > block.len() || end + literals + PAGE_REACH > page.len() {
                break;
            }
            let mut done = 0;
            while done < literals {
                // REACH: `done < literals`, and both slices hold 16 bytes more than the run, as was just tested.
                store!(u128, page, end + done, load!(u128, block, run + done));
                done += 16;
            }
        }
        let begin = end + literals;
        let run_end = run + literals;
        // REACH: 15 or fewer bytes after `at`, so by Q1 the distance lies in the block; after a longer run by its test.
        let distance = usize::from(load!(u16, block, run_end));
        if distance.wrapping_sub(1) >= begin {
            return Err(DecodeError::new(Fault::Distance { distance }, run_end));
        }
        let after = run_end + 2;
        let from = begin - distance;
        let short = token & 15;
        if short == 15 {
            let mut next = after;
            let extra = length(block, &mut next, 15, page.len())?;
            let stop = begin + extra + MIN_MATCH;
            if stop + OVERSHOOT > page.len() {
                break;
            }
            copy_far(page, begin, distance, stop);
            (at, end) = (next, stop);
            continue;
        }
        // Here `begin + 50 <= page.len()`, by Q2 as there are 14 literals at the most, or by the test of a longer run; and
        // the match ends by `begin + 18`.
        if distance >= 8 {
            // REACH: all of these end by `begin + 18`; the loads lie before their stores.
            store!(u64, page, begin, load!(u64, page, from));
            store!(u64, page, begin + 8, load!(u64, page, from + 8));
            store!(u16, page, begin + 16, load!(u16, page, from + 16));
        } else {
            // REACH: as `18 + OVERSHOOT` is 50.
            copy_far(page, begin, distance, begin + short + MIN_MATCH);
        }
        (at, end) = (after, begin + short + MIN_MATCH);
    }
    Ok((at, end))
}

/// The length that starts with the four bits `low` of a token and goes on at `at` if they are all set. No length of use
/// passes that of the page.
#[inline(always)]
fn length(block: &[u8], at: &mut usize, low: usize, page: usize) -> Result<usize, DecodeError> {
    let mut length = low;
    if low == 15 {
        loop {
            let Some(&more) = block.get(*at) else {
                return Err(DecodeError::new(Fault::Truncated, *at));
            };
            *at += 1;
            length += usize::from(more);
            if more != 255 {
                break;
            }
            if length > page {
                return Err(DecodeError::new(Fault::Overrun, *at));
            }
        }
    }
    Ok(length)
}

/// Fills `page[end..stop]` with what lies `distance` bytes before, where `1 <= distance <= end < stop <= page.len()`.
/// Bytes after `stop` may change.
#[inline(always)]
pub(in crate::codec) fn copy_match(page: &mut [u8], end: usize, distance: usize, stop: usize) {
    // Callers have tested this; it stands here so that what follows leans on nothing else.
    if distance.wrapping_sub(1) >= end {
        return;
    }
    if stop + OVERSHOOT <= page.len() {
        copy_far(page, end, distance, stop);
    } else {
        copy_exact(page, end, distance, stop);
    }
}

/// Fills `page[end..stop]` with what lies `distance` bytes before, which may be bytes just written. Bytes up to
/// `OVERSHOOT` after `stop` may change.
///
/// `1 <= distance <= end < stop` and `stop + OVERSHOOT <= page.len()`, else the build without `raw` panics: both callers
/// have tested it.
#[inline(always)]
fn copy_far(page: &mut [u8], end: usize, distance: usize, stop: usize) {
    let (mut from, mut to) = (end - distance, end);
    if distance >= 16 {
        while to < stop {
            // REACH: `from < to < stop`, and `stop + OVERSHOOT <= page.len()`.
            store!(u128, page, to, load!(u128, page, from));
            (from, to) = (from + 16, to + 16);
        }
    } else if distance >= 8 {
        while to < stop {
            // REACH: as above.
            store!(u64, page, to, load!(u64, page, from));
            (from, to) = (from + 8, to + 8);
        }
    } else {
        // A period under 8 bytes, made into a word of whole and part periods, and stored at steps of whole ones.
        const REPEAT: [u64; 8] = [
            0,
            0x0101_0101_0101_0101,
            0x0001_0001_0001_0001,
            0x0001_0000_0100_0001,
            0x0000_0001_0000_0001,
            0x0000_0100_0000_0001,
            0x0001_0000_0000_0001,
            0x0100_0000_0000_0001,
        ];
        const STEP: [u8; 8] = [8, 8, 8, 6, 8, 5, 6, 7];
        // REACH: `from < end < stop`, and `stop + OVERSHOOT <= page.len()`.
        let word = load!(u64, page, from);
        let period = word & ((1 << (8 * distance)) - 1);
        let pattern = period.wrapping_mul(REPEAT[distance & 7]);
        while to < stop {
            // REACH: as above.
            store!(u64, page, to, pattern);
            to += usize::from(STEP[distance & 7]);
        }
    }
}

/// Like [`copy_far`], without changing a byte after `stop`.
#[inline(never)]
fn copy_exact(page: &mut [u8], end: usize, distance: usize, stop: usize) {
    let (from, mut at) = (end - distance, end);
    while at < stop {
        // Everything from `from` to `at` repeats with the period `distance`, so each copy can double it.
        let step = (at - from).min(stop - at);
        page.copy_within(from..from + step, at);
        at += step;
    }
}
