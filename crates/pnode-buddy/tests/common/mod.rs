//! A naive model of a zone: one entry a frame, no cleverness. And the operations that tests and the fuzzer share.

#![allow(dead_code)]

use pnode_buddy::Zone;
use pnode_core::{FrameError, FrameRange, FreeError, MigrateType, Order, Pfn};

/// What the model knows of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Free,
    Hole,
    /// In the block of this order that starts at this frame number.
    Block(u64, u8),
}

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) range: FrameRange,
    pub(crate) slots: Vec<Slot>,
}

impl Model {
    pub(crate) fn new(range: FrameRange, holes: &[FrameRange]) -> Self {
        let slot = |pfn| if holes.iter().any(|hole| hole.contains(pfn)) { Slot::Hole } else { Slot::Free };
        Self { range, slots: range.iter().map(slot).collect() }
    }

    fn at(&self, pfn: u64) -> Slot {
        self.slots[(pfn - self.range.start().get()) as usize]
    }

    pub(crate) fn is_free(&self, pfn: u64, order: u8) -> bool {
        let inside = FrameRange::block(Pfn::new(pfn), Order::new(order).unwrap())
            .is_some_and(|block| self.range.contains_range(block));
        inside && pfn % (1 << order) == 0 && (pfn..pfn + (1 << order)).all(|pfn| self.at(pfn) == Slot::Free)
    }

    /// Whether some aligned block of `order` is free.
    pub(crate) fn can(&self, order: u8) -> bool {
        let size = 1u64 << order;
        let Some(mut pfn) = self.range.start().get().checked_next_multiple_of(size) else { return false };
        while pfn < self.range.end().get() {
            if self.is_free(pfn, order) {
                return true;
            }
            let Some(next) = pfn.checked_add(size) else { break };
            pfn = next;
        }
        false
    }

    pub(crate) fn take(&mut self, pfn: u64, order: u8) {
        assert!(self.is_free(pfn, order), "{pfn:#x} order {order} was handed out but is not free");
        let start = (pfn - self.range.start().get()) as usize;
        self.slots[start..start + (1 << order)].fill(Slot::Block(pfn, order));
    }

    /// Frees as a perfect allocator would.
    pub(crate) fn free(&mut self, pfn: u64, order: u8) -> Result<(), FreeError> {
        let (at, size) = (Pfn::new(pfn), Order::new(order).unwrap());
        if !FrameRange::block(at, size).is_some_and(|block| self.range.contains_range(block)) {
            return Err(FreeError::OutOfZone { pfn: at });
        }
        if pfn % (1 << order) != 0 {
            return Err(FreeError::Misaligned { pfn: at, order: size });
        }
        match self.at(pfn) {
            Slot::Free => Err(FreeError::NotAllocated { pfn: at }),
            Slot::Hole => Err(FreeError::Hole { pfn: at }),
            Slot::Block(head, block) if (head, block) == (pfn, order) => {
                let start = (pfn - self.range.start().get()) as usize;
                self.slots[start..start + (1 << order)].fill(Slot::Free);
                Ok(())
            }
            Slot::Block(..) => Err(FreeError::WrongOrder { pfn: at, order: size }),
        }
    }

    pub(crate) fn free_frames(&self) -> u64 {
        self.slots.iter().filter(|slot| **slot == Slot::Free).count() as u64
    }

    pub(crate) fn blocks(&self) -> Vec<(u64, u8)> {
        let mut blocks: Vec<_> = self
            .slots
            .iter()
            .filter_map(|slot| if let Slot::Block(pfn, order) = slot { Some((*pfn, *order)) } else { None })
            .collect();
        blocks.dedup();
        blocks
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Alloc { order: u8, migrate: MigrateType },
    At { pfn: u64, order: u8, migrate: MigrateType },
    Free { pfn: u64, order: u8 },
}

/// Does `op` on both and compares.
#[track_caller]
pub(crate) fn step(zone: &Zone<'_>, model: &mut Model, op: Op) -> Option<u64> {
    match op {
        Op::Alloc { order, migrate } => match zone.alloc(Order::new(order).unwrap(), migrate) {
            Ok(pfn) => {
                model.take(pfn.get(), order);
                Some(pfn.get())
            }
            Err(FrameError::Exhausted { .. }) => {
                assert!(!model.can(order), "order {order} was refused but is free");
                None
            }
            Err(error) => panic!("{error}"),
        },
        Op::At { pfn, order, migrate } => {
            let taken = zone.alloc_at(Pfn::new(pfn), Order::new(order).unwrap(), migrate);
            assert_eq!(taken.is_ok(), model.is_free(pfn, order), "{op:?} {taken:?}");
            taken.is_ok().then(|| {
                model.take(pfn, order);
                pfn
            })
        }
        Op::Free { pfn, order } => {
            let freed = zone.free(Pfn::new(pfn), Order::new(order).unwrap());
            assert_eq!(freed, model.free(pfn, order), "{op:?}");
            None
        }
    }
}

/// Compares every number that both have, and the zone with itself.
#[track_caller]
pub(crate) fn compare(zone: &Zone<'_>, model: &Model) {
    let stats = zone.audit().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(zone.free_frames(), model.free_frames());
    assert_eq!(stats.allocated_blocks.iter().sum::<u64>(), model.blocks().len() as u64);
    for order in Order::all() {
        let can = stats.free_blocks[order.get() as usize..].iter().any(|count| *count != 0);
        assert_eq!(can, model.can(order.get()), "order {order}");
    }
}

/// A small deterministic generator (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Lines of metadata that outlive the test.
pub(crate) fn zone(start: u64, frames: u64, holes: &[(u64, u64)]) -> (Zone<'static>, Model) {
    let range = FrameRange::new(Pfn::new(start), frames).unwrap();
    let holes: Vec<_> = holes.iter().map(|(at, n)| FrameRange::new(Pfn::new(*at), *n).unwrap()).collect();
    let lines = pnode_buddy::Geometry::new(range).unwrap().lines();
    let metadata = pnode_buddy::Metadata::assume_zeroed(vec![pnode_buddy::Line::ZERO; lines].leak());
    (Zone::with_holes(range, &holes, metadata).unwrap(), Model::new(range, &holes))
}
