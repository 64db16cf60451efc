//! The thorough encoder: eight candidates a position and a lazy parse, for pages that will be read more often than
//! written.

use super::sink::{finish, put_sequence};
use super::{LAST_LITERALS, MATCH_LIMIT, MIN_MATCH};
use crate::codec::Scratch;
use crate::codec::reach::{Block, Recent};

/// A match of this length is taken without looking whether the next position has a longer one.
const GOOD: usize = 24;
/// Positions in a row without a match before positions are left out.
const PATIENCE: usize = 64;

/// Encodes `page` (up to 64 KiB) as an LZ4 block at the start of `out` and returns the block's length, or `None` if it
/// would pass `out.len()`.
pub fn encode_dense(page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Option<usize> {
    let last = page.len().checked_sub(MATCH_LIMIT)?;
    let limit = page.len() - LAST_LITERALS;
    let mut recent = Recent::new(page, &mut scratch.table, &mut scratch.bytes, last, limit)?;
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
        while found.length < GOOD && at < last {
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
