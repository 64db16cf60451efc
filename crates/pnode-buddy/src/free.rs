//! Taking a block back: one validated compare-and-swap on the word that decides about it.

use pnode_core::sync::Ordering::{Acquire, Relaxed, Release};
use pnode_core::sync::{fence_after_rmw, spin_loop};
use pnode_core::{FreeError, Order, Pfn};

use crate::count::{CACHED, UNCLAIMED};
use crate::geometry::{TOP, child_order, level_of};
use crate::node::{self, CHILDREN, Child, advert};
use crate::word::{self, Frame, level};
use crate::zone::Zone;

impl Zone<'_> {
    /// Gives back the block of `order` at `pfn`.
    ///
    /// The same compare-and-swap that frees the block verifies it: its first frame, its order, and that it is
    /// allocated, in release builds too.
    ///
    /// # Errors
    ///
    /// [`FreeError`], and nothing has changed.
    pub fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let class = self.release(pfn, order)?;
        if class != CACHED {
            self.counts().give(class, order.frames());
        }
        Ok(())
    }

    /// [`Zone::free`] without the accounting: whose count the block enters.
    #[inline]
    pub(crate) fn release(&self, pfn: Pfn, order: Order) -> Result<u8, FreeError> {
        let freed = if order.get() < word::ORDER {
            self.place(pfn, order.get()).and_then(|(index, offset)| {
                // Acquire: if the word was owned before, we see its area marked.
                self.free_in_word(index, offset, order.get(), self.word(index).load(Acquire))
            })
        } else if self.covers(pfn, order) && pfn.is_aligned(order) {
            let level = level_of(order.get());
            self.free_in_node(level, self.index(level, pfn.get()), pfn, order.get()).map(|(class, _)| class)
        } else {
            None
        };
        match freed {
            Some(class) => Ok(class),
            None => self.free_otherwise(pfn, order),
        }
    }

    /// Frees a block in a word that was `value`; whose count it enters, or `None` if the word does not hold that block.
    #[inline(always)]
    pub(crate) fn free_in_word(&self, index: usize, offset: u32, order: u8, value: u64) -> Option<u8> {
        let (area, child) = (index / CHILDREN as usize, index as u32 % CHILDREN);
        let at = self.word(index);
        // The area of an allocated block is live and keeps its class until the block is free, so the class is read
        // before. (If the block is not allocated, the value is not used.)
        let books = self.node(1, area).load(Relaxed);
        if books & node::OWNER != 0 {
            return self.free_beside_owned(index, offset, order);
        }
        let pattern = word::pattern(offset, order);
        let mut value = value;
        let new = loop {
            if !word::holds(value, offset, order) {
                return None;
            }
            // Release pairs with the Acquire in `alloc_in_word`: the next owner sees all that this one did.
            match at.compare_exchange_weak(value, value & !pattern, Release, Relaxed) {
                Ok(_) => break value & !pattern,
                Err(now) => value = now,
            }
        };
        // Pairs with the fence in `settle`: who lowered the hint below sees our free, or we see the hint lowered.
        fence_after_rmw();
        self.freed_in_word(area, child, new, offset, order);
        Some(node::class(books))
    }

    /// After a free in a word, which is `now`: raises what its area says of it, unless that is enough.
    #[inline(always)]
    pub(crate) fn freed_in_word(&self, area: usize, child: u32, now: u64, offset: u32, order: u8) {
        let value = self.node(1, area).load(Relaxed);
        let hint = node::hint(value, child);
        if hint == node::HINT_EMPTY {
            return;
        }
        // The smallest order of a merged block that would be news. One test, because how far a block merges is what no
        // branch predictor can know.
        let news = match hint {
            node::HINT_FULL => 0,
            node::HINT_SMALL => node::advertised(value).min(word::SMALL + 1),
            _ => node::advertised(value).min(word::ORDER),
        };
        if word::is_free_around(now, offset, news) {
            self.raise_merged(area, child, now, offset, order);
        }
    }

    #[cold]
    #[inline(never)]
    fn raise_merged(&self, area: usize, child: u32, now: u64, offset: u32, order: u8) {
        let merged = word::merged(now, offset, order);
        let promised = match merged {
            word::ORDER => level::EMPTY,
            0..=word::SMALL => level::SMALL,
            _ => level::BIG,
        };
        self.raise(1, area, child, promised, merged + 1);
    }

    /// Frees a block of at least the order of a word in its node; whose count it enters and what the node is now, or
    /// `None` if the node does not hold that block.
    #[inline(always)]
    pub(crate) fn free_in_node(&self, level: usize, index: usize, pfn: Pfn, order: u8) -> Option<(u8, u64)> {
        let at = self.node(level, index);
        let child = self.child_of(level, pfn.get());
        let run = order - child_order(level);
        let mut value = at.load(Relaxed);
        loop {
            if !node::holds(value, child, run) {
                return None;
            }
            let new = node::advertised_up(node::with_free(value, node::run_mask(child, run)));
            // Release pairs with the Acquire of the search that takes the children.
            match at.compare_exchange_weak(value, new, Release, Relaxed) {
                Ok(_) => {
                    // INVARIANT: B4: a node that advertises everything needs to tell nobody.
                    if node::advertised(value) != advert::EMPTY {
                        self.rose(level, index, node::advertised(value), new);
                    }
                    return Some((if level == 1 { node::class(value) } else { UNCLAIMED }, new));
                }
                Err(now) => value = now,
            }
        }
    }

    /// The block is in a word that a CPU owns, or it cannot be freed.
    #[cold]
    pub(crate) fn free_otherwise(&self, pfn: Pfn, order: Order) -> Result<u8, FreeError> {
        if !self.covers(pfn, order) {
            return Err(FreeError::OutOfZone { pfn });
        }
        if !pfn.is_aligned(order) {
            return Err(FreeError::Misaligned { pfn, order });
        }
        if order.get() < word::ORDER {
            let offset = pfn.get() as u32 & (word::FRAMES - 1);
            let index = self.word_index(pfn.get());
            while word::is_owned(self.word(index).load(Acquire)) {
                if let Some(freed) = self.free_to_owner(index, pfn, order) {
                    return freed.map(|()| CACHED);
                }
                spin_loop();
            }
            // The owner may have given the word up since we looked first.
            if let Some(class) = self.free_beside_owned(index, offset, order.get()) {
                return Ok(class);
            }
        }
        Err(self.refusal(pfn, order))
    }

    /// [`Zone::free_in_word`] in an area of which a CPU owns words. If it is just giving this one up, the block may lie in
    /// the inbox, freed already.
    #[inline(never)]
    fn free_beside_owned(&self, index: usize, offset: u32, order: u8) -> Option<u8> {
        let (area, child) = (index / CHILDREN as usize, index as u32 % CHILDREN);
        let at = self.word(index);
        let pattern = word::pattern(offset, order);
        let mut value = at.load(Acquire);
        let books = self.node(1, area).load(Acquire);
        loop {
            let posted = books & node::OWNER != 0 && self.is_in_inbox(area, child, offset);
            if posted || !word::holds(value, offset, order) {
                return None;
            }
            // As in `free_in_word`.
            match at.compare_exchange_weak(value, value & !pattern, Release, Acquire) {
                Ok(_) => break,
                Err(now) => value = now,
            }
        }
        fence_after_rmw();
        self.freed_in_word(area, child, value & !pattern, offset, order);
        Some(node::class(books))
    }

    /// Says why a block cannot be freed: looks for what is there instead.
    #[cold]
    fn refusal(&self, pfn: Pfn, order: Order) -> FreeError {
        let mut level = TOP;
        let area = loop {
            let value = self.node(level, self.index(level, pfn.get())).load(Acquire);
            if value == node::DEAD {
                // On its way up: nothing is allocated here.
                return FreeError::NotAllocated { pfn };
            }
            match node::child(value, self.child_of(level, pfn.get())) {
                Child::Free => return FreeError::NotAllocated { pfn },
                Child::Absent => return self.absence(pfn),
                Child::Head | Child::Tail => return FreeError::WrongOrder { pfn, order },
                Child::Split(_) if level > 1 => level -= 1,
                Child::Split(_) => break value,
            }
        };
        let offset = pfn.get() as u32 & (word::FRAMES - 1);
        match self.word(self.word_index(pfn.get())).load(Acquire) {
            word::DEAD => FreeError::NotAllocated { pfn },
            now if word::is_owned(now) && now >> offset & 1 == 0 => FreeError::Cached { pfn },
            now if word::is_owned(now) => FreeError::WrongOrder { pfn, order },
            now => match word::frame(now, offset) {
                Frame::Free => FreeError::NotAllocated { pfn },
                // It looks right, so it was refused because it lies in an inbox, or was freed since.
                Frame::Head if order.get() < word::ORDER && word::holds(now, offset, order.get()) => {
                    FreeError::Cached { pfn }
                }
                Frame::Head | Frame::Tail => FreeError::WrongOrder { pfn, order },
                Frame::Absent if area & node::HOLED == 0 => FreeError::Cached { pfn },
                Frame::Absent => self.absence(pfn),
            },
        }
    }
}
