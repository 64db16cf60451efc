//! pnode-kernel: the Rust half of the module, its self-test run on frames of this program, on a kernel that is a static
//! array.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;

use pnode_core::sync::{AtomicUsize, Ordering, SpinLock};
use pnode_core::{FrameRange, PageSize, Pfn};
use pnode_kernel::{Kernel, Level, Mapping, selftest};

use crate::say;

/// How many frames the device has.
const FRAMES: usize = 256;

/// Pages that nobody has references to.
#[repr(C, align(4096))]
struct Pages<const N: usize>(UnsafeCell<[[u8; 4096]; N]>);

// SAFETY: the bytes are only reached through pointers, by this program's one thread.
unsafe impl<const N: usize> Sync for Pages<N> {}

static METADATA: Pages<256> = Pages(UnsafeCell::new([[0; 4096]; 256]));
static DEVICE: Pages<FRAMES> = Pages(UnsafeCell::new([[0; 4096]; FRAMES]));
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// A kernel whose memory is handed out from one end, and begins anew when everything has come back.
#[derive(Clone, Copy)]
struct Arena;

// SAFETY: K1: each allocation lies behind the ones before it, until none of them is left.
unsafe impl Kernel for Arena {
    const PAGE: PageSize = PageSize::KIB4;

    type Lock = SpinLock;

    fn alloc(self, layout: Layout) -> Option<NonNull<u8>> {
        let start = TAKEN.load(Ordering::Relaxed).checked_next_multiple_of(layout.align())?;
        let end = start.checked_add(layout.size())?;
        if end > size_of_val(&METADATA) || layout.align() > 4096 {
            return None;
        }
        TAKEN.store(end, Ordering::Relaxed);
        LIVE.fetch_add(1, Ordering::Relaxed);
        NonNull::new(METADATA.0.get().cast::<u8>().wrapping_add(start))
    }

    unsafe fn free(self, _memory: NonNull<u8>, _layout: Layout) {
        if LIVE.fetch_sub(1, Ordering::Relaxed) == 1 {
            TAKEN.store(0, Ordering::Relaxed);
        }
    }

    fn log(self, _level: Level, text: fmt::Arguments<'_>) {
        say!("kernel: {text}");
    }

    fn cpus(self) -> usize {
        1
    }

    fn cpu(self) -> usize {
        0
    }

    fn relax(self) {}
}

pub fn run() -> Result<(), &'static str> {
    let range = FrameRange::new(Pfn::new(0x4_0000), FRAMES as u64).map_err(|_| "no range")?;
    let base = NonNull::new(DEVICE.0.get().cast::<u8>()).ok_or("no pages")?;
    // SAFETY: the static has `FRAMES` pages, and nobody else touches them.
    let mapping = unsafe { Mapping::new(base, range, PageSize::KIB4) }.map_err(|_| "no mapping")?;
    match selftest::run(Arena, mapping) {
        Ok(true) if LIVE.load(Ordering::Relaxed) == 0 => Ok(()),
        Ok(true) => Err("the self-test kept memory"),
        Ok(false) => Err("the self-test failed"),
        Err(_) => Err("the self-test did not run"),
    }
}
