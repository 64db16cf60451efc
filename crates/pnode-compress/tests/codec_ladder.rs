//! The ladder keeps to its rule.

#[path = "support/synth.rs"]
mod synth;

use pnode_compress::codec::{
    Codec, EncodeError, Ladder, ReencodeError, Scratch, Tag, Temperature, Transform, decode,
};
use synth::{FRACTIONS, KINDS, PAGE};

const TEMPERATURES: [Temperature; 4] =
    [Temperature::Hot, Temperature::Warm, Temperature::Cold, Temperature::Frozen];

#[test]
fn pages_get_the_codec_of_their_temperature_or_stay_raw() {
    let (mut out, mut back, mut scratch) = ([0; PAGE], [0; PAGE], Scratch::new());
    let ladder = Ladder::STANDARD;
    for kind in KINDS.into_iter().chain(FRACTIONS) {
        for page in synth::corpus(kind, 4).chunks_exact(PAGE) {
            for temperature in TEMPERATURES {
                let object = ladder.encode(temperature, page, &mut out, &mut scratch).unwrap();
                match (kind, object.tag().codec()) {
                    ("zero" | "same", codec) => assert_eq!((codec, object.len()), (Codec::Same, 8)),
                    (_, Codec::Raw) => assert_eq!(object.len(), PAGE),
                    (_, codec) => {
                        assert_eq!(codec, temperature.codec());
                        assert!(object.len() <= ladder.budget(PAGE));
                    }
                }
                decode(object.tag(), &out[..object.len()], &mut back, &mut scratch).unwrap();
                assert_eq!(back[..], *page);
            }
        }
    }
}

#[test]
fn integers_and_fractions_shrink_when_cold() {
    let (mut out, mut scratch) = ([0; PAGE], Scratch::new());
    for (kind, transform, most) in [
        ("ints", Transform::Delta, PAGE * 10 / 18),
        ("bf16", Transform::Planes2, PAGE * 10 / 14),
        ("f32", Transform::Planes4, PAGE * 10 / 11),
        ("measured", Transform::Planes8, PAGE * 10 / 11),
    ] {
        for (temperature, codec) in [(Temperature::Cold, Codec::Entropy), (Temperature::Frozen, Codec::Deep)]
        {
            for page in synth::corpus(kind, 16).chunks_exact(PAGE) {
                let object = Ladder::STANDARD.encode(temperature, page, &mut out, &mut scratch).unwrap();
                assert_eq!(object.tag(), Tag::transformed(codec, transform).unwrap(), "{kind}");
                assert!(object.len() <= most, "{kind}: {}", object.len());
            }
        }
    }
}

/// What LZ sees through is left as it is, such as fractions of a few decimals.
#[test]
fn other_pages_are_not_transformed() {
    let (mut out, mut scratch) = ([0; PAGE], Scratch::new());
    for kind in ["ptrs", "slab", "f64", "json", "sparse"] {
        for page in synth::corpus(kind, 32).chunks_exact(PAGE) {
            let object = Ladder::STANDARD.encode(Temperature::Cold, page, &mut out, &mut scratch).unwrap();
            assert_eq!(object.tag(), Tag::plain(Codec::Entropy), "{kind}");
        }
    }
}

#[test]
fn an_object_moves_down_only_and_only_for_gain() {
    let (mut scratch, mut page) = (Scratch::new(), [0; PAGE]);
    let ladder = Ladder::STANDARD;
    for kind in KINDS.into_iter().chain(FRACTIONS) {
        let source = synth::corpus(kind, 1);
        for from in TEMPERATURES {
            let mut object = [0; PAGE];
            let old = ladder.encode(from, &source, &mut object, &mut scratch).unwrap();
            for to in TEMPERATURES {
                let mut out = [0; PAGE];
                let bytes = &object[..old.len()];
                let new = ladder.reencode(old.tag(), bytes, to, &mut page, &mut out, &mut scratch).unwrap();
                let Some(new) = new else {
                    assert!(
                        to <= from || kind != "slab" || to != Temperature::Cold,
                        "{kind} {from:?} {to:?}"
                    );
                    continue;
                };
                assert!(to > from && new.len() + PAGE / 256 * 12 <= old.len(), "{kind} {from:?} {to:?}");
                assert_eq!(new.tag().codec(), to.codec());
                let mut back = [0; PAGE];
                decode(new.tag(), &out[..new.len()], &mut back, &mut scratch).unwrap();
                assert_eq!(back[..], source);
            }
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let (mut scratch, mut page, mut out) = (Scratch::new(), [0; PAGE], [0; PAGE]);
    let fast = Tag::plain(Codec::Fast);
    let damaged =
        Ladder::STANDARD.reencode(fast, &[0xF0, 1], Temperature::Cold, &mut page, &mut out, &mut scratch);
    assert!(matches!(damaged, Err(ReencodeError::Decode(_))), "{damaged:?}");
    let random = synth::corpus("random", 1);
    let no_room = Ladder::STANDARD.encode(Temperature::Hot, &random, &mut out[..4000], &mut scratch);
    assert_eq!(no_room, Err(EncodeError::TooLarge { room: 4000 }));
}
