//! No access outside the slices: every buffer of a call ends, or starts, at a page that traps.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

#[path = "support/synth.rs"]
mod synth;

use core::ffi::{c_int, c_void};

use pnode_compress::codec::{Codec, Scratch, Tag, decode, encode_as};
use synth::{FRACTIONS, KINDS, Mix, PAGE};

unsafe extern "C" {
    fn mmap(at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
    fn munmap(at: *mut c_void, len: usize) -> c_int;
}

/// Memory between two pages without any access.
struct Guarded {
    base: *mut u8,
    room: usize,
}

#[derive(Clone, Copy)]
enum Against {
    Start,
    End,
}

impl Guarded {
    fn new(room: usize) -> Self {
        let room = room.next_multiple_of(PAGE);
        let (private_anonymous, fixed) = (0x22, 0x10);
        // SAFETY: a new mapping at an address that the kernel picks.
        let base = unsafe { mmap(core::ptr::null_mut(), room + 2 * PAGE, 0, private_anonymous, -1, 0) };
        assert_ne!(base as isize, -1);
        let base = base.cast::<u8>();
        // SAFETY: `PAGE` is inside the mapping above.
        let middle = unsafe { base.add(PAGE) };
        // SAFETY: replaces pages of the mapping above, which nothing refers to yet.
        let middle = unsafe { mmap(middle.cast(), room, 3, private_anonymous | fixed, -1, 0) };
        assert_ne!(middle as isize, -1);
        Self { base, room }
    }

    fn slice(&mut self, len: usize, against: Against) -> &mut [u8] {
        assert!(len <= self.room);
        let offset = match against {
            Against::Start => 0,
            Against::End => self.room - len,
        };
        // SAFETY: `PAGE + offset` is inside the mapping.
        let start = unsafe { self.base.add(PAGE + offset) };
        // SAFETY: `len` bytes from there are mapped, initialised (zero) and borrowed from `self` alone.
        unsafe { core::slice::from_raw_parts_mut(start, len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which no slice outlives.
        unsafe { munmap(self.base.cast(), self.room + 2 * PAGE) };
    }
}

/// Pages of every size, against either guard; the corpora repeat in larger pages what they hold in small ones.
#[test]
fn nothing_outside_the_slices_is_touched() {
    for (bytes, pages) in [(PAGE, 6), (4 * PAGE, 2), (16 * PAGE, 1)] {
        let mut scratch = Scratch::new();
        let (mut source, mut object, mut target) =
            (Guarded::new(bytes), Guarded::new(bytes), Guarded::new(bytes));
        let mut m = Mix::new(7);
        for (kind, against) in
            KINDS.iter().chain(&FRACTIONS).flat_map(|k| [(k, Against::Start), (k, Against::End)])
        {
            for original in synth::corpus(kind, pages * bytes / PAGE).chunks_exact(bytes) {
                let page = source.slice(bytes, against);
                page.copy_from_slice(original);
                for codec in Codec::ALL {
                    let mut whole = vec![0; bytes];
                    let Ok(encoded) = encode_as(codec, page, &mut whole, &mut scratch) else { continue };
                    // Into exactly its own room, and refused in less.
                    let out = object.slice(encoded.len(), against);
                    assert_eq!(encode_as(codec, page, out, &mut scratch), Ok(encoded));
                    let out = object.slice(encoded.len() / 2, against);
                    assert!(encode_as(codec, page, out, &mut scratch).is_err());

                    let stored = object.slice(encoded.len(), against);
                    stored.copy_from_slice(&whole[..encoded.len()]);
                    let back = target.slice(bytes, against);
                    decode(encoded.tag(), stored, back, &mut scratch).unwrap();
                    assert!(back == original, "{kind} {codec:?} {bytes}");
                    for _ in 0..24 {
                        let at = m.below(stored.len() as u64) as usize;
                        stored[at] = m.next() as u8;
                        let _ = decode(encoded.tag(), stored, back, &mut scratch);
                    }
                }
            }
        }
    }
}

#[test]
fn noise_is_decoded_inside_the_slices() {
    for (bytes, rounds) in [(PAGE, 4000), (4 * PAGE, 500), (16 * PAGE, 200)] {
        let mut scratch = Scratch::new();
        let (mut object, mut target) = (Guarded::new(PAGE), Guarded::new(bytes));
        let mut m = Mix::new(11);
        let tags: Vec<Tag> = (0..=255).filter_map(|byte| Tag::from_byte(byte).ok()).collect();
        for round in 0..rounds {
            let len = m.below(200) as usize;
            let against = if round % 2 == 0 { Against::Start } else { Against::End };
            let noise = object.slice(len, against);
            noise.iter_mut().for_each(|b| *b = m.next() as u8);
            for &tag in &tags {
                let _ = decode(tag, noise, target.slice(bytes, against), &mut scratch);
            }
        }
    }
}
