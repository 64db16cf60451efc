//! The quick encoder: one probe a position.
//!
//! What makes it quick on pages, measured against the classic single-probe search:
//! - time goes by the sequence, as each match has to be measured before the place of the next is known: so what follows
//!   a match is shifted out of the words that measured it, and three positions are probed a load;
//! - the hash covers as many bytes as suit the page: records of words repeat at length, and a hash of 6 bytes passes
//!   over matches that save one byte and cost a branch that nothing predicts; machine code repeats 4 bytes at a time;
//! - a sequence of few literals is written by three stores of fixed size into room that is tested once.

use core::ops::Range;

use super::sink::{finish, put_sequence};
use super::{LAST_LITERALS, MATCH_LIMIT, MIN_MATCH};
use crate::codec::Scratch;
use crate::codec::reach::{Block, Cursor, match_end};

/// Encodes `page` (up to 64 KiB) as an LZ4 block at the start of `out` and returns the block's length, or `None` if it
/// would pass `out.len()`.
pub fn encode_fast(page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Option<usize> {
    match hashed(page) {
        4 => encode::<4>(page, out, scratch),
        5 => encode::<5>(page, out, scratch),
        _ => encode::<6>(page, out, scratch),
    }
}

/// [`encode_fast`] with a hash of `HASHED` bytes.
///
/// An instance each, as a multiplication by a constant is one instruction and a register less in the loop.
#[inline(never)]
fn encode<const HASHED: usize>(page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Option<usize> {
    let mut cursor = Cursor::<HASHED>::new(page, &mut scratch.table)?;
    let mut block = Block::new(out);
    // Up to where sequences cover the page.
    let mut taken = 0;
    let end = loop {
        let found = match cursor.search() {
            Ok(found) => found,
            Err(end) => break end,
        };
        // On pages that suit a longer hash seldom anything is the same behind a match: the look costs more than it finds.
        let behind = if HASHED == 4 { cursor.behind(&found).min(found.at - taken) } else { 0 };
        let start = found.at - behind;
        if let Some((longer, word)) = found.short() {
            append(page, taken..start, found.distance, longer + behind, &cursor, &mut block)?;
            taken = found.at + MIN_MATCH + longer;
            cursor.go_onto(taken, word);
        } else {
            let stop = match_end(page, found.at + MIN_MATCH + 8, found.distance, page.len() - LAST_LITERALS);
            append(page, taken..start, found.distance, stop - start - MIN_MATCH, &cursor, &mut block)?;
            taken = stop;
            cursor.go(stop);
        }
    };
    last_matches(page, taken, end, &cursor, block)
}

/// Appends a sequence.
#[inline(always)]
fn append<const HASHED: usize>(
    page: &[u8],
    literals: Range<usize>,
    distance: usize,
    extra: usize,
    cursor: &Cursor<HASHED>,
    block: &mut Block,
) -> Option<()> {
    if let Some(run) = cursor.run(literals.start) {
        if block.sequence(run, literals.len(), distance, extra) {
            return Some(());
        }
    }
    let written = put_sequence(&page[literals], distance, extra, block.rest())?;
    block.take(written);
    Some(())
}

/// Adds what follows `taken`: the matches from `at` on, which the cursor does not reach, and literals.
#[inline(never)]
fn last_matches<const HASHED: usize>(
    page: &[u8],
    mut taken: usize,
    mut at: usize,
    cursor: &Cursor<HASHED>,
    mut block: Block,
) -> Option<usize> {
    let limit = page.len() - LAST_LITERALS;
    while at + MATCH_LIMIT <= page.len() {
        let word = page[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let from = cursor.earlier(word);
        let same = page[at..limit].iter().zip(&page[from..]).take_while(|(a, b)| a == b).count();
        if from < at && same >= MIN_MATCH {
            let written = put_sequence(&page[taken..at], at - from, same - MIN_MATCH, block.rest())?;
            block.take(written);
            at += same;
            taken = at;
        } else {
            at += 1;
        }
    }
    finish(block, &page[taken..])
}

/// How many bytes the sample of 15 words spans.
const SAMPLE: usize = 15 * 9 * 8;

/// How many bytes to hash: 4, 5 or 6, by a sample of words.
#[inline(always)]
fn hashed(page: &[u8]) -> u32 {
    let (mut with_zero, mut short) = (0, 0);
    // Near the start, as scattered words of a page that is in no cache would cost more than they tell; and an odd number
    // of words apart, lest the sample sees one field of records whose size is a power of two.
    let parts = page.chunks_exact(SAMPLE / 15).take(15);
    for word in parts.filter_map(|part| part.last_chunk()).map(|bytes| u64::from_le_bytes(*bytes)) {
        let zero_bytes = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
        with_zero += usize::from(zero_bytes != 0);
        short += usize::from(word >> 48 == 0);
    }
    if with_zero < 3 {
        // Text, samples, or noise.
        5
    } else if with_zero <= 9 && short <= 1 {
        // Zero bytes, but not above numbers and addresses: machine code.
        4
    } else if short >= 7 {
        // Records of numbers and addresses.
        6
    } else {
        5
    }
}
