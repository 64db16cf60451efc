//! Targeted allocation: this block or none.

use pnode_core::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use pnode_core::sync::spin_loop;
use pnode_core::{FrameRange, MigrateType, Order, Pfn};

use crate::count::UNCLAIMED;
use crate::error::AllocAtError;
use crate::geometry::{AREA, TOP, child_order, group_of, level_of};
use crate::node::{self, Child};
use crate::table::Part;
use crate::word::{self, level};
use crate::zone::{PATIENCE, Zone};

impl Zone<'_> {
    /// Takes exactly the block of `order` at `pfn`. If its area was unclaimed, the area becomes one of `migrate`.
    ///
    /// # Errors
    ///
    /// [`AllocAtError`], and nothing has changed.
    pub fn alloc_at(&self, pfn: Pfn, order: Order, migrate: MigrateType) -> Result<(), AllocAtError> {
        if !self.covers(pfn, order) {
            return Err(AllocAtError::OutOfZone { pfn });
        }
        if !pfn.is_aligned(order) {
            return Err(AllocAtError::Misaligned { pfn, order });
        }
        for _ in 0..PATIENCE {
            if self.is_shut() {
                return Err(AllocAtError::NotFree { pfn, order });
            }
            let seen = self.gate.look();
            let mut busy = false;
            if let Some(class) = self.take_at(pfn.get(), order.get(), migrate as u8, &mut busy) {
                if self.admit(pfn, order).is_err() {
                    return Err(self.not_free(pfn, order));
                }
                self.counts().take(class, order.frames());
                return Ok(());
            }
            if !busy && self.gate.still(seen) {
                return Err(self.not_free(pfn, order));
            }
            spin_loop();
        }
        Err(AllocAtError::Contended { pfn })
    }

    #[cold]
    fn not_free(&self, pfn: Pfn, order: Order) -> AllocAtError {
        let last = pfn.get() + (order.frames() - 1);
        let within = |range: &FrameRange| range.start().get() <= last && pfn < range.end();
        let offline = self.listed(Part::Offline).find(within);
        let isolated = self.listed(Part::Isolated).find(within);
        match (offline, isolated) {
            (Some(range), _) => AllocAtError::Offline { pfn: pfn.max(range.start()) },
            (_, Some(range)) => AllocAtError::Isolated { pfn: pfn.max(range.start()) },
            _ => AllocAtError::NotFree { pfn, order },
        }
    }

    /// Goes down from the top to the word that decides; the class whose count the block leaves.
    fn take_at(&self, pfn: u64, order: u8, class: u8, busy: &mut bool) -> Option<u8> {
        let mut level = TOP;
        loop {
            let index = self.index(level, pfn);
            let at = self.node(level, index);
            let child = self.child_of(level, pfn);
            // Acquire pairs with the Release that made the node live, and with the frees in it.
            let value = at.load(Acquire);
            if value == node::DEAD {
                *busy = true;
                return None;
            }
            if value & node::ISOLATED != 0 {
                return None;
            }
            if level == level_of(order) {
                return self.take_run_at(level, index, child, order - child_order(level), busy);
            }
            match node::child(value, child) {
                Child::Free if level == 1 => {
                    let new = node::with_split(value, child, level::BIG);
                    if at.compare_exchange(value, new, AcqRel, Relaxed).is_ok() {
                        let offset = pfn as u32 & (word::FRAMES - 1);
                        // By B2 the word is ours. Release pairs with the Acquire loads of the word.
                        let word = word::EMPTY | word::pattern(offset, order);
                        self.word(self.word_index(pfn)).store(word, Release);
                        return Some(node::class(value));
                    }
                }
                Child::Free => {
                    self.gate.enter();
                    let new = node::with_split(value, child, level::EMPTY);
                    if at.compare_exchange(value, new, AcqRel, Relaxed).is_ok() {
                        let area = level == 2;
                        let below = self.index(level - 1, pfn);
                        self.bring_to_life(
                            level - 1,
                            below,
                            node::empty(if area { group_of(order, class) } else { 0 }),
                        );
                        if area {
                            self.counts().transfer(UNCLAIMED, class, AREA);
                        }
                    }
                    self.gate.leave();
                }
                Child::Split(_) if level > 1 => level -= 1,
                Child::Split(_) => return self.take_word_at(pfn, order, busy),
                Child::Head | Child::Tail | Child::Absent => return None,
            }
        }
    }

    fn take_run_at(&self, level: usize, index: usize, child: u32, run: u8, busy: &mut bool) -> Option<u8> {
        let at = self.node(level, index);
        let mask = node::run_mask(child, run);
        let mut value = at.load(Acquire);
        let mut collected = false;
        while value != node::DEAD && value & node::ISOLATED == 0 {
            let split = node::split(value) & mask;
            if node::free(value) & mask == mask {
                // Acquire pairs with the Release of the frees.
                match at.compare_exchange_weak(value, node::with_block(value, child, run), Acquire, Acquire) {
                    Ok(_) => return Some(if level == 1 { node::class(value) } else { UNCLAIMED }),
                    Err(now) => value = now,
                }
            } else if node::whole(value) & mask == mask && !collected {
                self.collect_children(level, index, split, busy);
                collected = true;
                value = at.load(Acquire);
            } else {
                // By B3 nothing was free that is not said to be, unless a hint is just being looked at again.
                *busy |= value & node::SETTLING != 0;
                return None;
            }
        }
        *busy |= value == node::DEAD;
        None
    }

    fn take_word_at(&self, pfn: u64, order: u8, busy: &mut bool) -> Option<u8> {
        let at = self.word(self.word_index(pfn));
        let offset = pfn as u32 & (word::FRAMES - 1);
        let mut value = at.load(Relaxed);
        loop {
            if word::blocks(value, order) >> offset & 1 == 0 {
                *busy |= value == word::DEAD;
                return None;
            }
            // Acquire pairs with the Release of the free that gave the frames back.
            match at.compare_exchange_weak(value, value | word::pattern(offset, order), Acquire, Relaxed) {
                Ok(_) => return Some(self.class_of(self.index(1, pfn))),
                Err(now) => value = now,
            }
        }
    }
}
