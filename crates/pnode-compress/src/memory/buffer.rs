//! [`BufferFrames`]: a plain buffer as a source of frames, with nothing unsafe left to its user.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use pnode_core::sync::{AtomicU64, Ordering};
use pnode_core::{FrameError, FrameRange, FrameSource, FreeError, MigrateType, Order, PageSize, Pfn};

use super::FrameMemory;

/// One frame's bytes in a [`BufferFrames`].
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct PageBytes([u8; 4096]);

impl PageBytes {
    /// A page of zeroes.
    pub const ZEROED: Self = Self([0; 4096]);
}

impl fmt::Debug for PageBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageBytes(4 KiB)")
    }
}

/// Frames of 4 KiB in a buffer that the caller lends: for tests, examples, and programs without a private node.
///
/// Frame 0 is the first page of the buffer. One bit a frame says whether it is handed out; blocks of up to 64 frames
/// lie within one word, so that each claim is one compare-and-swap. A search reads the words from the start: meant
/// for megabytes, a node's memory wants `pnode-buddy`.
///
/// # Invariants
///
/// - **BF1** `base` points to `frames` pages that are borrowed exclusively for `'m`.
/// - **BF2** A frame's bit is set while somebody holds the frame, and only then. Bits past the last frame are set.
pub struct BufferFrames<'m> {
    base: NonNull<u8>,
    frames: u64,
    taken: &'m [AtomicU64],
    _buffer: PhantomData<&'m mut [PageBytes]>,
}

// SAFETY: by BF1 the pages are ours alone, and bytes may be sent.
unsafe impl Send for BufferFrames<'_> {}
// SAFETY: the shared operations are on atomics, and compute addresses.
unsafe impl Sync for BufferFrames<'_> {}

/// The bitmap lent to [`BufferFrames::new`] is too short for the buffer, or the buffer is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferTooLarge {
    /// The frames in the buffer.
    pub frames: usize,
    /// The words that were lent; one word serves 64 frames.
    pub words: usize,
}

impl fmt::Display for BufferTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} words do not describe {} frames: lend a page, and a word for each 64",
            self.words, self.frames
        )
    }
}

impl core::error::Error for BufferTooLarge {}

impl<'m> BufferFrames<'m> {
    /// The pages of `buffer` as free frames; `taken` needs one word for each 64 frames, whatever it holds.
    ///
    /// # Errors
    ///
    /// [`BufferTooLarge`] if `taken` is too short, or there is no page.
    pub fn new(buffer: &'m mut [PageBytes], taken: &'m mut [AtomicU64]) -> Result<Self, BufferTooLarge> {
        let (frames, words) = (buffer.len(), taken.len());
        let taken = &*taken;
        let taken = taken.get(..frames.div_ceil(64)).filter(|words| !words.is_empty());
        let taken = taken.ok_or(BufferTooLarge { frames, words })?;
        for (i, word) in taken.iter().enumerate() {
            let there = frames - i * 64;
            // INVARIANT: BF2: nothing is handed out, and frames past the end never will be.
            word.store(if there >= 64 { 0 } else { u64::MAX << there }, Ordering::Relaxed);
        }
        // INVARIANT: BF1 by the exclusive borrow.
        let base = NonNull::from(buffer).cast::<u8>();
        Ok(Self { base, frames: frames as u64, taken, _buffer: PhantomData })
    }

    /// How many frames there are.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// How many frames are handed out to nobody. A snapshot.
    pub fn free_frames(&self) -> u64 {
        self.taken.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_zeros())).sum()
    }

    /// The word and the mask of a block, if it is one of ours.
    fn locate(&self, pfn: Pfn, order: Order) -> Option<(&AtomicU64, u64)> {
        if order.get() > 6 || pfn.get() >= self.frames {
            return None;
        }
        let mask = (u64::MAX >> (64 - order.frames())) << (pfn.get() % 64);
        Some((self.taken.get((pfn.get() / 64) as usize)?, mask))
    }
}

impl FrameSource for BufferFrames<'_> {
    fn alloc(&self, order: Order, _migrate: MigrateType) -> Result<Pfn, FrameError> {
        let exhausted = FrameError::Exhausted { order };
        if order.get() > 6 {
            return Err(exhausted);
        }
        for (i, word) in self.taken.iter().enumerate() {
            let mut seen = word.load(Ordering::Relaxed);
            let mut at = 0;
            while at < 64 {
                let mask = (u64::MAX >> (64 - order.frames())) << at;
                if seen & mask != 0 {
                    at += order.frames();
                    continue;
                }
                // Acquire pairs with the Release in `free`: the last holder is done with the bytes.
                match word.compare_exchange(seen, seen | mask, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => return Ok(Pfn::new(i as u64 * 64 + at)),
                    Err(now) => (seen, at) = (now, 0),
                }
            }
        }
        Err(exhausted)
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let (word, mask) = self.locate(pfn, order).ok_or(FreeError::OutOfZone { pfn })?;
        if !pfn.is_aligned(order) {
            return Err(FreeError::Misaligned { pfn, order });
        }
        // Release pairs with the Acquire in `alloc`.
        let freed = word.fetch_update(Ordering::Release, Ordering::Relaxed, |seen| {
            (seen & mask == mask).then_some(seen & !mask)
        });
        freed.map(|_| ()).map_err(|_| FreeError::NotAllocated { pfn })
    }
}

// SAFETY: M1 and M4 by BF1, M2 because the address is linear in the frame number, M3 by BF2: `alloc` hands out frames
// whose bits it turned from clear to set in one compare-and-swap.
unsafe impl FrameMemory for BufferFrames<'_> {
    fn page_size(&self) -> PageSize {
        PageSize::KIB4
    }

    #[inline]
    fn address(&self, frames: FrameRange) -> Option<NonNull<u8>> {
        if frames.end().get() > self.frames {
            return None;
        }
        // SAFETY: the frames lie in the buffer, so by BF1 the offset does too.
        Some(unsafe { self.base.add(frames.start().get() as usize * size_of::<PageBytes>()) })
    }
}

impl fmt::Debug for BufferFrames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferFrames({} of {} free)", self.free_frames(), self.frames)
    }
}
