//! Writing sequences: the part that all encoders of LZ4 blocks share.

use crate::codec::reach::Block;

/// Appends a sequence of any length; `None` if the block would pass its room.
///
/// Out of line, and a block is not borrowed here: else it would have to live in memory on the quick path, too.
#[inline(never)]
pub(super) fn put_sequence(literals: &[u8], distance: usize, extra: usize, out: &mut [u8]) -> Option<usize> {
    let at = put_literals(literals, extra, out)?;
    out.get_mut(at..at + 2)?.copy_from_slice(&(distance as u16).to_le_bytes());
    put_length(extra, out, at + 2)
}

/// Appends the last literals and returns the length of the block; `None` if it would pass its room.
pub(super) fn finish(mut block: Block, literals: &[u8]) -> Option<usize> {
    let written = put_literals(literals, 0, block.rest())?;
    Some(block.len() + written)
}

/// Writes a token, its literal length and the literals to the start of `out`; returns where they end.
#[inline]
fn put_literals(literals: &[u8], extra: usize, out: &mut [u8]) -> Option<usize> {
    *out.first_mut()? = (literals.len().min(15) << 4 | extra.min(15)) as u8;
    let at = put_length(literals.len(), out, 1)?;
    let end = at + literals.len();
    let out = out.get_mut(at..end)?;
    match literals.last_chunk::<16>() {
        // Most runs are of a few bytes more than the quick path takes; a call of `memcpy` costs more than these copies.
        Some(last) if literals.len() <= 64 => {
            for (out, run) in out.chunks_exact_mut(16).zip(literals.chunks_exact(16)) {
                out.copy_from_slice(run);
            }
            let tail = out.len() - 16;
            out[tail..].copy_from_slice(last);
        }
        _ => out.copy_from_slice(literals),
    }
    Some(end)
}

/// Writes at `at` what a length has beyond the 15 that a token can hold; returns where that ends.
#[inline]
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
