//! Words that a CPU owns, and the inbox through which others free frames of them.
//!
//! An owned word is written by its owner only, with plain stores: that is why the cached path needs no atomic
//! read-modify-write. Everybody else may read it, so a free of a cached frame is refused whoever tries it. A CPU owns words
//! of one area for each type: the one that it hands out from, and, where it took several whole ones at once, *spare* ones
//! of which every frame is cached. A free of a frame that *is* handed out goes into the area's inbox, which is open for
//! that one word. To go on to a spare word, the owner gives up the full one and turns the inbox over to the next: one
//! read-modify-write for 32 frames.
//!
//! ```text
//! inbox  63    36..32   31..0
//!       [open][ child ][freed by others]
//! ```
//!
//! # Two frees of one frame
//!
//! A free that begins after another one of the same frame returned is refused, whoever makes the two: it finds the frame
//! cached, in the inbox, or free in the word. Of two that *overlap*, elsewhere exactly one succeeds, because both change
//! one word by a compare-and-swap. Here both may: the owner's own free is a plain store, and a free into the inbox that
//! looked at the word before it decides after it. To settle that, one side would have to write, pass a full fence and look
//! again, which is the read-modify-write that the owner does without; and the same while a word is given up, where one
//! free may still reach the inbox while another finds the word ordinary already (whoever waited there for the owner's
//! next step would wait for ever if it interrupted the owner). The books stay right: each frame is counted once, because
//! who applies a letter counts only what it finds allocated. What is lost is what any late second free takes: the frame
//! may be taken from its next user. `tests/loom` has the first race.
//!
//! # Invariants
//!
//! - **W1** an area that says [`node::OWNER`] has one owner, who alone writes the owned words and opens the inbox.
//! - **W2** the inbox is open for a word from before the first of its frames is handed out until after it no longer reads
//!   as owned, so a free that saw the word owned either gets into the inbox in time or finds it closed to it and looks at
//!   the word again.
//! - **W3** a letter stays in the inbox until its frame is free in the word or in the cache, so a second free of that
//!   frame finds the one or the other, at any time.

use pnode_core::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use pnode_core::{FreeError, Order, Pfn};

use crate::geometry::{AREA, group_of};
use crate::node::{self, CHILDREN, Child};
use crate::search::BEFORE;
use crate::word::{self, level};
use crate::zone::Zone;

/// How many areas with nothing but unsuitable words a CPU looks at before it does without a word of its own.
const AREAS_TRIED: u32 = 4;

const OPEN: u64 = 1 << 63;
const FREED: u64 = 0xffff_ffff;

const fn open_for(child: u32) -> u64 {
    OPEN | (child as u64) << 32
}

/// One more whole word may be owned for so many times as many frames in the zone.
const SHARE: u32 = if cfg!(loom) { 1 } else { 1 << 9 };

/// Words that a CPU owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned {
    /// The index of the word that frames are handed out from, or `usize::MAX` for none.
    pub(crate) word: usize,
    /// Its first frame.
    pub(crate) pfn: u64,
    /// Its frames that are in the cache.
    pub(crate) cached: u32,
    /// The class of its area, from whose count the frames were taken.
    pub(crate) class: u8,
    /// The spare words, as children of the area.
    spare: u32,
}

impl Owned {
    pub(crate) const NONE: Self = Self { word: usize::MAX, pfn: u64::MAX, cached: 0, class: 0, spare: 0 };

    fn area(&self) -> usize {
        self.word / CHILDREN as usize
    }

    fn child(&self) -> u32 {
        (self.word % CHILDREN as usize) as u32
    }

    /// The frames in the cache.
    pub(crate) fn frames(&self) -> u64 {
        u64::from(self.cached.count_ones() + self.spare.count_ones() * word::FRAMES)
    }
}

impl Zone<'_> {
    /// Makes a word with free frames of an area of `class` the caller's, or of one that the class fills too, the fullest word
    /// that is known first, so that whole words are left whole; or several whole ones. The frames are still to leave the
    /// count of the area's class.
    ///
    /// `None` does not mean that nothing is free: a word with a block of several frames cannot be owned, and the search
    /// for another ends after a few areas. Otherwise also how many frames of a new area the class gained.
    pub(crate) fn own(&self, class: u8, busy: &mut bool) -> Option<(Owned, u64)> {
        let mut tries = AREAS_TRIED;
        let group = group_of(0, class);
        for &group in [group].iter().chain(BEFORE[group as usize]) {
            let found = self.each_candidate(1, group, 1, |area| {
                let found = self.own_in_area(area, group, busy, &mut tries);
                (found.is_some() || tries == 0).then_some(found)
            });
            if let Some(found) = found {
                return Some((found?, 0));
            }
        }
        let pfn = self.claim_split(2, busy)?;
        let area = self.index(1, pfn);
        let words = self.whole_words(0xffff);
        // By B2 the area and its words are ours until it is live.
        let owned = self.open(area, class, words);
        self.bring_to_life(1, area, node::with_owner(node::empty(group), words));
        self.gate.leave();
        Some((owned, AREA))
    }

    /// Of the whole words in `mask`, the first, and as many of the next as a CPU may own at once in this zone.
    fn whole_words(&self, mask: u64) -> u64 {
        let most = (self.span().frames() / u64::from(SHARE * word::FRAMES)).clamp(1, u64::from(CHILDREN));
        let mut left = mask;
        for _ in 0..most {
            left &= left.wrapping_sub(1);
        }
        mask & !left
    }

    /// Makes dead words of an area that are ours (B2) read as owned, and opens the inbox for the first.
    fn open(&self, area: usize, class: u8, words: u64) -> Owned {
        let child = words.trailing_zeros();
        // INVARIANT: W2: Release pairs with the Acquire of who sees the word owned.
        self.inbox(area).store(open_for(child), Release);
        let mut left = words;
        while left != 0 {
            let word = self.child_index(1, area, left.trailing_zeros());
            // Release: who sees it owned sees the inbox open.
            self.word(word).store(word::owned(!0), Release);
            left &= left - 1;
        }
        let word = self.child_index(1, area, child);
        Owned { word, pfn: self.word_pfn(word), cached: !0, class, spare: (words & (words - 1)) as u32 }
    }

    /// A word of one area; counts `tries` down if the area has free frames only in words that cannot be owned.
    fn own_in_area(&self, area: usize, group: u8, busy: &mut bool, tries: &mut u32) -> Option<Owned> {
        let at = self.node(1, area);
        let mut skip = 0;
        let mut unsuited = false;
        let mut value = at.load(Acquire);
        loop {
            if value == node::DEAD
                || value & (node::ISOLATED | node::OWNER) != 0
                || node::group(value) != group
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
                    self.retract(1, area, group, 1);
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
            let words = if fresh { self.whole_words(mask) } else { 1 << child };
            let new = node::with_owner(value, words);
            // INVARIANT: W1: only one compare-and-swap sets the mark.
            if let Err(now) = at.compare_exchange_weak(value, new, AcqRel, Acquire) {
                value = now;
                continue;
            }
            if fresh {
                return Some(self.open(area, group >> 1, words));
            }
            // INVARIANT: W2: Release pairs with the Acquire of who sees the word owned.
            self.inbox(area).store(open_for(child), Release);
            if let Some(cached) = self.own_word(word, busy) {
                return Some(Owned { word, pfn: self.word_pfn(word), cached, class: group >> 1, spare: 0 });
            }
            self.inbox(area).store(0, Relaxed);
            self.disown_area(area, 0);
            self.restore_hint(area, child, word);
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

    /// Takes the owner's mark off an area, and gives its children in `spare`, whose words are dead and ours, back.
    fn disown_area(&self, area: usize, spare: u64) {
        let at = self.node(1, area);
        let mut value = at.load(Relaxed);
        loop {
            let new = node::without_owner(node::with_free(value, spare));
            let new = if spare == 0 { new } else { node::advertised_up(new) };
            // Release pairs with the Acquire of the search that takes the children: it sees their words dead.
            match at.compare_exchange_weak(value, new, Release, Relaxed) {
                Ok(_) if spare != 0 => return self.rose(1, area, node::advertised(value), new),
                Ok(_) => return,
                Err(now) => value = now,
            }
        }
    }

    /// Restores the hint of a word that was owned.
    fn restore_hint(&self, area: usize, child: u32, word: usize) {
        let now = self.word(word).load(Acquire);
        if now != word::DEAD && !word::is_full(now) {
            self.raise(1, area, child, word::serves(now), word::largest(now));
        }
    }

    /// Whether others freed a frame of the word that frames are handed out from.
    #[inline(always)]
    pub(crate) fn was_freed_by_others(&self, owned: &Owned, bit: u32) -> bool {
        // Relaxed: a free that is over was told of, and so is seen; of one that is not, see the essay above.
        self.inbox(owned.area()).load(Relaxed) as u32 & bit != 0
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

    /// Gives the owned words back to everybody; the class whose count they enter, and how many frames.
    pub(crate) fn disown(&self, owned: Owned) -> (u8, u64) {
        if owned.word == usize::MAX {
            return (0, 0);
        }
        let area = owned.area();
        let mut left = owned.spare;
        while left != 0 {
            // By W1 nobody else writes the word, and nobody has a frame of it. Its area's mark is what passes it on.
            self.word(self.child_index(1, area, left.trailing_zeros())).store(word::DEAD, Relaxed);
            left &= left - 1;
        }
        let given = self.give_up(&owned, 0) + owned.spare.count_ones() * word::FRAMES;
        self.disown_area(area, u64::from(owned.spare));
        self.restore_hint(area, owned.child(), owned.word);
        (owned.class, u64::from(given))
    }

    /// Goes on to a spare word, if there is one, because the other has nothing cached; how many frames others freed in
    /// that one since its inbox was emptied.
    pub(crate) fn turn(&self, owned: &mut Owned) -> Option<u32> {
        if owned.spare == 0 {
            return None;
        }
        let (area, old) = (owned.area(), *owned);
        let child = owned.spare.trailing_zeros();
        let given = self.give_up(&old, open_for(child));
        let word = self.child_index(1, area, child);
        *owned =
            Owned { word, pfn: self.word_pfn(word), cached: !0, spare: old.spare & (old.spare - 1), ..old };
        if given != 0 {
            self.restore_hint(area, old.child(), old.word);
        }
        Some(given)
    }

    /// Makes the word that frames were handed out from an ordinary one, and leaves the inbox to `next`; the frames that
    /// become free by that. The word's hint is still to be raised.
    fn give_up(&self, owned: &Owned, next: u64) -> u32 {
        let at = self.word(owned.word);
        // Release pairs with the Acquire of who takes the frames. By W1 nobody else writes the word until now.
        at.store(word::singles(!owned.cached), Release);
        let mut given = owned.cached.count_ones();
        // Letters that came since we looked last are freed in the word, and only then is the inbox closed (W2, W3).
        // Acquire: we pass on what the frames' last users did.
        let inbox = self.inbox(owned.area());
        let mut letters = inbox.load(Acquire);
        let mut done = 0;
        loop {
            let fresh = letters & FREED & !done;
            if fresh != 0 {
                given += (at.fetch_and(!fresh, AcqRel) & fresh).count_ones();
                done |= fresh;
            }
            match inbox.compare_exchange_weak(letters, next, AcqRel, Acquire) {
                Ok(_) => return given,
                Err(now) => letters = now,
            }
        }
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
