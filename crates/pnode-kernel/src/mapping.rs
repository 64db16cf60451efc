//! The frames of a device as bytes: [`Mapping`].
#![allow(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use pnode_compress::memory::Mapped;
use pnode_core::{FrameRange, FrameSource, PageSize, Pfn};

/// A run of frames and the address at which the kernel has mapped them, as ordinary cached memory.
///
/// Who holds a frame may read and write it; the mapping does not know who that is, and therefore copies bytes in and
/// out instead of handing out references.
///
/// # Invariants
///
/// - **V1** `base` is valid for reads and writes of every byte of `range` for as long as `'v`, and no Rust reference to
///   those bytes exists meanwhile.
/// - **V2** the bytes of `range` fit an `isize`.
#[derive(Clone, Copy)]
pub struct Mapping<'v> {
    base: NonNull<u8>,
    range: FrameRange,
    page: PageSize,
    _mapped: PhantomData<&'v ()>,
}

// SAFETY: a mapping is an address. Two threads that copy to one frame at once would race, and only the holder of a frame
// may name it; see `Mapping::write`.
unsafe impl Send for Mapping<'_> {}
// SAFETY: as above.
unsafe impl Sync for Mapping<'_> {}

impl<'v> Mapping<'v> {
    /// The frames of `range`, mapped at `base`.
    ///
    /// # Errors
    ///
    /// [`MappingError`] if the bytes of the range fit no address space.
    ///
    /// # Safety
    ///
    /// `base` is valid for reads and writes of every byte of `range` for `'v`, nobody makes references to those bytes
    /// meanwhile, and only the holder of a frame names it in [`read`](Self::read), [`write`](Self::write) and
    /// [`fill`](Self::fill) of this mapping or of a copy.
    pub unsafe fn new(base: NonNull<u8>, range: FrameRange, page: PageSize) -> Result<Self, MappingError> {
        let too_large = MappingError { range };
        let bytes = range.frames().checked_mul(page.bytes() as u64).ok_or(too_large)?;
        isize::try_from(bytes).map_err(|_| too_large)?;
        // INVARIANT: V1 by the caller, V2 by the test above.
        Ok(Self { base, range, page, _mapped: PhantomData })
    }

    /// The frames.
    pub const fn range(&self) -> FrameRange {
        self.range
    }

    /// The size of a frame.
    pub const fn page(&self) -> PageSize {
        self.page
    }

    /// Where the first frame is mapped.
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Where `pfn` is mapped, or `None` for a frame that is not in the range.
    pub fn address(&self, pfn: Pfn) -> Option<NonNull<u8>> {
        if !self.range.contains(pfn) {
            return None;
        }
        let index = usize::try_from(pfn.checked_sub(self.range.start())?).ok()?;
        // SAFETY: the frame is in the range, so by V1 the address is inside the mapping, and by V2 the offset does not
        // overflow.
        Some(unsafe { self.base.add(index << self.page.shift()) })
    }

    /// The frames of `source` with their bytes, for a store of compressed pages.
    ///
    /// # Safety
    ///
    /// The result is not used after `'v`; the source hands a frame of this mapping to one holder at a time, and nobody
    /// but the holder of a frame names it in [`read`](Self::read), [`write`](Self::write) and [`fill`](Self::fill).
    pub unsafe fn frames_of<S: FrameSource>(self, source: S) -> Mapped<S> {
        // SAFETY: by V1 the bytes are valid for `'v`, and initialised as device memory is; the rest is the caller's.
        unsafe { Mapped::new(source, self.base, self.range, self.page) }
    }

    /// Copies the first `bytes.len()` bytes of `pfn` out; `false`, with nothing read, if the frame is not in the range
    /// or is smaller than that.
    #[must_use]
    pub fn read(&self, pfn: Pfn, bytes: &mut [u8]) -> bool {
        let Some(from) = self.address(pfn).filter(|_| bytes.len() <= self.page.bytes()) else {
            return false;
        };
        // SAFETY: by V1 the frame is readable, it is at least as long as `bytes`, and no reference overlaps it.
        unsafe { from.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// Copies `bytes` to the start of `pfn`; `false`, with nothing written, if the frame is not in the range or is
    /// smaller than that.
    #[must_use]
    pub fn write(&self, pfn: Pfn, bytes: &[u8]) -> bool {
        let Some(to) = self.address(pfn).filter(|_| bytes.len() <= self.page.bytes()) else {
            return false;
        };
        // SAFETY: by V1 the frame is writable, it is at least as long as `bytes`, and no reference overlaps it.
        unsafe { to.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        true
    }

    /// Sets every byte of `pfn`; `false` if the frame is not in the range.
    #[must_use]
    pub fn fill(&self, pfn: Pfn, byte: u8) -> bool {
        let Some(to) = self.address(pfn) else {
            return false;
        };
        // SAFETY: by V1 the frame is writable.
        unsafe { to.as_ptr().write_bytes(byte, self.page.bytes()) };
        true
    }
}

impl fmt::Debug for Mapping<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mapping of {:?}", self.range)
    }
}

/// The bytes of a range fit no address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingError {
    /// The range.
    pub range: FrameRange,
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is larger than the address space; map less of it", self.range)
    }
}

impl core::error::Error for MappingError {}
