//! What a store is lent, on the heap, and a store that borrows it; and a memory that a test can damage.
#![allow(dead_code, reason = "each test uses a part of the support code")]

use core::ptr::NonNull;

use pnode_compress::memory::{BufferFrames, Mapped, PageBytes};
use pnode_compress::store::{Config, Shard, Store};
use pnode_core::sync::AtomicU64;
use pnode_core::{FrameRange, PageSize, Pfn};

/// Memory for one store.
pub(crate) struct Lent {
    pub(crate) pages: Vec<PageBytes>,
    pub(crate) taken: Vec<AtomicU64>,
    pub(crate) words: Vec<AtomicU64>,
    pub(crate) shards: Vec<Shard>,
}

pub(crate) fn words(count: usize) -> Vec<AtomicU64> {
    // Garbage: a store must not rely on what its metadata held.
    (0..count as u64).map(|i| AtomicU64::new(i.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect()
}

impl Lent {
    /// For a store of `config` over `frames` frames of 4 KiB with `shards` shards.
    pub(crate) fn new(config: Config, frames: usize, shards: usize) -> Self {
        Self {
            pages: vec![PageBytes::ZEROED; frames],
            taken: words(frames.div_ceil(64)),
            words: words(config.words().unwrap()),
            shards: (0..shards).map(|_| Shard::new()).collect(),
        }
    }

    pub(crate) fn store(&mut self, config: Config) -> Store<'_, BufferFrames<'_>> {
        let memory = BufferFrames::new(&mut self.pages, &mut self.taken).unwrap();
        Store::new(config, memory, &mut self.words, &mut self.shards).unwrap()
    }

    /// A store whose pool a test can reach behind its back, at the pointer.
    pub(crate) fn damageable(
        &mut self,
        config: Config,
    ) -> (Store<'_, Mapped<BufferFrames<'_>>>, NonNull<u8>) {
        let frames = FrameRange::new(Pfn::new(0), self.pages.len() as u64).unwrap();
        let bytes = self.pages.len() * 4096;
        let base = NonNull::from(vec![PageBytes::ZEROED; bytes / 4096].leak()).cast::<u8>();
        let source = BufferFrames::new(&mut self.pages, &mut self.taken).unwrap();
        // SAFETY: the bytes are leaked and have the frames' length; the source hands out each frame once; the tests
        // touch the bytes only while no call of the store is in flight.
        let memory = unsafe { Mapped::new(source, base, frames, PageSize::KIB4) };
        (Store::new(config, memory, &mut self.words, &mut self.shards).unwrap(), base)
    }
}

/// Flips `bits` in the pool's byte at `offset`, while no call of its store is in flight.
pub(crate) fn flip(base: NonNull<u8>, offset: usize, bits: u8) {
    let byte = base.as_ptr().wrapping_add(offset);
    // SAFETY: the offset lies in the leaked pages of `damageable`, which nobody else touches just now.
    unsafe { *byte ^= bits }
}
