//! The decoder's quick loop over sequences, and the copies of matches.

use super::access::{copy, load, store};
use crate::codec::{DecodeError, Fault};

/// What the quick loop wants before it in the block: a token, 16 bytes of literals, a distance and the first bytes of
/// a length.
const BLOCK_REACH: usize = 1 + 16 + 2 + 5;
/// What the quick loop wants before it in the page: 14 literals and a short match, each copied in larger steps.
const PAGE_REACH: usize = 64;
/// By how much a copy of a match may pass the end of the match.
const OVERSHOOT: usize = 32;

/// The shortest match of the format.
const MIN_MATCH: usize = 4;

/// Decodes sequences of up to 14 literals while both ends are out of reach; returns where it stopped, between two
/// sequences.
#[inline(always)]
pub(in crate::codec) fn decode_quickly(
    block: &[u8],
    page: &mut [u8],
    mut at: usize,
    mut end: usize,
) -> Result<(usize, usize), DecodeError> {
    // Invariants of the loop, which the `REACH` comments cite:
    // Q1: `at + BLOCK_REACH <= block.len()`, tested before each sequence.
    // Q2: `end + PAGE_REACH <= page.len()`, tested before each sequence.
    let (Some(at_last), Some(end_last)) =
        (block.len().checked_sub(BLOCK_REACH), page.len().checked_sub(PAGE_REACH))
    else {
        return Ok((at, end));
    };
    while at <= at_last && end <= end_last {
        // REACH: Q1.
        let token = usize::from(load!(u8, block, at));
        let mut literals = token >> 4;
        let mut run = at + 1;
        // REACH: the load by Q1, as 1 + 16 <= BLOCK_REACH; the store by Q2.
        store!(u128, page, end, load!(u128, block, run));
        if literals == 15 {
            literals = length(block, &mut run, 15, page.len())?;
            if run + literals + 32 > block.len() || end + literals + PAGE_REACH > page.len() {
                break;
            }
            let mut done = 0;
            loop {
                // REACH: `done < literals`, and both slices hold 32 bytes more than the run, as was just tested.
                store!(u128, page, end + done, load!(u128, block, run + done));
                // REACH: as above.
                store!(u128, page, end + done + 16, load!(u128, block, run + done + 16));
                done += 32;
                if done >= literals {
                    break;
                }
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
            copy!(u64, page, from, begin);
            copy!(u64, page, from + 8, begin + 8);
            copy!(u16, page, from + 16, begin + 16);
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
pub(in crate::codec) fn length(
    block: &[u8],
    at: &mut usize,
    low: usize,
    page: usize,
) -> Result<usize, DecodeError> {
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
    if distance.wrapping_sub(1) >= end || end >= stop {
        return;
    }
    match page.len().checked_sub(OVERSHOOT) {
        Some(last) if stop <= last => copy_far(page, end, distance, stop),
        _ => copy_exact(page, end, distance, stop),
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
        loop {
            // REACH: `from < to < stop`, and `stop + OVERSHOOT <= page.len()`.
            copy!(u128, page, from, to);
            // REACH: as above, as OVERSHOOT is 32.
            copy!(u128, page, from + 16, to + 16);
            (from, to) = (from + 32, to + 32);
            if to >= stop {
                break;
            }
        }
    } else if distance > 8 {
        while to < stop {
            // REACH: as above.
            copy!(u64, page, from, to);
            (from, to) = (from + 8, to + 8);
        }
    } else {
        // A period of up to 8 bytes, made into a word of whole and part periods, and stored at steps of whole ones.
        const REPEAT: [u64; 9] = [
            0,
            0x0101_0101_0101_0101,
            0x0001_0001_0001_0001,
            0x0001_0000_0100_0001,
            0x0000_0001_0000_0001,
            0x0000_0100_0000_0001,
            0x0001_0000_0000_0001,
            0x0100_0000_0000_0001,
            1,
        ];
        const STEP: [u8; 9] = [8, 8, 8, 6, 8, 5, 6, 7, 8];
        // REACH: `from < end < stop`, and `stop + OVERSHOOT <= page.len()`.
        let word = load!(u64, page, from);
        let unused = (64 - 8 * distance as u32) & 63;
        let pattern = (word << unused >> unused).wrapping_mul(REPEAT[distance]);
        let step = usize::from(STEP[distance]);
        loop {
            // REACH: as above, and 3 steps and 8 bytes are OVERSHOOT at the most.
            store!(u64, page, to, pattern);
            // REACH: as above.
            store!(u64, page, to + step, pattern);
            // REACH: as above.
            store!(u64, page, to + 2 * step, pattern);
            // REACH: as above.
            store!(u64, page, to + 3 * step, pattern);
            to += 4 * step;
            if to >= stop {
                break;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every distance up to past the longest step, at the start of a page, in its middle and up to its very end.
    #[test]
    fn matches_are_copied_as_byte_by_byte() {
        const PAGE: usize = 160;
        let mut before = [0u8; PAGE];
        before.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 167 + 13) as u8);
        for distance in 1..=70 {
            for end in [distance, distance + 1, distance + 7, 83] {
                for stop in end + 1..=PAGE {
                    let (mut page, mut expected) = (before, before);
                    copy_match(&mut page, end, distance, stop);
                    if distance <= end {
                        (end..stop).for_each(|i| expected[i] = expected[i - distance]);
                        assert_eq!(page[..stop], expected[..stop], "{distance} {end} {stop}");
                        let untouched = PAGE.min(stop + OVERSHOOT);
                        assert_eq!(page[untouched..], before[untouched..], "{distance} {end} {stop}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_match_changes_nothing() {
        let mut page = [7u8; 64];
        page[0] = 1;
        let before = page;
        for (end, distance, stop) in
            [(8, 0, 16), (8, 9, 16), (8, 4, 8), (16, 4, 8), (0, 1, 4), (60, usize::MAX, 64)]
        {
            copy_match(&mut page, end, distance, stop);
            assert_eq!(page, before, "{end} {distance} {stop}");
        }
    }
}
