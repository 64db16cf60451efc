//! The page codecs by kind of page, and the same-filled check beside a memory copy.
//!
//! `cargo bench --bench codec`. `benches/codecs` compares the codecs with the C libraries.

use std::hint::black_box;
use std::time::Instant;

use pnode::compress::codec::{Codec, Scratch, Tag, decode, encode_as, same_filled};

#[path = "../crates/pnode-compress/tests/support/synth.rs"]
#[allow(unused)]
mod synth;

use synth::PAGE;

/// Nanoseconds a call of `run`, which does `calls` of them: the median of `rounds`.
fn nanoseconds(calls: usize, rounds: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos() as f64 / calls as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

fn main() {
    let (pages, rounds) = if std::env::args().any(|arg| arg == "--bench") { (256, 21) } else { (4, 1) };
    let mut scratch = Scratch::new();
    println!("{:<8} {:<8} {:>12} {:>12} {:>8}", "kind", "codec", "ns/page in", "ns/page out", "ratio");
    for kind in ["ptrs", "slab", "ints", "f64", "bf16", "json", "sparse", "random"] {
        let corpus = synth::corpus(kind, pages);
        for codec in [Codec::Fast, Codec::Dense, Codec::Entropy] {
            let mut out = [0; PAGE];
            let mut objects: Vec<(Tag, Vec<u8>, &[u8])> = vec![];
            let mut bytes = 0;
            for page in corpus.chunks_exact(PAGE) {
                let object = encode_as(codec, page, &mut out[..PAGE - 1], &mut scratch).ok();
                bytes += object.map_or(PAGE, |object| object.len());
                objects.extend(object.map(|object| (object.tag(), out[..object.len()].to_vec(), page)));
            }
            let encode = nanoseconds(pages, rounds, || {
                for page in corpus.chunks_exact(PAGE) {
                    let _ = black_box(encode_as(codec, page, &mut out[..PAGE - 1], &mut scratch));
                }
            });
            let mut back = [0; PAGE];
            let decoded = nanoseconds(objects.len().max(1), rounds, || {
                for (tag, object, _) in &objects {
                    decode(*tag, object, &mut back, &mut scratch).expect("an object");
                }
            });
            assert!(
                objects.last().is_none_or(|(_, _, page)| back == **page),
                "the measured path must decode"
            );
            let (ratio, name) = (corpus.len() as f64 / bytes as f64, format!("{codec:?}"));
            println!("{kind:<8} {name:<8} {encode:>12.0} {decoded:>12.0} {ratio:>8.3}");
        }
    }
    let (page, mut copy) = ([0u8; PAGE], [1u8; PAGE]);
    let check = nanoseconds(1000, rounds, || {
        (0..1000).for_each(|_| assert_eq!(same_filled(black_box(&page)), Some(0)));
    });
    let copied = nanoseconds(1000, rounds, || {
        for _ in 0..1000 {
            copy.copy_from_slice(black_box(&page));
            black_box(&mut copy);
        }
    });
    println!("zero page checked in {check:.0} ns, copied in {copied:.0} ns: {:.2}x", copied / check);
}
