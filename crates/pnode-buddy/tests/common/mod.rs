//! A naive model of a zone: one entry a frame, no cleverness. And the operations that tests and the fuzzer share.

#![allow(dead_code)]

use pnode_buddy::{BulkAllocError, IsolateError, OfflineError, ReopenError, Run, RunError, Zone};
use pnode_core::{FrameError, FrameRange, FreeError, MigrateType, Order, Pfn};

/// How often a test does something: Miri, which takes a thousand times as long, is shown the beginning.
pub(crate) const fn times(count: u64) -> u64 {
    if cfg!(miri) { count.div_ceil(100) } else { count }
}

/// What the model knows of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Free,
    Hole,
    /// Free in an isolated range.
    Withheld,
    Offline,
    /// In the block of this order that starts at this frame number.
    Block(u64, u8),
}

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) range: FrameRange,
    pub(crate) slots: Vec<Slot>,
    pub(crate) isolated: Vec<FrameRange>,
    pub(crate) offline: Vec<FrameRange>,
}

impl Model {
    pub(crate) fn new(range: FrameRange, holes: &[FrameRange]) -> Self {
        let slot = |pfn| if holes.iter().any(|hole| hole.contains(pfn)) { Slot::Hole } else { Slot::Free };
        let slots = range.iter().map(slot).collect();
        Self { range, slots, isolated: Vec::new(), offline: Vec::new() }
    }

    pub(crate) fn slots_of(&mut self, range: FrameRange) -> &mut [Slot] {
        let start = (range.start().get() - self.range.start().get()) as usize;
        &mut self.slots[start..start + range.frames() as usize]
    }

    fn change(&mut self, range: FrameRange, from: Slot, to: Slot) {
        self.slots_of(range).iter_mut().filter(|slot| **slot == from).for_each(|slot| *slot = to);
    }

    pub(crate) fn isolate(&mut self, range: FrameRange) -> Result<(), IsolateError> {
        if !self.range.contains_range(range) {
            return Err(IsolateError::OutOfZone { range });
        }
        let ends = [(range.start(), self.range.start()), (range.end(), self.range.end())];
        if let Some((pfn, _)) =
            ends.iter().find(|(pfn, zone)| pfn != zone && pfn.get() % Zone::AREA_FRAMES != 0)
        {
            return Err(IsolateError::Misaligned { pfn: *pfn });
        }
        let mut both = self.isolated.iter().chain(&self.offline);
        if both.any(|other| other.intersection(range).is_some()) {
            return Err(IsolateError::Overlaps { with: range });
        }
        if let Some(at) = self.slots_of(range).iter().position(|slot| *slot == Slot::Hole) {
            return Err(IsolateError::Hole { pfn: range.start().checked_add(at as u64).unwrap() });
        }
        if self.isolated.len() == 16 {
            return Err(IsolateError::TooMany { limit: 16 });
        }
        self.isolated.push(range);
        self.change(range, Slot::Free, Slot::Withheld);
        Ok(())
    }

    pub(crate) fn take_offline(&mut self, range: FrameRange) -> Result<(), OfflineError> {
        let Some(at) = self.isolated.iter().position(|isolated| *isolated == range) else {
            return Err(OfflineError::NotIsolated { range });
        };
        let used = self.slots_of(range).iter().filter(|slot| matches!(slot, Slot::Block(..))).count() as u64;
        if used != 0 {
            let at = self.slots_of(range).iter().position(|slot| matches!(slot, Slot::Block(..))).unwrap();
            let pfn = range.start().checked_add(at as u64).unwrap();
            return Err(OfflineError::InUse { pfn, used, cached: 0 });
        }
        self.isolated.remove(at);
        self.offline.push(range);
        self.change(range, Slot::Withheld, Slot::Offline);
        Ok(())
    }

    pub(crate) fn reopen(&mut self, range: FrameRange) -> Result<(), ReopenError> {
        if !self.isolated.contains(&range) && !self.offline.contains(&range) {
            return Err(ReopenError::NotIsolated { range });
        }
        self.isolated.retain(|isolated| *isolated != range);
        self.offline.retain(|offline| *offline != range);
        self.change(range, Slot::Withheld, Slot::Free);
        self.change(range, Slot::Offline, Slot::Free);
        Ok(())
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

    /// Takes a range as the blocks that it consists of.
    pub(crate) fn take_range(&mut self, range: FrameRange) {
        let mut at = range.start().get();
        while at < range.end().get() {
            let fits = 63 - (range.end().get() - at).leading_zeros();
            let order = at.trailing_zeros().min(fits).min(18) as u8;
            self.take(at, order);
            at += 1 << order;
        }
    }

    pub(crate) fn is_free_range(&mut self, range: FrameRange) -> bool {
        self.range.contains_range(range) && self.slots_of(range).iter().all(|slot| *slot == Slot::Free)
    }

    /// The lowest free run that will do.
    pub(crate) fn lowest_run(&mut self, frames: u64, align: u8, from: u64, below: u64) -> Option<FrameRange> {
        let first = from.max(self.range.start().get()).checked_next_multiple_of(1 << align)?;
        let end = below.min(self.range.end().get());
        (first..end).step_by(1 << align).take_while(|at| frames <= end - at).find_map(|at| {
            let range = FrameRange::new(Pfn::new(at), frames).ok()?;
            self.is_free_range(range).then_some(range)
        })
    }

    /// Frees all blocks of a range; nothing if one of them is not whole.
    pub(crate) fn free_range(&mut self, range: FrameRange) -> bool {
        if !self.range.contains_range(range) {
            return false;
        }
        let mut blocks = Vec::new();
        let mut at = range.start().get();
        while at < range.end().get() {
            match self.at(at) {
                Slot::Block(head, order) if head == at && 1 << order <= range.end().get() - at => {
                    blocks.push((head, order));
                    at += 1 << order;
                }
                _ => return false,
            }
        }
        blocks.into_iter().for_each(|(pfn, order)| self.free(pfn, order).unwrap());
        true
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
            Slot::Free | Slot::Withheld => Err(FreeError::NotAllocated { pfn: at }),
            Slot::Offline => Err(FreeError::Offline { pfn: at }),
            Slot::Hole => Err(FreeError::Hole { pfn: at }),
            Slot::Block(head, block) if (head, block) == (pfn, order) => {
                let start = (pfn - self.range.start().get()) as usize;
                self.slots[start..start + (1 << order)].fill(Slot::Free);
                for range in self.isolated.clone() {
                    self.change(range, Slot::Free, Slot::Withheld);
                }
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
    Isolate { range: FrameRange },
    Offline { range: FrameRange },
    Reopen { range: FrameRange },
    TakeRange { range: FrameRange, migrate: MigrateType },
    FreeRange { range: FrameRange },
    Run { frames: u64, align: u8, from: u64, below: u64 },
    Bulk { frames: usize, migrate: MigrateType },
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
        Op::Isolate { range } => {
            let isolated = match zone.isolate_range(range) {
                // Which of several is the first is not ours to compare.
                Err(IsolateError::Overlaps { with }) if with.intersection(range).is_some() => {
                    Err(IsolateError::Overlaps { with: range })
                }
                isolated => isolated,
            };
            let expected = model.isolate(range);
            assert_eq!(isolated.map(drop), expected, "{op:?}");
            if let Ok(found) = isolated {
                let used = model.slots_of(range).iter().filter(|slot| matches!(slot, Slot::Block(..))).count()
                    as u64;
                assert_eq!((found.used, found.free + found.absent), (used, range.frames() - used));
            }
            None
        }
        Op::Offline { range } => {
            assert_eq!(zone.offline_range(range), model.take_offline(range), "{op:?}");
            None
        }
        Op::Reopen { range } => {
            assert_eq!(zone.reopen_range(range), model.reopen(range), "{op:?}");
            None
        }
        Op::TakeRange { range, migrate } => {
            let taken = zone.alloc_range(range, migrate);
            assert_eq!(taken.is_ok(), model.is_free_range(range), "{op:?} {taken:?}");
            taken.ok().map(|()| {
                model.take_range(range);
                range.start().get()
            })
        }
        Op::FreeRange { range } => {
            let freed = zone.free_range(range);
            assert_eq!(freed.is_ok(), model.free_range(range), "{op:?} {freed:?}");
            assert!(freed.is_ok_and(|()| true) || freed.is_err_and(|error| error.freed == 0));
            None
        }
        Op::Run { frames, align, from, below } => {
            let align_order = Order::new(align).unwrap();
            let run = Run::of(frames).aligned(align_order).from(Pfn::new(from)).below(Pfn::new(below));
            let expected = if frames == 0 { None } else { model.lowest_run(frames, align, from, below) };
            match zone.alloc_run(run) {
                Ok(found) => {
                    let limits = from <= found.start().get() && found.end().get() <= below;
                    assert!(
                        limits && found.start().is_aligned(align_order) && found.frames() == frames,
                        "{op:?}"
                    );
                    assert!(model.is_free_range(found), "{op:?} {found:?}");
                    model.take_range(found);
                    return Some(found.start().get());
                }
                Err(RunError::Empty) => assert_eq!(frames, 0),
                Err(RunError::Exhausted { .. }) => assert_eq!(expected, None, "{op:?}"),
                Err(error) => panic!("{error}"),
            }
            None
        }
        Op::Bulk { frames, migrate } => {
            let mut got = vec![Pfn::new(u64::MAX); frames];
            let filled = match zone.alloc_bulk(&mut got, migrate) {
                Ok(()) => frames,
                Err(BulkAllocError { filled, cause: FrameError::Exhausted { .. } }) => filled,
                Err(error) => panic!("{error}"),
            };
            got[..filled].iter().for_each(|pfn| model.take(pfn.get(), 0));
            assert!(got[filled..].iter().all(|pfn| pfn.get() == u64::MAX), "an unfilled entry was written");
            assert!(filled == frames || model.free_frames() == 0, "{filled} of {frames}");
            None
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
    let withheld = model.slots.iter().filter(|slot| **slot == Slot::Withheld).count() as u64;
    let free = model.free_frames();
    assert!((free..=free + withheld).contains(&zone.free_frames()), "{free} {withheld} {zone:?}");
    let managed =
        model.slots.iter().filter(|slot| !matches!(slot, Slot::Hole | Slot::Offline)).count() as u64;
    assert_eq!(zone.managed_frames(), managed);
    let used = model.slots.iter().filter(|slot| matches!(slot, Slot::Block(..))).count() as u64;
    assert_eq!(zone.used_frames(), used);
    assert_eq!(stats.allocated_blocks.iter().sum::<u64>(), model.blocks().len() as u64);
    for order in Order::all() {
        let can = stats.free_blocks[order.get() as usize..].iter().any(|count| *count != 0);
        assert!(can == model.can(order.get()) || withheld != 0, "order {order}");
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
