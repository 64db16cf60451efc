//! Where frames become bytes: [`FrameMemory`], and two ways to have one.
//!
//! An allocator hands out frame numbers and never touches the frames. A store must: it asks its [`FrameMemory`] for the
//! address of the frames that it holds. A host that has its frames mapped in one piece (a kernel's direct mapping, an
//! `mmap`, an `ioremap`) pairs that mapping with its source of frames in [`Mapped`]; [`BufferFrames`] makes frames of a
//! plain buffer, for programs and tests that have no node.
//!
//! This module and [`crate::store`]'s pool are the only ones of the store and of compressed RAM with unsafe code.
#![allow(unsafe_code)]

mod buffer;
mod mapped;

pub use buffer::{BufferFrames, BufferTooLarge, PageBytes};
pub use mapped::Mapped;

use core::ptr::NonNull;

#[cfg(not(loom))]
use pnode_core::sync::AtomicU64;
use pnode_core::{FrameRange, FrameSource, PageSize};

/// A source of frames whose bytes can be reached.
///
/// # Safety
///
/// The implementor answers for the memory and for the source, because both together make an access sound:
///
/// - **M1** An address that [`address`](Self::address) returned is valid for reads and writes of all bytes of the
///   frames, which are initialised, for as long as the value lives; moving the value does not change it.
/// - **M2** The same frames always have the same address, and different frames have no byte in common.
/// - **M3** A frame is handed out by [`FrameSource::alloc`] to one holder at a time: not again before its holder freed
///   it. Nobody frees a frame that he does not hold.
/// - **M4** Nobody but a frame's holder touches its bytes while the frame is held.
///
/// References to a memory are therefore no memories: whoever had one could free what another holds.
pub unsafe trait FrameMemory: FrameSource {
    /// The size of a frame in bytes.
    fn page_size(&self) -> PageSize;

    /// The address of the first byte of `frames`, which lie one after the other in memory; `None` if some of them are
    /// not mapped, or not in one piece.
    fn address(&self, frames: FrameRange) -> Option<NonNull<u8>>;

    /// The cell that stands for the bytes from `offset` on in `frames` in a loom model, which cannot see plain memory.
    #[cfg(loom)]
    fn watch(&self, _frames: FrameRange, _offset: usize) -> Option<&pnode_core::sync::UnsafeCell<()>> {
        None
    }
}

/// Plain words as the shared words that metadata is kept in.
///
/// A host with raw memory for metadata (boot memory, an `mmap`) has `&mut [u64]`; the constructors here take
/// `&mut [AtomicU64]`, exclusively borrowed because soundness rests on what the words say.
#[cfg(not(loom))]
pub fn as_words(words: &mut [u64]) -> &mut [AtomicU64] {
    let pointer = core::ptr::from_mut(words) as *mut [AtomicU64];
    // SAFETY: `AtomicU64` has the size and validity of `u64`, and its alignment too, as the assertion below checks; the
    // exclusive borrow is handed on.
    unsafe { &mut *pointer }
}

#[cfg(not(loom))]
const _: () = assert!(align_of::<u64>() == align_of::<AtomicU64>());
