//! Bit streams, most significant bit first, so that the next bits of a stream index a table as they come.

use crate::codec::reach::{load, store};

/// The bits that [`peek`] gives at the least.
pub(super) const PEEK: u32 = 57;

/// Writes bits to a slice; a stream that does not fit is noticed at its end.
pub(super) struct BitWriter<'o> {
    out: &'o mut [u8],
    at: usize,
    held: u64,
    /// How many of the low bits of `held` are not written yet; under 8 between two calls.
    count: u32,
}

impl<'o> BitWriter<'o> {
    /// A writer of a stream that starts at `out[at]`.
    pub(super) fn new(out: &'o mut [u8], at: usize) -> Self {
        Self { out, at, held: 0, count: 0 }
    }

    /// Appends the low `count` bits of `value`, of which the others are 0. Up to [`PEEK`] bits may wait for a
    /// [`flush`](Self::flush).
    #[inline(always)]
    pub(super) fn put(&mut self, value: u64, count: u32) {
        self.held = self.held << (count & 63) | value;
        self.count += count;
    }

    /// Writes the whole bytes that wait.
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        // The bits that wait, at the top of the word; in two steps, since none may wait.
        let word = (self.held << 1) << (63 - (self.count & 63));
        if self.at + 8 <= self.out.len() {
            store!(u64, self.out, self.at, word.swap_bytes());
        } else {
            self.flush_at_end(word);
        }
        self.at += self.count as usize / 8;
        self.count %= 8;
    }

    #[cold]
    #[inline(never)]
    fn flush_at_end(&mut self, word: u64) {
        let bytes = self.count as usize / 8;
        for (to, byte) in self.out.iter_mut().skip(self.at).zip(&word.to_be_bytes()[..bytes]) {
            *to = *byte;
        }
    }

    /// Fills the last byte with zero bits; returns where the stream ends, or `None` if it passed its room.
    pub(super) fn finish(mut self) -> Option<usize> {
        self.put(0, self.count.wrapping_neg() % 8);
        self.flush();
        (self.at <= self.out.len()).then_some(self.at)
    }
}

/// The bits of `bytes` from bit `at` on, at the top of a word; at least [`PEEK`] of them, and 0 after the end.
///
/// There are 8 bytes or more.
#[inline(always)]
pub(super) fn peek(bytes: &[u8], at: usize) -> u64 {
    let Some(last) = bytes.len().checked_sub(8) else { return 0 };
    let byte = (at / 8).min(last);
    let word = load!(u64, bytes, byte).swap_bytes();
    // Past the end the shift wraps, and the bits have no meaning; whoever reads them counts what it used.
    word << ((at - 8 * byte) & 63)
}
