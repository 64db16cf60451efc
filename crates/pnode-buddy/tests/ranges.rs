//! Isolating, offlining and returning parts of a zone, against the naive model.

mod common;

use std::ops::ControlFlow;

use common::{Model, Op, Random, Slot, compare, step, times, zone};
use pnode_buddy::{AllocAtError, Cpu, IsolateError, Keep, OfflineError, ReopenError, Zone};
use pnode_core::{FrameError, FrameRange, FreeError, MigrateType, Order, Pfn};

const ZERO: Order = Order::ZERO;
const MOVABLE: MigrateType = MigrateType::Movable;

fn range(start: u64, frames: u64) -> FrameRange {
    FrameRange::new(Pfn::new(start), frames).unwrap()
}

fn fill(zone: &Zone<'_>, model: &mut Model) -> Vec<u64> {
    std::iter::from_fn(|| step(zone, model, Op::Alloc { order: 0, migrate: MOVABLE })).collect()
}

#[test]
fn a_range_goes_out_of_service_and_comes_back() {
    let (zone, mut model) = zone(100, 5000, &[(4000, 10)]);
    let part = range(1024, 1536);
    let inside = Pfn::new(1100);
    zone.alloc_at(inside, ZERO, MOVABLE).unwrap();
    model.take(1100, 0);
    step(&zone, &mut model, Op::Isolate { range: part });
    compare(&zone, &model);
    assert_eq!(zone.offline_range(part), Err(OfflineError::InUse { pfn: inside, used: 1, cached: 0 }));
    let at = Pfn::new(1025);
    assert_eq!(zone.alloc_at(at, ZERO, MOVABLE), Err(AllocAtError::Isolated { pfn: at }));
    assert_eq!(zone.free(at, ZERO), Err(FreeError::NotAllocated { pfn: at }));
    let mut blocks = Vec::new();
    zone.each_block_in(part, &mut |pfn, order| {
        blocks.push((pfn, order));
        ControlFlow::Continue(())
    });
    assert_eq!(blocks, [(inside, ZERO)]);
    // Everything that can be had is outside.
    let taken = fill(&zone, &mut model);
    assert_eq!(taken.len(), 5000 - 10 - 1536);
    step(&zone, &mut model, Op::Free { pfn: 1100, order: 0 });
    assert_eq!(zone.alloc(ZERO, MOVABLE), Err(FrameError::Exhausted { order: ZERO }));
    step(&zone, &mut model, Op::Offline { range: part });
    compare(&zone, &model);
    assert_eq!(zone.alloc_at(at, ZERO, MOVABLE), Err(AllocAtError::Offline { pfn: at }));
    assert_eq!(zone.free(at, ZERO), Err(FreeError::Offline { pfn: at }));
    assert_eq!(
        zone.reopen_range(range(1024, 1535)),
        Err(ReopenError::NotIsolated { range: range(1024, 1535) })
    );
    step(&zone, &mut model, Op::Reopen { range: part });
    compare(&zone, &model);
    assert_eq!(fill(&zone, &mut model).len(), 1536);
}

#[test]
fn wrong_ranges_are_refused_and_change_nothing() {
    const AREA: u64 = Zone::AREA_FRAMES;
    let (zone, mut model) = zone(64, 40 * AREA, &[(20 * AREA + 10, 20)]);
    let beyond = range(0, 2 * AREA);
    for part in
        [beyond, range(40 * AREA, 65), range(65, AREA - 65), range(AREA, 5), range(18 * AREA, 3 * AREA)]
    {
        step(&zone, &mut model, Op::Isolate { range: part });
    }
    let hole = IsolateError::Hole { pfn: Pfn::new(20 * AREA + 10) };
    assert_eq!(zone.isolate_range(range(20 * AREA, AREA)), Err(hole));
    assert_eq!(zone.isolate_range(range(AREA, 5)), Err(IsolateError::Misaligned { pfn: Pfn::new(AREA + 5) }));
    for at in 1..18 {
        // The 17th finds no place in the table.
        step(&zone, &mut model, Op::Isolate { range: range(at * AREA, AREA) });
    }
    step(&zone, &mut model, Op::Isolate { range: range(2 * AREA, 2 * AREA) });
    step(&zone, &mut model, Op::Offline { range: range(AREA, 2 * AREA) });
    compare(&zone, &model);
    // An offline table has room for 16 in a small zone, and says so.
    for at in 1..17 {
        step(&zone, &mut model, Op::Offline { range: range(at * AREA, AREA) });
    }
    let more = range(30 * AREA, AREA);
    step(&zone, &mut model, Op::Isolate { range: more });
    assert_eq!(zone.offline_range(more), Err(OfflineError::TooMany { limit: 16 }));
    compare(&zone, &model);
}

/// The areas of a range of frames that `at` and `frames` touch, cut to the range.
fn areas(zone: FrameRange, at: u64, frames: u64) -> FrameRange {
    let first = (zone.start().get() + at) & !(Zone::AREA_FRAMES - 1);
    let last = (zone.start().get() + at + frames - 1) | (Zone::AREA_FRAMES - 1);
    let first = first.max(zone.start().get());
    range(first, last.min(zone.end().get() - 1) - first + 1)
}

#[test]
fn random_ranges_come_and_go_among_random_operations() {
    for seed in 0..times(12) {
        let mut random = Random(seed);
        let frames = 1 + random.below(if seed % 4 == 0 { 20_000 } else { 4_500 });
        let start = random.below(1 << 20);
        println!("seed {seed} start {start:#x} frames {frames}");
        let holes = if seed % 3 == 0 && frames > 600 {
            vec![(start + random.below(500), 1 + random.below(90))]
        } else {
            vec![]
        };
        let (zone, mut model) = zone(start, frames, &holes);
        let mut blocks = Vec::new();
        let most = 64 - u64::from(frames.leading_zeros());
        for count in 0..times(1_000) {
            let migrate = MigrateType::ALL[random.below(3) as usize];
            let order = random.below(most + 1).min(random.below(most + 1)).min(18) as u8;
            let some = {
                let at = random.below(frames);
                let some = range(start + at, 1 + random.below((frames - at).min(1500)));
                // Now and then one that is refused.
                if random.below(20) == 0 { some } else { areas(zone.span(), at, some.frames()) }
            };
            let listed: Vec<_> = model.isolated.iter().chain(&model.offline).copied().collect();
            match random.below(20) {
                0..=8 => {
                    blocks.extend(
                        step(&zone, &mut model, Op::Alloc { order, migrate }).map(|pfn| (pfn, order)),
                    );
                }
                9 => {
                    let pfn = some.start().get() & !((1 << order) - 1);
                    blocks.extend(
                        step(&zone, &mut model, Op::At { pfn, order, migrate }).map(|pfn| (pfn, order)),
                    );
                }
                10..=15 if !blocks.is_empty() => {
                    let (pfn, order) = blocks.swap_remove(random.below(blocks.len() as u64) as usize);
                    step(&zone, &mut model, Op::Free { pfn, order });
                }
                16 => {
                    let pfn = some.start().get();
                    step(&zone, &mut model, Op::Free { pfn, order });
                    blocks.retain(|block| *block != (pfn, order));
                }
                17 => {
                    step(&zone, &mut model, Op::Isolate { range: some });
                }
                18 if !listed.is_empty() => {
                    let range = listed[random.below(listed.len() as u64) as usize];
                    step(&zone, &mut model, Op::Offline { range });
                }
                19 if !listed.is_empty() => {
                    let range = listed[random.below(listed.len() as u64) as usize];
                    step(&zone, &mut model, Op::Reopen { range });
                }
                _ => {}
            }
            if count % 32 == 0 {
                compare(&zone, &model);
            }
        }
        for range in model.isolated.iter().chain(&model.offline).copied().collect::<Vec<_>>() {
            step(&zone, &mut model, Op::Reopen { range });
        }
        for (pfn, order) in blocks {
            step(&zone, &mut model, Op::Free { pfn, order });
        }
        compare(&zone, &model);
        let holes = model.slots.iter().filter(|slot| **slot == Slot::Hole).count() as u64;
        assert_eq!(zone.free_frames(), frames - holes);
    }
}

#[test]
fn every_range_of_a_small_zone_leaves_and_returns() {
    for (start, frames) in [(0, 40), (300, 1900), (480, 600), (511, 514), (512, 1536), (8190, 1030), (31, 1)]
    {
        let count = (start + frames - 1) / Zone::AREA_FRAMES - start / Zone::AREA_FRAMES + 1;
        let first_area = start / Zone::AREA_FRAMES;
        for first in 0..count {
            for last in first..count {
                // With nothing in use, with one frame in use, and with a block of two areas.
                for used in 0..3u8 {
                    let (zone, mut model) = zone(start, frames, &[]);
                    let (low, high) = ((first_area + first) * 512, (first_area + last + 1) * 512);
                    let part = range(low.max(start), high.min(start + frames) - low.max(start));
                    let held = match used {
                        1 => Some((part.end().get() - 1, 0)),
                        2 => Some((part.start().get().next_multiple_of(1024), 10)),
                        _ => None,
                    };
                    let migrate = MOVABLE;
                    let inside = |(pfn, order): &(u64, u8)| part.contains_range(range(*pfn, 1 << order));
                    let held = held.filter(inside).filter(|(pfn, order)| {
                        step(&zone, &mut model, Op::At { pfn: *pfn, order: *order, migrate }).is_some()
                    });
                    step(&zone, &mut model, Op::Isolate { range: part });
                    let taken = fill(&zone, &mut model);
                    step(&zone, &mut model, Op::Offline { range: part });
                    if let Some((pfn, order)) = held {
                        step(&zone, &mut model, Op::Free { pfn, order });
                        assert_eq!(step(&zone, &mut model, Op::Alloc { order: 0, migrate }), None);
                        step(&zone, &mut model, Op::Offline { range: part });
                    }
                    compare(&zone, &model);
                    step(&zone, &mut model, Op::Reopen { range: part });
                    for pfn in taken {
                        step(&zone, &mut model, Op::Free { pfn, order: 0 });
                    }
                    compare(&zone, &model);
                    assert_eq!(zone.free_frames(), frames);
                }
            }
        }
    }
}

#[test]
fn what_a_cache_holds_is_reported_and_comes_back() {
    let (zone, _) = zone(0, 1024, &[]);
    let mut cpu = Cpu::new(&zone, Keep::Frames);
    let frame = cpu.alloc(ZERO, MOVABLE).unwrap();
    let all = range(0, 512);
    let found = zone.isolate_range(all).unwrap();
    assert_eq!((found.used, found.cached, found.free), (1, 31, 480));
    assert_eq!(zone.offline_range(all), Err(OfflineError::InUse { pfn: Pfn::new(0), used: 1, cached: 31 }));
    // The CPU's next allocation gives its words back and finds a frame elsewhere.
    let other = cpu.alloc(ZERO, MOVABLE).unwrap();
    assert!(!all.contains(other));
    cpu.free(frame, ZERO).unwrap();
    zone.offline_range(all).unwrap();
    cpu.free(other, ZERO).unwrap();
    cpu.drain();
    assert_eq!((zone.managed_frames(), zone.free_frames()), (512, 512));
    zone.reopen_range(all).unwrap();
    assert_eq!(zone.audit().unwrap().free_frames, 1024);
    // A CPU that is gone is drained by whoever holds its value.
    let held = cpu.alloc(ZERO, MOVABLE).unwrap();
    zone.isolate_range(all).unwrap();
    zone.free(held, ZERO).unwrap();
    drop(cpu);
    zone.offline_range(all).unwrap();
    assert_eq!(zone.audit().unwrap().absent_frames, 512);
}

#[test]
fn ranges_leave_and_return_under_load() {
    let (zone, _) = zone(77, 9000, &[]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let offlined = std::thread::scope(|scope| {
        for thread in 0..2 {
            let (zone, stop) = (&zone, &stop);
            scope.spawn(move || {
                let mut random = Random(thread);
                let mut cpu = Cpu::new(zone, if thread == 0 { Keep::Frames } else { Keep::Counts });
                let mut mine = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let order = Order::new(random.below(11).min(random.below(11)) as u8).unwrap();
                    if random.below(100) < 55 && mine.len() < 600 {
                        mine.extend(cpu.alloc(order, MOVABLE).ok().map(|pfn| (pfn, order)));
                    } else if !mine.is_empty() {
                        let (pfn, order) = mine.swap_remove(random.below(mine.len() as u64) as usize);
                        cpu.free(pfn, order).unwrap();
                    }
                }
                mine.into_iter().for_each(|(pfn, order)| cpu.free(pfn, order).unwrap());
            });
        }
        let mut random = Random(99);
        let mut offlined = 0;
        for _ in 0..200 {
            let at = random.below(8900);
            let part = areas(zone.span(), at, 1 + random.below((9000 - at).min(900)));
            while zone.isolate_range(part) == Err(IsolateError::Busy) {}
            for _ in 0..50 {
                match zone.offline_range(part) {
                    Ok(()) => {
                        offlined += 1;
                        let found = zone.range_use(part);
                        assert_eq!((found.used, found.absent), (0, part.frames()));
                        break;
                    }
                    Err(OfflineError::InUse { .. } | OfflineError::Busy | OfflineError::Contended { .. }) => {
                        std::thread::yield_now();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            while zone.reopen_range(part) == Err(ReopenError::Busy) {}
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        offlined
    });
    let stats = zone.audit().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((stats.free_frames, stats.absent_frames), (9000, 0));
    assert!(offlined > 0, "nothing went offline");
}

/// All histories of `depth` operations, runs and ranges among them, on a zone of two areas' ends.
fn enumerate(depth: u32, prefix: &mut Vec<Op>, runs: &mut u64) {
    let (zone, mut model) = zone(510, 6, &[]);
    for op in prefix.iter() {
        step(&zone, &mut model, *op);
    }
    compare(&zone, &model);
    *runs += 1;
    if depth == 0 {
        return;
    }
    let migrate = MOVABLE;
    let mut ops = vec![
        Op::Alloc { order: 0, migrate },
        Op::Alloc { order: 1, migrate },
        Op::Run { frames: 3, align: 0, from: 0, below: u64::MAX },
        Op::Bulk { frames: 2, migrate },
        Op::TakeRange { range: range(511, 2), migrate },
        Op::FreeRange { range: range(511, 2) },
    ];
    for range in [range(510, 2), range(512, 4), range(510, 6)] {
        ops.extend([Op::Isolate { range }, Op::Offline { range }, Op::Reopen { range }]);
    }
    let blocks = model.blocks();
    ops.extend(
        blocks.first().iter().chain(&blocks.last()).map(|(pfn, order)| Op::Free { pfn: *pfn, order: *order }),
    );
    for op in ops {
        prefix.push(op);
        enumerate(depth - 1, prefix, runs);
        prefix.pop();
    }
}

#[test]
fn every_short_history_of_runs_and_ranges_is_right() {
    let mut runs = 0;
    // A fourth operation of each history where that takes a moment only.
    let depth = if cfg!(debug_assertions) { 3 } else { 4 };
    enumerate(depth, &mut Vec::new(), &mut runs);
    assert!(runs > 3_000, "{runs}");
}
