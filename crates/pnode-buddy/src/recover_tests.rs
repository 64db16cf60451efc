//! Recovery after everything derived was destroyed, and after a crash at every single access to the metadata.

use alloc::vec;
use alloc::vec::Vec;

use pnode_core::{MigrateType, Order};

use super::*;
use crate::cpu::{Cpu, Keep};
use crate::metadata::Line;

type Blocks = Vec<(Pfn, Order)>;

fn range(start: u64, frames: u64) -> FrameRange {
    FrameRange::new(Pfn::new(start), frames).unwrap()
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

fn blocks(zone: &Zone<'_>) -> Blocks {
    let mut blocks = Vec::new();
    zone.each_block(&mut |pfn, order| blocks.push((pfn, order)));
    blocks
}

/// The metadata as it is at this moment.
fn image(zone: &Zone<'_>) -> Vec<Line> {
    let mut lines = vec![Line::ZERO; zone.geometry.lines()];
    for at in 0..lines.len() * Line::WORDS {
        lines[at / Line::WORDS].words_mut()[at % Line::WORDS] = zone.words.at(at).load(Relaxed);
    }
    lines
}

fn word_mut(lines: &mut [Line], at: usize) -> &mut u64 {
    &mut lines[at / Line::WORDS].words_mut()[at % Line::WORDS]
}

/// What of the metadata is derived, as pairs of word and mask.
fn derived(zone: &Zone<'_>) -> Vec<(usize, u64)> {
    let geometry = &zone.geometry;
    let mut derived: Vec<_> = (geometry.inboxes..geometry.table).map(|at| (at, !0)).collect();
    for level in 1..=TOP {
        for index in 0..geometry.level(level).count {
            let value = zone.node(level, index).load(Relaxed);
            if node::is_live(value) {
                let split = node::split(value);
                let states = 0xffff | 0xffff << 16 | 0xffff << 32;
                let live = 1 << 48;
                let class = 3 << 49;
                let truth = states & !(split | split << 16) | live | class | node::HOLED;
                derived.push((geometry.level(level).nodes + index, !truth));
            }
        }
    }
    derived
}

#[track_caller]
fn check(lines: &mut [Line], span: FrameRange, expected: &Blocks) {
    let (zone, stats) = Zone::recover(span, Metadata::kept(lines)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(blocks(&zone), *expected);
    assert_eq!(zone.audit(), Ok(zone.stats()));
    assert_eq!(stats.cached_frames, 0);
    // It works on: what is free can be had, what is allocated can be freed.
    let mut free = zone.free_frames();
    expected.iter().for_each(|(pfn, order)| zone.free(*pfn, *order).unwrap());
    free += expected.iter().map(|(_, order)| order.frames()).sum::<u64>();
    assert_eq!(zone.free_frames(), free);
    zone.audit().unwrap_or_else(|error| panic!("{error}"));
}

/// A zone after random operations, with caches that nobody will drain.
fn used(seed: u64, start: u64, frames: u64) -> (Vec<Line>, Vec<(usize, u64)>, Blocks) {
    let span = range(start, frames);
    let hole = range(start + frames / 2, 5);
    let mut lines = vec![Line::ZERO; Geometry::new(span).unwrap().lines()];
    let zone = Zone::with_holes(span, &[hole], Metadata::assume_zeroed(&mut lines)).unwrap();
    let mut cpus = [Cpu::new(&zone, Keep::Frames), Cpu::new(&zone, Keep::Frames)];
    let mut held = Vec::new();
    let mut random = seed;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..400 {
        let cpu = next(2) as usize;
        if next(5) < 3 {
            let order = order(next(8).min(next(11)) as u8);
            let migrate = MigrateType::ALL[next(3) as usize];
            held.extend(cpus[cpu].alloc(order, migrate).ok().map(|pfn| (pfn, order)));
        } else if !held.is_empty() {
            let (pfn, order) = held.swap_remove(next(held.len() as u64) as usize);
            cpus[cpu].free(pfn, order).unwrap();
        }
        if next(60) == 0 {
            let first = (start / 512 + 1 + next(frames / 512)) * 512;
            if first + 512 <= start + frames && zone.isolate_range(range(first, 512)).is_ok() {
                let _ = zone.offline_range(range(first, 512));
            }
        }
    }
    let found = (image(&zone), derived(&zone), blocks(&zone));
    cpus.into_iter().for_each(core::mem::forget);
    found
}

#[test]
fn everything_that_is_derived_may_be_destroyed() {
    for seed in 0..6 {
        let (start, frames) = (seed * 97 % 2000, 3000 + seed * 331 % 6000);
        let (lines, derived, expected) = used(seed, start, frames);
        assert!(!expected.is_empty());
        let mut random = seed | 1;
        let mut noise = move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random ^ random >> 31
        };
        for pattern in 0..4 {
            let mut lines = lines.clone();
            for (at, mask) in &derived {
                let new = match pattern {
                    0 => 0,
                    1 => !0,
                    2 => noise(),
                    _ => *word_mut(&mut lines, *at),
                };
                let word = word_mut(&mut lines, *at);
                *word = *word & !mask | new & mask;
            }
            check(&mut lines, range(start, frames), &expected);
        }
    }
}

#[test]
fn every_derived_bit_may_be_wrong() {
    let (lines, derived, expected) = used(5, 900, 1200);
    for (at, mask) in derived {
        for bit in (0..64).filter(|bit| mask >> bit & 1 == 1) {
            let mut lines = lines.clone();
            *word_mut(&mut lines, at) ^= 1 << bit;
            let (zone, _) = Zone::recover(range(900, 1200), Metadata::kept(&mut lines)).unwrap();
            assert_eq!(zone.audit(), Ok(zone.stats()), "word {at} bit {bit}");
            assert_eq!(blocks(&zone), expected, "word {at} bit {bit}");
        }
    }
}

/// One step after which the books have to be recovered, at each of its accesses to them.
type Step = fn(&Zone<'_>, &mut Cpu<'_, '_>, &Blocks) -> bool;

const MOVABLE: MigrateType = MigrateType::Movable;

const STEPS: [Step; 14] = [
    |zone, _, _| zone.alloc(order(0), MOVABLE).is_ok(),
    |zone, _, _| zone.alloc(order(3), MigrateType::Unmovable).is_ok(),
    |zone, _, _| zone.alloc(order(6), MOVABLE).is_ok(),
    |zone, _, _| zone.alloc(order(9), MOVABLE).is_ok(),
    |zone, _, _| zone.alloc(order(10), MOVABLE).is_ok(),
    |zone, _, blocks| zone.free(blocks[0].0, blocks[0].1).is_ok(),
    |zone, _, blocks| blocks.last().is_some_and(|(pfn, order)| zone.free(*pfn, *order).is_ok()),
    |zone, _, _| zone.alloc_at(Pfn::new(1024 + 77), order(0), MOVABLE).is_ok(),
    |_, cpu, _| cpu.alloc(order(0), MigrateType::Huge).is_ok(),
    |_, cpu, blocks| cpu.free(blocks[0].0, blocks[0].1).is_ok(),
    |_, cpu, _| {
        cpu.drain();
        true
    },
    |zone, _, _| zone.isolate_range(range(1024, 512)).is_ok(),
    |zone, _, _| zone.alloc_bulk(&mut [Pfn::new(0); 40], MOVABLE).is_ok(),
    |zone, _, _| zone.alloc_range(range(1300, 90), MOVABLE).is_ok(),
];

#[test]
fn a_crash_at_any_access_leaves_books_that_can_be_recovered() {
    let span = range(300, 2500);
    let mut crashes = 0;
    for prepared in 0..6u8 {
        for step in STEPS {
            for accesses in 0.. {
                let mut lines = vec![Line::ZERO; Geometry::new(span).unwrap().lines()];
                let zone = Zone::new(span, Metadata::assume_zeroed(&mut lines)).unwrap();
                let mut cpu = Cpu::new(&zone, Keep::Frames);
                // States in which the step takes different ways.
                let first = zone.alloc(order(prepared), MOVABLE).unwrap();
                cpu.alloc(order(0), MOVABLE).unwrap();
                zone.alloc(order(8), MigrateType::Unmovable).unwrap();
                if prepared % 2 == 1 {
                    zone.free(first, order(prepared)).unwrap();
                }
                let before = blocks(&zone);
                let done = crash::after(accesses, || {
                    step(&zone, &mut cpu, &before);
                });
                let mut lines = image(&zone);
                core::mem::forget(cpu);
                let (recovered, _) = Zone::recover(span, Metadata::kept(&mut lines)).unwrap();
                recovered.audit().unwrap_or_else(|error| panic!("{prepared} {accesses}: {error}"));
                // At most the block that was being freed is gone, and what is new was free before.
                let after = blocks(&recovered);
                let gone: Vec<_> = before.iter().filter(|block| !after.contains(block)).collect();
                assert!(gone.len() <= 1, "{prepared} {accesses}: {gone:?}");
                for (pfn, order) in after.iter().filter(|block| !before.contains(block)) {
                    let new = FrameRange::block(*pfn, *order).unwrap();
                    let clash = before.iter().find(|(pfn, order)| {
                        FrameRange::block(*pfn, *order).unwrap().intersection(new).is_some()
                    });
                    assert_eq!(clash, None, "{prepared} {accesses}");
                }
                if done {
                    break;
                }
                crashes += 1;
            }
        }
    }
    assert!(crashes > 1_000, "{crashes}");
}

#[test]
fn books_of_others_are_refused() {
    let span = range(300, 2500);
    let mut lines = vec![Line::ZERO; Geometry::new(span).unwrap().lines()];
    let none = Zone::recover(span, Metadata::kept(&mut lines)).unwrap_err();
    assert_eq!(none, RecoverError::NoZone);
    let (image, top, table) = {
        let zone = Zone::new(span, Metadata::assume_zeroed(&mut lines)).unwrap();
        zone.alloc(order(0), MOVABLE).unwrap();
        (image(&zone), zone.geometry.level(TOP).nodes, zone.geometry.table)
    };
    // A zone of as many frames elsewhere has its header in the same place.
    let other = Zone::recover(range(301, 2500), Metadata::kept(&mut lines)).unwrap_err();
    assert_eq!(other, RecoverError::OtherZone { start: span.start(), frames: 2500 });
    let few = Zone::recover(span, Metadata::kept(&mut lines[..3])).unwrap_err();
    assert!(matches!(few, RecoverError::Zone(ZoneError::MetadataTooSmall { given: 3, .. })));
    let mut broken = image.clone();
    *word_mut(&mut broken, top) = 0;
    assert!(matches!(Zone::recover(span, Metadata::kept(&mut broken)), Err(RecoverError::Broken { .. })));
    let mut broken = image.clone();
    *word_mut(&mut broken, table + 1) = 1 << 20;
    assert!(matches!(
        Zone::recover(span, Metadata::kept(&mut broken)),
        Err(RecoverError::BrokenRange { .. })
    ));
}

#[test]
fn books_that_cannot_be_are_refused_with_the_frame() {
    let range = range(0, 1024);
    let mut lines = vec![Line::ZERO; Geometry::new(range).unwrap().lines()];
    let zone = Zone::new(range, Metadata::assume_zeroed(&mut lines)).unwrap();
    zone.alloc(Order::ZERO, MigrateType::Movable).unwrap();
    let (sound, top) = (image(&zone), zone.geometry.level(TOP).nodes);
    // A node without a parent is never dead.
    let mut books = sound.clone();
    *word_mut(&mut books, top) = node::DEAD;
    let refused = Zone::recover(range, Metadata::kept(&mut books)).map(|_| ());
    assert_eq!(refused, Err(RecoverError::Broken { pfn: Pfn::new(0) }));
    // Two frames at an odd place cannot lie on a shelf.
    let mut books = sound;
    *word_mut(&mut books, 0) = word::EMPTY | 0b11 << (32 + 5) | 1 << 6;
    let refused = Zone::recover(range, Metadata::kept(&mut books)).map(|_| ());
    assert_eq!(refused, Err(RecoverError::Broken { pfn: Pfn::new(5) }));
}
