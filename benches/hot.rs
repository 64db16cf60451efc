//! The paths that run most often, and how many instructions each may cost: a change that makes one slower fails here,
//! whatever the load of the machine.
//!
//! `cargo bench --bench hot` prints instructions and atomic read-modify-writes per repetition, counted by callgrind, and
//! compares them with the limits below, which are what was counted when they were last set, and a twentieth more. A path
//! that has become cheaper by a tenth is named too: set its limit anew. Without valgrind it says so and checks only that
//! every path does what it claims; `cargo bench -- --test` runs that part alone.

#[path = "support/callgrind.rs"]
mod callgrind;
#[path = "../crates/pnode-compress/tests/support/synth.rs"]
#[allow(unused)]
mod synth;

use std::hint::black_box;
use std::process::ExitCode;

use pnode::buddy::{Cpu, Geometry, Keep, Line, Metadata, Zone};
use pnode::compress::codec::{Codec, Scratch, Tag, decode, encode_as};
use pnode::compress::memory::{BufferFrames, PageBytes};
use pnode::compress::store::{Config, Shard, Slot, Store};
use pnode::core::sync::AtomicU64;
use pnode::core::{FrameRange, MigrateType, Order, Pfn};

/// A path: its name, what one repetition of it may cost in instructions, and its work, so many times over.
struct Hot {
    name: &'static str,
    limit: u32,
    atomic_writes: f64,
    work: fn(u32) -> u32,
}

/// The atomic writes are those of the steady state, to a hundredth.
const PATHS: [Hot; 14] = [
    Hot { name: "zone, order 0, pair", limit: 676, atomic_writes: 4.00, work: |times| pairs(0, times) },
    Hot { name: "zone, order 3, pair", limit: 667, atomic_writes: 4.00, work: |times| pairs(3, times) },
    Hot { name: "zone, order 9, pair", limit: 698, atomic_writes: 4.00, work: |times| pairs(9, times) },
    Hot { name: "zone, full, refusal", limit: 547, atomic_writes: 0.00, work: refusals },
    Hot { name: "cpu, order 0, pair", limit: 70, atomic_writes: 0.00, work: cached },
    Hot {
        name: "fast, json, in",
        limit: 46_581,
        atomic_writes: 0.00,
        work: |times| encoded(Codec::Fast, "json", times),
    },
    Hot {
        name: "fast, json, out",
        limit: 8896,
        atomic_writes: 0.00,
        work: |times| decoded(Codec::Fast, "json", times),
    },
    Hot {
        name: "fast, random, in",
        limit: 13_697,
        atomic_writes: 0.00,
        work: |times| encoded(Codec::Fast, "random", times),
    },
    Hot {
        name: "dense, json, in",
        limit: 230_735,
        atomic_writes: 0.00,
        work: |times| encoded(Codec::Dense, "json", times),
    },
    Hot {
        name: "entropy, json, in",
        limit: 126_405,
        atomic_writes: 0.00,
        work: |times| encoded(Codec::Entropy, "json", times),
    },
    Hot {
        name: "entropy, json, out",
        limit: 49_600,
        atomic_writes: 0.00,
        work: |times| decoded(Codec::Entropy, "json", times),
    },
    Hot { name: "store, json, replace", limit: 49_474, atomic_writes: 10.65, work: stored },
    Hot { name: "store, json, load", limit: 10_410, atomic_writes: 2.00, work: loaded },
    Hot { name: "store, zero, replace", limit: 1197, atomic_writes: 1.00, work: stored_zero },
];

const MOVABLE: MigrateType = MigrateType::Movable;

fn with_zone<R>(work: impl FnOnce(&Zone<'_>) -> R) -> R {
    let range = FrameRange::new(Pfn::new(0), 1 << 14).expect("a range");
    let mut lines = vec![Line::ZERO; Geometry::new(range).expect("a geometry").lines()];
    work(&Zone::new(range, Metadata::assume_zeroed(&mut lines)).expect("a zone"))
}

fn pairs(size: u8, times: u32) -> u32 {
    let order = Order::new(size).expect("an order up to 18");
    with_zone(|zone| {
        let pair =
            |_: &u32| zone.alloc(black_box(order), MOVABLE).is_ok_and(|pfn| zone.free(pfn, order).is_ok());
        (0..times).filter(pair).count() as u32
    })
}

fn refusals(times: u32) -> u32 {
    with_zone(|zone| {
        while zone.alloc(Order::ZERO, MOVABLE).is_ok() {}
        (0..times).filter(|_| zone.alloc(black_box(Order::ZERO), MOVABLE).is_err()).count() as u32
    })
}

fn cached(times: u32) -> u32 {
    with_zone(|zone| {
        let mut cpu = Cpu::new(zone, Keep::Frames);
        let mut pair =
            || cpu.alloc(black_box(Order::ZERO), MOVABLE).is_ok_and(|pfn| cpu.free(pfn, Order::ZERO).is_ok());
        (0..times).filter(|_| pair()).count() as u32
    })
}

/// As many pages of a kind as suffice to show more than one page's luck.
const PAGES: usize = 10;

fn encoded(codec: Codec, kind: &str, times: u32) -> u32 {
    let (corpus, mut out) = (synth::corpus(kind, PAGES), [0; synth::PAGE]);
    let (mut scratch, mut pages) = (Scratch::new(), corpus.chunks_exact(synth::PAGE).cycle());
    // What does not compress is refused; that is the work, too.
    (0..times)
        .filter(|_| {
            let page = black_box(pages.next().expect("pages in a circle"));
            let _ = black_box(encode_as(codec, page, &mut out[..synth::PAGE - 1], &mut scratch));
            true
        })
        .count() as u32
}

fn decoded(codec: Codec, kind: &str, times: u32) -> u32 {
    let (corpus, mut out) = (synth::corpus(kind, PAGES), [0; synth::PAGE]);
    let mut scratch = Scratch::new();
    let objects: Vec<(Tag, Vec<u8>)> = corpus
        .chunks_exact(synth::PAGE)
        .filter_map(|page| {
            let object = encode_as(codec, page, &mut out, &mut scratch).ok()?;
            Some((object.tag(), out[..object.len()].to_vec()))
        })
        .collect();
    let mut objects = objects.iter().cycle();
    let mut once = || {
        let (tag, bytes) = objects.next().expect("this kind compresses");
        decode(*tag, black_box(bytes), &mut out, &mut scratch).is_ok()
    };
    (0..times).filter(|_| once()).count() as u32
}

/// Stores pages of `kind` over and over, then loads one of them `loads` times; how often all went well.
fn in_store(kind: &str, stores: u32, loads: u32) -> u32 {
    let config = Config::new(PAGES as u32, 8);
    let (mut frames, mut taken) = (vec![PageBytes::ZEROED; 32], [AtomicU64::new(0)]);
    let mut words: Vec<AtomicU64> =
        (0..config.words().expect("a small store")).map(|_| AtomicU64::new(0)).collect();
    let mut shards: [Shard; 1] = [Shard::new()];
    let memory = BufferFrames::new(&mut frames, &mut taken).expect("a bit a frame");
    let store = Store::new(config, memory, &mut words, &mut shards).expect("words that suffice");
    let (mut scratch, mut buffer) = (Scratch::new(), [0; synth::PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).expect("the first shard");
    let corpus = synth::corpus(kind, PAGES);
    let mut pages = corpus.chunks_exact(synth::PAGE).zip(0..).cycle();
    let mut good = 0;
    for _ in 0..stores {
        let (page, slot) = pages.next().expect("pages in a circle");
        good += u32::from(worker.store(Slot::new(slot), black_box(page)).is_ok());
    }
    let mut back = [0; synth::PAGE];
    for load in 0..loads {
        good += u32::from(worker.load(Slot::new(black_box(load % PAGES as u32)), &mut back).is_ok());
    }
    good
}

fn stored(times: u32) -> u32 {
    in_store("json", times, 0)
}

fn stored_zero(times: u32) -> u32 {
    in_store("zero", times, 0)
}

fn loaded(times: u32) -> u32 {
    in_store("json", PAGES as u32, times) - PAGES as u32
}

/// Prints the counts and says which limits they break.
fn report() -> Result<Vec<String>, String> {
    let mut broken = Vec::new();
    println!("{:<22} {:>12} {:>12} {:>8}", "path", "instructions", "limit", "atomic");
    for hot in &PATHS {
        let count = callgrind::count(&[hot.name])?;
        println!(
            "{:<22} {:>12.1} {:>12} {:>8.2}",
            hot.name, count.instructions, hot.limit, count.atomic_writes
        );
        if count.instructions > f64::from(hot.limit) {
            broken.push(format!(
                "{}: {:.0} instructions; the limit is {}",
                hot.name, count.instructions, hot.limit
            ));
        }
        if count.instructions < 0.85 * f64::from(hot.limit) {
            println!("  cheaper than its limit says: set it to {:.0}", 1.05 * count.instructions);
        }
        if (count.atomic_writes - hot.atomic_writes).abs() > 0.01 {
            let (now, then) = (count.atomic_writes, hot.atomic_writes);
            broken.push(format!("{}: {now:.2} atomic writes; there were {then:.2}", hot.name));
        }
    }
    Ok(broken)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, path, times] = &arguments[..] {
        let hot = PATHS.iter().find(|hot| hot.name == path);
        if let ("--repeat", Some(hot), Ok(times)) = (&flag[..], hot, times.parse()) {
            return if (hot.work)(times) == times { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    }
    for hot in &PATHS {
        assert_eq!((hot.work)(20), 20, "{} must do what it is measured for", hot.name);
    }
    callgrind::judge(report)
}
