//! Asking for what is about to be read or written.

use super::Pool;
use crate::memory::FrameMemory;
use crate::store::entry::{Entry, Kind};
use crate::store::shape::Checksums;

impl<P: FrameMemory> Pool<'_, P> {
    /// Asks for the bytes of a page that is likely to be read soon, whatever it is by then.
    #[inline]
    pub(crate) fn expect(&self, slot: u32) {
        let Some(mut entry) = self.page(slot) else { return };
        if let Kind::Shared(number) = entry.kind() {
            entry = self.entry(self.index_of(number)).unwrap_or(Entry::EMPTY);
        }
        if !entry.is_object() {
            return;
        }
        if self.shape.checksums == Checksums::Off && entry.is_raw() {
            // A plain copy keeps memory as busy as can be, and is only disturbed.
            return;
        }
        let Some((range, offset)) = self.locate(entry.place(), self.shape.covered(entry)) else {
            return;
        };
        if let Some(base) = self.frames.address(range) {
            prefetch(base.as_ptr().wrapping_add(offset), entry.len(self.shape.page));
        }
    }
}

/// Asks for the right to write a page's bytes, all of which are about to be written. A plain copy fetches each line when it
/// comes to it, and a core guesses the next ones only within a frame, so each page's first ones come late.
#[inline]
pub(crate) fn about_to_write(bytes: &mut [u8]) {
    for line in bytes.chunks(64) {
        let line = line.as_ptr();
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        // SAFETY: a prefetch changes nothing that the program can see, and does not fault whatever the address.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        // SAFETY: as above.
        unsafe {
            core::arch::asm!("prfm pstl1keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
        let _ = line;
    }
}

/// Asks for the bytes that are about to be read: an object lies at no place that a core could guess from the one before.
#[inline(always)]
fn prefetch(start: *const u8, len: usize) {
    for offset in (0..len).step_by(64) {
        let line = start.wrapping_add(offset);
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        // SAFETY: a prefetch changes nothing that the program can see, and does not fault whatever the address.
        unsafe {
            core::arch::asm!("prefetcht0 [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
        #[cfg(all(target_arch = "aarch64", not(any(loom, miri))))]
        // SAFETY: as above.
        unsafe {
            core::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
        let _ = line;
    }
}
