//! Writing sequences: the part that all encoders of LZ4 blocks share.
#![cfg_attr(feature = "raw", allow(unsafe_code))]

use super::MIN_MATCH;
use super::reach::{load, store};

/// A block under construction.
///
/// # Invariants
///
/// - **S1** `taken <= page.len()` and `end <= out.len()`.
pub(super) struct Sink<'p, 'o> {
    page: &'p [u8],
    out: &'o mut [u8],
    /// Up to where sequences cover the page.
    taken: usize,
    end: usize,
}

/// What the quick path writes at most: a token, a length byte, 16 literals, a distance, a length byte and slack.
const ROOM: usize = 24;

impl<'p, 'o> Sink<'p, 'o> {
    pub(super) fn new(page: &'p [u8], out: &'o mut [u8]) -> Self {
        Self { page, out, taken: 0, end: 0 }
    }

    /// Up to where sequences cover the page.
    #[inline(always)]
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Appends what is not taken yet up to `start` as literals, and `start..stop` as a match; `None` if the block would
    /// pass its room.
    #[inline(always)]
    pub(super) fn sequence(&mut self, start: usize, distance: usize, stop: usize) -> Option<()> {
        let literals = start - self.taken;
        let extra = stop - start - MIN_MATCH;
        if literals <= 16
            && extra < 15 + 255
            && self.taken + 16 <= self.page.len()
            && self.end + ROOM <= self.out.len()
        {
            // Length bytes are written where they would be, and kept by moving on over them.
            let (long_run, long_match) = (usize::from(literals >= 15), usize::from(extra >= 15));
            let token = literals.min(15) << 4 | extra.min(15);
            let (page, out, end) = (self.page, &mut *self.out, self.end);
            // REACH: here and below by `end + ROOM <= out.len()`: 1 + 1 + 16 + 2 + 1 bytes at the most.
            store!(u16, out, end, (token | literals.wrapping_sub(15) << 8) as u16);
            // REACH: the load by `taken + 16 <= page.len()`.
            store!(u128, out, end + 1 + long_run, load!(u128, page, self.taken));
            let end = end + 1 + long_run + literals;
            // REACH: as above.
            store!(u16, out, end, distance as u16);
            // REACH: as above.
            store!(u8, out, end + 2, extra.wrapping_sub(15) as u8);
            self.end = end + 2 + long_match;
        } else {
            self.long_sequence(start, distance, extra)?;
        }
        self.taken = stop;
        Some(())
    }

    #[inline(never)]
    fn long_sequence(&mut self, start: usize, distance: usize, extra: usize) -> Option<()> {
        let out = &mut *self.out;
        let end = put_literals(&self.page[self.taken..start], extra, out, self.end)?;
        out.get_mut(end..end + 2)?.copy_from_slice(&(distance as u16).to_le_bytes());
        self.end = put_length(extra, out, end + 2)?;
        Some(())
    }

    /// Appends the last literals and returns the length of the block.
    pub(super) fn finish(self) -> Option<usize> {
        put_literals(&self.page[self.taken..], 0, self.out, self.end)
    }
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
