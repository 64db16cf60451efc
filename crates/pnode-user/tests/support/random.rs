//! Numbers from a seed.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::ops::Range;

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        (self.next() >> 11) as usize % most
    }

    pub(crate) fn range(&mut self, pages: usize, most: usize) -> Range<usize> {
        let start = self.below(pages);
        start..(start + 1 + self.below(most)).min(pages)
    }
}
