//! The packed store beside what it is made of: the bare codec, a memory copy, and zsmalloc's classes.
//!
//! Every figure is a ratio within one run: the two sides take turns, each side's time is the processor time of its
//! thread, and the median of the rounds counts. `cargo bench --bench store`; `-- --test` runs each part once, `-- raw` one
//! part alone.

#[path = "../crates/pnode-compress/tests/support/lent.rs"]
#[allow(unused)]
mod lent;
#[path = "../crates/pnode-compress/tests/support/sizes.rs"]
#[allow(unused)]
mod sizes;
#[path = "../crates/pnode-compress/tests/support/synth.rs"]
#[allow(unused)]
mod synth;
#[path = "../crates/pnode-compress/tests/support/zsmalloc.rs"]
#[allow(unused)]
mod zsmalloc;

use std::hint::black_box;
use std::sync::Barrier;

use lent::Lent;
use pnode::compress::codec::{Codec, Scratch, Tag, decode, encode};
use pnode::compress::store::{Checksums, Compaction, Config, Incoming, Slot};

const PAGE: usize = 4096;
const PAGES: usize = 2560;

/// Processor time of this thread in nanoseconds.
fn now() -> u64 {
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    const THREAD_CPUTIME: i32 = 3;
    let mut time = [0; 2];
    // SAFETY: the C library of 64-bit Linux writes two words of 8 bytes, seconds and nanoseconds, to the pointer.
    let failed = unsafe { clock_gettime(THREAD_CPUTIME, &mut time) };
    assert_eq!(failed, 0, "this bench needs the thread clock of 64-bit Linux");
    time[0] as u64 * 1_000_000_000 + time[1] as u64
}

fn time(work: impl FnOnce()) -> f64 {
    let start = now();
    work();
    (now() - start) as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The median of the rounds' ratios: what else the machine does in a round slows both sides of it.
fn ratio(times: &[f64], of: &[f64]) -> f64 {
    median(times.iter().zip(of).map(|(time, of)| time / of).collect())
}

/// Pages as a program has them: records, pointers, text, numbers, almost empty ones.
fn corpus() -> Vec<u8> {
    ["slab", "ptrs", "json", "f64", "sparse"].map(|kind| synth::corpus(kind, PAGES / 5)).concat()
}

fn report(what: &str, ratio: f64, target: f64, note: &str) {
    println!("{what:42} {ratio:7.3}   (target {target})  {note}");
}

/// The parts of the bench, by the name that runs one of them alone.
const PARTS: [&str; 4] = ["codec", "raw", "workers", "density"];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let said = |name: &str| arguments.iter().any(|argument| argument == name);
    let smoke = said("--test") || !said("--bench");
    let some = PARTS.iter().any(|part| said(part));
    let wanted = |part: &str| !some || said(part);
    let rounds = if smoke { 1 } else { 41 };
    println!("ratios in one run, median of {rounds} rounds, {PAGES} pages of 4 KiB");
    for checksums in [Checksums::On, Checksums::Off] {
        println!("\nchecksums {checksums:?}");
        if wanted("codec") {
            codec_and_store(checksums, rounds);
        }
        if wanted("raw") {
            raw_and_free(checksums, rounds.min(15));
        }
    }
    if wanted("workers") {
        println!("\ntwo workers");
        two_workers(rounds.min(15));
    }
    if wanted("density") {
        println!("\npool bytes for a payload byte, 12,000 objects of real sizes");
        density(smoke);
    }
}

/// Store against encode, load against decode, over the same pages.
fn codec_and_store(checksums: Checksums, rounds: usize) {
    let pages = corpus();
    let config = Config::new(PAGES as u32, 1024).checksums(checksums);
    let mut lent = Lent::new(config, 4096, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer, mut out) = (Scratch::new(), vec![0; PAGE], vec![0; PAGE]);
    let (mut lent_scratch, mut lent_buffer) = (Scratch::new(), vec![0; PAGE]);
    let mut worker = store.worker(0, &mut lent_scratch, &mut lent_buffer).unwrap();

    // Bare objects, packed one after the other.
    let mut bare = Vec::new();
    let mut places = Vec::new();
    for page in pages.chunks_exact(PAGE) {
        let object = encode(page, &mut buffer, &mut scratch).unwrap();
        places.push((object.tag(), bare.len(), object.len()));
        bare.extend_from_slice(&buffer[..object.len()]);
    }
    let mut shuffled: Vec<usize> = (0..PAGES).collect();
    let mut mix = synth::Mix::new(3);
    (1..PAGES).rev().for_each(|i| shuffled.swap(i, mix.below(i as u64 + 1) as usize));
    let mut loaded = vec![0; pages.len()];
    let mut times = [const { Vec::new() }; 8];
    for _ in 0..rounds {
        times[0].push(time(|| {
            for page in pages.chunks_exact(PAGE) {
                black_box(encode(page, &mut buffer, &mut scratch).unwrap());
            }
        }));
        times[1].push(time(|| {
            for (slot, page) in pages.chunks_exact(PAGE).enumerate() {
                worker.store(Slot::new(slot as u32), page).unwrap();
            }
        }));
        times[2].push(time(|| {
            for &(tag, start, len) in &places {
                decode(tag, &bare[start..start + len], &mut out, &mut scratch).unwrap();
                black_box(&mut out);
            }
        }));
        times[3].push(time(|| {
            for slot in 0..PAGES {
                worker.load(Slot::new(slot as u32), &mut out).unwrap();
                black_box(&mut out);
            }
        }));
    }
    for _ in 0..rounds {
        times[4].push(time(|| {
            for &page in &shuffled {
                let (tag, start, len) = places[page];
                decode(tag, &bare[start..start + len], &mut out, &mut scratch).unwrap();
                black_box(&mut out);
            }
        }));
        times[5].push(time(|| {
            for &slot in &shuffled {
                worker.load(Slot::new(slot as u32), &mut out).unwrap();
                black_box(&mut out);
            }
        }));
        times[6].push(time(|| {
            let pages = (0..).map(Slot::new).zip(pages.chunks_exact(PAGE));
            worker.store_batch(pages, |_, stored| assert!(stored.is_ok()));
        }));
        times[7].push(time(|| {
            let slots = shuffled.iter().map(|&slot| Slot::new(slot as u32));
            worker.load_batch(slots.zip(loaded.chunks_exact_mut(PAGE)), |_, loaded| loaded.unwrap());
        }));
    }
    for (slot, page) in pages.chunks_exact(PAGE).enumerate() {
        worker.load(Slot::new(slot as u32), &mut out).unwrap();
        assert!(page == out, "slot {slot}");
    }
    store.audit().unwrap();
    let [encode, put, decode, load, shuffled_decode, shuffled_load, batch_put, batch_load] = &times;
    let ns = |times: &[f64]| format!("{:.0} ns a page", median(times.to_vec()) / PAGES as f64);
    report("store (replacing), of the bare encoder", ratio(encode, put), 0.93, &ns(put));
    report("load in slot order, of the bare decoder", ratio(decode, load), 0.92, &ns(load));
    report("load in any order, likewise", ratio(shuffled_decode, shuffled_load), 0.92, &ns(shuffled_load));
    report("batch store", ratio(encode, batch_put), 0.93, &ns(batch_put));
    report("batch load in any order", ratio(shuffled_decode, batch_load), 0.92, &ns(batch_load));
}

/// Raw pages against a streaming copy, and a removal against the copy of a page.
fn raw_and_free(checksums: Checksums, rounds: usize) {
    // Far more than the caches hold, so that the copy is a streaming one.
    let count = if rounds == 1 { PAGES } else { 16_384 };
    let pages = synth::corpus("random", count);
    let blocks = count / 3 + 16;
    let config = Config::new(count as u32, blocks as u32).checksums(checksums);
    let mut lent = Lent::new(config, 4 * blocks, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), vec![0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let mut copy = vec![0; pages.len()];
    let raw = Tag::plain(Codec::Raw);
    let mut times = [const { Vec::new() }; 8];
    for _ in 0..rounds {
        times[0].push(time(|| {
            for (from, to) in pages.chunks_exact(PAGE).zip(copy.chunks_exact_mut(PAGE)) {
                to.copy_from_slice(from);
                black_box(to);
            }
        }));
        times[1].push(time(|| {
            for (slot, page) in pages.chunks_exact(PAGE).enumerate() {
                worker.store_encoded(Slot::new(slot as u32), raw, page).unwrap();
            }
        }));
        times[2].push(time(|| {
            for (slot, to) in copy.chunks_exact_mut(PAGE).enumerate() {
                worker.load(Slot::new(slot as u32), to).unwrap();
            }
        }));
        times[3].push(time(|| {
            for slot in 0..count {
                store.remove(Slot::new(slot as u32)).unwrap();
            }
        }));
        assert!(pages == copy);
    }
    for _ in 0..rounds {
        times[7].push(time(|| {
            for (from, to) in pages.chunks_exact(PAGE).zip(copy.chunks_exact_mut(PAGE)) {
                to.copy_from_slice(from);
                black_box(to);
            }
        }));
        times[4].push(time(|| {
            let pages = pages.chunks_exact(PAGE).map(|page| Incoming::Encoded(raw, page));
            worker.store_batch((0..).map(Slot::new).zip(pages), |_, stored| assert!(stored.is_ok()));
        }));
        times[5].push(time(|| {
            let pages = copy.chunks_exact_mut(PAGE);
            worker.load_batch((0..).map(Slot::new).zip(pages), |_, loaded| loaded.unwrap());
        }));
        times[6].push(time(|| {
            store.remove_batch((0..count as u32).map(Slot::new), |_, removed| removed.unwrap());
        }));
        assert!(pages == copy);
    }
    let [copy, put, load, free, batch_put, batch_load, batch_free, batch_copy] = &times;
    let ns = |times: &[f64]| format!("{:.0} ns", median(times.to_vec()) / count as f64);
    report("raw page store, of a streaming copy", ratio(copy, put), 0.75, &ns(put));
    report("raw page load, of a streaming copy", ratio(copy, load), 0.75, &ns(load));
    report("batch store of raw pages", ratio(batch_copy, batch_put), 0.75, &ns(batch_put));
    report("batch load of raw pages", ratio(batch_copy, batch_load), 0.75, &ns(batch_load));
    report("free, of copying a page (lower is better)", ratio(free, copy), 0.15, &ns(free));
    report("batch free (lower is better)", ratio(batch_free, batch_copy), 0.15, &ns(batch_free));
}

/// Two workers against one, each with its own pages and shard.
fn two_workers(rounds: usize) {
    let pages = corpus();
    let config = Config::new(2 * PAGES as u32, 2048);
    let mut lent = Lent::new(config, 8192, 2);
    let store = lent.store(config);
    let pass = |threads: usize, load: Option<()>| {
        let start = Barrier::new(threads);
        let times: Vec<f64> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let (store, pages, start) = (&store, &pages, &start);
                    scope.spawn(move || {
                        let (mut scratch, mut buffer, mut out) =
                            (Scratch::new(), vec![0; PAGE], vec![0; PAGE]);
                        let mut worker = store.worker(thread, &mut scratch, &mut buffer).unwrap();
                        start.wait();
                        // Processor time, so that who else runs on the machine does not count.
                        time(|| {
                            for (i, page) in pages.chunks_exact(PAGE).enumerate() {
                                let slot = Slot::new((thread * PAGES + i) as u32);
                                match load {
                                    Some(()) => worker.load(slot, &mut out).unwrap(),
                                    None => drop(worker.store(slot, page).unwrap()),
                                }
                            }
                        })
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        threads as f64 / times.into_iter().fold(0.0, f64::max)
    };
    for (what, load, target) in [("store", None, 1.9), ("load", Some(()), 1.95)] {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            two.push(pass(2, load));
            one.push(pass(1, load));
        }
        report(&format!("two workers {what}, of one"), median(two) / median(one), target, "");
    }
    store.audit().unwrap();
}

/// The store's packing beside zsmalloc's, on the same sizes.
fn density(smoke: bool) {
    let config = Config::new(12_000, 2304);
    let mut lent = Lent::new(config, 9216, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), vec![0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let (mut model, mut mix) = (zsmalloc::Zsmalloc::new(), synth::Mix::new(9));
    let bytes = [0x5a; PAGE];
    let mut put = |slot: u32, model: &mut zsmalloc::Zsmalloc, mix: &mut synth::Mix| {
        let size = sizes::draw(mix, &sizes::ALL);
        worker.store_encoded(Slot::new(slot), Tag::plain(Codec::Fast), &bytes[..size]).unwrap();
        model.store(slot, size);
    };
    let line = |what: &str, model: &zsmalloc::Zsmalloc| {
        store.trim(usize::MAX);
        let stats = store.stats();
        let ratio = stats.pool_bytes as f64 / stats.compressed_bytes as f64;
        println!("{what:42} {ratio:7.3}   zsmalloc {:.3}", model.ratio());
    };
    (0..12_000).for_each(|slot| put(slot, &mut model, &mut mix));
    line("fresh", &model);
    for _ in 0..if smoke { 12_000 } else { 120_000 } {
        put(mix.below(12_000) as u32, &mut model, &mut mix);
    }
    line("after replacement, nothing moved", &model);
    for slot in (0..12_000).filter(|_| mix.below(2) == 0).collect::<Vec<_>>() {
        store.remove(Slot::new(slot)).unwrap();
        model.remove(slot);
    }
    line("half freed", &model);
    let live = store.stats().compressed_bytes;
    let mut moved = 0;
    for what in ["compacted, one pass", "compacted, two passes"] {
        let mut pass = Compaction::new();
        moved += loop {
            let progress = worker.compact(&mut pass, 1 << 20);
            if progress.done {
                break progress.moved_bytes;
            }
        };
        line(what, &model);
        println!("{:42} {:7.3}   of the live bytes", "moved so far", moved as f64 / live as f64);
    }
    store.audit().unwrap();
}
