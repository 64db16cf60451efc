//! Answers at the edges: of ranges, of words, and of what a call kept before it failed.

use std::collections::BTreeSet;

use pnode_buddy::{AllocAtError, BulkAllocError, Cpu, Geometry, Keep, Line, Metadata, Run, Zone};
use pnode_core::{FrameError, FrameRange, FrameZone, MigrateType, Order, Pfn};

const MOVABLE: MigrateType = MigrateType::Movable;

fn range(start: u64, frames: u64) -> FrameRange {
    FrameRange::new(Pfn::new(start), frames).unwrap()
}

fn lines(range: FrameRange) -> Vec<Line> {
    vec![Line::ZERO; Geometry::new(range).unwrap().lines()]
}

/// A frame beside free ones is refused as taken, and at once: nothing is in motion.
#[test]
fn a_taken_frame_is_not_free_rather_than_contended() {
    let span = range(0, 1024);
    let mut lines = lines(span);
    let zone = Zone::new(span, Metadata::assume_zeroed(&mut lines)).unwrap();
    let pfn = zone.alloc(Order::ZERO, MOVABLE).unwrap();
    for order in [Order::ZERO, Order::new(3).unwrap(), Order::new(5).unwrap(), Order::new(9).unwrap()] {
        assert_eq!(zone.alloc_at(pfn, order, MOVABLE), Err(AllocAtError::NotFree { pfn, order }));
    }
}

/// An area that begins where a larger free block does leaves service alone.
#[test]
fn isolating_one_area_of_a_free_block_leaves_its_neighbours() {
    for at in [0, 512, (1 << 14) - 512] {
        let span = range(0, 1 << 14);
        let mut lines = lines(span);
        let zone = Zone::new(span, Metadata::assume_zeroed(&mut lines)).unwrap();
        assert_eq!(zone.isolate_range(range(at, 512)).unwrap().absent, 512);
        assert_eq!(zone.free_frames(), (1 << 14) - 512);
        assert_eq!(FrameZone::free_frames(&zone), (1 << 14) - 512);
        zone.audit().unwrap();
        let mut rest = 0;
        while zone.alloc(Order::new(9).unwrap(), MOVABLE).is_ok() {
            rest += 1;
        }
        assert_eq!(rest, 31);
    }
}

/// A search for a run goes on right behind an isolated range, whose free frames it cannot have.
#[test]
fn a_run_may_begin_where_an_isolated_range_ends() {
    let span = range(0, 2048);
    let mut lines = lines(span);
    let zone = Zone::new(span, Metadata::assume_zeroed(&mut lines)).unwrap();
    zone.alloc_at(Pfn::new(7), Order::ZERO, MOVABLE).unwrap();
    zone.isolate_range(range(0, 512)).unwrap();
    assert_eq!(zone.alloc_run(Run::of(1536)), Ok(range(512, 1536)));
}

/// A bulk call that fails says how many frames it filled in, whichever way they came.
#[test]
fn a_bulk_call_that_fails_has_counted_what_it_kept() {
    let span = range(64, 64);
    let mut lines = lines(span);
    let zone = Zone::new(span, Metadata::assume_zeroed(&mut lines)).unwrap();
    let mut cpu = Cpu::new(&zone, Keep::Frames);
    let first = cpu.alloc(Order::ZERO, MOVABLE).unwrap();
    let mut frames = [Pfn::new(0); 100];
    let cause = FrameError::Exhausted { order: Order::ZERO };
    assert_eq!(cpu.alloc_bulk(&mut frames, MOVABLE), Err(BulkAllocError { filled: 63, cause }));
    let all: BTreeSet<_> = frames[..63].iter().copied().chain([first]).collect();
    assert_eq!(all.len(), 64);
    assert!(all.iter().all(|pfn| span.contains(*pfn)));
}
