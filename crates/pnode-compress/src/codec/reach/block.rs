//! The block that an encoder writes.

use super::access::store;

/// What a short sequence writes at most: a token, 16 literals, a distance, a length byte.
const ROOM: usize = 20;

/// A block under construction: bytes, and how many of them are written.
///
/// # Invariants
///
/// - **B1** `end <= out.len()`.
pub(in crate::codec) struct Block<'o> {
    out: &'o mut [u8],
    end: usize,
}

impl<'o> Block<'o> {
    pub(in crate::codec) fn new(out: &'o mut [u8]) -> Self {
        // INVARIANT: B1.
        Self { out, end: 0 }
    }

    /// How many bytes are written.
    pub(in crate::codec) fn len(&self) -> usize {
        self.end
    }

    /// What is not written yet.
    #[inline]
    pub(in crate::codec) fn rest(&mut self) -> &mut [u8] {
        &mut self.out[self.end..]
    }

    /// Takes the first bytes of [`rest`](Self::rest) as written.
    #[inline]
    pub(in crate::codec) fn take(&mut self, bytes: usize) {
        // INVARIANT: B1.
        self.end = self.out.len().min(self.end + bytes);
    }

    /// Writes a sequence: the first `literals` bytes of `run`, and a match of `extra` bytes more than 4. `false`, and
    /// nothing is taken, unless `literals` is below 15, `extra` below 270, and 20 bytes are left.
    #[inline(always)]
    #[must_use]
    pub(in crate::codec) fn sequence(
        &mut self,
        run: &[u8; 16],
        literals: usize,
        distance: usize,
        extra: usize,
    ) -> bool {
        if literals >= 15 || extra >= 15 + 255 || self.end + ROOM > self.out.len() {
            return false;
        }
        let at = self.end;
        // REACH: here and below, ROOM bytes from `at` on are in the slice, and these end by 1 + 14 + 2 + 1 or 1 + 16.
        store!(u8, self.out, at, (literals << 4 | extra.min(15)) as u8);
        // REACH: as above.
        store!(u128, self.out, at + 1, u128::from_le_bytes(*run));
        // REACH: as above.
        store!(u16, self.out, at + 1 + literals, distance as u16);
        // A length byte is written where it would be, and kept by moving on over it. REACH: as above.
        store!(u8, self.out, at + 3 + literals, extra.wrapping_sub(15) as u8);
        // INVARIANT: B1: as above.
        self.end = at + 3 + literals + usize::from(extra >= 15);
        true
    }
}
