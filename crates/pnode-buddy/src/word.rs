//! The leaf of the tree: 32 frames in one `u64`. Pure functions, no atomics.
//!
//! ```text
//! bit 63                             33 32 31                              0
//!    [ continues: frame 31 .. frame 1 ][L][ taken: frame 31 ..... frame 0 ]
//! ```
//!
//! | continues, taken | frame |
//! | --- | --- |
//! | 0 0 | free |
//! | 0 1 | first frame of an allocated block |
//! | 1 1 | later frame of an allocated block |
//! | 1 0 | absent: a hole, out of the zone, or offline |
//!
//! Frame 0 never continues a block, because a block that spans words is known to the node above. Its `continues` bit
//! is stored inverted and says that the word is live: a word of zero is *dead*, its frames belong to the node above.
//! (For frame 0, `1 1` in the un-inverted form therefore reads "absent".)

//! A word that a CPU owns ([`OWNED`]) reads as if frame 0 were absent and all others continued something: nothing in it
//! is free, and no block in it can be freed as if it were an ordinary word. Its low half says which frames are handed
//! out; the rest wait in the CPU's cache.
//!
//! A block that waits on a CPU's [shelf](crate::shelf) has its first frame marked [`away`]: `1 0`, as if it were absent.
//! The two cannot be mixed up, because an area with words that really lack frames says so
//! ([`node::HOLED`](crate::node::HOLED)), and no block of it goes onto a shelf.

/// Frames in a word.
pub(crate) const FRAMES: u32 = 32;
/// The order of a whole word.
pub(crate) const ORDER: u8 = 5;
/// A word whose frames belong to the node above.
pub(crate) const DEAD: u64 = 0;
/// A live word whose frames are all free.
pub(crate) const EMPTY: u64 = 1 << 32;

/// The high half of a word that a CPU owns.
pub(crate) const OWNED: u64 = !0 << 33;

/// The word of a CPU that has `cached` frames left.
#[inline]
pub(crate) const fn owned(cached: u32) -> u64 {
    OWNED | !cached as u64
}

/// Whether a CPU owns the word. A word is made wholly absent by its parent, so no other word looks like this.
#[inline]
pub(crate) const fn is_owned(word: u64) -> bool {
    word >> 32 == OWNED >> 32
}

/// An ordinary word with the frames in `taken` allocated one by one.
#[inline]
pub(crate) const fn singles(taken: u32) -> u64 {
    EMPTY | taken as u64
}

/// The free frames of a word all of whose frames are free or allocated one by one.
#[inline]
pub(crate) const fn only_singles(word: u64) -> Option<u32> {
    if word >> 32 == EMPTY >> 32 { Some(!(word as u32)) } else { None }
}

/// The largest order of [`level::SMALL`].
pub(crate) const SMALL: u8 = 2;

/// Multiples of `2^order` as a bit mask over the frames of a word.
const ALIGNED: [u32; 5] = [!0, 0x5555_5555, 0x1111_1111, 0x0101_0101, 0x0001_0001];

/// What a word can serve, as the node above remembers it.
pub(crate) mod level {
    /// Nothing.
    pub(crate) const FULL: u8 = 0;
    /// Blocks up to order 2.
    pub(crate) const SMALL: u8 = 1;
    /// Blocks up to order 4.
    pub(crate) const BIG: u8 = 2;
    /// All of it: the word may move up.
    pub(crate) const EMPTY: u8 = 3;
}

/// The bits that a block of `order` at `offset` sets.
#[inline]
pub(crate) const fn pattern(offset: u32, order: u8) -> u64 {
    let taken = taken(offset, order);
    taken | (taken & (taken - 1)) << 32
}

/// The frames of a block of each order at offset 0.
const BLOCK: [u32; 8] = [1, 3, 0xf, 0xff, 0xffff, !0, 0, 0];

#[inline]
const fn taken(offset: u32, order: u8) -> u64 {
    (BLOCK[(order & 7) as usize] as u64) << offset
}

/// Whether exactly the block of `order` at `offset` is allocated: all of it, from its first frame, and no more.
#[inline(always)]
pub(crate) const fn holds(word: u64, offset: u32, order: u8) -> bool {
    let taken = taken(offset, order);
    let frames = word ^ EMPTY;
    // The frame after the block must not continue it; after frame 31 there is none.
    let later = frames & frames >> 32;
    let after = taken + (taken & taken.wrapping_neg());
    frames & (taken | taken << 32) == pattern(offset, order) && later & after == 0
}

/// The bits in which the first frame at `offset` of an allocated block differs from one that waits on a shelf.
#[inline]
pub(crate) const fn away(offset: u32) -> u64 {
    // Frame 0 loses its live bit only, so that no word becomes dead by this. (No branch: no predictor knows the offset.)
    1 << (32 + offset) | (1 << offset & !1)
}

/// The word after the block of `order` at `offset`, which waits on a shelf, became free.
#[inline]
pub(crate) const fn with_free(word: u64, offset: u32, order: u8) -> u64 {
    let taken = taken(offset, order);
    // Frame 0 gets its live bit back.
    (word & !(taken | taken << 32)) | (taken & 1) << 32
}

/// The free frames of a word.
#[inline]
pub(crate) const fn free(word: u64) -> u32 {
    if word == DEAD {
        return 0;
    }
    let frames = word ^ EMPTY;
    !(frames as u32 | (frames >> 32) as u32)
}

/// Whether a live word has no free frame.
#[inline]
pub(crate) const fn is_full(word: u64) -> bool {
    word != DEAD && free(word) == 0
}

/// Where free blocks of `order` start.
#[inline]
pub(crate) const fn blocks(word: u64, order: u8) -> u32 {
    let mut free = free(word);
    let mut step = 0;
    while step < order {
        free &= free >> (1 << step);
        step += 1;
    }
    free & ALIGNED[order as usize]
}

/// Where to put a block of `order`: the lowest place in the smallest free block that has room.
#[inline]
pub(crate) const fn best_fit(word: u64, order: u8) -> Option<u32> {
    let mut starts = blocks(word, order);
    let mut size = order;
    while size < ORDER - 1 {
        if starts == 0 {
            return None;
        }
        let pairs = starts & starts >> (1 << size) & ALIGNED[size as usize + 1];
        let single = starts & !(pairs | pairs << (1 << size));
        if single != 0 {
            return Some(single.trailing_zeros());
        }
        starts = pairs;
        size += 1;
    }
    if starts == 0 { None } else { Some(starts.trailing_zeros()) }
}

/// One more than the largest order of which a block is free in the word, 0 if nothing is: an area's advert.
#[inline]
pub(crate) const fn largest(word: u64) -> u8 {
    if word == EMPTY {
        return ORDER + 1;
    }
    let mut starts = free(word);
    let mut order = 0;
    while starts != 0 && order < ORDER {
        order += 1;
        starts &= starts >> (1 << (order - 1)) & ALIGNED[(order % ORDER) as usize];
    }
    order
}

/// The free frames of up to 16 words, two words in one, to ask about all of them at once.
pub(crate) struct Free {
    pairs: [u64; 8],
    words: usize,
}

impl Free {
    pub(crate) const NONE: Self = Self { pairs: [0; 8], words: 0 };

    /// Adds a word.
    #[inline]
    pub(crate) fn add(&mut self, word: u64) {
        self.pairs[self.words / 2 % 8] |= u64::from(free(word)) << (self.words % 2 * 32);
        self.words += 1;
    }

    /// The [`largest`] of them, if none is [`EMPTY`].
    #[inline]
    pub(crate) fn largest(mut self) -> u8 {
        let mut order = 0;
        while self.pairs.iter().fold(0, |any, pair| any | pair) != 0 && order < ORDER {
            order += 1;
            // Only frame 31 of the first word would look into the second, and no block of more than a frame starts there.
            let aligned = u64::from(ALIGNED[(order % ORDER) as usize]) * 0x1_0000_0001;
            for pair in &mut self.pairs {
                *pair &= *pair >> (1 << (order - 1)) & aligned;
            }
        }
        order
    }
}

/// Whether the block of `order`, at most [`ORDER`], that covers the frame at `offset` is free in a live word.
#[inline]
pub(crate) const fn is_free_around(word: u64, offset: u32, order: u8) -> bool {
    let block = taken(offset & !((1 << order) - 1), order) as u32;
    let frames = word ^ EMPTY;
    (frames | frames >> 32) as u32 & block == 0
}

/// The order of the free block that holds the block of `order` at `offset`, which was just freed: [`ORDER`] for the
/// whole word.
#[inline]
pub(crate) const fn merged(word: u64, offset: u32, order: u8) -> u8 {
    let free = free(word);
    let (mut offset, mut order) = (offset, order);
    while order < ORDER {
        let buddy = taken(offset ^ 1 << order, order) as u32;
        if free & buddy != buddy {
            break;
        }
        offset &= !(1 << order);
        order += 1;
    }
    order
}

/// What the word can serve, as a [`level`].
#[inline]
pub(crate) const fn serves(word: u64) -> u8 {
    if word == EMPTY {
        level::EMPTY
    } else if free(word) == 0 {
        level::FULL
    } else if blocks(word, 3) != 0 {
        level::BIG
    } else {
        level::SMALL
    }
}

/// The state of one frame of a live word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Free,
    Head,
    Tail,
    Absent,
}

/// The state of frame `offset` of a live word.
pub(crate) const fn frame(word: u64, offset: u32) -> Frame {
    let bits = word ^ EMPTY;
    match (bits >> (32 + offset) & 1, bits >> offset & 1) {
        (0, 0) => Frame::Free,
        (0, _) => Frame::Head,
        (_, 0) => Frame::Absent,
        _ if offset == 0 => Frame::Absent,
        _ => Frame::Tail,
    }
}

/// The bits that make frames `first..=last` absent in [`EMPTY`]; frame 0 loses its live bit instead.
pub(crate) const fn absent(word: u64, first: u32, last: u32) -> u64 {
    let mut word = word;
    let mut offset = first;
    while offset <= last {
        word = if offset == 0 { (word | 1) & !EMPTY } else { word | 1 << (32 + offset) };
        offset += 1;
    }
    word
}

/// The frames of a live word of a [holed](crate::node::HOLED) area that are absent.
#[inline]
pub(crate) const fn absent_frames(word: u64) -> u32 {
    let frames = word ^ EMPTY;
    let (later, taken) = ((frames >> 32) as u32, frames as u32);
    later & (!taken | 1)
}

/// Whether all frames of a live word are absent. (Such a word is never stored: its area says so instead.)
#[inline]
pub(crate) const fn is_absent(word: u64) -> bool {
    absent_frames(word) == !0
}

/// The blocks of a live word as (offset, order), first to last: those whose first frame is `head`.
pub(crate) fn heads(word: u64, head: Frame) -> impl Iterator<Item = (u32, u8)> {
    (0..FRAMES)
        .filter(move |&offset| frame(word, offset) == head)
        .map(move |offset| (offset, order_of(word, offset)))
}

/// The order of the block whose first frame is at `offset`.
pub(crate) fn order_of(word: u64, offset: u32) -> u8 {
    let tails = (offset + 1..FRAMES).take_while(|&next| frame(word, next) == Frame::Tail).count() as u32;
    (tails + 1).next_power_of_two().trailing_zeros() as u8
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Every block of every order of a word.
    fn all_blocks() -> impl Iterator<Item = (u32, u8)> {
        (0..ORDER).flat_map(|order| (0..FRAMES).step_by(1 << order).map(move |offset| (offset, order)))
    }

    #[test]
    fn exactly_the_block_that_was_put_in_is_held() {
        for (offset, order) in all_blocks() {
            let word = EMPTY | pattern(offset, order);
            for (o, k) in all_blocks() {
                assert_eq!(holds(word, o, k), (o, k) == (offset, order), "{word:#x} {o} {k}");
            }
            assert_eq!(free(word).count_zeros(), 1 << order);
            assert_eq!(heads(word, Frame::Head).collect::<Vec<_>>(), [(offset, order)]);
        }
    }

    #[test]
    fn a_block_on_a_shelf_is_nobody_elses() {
        for (offset, order) in all_blocks() {
            let word = (EMPTY | pattern(offset, order)) ^ away(offset);
            assert!(word != DEAD && word != EMPTY && !is_owned(word), "{offset} {order}");
            assert!(all_blocks().all(|(o, k)| !holds(word, o, k)), "{offset} {order}");
            assert_eq!(free(word), free(EMPTY | pattern(offset, order)));
            assert_eq!(only_singles(word), None);
            assert_eq!(heads(word, Frame::Head).count(), 0);
            assert_eq!(heads(word, Frame::Absent).collect::<Vec<_>>(), [(offset, order)]);
            assert_eq!(with_free(word, offset, order), EMPTY);
            assert_eq!(word ^ away(offset), EMPTY | pattern(offset, order));
            // A neighbour is seen as it is.
            let neighbour = offset ^ 1 << order;
            let both = word | pattern(neighbour, order);
            assert!(holds(both, neighbour, order), "{offset} {order}");
            assert_eq!(with_free(both, offset, order), EMPTY | pattern(neighbour, order));
        }
    }

    #[test]
    fn a_dead_or_empty_word_holds_nothing() {
        for (offset, order) in all_blocks() {
            assert!(!holds(DEAD, offset, order) && !holds(EMPTY, offset, order));
        }
        assert_eq!(free(DEAD), 0);
        assert_eq!(free(EMPTY), !0);
        assert_eq!(best_fit(DEAD, 0), None);
    }

    #[test]
    fn absent_frames_are_neither_free_nor_held() {
        for first in 0..FRAMES {
            for last in first..FRAMES {
                let word = absent(EMPTY, first, last);
                assert_ne!(word, DEAD, "{first}..={last}");
                for offset in 0..FRAMES {
                    let inside = (first..=last).contains(&offset);
                    assert_eq!(free(word) >> offset & 1 == 0, inside, "{first}..={last} {offset}");
                    assert_eq!(frame(word, offset) == Frame::Absent, inside, "{first}..={last} {offset}");
                    assert_eq!(absent_frames(word) >> offset & 1 == 1, inside, "{first}..={last} {offset}");
                }
                assert!(all_blocks().all(|(o, k)| !holds(word, o, k)), "{first}..={last}");
            }
        }
    }

    #[test]
    fn a_block_before_an_absent_frame_is_whole() {
        for (offset, order) in all_blocks().filter(|(offset, order)| offset + (1 << order) < FRAMES) {
            let word = absent(EMPTY, offset + (1 << order), FRAMES - 1) | pattern(offset, order);
            assert!(holds(word, offset, order), "{offset} {order}");
        }
    }

    #[test]
    fn a_freed_block_merges_as_far_as_it_can() {
        let mut seed = 1u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (order, offset) = ((seed >> 33) as u8 % 5, (seed >> 40) as u32 % 32);
            let offset = offset & !((1 << order) - 1);
            // Random single frames around a free block.
            let word = singles((seed >> 17 & seed >> 3) as u32 & !(taken(offset, order) as u32));
            let fits = |size: u8| {
                size == ORDER && word == EMPTY
                    || size < ORDER && blocks(word, size) >> (offset & !((1 << size) - 1)) & 1 == 1
            };
            let largest = (order..=ORDER).rev().find(|size| fits(*size));
            assert_eq!(largest, Some(merged(word, offset, order)), "{word:#x} {offset} {order}");
            for least in 0..=ORDER {
                let news = merged(word, offset, order) >= least;
                assert_eq!(is_free_around(word, offset, least), news, "{word:#x} {offset} {order} {least}");
            }
        }
    }

    #[test]
    fn many_words_serve_what_the_best_of_them_serves() {
        let mut seed = 3u64;
        for round in 0..20_000 {
            let (mut all, mut best) = (Free::NONE, 0);
            for _ in 0..round % 17 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Mostly full words, with a hole of up to 16 frames.
                let hole = (((1u64 << (seed >> 60)) - 1) << (seed >> 50 & 31)) as u32;
                let word = singles(!hole | (seed >> 20) as u32 & (seed >> 8) as u32);
                if word != EMPTY {
                    all.add(word);
                    best = best.max(largest(word));
                }
            }
            assert_eq!(all.largest(), best, "{seed:#x}");
        }
    }

    #[test]
    fn an_owned_word_serves_and_frees_nothing() {
        for cached in [0, 1, 0x8000_0000, 0x5555_5555, !0] {
            let word = owned(cached);
            assert!(is_owned(word) && word != DEAD && word != EMPTY);
            assert_eq!((free(word), serves(word), largest(word)), (0, level::FULL, 0));
            assert!(all_blocks().all(|(offset, order)| !holds(word, offset, order)));
            assert_eq!(only_singles(word), None);
        }
    }

    #[test]
    fn the_smallest_sufficient_hole_is_used() {
        // Free: frame 5 alone, frames 8..16, the upper half.
        let word = EMPTY | pattern(0, 2) | pattern(4, 0) | pattern(6, 1);
        assert_eq!(best_fit(word, 0), Some(5));
        assert_eq!(best_fit(word, 1), Some(8));
        assert_eq!(best_fit(word, 3), Some(8));
        assert_eq!(best_fit(word, 4), Some(16));
        assert_eq!(best_fit(word | pattern(16, 4), 4), None);
        assert_eq!(best_fit(EMPTY, 4), Some(0));
        assert_eq!(serves(word), level::BIG);
    }

    #[test]
    fn best_fit_finds_a_block_whenever_one_is_free() {
        let mut word = EMPTY;
        let mut seed = 0x9e37_79b9u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (order, offset) = ((seed >> 33) as u8 % 5, (seed >> 40) as u32 % 32);
            let offset = offset & !((1 << order) - 1);
            if holds(word, offset, order) {
                word ^= pattern(offset, order);
            } else if let Some(place) = best_fit(word, order) {
                assert!(blocks(word, order) >> place & 1 == 1);
                word |= pattern(place, order);
                assert!(holds(word, place, order));
            } else {
                assert_eq!(blocks(word, order), 0);
            }
        }
    }
}
