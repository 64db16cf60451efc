//! An object with some bytes changed decodes to a page or an error, and the same way twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pnode_compress::codec::{Codec, Scratch, decode, encode_as};

fuzz_target!(|data: &[u8]| {
    let [codec, changes, rest @ ..] = data else { return };
    let (changes, seed) = rest.split_at(rest.len().min(4 * usize::from(changes % 16)));
    if seed.is_empty() {
        return;
    }
    let page: Vec<u8> = seed.iter().copied().cycle().take(4096).collect();
    let codec = Codec::ALL[usize::from(*codec) % Codec::ALL.len()];
    let (mut out, mut scratch) = (vec![0; 4096], Scratch::new());
    let Ok(object) = encode_as(codec, &page, &mut out, &mut scratch) else { return };
    out.truncate(object.len());
    for change in changes.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % out.len();
        match change[2] % 4 {
            0 => out[at] ^= change[3],
            1 => out[at] = change[3],
            2 => out.insert(at, change[3]),
            _ if out.len() > 1 => drop(out.remove(at)),
            _ => {}
        }
    }
    let (mut one, mut two) = (vec![0; 4096], vec![0xFF; 4096]);
    let first = decode(object.tag(), &out, &mut one, &mut scratch);
    let second = decode(object.tag(), &out, &mut two, &mut Scratch::new());
    assert_eq!(first, second);
    assert!(first.is_err() || one == two, "a page depends on what was in its memory");
});
