//! Hints, adverts and index bits: upper bounds of what is free, so that a search that finds none may give up.
//!
//! Whoever makes something free raises them *before it returns*, unless they already say so. Whoever is disappointed
//! by one lowers it and then **looks again** at what it speaks of. Of a raiser that saw the old hint and a lowerer,
//! one sees the other, because each writes, passes a full fence, and then reads:
//!
//! ```text
//! free:   write the word      fence   read the hint  (high enough: done)
//! settle: write the hint      fence   read the word  (more free than that: raise it again)
//! ```
//!
//! Between its write and its second look, a lowerer's node says [`node::SETTLING`] (areas) or the gate is entered
//! (above), so that a search that fails meanwhile looks again too.

use core::ops::RangeInclusive;

use pnode_core::sync::Ordering::{AcqRel, Acquire};
use pnode_core::sync::fence_after_rmw;

use crate::geometry::{Geometry, TOP};
use crate::node::{self, Child, advert};
use crate::word::{self, level};
use crate::zone::Zone;

impl Zone<'_> {
    /// Enters a node into the index for what it advertises above `below`.
    pub(crate) fn announce(&self, level: usize, index: usize, below: u8, value: u64) {
        if value & node::ISOLATED != 0 {
            return;
        }
        let first = (below + 1).max(Geometry::first_advert(level));
        for advert in first..=node::advertised(value).min(advert::HALF) {
            self.map(level, node::group(value), advert).insert(index);
        }
    }

    /// Takes a node out of the index of `group` for the adverts in `adverts`, unless it advertises that again. The caller
    /// is inside a gate section.
    pub(crate) fn withdraw(&self, level: usize, index: usize, group: u8, adverts: RangeInclusive<u8>) {
        let first = (*adverts.start()).max(Geometry::first_advert(level));
        for advert in first..=(*adverts.end()).min(advert::HALF) {
            let map = self.map(level, group, advert);
            if !map.has(index) {
                continue;
            }
            map.remove(index);
            // Acquire: a bit that we removed was inserted after its node was changed, and we see that change.
            let value = self.node(level, index).load(Acquire);
            let wanted = value != node::DEAD && value & node::ISOLATED == 0 && node::group(value) == group;
            if wanted && node::advertised(value) >= advert {
                map.insert(index);
            }
        }
    }

    /// After a search for `need` was disappointed: lowers the advert of a node to what it serves, or takes it out of an
    /// index in which it has no place.
    #[cold]
    pub(crate) fn retract(&self, level: usize, index: usize, group: u8, need: u8) {
        let at = self.node(level, index);
        let mut value = at.load(Acquire);
        if value & node::SETTLING != 0 {
            return;
        }
        let stranger =
            |value| value == node::DEAD || value & node::ISOLATED != 0 || node::group(value) != group;
        let bound = |value| match node::serves(value) {
            _ if stranger(value) => Some(advert::NONE),
            // The hints do not tell one small order from another; the words do.
            serves if serves >= need && need < advert::CHILD => {
                self.largest_in(index, node::split(value) & !node::split_at(value, level::FULL))
            }
            serves => Some(serves),
        };
        let mut served = bound(value);
        // A first guess, which the hints may speed up: a word that is full by its hint and has something free anyway is one
        // whose free has not returned.
        if served.is_none_or(|bound| bound >= need) {
            return;
        }
        self.gate.enter();
        let mut lowered = false;
        while !stranger(value) && value & node::SETTLING == 0 && !lowered {
            // The words may have changed since; that is what the second look below is for.
            let Some(serves) = served.filter(|serves| *serves < node::advertised(value)) else { break };
            match at.compare_exchange_weak(value, node::with_advert(value, serves), AcqRel, Acquire) {
                Ok(_) => lowered = true,
                Err(now) => {
                    value = now;
                    served = bound(value);
                }
            }
        }
        // What it never advertised, nobody entered.
        let most = if stranger(value) { advert::HALF } else { node::advertised(value).max(need) };
        self.withdraw(level, index, group, if stranger(value) { 0 } else { need }..=most);
        if lowered && level == 1 {
            // Pairs with the fence in `Zone::free`: a free that is not seen below sees the lowered advert.
            fence_after_rmw();
            if let Some(served) = self.largest_in(index, !0) {
                self.raise_advert(index, served);
            }
        }
        self.gate.leave();
    }

    /// The largest advert that the free children and those live words of an area justify that are in `words`; `None`
    /// if one of these is in somebody's hands.
    fn largest_in(&self, area: usize, words: u64) -> Option<u8> {
        let value = self.node(1, area).load(Acquire);
        let whole = node::serves(node::with_absent(value, node::split(value)));
        if whole != advert::NONE {
            return Some(whole);
        }
        let mut free = word::Free::NONE;
        let mut left = node::split(value) & words;
        while left != 0 {
            match self.word(self.child_index(1, area, left.trailing_zeros())).load(Acquire) {
                word::DEAD => return None,
                word::EMPTY => return Some(advert::CHILD),
                now => free.add(now),
            }
            left &= left - 1;
        }
        Some(free.largest())
    }

    /// Raises the advert of a live area to at least `served`.
    fn raise_advert(&self, area: usize, served: u8) {
        let at = self.node(1, area);
        let mut value = at.load(Acquire);
        while value != node::DEAD && node::advertised(value) < served {
            match at.compare_exchange_weak(value, node::with_advert(value, served), AcqRel, Acquire) {
                Ok(_) => {
                    return self.announce(1, area, node::advertised(value), node::with_advert(value, served));
                }
                Err(now) => value = now,
            }
        }
    }

    /// After children of a node became free or its hint rose to `value`: tells the index, and the parent if the node
    /// is wholly free.
    #[cold]
    #[inline(never)]
    pub(crate) fn rose(&self, level: usize, index: usize, before: u8, value: u64) {
        if node::advertised(value) > before {
            self.announce(level, index, before, value);
        }
        if node::whole(value) == 0xffff && level < TOP && value & node::ISOLATED == 0 {
            self.raise_parent(level, index);
        }
    }

    fn raise_parent(&self, level: usize, index: usize) {
        // Pairs with the fence in `lower_hint`.
        fence_after_rmw();
        let pfn = self.child_pfn(level, index, 0);
        let parent = self.index(level + 1, pfn);
        let hint = node::child(self.node(level + 1, parent).load(Acquire), self.child_of(level + 1, pfn));
        if hint == Child::Split(level::EMPTY) {
            return;
        }
        self.raise(level + 1, parent, self.child_of(level + 1, pfn), level::EMPTY, advert::NONE);
    }

    /// Which child of its node at `level` a frame lies in.
    #[inline]
    pub(crate) fn child_of(&self, level: usize, pfn: u64) -> u32 {
        (pfn >> crate::geometry::child_order(level)) as u32 & (node::CHILDREN - 1)
    }

    /// Raises the hint of a split child to at least `hint`, and the advert of the node to at least `served`.
    pub(crate) fn raise(&self, level: usize, index: usize, child: u32, hint: u8, served: u8) {
        let at = self.node(level, index);
        let mut value = at.load(Acquire);
        loop {
            if value == node::DEAD {
                return;
            }
            let new = node::raised(value, child, hint, served);
            if new == value {
                return;
            }
            // Release pairs with the Acquire of the search that follows the hint; Acquire with `settle`.
            match at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                Ok(_) => return self.rose(level, index, node::advertised(value), new),
                Err(now) => value = now,
            }
        }
    }

    /// Lowers the hint of a word that disappointed a search; `false` if that is not to be had now, because the word
    /// or its area is in somebody's hands.
    pub(crate) fn settle(&self, area: usize, child: u32, index: usize) -> bool {
        let at = self.node(1, area);
        let mut value = at.load(Acquire);
        let lowered = loop {
            let Child::Split(hint) = node::child(value, child) else { return value != node::DEAD };
            let now = self.word(index).load(Acquire);
            if now == word::DEAD {
                return false;
            }
            let level = word::serves(now);
            if level >= hint {
                return true;
            }
            if value & node::SETTLING != 0 {
                return false;
            }
            let new = node::with_split(value, child, level) | node::SETTLING;
            match at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                Ok(_) => break level,
                Err(now) => value = now,
            }
        };
        self.finish_settling(area, child, index, lowered);
        true
    }

    /// Writes into a new value of an area that one of its words is full, and that this is being settled; `false` if
    /// it cannot be said.
    pub(crate) fn lower_in(&self, value: &mut u64, child: u32, index: usize) -> bool {
        let lower = *value & node::SETTLING == 0
            && matches!(node::child(*value, child), Child::Split(hint) if hint > level::FULL)
            && word::is_full(self.word(index).load(Acquire));
        if lower {
            *value = node::with_split(*value, child, level::FULL) | node::SETTLING;
        }
        lower
    }

    /// The second look, after the hint of a word was lowered.
    pub(crate) fn finish_settling(&self, area: usize, child: u32, index: usize, lowered: u8) {
        let at = self.node(1, area);
        // Pairs with the fence in `Zone::free`: a free that we do not see below sees the lowered hint.
        fence_after_rmw();
        let (level, served) = match self.word(index).load(Acquire) {
            word::DEAD => (lowered, advert::NONE),
            now => (word::serves(now), word::largest(now)),
        };
        let mut value = at.load(Acquire);
        loop {
            let new = node::raised(value, child, level, served) & !node::SETTLING;
            match at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                Ok(_) => {
                    self.rose(1, area, node::advertised(value), new);
                    return;
                }
                Err(now) => value = now,
            }
        }
    }

    /// Lowers the hint "wholly free" of a child node that turned out to be in use.
    pub(crate) fn lower_hint(&self, level: usize, index: usize, child: u32, below: usize) {
        self.gate.enter();
        let at = self.node(level, index);
        let mut value = at.load(Acquire);
        while node::child(value, child) == Child::Split(level::EMPTY) {
            let new = node::with_split(value, child, level::FULL);
            match at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => value = now,
            }
        }
        // Pairs with the fence in `raise_parent`: who completed the child and is not seen here sees the hint lowered.
        fence_after_rmw();
        let at = self.node(level - 1, below);
        let mut value = at.load(Acquire);
        loop {
            if value == node::DEAD {
                break;
            }
            if node::whole(value) == 0xffff {
                if value & node::ISOLATED == 0 {
                    self.raise(level, index, child, level::EMPTY, advert::NONE);
                }
                break;
            }
            // INVARIANT: B4. In the index, the two adverts are one.
            let new = node::with_advert(value, node::advertised(value).min(advert::HALF));
            if new == value {
                break;
            }
            // Release and Acquire: a free that comes after this sees the advert lowered, one before is seen above.
            match at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => value = now,
            }
        }
        self.gate.leave();
    }
}
