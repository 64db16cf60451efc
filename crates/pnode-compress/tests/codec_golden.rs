//! Objects written once, decoded for ever: the formats of version 1 are these bytes.
//!
//! Each line of `golden/objects.txt` is a kind of page, the page's number in its corpus, a tag and an object, in hex.
//! Encoders may change what they write; decoders may not change what they read. To add lines for a new tag:
//! `PNODE_PRINT_GOLDEN=1 cargo test -p pnode-compress --test codec_golden -- --nocapture`.

#[path = "support/synth.rs"]
mod synth;

use pnode_compress::codec::{Codec, Scratch, Tag, decode, encode_as};
use synth::PAGE;

/// Small objects of every tag, chosen for the paths of the decoders that they take.
const WRITTEN: [(&str, usize, Codec); 20] = [
    ("same", 0, Codec::Same),
    ("sparse", 0, Codec::Fast),
    ("sparse", 1, Codec::Dense),
    ("sparse", 2, Codec::Entropy),
    ("slab", 0, Codec::Fast),
    ("slab", 1, Codec::Dense),
    ("slab", 2, Codec::Entropy),
    ("json", 0, Codec::Entropy),
    ("ints", 0, Codec::Entropy),
    ("bf16", 0, Codec::Entropy),
    ("sparse", 3, Codec::Deep),
    ("slab", 3, Codec::Deep),
    ("ints", 1, Codec::Deep),
    ("ptrs", 0, Codec::Entropy),
    ("ptrs", 1, Codec::Deep),
    ("bf16", 1, Codec::Deep),
    ("f32", 0, Codec::Entropy),
    ("f32", 1, Codec::Deep),
    ("measured", 0, Codec::Entropy),
    ("measured", 1, Codec::Deep),
];

fn page(kind: &str, number: usize) -> Vec<u8> {
    synth::corpus(kind, number + 1)[number * PAGE..].to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn golden_objects_decode_to_their_pages() {
    let mut scratch = Scratch::new();
    if std::env::var_os("PNODE_PRINT_GOLDEN").is_some() {
        for (kind, number, codec) in WRITTEN {
            let mut out = [0; PAGE];
            let object = encode_as(codec, &page(kind, number), &mut out, &mut scratch).unwrap();
            println!("{kind} {number} {} {}", hex(&[object.tag().to_byte()]), hex(&out[..object.len()]));
        }
    }
    let mut tags = vec![];
    for line in include_str!("golden/objects.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [kind, number, tag, object] = fields[..] else { panic!("{line}") };
        let tag = Tag::from_byte(unhex(tag)[0]).unwrap();
        let mut back = [0; PAGE];
        decode(tag, &unhex(object), &mut back, &mut scratch)
            .unwrap_or_else(|e| panic!("{kind} {tag:?}: {e}"));
        assert!(back[..] == page(kind, number.parse().unwrap()), "{kind} {tag:?}");
        tags.push(tag);
    }
    let unpinned: Vec<Tag> = (0..=255)
        .filter_map(|byte| Tag::from_byte(byte).ok())
        .filter(|tag| tag.codec() != Codec::Raw && !tags.contains(tag))
        .collect();
    assert_eq!(unpinned, [], "tags without a golden object");
}

/// Bytes of the first 64 pages of each kind, by codec: a change of an encoder shows here before a bench shows it.
#[test]
fn objects_do_not_grow() {
    let bounds = [
        ("ptrs", [138847, 124821, 113927, 101365]),
        ("slab", [116243, 110636, 85872, 71244]),
        ("f64", [137366, 132318, 99186, 91480]),
        ("json", [131580, 125378, 100699, 97666]),
        ("sparse", [16898, 15408, 16351, 15540]),
        ("ints", [262144, 262144, 56012, 54744]),
        ("bf16", [262144, 262144, 180000, 180000]),
    ];
    let mut scratch = Scratch::new();
    for (kind, bounds) in bounds {
        let total = [Codec::Fast, Codec::Dense, Codec::Entropy, Codec::Deep].map(|codec| {
            let pages = synth::corpus(kind, 64);
            let len = |page: &[u8]| {
                encode_as(codec, page, &mut [0; PAGE], &mut scratch).map_or(PAGE, |object| object.len())
            };
            pages.chunks_exact(PAGE).map(len).sum::<usize>()
        });
        assert!(
            total.iter().zip(bounds).all(|(&total, bound)| total <= bound),
            "{kind}: {total:?} over {bounds:?}"
        );
    }
}
