//! A zone with a cache for each CPU, on a fake kernel whose threads choose the CPU that they run on.

mod fake;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fake::{CPUS, Fake};
use pnode_core::{FrameError, FrameRange, FrameSource, FrameZone, FreeError, MigrateType, Order, Pfn};
use pnode_kernel::CpuZone;
use pnode_kernel::storage::{CpuStorage, ZoneStorage};

const FIRST: u64 = 0x1_0005;
const MOVABLE: MigrateType = MigrateType::Movable;

/// Runs `test` with a zone of `frames` frames and a slot for each CPU.
fn with_zone(frames: u64, test: impl FnOnce(&CpuZone<'_, Fake>)) {
    let mut storage = ZoneStorage::new(Fake, FrameRange::new(Pfn::new(FIRST), frames).unwrap()).unwrap();
    let zone = storage.zone().unwrap();
    let mut slots = CpuStorage::new(Fake).unwrap();
    test(&CpuZone::new(Fake, &zone, slots.slots(&zone)));
}

#[test]
fn every_frame_can_be_had_from_every_cpu() {
    for frames in [1, 31, 32, 33, 511, 2000] {
        with_zone(frames, |zone| {
            // A frame is freed on another CPU than it was taken on, so that each keeps some.
            let mut held: Vec<_> = (0..frames).map(|_| zone.alloc(Order::ZERO, MOVABLE).unwrap()).collect();
            for (cpu, pfn) in held.drain(..).enumerate() {
                Fake::run_on(cpu % CPUS);
                zone.free(pfn, Order::ZERO).unwrap();
                assert!(matches!(
                    zone.free(pfn, Order::ZERO),
                    Err(FreeError::Cached { .. } | FreeError::NotAllocated { .. })
                ));
                Fake::run_on((cpu + 1) % CPUS);
                assert!(zone.free(pfn, Order::ZERO).is_err(), "a double free on another CPU");
            }
            for cpu in 0..CPUS {
                Fake::run_on(cpu);
                if let Ok(pfn) = zone.alloc(Order::ZERO, MOVABLE) {
                    zone.free(pfn, Order::ZERO).unwrap();
                }
            }
            // Whatever the others keep, this CPU gets all of it; the number past the last slot is a CPU without one.
            for cpu in 0..=CPUS {
                Fake::run_on(cpu);
                let held: Vec<_> = (0..frames).map(|_| zone.alloc(Order::ZERO, MOVABLE).unwrap()).collect();
                assert!(matches!(zone.alloc(Order::ZERO, MOVABLE), Err(FrameError::Exhausted { .. })));
                held.into_iter().for_each(|pfn| zone.free(pfn, Order::ZERO).unwrap());
            }
            assert_eq!(zone.used_frames(), 0);
            zone.drain();
            assert_eq!(zone.free_frames(), frames);
            zone.audit().unwrap();
        });
    }
}

#[test]
fn a_closed_zone_hands_out_nothing_that_a_cpu_keeps() {
    with_zone(256, |zone| {
        let pfn = zone.alloc(Order::ZERO, MOVABLE).unwrap();
        let other = zone.alloc(Order::ZERO, MOVABLE).unwrap();
        zone.isolate();
        assert_eq!(zone.used_frames(), 2);
        assert!(matches!(zone.alloc(Order::ZERO, MOVABLE), Err(FrameError::Closed { .. })));
        assert_eq!(zone.alloc_at_hand(MOVABLE), None);
        zone.free(pfn, Order::ZERO).unwrap();
        zone.free(other, Order::ZERO).unwrap();
        assert_eq!(zone.alloc_at_hand(MOVABLE), None, "what came back to a closed zone");
        assert_eq!(zone.used_frames(), 0);
        zone.reopen();
        let pfn = zone.alloc(Order::ZERO, MOVABLE).unwrap();
        assert!(zone.alloc_at_hand(MOVABLE).is_some_and(|next| next != pfn));
    });
}

/// Threads on fewer CPUs than threads, so that slots are found taken, while the zone is closed and opened again: no
/// frame has two holders, and a closed zone without used frames stays without.
#[test]
fn frames_have_one_holder_under_contention() {
    const FRAMES: u64 = 600;
    let rounds: u64 = if cfg!(debug_assertions) { 30_000 } else { 300_000 };
    with_zone(FRAMES, |zone| {
        let held: Vec<AtomicU64> = (0..FRAMES).map(|_| AtomicU64::new(0)).collect();
        let (held, stop, empty) = (&held, &AtomicBool::new(false), &AtomicU64::new(0));
        let work = move |thread: u64| {
            Fake::run_on(thread as usize % 2);
            let (mut mine, mut number) = (Vec::new(), 0x9e37_79b9_7f4a_7c15_u64 ^ thread);
            for round in 0..rounds {
                number ^= number << 13;
                number ^= number >> 7;
                number ^= number << 17;
                if number % 2 == 0 && mine.len() < 100 {
                    let order = Order::new(if number % 16 == 0 { 2 } else { 0 }).unwrap();
                    let Ok(pfn) = zone.alloc(order, MOVABLE) else { continue };
                    for frame in 0..order.frames() {
                        let was =
                            held[(pfn.get() + frame - FIRST) as usize].swap(thread + 1, Ordering::Relaxed);
                        assert_eq!(was, 0, "round {round}: {pfn:?} has a holder");
                    }
                    mine.push((pfn, order));
                } else if !mine.is_empty() {
                    let (pfn, order) = mine.swap_remove(number as usize / 2 % mine.len());
                    for frame in 0..order.frames() {
                        held[(pfn.get() + frame - FIRST) as usize].store(0, Ordering::Relaxed);
                    }
                    zone.free(pfn, order).unwrap();
                }
            }
            mine.into_iter().for_each(|(pfn, order)| {
                (0..order.frames())
                    .for_each(|frame| held[(pfn.get() + frame - FIRST) as usize].store(0, Ordering::Relaxed));
                zone.free(pfn, order).unwrap();
            });
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    zone.isolate();
                    // The threads give back what they hold and get nothing new.
                    for _ in 0..10_000 {
                        if zone.used_frames() == 0 {
                            empty.fetch_add(1, Ordering::Relaxed);
                            std::thread::yield_now();
                            // Not `used_frames` again: calls that will fail may count in it for a moment.
                            let held = held.iter().position(|holder| holder.load(Ordering::Relaxed) != 0);
                            assert_eq!(held, None, "a closed and empty zone handed out a frame");
                            break;
                        }
                        std::thread::yield_now();
                    }
                    zone.reopen();
                    std::thread::yield_now();
                }
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            stop.store(true, Ordering::Relaxed);
        });
        assert_ne!(empty.load(Ordering::Relaxed), 0, "the zone was never seen empty");
        assert_eq!(zone.used_frames(), 0);
        zone.drain();
        assert_eq!(zone.free_frames(), FRAMES);
        zone.audit().unwrap();
    });
}
