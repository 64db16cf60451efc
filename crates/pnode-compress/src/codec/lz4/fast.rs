//! The quick encoder: one probe a position.

use super::{LAST_LITERALS, MATCH_LIMIT, MIN_MATCH};
use crate::codec::Scratch;

/// Encodes `page` (up to 64 KiB) as an LZ4 block at the start of `out` and returns the block's length, or `None` if it
/// would pass `out.len()`.
pub fn encode_fast(page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Option<usize> {
    let table = &mut scratch.table;
    table.fill(0);
    let (mut anchor, mut at, mut end) = (0, 1, 0);
    if page.len() > 1 << 16 {
        return None;
    }
    if page.len() > MATCH_LIMIT {
        let last_start = page.len() - MATCH_LIMIT;
        let mut misses = 64usize;
        while at <= last_start {
            let word = load32(page, at);
            let slot = (word.wrapping_mul(0x9E37_79B1) >> 20) as usize;
            let candidate = usize::from(table[slot]);
            table[slot] = at as u16;
            if candidate >= at || load32(page, candidate) != word {
                at += misses >> 6;
                misses += 1;
                continue;
            }
            misses = 64;
            let (mut start, mut from) = (at, candidate);
            while start > anchor && from > 0 && page[start - 1] == page[from - 1] {
                (start, from) = (start - 1, from - 1);
            }
            let limit = page.len() - LAST_LITERALS;
            let mut stop = at + MIN_MATCH;
            while stop < limit && page[stop] == page[stop - start + from] {
                stop += 1;
            }
            end = put_literals(&page[anchor..start], stop - start - MIN_MATCH, out, end)?;
            out.get_mut(end..end + 2)?.copy_from_slice(&((start - from) as u16).to_le_bytes());
            end = put_length(stop - start - MIN_MATCH, out, end + 2)?;
            (anchor, at) = (stop, stop);
        }
    }
    put_literals(&page[anchor..], 0, out, end)
}

fn load32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes a token, its literal length and the literals; returns where they end.
fn put_literals(literals: &[u8], extra: usize, out: &mut [u8], at: usize) -> Option<usize> {
    let token = literals.len().min(15) << 4 | extra.min(15);
    *out.get_mut(at)? = token as u8;
    let at = put_length(literals.len(), out, at + 1)?;
    out.get_mut(at..at + literals.len())?.copy_from_slice(literals);
    Some(at + literals.len())
}

/// Writes what a length has beyond the 15 that a token can hold.
fn put_length(length: usize, out: &mut [u8], mut at: usize) -> Option<usize> {
    if length >= 15 {
        let mut rest = length - 15;
        while rest >= 255 {
            *out.get_mut(at)? = 255;
            (rest, at) = (rest - 255, at + 1);
        }
        *out.get_mut(at)? = rest as u8;
        at += 1;
    }
    Some(at)
}
