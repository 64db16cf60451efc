//! The thorough encoder: eight candidates a position and a lazy parse, for pages that will be read more often than
//! written.

use super::sink::{finish, put_sequence};
use super::{LAST_LITERALS, MATCH_LIMIT, MIN_MATCH};
use crate::codec::Scratch;
use crate::codec::reach::{Block, Recent};

/// A match of this length is taken without looking whether the next position has a longer one.
const GOOD: usize = 12;
/// The same for a match that starts with 8 equal bytes: at the next position such a run is its own source, to its end.
const GOOD_RUN: usize = 64;
/// Positions in a row without a match before positions are left out.
const PATIENCE: usize = 64;

/// Encodes `page` (up to 64 KiB) as an LZ4 block at the start of `out` and returns the block's length, or `None` if it
/// would pass `out.len()`.
pub fn encode_dense(page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Option<usize> {
    if is_of_pointers(page) { search::<6>(page, out, scratch) } else { search::<8>(page, out, scratch) }
}

/// Encodes with a search that names long matches by their first `LONG` bytes.
#[inline(never)]
fn search<const LONG: usize>(page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Option<usize> {
    let last = page.len().checked_sub(MATCH_LIMIT)?;
    let limit = page.len() - LAST_LITERALS;
    let mut recent = Recent::<LONG>::new(page, &mut scratch.table, &mut scratch.bytes, last, limit)?;
    let mut block = Block::new(out);
    // Up to where sequences cover the page.
    let mut taken = 0;
    let (mut at, mut misses) = (1, PATIENCE);
    while at <= last {
        let mut found = recent.longest(at, MIN_MATCH - 1);
        if found.distance == 0 {
            at += misses / PATIENCE;
            misses += 1;
            continue;
        }
        misses = PATIENCE;
        while at < last && (found.length < GOOD || found.length < GOOD_RUN && is_run(page, at)) {
            let next = recent.longest(at + 1, found.length);
            if next.distance == 0 {
                break;
            }
            (at, found) = (at + 1, next);
        }
        let mut start = at;
        while start > taken && start > found.distance && page[start - 1] == page[start - 1 - found.distance] {
            start -= 1;
        }
        let stop = at + found.length;
        let (literals, extra) = (&page[taken..start], stop - start - MIN_MATCH);
        let run = page[taken..].first_chunk();
        if !run.is_some_and(|run| block.sequence(run, literals.len(), found.distance, extra)) {
            let written = put_sequence(literals, found.distance, extra, block.rest())?;
            block.take(written);
        }
        (at, taken) = (stop, stop);
    }
    finish(block, &page[taken..])
}

/// Whether the 8 bytes at `at` are equal.
#[inline]
fn is_run(page: &[u8], at: usize) -> bool {
    page[at..].first_chunk::<8>().is_some_and(|bytes| *bytes == [bytes[0]; 8])
}

/// Whether two neighbours are different pointers into one heap, or one of them is null, in most of 15 places.
///
/// Such words have 5 upper bytes in common and few lower ones: a match reaches from one word into the next, but not for
/// 8 bytes. Elsewhere 8 bytes are worth more, as matches of 6 push the long ones out.
fn is_of_pointers(page: &[u8]) -> bool {
    let pairs = page.chunks_exact(264).take(15).filter_map(|part| part.first_chunk());
    let are_pointers = |pair: &&[u8; 16]| {
        let both = u128::from_le_bytes(**pair);
        let (first, second) = (both as u64, (both >> 64) as u64);
        let near = first == 0 || second == 0 || (first ^ second) >> 32 == 0;
        near && first != second && (1..256).contains(&((first | second) >> 40))
    };
    pairs.filter(are_pointers).count() >= 10
}
