//! A set of small numbers as bits under summaries of 64 (2 in the models): finds the lowest member above a bound in a few loads.
//!
//! A summary bit is set while any of its 64 bits may be. Members are added without a lock; members are removed only
//! inside a [`Gate`](crate::gate::Gate) section, because a removal hides its neighbours for a moment: it clears the
//! summary bit and only then looks whether the bits below are still zero. (mimalloc's chunk maps order the same two
//! steps for the same reason.)

use pnode_core::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::metadata::Words;

/// Bits in a word: 64, or few enough that the smallest model has summaries.
const BITS: usize = 1 << LOG_BITS;
const LOG_BITS: usize = if cfg!(loom) { 1 } else { 6 };
const MAX_LEVELS: usize = 7;
/// How many words of members may consist of exceptions before a search gives up.
const EXCEPTIONS: u32 = 17;

/// The shape of all bitmaps of one size: where each level starts, leaves first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    offsets: [u32; MAX_LEVELS + 1],
    levels: usize,
    bits: usize,
}

impl Shape {
    /// The shape of a set over `0..bits`.
    pub(crate) const fn new(bits: usize) -> Self {
        let mut offsets = [0; MAX_LEVELS + 1];
        let mut levels = 0;
        let mut left = bits;
        let mut next = 0;
        loop {
            left = left.div_ceil(BITS);
            next += left as u32;
            levels += 1;
            offsets[levels] = next;
            if left <= 1 {
                return Self { offsets, levels, bits };
            }
        }
    }

    /// Which of its words summarizes all others.
    #[inline]
    pub(crate) const fn root(&self) -> usize {
        self.offsets[self.levels - 1] as usize
    }

    /// Words that such a bitmap takes.
    pub(crate) const fn words(&self) -> usize {
        self.offsets[self.levels] as usize
    }
}

/// A bitmap at a place in the metadata.
#[derive(Clone, Copy)]
pub(crate) struct Bitmap<'a> {
    pub(crate) words: &'a Words<'a>,
    pub(crate) base: usize,
    pub(crate) shape: &'a Shape,
}

impl Bitmap<'_> {
    #[inline]
    fn place(&self, level: usize, index: usize) -> usize {
        self.base + self.shape.offsets[level] as usize + index
    }

    /// Whether `bit` is a member.
    #[inline]
    pub(crate) fn has(&self, bit: usize) -> bool {
        self.words.at(self.place(0, bit / BITS)).load(Acquire) >> (bit % BITS) & 1 == 1
    }

    /// Whether a search would find `bit`: it is a member, and all summaries above it say so.
    pub(crate) fn listed(&self, bit: usize) -> bool {
        (0..self.shape.levels).all(|level| {
            let index = bit >> (LOG_BITS * level);
            self.words.at(self.place(level, index / BITS)).load(Acquire) >> (index % BITS) & 1 == 1
        })
    }

    /// Adds `bit`. When this returns, a search finds it: all summaries above it say so, whoever else adds or removes a
    /// neighbour meanwhile, or the gate says that somebody is at work.
    pub(crate) fn insert(&self, bit: usize) {
        let mut index = bit;
        for level in 0..self.shape.levels {
            let at = self.words.at(self.place(level, index / BITS));
            let mask = 1 << (index % BITS);
            // Not "the word was not zero": whoever made it so may not have come to the summary yet.
            if level > 0 && at.load(Relaxed) & mask != 0 {
                return;
            }
            // Release pairs with the Acquire in `next` and `remove`: who finds the bit sees the node that was advertised,
            // and the bits below a summary. Acquire pairs with the second look in `remove`: if that was before this, we
            // see the summary that it had cleared.
            at.fetch_or(mask, AcqRel);
            index /= BITS;
        }
    }

    /// Removes `bit`. The caller is inside a gate section.
    #[inline(never)]
    pub(crate) fn remove(&self, bit: usize) {
        let mut index = bit;
        let mut level = 0;
        loop {
            let mask = 1 << (index % BITS);
            // Release pairs with the Acquire of a search, which finds the gate entered if it finds this cleared.
            let old = self.words.at(self.place(level, index / BITS)).fetch_and(!mask, AcqRel);
            if old != mask || level + 1 == self.shape.levels {
                break;
            }
            index /= BITS;
            level += 1;
        }
        // What was filled meanwhile by somebody who saw the summary still set gets its summary back. A read-modify-write,
        // so that of the two either we see the bit, or who sets it after this sees the summary cleared.
        for above in 1..=level {
            let index = bit >> (LOG_BITS * above);
            if self.words.at(self.place(above - 1, index)).fetch_or(0, AcqRel) != 0 {
                self.restore(above, index);
                return;
            }
        }
    }

    /// Sets the summary bit `index` of `level` and those above it.
    fn restore(&self, level: usize, index: usize) {
        let mut index = index;
        for level in level..self.shape.levels {
            // Release as in `insert`; it is also what `Gate::leave` publishes.
            self.words.at(self.place(level, index / BITS)).fetch_or(1 << (index % BITS), Release);
            index /= BITS;
        }
    }

    /// Whether there is no member, as a search would find.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Acquire pairs with the Release in `insert`.
        self.words.at(self.base + self.shape.root()).load(Acquire) == 0
    }

    /// The lowest member at or above `from`.
    #[inline]
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        self.next_at(0, from).filter(|found| *found < self.shape.bits)
    }

    /// The lowest member at or above `from` that is not in `except`. Only the first few words that have members are looked
    /// at: the summaries do not tell these apart, and a search must not depend on the size of the set.
    #[inline]
    pub(crate) fn next_except(&self, from: usize, except: &Self) -> Option<usize> {
        let mut patience = EXCEPTIONS;
        let mut from = from;
        while from < self.shape.bits && patience != 0 {
            let leaf = if self.shape.levels == 1 { 0 } else { self.next_at(1, from / BITS)? };
            // Acquire pairs with the Release in `insert`.
            let bits = self.words.at(self.place(0, leaf)).load(Acquire);
            let others = except.words.at(except.place(0, leaf)).load(Acquire);
            let before = if leaf == from / BITS { from % BITS } else { 0 };
            let bits = bits & !others & !0 << before;
            if bits != 0 {
                let found = leaf * BITS + bits.trailing_zeros() as usize;
                return (found < self.shape.bits).then_some(found);
            }
            patience -= 1;
            from = (leaf + 1) * BITS;
        }
        None
    }

    /// The lowest bit at or above `from` that is set at the level `bottom`, as far as those above say.
    #[inline(always)]
    fn next_at(&self, bottom: usize, from: usize) -> Option<usize> {
        let shape = self.shape;
        let mut level = bottom;
        let mut from = from;
        loop {
            // Look in the rest of one word of `level`.
            if from >> LOG_BITS >= (shape.offsets[level + 1] - shape.offsets[level]) as usize {
                return None;
            }
            // Acquire pairs with the Release in `insert`.
            let bits = self.words.at(self.place(level, from / BITS)).load(Acquire) & !0 << (from % BITS);
            if bits == 0 {
                level += 1;
                if level == shape.levels {
                    return None;
                }
                from = from / BITS + 1;
                continue;
            }
            let found = from / BITS * BITS + bits.trailing_zeros() as usize;
            if level == bottom {
                return Some(found);
            }
            level -= 1;
            from = found * BITS;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::metadata::{Line, Metadata};

    #[test]
    fn the_lowest_member_is_found_with_and_without_exceptions() {
        for bits in [1, 63, 64, 65, 128, 200, 4096, 4097, 70_000] {
            let shape = Shape::new(bits);
            let lines = (2 * shape.words()).div_ceil(Line::WORDS);
            let mut lines = vec![Line::ZERO; lines];
            let count = lines.len();
            let words = Metadata::assume_zeroed(&mut lines).into_words(count).unwrap();
            let set = |base| Bitmap { words: &words, base, shape: &shape };
            let (members, except) = (set(0), set(shape.words()));
            let every = (bits / 97).max(1);
            let inside: vec::Vec<usize> =
                (0..bits).filter(|bit| bit % every == 0 || bit + 1 == bits).collect();
            for (at, bit) in inside.iter().enumerate() {
                members.insert(*bit);
                if at % 3 == 0 {
                    except.insert(*bit);
                }
            }
            for from in (0..=bits + 64).filter(|from| from % every.div_ceil(7) == 0 || from % 64 == 0) {
                let lowest = inside.iter().copied().find(|bit| *bit >= from);
                assert_eq!(members.next(from), lowest, "{bits} bits, from {from}");
                let other =
                    (0..inside.len()).find(|at| inside[*at] >= from && at % 3 != 0).map(|at| inside[at]);
                assert_eq!(members.next_except(from, &except), other, "{bits} bits, from {from}");
            }
            assert_eq!(members.next_except(0, &members), None);
        }
    }
}
