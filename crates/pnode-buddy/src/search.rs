//! Finding a block: areas first, new areas next, other classes last.

use pnode_core::Pfn;
use pnode_core::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::collect::Collected;
use crate::count::UNCLAIMED;
use crate::geometry::{AREA, AREA_ORDER, GROUPS, TOP, child_order, group_of};
use crate::node::{self, advert};
use crate::word::{self, level};
use crate::zone::Zone;

/// What a claimed child is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A block for the caller.
    Block,
    /// A dead node that the caller brings to life; the gate is entered, and the caller leaves it.
    Split,
}

/// Where the blocks of a group look after their own areas and before they take a new one, and where after that; the same by size first in both.
/// Movable frames fill the holes of unmovable areas, because those become whole late in any case: each area that is
/// spared is a huge page. Unmovable frames spoil movable areas last.
pub(crate) const BEFORE: [&[u8]; GROUPS] = [&[], &[], &[0, 1], &[1, 0], &[], &[]];
const AFTER: [&[u8]; GROUPS] =
    [&[1, 4, 5, 2, 3], &[0, 5, 4, 3, 2], &[3, 4, 5], &[2, 5, 4], &[5, 2, 3, 0, 1], &[4, 3, 2, 1, 0]];

impl Zone<'_> {
    /// A block below the order of an area, and the class that it was taken from.
    pub(crate) fn alloc_small(&self, order: u8, class: u8, busy: &mut bool) -> Option<(Pfn, u8)> {
        let group = group_of(order, class);
        if let Some(found) = self.alloc_in_group(order, group, busy) {
            return Some(found);
        }
        self.alloc_elsewhere(order, group, busy)
    }

    /// [`Zone::alloc_small`] when the areas of the block's own group have no room.
    #[cold]
    #[inline(never)]
    fn alloc_elsewhere(&self, order: u8, group: u8, busy: &mut bool) -> Option<(Pfn, u8)> {
        let need = node::needed(order);
        let shape = &self.geometry.level(1).shape;
        let first = self.geometry.map(1, 0, need) + shape.root();
        let stride = self.geometry.map(1, 1, need) - self.geometry.map(1, 0, need);
        // Most groups have nothing, which their bitmaps' roots say. Acquire pairs with the Release in `Bitmap::insert`.
        let may = |group: &&u8| self.words.at(first + **group as usize * stride).load(Acquire) != 0;
        let among = |groups: &[u8], busy: &mut bool| {
            groups.iter().filter(may).find_map(|&group| self.alloc_in_group(order, group, busy))
        };
        if let Some(found) = among(BEFORE[group as usize], busy) {
            return Some(found);
        }
        if let Some(pfn) = self.alloc_in_new_area(order, group, busy) {
            return Some((pfn, group >> 1));
        }
        among(AFTER[group as usize], busy)
    }

    #[inline]
    fn alloc_in_group(&self, order: u8, group: u8, busy: &mut bool) -> Option<(Pfn, u8)> {
        let need = node::needed(order);
        self.each_candidate(1, group, need, |area| {
            let pfn = self.alloc_in_area(area, order, group, busy)?;
            Some((pfn, self.class_of(area)))
        })
    }

    /// The class of an area of which the caller has just claimed a block. A word's claim does not say it: since the
    /// search read it, the area may have moved up and come down again for another class.
    #[inline]
    pub(crate) fn class_of(&self, area: usize) -> u8 {
        // Relaxed: a word becomes live after its area, and the claim, an Acquire, is later than that; the block holds the
        // area where it is.
        node::class(self.node(1, area).load(Relaxed))
    }

    /// Offers the nodes that advertise `need` to `visit` until it finds something: first those that serve nothing
    /// larger, the lowest first, then all.
    #[inline]
    pub(crate) fn each_candidate<T>(
        &self,
        level: usize,
        group: u8,
        need: u8,
        mut visit: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let map = self.map(level, group, need);
        if map.is_empty() {
            return None;
        }
        if need < advert::HALF {
            let larger = self.map(level, group, need + 1);
            let mut from = 0;
            while let Some(index) = map.next_except(from, &larger) {
                if let Some(found) = visit(index) {
                    return Some(found);
                }
                from = index + 1;
            }
        }
        let mut from = 0;
        while let Some(index) = map.next(from) {
            if let Some(found) = visit(index) {
                return Some(found);
            }
            from = index + 1;
        }
        None
    }

    /// A block in one area.
    pub(crate) fn alloc_in_area(&self, area: usize, order: u8, group: u8, busy: &mut bool) -> Option<Pfn> {
        let at = self.node(1, area);
        let need = node::needed(order);
        let needed_level = if need <= advert::SMALL { level::SMALL } else { level::BIG };
        // Children that cannot be judged now.
        let mut skip = 0;
        // A used-up word whose hint is still to be lowered.
        let mut owed = None;
        // Acquire pairs with the Release that made the area live: its words are seen dead or live as it says.
        let mut value = at.load(Acquire);
        loop {
            if value == node::DEAD || value & node::ISOLATED != 0 || node::group(value) != group {
                self.retract(1, area, group, need);
                return None;
            }
            if order >= word::ORDER {
                let run = order - word::ORDER;
                if let Some(child) = node::best_run(node::free(value), run) {
                    // Acquire pairs with the Release of who freed the children; if it fails, with that of who moves them.
                    match at.compare_exchange_weak(
                        value,
                        node::with_block(value, child, run),
                        Acquire,
                        Acquire,
                    ) {
                        Ok(_) => return Some(Pfn::new(self.child_pfn(1, area, child))),
                        Err(now) => value = now,
                    }
                    continue;
                }
                if let Some(child) = node::best_run(node::whole(value) & !skip, run) {
                    let mask = node::run_mask(child, run) & node::split_at(value, level::EMPTY);
                    skip |= self.collect_children(1, area, mask, busy);
                    value = at.load(Acquire);
                    continue;
                }
                break;
            }
            let small =
                if needed_level == level::SMALL { node::split_at(value, level::SMALL) & !skip } else { 0 };
            let big = node::split_at(value, level::BIG) & !skip;
            let empty = node::split_at(value, level::EMPTY) & !skip;
            let live = [small, big, empty].into_iter().find(|mask| *mask != 0);
            if let Some(mask) = live {
                let child = mask.trailing_zeros();
                let index = self.child_index(1, area, child);
                match self.claim_in_word(index, order) {
                    Ok(offset) => {
                        let pfn = self.child_pfn(1, area, child) + u64::from(offset);
                        return Some(Pfn::new(pfn));
                    }
                    Err(now) => {
                        // Its hint may be right for a smaller order.
                        skip |= 1 << child;
                        let hint = if mask == small { level::SMALL } else { level::BIG };
                        if word::serves(now) >= hint && mask != empty {
                            continue;
                        }
                        value = at.load(Acquire);
                        // The way of a bulk allocation: this word is used up, the next is whole. One
                        // compare-and-swap for both.
                        let last = (small | big | empty) & !skip == 0;
                        if last && node::free(value) != 0 && value & node::SETTLING == 0 {
                            owed = Some((child, index));
                        } else {
                            *busy |= !self.settle(area, child, index);
                        }
                    }
                }
                value = at.load(Acquire);
                continue;
            }
            let free = node::free(value);
            if free == 0 {
                let Some((child, index)) = owed.take() else { break };
                *busy |= !self.settle(area, child, index);
                value = at.load(Acquire);
                continue;
            }
            let child = free.trailing_zeros();
            let mut new = node::with_split(value, child, level::BIG);
            let settled = owed.filter(|(used_up, index)| self.lower_in(&mut new, *used_up, *index));
            if node::whole(new) == 0 {
                new = node::with_advert(new, advert::BIG);
            }
            match at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                Ok(_) => {
                    let index = self.child_index(1, area, child);
                    // The word is dead and its parent says split: by B2 it is ours alone. Release pairs with the
                    // Acquire loads of the word: who sees it live sees the frames' last owner gone.
                    self.word(index).store(word::EMPTY | word::pattern(0, order), Release);
                    if let Some((used_up, index)) = settled {
                        self.finish_settling(area, used_up, index, level::FULL);
                    }
                    if node::advertised(new) < node::advertised(value) {
                        self.gate.enter();
                        self.withdraw(1, area, group, node::advertised(new) + 1..=advert::HALF);
                        self.gate.leave();
                    }
                    return Some(Pfn::new(self.child_pfn(1, area, child)));
                }
                Err(now) => value = now,
            }
        }
        if value & node::SETTLING != 0 {
            *busy = true;
        }
        self.retract(1, area, group, need);
        None
    }

    /// A block in one live word: its offset. `None` if the word has none, or is dead.
    #[inline(always)]
    pub(crate) fn alloc_in_word(&self, index: usize, order: u8) -> Option<u32> {
        self.claim_in_word(index, order).ok()
    }

    /// The same; if it has none, what it is instead.
    #[inline(always)]
    fn claim_in_word(&self, index: usize, order: u8) -> Result<u32, u64> {
        let at = self.word(index);
        let mut value = at.load(Relaxed);
        loop {
            let offset = word::best_fit(value, order).ok_or(value)?;
            // Acquire pairs with the Release of the free that gave the frames back.
            match at.compare_exchange_weak(value, value | word::pattern(offset, order), Acquire, Relaxed) {
                Ok(_) => return Ok(offset),
                Err(now) => value = now,
            }
        }
    }

    /// A block at the start of an area that was unclaimed and is now of `group`.
    fn alloc_in_new_area(&self, order: u8, group: u8, busy: &mut bool) -> Option<Pfn> {
        let pfn = self.claim_for(2, AREA_ORDER, Purpose::Split, busy)?;
        let area = self.index(1, pfn);
        let value = node::empty(group);
        if order < word::ORDER {
            self.bring_to_life(1, area, node::with_split(value, 0, level::BIG));
            // By B2 the dead word is ours. Release pairs with the Acquire of who takes another block of it: that one sees
            // the class of the area.
            self.word(self.child_index(1, area, 0)).store(word::EMPTY | word::pattern(0, order), Release);
        } else {
            self.bring_to_life(1, area, node::with_block(value, 0, order - word::ORDER));
        }
        self.counts().transfer(UNCLAIMED, group >> 1, AREA);
        self.gate.leave();
        Some(Pfn::new(pfn))
    }

    /// Makes a dead node that is ours live.
    pub(crate) fn bring_to_life(&self, level: usize, index: usize, value: u64) {
        let value = node::with_advert(value, node::serves(value));
        // Release pairs with the Acquire of every search that visits the node.
        self.node(level, index).store(value, Release);
        self.announce(level, index, advert::NONE, value);
    }

    /// A block of at least the order of an area.
    pub(crate) fn claim(&self, level: usize, order: u8, busy: &mut bool) -> Option<Pfn> {
        self.claim_for(level, order, Purpose::Block, busy).map(Pfn::new)
    }

    /// A block from free children of one node, or nothing; never collects.
    #[inline]
    pub(crate) fn claim_near(&self, level: usize, index: usize, order: u8) -> Option<Pfn> {
        let run = order - child_order(level);
        let at = self.node(level, index);
        let mut value = at.load(Relaxed);
        while value != node::DEAD {
            let child = node::best_run(node::free(value), run)?;
            // Acquire pairs with the Release of the frees.
            match at.compare_exchange_weak(value, node::with_block(value, child, run), Acquire, Relaxed) {
                Ok(_) => return Some(Pfn::new(self.child_pfn(level, index, child))),
                Err(now) => value = now,
            }
        }
        None
    }

    /// A dead area that is the caller's (B2), inside a gate section that the caller leaves.
    pub(crate) fn claim_split(&self, level: usize, busy: &mut bool) -> Option<u64> {
        self.claim_for(level, child_order(level), Purpose::Split, busy)
    }

    fn claim_for(&self, level: usize, order: u8, purpose: Purpose, busy: &mut bool) -> Option<u64> {
        let run = order - child_order(level);
        let need = advert::CHILD + run;
        let found =
            self.each_candidate(level, 0, need, |index| self.claim_in_node(level, index, run, purpose, busy));
        if found.is_some() || level == TOP {
            return found;
        }
        // Nothing here: a node from above, of which we use the start.
        let pfn = self.claim_split(level + 1, busy)?;
        let value = node::empty(0);
        let value = match purpose {
            Purpose::Block => node::with_block(value, 0, run),
            Purpose::Split => {
                self.gate.enter();
                node::with_split(value, 0, level::FULL)
            }
        };
        self.bring_to_life(level, self.index(level, pfn), value);
        self.gate.leave();
        Some(pfn)
    }

    fn claim_in_node(
        &self,
        level: usize,
        index: usize,
        run: u8,
        purpose: Purpose,
        busy: &mut bool,
    ) -> Option<u64> {
        let at = self.node(level, index);
        let mut skip = 0;
        // Acquire pairs with the Release that made the node live.
        let mut value = at.load(Acquire);
        while value != node::DEAD {
            if let Some(child) = node::best_run(node::free(value), run) {
                let new = match purpose {
                    Purpose::Block => node::with_block(value, child, run),
                    Purpose::Split => {
                        self.gate.enter();
                        node::with_split(value, child, level::FULL)
                    }
                };
                match at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                    Ok(_) => return Some(self.child_pfn(level, index, child)),
                    Err(now) => value = now,
                }
                if purpose == Purpose::Split {
                    self.gate.leave();
                }
                continue;
            }
            let Some(child) = node::best_run(node::whole(value) & !skip, run) else { break };
            let mask = node::run_mask(child, run) & node::split_at(value, level::EMPTY);
            skip |= self.collect_children(level, index, mask, busy);
            value = at.load(Acquire);
        }
        self.retract(level, index, 0, advert::CHILD + run);
        None
    }

    /// Tries to move the split children of `mask` up into their node; the children that are in somebody's hands.
    pub(crate) fn collect_children(&self, level: usize, index: usize, mask: u64, busy: &mut bool) -> u64 {
        let mut stuck = 0;
        let mut whole = 0;
        for child in (0..node::CHILDREN).filter(|child| mask >> child & 1 == 1) {
            let below = self.child_index(level, index, child);
            match self.collect(level - 1, below) {
                Collected::Whole if level == 1 => whole |= 1 << child,
                Collected::Whole => {
                    self.set_free(level, index, 1 << child);
                    self.gate.leave();
                }
                Collected::Partly => {
                    let settled = level > 1 || self.settle(index, child, below);
                    if level > 1 {
                        self.lower_hint(level, index, child, below);
                    }
                    if !settled {
                        stuck |= 1 << child;
                    }
                }
                Collected::Moving => stuck |= 1 << child,
            }
        }
        if whole != 0 {
            self.set_free(level, index, whole);
        }
        *busy |= stuck != 0;
        stuck
    }
}
