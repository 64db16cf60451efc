//! Seeded traces whose fragmentation is pinned: a change of placement that makes it worse shows here.
//!
//! The traces are those of the measurements in `benches/frames`, on a smaller zone, so that they run in a moment.

mod common;

use common::{Random, zone};
use pnode_buddy::{Cpu, Keep, Zone};
use pnode_core::{MigrateType, Order, Pfn};

const ZERO: Order = Order::ZERO;
/// What the mixed trace leaves whole at least, in hundredths of what there could be: 38 for these seeds and for two hundred.
/// Eight seeds differ from the next eight by a fifth.
const LEAST: u64 = 36;
const SEEDS: u64 = 48;
const MOVABLE: MigrateType = MigrateType::Movable;

/// Areas that can be had as blocks of order 9, all at once.
fn whole_areas(zone: &Zone<'_>) -> u64 {
    let got: Vec<_> = std::iter::from_fn(|| zone.alloc(Order::HUGE, MigrateType::Huge).ok()).collect();
    got.iter().for_each(|pfn| zone.free(*pfn, Order::HUGE).unwrap());
    got.len() as u64
}

/// Half of a full zone is freed at random; then, round by round, a tenth of it is freed and allocated again. An area is
/// whole when the last frame of it was replaced, and the new ones went elsewhere.
fn replacement(rounds: u32, seed: u64, keep: Option<Keep>) -> u64 {
    let (zone, _) = zone(0, 64 * Zone::AREA_FRAMES, &[]);
    let mut cpu = keep.map(|keep| Cpu::new(&zone, keep));
    let mut random = Random(seed);
    let mut held: Vec<Pfn> = std::iter::from_fn(|| zone.alloc(ZERO, MOVABLE).ok()).collect();
    let frames = held.len() as u64;
    for _ in 0..frames / 2 {
        zone.free(held.swap_remove(random.below(held.len() as u64) as usize), ZERO).unwrap();
    }
    for _ in 0..rounds {
        for _ in 0..frames / 10 {
            zone.free(held.swap_remove(random.below(held.len() as u64) as usize), ZERO).unwrap();
        }
        for _ in 0..frames / 10 {
            let pfn = match &mut cpu {
                Some(cpu) => cpu.alloc(ZERO, MOVABLE),
                None => zone.alloc(ZERO, MOVABLE),
            };
            held.push(pfn.unwrap());
        }
    }
    drop(cpu);
    zone.audit().unwrap_or_else(|error| panic!("{error}"));
    whole_areas(&zone)
}

#[test]
fn replaced_frames_leave_whole_areas() {
    for seed in 0..3 {
        // 32 of 64 areas could be whole.
        let [core, counts, frames] =
            [None, Some(Keep::Counts), Some(Keep::Frames)].map(|keep| replacement(40, seed, keep));
        println!("seed {seed}: core {core}, counts {counts}, frames {frames} of 32");
        assert!(core >= 28 && counts >= 28 && frames >= 28, "seed {seed}: {core} {counts} {frames}");
    }
}

/// Four of five blocks are single frames, the others of orders 0 to 10 alike, at 95 %; then half of the single frames are
/// freed: whole areas, and how many there could be.
fn churn(seed: u64) -> (u64, u64) {
    let frames = 256 * Zone::AREA_FRAMES;
    let (zone, _) = zone(0, frames, &[]);
    let mut cpu = Cpu::new(&zone, Keep::Counts);
    let mut random = Random(seed);
    let mut held: Vec<(Pfn, Order)> = Vec::new();
    let (mut used, goal) = (0, frames * 95 / 100);
    for _ in 0..120_000 {
        let order = if random.below(10) < 8 { 0 } else { random.below(11) as u8 };
        let order = Order::new(order).unwrap();
        while used + order.frames() > goal {
            let (pfn, order) = held.swap_remove(random.below(held.len() as u64) as usize);
            used -= order.frames();
            cpu.free(pfn, order).unwrap();
        }
        if let Ok(pfn) = cpu.alloc(order, MOVABLE) {
            used += order.frames();
            held.push((pfn, order));
        }
    }
    for (pfn, order) in held {
        if order == ZERO && random.below(2) == 0 {
            cpu.free(pfn, order).unwrap();
        }
    }
    cpu.drain();
    zone.audit().unwrap_or_else(|error| panic!("{error}"));
    (whole_areas(&zone), zone.free_frames() / Zone::AREA_FRAMES)
}

#[test]
fn mixed_churn_leaves_areas_whole() {
    let results: Vec<_> = (1..=SEEDS).map(churn).collect();
    let (got, ideal) = results.iter().fold((0, 0), |sum, found| (sum.0 + found.0, sum.1 + found.1));
    println!("whole areas of as many as there could be: {results:?}, together {got} of {ideal}");
    assert!(got * 100 >= ideal * LEAST, "{got} of {ideal}");
}
