//! An inner node of the tree: the states of 16 children in one `u64`. Pure functions, no atomics.
//!
//! ```text
//! bit 63    62..59  58    57     56        55        54..51  50 49   48   47..32   31..16   15..0
//!    [holed][   0  ][owner][large][isolated][settling][advert][class][live][ split ][ high  ][ low  ]
//! ```
//!
//! | split, high, low | child |
//! | --- | --- |
//! | 0 0 0 | free |
//! | 0 0 1 | first child of an allocated block |
//! | 0 1 1 | later child of an allocated block |
//! | 0 1 0 | absent: a hole, out of the zone |
//! | 1 h h | split: the child's own word or node decides; `h` is a hint of what it can serve ([`word::level`]) |
//!
//! A node of zero is *dead*: its frames belong to its parent. The children of an area (a node of level 1) are words of
//! 32 frames, those of the levels above are nodes.

use crate::word;

/// Children of a node.
pub(crate) const CHILDREN: u32 = 16;
/// A node whose frames belong to its parent.
pub(crate) const DEAD: u64 = 0;

const ALL: u64 = 0xffff;
const HIGH: u32 = 16;
const SPLIT: u32 = 32;
const LIVE: u64 = 1 << 48;
const CLASS: u32 = 49;
const ADVERT: u32 = 51;
/// Somebody lowers a hint of this node and has not yet looked whether that was right.
pub(crate) const SETTLING: u64 = 1 << 55;
/// Nothing is allocated here; frees land normally.
pub(crate) const ISOLATED: u64 = 1 << 56;
/// The area is for blocks of at least [`LARGE_ORDER`](crate::geometry::LARGE_ORDER).
const LARGE: u32 = 57;
/// A CPU owns words of this area.
pub(crate) const OWNER: u64 = 1 << 58;

/// Frames inside some word of this area are absent, so no block of its words waits on a shelf: there, both look alike.
/// It is set before the first frame of a word becomes absent.
pub(crate) const HOLED: u64 = 1 << 63;

/// The area with the free or split children in `mask` owned by a CPU.
#[inline]
pub(crate) const fn with_owner(node: u64, mask: u64) -> u64 {
    with_free(node, mask) | mask << SPLIT | OWNER
}

/// The area with no word owned.
#[inline]
pub(crate) const fn without_owner(node: u64) -> u64 {
    node & !OWNER
}

/// What a node can serve, as the search index remembers it: an upper bound, lowered by searches that were
/// disappointed. In an area, `1 + order` for blocks inside a word.
pub(crate) mod advert {
    /// Nothing.
    pub(crate) const NONE: u8 = 0;
    /// An area with blocks up to order 2.
    pub(crate) const SMALL: u8 = 3;
    /// An area with blocks up to order 4.
    pub(crate) const BIG: u8 = 5;
    /// A whole child; the next three are 2, 4 and 8 adjacent children.
    pub(crate) const CHILD: u8 = 6;
    /// Eight adjacent children.
    pub(crate) const HALF: u8 = 9;
    /// All of it: the node may move up.
    pub(crate) const EMPTY: u8 = 10;
}

/// Multiples of `2^run` as a mask over the children.
const ALIGNED: [u64; 5] = [0xffff, 0x5555, 0x1111, 0x0101, 0x0001];

/// The state of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    Free,
    Head,
    Tail,
    Absent,
    /// Split, with the hint of what it can serve.
    Split(u8),
}

/// A live node of `group` with all children free.
#[inline]
pub(crate) const fn empty(group: u8) -> u64 {
    LIVE | (group as u64 >> 1) << CLASS | (group as u64 & 1) << LARGE | (advert::EMPTY as u64) << ADVERT
}

/// Whether the node is live, as opposed to [`DEAD`].
#[inline]
pub(crate) const fn is_live(node: u64) -> bool {
    node & LIVE != 0
}

/// The class of an area.
#[inline]
pub(crate) const fn class(node: u64) -> u8 {
    (node >> CLASS & 3) as u8
}

/// The class of an area and whether it is for large blocks: what the search index keeps apart.
#[inline]
pub(crate) const fn group(node: u64) -> u8 {
    class(node) << 1 | (node >> LARGE & 1) as u8
}

/// The advertised service.
#[inline]
pub(crate) const fn advertised(node: u64) -> u8 {
    (node >> ADVERT & 15) as u8
}

/// The node with another advert.
#[inline]
pub(crate) const fn with_advert(node: u64, advert: u8) -> u64 {
    node & !(15 << ADVERT) | (advert as u64) << ADVERT
}

#[inline]
const fn planes(node: u64) -> (u64, u64, u64) {
    (node & ALL, node >> HIGH & ALL, node >> SPLIT & ALL)
}

/// The children that are free.
#[inline]
pub(crate) const fn free(node: u64) -> u64 {
    let (low, high, split) = planes(node);
    !(low | high | split) & ALL
}

/// The children that are absent.
#[inline]
pub(crate) const fn absent(node: u64) -> u64 {
    let (low, high, split) = planes(node);
    high & !low & !split
}

/// The split children whose hint is `level`.
#[inline]
pub(crate) const fn split_at(node: u64, level: u8) -> u64 {
    let (low, high, split) = planes(node);
    let low = if level & 1 == 0 { !low } else { low };
    let high = if level & 2 == 0 { !high } else { high };
    low & high & split
}

/// What [`hint`] says of a split child with the hint [`word::level::FULL`].
pub(crate) const HINT_FULL: u64 = 1 << SPLIT;
/// The same for [`word::level::SMALL`].
pub(crate) const HINT_SMALL: u64 = 1 << SPLIT | 1;
/// The same for [`word::level::EMPTY`].
pub(crate) const HINT_EMPTY: u64 = 1 << SPLIT | 1 << HIGH | 1;

/// The state of a child as three bits, as they lie in the node.
#[inline]
pub(crate) const fn hint(node: u64, child: u32) -> u64 {
    node >> child & HINT_EMPTY
}

/// The children that are split.
#[inline]
pub(crate) const fn split(node: u64) -> u64 {
    node >> SPLIT & ALL
}

/// The children that are free, or that a collection may find to be.
#[inline]
pub(crate) const fn whole(node: u64) -> u64 {
    let (low, high, split) = planes(node);
    !(low | high | split) & ALL | low & high & split
}

/// Where `2^run` aligned children of `mask` start.
#[inline]
pub(crate) const fn runs(mask: u64, run: u8) -> u64 {
    let mut mask = mask;
    let mut step = 0;
    while step < run {
        mask &= mask >> (1 << step);
        step += 1;
    }
    mask & ALIGNED[run as usize]
}

/// The lowest `2^run` children in the smallest run of `mask` that has room.
#[inline]
pub(crate) const fn best_run(mask: u64, run: u8) -> Option<u32> {
    let mut starts = runs(mask, run);
    let mut size = run;
    while starts != 0 && size < 4 {
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

/// The mask of `2^run` children from `child`.
#[inline]
pub(crate) const fn run_mask(child: u32, run: u8) -> u64 {
    ((1 << (1u32 << run)) - 1) << child
}

/// The largest advert that the states of the children allow.
#[inline]
pub(crate) const fn serves(node: u64) -> u8 {
    let whole = whole(node);
    if whole != 0 {
        // No branch, because which run is the largest is what no branch predictor can know.
        let two = whole & whole >> 1 & ALIGNED[1];
        let four = two & two >> 2 & ALIGNED[2];
        let eight = four & four >> 4 & ALIGNED[3];
        return advert::CHILD
            + (two != 0) as u8
            + (four != 0) as u8
            + (eight != 0) as u8
            + (whole == ALL) as u8;
    }
    let (low, high, split) = planes(node);
    if high & split != 0 {
        advert::BIG
    } else if low & split != 0 {
        advert::SMALL
    } else {
        advert::NONE
    }
}

/// The node after a block of `2^run` children was put at `child`; they were free or split by the caller.
#[inline]
pub(crate) const fn with_block(node: u64, child: u32, run: u8) -> u64 {
    let mask = run_mask(child, run);
    with_free(node, mask) | mask | (mask & (mask - 1)) << HIGH
}

/// The node after the children in `mask` were made free.
#[inline]
pub(crate) const fn with_free(node: u64, mask: u64) -> u64 {
    node & !(mask | mask << HIGH | mask << SPLIT)
}

/// The node after the children in `mask` were made absent.
#[inline]
pub(crate) const fn with_absent(node: u64, mask: u64) -> u64 {
    with_free(node, mask) | mask << HIGH
}

/// The node with `child` split and hinted at `level`.
#[inline]
pub(crate) const fn with_split(node: u64, child: u32, level: u8) -> u64 {
    let bit = 1u64 << child;
    with_free(node, bit) | bit << SPLIT | (level as u64 & 1) << child | (level as u64 >> 1) << (HIGH + child)
}

/// Whether exactly the block of `2^run` children at `child` is allocated.
#[inline]
pub(crate) const fn holds(node: u64, child: u32, run: u8) -> bool {
    let mask = run_mask(child, run);
    let (low, high, split) = planes(node);
    let tails = mask & (mask - 1);
    let after = (mask << 1) & !mask & ALL & high & low & !split;
    node != DEAD && low & mask == mask && high & mask == tails && split & mask == 0 && after == 0
}

/// The state of a child of a live node.
#[inline]
pub(crate) const fn child(node: u64, child: u32) -> Child {
    let low = node >> child & 1;
    let high = node >> (HIGH + child) & 1;
    if node >> (SPLIT + child) & 1 == 1 {
        return Child::Split((low | high << 1) as u8);
    }
    match (high, low) {
        (0, 0) => Child::Free,
        (0, _) => Child::Head,
        (_, 0) => Child::Absent,
        _ => Child::Tail,
    }
}

/// The node with the hint of a split child raised to at least `level`, and its advert to at least `served` and to
/// what its whole children serve; the node itself if that changes nothing.
#[inline]
pub(crate) const fn raised(node: u64, at: u32, level: u8, served: u8) -> u64 {
    match child(node, at) {
        Child::Split(hint) => {
            let node = if hint < level { with_split(node, at, level) } else { node };
            let node = if advertised(node) < served { with_advert(node, served) } else { node };
            if whole(node) != 0 { advertised_up(node) } else { node }
        }
        _ => node,
    }
}

/// The node with its advert raised to what it serves.
#[inline]
pub(crate) const fn advertised_up(node: u64) -> u64 {
    if advertised(node) == advert::EMPTY {
        return node;
    }
    let serves = serves(node);
    if serves > advertised(node) { with_advert(node, serves) } else { node }
}

/// The allocated blocks of a live node as (child, run).
pub(crate) fn heads(node: u64) -> impl Iterator<Item = (u32, u8)> {
    (0..CHILDREN).filter(move |&at| child(node, at) == Child::Head).map(move |at| {
        let tails = (at + 1..CHILDREN).take_while(|&next| child(node, next) == Child::Tail).count() as u32;
        (at, (tails + 1).next_power_of_two().trailing_zeros() as u8)
    })
}

/// The advert that a block of `order` needs in an area; `order` is below the area's.
#[inline]
pub(crate) const fn needed(order: u8) -> u8 {
    const { assert!(advert::CHILD == 1 + word::ORDER) };
    1 + order
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn all_runs() -> impl Iterator<Item = (u32, u8)> {
        (0..=4u8).flat_map(|run| (0..CHILDREN).step_by(1 << run).map(move |at| (at, run)))
    }

    #[test]
    fn exactly_the_block_that_was_put_in_is_held() {
        for (at, run) in all_runs() {
            let node = with_block(empty(1), at, run);
            for (a, r) in all_runs() {
                assert_eq!(holds(node, a, r), (a, r) == (at, run), "{node:#x} {a} {r}");
            }
            assert_eq!(heads(node).collect::<Vec<_>>(), [(at, run)]);
            assert_eq!(with_free(node, run_mask(at, run)), empty(1));
            assert_eq!(free(node), ALL & !run_mask(at, run));
        }
        assert!(all_runs().all(|(at, run)| !holds(DEAD, at, run) && !holds(empty(0), at, run)));
    }

    #[test]
    fn a_block_before_an_absent_child_is_whole() {
        let node = with_absent(with_block(empty(0), 0, 0), 0b10);
        assert!(holds(node, 0, 0));
        assert!(!holds(node, 0, 1) && !holds(node, 1, 0));
        assert_eq!(child(node, 1), Child::Absent);
    }

    #[test]
    fn hints_survive_and_adverts_follow() {
        for level in 0..=3 {
            let mut node = with_absent(empty(5), ALL);
            node = with_advert(with_split(node, 7, level), advert::NONE);
            assert_eq!(child(node, 7), Child::Split(level));
            assert_eq!(split_at(node, level), 1 << 7);
            assert_eq!((class(node), group(node)), (2, 5));
            let expected = [advert::NONE, advert::SMALL, advert::BIG, advert::CHILD][level as usize];
            assert_eq!(serves(node), expected);
            assert_eq!(advertised(raised(node, 7, 3, 0)), advert::CHILD);
            if level < 3 {
                assert_eq!(advertised(raised(node, 7, 2, 4)), 4);
            }
        }
        assert_eq!(serves(empty(0)), advert::EMPTY);
        assert_eq!(serves(with_block(empty(0), 3, 0)), advert::HALF);
    }

    #[test]
    fn the_smallest_sufficient_run_is_used() {
        let node = with_block(with_block(empty(0), 0, 1), 3, 0);
        assert_eq!(best_run(free(node), 0), Some(2));
        assert_eq!(best_run(free(node), 1), Some(4));
        assert_eq!(best_run(free(node), 3), Some(8));
        assert_eq!(best_run(free(node), 4), None);
        assert_eq!(best_run(free(empty(0)), 4), Some(0));
    }
}
