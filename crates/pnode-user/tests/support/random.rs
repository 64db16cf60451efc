//! Numbers from a seed.

use std::ops::Range;

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        (self.next() >> 11) as usize % most
    }

    pub(super) fn range(&mut self, pages: usize, most: usize) -> Range<usize> {
        let start = self.below(pages);
        start..(start + 1 + self.below(most)).min(pages)
    }
}
