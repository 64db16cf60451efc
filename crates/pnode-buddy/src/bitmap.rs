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

    /// The lowest member at or above `from` that is not in `except`. With an exception, only the first few words that have
    /// members are looked at: the summaries do not tell these apart, and a search must not depend on the size of the set.
    #[inline]
    pub(crate) fn next(&self, from: usize, except: Option<&Self>) -> Option<usize> {
        let shape = self.shape;
        let mut level = 0;
        let mut patience = EXCEPTIONS;
        let mut from = from;
        loop {
            // Look in the rest of one word of `level`.
            if from >> LOG_BITS >= (shape.offsets[level + 1] - shape.offsets[level]) as usize {
                return None;
            }
            // Acquire pairs with the Release in `insert`.
            let mut bits = self.words.at(self.place(level, from / BITS)).load(Acquire);
            if level == 0 {
                if let Some(except) = except {
                    patience -= 1;
                    if patience == 0 {
                        return None;
                    }
                    bits &= !except.words.at(except.place(0, from / BITS)).load(Acquire);
                }
            }
            bits &= !0 << (from % BITS);
            if bits == 0 {
                level += 1;
                if level == shape.levels {
                    return None;
                }
                from = from / BITS + 1;
                continue;
            }
            let found = from / BITS * BITS + bits.trailing_zeros() as usize;
            if level == 0 {
                return (found < shape.bits).then_some(found);
            }
            level -= 1;
            from = found * BITS;
        }
    }
}
