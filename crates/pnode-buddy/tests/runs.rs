//! Contiguous runs, exact sizes and bulk calls, against the naive model.

mod common;

use common::{Op, Random, compare, step, times, zone};
use pnode_buddy::{BulkAllocError, BulkFreeError, Cpu, FreeRangeError, Keep, Run, RunError, Zone};
use pnode_core::{FrameError, FrameRange, FreeError, MigrateType, Order, Pfn};

const ZERO: Order = Order::ZERO;
const MOVABLE: MigrateType = MigrateType::Movable;

fn range(start: u64, frames: u64) -> FrameRange {
    FrameRange::new(Pfn::new(start), frames).unwrap()
}

#[test]
fn runs_and_blocks_agree_with_the_model() {
    for seed in 0..times(12) {
        let mut random = Random(seed);
        let frames = 1 + random.below(2_000);
        let start = random.below(1 << 20);
        println!("seed {seed} start {start:#x} frames {frames}");
        let holes = if seed % 3 == 0 && frames > 600 {
            vec![(start + random.below(500), 1 + random.below(90))]
        } else {
            vec![]
        };
        let (zone, mut model) = zone(start, frames, &holes);
        let mut held: Vec<FrameRange> = Vec::new();
        for count in 0..times(400) {
            let migrate = MigrateType::ALL[random.below(3) as usize];
            let some = {
                let at = random.below(frames);
                range(start + at, 1 + random.below((frames - at).min(200)))
            };
            match random.below(12) {
                0 | 1 => {
                    let (frames, align) = (random.below(150), random.below(7) as u8);
                    let got = step(&zone, &mut model, Op::Run { frames, align, from: 0, below: u64::MAX });
                    held.extend(got.map(|at| range(at, frames)));
                }
                2 => {
                    let (frames, align) = (random.below(80), random.below(4) as u8);
                    let (from, below) = (some.start().get(), start + random.below(2 * frames.max(1) + 500));
                    let got = step(&zone, &mut model, Op::Run { frames, align, from, below });
                    held.extend(got.map(|at| range(at, frames)));
                }
                3 => {
                    let got = step(&zone, &mut model, Op::TakeRange { range: some, migrate });
                    held.extend(got.map(|_| some));
                }
                4 => {
                    let order = random.below(6) as u8;
                    let got = step(&zone, &mut model, Op::Alloc { order, migrate });
                    held.extend(got.map(|at| range(at, 1 << order)));
                }
                5 => {
                    step(&zone, &mut model, Op::Bulk { frames: random.below(50) as usize, migrate });
                    held = model.blocks().iter().map(|(pfn, order)| range(*pfn, 1 << order)).collect();
                }
                6 => {
                    // Most likely wrong.
                    step(&zone, &mut model, Op::FreeRange { range: some });
                    held = model.blocks().iter().map(|(pfn, order)| range(*pfn, 1 << order)).collect();
                }
                7 => {
                    let pfn = some.start().get();
                    step(&zone, &mut model, Op::Free { pfn, order: random.below(4) as u8 });
                    held = model.blocks().iter().map(|(pfn, order)| range(*pfn, 1 << order)).collect();
                }
                _ if !held.is_empty() => {
                    let range = held.swap_remove(random.below(held.len() as u64) as usize);
                    step(&zone, &mut model, Op::FreeRange { range });
                }
                _ => {}
            }
            if count % 16 == 0 {
                compare(&zone, &model);
            }
        }
        for (pfn, order) in model.blocks() {
            step(&zone, &mut model, Op::Free { pfn, order });
        }
        compare(&zone, &model);
    }
}

#[test]
fn every_run_of_a_small_zone_is_found() {
    // All ways to fill 7 frames, all sizes and alignments, some limits.
    for start in [29, 508] {
        for taken in 0..128u64 {
            for frames in 1..=7 {
                for align in 0..3 {
                    for (from, below) in
                        [(0, u64::MAX), (start + 2, u64::MAX), (0, start + 5), (start + 3, start + 6)]
                    {
                        let (zone, mut model) = zone(start, 7, &[]);
                        for at in (0..7).filter(|at| taken >> at & 1 == 1) {
                            step(&zone, &mut model, Op::At { pfn: start + at, order: 0, migrate: MOVABLE });
                        }
                        step(&zone, &mut model, Op::Run { frames, align, from, below });
                        compare(&zone, &model);
                    }
                }
            }
        }
    }
}

#[test]
fn large_runs_cross_areas_and_come_back_whole() {
    let (zone, mut model) = zone(3, 300_000, &[]);
    for (frames, align) in [(1, 0), (33, 0), (513, 0), (1000, 9), (70_001, 3), (200_000, 0), (262_144, 18)] {
        let at = step(&zone, &mut model, Op::Run { frames, align, from: 0, below: u64::MAX });
        let Some(at) = at else { continue };
        let run = range(at, frames);
        if frames > 2 {
            // A range that cuts a block is refused, and names the block.
            let cut = range(at, frames - 1);
            let freed = zone.free_range(cut);
            // Unless what is cut off is a block itself.
            let whole = model.free_range(cut);
            assert_eq!(freed.is_ok(), whole, "{frames}: {freed:?}");
            if whole {
                step(&zone, &mut model, Op::Free { pfn: at + frames - 1, order: 0 });
                continue;
            }
            let Err(FreeRangeError { freed: 0, cause: FreeError::WrongOrder { .. } }) = freed else {
                panic!("{freed:?}");
            };
        }
        step(&zone, &mut model, Op::FreeRange { range: run });
    }
    compare(&zone, &model);
    assert_eq!(zone.alloc_run(Run::of(300_001)), Err(RunError::Exhausted { frames: 300_001 }));
    assert_eq!(zone.alloc_run(Run::of(u64::MAX)), Err(RunError::Exhausted { frames: u64::MAX }));
    assert_eq!(zone.alloc_run(Run::of(0)), Err(RunError::Empty));
    zone.isolate();
    assert_eq!(zone.alloc_run(Run::of(3)), Err(RunError::Closed));
}

#[test]
fn bulk_calls_lose_nothing() {
    for keep in [None, Some(Keep::Counts), Some(Keep::Frames)] {
        let (zone, mut model) = zone(77, 3000, &[(500, 40)]);
        let mut cpu = keep.map(|keep| Cpu::new(&zone, keep));
        let mut random = Random(5);
        let mut held: Vec<Pfn> = Vec::new();
        for _ in 0..times(600) {
            let migrate = MigrateType::ALL[random.below(3) as usize];
            if random.below(2) == 0 {
                let mut frames = vec![Pfn::new(u64::MAX); random.below(300) as usize];
                let filled = match &mut cpu {
                    Some(cpu) => cpu.alloc_bulk(&mut frames, migrate),
                    None => zone.alloc_bulk(&mut frames, migrate),
                };
                let filled = match filled {
                    Ok(()) => frames.len(),
                    Err(BulkAllocError { filled, cause }) => {
                        assert_eq!(cause, FrameError::Exhausted { order: ZERO });
                        assert_eq!(held.len() + filled, 3000 - 40, "frames were left");
                        filled
                    }
                };
                frames.truncate(filled);
                frames.iter().for_each(|pfn| model.take(pfn.get(), 0));
                held.append(&mut frames);
            } else {
                let at = random.below(held.len() as u64 + 1) as usize;
                let mut frames = held.split_off(at);
                if random.below(2) == 0 {
                    frames.sort_unstable();
                }
                // One that was freed just before, somewhere in the list.
                let twice = (random.below(3) == 0 && !frames.is_empty())
                    .then(|| random.below(frames.len() as u64) as usize);
                if let Some(at) = twice {
                    frames.insert(at + 1, frames[at]);
                }
                let freed = match &mut cpu {
                    Some(cpu) => cpu.free_bulk(&frames),
                    None => zone.free_bulk(&frames),
                };
                match (freed, twice) {
                    (Ok(()), None) => {}
                    (Err(BulkFreeError { freed, cause }), Some(at)) => {
                        assert_eq!((freed, cause.pfn()), (at + 1, frames[at]));
                        held.extend(frames.drain(at + 2..));
                        frames.truncate(at + 1);
                    }
                    other => panic!("{other:?}"),
                }
                frames.iter().for_each(|pfn| model.free(pfn.get(), 0).unwrap());
            }
        }
        if let Some(cpu) = &mut cpu {
            cpu.drain();
        }
        compare(&zone, &model);
        assert_eq!(zone.free_bulk(&[Pfn::new(1)]).map_err(|error| error.freed), Err(0));
    }
}

#[test]
fn a_bulk_call_costs_a_few_claims_a_word() {
    // The frames of whole words come in order, all of a word before the next.
    let (zone, _) = zone(0, 4096, &[]);
    let mut frames = [Pfn::new(0); 512];
    zone.alloc_bulk(&mut frames, MOVABLE).unwrap();
    assert!(frames.iter().zip(0..).all(|(pfn, at)| pfn.get() == at));
    zone.free_bulk(&frames).unwrap();
    assert_eq!(zone.audit().unwrap().free_frames, 4096);
}

#[test]
fn runs_compete_without_losing_frames() {
    let (zone, _) = zone(100, 2000, &[]);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let zone: &Zone<'_> = &zone;
            scope.spawn(move || {
                let mut random = Random(thread);
                let mut held = Vec::new();
                for _ in 0..times(4_000) {
                    if random.below(5) < 3 {
                        let run =
                            Run::of(1 + random.below(60)).aligned(Order::new(random.below(4) as u8).unwrap());
                        held.extend(zone.alloc_run(run).ok());
                    } else if let Some(range) = held.pop() {
                        zone.free_range(range).unwrap();
                    }
                }
                held.into_iter().for_each(|range| zone.free_range(range).unwrap());
            });
        }
    });
    assert_eq!(zone.audit().unwrap_or_else(|error| panic!("{error}")).free_frames, 2000);
}
