//! What the adapter asks of the kernel around it: [`Kernel`].

#![allow(unsafe_code)]

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use pnode_core::PageSize;
use pnode_core::sync::RawLock;

/// How a line of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is wrong, and a person should look.
    Error,
    /// For the curious.
    Info,
    /// A line of the self-test's report, in KTAP.
    Report,
}

/// The kernel around the adapter: memory for metadata, locks and a log.
///
/// `module/` implements it for Linux, the host tests for a fake that can fail each allocation.
///
/// # Safety
///
/// - **K1** memory from `alloc` fits its layout and belongs to the caller alone until it is given to `free`.
pub unsafe trait Kernel: Copy + Send + Sync + 'static {
    /// The size of the kernel's pages.
    const PAGE: PageSize;

    /// The kernel's lock. Sections under it never sleep and never allocate.
    type Lock: RawLock;

    /// Memory for `layout`, whose size is not 0, with any contents. May sleep; never called with a lock held.
    fn alloc(self, layout: Layout) -> Option<NonNull<u8>>;

    /// Takes memory back. May sleep; never called with a lock held.
    ///
    /// # Safety
    ///
    /// `memory` came from [`alloc`](Self::alloc) of this kernel with the same `layout`, and is not used again.
    unsafe fn free(self, memory: NonNull<u8>, layout: Layout);

    /// Writes a line to the log.
    fn log(self, level: Level, text: fmt::Arguments<'_>);

    /// How many numbers [`Kernel::cpu`] can return.
    fn cpus(self) -> usize;

    /// The number of the CPU that this runs on, which may be another one by the time that the caller looks.
    fn cpu(self) -> usize;

    /// Lets others run; called now and then in long loops, never with a lock held.
    fn relax(self);
}

/// The kernel had no memory for metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory {
    /// How many bytes were asked for.
    pub bytes: usize,
}

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel has no {} bytes for metadata; try again when memory is free", self.bytes)
    }
}

impl core::error::Error for NoMemory {}
