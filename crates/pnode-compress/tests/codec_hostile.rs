//! Decoders are total: whatever the bytes, a page or an error, and nothing outside the slices.

#[path = "support/synth.rs"]
mod synth;

use pnode_compress::codec::{Codec, Scratch, Tag, decode, encode_as};
use proptest::prelude::*;
use synth::{FRACTIONS, KINDS, Mix, PAGE};

fn tags() -> Vec<Tag> {
    (0..=255).filter_map(|byte| Tag::from_byte(byte).ok()).collect()
}

/// Decodes into the middle of a guarded buffer. A panic or a touched guard fails the test.
fn survive(tag: Tag, bytes: &[u8], page_bytes: usize, scratch: &mut Scratch) -> bool {
    let mut guarded = vec![0xC3; page_bytes + 128];
    let result = decode(tag, bytes, &mut guarded[64..64 + page_bytes], scratch);
    assert!(guarded[..64].iter().chain(&guarded[64 + page_bytes..]).all(|&b| b == 0xC3));
    if let Err(error) = result {
        assert!(error.at() <= bytes.len(), "{error}");
    }
    result.is_ok()
}

/// Calls `check` with every kind of page as every codec writes it: its name, its tag and its bytes.
fn for_each_object(mut check: impl FnMut(&str, Tag, &mut Vec<u8>, &mut Scratch)) {
    let mut scratch = Scratch::new();
    for kind in KINDS.into_iter().chain(FRACTIONS) {
        let page = synth::corpus(kind, 1);
        for codec in Codec::ALL {
            let mut out = vec![0; PAGE];
            let Ok(object) = encode_as(codec, &page, &mut out, &mut scratch) else { continue };
            out.truncate(object.len());
            check(&format!("{kind} {codec:?}"), object.tag(), &mut out, &mut scratch);
        }
    }
}

/// Objects cut short are refused, by a byte and by any number, as is every object with a byte more.
#[test]
fn cut_and_lengthened_objects_are_refused() {
    for_each_object(|object, tag, out, scratch| {
        for len in (0..out.len()).rev().step_by(if cfg!(miri) { 509 } else { 3 }) {
            assert!(!survive(tag, &out[..len], PAGE, scratch), "{object} cut to {len}");
        }
        for last in [0, 0x10, 0xFF] {
            out.push(last);
            assert!(!survive(tag, out, PAGE, scratch), "{object} and {last}");
            out.pop();
        }
    });
}

/// Single changed bytes, all over an object.
#[test]
fn damaged_objects_are_survived() {
    for_each_object(|_, tag, out, scratch| {
        for at in (0..out.len()).step_by(if cfg!(miri) { 509 } else { 2 }) {
            let good = out[at];
            for bad in [0, 0xFF, good ^ 1] {
                out[at] = bad;
                survive(tag, out, PAGE, scratch);
            }
            out[at] = good;
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "the same code runs in the other tests; this one repeats it too often for Miri")]
fn an_object_is_refused_in_a_page_of_another_size() {
    let mut scratch = Scratch::new();
    for kind in KINDS {
        let page = synth::corpus(kind, 4);
        for codec in Codec::ALL.into_iter().filter(|&c| c != Codec::Same) {
            let mut out = vec![0; 4 * PAGE];
            let Ok(object) = encode_as(codec, &page, &mut out, &mut scratch) else { continue };
            for bytes in [PAGE, 2 * PAGE, 8 * PAGE, 16 * PAGE] {
                assert!(
                    !survive(object.tag(), &out[..object.len()], bytes, &mut scratch),
                    "{kind} {codec:?} {bytes}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 192 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), size in 0u32..3) {
        let mut scratch = Scratch::new();
        for tag in tags() {
            survive(tag, &bytes, PAGE << (2 * size), &mut scratch);
        }
    }

    #[test]
    fn many_changes_are_survived(seed in any::<u64>(), kind in 0usize..12, changes in 1usize..40) {
        let mut scratch = Scratch::new();
        let mut m = Mix::new(seed);
        let kind = KINDS.iter().chain(&FRACTIONS).nth(kind).expect("a kind");
        let page = synth::seeded(kind, 1, seed >> 40);
        for codec in Codec::ALL {
            let mut out = vec![0; PAGE];
            let Ok(object) = encode_as(codec, &page, &mut out, &mut scratch) else { continue };
            out.truncate(object.len());
            for _ in 0..changes {
                let at = m.below(out.len() as u64) as usize;
                out[at] = m.next() as u8;
            }
            survive(object.tag(), &out, PAGE, &mut scratch);
        }
    }
}
