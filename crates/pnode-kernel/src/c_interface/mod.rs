//! The adapter as C sees it: the functions of `include/pnode.h`.
//!
//! Each function here is one function of the header without its symbol; [`export_c_interface`](crate::export_c_interface)
//! gives them their symbols for one kernel. Pointers are checked for null, numbers for sense; what a pointer points to
//! is the caller's promise, in the header's words.
#![allow(unsafe_code)]

mod calls;
mod export;
mod handles;
mod map;
mod squeeze;
mod store;

use core::ffi::c_void;
use core::ptr::NonNull;

pub use calls::{CallArguments, call_bytes, call_decode};
pub use handles::{GrantHandle, NodeHandle, Space};
pub use map::map;
pub use store::{
    StoreHandle, StoreStats, store_compact, store_create, store_destroy, store_load, store_remove,
    store_save, store_stats,
};

use pnode_core::{Features, FrameRange, MemoryClass, NodeId, Order, Pfn, Private, Reason, Request};

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mapping::Mapping;
use crate::own::Own;
use crate::selftest;

/// `struct pnode_range`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The first frame.
    pub first_pfn: u64,
    /// How many frames.
    pub frames: u64,
    /// Where they are mapped.
    pub mapping: *mut c_void,
}

/// `struct pnode_stats`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The first frame.
    pub first_pfn: u64,
    /// Frames that the node has.
    pub managed_frames: u64,
    /// Frames that are free.
    pub free_frames: u64,
    /// Frames that are handed out.
    pub used_frames: u64,
    /// Grants that are held.
    pub references: u32,
    /// Not 0 while the node is being torn down.
    pub draining: u32,
}

/// `enum pnode_class`.
const CLASSES: [MemoryClass; 4] =
    [MemoryClass::DEVICE_BUFFER, MemoryClass::ACCELERATOR, MemoryClass::FAR, MemoryClass::COMPRESSED];

/// `enum pnode_reason`.
const REASONS: [Reason; 10] = [
    Reason::Reclaim,
    Reason::Demotion,
    Reason::Promotion,
    Reason::Compaction,
    Reason::Contig,
    Reason::UserPolicy,
    Reason::UserMigrate,
    Reason::Pin,
    Reason::HotUnplug,
    Reason::Oom,
];

/// A result as kernel functions return it.
fn status(result: Result<(), Errno>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(errno) => errno.to_return(),
    }
}

fn entry<T: Copy>(table: &[T], number: u32) -> Result<T, Errno> {
    usize::try_from(number).ok().and_then(|index| table.get(index)).copied().ok_or(Errno::EINVAL)
}

fn node_id(id: u32) -> Result<NodeId, Errno> {
    u16::try_from(id).ok().and_then(|id| NodeId::new(id).ok()).ok_or(Errno::ENODEV)
}

fn block_order(order: u32) -> Result<Order, Errno> {
    u8::try_from(order).ok().and_then(|order| Order::new(order).ok()).ok_or(Errno::EINVAL)
}

/// The handle behind a pointer of a caller.
///
/// # Safety
///
/// `raw` is null or a handle that this interface gave out and that is not given up before the last use of the result.
unsafe fn handle<'a, T>(raw: *mut T) -> Result<&'a T, Errno> {
    // SAFETY: by the caller the pointer is null or a live handle, and handles are only ever shared.
    unsafe { raw.as_ref() }.ok_or(Errno::EFAULT)
}

/// Writes a result through a pointer of a caller.
///
/// # Safety
///
/// `out` is valid for a write.
unsafe fn put<T>(out: NonNull<T>, value: T) {
    // SAFETY: by the caller.
    unsafe { out.write(value) }
}

/// The mapping that a range of a caller describes.
///
/// # Safety
///
/// `range` is null or points to a range that is mapped as `struct pnode_range` says for as long as `'v`.
unsafe fn mapping<'v, K: Kernel>(range: *const Range) -> Result<Mapping<'v>, Errno> {
    // SAFETY: by the caller the pointer is null or valid for a read.
    let range = unsafe { range.as_ref() }.ok_or(Errno::EFAULT)?;
    let base = NonNull::new(range.mapping.cast::<u8>()).ok_or(Errno::EFAULT)?;
    let frames = FrameRange::new(Pfn::new(range.first_pfn), range.frames)?;
    // SAFETY: by the caller the frames are mapped there, as nobody else's memory.
    Ok(unsafe { Mapping::new(base, frames, K::PAGE) }?)
}

/// `pnode_space_create`.
///
/// # Safety
///
/// `out` is null or valid for a write.
pub unsafe fn space_create<K: Kernel>(kernel: K, nodes: u32, out: *mut *mut Space<K>) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        let space = Space::create(kernel, usize::try_from(nodes).map_err(|_| Errno::EINVAL)?)?;
        // SAFETY: by the caller.
        unsafe { put(out, space.into_raw().as_ptr()) };
        Ok(())
    })())
}

/// `pnode_space_destroy`.
///
/// # Safety
///
/// `space` is null or a space; if this succeeds, it is not used again, and no other call on it runs now.
pub unsafe fn space_destroy<K: Kernel>(kernel: K, space: *mut Space<K>) -> i32 {
    status((|| {
        // SAFETY: by the caller.
        unsafe { handle(space) }?.check_unused()?;
        let space = NonNull::new(space).ok_or(Errno::EFAULT)?;
        // SAFETY: the pointer came from `into_raw`, no handle refers to the space, and by the caller nobody uses it.
        drop(unsafe { Own::from_raw(kernel, space) });
        Ok(())
    })())
}

/// `pnode_node_register`.
///
/// # Safety
///
/// `space` is null or a live space; `range` is null or valid for a read, and what it describes stays mapped until the
/// node is given up; `out` is null or valid for a write.
pub unsafe fn node_register<K: Kernel>(
    space: *mut Space<K>,
    id: u32,
    class: u32,
    features: u32,
    range: *const Range,
    out: *mut *mut NodeHandle<K>,
) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let space = unsafe { handle(space) }?;
        let claim = Private::class(entry(&CLASSES, class)?);
        let features = Features::from_bits(u16::try_from(features).map_err(|_| Errno::EINVAL)?)?;
        // SAFETY: by the caller, until the node is given up, which is when the mapping is forgotten.
        let mapping = unsafe { mapping::<K>(range) }?;
        let node = space.register(node_id(id)?, claim, features, mapping)?;
        // SAFETY: by the caller.
        unsafe { put(out, node.into_raw().as_ptr()) };
        Ok(())
    })())
}

/// `pnode_node_unregister`.
///
/// # Safety
///
/// `node` is null or a node; if this succeeds, it is not used again, and no other call on it runs now.
pub unsafe fn node_unregister<K: Kernel>(kernel: K, node: *mut NodeHandle<K>) -> i32 {
    status((|| {
        // SAFETY: by the caller.
        unsafe { handle(node) }?.give_up()?;
        let node = NonNull::new(node).ok_or(Errno::EFAULT)?;
        // SAFETY: the pointer came from `into_raw`, and by the caller nobody uses the node.
        drop(unsafe { Own::from_raw(kernel, node) });
        Ok(())
    })())
}

/// `pnode_node_grant`.
///
/// # Safety
///
/// `node` is null or a live node; `out` is null or valid for a write.
pub unsafe fn node_grant<K: Kernel>(node: *mut NodeHandle<K>, out: *mut *mut GrantHandle<K>) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let grant = unsafe { handle(node) }?.grant()?;
        // SAFETY: by the caller.
        unsafe { put(out, grant.into_raw().as_ptr()) };
        Ok(())
    })())
}

/// `pnode_grant_ask`.
///
/// # Safety
///
/// `space` is null or a live space; `out` is null or valid for a write.
pub unsafe fn grant_ask<K: Kernel>(
    space: *mut Space<K>,
    id: u32,
    reason: u32,
    out: *mut *mut GrantHandle<K>,
) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let space = unsafe { handle(space) }?;
        let grant = space.ask(node_id(id)?, entry(&REASONS, reason)?)?;
        // SAFETY: by the caller.
        unsafe { put(out, grant.into_raw().as_ptr()) };
        Ok(())
    })())
}

/// `pnode_grant_put`.
///
/// # Safety
///
/// `grant` is null or a grant that is not used again, and no other call on it runs now.
pub unsafe fn grant_put<K: Kernel>(kernel: K, grant: *mut GrantHandle<K>) {
    if let Some(grant) = NonNull::new(grant) {
        // SAFETY: the pointer came from `into_raw`, and by the caller nobody uses the grant.
        drop(unsafe { Own::from_raw(kernel, grant) });
    }
}

/// `pnode_alloc`: a frame that the CPU keeps in line, all else in a call.
///
/// # Safety
///
/// `grant` is null or a live grant; `out` is null or valid for a write.
#[inline(always)]
pub unsafe fn alloc<K: Kernel>(grant: *mut GrantHandle<K>, order: u32, out: *mut u64) -> i32 {
    if let (0, Some(out)) = (order, NonNull::new(out)) {
        // SAFETY: by the caller.
        if let Some(pfn) = unsafe { handle(grant) }.ok().and_then(GrantHandle::alloc_cached) {
            // SAFETY: by the caller.
            unsafe { put(out, pfn.get()) };
            return 0;
        }
    }
    // SAFETY: the caller's promises are handed on.
    unsafe { alloc_shared(grant, order, out) }
}

/// # Safety
///
/// As [`alloc`].
#[inline(never)]
unsafe fn alloc_shared<K: Kernel>(grant: *mut GrantHandle<K>, order: u32, out: *mut u64) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let grant = unsafe { handle(grant) }?;
        let pfn = grant.alloc(block_order(order)?)?;
        // SAFETY: by the caller.
        unsafe { put(out, pfn.get()) };
        Ok(())
    })())
}

/// `pnode_alloc_frames`.
///
/// # Safety
///
/// `grant` is null or a live grant; `out` is null or valid for a write.
pub unsafe fn alloc_frames<K: Kernel>(grant: *mut GrantHandle<K>, order: u32, out: *mut u64) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let first = unsafe { handle(grant) }?.alloc_frames(block_order(order)?)?;
        // SAFETY: by the caller.
        unsafe { put(out, first.get()) };
        Ok(())
    })())
}

/// `pnode_free`: in line if the CPU keeps the frame.
///
/// # Safety
///
/// `grant` is null or a live grant.
#[inline(always)]
pub unsafe fn free<K: Kernel>(grant: *mut GrantHandle<K>, pfn: u64, order: u32) -> i32 {
    if order == 0 {
        // SAFETY: by the caller.
        if let Some(Ok(())) = unsafe { handle(grant) }.ok().and_then(|grant| grant.free_cached(Pfn::new(pfn)))
        {
            return 0;
        }
    }
    // SAFETY: the caller's promises are handed on.
    unsafe { free_shared(grant, pfn, order) }
}

/// # Safety
///
/// As [`free`].
#[inline(never)]
unsafe fn free_shared<K: Kernel>(grant: *mut GrantHandle<K>, pfn: u64, order: u32) -> i32 {
    status((|| {
        // SAFETY: by the caller.
        unsafe { handle(grant) }?.free(Pfn::new(pfn), block_order(order)?)
    })())
}

/// `pnode_address`.
///
/// # Safety
///
/// `grant` is null or a live grant.
pub unsafe fn address<K: Kernel>(grant: *mut GrantHandle<K>, pfn: u64) -> *mut c_void {
    // SAFETY: by the caller.
    let address = unsafe { handle(grant) }.ok().and_then(|grant| grant.address(Pfn::new(pfn)));
    address.map_or(core::ptr::null_mut(), |address| address.as_ptr().cast())
}

/// `pnode_alloc_ordinary`.
///
/// # Safety
///
/// `space` is null or a live space; `out` is null or valid for a write.
pub unsafe fn alloc_ordinary<K: Kernel>(
    space: *mut Space<K>,
    preferred: u32,
    order: u32,
    out: *mut u64,
) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let space = unsafe { handle(space) }?;
        let frame = space.nodes().alloc(Request::order(block_order(order)?).prefer(node_id(preferred)?))?;
        // SAFETY: by the caller.
        unsafe { put(out, frame.into_raw().0.get()) };
        Ok(())
    })())
}

/// `pnode_stats`.
///
/// # Safety
///
/// `node` is null or a live node; `out` is null or valid for a write.
pub unsafe fn stats<K: Kernel>(node: *mut NodeHandle<K>, out: *mut Stats) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let stats = unsafe { handle(node) }?.stats()?;
        // SAFETY: by the caller.
        unsafe { put(out, stats) };
        Ok(())
    })())
}

/// `pnode_audit`.
///
/// # Safety
///
/// `node` is null or a live node.
pub unsafe fn audit<K: Kernel>(node: *mut NodeHandle<K>) -> i32 {
    status((|| {
        // SAFETY: by the caller.
        unsafe { handle(node) }?.audit()
    })())
}

/// `pnode_selftest`.
///
/// # Safety
///
/// `range` is null or valid for a read, and what it describes is mapped and nobody else's until this returns.
pub unsafe fn selftest<K: Kernel>(kernel: K, range: *const Range) -> i32 {
    status((|| {
        // SAFETY: by the caller.
        let mapping = unsafe { mapping::<K>(range) }?;
        if selftest::run(kernel, mapping)? { Ok(()) } else { Err(Errno::EUCLEAN) }
    })())
}
