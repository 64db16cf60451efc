//! Our LZ4 blocks in C lz4's decoder, C lz4's blocks of every level in ours, and the same verdict on damaged ones.

use core::ffi::{c_char, c_int};

use pnode_compress::codec::{Codec, Fault, Scratch, encode_as, lz4};

#[path = "../../../crates/pnode-compress/tests/support/synth.rs"]
mod synth;

use synth::{KINDS, Mix, PAGE};

unsafe extern "C" {
    fn LZ4_compress_HC(src: *const c_char, dst: *mut c_char, size: c_int, room: c_int, level: c_int)
    -> c_int;
}

fn c_decode(block: &[u8], page: &mut [u8]) -> bool {
    let (len, room) = (block.len() as c_int, page.len() as c_int);
    // SAFETY: both ranges are those of live slices.
    let n =
        unsafe { lz4_sys::LZ4_decompress_safe(block.as_ptr().cast(), page.as_mut_ptr().cast(), len, room) };
    n == room
}

/// Level 0 is the default compressor, negative levels its accelerations, positive ones the high compressor's.
fn c_encode(page: &[u8], level: c_int) -> Vec<u8> {
    let mut out = vec![0; page.len() * 2];
    let (src, dst) = (page.as_ptr().cast::<c_char>(), out.as_mut_ptr().cast::<c_char>());
    let (len, room) = (page.len() as c_int, out.len() as c_int);
    // SAFETY: both ranges are those of live vectors.
    let n = unsafe {
        match level {
            ..=0 => lz4_sys::LZ4_compress_fast(src, dst, len, room, 1 - level),
            _ => LZ4_compress_HC(src, dst, len, room, level),
        }
    };
    assert!(n > 0);
    out.truncate(n as usize);
    out
}

#[test]
fn c_reads_our_blocks() {
    let mut scratch = Scratch::new();
    for kind in KINDS {
        let all = synth::corpus(kind, 32);
        for bytes in [PAGE, 4 * PAGE, 16 * PAGE] {
            for page in all.chunks_exact(bytes) {
                for codec in [Codec::Fast, Codec::Dense] {
                    let (mut out, mut back) = (vec![0; bytes + 512], vec![0; bytes]);
                    let object = encode_as(codec, page, &mut out, &mut scratch).unwrap();
                    assert!(c_decode(&out[..object.len()], &mut back), "{kind} {codec:?}");
                    assert!(back == page, "{kind} {codec:?}");
                }
            }
        }
    }
}

#[test]
fn we_read_c_blocks_of_every_level() {
    for kind in KINDS {
        let all = synth::corpus(kind, 32);
        for bytes in [PAGE, 4 * PAGE, 16 * PAGE] {
            for (page, level) in all.chunks_exact(bytes).flat_map(|p| (-9..=12).map(move |level| (p, level)))
            {
                let mut back = vec![0; bytes];
                lz4::decode(&c_encode(page, level), &mut back)
                    .unwrap_or_else(|e| panic!("{kind} {level}: {e}"));
                assert!(back == page, "{kind} {level}");
            }
        }
    }
}

/// A block that C refuses is refused here and the other way round, and accepted ones give the same page. The one
/// exception is a distance of 0: the format forbids it, C turns it into bytes of no meaning, ours refuses it.
#[test]
fn verdicts_on_damaged_blocks_agree() {
    let mut m = Mix::new(5);
    let (mut accepted, mut refused) = (0, 0);
    for kind in KINDS {
        for page in synth::corpus(kind, 8).chunks_exact(PAGE) {
            for level in [-3, 0, 9] {
                let good = c_encode(page, level);
                for _ in 0..200 {
                    let mut block = good.clone();
                    for _ in 0..1 + m.below(3) {
                        let at = m.below(block.len() as u64) as usize;
                        block[at] = if m.below(4) == 0 { 0xFF } else { m.next() as u8 };
                    }
                    if m.below(8) == 0 {
                        block.truncate(m.below(block.len() as u64) as usize);
                    }
                    let (mut ours, mut theirs) = ([0; PAGE], [0; PAGE]);
                    let verdict = lz4::decode(&block, &mut ours);
                    let zero = verdict.is_err_and(|e| e.fault() == Fault::Distance { distance: 0 });
                    let agreed = zero || verdict.is_ok() == c_decode(&block, &mut theirs);
                    assert!(agreed, "{kind} {level} {verdict:?}");
                    if verdict.is_ok() {
                        assert!(ours == theirs, "{kind} {level}");
                        accepted += 1;
                    } else {
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
}
