//! The caches of CPUs: what they count, what they refuse, what they give back.

mod common;

use common::{Random, zone};
use pnode_buddy::{Cpu, Keep};
use pnode_core::{FrameError, FreeError, MigrateType, Order, Pfn};

const ZERO: Order = Order::ZERO;
const MOVABLE: MigrateType = MigrateType::Movable;

#[test]
fn a_drain_gives_everything_back() {
    for keep in [Keep::Counts, Keep::Frames] {
        let (zone, _) = zone(5, 2000, &[]);
        let mut cpu = Cpu::new(&zone, keep);
        let mut random = Random(3);
        let mut held = Vec::new();
        for _ in 0..20_000 {
            if random.below(2) == 0 {
                let order = Order::new(random.below(6).min(random.below(6)) as u8).unwrap();
                let migrate = MigrateType::ALL[random.below(3) as usize];
                held.extend(cpu.alloc(order, migrate).ok().map(|pfn| (pfn, order)));
            } else if !held.is_empty() {
                let (pfn, order) = held.swap_remove(random.below(held.len() as u64) as usize);
                cpu.free(pfn, order).unwrap();
                assert!(cpu.free(pfn, order).is_err(), "{pfn:?} {order:?}");
            }
        }
        let used: u64 = held.iter().map(|(_, order)| order.frames()).sum();
        cpu.drain();
        let stats = zone.audit().unwrap();
        assert_eq!((zone.free_frames(), stats.cached_frames), (2000 - used, 0));
        for (pfn, order) in held {
            zone.free(pfn, order).unwrap();
        }
        assert_eq!(zone.audit().unwrap().free_frames, 2000);
    }
}

#[test]
fn a_cached_frame_is_refused_whoever_frees_it() {
    let (zone, _) = zone(0, 1024, &[]);
    let (mut one, mut two) = (Cpu::new(&zone, Keep::Frames), Cpu::new(&zone, Keep::Frames));
    let kept = one.alloc(ZERO, MOVABLE).unwrap();
    let pfn = one.alloc(ZERO, MOVABLE).unwrap();
    one.free(pfn, ZERO).unwrap();
    let cached = Err(FreeError::Cached { pfn });
    assert_eq!(one.free(pfn, ZERO), cached);
    assert_eq!(two.free(pfn, ZERO), cached);
    assert_eq!(zone.free(pfn, ZERO), cached);
    let pair = Order::new(1).unwrap();
    assert_eq!(zone.free(kept, pair), Err(FreeError::WrongOrder { pfn: kept, order: pair }));
    // A remote free is accepted once.
    two.free(kept, ZERO).unwrap();
    assert_eq!(two.free(kept, ZERO), Err(FreeError::Cached { pfn: kept }));
    one.drain();
    assert_eq!(zone.free(kept, ZERO), Err(FreeError::NotAllocated { pfn: kept }));
    assert_eq!(zone.audit().unwrap().free_frames, 1024);
}

#[test]
fn remote_frees_come_back_to_the_owner() {
    let (zone, _) = zone(0, 32, &[]);
    let (mut owner, mut other) = (Cpu::new(&zone, Keep::Frames), Cpu::new(&zone, Keep::Frames));
    for _ in 0..1000 {
        let frames: Vec<Pfn> = std::iter::from_fn(|| owner.alloc(ZERO, MOVABLE).ok()).collect();
        assert_eq!(frames.len(), 32);
        frames.into_iter().for_each(|pfn| other.free(pfn, ZERO).unwrap());
    }
    drop((owner, other));
    assert_eq!(zone.audit().unwrap().free_frames, 32);
}

#[test]
fn every_frame_of_a_zone_passes_through_a_cache() {
    for (start, frames) in [(0, 1), (31, 2), (7, 700), (512, 4096)] {
        let (zone, mut model) = zone(start, frames, &[]);
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        for migrate in MigrateType::ALL {
            while let Ok(pfn) = cpu.alloc(ZERO, migrate) {
                model.take(pfn.get(), 0);
            }
        }
        assert_eq!(model.free_frames(), 0);
        model.blocks().into_iter().for_each(|(pfn, _)| cpu.free(Pfn::new(pfn), ZERO).unwrap());
        drop(cpu);
        assert_eq!(zone.audit().unwrap().free_frames, frames);
    }
}

#[test]
fn an_isolated_zone_hands_out_nothing_cached_either() {
    let (zone, _) = zone(0, 512, &[]);
    let mut cpu = Cpu::new(&zone, Keep::Frames);
    let pfn = cpu.alloc(ZERO, MOVABLE).unwrap();
    zone.isolate();
    assert_eq!(cpu.alloc(ZERO, MOVABLE), Err(FrameError::Closed { order: ZERO }));
    assert!(zone.used_frames() > 1, "the cache counts as used");
    cpu.free(pfn, ZERO).unwrap();
    cpu.drain();
    assert_eq!(zone.used_frames(), 0);
    zone.reopen();
    assert!(cpu.alloc(ZERO, MOVABLE).is_ok());
}
