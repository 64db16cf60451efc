//! Operation streams against the naive model that the crate's own tests use.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pnode_buddy::{Geometry, Line, Metadata, Zone};
use pnode_core::{FrameRange, MigrateType, Pfn};

#[path = "../../crates/pnode-buddy/tests/common/mod.rs"]
mod common;

use common::{Model, Op, compare, step};

fuzz_target!(|bytes: &[u8]| {
    let [shape, edge, hole, ops @ ..] = bytes else { return };
    let start = u64::from(*edge) * 7;
    let frames = 1 + u64::from(*shape) * 9;
    let at = u64::from(*hole) * frames / 256;
    let holes = [(start + at, 1 + u64::from(*hole) % 40)];
    // A hole that covers the zone or leaves it is a typed error of the constructor, not of this target.
    let holes = if at + holes[0].1 < frames { &holes[..] } else { &[] };
    let range = |(start, frames)| FrameRange::new(Pfn::new(start), frames).unwrap();
    let holes: Vec<FrameRange> = holes.iter().copied().map(range).collect();
    let span = range((start, frames));
    let mut lines = vec![Line::ZERO; Geometry::new(span).unwrap().lines()];
    let zone = Zone::with_holes(span, &holes, Metadata::assume_zeroed(&mut lines)).unwrap();
    let mut model = Model::new(span, &holes);
    let mut blocks: Vec<(u64, u8)> = Vec::new();
    for op in ops.chunks_exact(2).take(2000) {
        let (what, argument) = (op[0], op[1]);
        let order = what >> 4;
        let migrate = MigrateType::ALL[usize::from(argument) % 3];
        match what & 7 {
            0..=2 => blocks.extend(step(&zone, &mut model, Op::Alloc { order, migrate }).map(|pfn| (pfn, order))),
            3 => {
                let pfn = (start + u64::from(argument) * frames / 256) & !((1 << order) - 1);
                blocks.extend(step(&zone, &mut model, Op::At { pfn, order, migrate }).map(|pfn| (pfn, order)));
            }
            4..=6 if !blocks.is_empty() => {
                let (pfn, order) = blocks.swap_remove(usize::from(argument) % blocks.len());
                step(&zone, &mut model, Op::Free { pfn, order });
            }
            _ => {
                let pfn = start + u64::from(argument) * frames / 256;
                step(&zone, &mut model, Op::Free { pfn, order });
                blocks.retain(|block| *block != (pfn, order));
            }
        }
    }
    compare(&zone, &model);
});
