//! Operation streams, of all operations on blocks, runs and ranges, against the naive model that the crate's own tests use.
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
        // Some frames from where the argument says.
        let some = {
            let at = u64::from(argument) * frames / 256;
            range((start + at, (1 + u64::from(order) * u64::from(order) * 5).min(frames - at)))
        };
        match what & 15 {
            0..=2 => {
                blocks.extend(step(&zone, &mut model, Op::Alloc { order, migrate }).map(|pfn| (pfn, order)))
            }
            3 => {
                let pfn = (start + u64::from(argument) * frames / 256) & !((1 << order) - 1);
                blocks
                    .extend(step(&zone, &mut model, Op::At { pfn, order, migrate }).map(|pfn| (pfn, order)));
            }
            4..=6 if !blocks.is_empty() => {
                let (pfn, order) = blocks.swap_remove(usize::from(argument) % blocks.len());
                step(&zone, &mut model, Op::Free { pfn, order });
            }
            8..=10 => {
                // The areas that these frames touch, cut to the zone.
                let first = (some.start().get() & !(Zone::AREA_FRAMES - 1)).max(start);
                let end = (some.end().get().next_multiple_of(Zone::AREA_FRAMES)).min(start + frames);
                let listed =
                    model.isolated.iter().chain(&model.offline).nth(usize::from(argument) % 8).copied();
                let range = listed.unwrap_or(some);
                let op = match what & 15 {
                    8 if order == 15 => Op::Isolate { range: some },
                    8 => Op::Isolate { range: FrameRange::new(Pfn::new(first), end - first).unwrap() },
                    9 => Op::Offline { range },
                    _ => Op::Reopen { range },
                };
                step(&zone, &mut model, op);
            }
            11..=14 => {
                let op = match what & 15 {
                    11 => Op::Run {
                        frames: u64::from(argument % 90),
                        align: order % 6,
                        from: if order > 8 { some.start().get() } else { 0 },
                        below: if order > 11 { some.end().get() + 50 } else { u64::MAX },
                    },
                    12 => Op::TakeRange { range: some, migrate },
                    13 => Op::FreeRange { range: some },
                    _ => Op::Bulk { frames: usize::from(argument), migrate },
                };
                step(&zone, &mut model, op);
                blocks = model.blocks();
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
