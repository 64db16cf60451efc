//! Blocks of several frames, and single ones from anywhere, that a CPU keeps for its next allocation of that order.
//!
//! A freed block goes onto the shelf of the CPU that freed it, if there is room, and the next allocation of its order
//! and type takes it from there: one read-modify-write each, no search, no hint to raise or to lower. Buddies on a
//! shelf do not merge, so a shelf is short; a block that finds it full goes back to the zone. (Linux keeps lists of
//! small orders a CPU for the same reason, `mm/page_alloc.c`; what differs is that the word *says* so.)
//!
//! # Invariants
//!
//! - **S1** a block whose first frame is [`word::away`] lies on exactly one shelf, and only the CPU of that shelf changes
//!   its bits: whoever frees it again finds that it is cached.
//! - **S2** no word reads as owned by what lies on shelves, and none of an area that is [`node::HOLED`] has anything there.

use pnode_core::sync::Ordering::{Relaxed, Release};
use pnode_core::sync::fence_after_rmw;
use pnode_core::{Order, Pfn};

use crate::geometry::CLASSES;
use crate::node::{self, CHILDREN};
use crate::word;
use crate::zone::Zone;

/// Orders that a shelf takes: those below a word.
const ORDERS: usize = word::ORDER as usize;
/// Blocks of each order that a shelf takes at most.
const ROOM: [u8; ORDERS] = [128, 128, 64, 32, 16];
const START: [u16; ORDERS] = [0, 128, 256, 320, 352];
const BLOCKS: usize = 368;
/// The blocks of one order on a shelf are at most this share of the zone.
const SHARE: u64 = 1 << 10;
/// A block's number and, above, the class of its area.
const CLASS: u32 = 30;
/// So many of the last blocks of an order are looked at for one of the right class.
const DEPTH: u8 = 4;

/// What a CPU keeps of each order, the last one on top.
pub(crate) struct Shelf {
    len: [u8; ORDERS],
    room: [u8; ORDERS],
    /// First frames, counted from the start of the zone.
    blocks: [u32; BLOCKS],
}

impl Shelf {
    /// A shelf with no room.
    pub(crate) const NONE: Self = Self { len: [0; ORDERS], room: [0; ORDERS], blocks: [0; BLOCKS] };

    /// An empty shelf for blocks of `zone`.
    pub(crate) fn new(zone: &Zone<'_>) -> Self {
        let mut shelf = Self::NONE;
        for ((room, most), order) in shelf.room.iter_mut().zip(ROOM).zip(0..) {
            *room = ((zone.span().frames() / SHARE) >> order).min(u64::from(most)) as u8;
        }
        shelf
    }

    #[inline]
    pub(crate) fn has_room(&self, order: u8) -> bool {
        let order = order as usize;
        order < ORDERS && self.len[order] < self.room[order]
    }

    /// Whether nothing of `order` is on it.
    #[inline]
    pub(crate) fn is_empty(&self, order: Order) -> bool {
        let order = order.get() as usize;
        order >= ORDERS || self.len[order] == 0
    }

    #[inline]
    fn put(&mut self, order: usize, block: u32) {
        let len = self.len[order];
        self.blocks[usize::from(START[order]) + usize::from(len)] = block;
        self.len[order] = len + 1;
    }

    /// A block of `order` and `class`, if one of the last is of that class.
    #[inline]
    fn take(&mut self, order: usize, class: u8) -> Option<u32> {
        let last = self.len[order].checked_sub(1)?;
        let top = usize::from(START[order]) + usize::from(last);
        let block = self.blocks[top];
        if block >> CLASS == u32::from(class) {
            self.len[order] = last;
            return Some(block & ((1 << CLASS) - 1));
        }
        self.take_below(order, class)
    }

    #[cold]
    fn take_below(&mut self, order: usize, class: u8) -> Option<u32> {
        let start = usize::from(START[order]);
        let len = usize::from(self.len[order]);
        let blocks = self.blocks.get_mut(start..start + len)?;
        let from = len.saturating_sub(usize::from(DEPTH));
        let at = from + blocks.get(from..)?.iter().rposition(|block| block >> CLASS == u32::from(class))?;
        let block = blocks[at];
        blocks[at] = blocks[len - 1];
        self.len[order] -= 1;
        Some(block & ((1 << CLASS) - 1))
    }

    /// Whether there is no room for a block of `order`: nobody takes one either, if the last ones are of other classes.
    pub(crate) fn is_full(&self, order: Order) -> bool {
        let order = order.get() as usize;
        self.len[order] == self.room[order]
    }

    /// Any block of `order`.
    fn pop(&mut self, order: usize) -> Option<u32> {
        let last = self.len[order].checked_sub(1)?;
        self.len[order] = last;
        Some(self.blocks[usize::from(START[order]) + usize::from(last)])
    }

    /// The frames on it.
    pub(crate) fn frames(&self) -> u64 {
        self.len.iter().zip(0..).map(|(len, order)| u64::from(*len) << order).sum()
    }
}

impl Zone<'_> {
    /// Puts a block that is allocated in its word, which was `value`, onto a shelf that has room for it; `false` if it has
    /// to go elsewhere, or the word does not hold that block.
    #[inline]
    pub(crate) fn shelve(
        &self,
        shelf: &mut Shelf,
        pfn: Pfn,
        order: u8,
        (index, value): (usize, u64),
    ) -> bool {
        let area = index / CHILDREN as usize;
        let offset = pfn.get() as u32 & (word::FRAMES - 1);
        let books = self.node(1, area).load(Relaxed);
        let block = pfn.get() - self.span().start().get();
        if books & (node::HOLED | node::ISOLATED | node::OWNER) != 0 || block >> CLASS != 0 {
            return false;
        }
        let at = self.word(index);
        let mut value = value;
        loop {
            let new = value ^ word::away(offset);
            // INVARIANT: S2.
            if !word::holds(value, offset, order) || word::is_owned(new) {
                return false;
            }
            // Relaxed: the block stays with this CPU. INVARIANT: S1: of two frees, one finds the block held.
            match at.compare_exchange_weak(value, new, Relaxed, Relaxed) {
                Ok(_) => break,
                Err(now) => value = now,
            }
        }
        // The area of an allocated block keeps its class.
        shelf.put(order as usize, block as u32 | u32::from(node::class(books)) << CLASS);
        true
    }

    /// Takes a block of `order` from a shelf: allocated, and not yet admitted.
    #[inline]
    pub(crate) fn unshelve(&self, shelf: &mut Shelf, order: Order, class: u8) -> Option<Pfn> {
        let pfn = self.span().start().get() + u64::from(shelf.take(order.get() as usize, class)?);
        // Relaxed: by S1 nobody else changes these bits.
        self.word(self.word_index(pfn)).fetch_xor(word::away(pfn as u32 & (word::FRAMES - 1)), Relaxed);
        Some(Pfn::new(pfn))
    }

    /// Frees the blocks on a shelf; the frames that enter the count of each class.
    pub(crate) fn clear(&self, shelf: &mut Shelf) -> [u64; CLASSES] {
        let mut frames = [0; CLASSES];
        for order in 0..ORDERS {
            while let Some(block) = shelf.pop(order) {
                let pfn = self.span().start().get() + u64::from(block & ((1 << CLASS) - 1));
                self.free_shelved(pfn, order as u8);
                frames[(block >> CLASS) as usize] += 1 << order;
            }
        }
        frames
    }

    fn free_shelved(&self, pfn: u64, order: u8) {
        let at = self.word(self.word_index(pfn));
        let offset = pfn as u32 & (word::FRAMES - 1);
        let mut value = at.load(Relaxed);
        let new = loop {
            let new = word::with_free(value, offset, order);
            // Release pairs with the Acquire in `alloc_in_word`: the next owner sees all that the last one did.
            match at.compare_exchange_weak(value, new, Release, Relaxed) {
                Ok(_) => break new,
                Err(now) => value = now,
            }
        };
        // Pairs with the fence in `settle`, as in a free.
        fence_after_rmw();
        self.freed_in_word(self.index(1, pfn), self.child_of(1, pfn), new, offset, order);
    }
}

const _: () = {
    let mut order = 0;
    let mut next = 0;
    while order < ORDERS {
        assert!(START[order] as usize == next);
        next += ROOM[order] as usize;
        order += 1;
    }
    assert!(next == BLOCKS && CLASSES <= 1 << (32 - CLASS));
};
