//! The frame allocator by itself, operation by operation: nanoseconds a pair of allocation and free, best of several
//! rounds. Compare the rows of one run; `benches/frames` compares with other allocators.
//!
//! `cargo bench --bench buddy`; with `--test`, or run by `cargo test`, each part runs a few times and only its answer
//! is checked.

use std::hint::black_box;
use std::time::Instant;

use pnode::buddy::{Cpu, Geometry, Keep, Line, Metadata, Zone};
use pnode::core::{FrameRange, MigrateType, Order, Pfn};

const FRAMES: u64 = 1 << 18;
const MOVABLE: MigrateType = MigrateType::Movable;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let timed = arguments.iter().any(|argument| argument == "--bench")
        && !arguments.iter().any(|argument| argument == "--test");
    let pairs = if timed { 200_000 } else { 100 };
    for size in [0, 3, 5, 9, 13] {
        let order = Order::new(size).expect("an order up to 18");
        measure(&format!("zone, order {size}"), pairs, |zone| {
            let pfn = zone.alloc(order, MOVABLE).expect("a free block");
            zone.free(black_box(pfn), order).expect("a good free");
        });
    }
    for keep in [Keep::Counts, Keep::Frames] {
        with_zone(|zone| {
            let mut cpu = Cpu::new(zone, keep);
            report(&format!("cpu, {keep:?}, order 0"), pairs, || {
                let pfn = cpu.alloc(Order::ZERO, MOVABLE).expect("a free frame");
                cpu.free(black_box(pfn), Order::ZERO).expect("a good free");
            });
        });
    }
    measure("zone, a refused free", pairs, |zone| {
        zone.free(black_box(Pfn::new(77)), Order::ZERO).expect_err("nobody allocated it");
    });
}

fn measure(name: &str, pairs: u32, work: impl Fn(&Zone<'_>)) {
    with_zone(|zone| report(name, pairs, || work(zone)));
}

/// Runs `work` on a zone, and checks that the zone is whole again.
fn with_zone(work: impl FnOnce(&Zone<'_>)) {
    let range = FrameRange::new(Pfn::new(0), FRAMES).expect("a range");
    let mut lines = vec![Line::ZERO; Geometry::new(range).expect("a geometry").lines()];
    let zone = Zone::new(range, Metadata::assume_zeroed(&mut lines)).expect("a zone");
    work(&zone);
    assert_eq!(zone.audit().expect("sound books").free_frames, FRAMES);
}

fn report(name: &str, pairs: u32, mut work: impl FnMut()) {
    let round = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        (0..pairs).for_each(|_| work());
        began.elapsed().as_nanos() as f64 / f64::from(pairs)
    };
    let best = (0..7).map(|_| round(&mut work)).fold(f64::INFINITY, f64::min);
    println!("{name:24} {best:8.1} ns");
}
