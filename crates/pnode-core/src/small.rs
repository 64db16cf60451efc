//! A zone of up to 31 frames in one atomic word.
//!
//! Small enough for a device with a handful of buffers, for examples and for model checking; it validates every free as
//! a large allocator does. For more frames use pnode-buddy.

use crate::addr::{FrameRange, Order, Pfn};
use crate::frame::{FrameError, FrameSource, FrameZone, FreeError, MigrateType};
use crate::sync::{AtomicU64, Ordering};

/// A lock-free zone of up to [`WordZone::MAX_FRAMES`] frames.
///
/// ```text
/// 63         62   61            31 30           0
/// | isolated | 0 |   continues    |    in use   |
/// ```
///
/// *in use*: one bit a frame. *continues*: the frame belongs to the same block as the one before it. One
/// compare-and-swap of the whole word does each operation, so it either happens or nothing changes.
///
/// ```
/// use pnode_core::{FrameRange, FrameSource, FreeError, MigrateType, Order, Pfn, WordZone};
///
/// let zone = WordZone::new(FrameRange::new(Pfn::new(8), 8)?).ok_or("too many frames")?;
/// let pair = Order::new(1)?;
/// let pfn = zone.alloc(pair, MigrateType::Unmovable)?;
/// assert_eq!(zone.free(pfn, Order::ZERO), Err(FreeError::WrongOrder { pfn, order: Order::ZERO }));
/// zone.free(pfn, pair)?;
/// assert_eq!(zone.free(pfn, pair), Err(FreeError::NotAllocated { pfn }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct WordZone {
    range: FrameRange,
    word: AtomicU64,
}

const ISOLATED: u64 = 1 << 63;
const CONTINUES: u32 = WordZone::MAX_FRAMES as u32;
const IN_USE: u64 = (1 << WordZone::MAX_FRAMES) - 1;

impl WordZone {
    /// The most frames a zone of one word can have.
    pub const MAX_FRAMES: u64 = 31;

    /// A zone of the frames in `range`, all free; `None` for more than [`WordZone::MAX_FRAMES`].
    pub fn new(range: FrameRange) -> Option<Self> {
        (range.frames() <= Self::MAX_FRAMES).then(|| Self { range, word: AtomicU64::new(0) })
    }

    /// The bits of the block of `order` at `pfn`: (in use, continues). `None` if it is not wholly in the zone.
    fn bits(&self, pfn: Pfn, order: Order) -> Option<(u64, u64)> {
        let block = FrameRange::block(pfn, order).filter(|block| self.range.contains_range(*block))?;
        let shift = pfn.checked_sub(self.range.start())?;
        let in_use = ((1u64 << block.frames()) - 1) << shift;
        let continues = (in_use & (in_use << 1)) << CONTINUES;
        Some((in_use, continues))
    }

    fn update<E>(&self, mut change: impl FnMut(u64) -> Result<u64, E>) -> Result<u64, E> {
        // A refusal tells nothing but itself, so the loads that may lead to one need no order.
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let next = change(seen)?;
            // Acquire pairs with the Release of the changes before: who takes a block sees all that its last user did,
            // and who takes one after `reopen` sees all that came before that.
            match self.word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(next),
                Err(now) => seen = now,
            }
        }
    }
}

impl FrameSource for WordZone {
    fn alloc(&self, order: Order, _migrate: MigrateType) -> Result<Pfn, FrameError> {
        let mut found = self.range.start();
        self.update(|word| {
            if word & ISOLATED != 0 {
                return Err(FrameError::Closed { order });
            }
            let mut pfn = self.range.start().align_up(order);
            while let Some(candidate) = pfn {
                let Some((in_use, continues)) = self.bits(candidate, order) else { break };
                if word & in_use == 0 {
                    found = candidate;
                    return Ok(word | in_use | continues);
                }
                pfn = candidate.checked_add(order.frames());
            }
            Err(FrameError::Exhausted { order })
        })?;
        Ok(found)
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let (in_use, continues) = self.bits(pfn, order).ok_or(FreeError::OutOfZone { pfn })?;
        if !pfn.is_aligned(order) {
            return Err(FreeError::Misaligned { pfn, order });
        }
        let first = in_use & in_use.wrapping_neg();
        // The block's own continuation bits, and that of the frame behind it: it would say that the block goes on.
        let edges = ((in_use << 1 | first) & IN_USE) << CONTINUES;
        self.update(|word| {
            if word & first == 0 {
                Err(FreeError::NotAllocated { pfn })
            } else if word & in_use != in_use || word & edges != continues {
                Err(FreeError::WrongOrder { pfn, order })
            } else {
                Ok(word & !(in_use | continues))
            }
        })?;
        Ok(())
    }
}

impl FrameZone for WordZone {
    fn span(&self) -> FrameRange {
        self.range
    }

    fn free_frames(&self) -> u64 {
        self.range.frames() - self.used_frames()
    }

    fn managed_frames(&self) -> u64 {
        self.range.frames()
    }

    fn alloc_at(&self, pfn: Pfn, order: Order, _migrate: MigrateType) -> Result<(), FrameError> {
        let exhausted = FrameError::Exhausted { order };
        let block = self.bits(pfn, order).filter(|_| pfn.is_aligned(order));
        let (in_use, continues) = block.ok_or(exhausted)?;
        self.update(|word| {
            if word & ISOLATED != 0 {
                Err(FrameError::Closed { order })
            } else if word & in_use != 0 {
                Err(exhausted)
            } else {
                Ok(word | in_use | continues)
            }
        })?;
        Ok(())
    }

    fn isolate(&self) {
        // One word tells what is in use and whether more may be, so the order of changes to that word is all it takes.
        self.word.fetch_or(ISOLATED, Ordering::Relaxed);
    }

    fn reopen(&self) {
        // Release pairs with the Acquire in `update`: who allocates because of this sees what came before.
        self.word.fetch_and(!ISOLATED, Ordering::Release);
    }

    fn used_frames(&self) -> u64 {
        // Acquire pairs with the Release of each free: who finds the zone empty sees all that its users did.
        u64::from((self.word.load(Ordering::Acquire) & IN_USE).count_ones())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;

    const START: u64 = 3;
    const FRAMES: u64 = 6;

    /// Every state that some sequence of allocations and frees can reach, found by trying all of them; in each state,
    /// every free of every block is compared with the map of what is allocated.
    #[test]
    fn every_reachable_state_frees_what_was_allocated_and_nothing_else() {
        let mut seen: BTreeMap<u64, BTreeMap<Pfn, Order>> = BTreeMap::new();
        let mut open: Vec<u64> = std::vec![0];
        seen.insert(0, BTreeMap::new());
        while let Some(word) = open.pop() {
            let model = seen[&word].clone();
            let zone = || {
                let zone = WordZone::new(FrameRange::new(Pfn::new(START), FRAMES).unwrap()).unwrap();
                zone.word.store(word, Ordering::Relaxed);
                zone
            };
            let mut reached = |zone: &WordZone, model: BTreeMap<Pfn, Order>| {
                let word = zone.word.load(Ordering::Relaxed);
                assert_eq!(zone.used_frames(), model.values().map(|order| order.frames()).sum::<u64>());
                assert_eq!(
                    (zone.managed_frames(), zone.free_frames()),
                    (FRAMES, FRAMES - zone.used_frames())
                );
                match seen.insert(word, model.clone()) {
                    None => open.push(word),
                    Some(before) => assert_eq!(before, model, "two histories, one word"),
                }
            };
            for order in (0..4).map(|order| Order::new(order).unwrap()) {
                let zone = zone();
                if let Ok(pfn) = zone.alloc(order, MigrateType::Movable) {
                    let block = FrameRange::block(pfn, order).unwrap();
                    assert!(pfn.is_aligned(order) && zone.span().contains_range(block));
                    assert!(
                        model
                            .iter()
                            .all(|(p, o)| FrameRange::block(*p, *o).unwrap().intersection(block).is_none())
                    );
                    let mut model = model.clone();
                    model.insert(pfn, order);
                    reached(&zone, model);
                }
            }
            let blocks =
                (0..12).flat_map(|pfn| (0..4).map(move |order| (Pfn::new(pfn), Order::new(order).unwrap())));
            for (pfn, order) in blocks.clone() {
                let zone = zone();
                let free = FrameRange::block(pfn, order).is_some_and(|block| {
                    pfn.is_aligned(order)
                        && zone.span().contains_range(block)
                        && model
                            .iter()
                            .all(|(p, o)| FrameRange::block(*p, *o).unwrap().intersection(block).is_none())
                });
                let result = zone.alloc_at(pfn, order, MigrateType::Movable);
                assert_eq!(result.is_ok(), free, "{pfn:?} {order:?} {model:?} {result:?}");
                if free {
                    let mut model = model.clone();
                    model.insert(pfn, order);
                    reached(&zone, model);
                } else {
                    assert_eq!(zone.word.load(Ordering::Relaxed), word, "a refused block changes nothing");
                }
            }
            for (pfn, order) in blocks {
                let zone = zone();
                let result = zone.free(pfn, order);
                assert_eq!(
                    result.is_ok(),
                    model.get(&pfn) == Some(&order),
                    "{pfn:?} {order:?} {model:?} {result:?}"
                );
                if result.is_ok() {
                    let mut model = model.clone();
                    model.remove(&pfn);
                    reached(&zone, model);
                } else {
                    assert_eq!(zone.word.load(Ordering::Relaxed), word, "a refused free changes nothing");
                }
            }
            let zone = zone();
            zone.isolate();
            assert_eq!(
                zone.alloc(Order::ZERO, MigrateType::Movable),
                Err(FrameError::Closed { order: Order::ZERO })
            );
            zone.reopen();
            assert_eq!(zone.word.load(Ordering::Relaxed), word);
        }
        // The frames 3 and 8 are free or not; 4 to 7 are one block, or two pairs of which each is one block or two frames.
        assert_eq!(seen.len(), 2 * (1 + 5 * 5) * 2);
    }
}
