//! The memory of a node: a file in memory, or what stands for one ([`Memory`]); one page of it a frame.
//!
//! The file is mapped twice. The *direct map* made here shows every frame in order, for the harness itself: to zero
//! a frame, to copy a page, to keep compressed blocks. The other mappings are single frames at the addresses of
//! programs, made by [`crate::fault::View`].
#![allow(unsafe_code)]

mod memory;

use core::fmt;
use core::ptr::NonNull;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use pnode_compress::memory::Mapped;
use pnode_core::sync::{AtomicU64, Ordering};
use pnode_core::{FrameError, FrameRange, FrameSource, FreeError, MigrateType, Order, PageSize, Pfn};

use crate::fault::copy;
use crate::sys::{self, Reservation, SysError};

use memory::Made;
pub use memory::{Memory, MemoryError};

/// The memory of one node.
///
/// Frames are numbered from 0 here; a [`pnode_core::Pfn`] of the node minus its base is such a number. All accesses
/// go through byte copies that tolerate a program writing at the same time, as a DMA engine would: the bytes are
/// then a mixture, and nothing else goes wrong.
///
/// # Invariants
///
/// - **K1** `direct` maps `file` from its start: at least `frames` pages of `page` bytes, for reading and writing, until the drop.
pub struct Backing {
    file: File,
    direct: Reservation,
    frames: u64,
    page: PageSize,
    /// One bit a frame: whether it was used since its memory was last forgotten. A hint, for what is cheap: a frame that
    /// is unused by this may have bytes.
    used: Box<[AtomicU64]>,
    is_fresh: bool,
    shows_frames: bool,
    is_in_memory: bool,
}

impl Backing {
    /// Memory of `frames` frames, all zero. The kernel takes real memory only as frames are touched.
    ///
    /// # Errors
    ///
    /// [`SysError`] if the process may have no further file descriptor, or too little address space is left.
    pub fn new(frames: u64, page: PageSize) -> Result<Self, SysError> {
        Self::made_of(&Memory::File, frames, page).map_err(|error| match error {
            MemoryError::Kernel(error) => error,
            // The others are of other kinds of memory.
            _ => SysError { call: "mmap", errno: 22 },
        })
    }

    /// `frames` frames of `memory`. All zero, but for a device, which has the bytes that it had.
    ///
    /// # Errors
    ///
    /// [`MemoryError`].
    pub fn made_of(memory: &Memory, frames: u64, page: PageSize) -> Result<Self, MemoryError> {
        let too_large = SysError { call: "mmap", errno: 12 };
        let bytes = frames.checked_mul(page.bytes() as u64).ok_or(too_large)?;
        let length = usize::try_from(bytes).map_err(|_| too_large)?;
        let Made { file, direct, is_fresh, shows_frames, is_in_memory } = memory.make(length)?;
        let used = (0..frames.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        // INVARIANT: K1 by the line that made it.
        Ok(Self { file: file.into(), direct, frames, page, used, is_fresh, shows_frames, is_in_memory })
    }

    /// Whether single frames of it can be mapped. Of huge pages from the kernel's pool they cannot, nor of a device whose
    /// mappings are aligned to more than a frame.
    pub const fn shows_frames(&self) -> bool {
        self.shows_frames
    }

    /// Whether a run of its frames can be shown page by page under userfaultfd.
    pub(crate) const fn can_be_laid(&self) -> bool {
        self.is_in_memory
    }

    /// How many frames there are.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// The size of a frame.
    pub const fn page(&self) -> PageSize {
        self.page
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether `file` is the descriptor of this memory's file.
    pub(crate) fn is_file(&self, file: i32) -> bool {
        self.file.as_raw_fd() == file
    }

    /// The first byte of the direct map: [`Backing::frames`] pages, one after the other.
    ///
    /// Whoever writes through it owns the frames it writes to (has allocated them).
    pub fn direct_map(&self) -> NonNull<u8> {
        // By K1 the reservation is a mapping, and no mapping starts at address 0.
        NonNull::new(self.direct.start() as *mut u8).unwrap_or(NonNull::dangling())
    }

    fn frame(&self, frame: u64) -> Option<*mut u8> {
        // In range by the test, so the product is below the length of the direct map.
        (frame < self.frames).then(|| (self.direct.start() + (frame as usize * self.page.bytes())) as *mut u8)
    }

    /// Notes that frames are used from now on.
    pub(crate) fn use_frames(&self, frame: u64, count: usize) {
        for (word, bits) in words(frame, count) {
            // Relaxed here and below: a hint that orders nothing.
            if self.used[word].load(Ordering::Relaxed) & bits != bits {
                self.used[word].fetch_or(bits, Ordering::Relaxed);
            }
        }
    }

    /// Whether nobody is known to have used one of these frames.
    pub(crate) fn are_unused(&self, frame: u64, count: usize) -> bool {
        self.is_fresh
            && words(frame, count).all(|(word, bits)| self.used[word].load(Ordering::Relaxed) & bits == 0)
    }

    /// Fills frames that exist with zeroes, by the way that is cheap if they were unused, or if they were not.
    pub(crate) fn zero_all(&self, frame: u64, count: usize, unused: bool) -> Result<(), SysError> {
        static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
        let bytes = self.page.bytes();
        if !unused || count == 1 {
            (frame..frame + count as u64).all(|frame| self.zero(frame));
            return Ok(());
        }
        // The kernel takes memory for a file that is written to in larger steps than for one that faults.
        let (start, mut left) = (frame * bytes as u64, count * bytes);
        while left > 0 {
            let part = left.min(ZEROES.len());
            let offset = start + (count * bytes - left) as u64;
            self.file
                .write_all_at(&ZEROES[..part], offset)
                .map_err(|error| SysError { call: "pwrite", errno: error.raw_os_error().unwrap_or(0) })?;
            left -= part;
        }
        Ok(())
    }

    /// Copies the bytes of frame `frame` from `offset` on to `bytes`. Says whether frame and offsets exist.
    #[must_use]
    pub fn read(&self, frame: u64, offset: usize, bytes: &mut [u8]) -> bool {
        let Some(start) = self.part(frame, offset, bytes.len()) else { return false };
        // SAFETY: by K1 the source is mapped for as long as we borrow `self`; `bytes` is ours and not part of it.
        let left = unsafe { copy::bytes(bytes.as_mut_ptr(), start, bytes.len()) };
        left == 0
    }

    /// Copies `bytes` to frame `frame` from `offset` on. Says whether frame and offsets exist.
    #[must_use]
    pub fn write(&self, frame: u64, offset: usize, bytes: &[u8]) -> bool {
        let Some(start) = self.part(frame, offset, bytes.len()) else { return false };
        // SAFETY: by K1 the destination is mapped for writing, and Rust holds no reference into the direct map.
        let left = unsafe { copy::bytes(start, bytes.as_ptr(), bytes.len()) };
        left == 0
    }

    /// Fills frame `frame` with zeroes. Says whether the frame exists.
    #[must_use]
    pub fn zero(&self, frame: u64) -> bool {
        let Some(start) = self.frame(frame) else { return false };
        // SAFETY: by K1 the page is mapped for writing, and Rust holds no reference into the direct map.
        unsafe { start.write_bytes(0, self.page.bytes()) };
        true
    }

    /// Copies a whole frame of `source` to frame `frame` of this one. Says whether both exist and are of one size.
    #[must_use]
    pub fn copy_frame(&self, frame: u64, source: &Self, source_frame: u64) -> bool {
        let (Some(to), Some(from)) = (self.frame(frame), source.frame(source_frame)) else { return false };
        if self.page != source.page {
            return false;
        }
        // SAFETY: by K1 both pages are mapped; two different pages do not overlap, and copying one onto itself
        // byte by byte changes nothing.
        let left = unsafe { copy::bytes(to, from, self.page.bytes()) };
        left == 0
    }

    /// Gives the real memory back to the kernel: every frame is zero again.
    ///
    pub(crate) fn forget(&self) {
        if !sys::forget(self.file.as_fd(), self.direct.bytes()) {
            // A device keeps its memory.
            (0..self.frames).for_each(|frame| {
                let _ = self.zero(frame);
            });
        }
        self.used.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    fn part(&self, frame: u64, offset: usize, bytes: usize) -> Option<*mut u8> {
        let start = self.frame(frame)?;
        let end = offset.checked_add(bytes)?;
        (end <= self.page.bytes()).then(|| start.wrapping_add(offset))
    }
}

/// The bits of `count` frames from `frame` on, by the word that they are in.
fn words(frame: u64, count: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = frame + count as u64;
    (frame / 64..end.div_ceil(64)).map(move |word| {
        let (first, last) = (frame.max(word * 64) - word * 64, end.min(word * 64 + 64) - word * 64);
        (word as usize, u64::MAX >> (64 - (last - first)) << first)
    })
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backing({} frames of {:?})", self.frames, self.page)
    }
}

/// A source of frames of a [`Backing`], which it keeps mapped.
pub struct OnBacking<S> {
    source: S,
    _backing: Arc<Backing>,
}

impl<S: FrameSource> OnBacking<S> {
    /// `source`, whose frames `frames` are those of `backing`, with their bytes.
    ///
    /// The source is a grant, a zone or a registry: it hands a frame to one holder at a time. Inside this crate only
    /// the holder of a frame touches its bytes; who is outside reaches those frames of a machine's backing alone that
    /// were lent to him.
    pub(crate) fn mapped(source: S, backing: &Arc<Backing>, frames: FrameRange) -> Mapped<Self> {
        assert!(frames.frames() <= backing.frames(), "the frames are those of the backing");
        let base = backing.direct_map();
        let page = backing.page();
        let held = Self { source, _backing: Arc::clone(backing) };
        // SAFETY: by K1 the frames are mapped from `base` on for as long as the backing lives, which `held` keeps; the
        // kernel fills them with zeroes; one holder at a time and nobody else at its bytes as said above.
        unsafe { Mapped::new(held, base, frames, page) }
    }
}

impl<S: FrameSource> FrameSource for OnBacking<S> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        self.source.alloc(order, migrate)
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.source.free(pfn, order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_apart_and_bounds_are_kept() {
        let memory = Backing::new(3, PageSize::KIB4).unwrap();
        let mut page = [0u8; 4096];
        for frame in 0..3 {
            assert!(memory.write(frame, 0, &[frame as u8 + 1; 4096]));
        }
        assert!(memory.zero(1));
        assert!(memory.copy_frame(2, &memory, 0));
        for (frame, byte) in [(0, 1), (1, 0), (2, 1)] {
            assert!(memory.read(frame, 0, &mut page));
            assert_eq!(page, [byte; 4096], "frame {frame}");
        }
        assert!(!memory.zero(3) && !memory.copy_frame(0, &memory, 3));
        assert!(!memory.write(0, 4095, &[1, 2]) && !memory.read(0, usize::MAX, &mut page));
        assert!(memory.read(0, 4095, &mut page[..1]) && page[0] == 1);
    }

    #[test]
    fn more_memory_than_addresses_is_an_error() {
        assert!(Backing::new(u64::MAX / 4096, PageSize::KIB4).is_err());
        assert!(Backing::new(u64::MAX, PageSize::KIB4).is_err());
    }
}
