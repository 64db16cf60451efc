//! One thread against the naive model: small worlds exhaustively, larger ones at random.

mod common;

use common::{Model, Op, Random, compare, step, times, zone};
use pnode_buddy::Zone;
use pnode_core::MigrateType;

fn random_walk(seed: u64, start: u64, frames: u64, holes: &[(u64, u64)], steps: u64) {
    println!("seed {seed:#x} start {start:#x} frames {frames}");
    let (zone, mut model) = zone(start, frames, holes);
    let mut random = Random(seed);
    let mut blocks = Vec::new();
    let most = 64 - frames.leading_zeros() as u64;
    for count in 0..steps {
        // Swings between filling and emptying, so that both ends are met.
        let filling = random.below(100) < if count / 400 % 2 == 0 { 70 } else { 30 };
        let migrate = MigrateType::ALL[random.below(3) as usize];
        let order = (random.below(most + 1).min(random.below(most + 1))).min(18) as u8;
        if filling {
            let op = match random.below(8) {
                0 => Op::At { pfn: (start + random.below(frames)) & !((1 << order) - 1), order, migrate },
                _ => Op::Alloc { order, migrate },
            };
            blocks.extend(step(&zone, &mut model, op).map(|pfn| (pfn, order)));
        } else if !blocks.is_empty() {
            let (pfn, order) = blocks.swap_remove(random.below(blocks.len() as u64) as usize);
            step(&zone, &mut model, Op::Free { pfn, order });
        }
        if random.below(4) == 0 {
            // Most likely wrong: both must say why. If it is right, the block is forgotten.
            let (pfn, order) = (start.saturating_sub(2) + random.below(frames + 4), random.below(19) as u8);
            step(&zone, &mut model, Op::Free { pfn, order });
            blocks.retain(|block| *block != (pfn, order));
        }
        if count % 64 == 0 {
            compare(&zone, &model);
        }
    }
    for (pfn, order) in blocks {
        step(&zone, &mut model, Op::Free { pfn, order });
    }
    compare(&zone, &model);
}

#[test]
fn random_operations_agree_with_the_model() {
    for seed in 0..times(24) {
        let mut random = Random(seed);
        let frames = 1 + random.below(3000);
        let start = random.below(1 << 20);
        random_walk(seed, start, frames, &[], times(2_000));
    }
}

#[test]
fn holes_are_never_handed_out() {
    for seed in 100..100 + times(18) {
        let mut random = Random(seed);
        let frames = 600 + random.below(2000);
        let start = random.below(1 << 20);
        let holes: Vec<_> = (0..1 + random.below(5))
            .map(|_| {
                let at = random.below(frames);
                (start + at, 1 + random.below((frames - at).min(600)))
            })
            .collect();
        random_walk(seed, start, frames, &holes, times(1_500));
    }
}

#[test]
fn large_zones_use_every_order() {
    for seed in 200..204 {
        random_walk(seed, (seed - 200) * 777, (1 << 18) + (1 << 17) + 4321, &[], times(400));
    }
}

#[test]
fn the_last_frames_of_the_number_space_work() {
    random_walk(7, u64::MAX - 700, 700, &[(u64::MAX - 300, 40)], times(2_000));
}

/// All sequences of `depth` operations on a tiny zone.
fn enumerate(zone: &dyn Fn() -> (Zone<'static>, Model), depth: u32, prefix: &mut Vec<Op>, runs: &mut u64) {
    let (real, mut model) = zone();
    for op in prefix.iter() {
        step(&real, &mut model, *op);
    }
    compare(&real, &model);
    *runs += 1;
    if depth == 0 {
        return;
    }
    let migrate = MigrateType::Movable;
    let mut ops: Vec<Op> = (0..4).map(|order| Op::Alloc { order, migrate }).collect();
    ops.extend(model.blocks().into_iter().map(|(pfn, order)| Op::Free { pfn, order }));
    if let Some((pfn, order)) = model.blocks().first() {
        ops.push(Op::Free { pfn: *pfn, order: order + 1 });
    }
    for op in ops {
        prefix.push(op);
        enumerate(zone, depth - 1, prefix, runs);
        prefix.pop();
    }
}

#[test]
fn every_short_history_of_a_small_zone_is_right() {
    let mut runs = 0;
    for (start, frames) in [(0, 6), (5, 9), (30, 5), (510, 4)] {
        enumerate(&|| zone(start, frames, &[]), 5, &mut Vec::new(), &mut runs);
    }
    assert!(runs > 10_000, "{runs}");
}

#[test]
fn every_small_zone_gives_all_and_takes_all_back() {
    for start in [0, 1, 7, 15, 16, 30, 31] {
        for frames in 1..70 {
            for order in 0..7 {
                let (zone, mut model) = zone(start, frames, &[]);
                let mut got = Vec::new();
                let migrate = MigrateType::Unmovable;
                while let Some(pfn) = step(&zone, &mut model, Op::Alloc { order, migrate }) {
                    got.push(pfn);
                }
                for pfn in got {
                    step(&zone, &mut model, Op::Free { pfn, order });
                }
                compare(&zone, &model);
            }
        }
    }
}
