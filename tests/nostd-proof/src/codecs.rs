//! pnode-compress: pages through the codecs and back.

use pnode_compress::codec::{Scratch, decode, encode};

use crate::say;

/// A kind of page: its name, and the byte at an index.
type Kind = (&'static str, fn(usize) -> u8);

const KINDS: [Kind; 3] = [
    ("zeroes", |_| 0),
    ("text", |index| b"allocation from a private node takes a grant; "[index % 46]),
    ("noise", |index| {
        let mixed = (index as u32 ^ 0x9e37_79b9).wrapping_mul(0x85eb_ca6b);
        ((mixed ^ mixed >> 15).wrapping_mul(0xc2b2_ae35) >> 24) as u8
    }),
];

pub fn run() -> Result<(), &'static str> {
    let mut scratch = Scratch::new();
    for (name, byte) in KINDS {
        let (mut page, mut object, mut back) = ([0; 4096], [0; 4096], [0xff; 4096]);
        page.iter_mut().enumerate().for_each(|(index, slot)| *slot = byte(index));
        let encoded = encode(&page, &mut object, &mut scratch).map_err(|_| "a page was not encoded")?;
        let bytes = object.get(..encoded.len()).ok_or("an object is longer than its room")?;
        decode(encoded.tag(), bytes, &mut back, &mut scratch).map_err(|_| "an object was not decoded")?;
        if back != page {
            return Err("a page came back changed");
        }
        say!("compress: a page of {name} -> {} bytes -> the same page", encoded.len());
    }
    Ok(())
}
