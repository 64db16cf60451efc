//! The caches of CPUs: what they count, what they refuse, what they give back.

mod common;

use common::{Random, times, zone};
use pnode_buddy::{Cpu, Keep, Zone};
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
        for _ in 0..times(20_000) {
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
    for _ in 0..times(1000) {
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

#[test]
fn a_block_on_a_shelf_is_refused_whoever_frees_it() {
    let (zone, _) = zone(0, 1 << 15, &[]);
    let (mut one, mut two) = (Cpu::new(&zone, Keep::Frames), Cpu::new(&zone, Keep::Frames));
    for order in Order::all().take(5) {
        let pfn = zone.alloc(order, MOVABLE).unwrap();
        let rest = zone.alloc(Order::new(4).unwrap(), MOVABLE).unwrap();
        one.free(pfn, order).unwrap();
        assert_eq!(one.cached_frames(), order.frames());
        let cached = Err(FreeError::Cached { pfn });
        assert_eq!(one.free(pfn, order), cached);
        assert_eq!(two.free(pfn, order), cached);
        assert_eq!(zone.free(pfn, order), cached);
        if order != ZERO {
            let tail = pfn.checked_add(1).unwrap();
            assert_eq!(zone.free(tail, ZERO), Err(FreeError::WrongOrder { pfn: tail, order: ZERO }));
        }
        zone.alloc_at(pfn, order, MOVABLE).unwrap_err();
        let stats = zone.audit();
        assert!(matches!(stats, Ok(stats) if stats.cached_frames == order.frames()), "{stats:?}");
        // It comes back to who wants that order and type of this CPU, and to nobody else.
        assert_ne!(two.alloc(order, MOVABLE).unwrap(), pfn);
        assert_ne!(one.alloc(order, MigrateType::Unmovable).unwrap(), pfn);
        assert_eq!(one.alloc(order, MOVABLE).unwrap(), pfn);
        zone.free(pfn, order).unwrap();
        zone.free(rest, Order::new(4).unwrap()).unwrap();
        two.drain();
        one.drain();
    }
}

#[test]
fn a_cpu_gives_back_what_it_keeps_before_it_fails() {
    let (zone, _) = zone(0, 1 << 15, &[]);
    let mut cpu = Cpu::new(&zone, Keep::Frames);
    let frames: Vec<Pfn> = std::iter::from_fn(|| cpu.alloc(ZERO, MOVABLE).ok()).collect();
    assert_eq!(frames.len(), 1 << 15);
    // The last word of the zone: all of it lies on the shelf, or in an owned word, and the frames make a block.
    for pfn in &frames[frames.len() - 32..] {
        cpu.free(*pfn, ZERO).unwrap();
    }
    assert!(cpu.cached_frames() != 0);
    cpu.alloc(Order::new(5).unwrap(), MigrateType::Huge).unwrap();
    cpu.alloc(ZERO, MOVABLE).unwrap_err();
}

#[test]
fn frames_beside_a_hole_do_not_wait_on_a_shelf() {
    let (zone, _) = zone(0, 1 << 15, &[(40, 3)]);
    let mut cpu = Cpu::new(&zone, Keep::Frames);
    for pfn in [39, 43, 500] {
        let pfn = Pfn::new(pfn);
        zone.alloc_at(pfn, ZERO, MOVABLE).unwrap();
        cpu.free(pfn, ZERO).unwrap();
        assert_eq!(cpu.cached_frames(), 0, "{pfn:?}");
        assert_eq!(cpu.free(pfn, ZERO), Err(FreeError::NotAllocated { pfn }));
    }
    let hole = Pfn::new(41);
    assert_eq!(cpu.free(hole, ZERO), Err(FreeError::Hole { pfn: hole }));
    cpu.drain();
    assert_eq!(zone.audit().unwrap().absent_frames, 3);
}

#[test]
fn a_shelf_that_is_full_of_another_type_is_cleared() {
    let (zone, _) = zone(0, 1 << 15, &[]);
    let mut cpu = Cpu::new(&zone, Keep::Frames);
    let order = Order::new(4).unwrap();
    let blocks: Vec<Pfn> = (0..20).map(|_| zone.alloc(order, MigrateType::Unmovable).unwrap()).collect();
    blocks.into_iter().for_each(|pfn| cpu.free(pfn, order).unwrap());
    let kept = cpu.cached_frames();
    assert!(kept != 0);
    let pfn = cpu.alloc(order, MOVABLE).unwrap();
    assert_eq!(cpu.cached_frames(), 0);
    cpu.free(pfn, order).unwrap();
    assert_eq!(cpu.cached_frames(), order.frames());
    // It came out of an area of the other type, whose it is still.
    assert_eq!(cpu.alloc(order, MigrateType::Unmovable).unwrap(), pfn);
}

/// Whoever freed a frame of an owned word first, and whoever frees it again: it is refused, and handed out once after that.
#[test]
fn a_second_free_of_an_owned_frame_is_refused_whoever_makes_the_two() {
    type Free = fn(&Zone<'_>, &mut Cpu<'_, '_>, Pfn) -> Result<(), FreeError>;
    let frees: [Free; 4] = [
        |zone, _, pfn| zone.free(pfn, ZERO),
        |_, cpu, pfn| cpu.free(pfn, ZERO),
        |zone, _, pfn| zone.free_bulk(&[pfn]).map_err(|error| error.cause),
        |_, cpu, pfn| cpu.free_bulk(&[pfn]).map_err(|error| error.cause),
    ];
    for (first, second) in frees.iter().flat_map(|first| frees.iter().map(move |second| (first, second))) {
        let (zone, _) = zone(0, 1 << 15, &[]);
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        let pfn = cpu.alloc(ZERO, MOVABLE).unwrap();
        first(&zone, &mut cpu, pfn).unwrap();
        assert_eq!(second(&zone, &mut cpu, pfn), Err(FreeError::Cached { pfn }));
        let frames: Vec<Pfn> = (0..100).map(|_| cpu.alloc(ZERO, MOVABLE).unwrap()).collect();
        assert_eq!(frames.iter().filter(|frame| **frame == pfn).count(), 1);
        assert_eq!(second(&zone, &mut cpu, pfn), Ok(()), "it was handed out again");
    }
}
