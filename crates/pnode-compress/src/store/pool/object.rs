//! An object in the pool: its bytes, and where its checksum is.
//!
//! A checksum lies behind its object, in the last of its granules. A page that is kept as it is has none to spare: with
//! four bytes more, a block of 16 KiB would hold three pages of 4 KiB instead of four, each would begin in the middle of
//! a frame, and freeing it would take more steps. So its checksum is metadata, a half in the entry where others have their
//! length, and a half beside the block's bitmap.
#![deny(unsafe_code)]

use pnode_core::sync::Ordering;

use super::{Claim, New, Pin, Pool};
use crate::codec::{Codec, Tag};
use crate::memory::FrameMemory;
use crate::store::checksum::checksum;
use crate::store::entry::Entry;
use crate::store::shape::Checksums;

/// An object as it lies in the pool.
#[derive(Clone, Copy)]
pub(crate) struct Object<'b> {
    bytes: &'b [u8],
    /// What the checksum of the bytes was when they were written; `None` in a store without checksums.
    sum: Option<u32>,
}

impl<'b> Object<'b> {
    /// The bytes, damaged or not.
    #[inline]
    pub(crate) const fn bytes(self) -> &'b [u8] {
        self.bytes
    }

    /// What the checksum was when the bytes were written; `None` in a store without checksums.
    #[inline]
    pub(crate) const fn sum(self) -> Option<u32> {
        self.sum
    }

    /// The bytes, if their checksum is right.
    pub(crate) fn verified(self) -> Option<&'b [u8]> {
        self.sum.is_none_or(|sum| sum == checksum(self.bytes)).then_some(self.bytes)
    }
}

impl<P: FrameMemory> Pool<'_, P> {
    /// Makes an object of a claim: `fill` writes its `len` bytes, and returns their checksum, or 0 in a store without
    /// checksums. The object is then ready to be put into an entry.
    ///
    /// The claim comes back if such an object does not cover exactly its granules.
    #[inline]
    pub(crate) fn object(
        &self,
        mut claim: Claim,
        tag: Tag,
        len: usize,
        age: u8,
        fill: impl FnOnce(&mut [u8]) -> u32,
    ) -> Result<New, Claim> {
        let (shape, raw) = (&self.shape, tag.codec() == Codec::Raw);
        let page = shape.page.bytes();
        let fits = if raw { len == page } else { len >= 1 && len <= page };
        if !fits || claim.granules != shape.granules(tag, len) {
            return Err(claim);
        }
        let written = self.write(&mut claim, shape.extent(tag, len), |place| {
            let (bytes, behind) = place.split_at_mut(len);
            let sum = fill(bytes);
            let room = behind.len();
            behind.copy_from_slice(&sum.to_le_bytes()[..room]);
            sum
        });
        let Some(sum) = written else { return Err(claim) };
        let entry = if raw {
            self.keep_half(&claim, (sum >> 16) as u16);
            Entry::raw(claim.place, sum as u16)
        } else {
            Entry::object(tag, claim.place, len)
        };
        // INVARIANT: N1 was tested above.
        Ok(New { entry: entry.with_age(age), claim: Some(claim) })
    }

    /// Notes the half of a raw page's checksum that its entry has no room for.
    #[inline]
    fn keep_half(&self, claim: &Claim, half: u16) {
        if self.shape.checksums == Checksums::Off {
            return;
        }
        let (block, (word, shift)) = self.place_of_half(claim.place);
        let word = self.word(block, word);
        // Relaxed: the page's entry hands it over. Only the holder of the page's granules changes this half, so what is
        // read here of it is what is there; the others may change meanwhile.
        let change = (word.load(Ordering::Relaxed) >> shift) as u16 ^ half;
        word.fetch_xor(u64::from(change) << shift, Ordering::Relaxed);
    }

    /// The block of a place, and where the half of the checksum of a raw page there is in its descriptor.
    #[inline]
    fn place_of_half(&self, place: u64) -> (u32, (usize, u32)) {
        let first = (place & u64::from(self.shape.places() - 1)) as u32;
        (self.block_of(place), self.shape.half_sum(first))
    }
}

impl<P: FrameMemory> Pin<'_, '_, P> {
    /// The pinned object, whose granules are `granules`.
    #[inline]
    pub(super) fn object_in<'b>(&self, granules: &'b [u8]) -> Object<'b> {
        let (pool, entry) = (self.pool, self.entry);
        let (bytes, behind) = granules.split_at(entry.len(pool.shape.page));
        let sum = match pool.shape.checksums {
            Checksums::Off => None,
            Checksums::On if entry.is_raw() => {
                let (block, (word, shift)) = pool.place_of_half(entry.place());
                // Relaxed: whoever pinned the entry sees what was noted before the object was put into it.
                let half = (pool.word(block, word).load(Ordering::Relaxed) >> shift) as u16;
                Some(u32::from(half) << 16 | u32::from(entry.half_sum()))
            }
            Checksums::On => behind.first_chunk().map(|sum| u32::from_le_bytes(*sum)),
        };
        Object { bytes, sum }
    }
}
