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
/// lie within one word, so that each claim is one compare-and-swap. A search begins where a frame was freed or found last,
/// and reads a word for each 64 frames: meant for megabytes, a node's memory wants `pnode-buddy`.
///
/// # Invariants
///
/// - **BF1** `base` points to `frames` pages that are borrowed exclusively for `'m`.
/// - **BF2** A frame's bit is set while somebody holds the frame, and only then. Bits past the last frame are set.
pub struct BufferFrames<'m> {
    base: NonNull<u8>,
    frames: u64,
    taken: &'m [AtomicU64],
    /// The word where a search begins. Only a guess at the first one with a free frame.
    hint: AtomicU64,
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
        Ok(Self { base, frames: frames as u64, taken, hint: AtomicU64::new(0), _buffer: PhantomData })
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
        let words = self.taken.len();
        let hint = (self.hint.load(Ordering::Relaxed) as usize).min(words);
        for i in (hint..words).chain(0..hint) {
            let word = &self.taken[i];
            let mut seen = word.load(Ordering::Relaxed);
            while let Some(at) = first_free(seen, order) {
                let mask = (u64::MAX >> (64 - order.frames())) << at;
                // Acquire pairs with the Release in `free`: the last holder is done with the bytes.
                match word.compare_exchange(seen, seen | mask, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => {
                        self.hint.store(i as u64, Ordering::Relaxed);
                        return Ok(Pfn::new(i as u64 * 64 + u64::from(at)));
                    }
                    Err(now) => seen = now,
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
        freed.map_err(|_| FreeError::NotAllocated { pfn })?;
        // Relaxed, here and in `alloc`: a wrong guess costs time only.
        if pfn.get() / 64 < self.hint.load(Ordering::Relaxed) {
            self.hint.store(pfn.get() / 64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Where the first aligned block of clear bits begins, of up to 64.
fn first_free(taken: u64, order: Order) -> Option<u32> {
    /// Bits at which a block of each order may begin.
    const ALIGNED: [u64; 7] = [
        u64::MAX,
        0x5555_5555_5555_5555,
        0x1111_1111_1111_1111,
        0x0101_0101_0101_0101,
        0x0001_0001_0001_0001,
        0x0000_0001_0000_0001,
        1,
    ];
    // After each step a bit says that so many from it on are clear.
    let clear = (0..order.get()).fold(!taken, |clear, order| clear & clear >> (1 << order));
    let starts = clear & ALIGNED.get(usize::from(order.get()))?;
    (starts != 0).then_some(starts.trailing_zeros())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_block_is_the_one_that_a_walk_finds() {
        let mut state = 1u64;
        for round in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mixed = state ^ state >> 29;
            let taken = [mixed, mixed & mixed.rotate_left(17), mixed | mixed.rotate_left(9), 0][round % 4];
            for order in (0..=6).filter_map(|order| Order::new(order).ok()) {
                let frames = order.frames();
                let mask = u64::MAX >> (64 - frames);
                let walked = (0..64u32).step_by(frames as usize).find(|at| taken >> at & mask == 0);
                assert_eq!(first_free(taken, order), walked, "{taken:#x} {order:?}");
            }
            assert_eq!(first_free(u64::MAX, Order::ZERO), None);
        }
    }
}
