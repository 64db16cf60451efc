//! The large block that a CPU freed last, with the two values of its node: without the block and with it.
//!
//! An allocation and a free of the same block change one node to and fro. A CPU that remembers both values does either by
//! one compare-and-swap, with nothing to load and nothing to work out before: what a node says is all in its value (**B1**),
//! so if it is what it was, the block is what it was, whatever happened in between. If it is not, the ordinary way looks.
//!
//! Nothing is kept by this: the block is free in the zone. And it is forgotten as soon as a block of another order is
//! asked for, since what was freed last is a worse place than the search's (for mixed churn, one block an order left
//! 0.44 of the ideal whole where this leaves 0.52).

use pnode_core::sync::Ordering::{Acquire, Relaxed, Release};
use pnode_core::{Order, Pfn};

use crate::count::UNCLAIMED;
use crate::geometry::{CLASSES, child_order, level_of};
use crate::node;
use crate::zone::Zone;

/// A large block that this CPU freed, and may have taken again.
#[derive(Clone, Copy)]
pub(crate) struct Recent {
    pfn: Pfn,
    /// The index of its node in its level.
    index: usize,
    /// The node without the block.
    free: u64,
    /// The node with the block. It advertises what the other does, so that a free has nobody to tell.
    held: u64,
    order: u8,
    /// The classes that it may be given to, as bits: none while it is held or forgotten.
    serves: u8,
    /// Whose count it belongs to.
    class: u8,
}

impl Recent {
    // No large block starts at the last frame of the number space.
    pub(crate) const NONE: Self =
        Self { pfn: Pfn::new(u64::MAX), index: 0, free: 0, held: 0, order: 0, serves: 0, class: 0 };
}

impl Zone<'_> {
    /// Takes the block that this CPU freed last, if it is of `order`, free still, and suits `class`: the block, not yet
    /// admitted, and whose count it leaves.
    #[inline(always)]
    pub(crate) fn claim_recent(&self, recent: &mut Recent, order: Order, class: u8) -> Option<(Pfn, u8)> {
        let suits = recent.order == order.get() && recent.serves >> class & 1 == 1;
        recent.serves = 0;
        if !suits {
            return None;
        }
        let at = self.node(level_of(order.get()), recent.index);
        // Acquire pairs with the Release of a free, if somebody had the block meanwhile.
        match at.compare_exchange(recent.free, recent.held, Acquire, Relaxed) {
            Ok(_) => Some((recent.pfn, recent.class)),
            Err(now) => self.claim_changed(recent, now),
        }
    }

    /// [`Zone::claim_recent`] in a node that is `now` something else.
    #[cold]
    #[inline(never)]
    fn claim_changed(&self, recent: &mut Recent, now: u64) -> Option<(Pfn, u8)> {
        let level = level_of(recent.order);
        let at = self.node(level, recent.index);
        let run = recent.order - child_order(level);
        let child = self.child_of(level, recent.pfn.get());
        let mask = node::run_mask(child, run);
        let mut value = now;
        loop {
            let suits = value & node::ISOLATED == 0 && (level > 1 || node::class(value) == recent.class);
            if value == node::DEAD || node::free(value) & mask != mask || !suits {
                return None;
            }
            // Acquire pairs with the Release of the frees.
            match at.compare_exchange_weak(value, node::with_block(value, child, run), Acquire, Relaxed) {
                // What this node is without the block was not looked at: the free of it does.
                Ok(_) => return Some((recent.pfn, recent.class)),
                Err(now) => value = now,
            }
        }
    }

    /// Frees the block of `order` at `pfn` if it is the one that this CPU took again; whose count it enters.
    #[inline(always)]
    pub(crate) fn free_recent(&self, recent: &mut Recent, pfn: Pfn, order: Order) -> Option<u8> {
        if recent.pfn != pfn || recent.order != order.get() {
            return None;
        }
        let at = self.node(level_of(order.get()), recent.index);
        // Release pairs with the Acquire of the search that takes the children. INVARIANT: B4: a node that was wholly free
        // before advertises so with the block, too.
        at.compare_exchange(recent.held, recent.free, Release, Relaxed).ok()?;
        recent.serves = serves(recent.class);
        Some(recent.class)
    }

    /// What to remember of a block that was just freed, which made its node `now`.
    #[inline(always)]
    pub(crate) fn remember(&self, pfn: Pfn, order: Order, index: usize, (class, now): (u8, u64)) -> Recent {
        let level = level_of(order.get());
        let held = node::with_block(now, self.child_of(level, pfn.get()), order.get() - child_order(level));
        let serves = if now & node::ISOLATED == 0 { serves(class) } else { 0 };
        Recent { pfn, index, free: now, held, order: order.get(), serves, class }
    }
}

/// Which classes a block of this count may be given to.
const fn serves(class: u8) -> u8 {
    if class == UNCLAIMED { (1 << CLASSES) - 1 } else { 1 << class }
}
