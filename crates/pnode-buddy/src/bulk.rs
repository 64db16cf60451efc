//! Many single frames at once: one compare-and-swap a word instead of one a frame.

use core::fmt;

use pnode_core::sync::Ordering::{Acquire, Relaxed, Release};
use pnode_core::sync::fence_after_rmw;
use pnode_core::{FrameError, FreeError, MigrateType, Order, Pfn};

use crate::count::CACHED;
use crate::cpu::Cpu;
use crate::node::{self, CHILDREN};
use crate::word;
use crate::zone::Zone;

/// Why a slice was not filled to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkAllocError {
    /// So many entries from the start are frames that are now the caller's; the others are as they were.
    pub filled: usize,
    /// Why there is no further one.
    pub cause: FrameError,
}

/// Why not all frames of a slice were freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkFreeError {
    /// So many entries from the start were freed; the next one was refused, and none after it was tried.
    pub freed: usize,
    /// Why the next one was refused.
    pub cause: FreeError,
}

impl fmt::Display for BulkAllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames were handed out, then: {}", self.filled, self.cause)
    }
}

impl fmt::Display for BulkFreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames were freed, then: {}", self.freed, self.cause)
    }
}

impl core::error::Error for BulkAllocError {}
impl core::error::Error for BulkFreeError {}

impl Zone<'_> {
    /// Fills `frames` with single frames, as many calls of [`Zone::alloc`] would, at about one read-modify-write for every
    /// 32 of them where words are whole.
    ///
    /// # Errors
    ///
    /// [`BulkAllocError`]: what was filled before stays the caller's.
    pub fn alloc_bulk(&self, frames: &mut [Pfn], migrate: MigrateType) -> Result<(), BulkAllocError> {
        self.fill(frames, migrate, |class, taken| self.counts().take(class, taken))
    }

    /// Frees single frames, whoever allocated them, as many calls of [`Zone::free`] would; neighbours in the slice that
    /// are neighbours in a word go with one read-modify-write.
    ///
    /// # Errors
    ///
    /// [`BulkFreeError`] at the first frame that cannot be freed.
    pub fn free_bulk(&self, frames: &[Pfn]) -> Result<(), BulkFreeError> {
        self.release_all(frames, |class, freed| self.counts().give(class, freed))
    }

    /// [`Zone::alloc_bulk`] with the accounting left to the caller.
    fn fill(
        &self,
        frames: &mut [Pfn],
        migrate: MigrateType,
        mut count: impl FnMut(u8, u64),
    ) -> Result<(), BulkAllocError> {
        let mut filled = 0;
        while filled < frames.len() {
            let first = self.search(Order::ZERO, migrate as u8);
            let first = first.and_then(|found| self.admit(found.0, Order::ZERO).map(|()| found));
            let (pfn, class) = match first {
                Ok(found) => found,
                // It was in a range that is being isolated, or blocks are in motion: the single call waits for these.
                Err(FrameError::Contended { .. }) => match self.alloc(Order::ZERO, migrate) {
                    Ok(pfn) => {
                        frames[filled] = pfn;
                        filled += 1;
                        continue;
                    }
                    Err(cause) => return Err(BulkAllocError { filled, cause }),
                },
                Err(cause) => return Err(BulkAllocError { filled, cause }),
            };
            frames[filled] = pfn;
            filled += 1;
            let mut more = self.take_more(pfn, frames.len() - filled);
            count(class, 1 + u64::from(more.count_ones()));
            let start = pfn.get() & !u64::from(word::FRAMES - 1);
            while more != 0 {
                frames[filled] = Pfn::new(start + u64::from(more.trailing_zeros()));
                filled += 1;
                more &= more - 1;
            }
        }
        Ok(())
    }

    /// Takes up to `most` further frames of the word of a frame that is ours, as a mask over the word.
    fn take_more(&self, ours: Pfn, most: usize) -> u32 {
        let at = self.word(self.word_index(ours.get()));
        let mut value = at.load(Relaxed);
        loop {
            let mut taken = word::free(value);
            // The lowest `most` of them.
            let mut surplus = (taken.count_ones() as usize).saturating_sub(most);
            while surplus != 0 {
                taken &= !(1 << (31 - taken.leading_zeros()));
                surplus -= 1;
            }
            if taken == 0 {
                return 0;
            }
            // Acquire pairs with the Release of the frees that gave the frames back.
            match at.compare_exchange_weak(value, value | u64::from(taken), Acquire, Relaxed) {
                Ok(_) => {
                    // As in `admit`. The first frame was admitted; if the zone or its range was isolated since, these
                    // are not.
                    if !self.is_closed() {
                        return taken;
                    }
                    let start = ours.get() & !u64::from(word::FRAMES - 1);
                    let refused =
                        |offset: &u32| self.admit(Pfn::new(start + u64::from(*offset)), Order::ZERO).is_err();
                    let frames = (0..word::FRAMES).filter(|offset| taken >> offset & 1 == 1);
                    return frames.filter(refused).fold(taken, |kept, offset| kept & !(1 << offset));
                }
                Err(now) => value = now,
            }
        }
    }

    /// [`Zone::free_bulk`] with the accounting left to the caller.
    fn release_all(&self, frames: &[Pfn], mut count: impl FnMut(u8, u64)) -> Result<(), BulkFreeError> {
        let mut freed = 0;
        while freed < frames.len() {
            let (group, mask) = same_word(&frames[freed..]);
            let together = if group > 1 { self.release_singles(frames[freed], mask) } else { None };
            let Some(class) = together else {
                // One by one: alone, of a word that a CPU owns, or one of them cannot be freed.
                for &pfn in &frames[freed..freed + group] {
                    match self.release(pfn, Order::ZERO) {
                        Ok(CACHED) => {}
                        Ok(class) => count(class, 1),
                        Err(cause) => return Err(BulkFreeError { freed, cause }),
                    }
                    freed += 1;
                }
                continue;
            };
            count(class, group as u64);
            freed += group;
        }
        Ok(())
    }

    /// Frees the single frames of `mask` in the word of `pfn`, if all of them are allocated as such: whose count they
    /// enter.
    fn release_singles(&self, pfn: Pfn, mask: u32) -> Option<u8> {
        let start = Pfn::new(pfn.get() & !u64::from(word::FRAMES - 1));
        let inside = |offset: u32| self.covers(Pfn::new(start.get() + u64::from(offset)), Order::ZERO);
        if !inside(mask.trailing_zeros()) || !inside(31 - mask.leading_zeros()) {
            return None;
        }
        let index = self.word_index(start.get());
        let (area, child) = (index / CHILDREN as usize, index as u32 % CHILDREN);
        let at = self.word(index);
        let (class, new) = loop {
            // Acquire: if a CPU owned the word before, we see its area marked.
            let value = at.load(Acquire);
            // As in `free_in_word`: the area of an allocated block keeps its class.
            let books = self.node(1, area).load(Relaxed);
            let mut offsets = (0..word::FRAMES).filter(|offset| mask >> offset & 1 == 1);
            // If a CPU owns words of the area, frames may lie in the inbox.
            if books & node::OWNER != 0 || !offsets.all(|offset| word::holds(value, offset, 0)) {
                return None;
            }
            let new = value & !u64::from(mask);
            // Release pairs with the Acquire in `alloc_in_word`: the next owner sees all that this one did.
            if at.compare_exchange(value, new, Release, Relaxed).is_ok() {
                break (node::class(books), new);
            }
        };
        // Pairs with the fence in `settle`, as in a free.
        fence_after_rmw();
        self.raise(1, area, child, word::serves(new), word::largest(new));
        Some(class)
    }
}

/// How many of the first frames lie in one word, each once, and which they are in it.
fn same_word(frames: &[Pfn]) -> (usize, u32) {
    let start = |pfn: &Pfn| pfn.get() & !u64::from(word::FRAMES - 1);
    let mut mask = 0u32;
    let mut count = 0;
    for pfn in frames {
        let bit = 1 << (pfn.get() & u64::from(word::FRAMES - 1));
        if start(pfn) != start(&frames[0]) || mask & bit != 0 {
            break;
        }
        mask |= bit;
        count += 1;
    }
    (count, mask)
}

impl Cpu<'_, '_> {
    /// Fills `frames` with single frames: first what this CPU keeps, then whole words of the zone.
    ///
    /// # Errors
    ///
    /// As [`Zone::alloc_bulk`].
    pub fn alloc_bulk(&mut self, frames: &mut [Pfn], migrate: MigrateType) -> Result<(), BulkAllocError> {
        let mut kept = 0;
        while kept < frames.len() {
            let Some(pfn) = self.alloc_cached(migrate) else { break };
            frames[kept] = pfn;
            kept += 1;
        }
        let zone = self.zone();
        let filled =
            zone.fill(&mut frames[kept..], migrate, |class, taken| self.count(class, -(taken as i64)));
        let Err(BulkAllocError { filled, cause }) = filled else { return Ok(()) };
        // Something may be left on the shelf, or in the words of other types.
        let mut filled = kept + filled;
        let mut cause = cause;
        while let (true, FrameError::Exhausted { .. }) = (filled < frames.len(), cause) {
            match self.alloc(Order::ZERO, migrate) {
                Ok(pfn) => {
                    frames[filled] = pfn;
                    filled += 1;
                }
                Err(error) => {
                    cause = error;
                    break;
                }
            }
        }
        if filled == frames.len() { Ok(()) } else { Err(BulkAllocError { filled, cause }) }
    }

    /// Frees single frames: those of this CPU's words into them, the others into the zone.
    ///
    /// # Errors
    ///
    /// As [`Zone::free_bulk`].
    pub fn free_bulk(&mut self, frames: &[Pfn]) -> Result<(), BulkFreeError> {
        let zone = self.zone();
        let mut freed = 0;
        while freed < frames.len() {
            match self.free_cached(frames[freed]) {
                Some(Ok(())) => freed += 1,
                Some(Err(cause)) => return Err(BulkFreeError { freed, cause }),
                None => {
                    let (group, _) = same_word(&frames[freed..]);
                    let group = &frames[freed..freed + group];
                    zone.release_all(group, |class, frames| self.count(class, frames as i64))
                        .map_err(|error| BulkFreeError { freed: freed + error.freed, cause: error.cause })?;
                    freed += group.len();
                }
            }
        }
        Ok(())
    }
}
