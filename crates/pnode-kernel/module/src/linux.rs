//! The Linux kernel as `pnode-kernel` sees it, over the functions of `kbuild/pnode_host.c`.

use core::alloc::Layout;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;

use pnode_core::PageSize;
use pnode_core::sync::RawLock;
use pnode_kernel::{Kernel, Level};

use crate::line::Line;

mod host {
    use core::ffi::c_void;

    unsafe extern "C" {
        pub(super) fn pnode_host_alloc(bytes: usize, align: usize) -> *mut u8;
        pub(super) fn pnode_host_free(memory: *mut u8);
        pub(super) safe fn pnode_host_relax();
        pub(super) safe fn pnode_host_cpus() -> u32;
        pub(super) fn pnode_host_log(level: u32, text: *const u8, bytes: usize);
        pub(super) fn pnode_host_bug(text: *const u8, bytes: usize) -> !;
        pub(super) fn pnode_host_lock(lock: *mut c_void);
        pub(super) fn pnode_host_try_lock(lock: *mut c_void) -> bool;
        pub(super) fn pnode_host_unlock(lock: *mut c_void);
    }
}

/// The kernel that this module is loaded in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Linux;

// SAFETY: `kvmalloc` memory is at least `bytes` long, aligned as `pnode_host_alloc` documents, and nobody else's until
// `kvfree`: that is K1.
unsafe impl Kernel for Linux {
    const PAGE: PageSize = PageSize::KIB4;

    type Lock = KernelLock;

    fn alloc(self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the function accepts any size and alignment, and we may sleep by the trait.
        NonNull::new(unsafe { host::pnode_host_alloc(layout.size(), layout.align()) })
    }

    unsafe fn free(self, memory: NonNull<u8>, _layout: Layout) {
        // SAFETY: the memory came from `pnode_host_alloc` by the caller.
        unsafe { host::pnode_host_free(memory.as_ptr()) }
    }

    fn log(self, level: Level, text: fmt::Arguments<'_>) {
        let line = Line::of(text);
        // As `enum pnode_host_level`.
        let level = match level {
            Level::Error => 0,
            Level::Info => 1,
            Level::Report => 2,
        };
        // SAFETY: the pointer and the length are those of one slice.
        unsafe { host::pnode_host_log(level, line.as_bytes().as_ptr(), line.as_bytes().len()) }
    }

    fn cpus(self) -> usize {
        host::pnode_host_cpus() as usize
    }

    #[inline]
    fn cpu(self) -> usize {
        let cpu: u32;
        // SAFETY: `pnode_host_cpu` is a variable of each CPU, which this reads as `this_cpu_read` does.
        unsafe {
            asm!("mov {cpu:e}, gs:[rip + pnode_host_cpu]", cpu = out(reg) cpu,
                options(pure, readonly, nostack, preserves_flags));
        }
        cpu as usize
    }

    fn relax(self) {
        host::pnode_host_relax();
    }
}

/// The kernel's queued spin lock, taken with interrupts off, so that frames can be had in interrupt context.
#[repr(C, align(8))]
pub(crate) struct KernelLock {
    /// `struct pnode_host_lock`, which asserts that it fits; all zeroes is the unlocked state.
    words: UnsafeCell<[u64; 2]>,
}

// SAFETY: the words are touched by the kernel's lock functions only, which may be called from any thread.
unsafe impl Sync for KernelLock {}

// SAFETY: `arch_spin_lock` lets one holder in at a time, and orders a release before the next acquire.
unsafe impl RawLock for KernelLock {
    fn new() -> Self {
        Self { words: UnsafeCell::new([0; 2]) }
    }

    fn acquire(&self) {
        // SAFETY: the words are a `struct pnode_host_lock`, unlocked when made.
        unsafe { host::pnode_host_lock(self.words.get().cast()) }
    }

    fn try_acquire(&self) -> bool {
        // SAFETY: as in `acquire`.
        unsafe { host::pnode_host_try_lock(self.words.get().cast()) }
    }

    unsafe fn release(&self) {
        // SAFETY: the caller holds the lock.
        unsafe { host::pnode_host_unlock(self.words.get().cast()) }
    }
}

/// The end of a Rust panic: the kernel's BUG, with the message.
pub(crate) fn bug(text: fmt::Arguments<'_>) -> ! {
    let line = Line::of(text);
    // SAFETY: the pointer and the length are those of one slice.
    unsafe { host::pnode_host_bug(line.as_bytes().as_ptr(), line.as_bytes().len()) }
}
