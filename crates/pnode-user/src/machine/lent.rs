//! Which blocks of a node callers hold.
//!
//! A frame of another registry looks like one of ours; only what is noted here may be read, written or given back by a
//! caller, so that nobody reaches the frames of a mapping or of a store. One byte a frame: a note costs a store.

use pnode_core::sync::{AtomicU8, Ordering};
use pnode_core::{Frame, FrameRange, Order};

/// The blocks of one node that callers hold.
pub(super) struct Lent {
    frames: FrameRange,
    /// By the first frame of a block: its order plus 1, or 0 if nobody holds a block that begins there.
    ///
    /// Relaxed throughout: the token of a block comes to another thread by ways that synchronize, and the zone orders one
    /// holder of a frame after the other.
    blocks: Box<[AtomicU8]>,
}

impl Lent {
    pub(super) fn new(frames: FrameRange) -> Self {
        Self { frames, blocks: (0..frames.frames()).map(|_| AtomicU8::new(0)).collect() }
    }

    /// Notes that the block is a caller's.
    pub(super) fn lend(&self, frame: &Frame) {
        if let Some(block) = self.at(frame) {
            block.store(mark(frame.order()), Ordering::Relaxed);
        }
    }

    /// Notes that the block comes back; whether it was a caller's. Of two who ask at once one is told so.
    pub(super) fn take_back(&self, frame: &Frame) -> bool {
        let mark = mark(frame.order());
        let taken = |block: &AtomicU8| block.compare_exchange(mark, 0, Ordering::Relaxed, Ordering::Relaxed);
        self.at(frame).is_some_and(|block| taken(block).is_ok())
    }

    /// Whether the block is a caller's.
    pub(super) fn has(&self, frame: &Frame) -> bool {
        self.at(frame).is_some_and(|block| block.load(Ordering::Relaxed) == mark(frame.order()))
    }

    fn at(&self, frame: &Frame) -> Option<&AtomicU8> {
        self.blocks.get(usize::try_from(frame.pfn().checked_sub(self.frames.start())?).ok()?)
    }
}

const fn mark(order: Order) -> u8 {
    order.get() + 1
}
