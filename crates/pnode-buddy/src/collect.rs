//! Moving what is wholly free up one level, on demand.
//!
//! A free never merges anything: it changes one word, and at most raises hints. The allocation that needs a larger
//! block collects. So a free costs the same whatever it completes, and a pair of alloc and free at a boundary does
//! not tear down and build up the levels above it each time.

use pnode_core::sync::Ordering::{AcqRel, Acquire, Relaxed};

use crate::count::UNCLAIMED;
use crate::geometry::AREA;
use crate::node::{self, advert};
use crate::word::{self, level};
use crate::zone::Zone;

/// What became of an attempt to collect a node or word.
pub(crate) enum Collected {
    /// It was wholly free and is dead now; the caller alone may change its parent's view (B2). Unless it was a word,
    /// the gate is entered, and the caller leaves it.
    Whole,
    /// Some of it is in use.
    Partly,
    /// Somebody else has it in hand.
    Moving,
}

impl Zone<'_> {
    /// Makes a wholly free node (or, at level 0, word) dead.
    pub(crate) fn collect(&self, level: usize, index: usize) -> Collected {
        if level == 0 {
            return self.collect_word(index);
        }
        let at = self.node(level, index);
        loop {
            // Acquire pairs with the Release that freed the children.
            let value = at.load(Acquire);
            if value == node::DEAD {
                return Collected::Moving;
            }
            if node::whole(value) != 0xffff || value & node::ISOLATED != 0 {
                return Collected::Partly;
            }
            if value & node::SETTLING != 0 {
                return Collected::Moving;
            }
            let split = node::split_at(value, level::EMPTY);
            if split != 0 {
                let mut busy = false;
                self.collect_children(level, index, split, &mut busy);
                if busy {
                    return Collected::Moving;
                }
                continue;
            }
            self.gate.enter();
            // Release pairs with the Acquire of the next owner; Acquire as above.
            if at.compare_exchange(value, node::DEAD, AcqRel, Relaxed).is_ok() {
                if level == 1 {
                    self.counts().transfer(node::class(value), UNCLAIMED, AREA);
                }
                self.withdraw(level, index, node::group(value), 0..=advert::HALF);
                return Collected::Whole;
            }
            self.gate.leave();
        }
    }

    fn collect_word(&self, index: usize) -> Collected {
        // Acquire pairs with the Release of the frees that emptied the word. What they did is passed on by the Release with
        // which the caller makes the child free (B2).
        match self.word(index).compare_exchange(word::EMPTY, word::DEAD, Acquire, Relaxed) {
            Ok(_) => Collected::Whole,
            Err(word::DEAD) => Collected::Moving,
            Err(_) => Collected::Partly,
        }
    }
}
