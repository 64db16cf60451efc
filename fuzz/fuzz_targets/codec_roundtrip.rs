//! Every page comes back from every codec, whatever the room, and the quick and the careful decoder agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pnode_compress::codec::{Codec, Scratch, decode, encode, encode_as};

/// Builds a page from a few instructions: literal bytes, and copies from anywhere before.
fn page(data: &[u8], bytes: usize) -> Vec<u8> {
    let mut page = vec![0];
    for step in data.chunks(3).cycle().take(bytes) {
        let (a, b, c) = (step[0], *step.get(1).unwrap_or(&0), *step.get(2).unwrap_or(&0));
        if a < 128 {
            page.extend_from_slice(&[a, b, c]);
        } else {
            let back = 1 + (usize::from(a & 15) << 8 | usize::from(b)) % page.len();
            (0..usize::from(c)).for_each(|_| page.push(page[page.len() - back]));
        }
        if page.len() >= bytes {
            break;
        }
    }
    page.resize(bytes, 7);
    page
}

fuzz_target!(|data: &[u8]| {
    let [size, room, data @ ..] = data else { return };
    if data.is_empty() {
        return;
    }
    let page = page(data, 4096 << (size % 3 * 2));
    let (mut out, mut back, mut scratch) = (vec![0; page.len()], vec![0; page.len()], Scratch::new());
    let object = encode(&page, &mut out, &mut scratch).expect("room for the page");
    decode(object.tag(), &out[..object.len()], &mut back, &mut scratch).expect("an object");
    assert!(back == page);
    let room = page.len() / 256 * usize::from(*room);
    for codec in Codec::ALL {
        let Ok(object) = encode_as(codec, &page, &mut out[..room], &mut scratch) else { continue };
        back.fill(0x55);
        decode(object.tag(), &out[..object.len()], &mut back, &mut scratch).expect("an object");
        assert!(back == page, "{codec:?}");
    }
});
