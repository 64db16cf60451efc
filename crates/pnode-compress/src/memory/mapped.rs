//! [`Mapped`]: a source of frames and the one mapping of all of them.

use core::fmt;
use core::ptr::NonNull;

use pnode_core::{FrameError, FrameRange, FrameSource, FreeError, MigrateType, Order, PageSize, Pfn};

use super::FrameMemory;

/// A source of frames, all of which are mapped one after the other from one address.
///
/// # Invariants
///
/// - **MP1** What [`Mapped::new`] was promised holds.
pub struct Mapped<S> {
    source: S,
    base: NonNull<u8>,
    frames: FrameRange,
    page: PageSize,
}

// SAFETY: by MP1 the mapping may be used from any thread that has the source.
unsafe impl<S: Send> Send for Mapped<S> {}
// SAFETY: as above; an address is only computed.
unsafe impl<S: Sync> Sync for Mapped<S> {}

impl<S: FrameSource> Mapped<S> {
    /// `source`, whose frames `frames` are mapped from `base` on.
    ///
    /// Frames of the source outside `frames` count as not mapped.
    ///
    /// # Safety
    ///
    /// `frames.frames() * page.bytes()` bytes from `base` are mapped readable and writable in every thread, and
    /// initialised, for as long as the value lives; the source hands a frame to one holder at a time; and nobody but
    /// the holder of a frame touches its bytes.
    pub unsafe fn new(source: S, base: NonNull<u8>, frames: FrameRange, page: PageSize) -> Self {
        // INVARIANT: MP1 by this function's contract.
        Self { source, base, frames, page }
    }

    /// The source of the frames.
    pub fn source(&self) -> &S {
        &self.source
    }
}

impl<S: FrameSource> FrameSource for Mapped<S> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        self.source.alloc(order, migrate)
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.source.free(pfn, order)
    }
}

// SAFETY: M1, M3 and M4 are what MP1 says; M2 because the address is linear in the frame number.
unsafe impl<S: FrameSource> FrameMemory for Mapped<S> {
    fn page_size(&self) -> PageSize {
        self.page
    }

    #[inline]
    fn address(&self, frames: FrameRange) -> Option<NonNull<u8>> {
        if !self.frames.contains_range(frames) {
            return None;
        }
        let offset = (frames.start().get() - self.frames.start().get()) << self.page.shift();
        // SAFETY: the frames lie in `self.frames`, so by MP1 the offset is inside the mapping.
        Some(unsafe { self.base.add(offset as usize) })
    }
}

impl<S> fmt::Debug for Mapped<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({:?} at {:p}, pages of {:?})", self.frames, self.base, self.page)
    }
}
