//! Every codec gives every page back, within the room it was given.

#[path = "support/synth.rs"]
mod synth;

use pnode_compress::codec::{Codec, EncodeError, Encoded, Scratch, Tag, decode, encode, encode_as};
use proptest::prelude::*;
use synth::{FRACTIONS, KINDS, Mix, PAGE};

/// Encodes with no byte to spare, checks that nothing behind the object was touched, and decodes.
fn round_trip(codec: Codec, page: &[u8]) -> Option<Encoded> {
    let (mut out, mut scratch) = (vec![0xA5; page.len() * 2], Scratch::new());
    let object = match encode_as(codec, page, &mut out[..page.len()], &mut scratch) {
        Ok(object) => object,
        Err(EncodeError::TooLarge { room }) => {
            assert_eq!(room, page.len());
            return None;
        }
        Err(EncodeError::NotSame) => {
            assert_eq!(codec, Codec::Same);
            return None;
        }
        Err(error) => panic!("{codec:?}: {error}"),
    };
    assert_eq!(object.tag().codec(), codec);
    assert!(object.len() <= page.len());
    assert!(out[page.len()..].iter().all(|&b| b == 0xA5), "{codec:?} wrote past its room");

    // The exact room suffices, and one byte less is refused.
    let mut exact = vec![0; object.len()];
    assert_eq!(encode_as(codec, page, &mut exact, &mut scratch), Ok(object), "{codec:?} in its own length");
    assert_eq!(exact, out[..object.len()], "{codec:?} depends on the room");
    let short = encode_as(codec, page, &mut exact[1..], &mut scratch);
    assert_eq!(short, Err(EncodeError::TooLarge { room: object.len() - 1 }), "{codec:?}");

    let mut back = vec![0x5A; page.len()];
    decode(object.tag(), &out[..object.len()], &mut back, &mut scratch)
        .unwrap_or_else(|e| panic!("{codec:?}: {e}"));
    assert!(back == page, "{codec:?} changed the page");
    Some(object)
}

fn round_trips(page: &[u8]) {
    for codec in Codec::ALL {
        round_trip(codec, page);
    }
}

#[test]
fn synthetic_pages_come_back() {
    for kind in KINDS.into_iter().chain(FRACTIONS) {
        let pages = synth::corpus(kind, if cfg!(miri) { 1 } else { 24 });
        pages.chunks_exact(PAGE).for_each(round_trips);
        if cfg!(miri) {
            continue;
        }
        let pages = synth::corpus(kind, 16);
        round_trips(&pages[..4 * PAGE]);
        round_trips(&pages);
    }
}

/// Runs and repeats of every length near the limits of the formats, at both ends of a page.
#[test]
#[cfg_attr(miri, ignore = "the same code runs in the other tests; this one repeats it too often for Miri")]
fn repeats_of_every_period_come_back() {
    let noise = synth::corpus("random", 1);
    for period in (1..70).chain([127, 128, 255, 256, 269, 270, 271, 4080, 4090, 4095]) {
        for run in [period + 3, period + 4, period + 5, 3 * period + 18, PAGE] {
            let repeat: Vec<u8> = noise[..period].iter().copied().cycle().take(run.min(PAGE)).collect();
            let mut page = noise.clone();
            page[PAGE - repeat.len()..].copy_from_slice(&repeat);
            round_trips(&page);
            page.rotate_right(repeat.len());
            round_trips(&page);
            page.rotate_right(7);
            round_trips(&page);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "the same code runs in the other tests; this one repeats it too often for Miri")]
fn encode_never_fails_with_room_for_the_page() {
    let mut scratch = Scratch::new();
    for kind in KINDS {
        for page in synth::corpus(kind, 8).chunks_exact(PAGE) {
            let (mut out, mut back) = ([0; PAGE], [1; PAGE]);
            let object = encode(page, &mut out, &mut scratch).unwrap();
            decode(object.tag(), &out[..object.len()], &mut back, &mut scratch).unwrap();
            assert_eq!(page, back);
            let expected = match kind {
                "zero" | "same" => Codec::Same,
                "random" => Codec::Raw,
                _ => object.tag().codec(),
            };
            assert_eq!(object.tag().codec(), expected);
        }
    }
}

#[test]
fn only_pages_are_taken() {
    let (mut out, mut scratch) = (vec![0; 1 << 18], Scratch::new());
    for bytes in [0, 1, 8, 4095, 4097, 12288, 65535, 65537, 131_072] {
        let mut page = vec![0; bytes];
        assert_eq!(encode(&page, &mut out, &mut scratch), Err(EncodeError::PageSize { bytes }));
        for codec in Codec::ALL {
            assert_eq!(encode_as(codec, &page, &mut out, &mut scratch), Err(EncodeError::PageSize { bytes }));
            assert!(decode(Tag::plain(codec), &out[..8], &mut page, &mut scratch).is_err());
        }
    }
}

#[test]
fn tags_are_exactly_the_bytes_they_accept() {
    let tags: Vec<Tag> = (0..=255).filter_map(|byte| Tag::from_byte(byte).ok()).collect();
    assert!(tags.iter().all(|&tag| Tag::from_byte(tag.to_byte()) == Ok(tag)));
    assert!(Codec::ALL.iter().all(|&codec| tags.contains(&Tag::plain(codec))));
    assert!(Tag::from_byte(0).is_err(), "a table of zeroes holds no tags");
}

/// A page of spans that repeat, drift or are noise, as heaps are.
fn spans(seed: u64, bytes: usize) -> Vec<u8> {
    let mut m = Mix::new(seed);
    let mut page = vec![m.next() as u8];
    while page.len() < bytes {
        let (kind, run, back) = (m.below(5), 1 + m.below(400), 1 + m.below(page.len() as u64) as usize);
        let value = m.next() as u8;
        for i in 0..run {
            page.push(match kind {
                0 => 0,
                1 => value,
                2 => m.next() as u8,
                3 => (i / 4) as u8 & 7,
                _ => page[page.len() - back],
            });
        }
    }
    page.truncate(bytes);
    page
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 128 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_page_comes_back(seed in any::<u64>(), size in 0u32..3) {
        round_trips(&spans(seed, PAGE << (2 * size)));
    }
}
