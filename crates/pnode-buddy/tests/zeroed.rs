//! Known-zero frames against a picture of the real memory.

mod common;

use common::{Random, times, zone};
use pnode_buddy::{Contents, Cpu, Keep, Line, MarkError, Zeroed, ZoneError};
use pnode_core::{FrameRange, FreeError, MigrateType, Order, Pfn};

const ZERO: Order = Order::ZERO;
const MOVABLE: MigrateType = MigrateType::Movable;

#[test]
fn what_is_called_zero_is() {
    for seed in 0..times(12) {
        let mut random = Random(seed);
        let (start, frames) = (random.below(5_000), 1 + random.below(2_500));
        println!("seed {seed} start {start:#x} frames {frames}");
        let (zone, _) = zone(start, frames, &[]);
        let mut bits = vec![Line::ZERO; Zeroed::lines(zone.span())];
        let zeroed = Zeroed::new(&zone, &mut bits).unwrap();
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        // Whether a frame's bytes are zero; nothing is at first.
        let mut memory = vec![false; frames as usize];
        let place = |pfn: Pfn, order: Order| {
            let first = (pfn.get() - start) as usize;
            first..first + order.frames() as usize
        };
        let (mut held, mut zeros) = (Vec::new(), 0);
        for _ in 0..times(4_000) {
            let order = Order::new(random.below(6).min(random.below(6)) as u8).unwrap();
            match random.below(10) {
                0..=4 => {
                    let (pfn, contents) = if random.below(3) == 0 {
                        let Ok(pfn) = cpu.alloc(order, MOVABLE) else { continue };
                        (pfn, zeroed.take(pfn, order))
                    } else {
                        let Ok(found) = zeroed.alloc(order, MOVABLE) else { continue };
                        found
                    };
                    let block = &mut memory[place(pfn, order)];
                    if contents == Contents::Zero {
                        zeros += 1;
                        assert!(block.iter().all(|zero| *zero), "{pfn:?} {order:?} is dirty");
                    }
                    // The user writes to all, some or none of it.
                    let dirty = random.below(3);
                    block
                        .iter_mut()
                        .for_each(|zero| *zero &= dirty == 0 || dirty == 1 && random.below(2) == 0);
                    held.push((pfn, order));
                }
                roll if !held.is_empty() => {
                    let (pfn, order) = held.swap_remove(random.below(held.len() as u64) as usize);
                    if roll < 8 {
                        memory[place(pfn, order)].fill(true);
                        zeroed.free_as(pfn, order, Contents::Zero).unwrap();
                    } else if roll == 8 {
                        zeroed.free_as(pfn, order, Contents::Unknown).unwrap();
                    } else {
                        cpu.free(pfn, order).unwrap();
                    }
                    // Freed again as zero: refused, and nobody is told that it is. It may lie in the CPU's cache.
                    let known = zeroed.zeroed_frames();
                    assert!(zeroed.free_as(pfn, order, Contents::Zero).is_err());
                    assert_eq!(zeroed.zeroed_frames(), known);
                }
                _ => {}
            }
        }
        assert!(zeros > 0 || frames < 40, "nothing was ever known to be zero");
    }
}

#[test]
fn what_a_device_zeroed_comes_back_as_zero() {
    let (zone, _) = zone(0, 2048, &[]);
    let mut bits = [Line::ZERO; 4];
    let zeroed = Zeroed::new(&zone, &mut bits).unwrap();
    let part = FrameRange::new(Pfn::new(512), 1024).unwrap();
    assert_eq!(zeroed.mark_zeroed(part), Err(MarkError::InService { pfn: Pfn::new(512) }));
    let beyond = FrameRange::new(Pfn::new(2000), 100).unwrap();
    assert_eq!(zeroed.mark_zeroed(beyond), Err(MarkError::OutOfZone { range: beyond }));
    zone.isolate_range(part).unwrap();
    zone.offline_range(part).unwrap();
    zeroed.mark_zeroed(part).unwrap();
    zone.reopen_range(part).unwrap();
    assert_eq!(zeroed.zeroed_frames(), 1024);
    let zeros = std::iter::from_fn(|| zeroed.alloc(ZERO, MOVABLE).ok())
        .filter(|(pfn, contents)| {
            assert_eq!(*contents == Contents::Zero, part.contains(*pfn));
            *contents == Contents::Zero
        })
        .count();
    assert_eq!((zeros, zeroed.zeroed_frames()), (1024, 0));
}

#[test]
fn wrong_input_is_refused() {
    let (zone, _) = zone(100, 600, &[]);
    assert_eq!(
        Zeroed::new(&zone, &mut [Line::ZERO; 1]).map(drop),
        Err(ZoneError::MetadataTooSmall { needed: 2, given: 1 })
    );
    let mut bits = [Line::ZERO; 2];
    let zeroed = Zeroed::new(&zone, &mut bits).unwrap();
    let pfn = Pfn::new(99);
    assert_eq!(zeroed.free_as(pfn, ZERO, Contents::Zero), Err(FreeError::OutOfZone { pfn }));
    assert_eq!(zeroed.take(pfn, ZERO), Contents::Unknown);
    assert_eq!(zeroed.take(Pfn::new(u64::MAX), Order::MAX), Contents::Unknown);
    let pfn = Pfn::new(101);
    assert_eq!(zeroed.free_as(pfn, ZERO, Contents::Zero), Err(FreeError::NotAllocated { pfn }));
    assert_eq!(zeroed.zeroed_frames(), 0);
}
