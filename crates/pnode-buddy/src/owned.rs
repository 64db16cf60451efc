//! Words that a CPU owns, and the inbox through which others free frames of them.
//!
//! An owned word is written by its owner only, with plain stores: that is why the cached path needs no atomic
//! read-modify-write. Everybody else may read it, so a free of a cached frame is refused whoever tries it. A free of a
//! frame that *is* handed out goes into the inbox of the area, which has one owned word at most:
//!
//! ```text
//! inbox  63    36..32   31..0
//!       [open][ child ][freed by others]
//! ```
//!
//! # Invariants
//!
//! - **W1** an area that says [`node::OWNER`] has one owner, who alone writes the owned word and opens the inbox.
//! - **W2** the inbox is open for a child from before its word reads as owned until after it no longer does, so a
//!   free that saw the word owned either gets into the inbox in time or finds it closed and looks at the word again.
//! - **W3** a letter stays in the inbox until its frame is free in the word or in the cache, so a second free of that
//!   frame finds the one or the other, at any time.

use pnode_core::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use pnode_core::{FreeError, Order, Pfn};

use crate::geometry::AREA;
use crate::node::{self, CHILDREN, Child};
use crate::word::{self, level};
use crate::zone::Zone;

/// How many areas with nothing but unsuitable words a CPU looks at before it does without a word of its own.
const AREAS_TRIED: u32 = 4;

const OPEN: u64 = 1 << 63;
const FREED: u64 = 0xffff_ffff;

const fn open_for(child: u32) -> u64 {
    OPEN | (child as u64) << 32
}

/// A word that a CPU owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned {
    /// The word's index, or `usize::MAX` for none.
    pub(crate) word: usize,
    /// Its first frame.
    pub(crate) pfn: u64,
    /// Its frames that are in the cache.
    pub(crate) cached: u32,
}

impl Owned {
    pub(crate) const NONE: Self = Self { word: usize::MAX, pfn: u64::MAX, cached: 0 };

    fn area(&self) -> usize {
        self.word / CHILDREN as usize
    }

    fn child(&self) -> u32 {
        (self.word % CHILDREN as usize) as u32
    }
}

impl Zone<'_> {
    /// Makes a word with free frames of an area of `class` the caller's: the fullest word that is known first, so that
    /// whole words are left whole. The frames leave the count of the class.
    ///
    /// `None` does not mean that nothing is free: a word with a block of several frames cannot be owned, and the search
    /// for another ends after a few areas.
    pub(crate) fn own(&self, class: u8, busy: &mut bool) -> Option<Owned> {
        let mut tries = AREAS_TRIED;
        let found = self.each_candidate(1, class, 1, |area| {
            let found = self.own_in_area(area, class, busy, &mut tries);
            (found.is_some() || tries == 0).then_some(found)
        });
        if let Some(found) = found {
            return found;
        }
        let pfn = self.claim_split(2, busy)?;
        let area = self.index(1, pfn);
        let word = self.child_index(1, area, 0);
        // By B2 the area and its words are ours until it is live. INVARIANT: W1, W2.
        self.inbox(area).store(open_for(0), Relaxed);
        self.word(word).store(word::owned(!0), Relaxed);
        self.bring_to_life(1, area, node::with_owner(node::empty(class), 0));
        self.counts().transfer(crate::count::UNCLAIMED, class, AREA);
        self.gate.leave();
        self.counts().take(class, u64::from(word::FRAMES));
        Some(Owned { word, pfn, cached: !0 })
    }

    /// A word of one area; counts `tries` down if the area has free frames only in words that cannot be owned.
    fn own_in_area(&self, area: usize, class: u8, busy: &mut bool, tries: &mut u32) -> Option<Owned> {
        let at = self.node(1, area);
        let mut skip = 0;
        let mut unsuited = false;
        let mut value = at.load(Acquire);
        loop {
            if value == node::DEAD
                || value & (node::ISOLATED | node::OWNER) != 0
                || node::class(value) != class
            {
                return None;
            }
            let [small, big, empty] =
                [level::SMALL, level::BIG, level::EMPTY].map(|level| node::split_at(value, level) & !skip);
            let choices = [small, big, empty, node::free(value) & !skip];
            let Some(mask) = choices.into_iter().find(|mask| *mask != 0) else {
                if unsuited {
                    *tries = tries.saturating_sub(1);
                } else {
                    self.retract(1, area, class, 1);
                }
                return None;
            };
            let child = mask.trailing_zeros();
            let fresh = node::child(value, child) == Child::Free;
            let word = self.child_index(1, area, child);
            if !fresh {
                // Most words that do not suit are told from one load, before the area is marked.
                let now = self.word(word).load(Acquire);
                if word::only_singles(now).unwrap_or(0) == 0 {
                    if word::is_full(now) {
                        *busy |= !self.settle(area, child, word);
                    } else {
                        *busy |= now == word::DEAD;
                        unsuited = true;
                    }
                    skip |= 1 << child;
                    value = at.load(Acquire);
                    continue;
                }
            }
            let new = node::with_owner(value, child);
            // INVARIANT: W1: only one compare-and-swap sets the mark.
            if let Err(now) = at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                value = now;
                continue;
            }
            let pfn = self.child_pfn(1, area, child);
            // INVARIANT: W2: Release pairs with the Acquire of who sees the word owned.
            self.inbox(area).store(open_for(child), Release);
            let cached = if fresh {
                // By B2 the dead word is ours. Release: who sees it owned sees the inbox open.
                self.word(word).store(word::owned(!0), Release);
                Some(!0)
            } else {
                self.own_word(word, busy)
            };
            if let Some(cached) = cached {
                self.counts().take(class, u64::from(cached.count_ones()));
                return Some(Owned { word, pfn, cached });
            }
            self.inbox(area).store(0, Relaxed);
            self.disown_area(area, child, word);
            skip |= 1 << child;
            value = at.load(Acquire);
        }
    }

    /// Turns a live word with nothing but single frames into an owned one: its free frames, unless there are none.
    fn own_word(&self, index: usize, busy: &mut bool) -> Option<u32> {
        let at = self.word(index);
        let mut value = at.load(Acquire);
        loop {
            *busy |= value == word::DEAD;
            let free = word::only_singles(value).filter(|free| *free != 0)?;
            // Acquire pairs with the Release of the frees; Release: who sees it owned sees the inbox open.
            match at.compare_exchange_weak(value, word::owned(free), AcqRel, Acquire) {
                Ok(_) => return Some(free),
                Err(now) => value = now,
            }
        }
    }

    /// Takes the owner's mark off an area and restores the hint of the word that was owned.
    fn disown_area(&self, area: usize, child: u32, word: usize) {
        let at = self.node(1, area);
        let mut value = at.load(Relaxed);
        while let Err(now) = at.compare_exchange_weak(value, node::without_owner(value), AcqRel, Relaxed) {
            value = now;
        }
        let now = self.word(word).load(Acquire);
        if now != word::DEAD {
            self.raise(1, area, child, word::serves(now), word::largest(now));
        }
    }

    /// Takes the frames of an owned word that others freed.
    #[inline]
    pub(crate) fn empty_inbox(&self, owned: &mut Owned) {
        let inbox = self.inbox(owned.area());
        if inbox.load(Relaxed) & FREED == 0 {
            return;
        }
        // Acquire pairs with the Release in `free_to_owner`: we see all that the frames' last users did.
        let freed = inbox.load(Acquire) as u32;
        owned.cached |= freed;
        self.word(owned.word).store(word::owned(owned.cached), Relaxed);
        // Release: who finds the letters gone finds the frames in the cache (W3).
        inbox.fetch_and(!u64::from(freed), AcqRel);
    }

    /// Gives an owned word back to everybody.
    pub(crate) fn disown(&self, owned: Owned) {
        if owned.word == usize::MAX {
            return;
        }
        let (area, child) = (owned.area(), owned.child());
        let class = node::class(self.node(1, area).load(Relaxed));
        let at = self.word(owned.word);
        // Release pairs with the Acquire of who takes the frames. By W1 nobody else writes the word until now.
        at.store(word::singles(!owned.cached), Release);
        let mut given = owned.cached.count_ones();
        // Letters that came since we looked last are freed in the word, and only then is the inbox closed (W2, W3).
        // Acquire: we pass on what the frames' last users did.
        let mut letters = self.inbox(area).load(Acquire);
        let mut done = 0;
        loop {
            let fresh = letters & FREED & !done;
            if fresh != 0 {
                given += (at.fetch_and(!fresh, AcqRel) & fresh).count_ones();
                done |= fresh;
            }
            match self.inbox(area).compare_exchange_weak(letters, 0, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => letters = now,
            }
        }
        if given != 0 {
            self.counts().give(class, u64::from(given));
        }
        self.disown_area(area, child, owned.word);
    }

    /// Whether a frame of a word that is being given up lies in the inbox: it was freed already.
    #[cold]
    pub(crate) fn is_in_inbox(&self, area: usize, child: u32, offset: u32) -> bool {
        // Acquire: if the inbox reads closed, the word's own value is read anew by the compare-and-swap that follows.
        let letters = self.inbox(area).load(Acquire);
        letters & !FREED == open_for(child) && letters >> offset & 1 == 1
    }

    /// Frees a frame of a word that another CPU owns; `None` if it is not owned any more.
    pub(crate) fn free_to_owner(
        &self,
        index: usize,
        pfn: Pfn,
        order: Order,
    ) -> Option<Result<(), FreeError>> {
        let offset = pfn.get() as u32 & (word::FRAMES - 1);
        let (area, child) = (index / CHILDREN as usize, (index % CHILDREN as usize) as u32);
        let value = self.word(index).load(Acquire);
        if !word::is_owned(value) {
            return None;
        }
        if value >> offset & 1 == 0 {
            return Some(Err(FreeError::Cached { pfn }));
        }
        if order != Order::ZERO {
            return Some(Err(FreeError::WrongOrder { pfn, order }));
        }
        let inbox = self.inbox(area);
        let mut letters = inbox.load(Acquire);
        loop {
            if letters & !FREED != open_for(child) {
                return None;
            }
            if letters >> offset & 1 == 1 {
                return Some(Err(FreeError::Cached { pfn }));
            }
            // Release pairs with the Acquire of the owner's swap.
            match inbox.compare_exchange_weak(letters, letters | 1 << offset, AcqRel, Acquire) {
                Ok(_) => return Some(Ok(())),
                Err(now) => letters = now,
            }
        }
    }
}
