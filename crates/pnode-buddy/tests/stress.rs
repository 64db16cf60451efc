//! Threads against an ownership oracle: every frame that is handed out is stamped, every stamp must have been free.
//!
//! `PNODE_STRESS_OPS` sets the operations in total (default 1,050,000 in three worlds); the long mode is
//! `PNODE_STRESS_OPS=300000000 cargo test --release -p pnode-buddy --test stress`.

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Random, times, zone};
use pnode_buddy::{Cpu, Keep, Zone};
use pnode_core::{FrameError, FrameRange, MigrateType, Order, Pfn};

struct Oracle {
    range: FrameRange,
    owners: Vec<AtomicU32>,
}

impl Oracle {
    fn new(range: FrameRange) -> Self {
        Self { range, owners: range.iter().map(|_| AtomicU32::new(0)).collect() }
    }

    fn stamp(&self, pfn: Pfn, order: Order, from: u32, to: u32) {
        let start = (pfn.get() - self.range.start().get()) as usize;
        for (offset, owner) in self.owners[start..start + order.frames() as usize].iter().enumerate() {
            let old = owner.swap(to, SeqCst);
            assert_eq!(
                old,
                from,
                "frame {:#x} of the block at {pfn:?}, {order:?}",
                pfn.get() + offset as u64
            );
        }
    }
}

/// Blocks on their way to a thread that did not allocate them.
type Parcels = Mutex<Vec<(Pfn, Order)>>;

/// Allocates; waits for a peer that the scheduler stopped in the middle of a move: long on a busy machine, but not for ever.
fn alloc(cpu: &mut Cpu<'_, '_>, order: Order, migrate: MigrateType) -> Option<Pfn> {
    let began = Instant::now();
    loop {
        match cpu.alloc(order, migrate) {
            Ok(pfn) => return Some(pfn),
            Err(FrameError::Exhausted { .. }) => return None,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(300), "{error}"),
        }
        std::thread::yield_now();
    }
}

fn work(zone: &Zone<'_>, oracle: &Oracle, parcels: &Parcels, thread: u32, ops: u64, most: u8, seed: u64) {
    let mut random = Random(seed ^ u64::from(thread) << 32);
    let mut mine: Vec<(Pfn, Order)> = Vec::new();
    let mut cpu = Cpu::new(zone, if thread % 2 == 0 { Keep::Counts } else { Keep::Frames });
    let give_back = |cpu: &mut Cpu<'_, '_>, (pfn, order): (Pfn, Order)| {
        oracle.stamp(pfn, order, thread, 0);
        cpu.free(pfn, order).unwrap_or_else(|error| panic!("{error}"));
    };
    for count in 0..ops {
        let filling = if count / 2_000 % 2 == 0 { 65 } else { 35 };
        match random.below(100) {
            roll if roll < filling => {
                let order = random.below(u64::from(most) + 1).min(random.below(u64::from(most) + 1));
                let order = Order::new(order as u8).unwrap();
                let migrate = MigrateType::ALL[random.below(3) as usize];
                if let Some(pfn) = alloc(&mut cpu, order, migrate) {
                    oracle.stamp(pfn, order, 0, thread);
                    mine.push((pfn, order));
                }
            }
            roll if roll < 96 => {
                if !mine.is_empty() {
                    give_back(&mut cpu, mine.swap_remove(random.below(mine.len() as u64) as usize));
                }
            }
            96 | 97 => {
                if let Some((pfn, order)) = mine.pop() {
                    oracle.stamp(pfn, order, thread, u32::MAX);
                    parcels.lock().unwrap().push((pfn, order));
                }
            }
            98 => {
                let parcel = parcels.lock().unwrap().pop();
                if let Some((pfn, order)) = parcel {
                    oracle.stamp(pfn, order, u32::MAX, thread);
                    give_back(&mut cpu, (pfn, order));
                }
            }
            _ if count % 64 == 0 => cpu.drain(),
            _ => {
                // A place of our choice; and a free of what is surely not ours to free with this order.
                let order = Order::new(random.below(u64::from(most) + 1) as u8).unwrap();
                let pfn = Pfn::new(oracle.range.start().get() + random.below(oracle.range.frames()));
                let pfn = pfn.align_down(order);
                if zone.alloc_at(pfn, order, MigrateType::Movable).is_ok() {
                    oracle.stamp(pfn, order, 0, thread);
                    mine.push((pfn, order));
                }
                if let Some((pfn, order)) = mine.last() {
                    let wrong = Order::new(if order.get() == 0 { 1 } else { order.get() - 1 }).unwrap();
                    assert!(zone.free(*pfn, wrong).is_err());
                }
            }
        }
    }
    mine.into_iter().for_each(|block| give_back(&mut cpu, block));
}

fn stress(start: u64, frames: u64, most: u8, threads: u32, percent: u64) {
    let total = std::env::var("PNODE_STRESS_OPS").map_or(times(1_050_000), |ops| ops.parse().unwrap());
    let ops = total * percent / 100 / u64::from(threads);
    let seed = std::env::var("PNODE_STRESS_SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    println!("{threads} threads of {ops} operations on {frames} frames, seed {seed:#x}");
    let (zone, _) = zone(start, frames, &[]);
    let oracle = Oracle::new(zone.span());
    let parcels = Parcels::default();
    std::thread::scope(|scope| {
        for thread in 1..=threads {
            let (zone, oracle, parcels) = (&zone, &oracle, &parcels);
            scope.spawn(move || work(zone, oracle, parcels, thread, ops, most, seed));
        }
    });
    for (pfn, order) in parcels.into_inner().unwrap() {
        oracle.stamp(pfn, order, u32::MAX, 0);
        zone.free(pfn, order).unwrap();
    }
    let stats = zone.audit().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(stats.free_frames, frames);
    // Nothing is lost: the zone gives its largest blocks again.
    for order in Order::all().rev() {
        for _ in 0..stats.free_blocks[order.get() as usize] {
            zone.alloc(order, MigrateType::Movable).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    assert_eq!(zone.free_frames(), 0);
}

#[test]
fn one_area_all_orders() {
    stress(512, 512, 9, 3, 50);
}

#[test]
fn a_few_areas_and_odd_edges() {
    stress(77, 9000, 13, 3, 48);
}

#[test]
fn every_order() {
    stress(0, 1 << 19, 18, 2, 2);
}
