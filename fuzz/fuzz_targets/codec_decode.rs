//! Any bytes under any tag give a page or an error whose place is in the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pnode_compress::codec::{Scratch, Tag, decode};

fuzz_target!(|data: &[u8]| {
    let [tag, size, bytes @ ..] = data else { return };
    let Ok(tag) = Tag::from_byte(0x40 | tag & 0x3F) else { return };
    let mut page = vec![0; 4096 << (size % 3 * 2)];
    if let Err(error) = decode(tag, bytes, &mut page, &mut Scratch::new()) {
        assert!(error.at() <= bytes.len(), "{error}");
    }
});
