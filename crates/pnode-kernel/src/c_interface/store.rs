//! `struct pnode_store`: compressed pages on a node, as C sees them.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use pnode_compress::store::{
    BlockSize, Checksums, Config, LoadError, RemoveError, Shard, Slot, Store, StoreError,
};
use pnode_core::sync::AtomicU64;

use super::handles::{Held, Memory, NodeHandle, forever_mut};
use super::squeeze::Squeeze;
use super::{entry, handle, put, status};
use crate::desks::Desks;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::own::Own;

/// `enum pnode_checksums`.
const CHECKSUMS: [Checksums; 2] = [Checksums::Off, Checksums::On];

/// More shards than this keep no worker out of another's way.
const MOST_SHARDS: usize = 64;

/// `struct pnode_store_stats`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Pages that are stored.
    pub pages: u64,
    /// Of these, pages that repeat a word and take no frame.
    pub same_pages: u64,
    /// The bytes of all pages before they were compressed.
    pub original_bytes: u64,
    /// The bytes of all objects.
    pub compressed_bytes: u64,
    /// Pages that were compressed again, with a denser codec, since the store was made.
    pub recompressed_pages: u64,
    /// The bytes of all frames that the store has of the node.
    pub pool_bytes: u64,
    /// The bytes of the kernel's memory that the store takes, without the desks of the CPUs.
    pub metadata_bytes: u64,
}

/// `struct pnode_store`: a store on a grant of its own, with the memory that it stands on.
///
/// # Invariants
///
/// - **C3** `words` and `shards` stay where they are, and are dropped after `store`, which alone uses them.
pub struct StoreHandle<K: Kernel> {
    pub(super) store: ManuallyDrop<Store<'static, Memory<K>, K::Lock>>,
    pub(super) desks: Desks<K>,
    pub(super) squeeze: Squeeze,
    _shards: Own<[Shard<K::Lock>], K>,
    _words: Own<[AtomicU64], K>,
    _held: Held<K>,
}

impl<K: Kernel> StoreHandle<K> {
    fn create(
        kernel: K,
        node: &NodeHandle<K>,
        pages: u32,
        frames: u64,
        checksums: u32,
    ) -> Result<Own<Self, K>, Errno> {
        let checksums = entry(&CHECKSUMS, checksums)?;
        let block = BlockSize::KIB16;
        let blocks = frames.saturating_mul(K::PAGE.bytes() as u64) / block.bytes() as u64;
        let blocks = u32::try_from(blocks).map_err(|_| Errno::EINVAL)?;
        let config = Config::new(pages, blocks).page(K::PAGE).block(block).checksums(checksums);
        let room = Own::room(kernel)?;
        let mut words = Own::slice(kernel, config.words()?, |_| AtomicU64::new(0))?;
        let desks = Desks::new(kernel)?;
        let shards = desks.count().min(MOST_SHARDS).min(blocks as usize);
        let mut shards = Own::slice(kernel, shards, |_| Shard::new())?;
        let (memory, held) = node.memory()?;
        // SAFETY: by C3 they stay where they are until the store is gone, and nobody else uses them.
        let lent_words = unsafe { forever_mut(&mut *words) };
        // SAFETY: as above.
        let lent_shards = unsafe { forever_mut(&mut *shards) };
        let store = ManuallyDrop::new(Store::new(config, memory, lent_words, lent_shards)?);
        let squeeze = Squeeze::new(pages);
        // INVARIANT: C3 by the order of the fields and by `drop`.
        Ok(room.fill(Self { store, desks, squeeze, _shards: shards, _words: words, _held: held }))
    }

    fn save(&self, slot: u32, page: &[u8]) -> Result<(), Errno> {
        loop {
            match self.try_save(slot, page) {
                Err(StoreError::Full { .. }) if self.make_room() => {}
                saved => break saved?,
            }
        }
        self.keep_dense();
        Ok(())
    }

    fn try_save(&self, slot: u32, page: &[u8]) -> Result<(), StoreError> {
        self.desks.with(|desk| {
            match self.store.worker(desk.number % self.shards(), desk.scratch, desk.buffer) {
                Ok(mut worker) => worker.store(Slot::new(slot), page).map(drop),
                // A desk is large enough, and the shard is there.
                Err(_) => Err(StoreError::Full { bytes: page.len() }),
            }
        })
    }

    fn load(&self, slot: u32, page: &mut [u8]) -> Result<(), Errno> {
        self.desks.with(|desk| {
            let worker = self.store.worker(desk.number % self.shards(), desk.scratch, desk.buffer);
            Ok(worker.map_err(|_| Errno::EINVAL)?.load(Slot::new(slot), page)?)
        })
    }

    pub(super) fn shards(&self) -> usize {
        self._shards.len()
    }

    fn stats(&self) -> StoreStats {
        let stats = self.store.stats();
        StoreStats {
            pages: stats.pages,
            same_pages: stats.inline_pages,
            original_bytes: stats.original_bytes,
            compressed_bytes: stats.compressed_bytes,
            recompressed_pages: self.squeeze.recompressed(),
            pool_bytes: stats.pool_bytes,
            metadata_bytes: stats.metadata_bytes,
        }
    }
}

impl<K: Kernel> Drop for StoreHandle<K> {
    fn drop(&mut self) {
        // SAFETY: the store is not used again.
        let store = unsafe { ManuallyDrop::take(&mut self.store) };
        drop(store.dismantle());
    }
}

impl From<StoreError> for Errno {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::ENOSPC,
            StoreError::Busy { .. } => Self::EBUSY,
            _ => Self::EINVAL,
        }
    }
}

impl From<LoadError> for Errno {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NotStored { .. } => Self::ENODATA,
            LoadError::Busy { .. } => Self::EBUSY,
            LoadError::Damaged { .. } => Self::EUCLEAN,
            _ => Self::EINVAL,
        }
    }
}

impl From<RemoveError> for Errno {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::NotStored { .. } => Self::ENODATA,
            _ => Self::EINVAL,
        }
    }
}

/// `pnode_store_create`.
///
/// # Safety
///
/// `node` is null or a live node; `out` is null or valid for a write.
pub unsafe fn store_create<K: Kernel>(
    kernel: K,
    node: *mut NodeHandle<K>,
    pages: u32,
    frames: u64,
    checksums: u32,
    out: *mut *mut StoreHandle<K>,
) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let store = StoreHandle::create(kernel, unsafe { handle(node) }?, pages, frames, checksums)?;
        // SAFETY: by the caller.
        unsafe { put(out, store.into_raw().as_ptr()) };
        Ok(())
    })())
}

/// `pnode_store_destroy`.
///
/// # Safety
///
/// `store` is null or a store that is not used again, and no other call on it runs now.
pub unsafe fn store_destroy<K: Kernel>(kernel: K, store: *mut StoreHandle<K>) {
    if let Some(store) = NonNull::new(store) {
        // SAFETY: the pointer came from `into_raw`, and by the caller nobody uses the store.
        drop(unsafe { Own::from_raw(kernel, store) });
    }
}

/// `pnode_store_save`.
///
/// # Safety
///
/// `store` is null or a live store; `page` is null or a page of the kernel's size that does not change meanwhile.
pub unsafe fn store_save<K: Kernel>(store: *mut StoreHandle<K>, slot: u32, page: *const u8) -> i32 {
    status((|| {
        let page = NonNull::new(page.cast_mut()).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller the page is readable and nobody writes to it.
        let page = unsafe { core::slice::from_raw_parts(page.as_ptr(), K::PAGE.bytes()) };
        // SAFETY: by the caller.
        unsafe { handle(store) }?.save(slot, page)
    })())
}

/// `pnode_store_load`.
///
/// # Safety
///
/// `store` is null or a live store; `page` is null or a page of the kernel's size that nobody else uses meanwhile.
pub unsafe fn store_load<K: Kernel>(store: *mut StoreHandle<K>, slot: u32, page: *mut u8) -> i32 {
    status((|| {
        let page = NonNull::new(page).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller the page is ours; memory of the kernel is initialised.
        let page = unsafe { core::slice::from_raw_parts_mut(page.as_ptr(), K::PAGE.bytes()) };
        // SAFETY: by the caller.
        unsafe { handle(store) }?.load(slot, page)
    })())
}

/// `pnode_store_remove`.
///
/// # Safety
///
/// `store` is null or a live store.
pub unsafe fn store_remove<K: Kernel>(store: *mut StoreHandle<K>, slot: u32) -> i32 {
    status((|| {
        // SAFETY: by the caller.
        Ok(unsafe { handle(store) }?.store.remove(Slot::new(slot))?)
    })())
}

/// `pnode_store_compact`.
///
/// # Safety
///
/// `store` is null or a live store; `freed` is null or valid for a write.
pub unsafe fn store_compact<K: Kernel>(store: *mut StoreHandle<K>, bytes: u64, freed: *mut u64) -> i32 {
    status((|| {
        let freed = NonNull::new(freed).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let (frames, _) = unsafe { handle(store) }?.compact(usize::try_from(bytes).unwrap_or(usize::MAX));
        // SAFETY: by the caller.
        unsafe { put(freed, frames) };
        Ok(())
    })())
}

/// `pnode_store_stats`.
///
/// # Safety
///
/// `store` is null or a live store; `out` is null or valid for a write.
pub unsafe fn store_stats<K: Kernel>(store: *mut StoreHandle<K>, out: *mut StoreStats) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let stats = unsafe { handle(store) }?.stats();
        // SAFETY: by the caller.
        unsafe { put(out, stats) };
        Ok(())
    })())
}
