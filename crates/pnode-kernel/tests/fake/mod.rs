//! A kernel for the host: it counts what it gave, can fail any allocation, and checks that nobody sleeps under a lock.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::alloc::{self, Layout};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ptr::NonNull;

use pnode_core::sync::{RawLock, SpinLock};
use pnode_core::{FrameRange, PageSize, Pfn};
use pnode_kernel::{Kernel, Level, Mapping};

/// The kernel of the test's own thread, so that tests can run side by side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fake;

/// How many CPUs the fake kernel has.
pub(crate) const CPUS: usize = 3;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
    static LIVE: RefCell<HashMap<usize, Layout>> = RefCell::default();
    static LOG: RefCell<Vec<(Level, String)>> = RefCell::default();
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static FAIL_AT: Cell<Option<usize>> = const { Cell::new(None) };
    static LOCKS_HELD: Cell<usize> = const { Cell::new(0) };
    static ON_RELAX: RefCell<Option<Box<dyn FnMut()>>> = RefCell::default();
}

impl Fake {
    /// The `nth` allocation from now on fails, counted from 0; `None` for none.
    pub(crate) fn fail_at(nth: Option<usize>) {
        CALLS.set(0);
        FAIL_AT.set(nth);
    }

    /// How many allocations were asked for since the last [`Fake::fail_at`].
    pub(crate) fn calls() -> usize {
        CALLS.get()
    }

    /// Whether the allocation that was to fail has been asked for.
    pub(crate) fn has_failed() -> bool {
        FAIL_AT.get().is_some_and(|nth| CALLS.get() > nth)
    }

    /// How many allocations were not given back.
    pub(crate) fn live() -> usize {
        LIVE.with_borrow(HashMap::len)
    }

    /// The lines that were logged since the last call.
    pub(crate) fn take_log() -> Vec<(Level, String)> {
        LOG.take()
    }

    /// Calls `hook` whenever the code under test lets others run.
    pub(crate) fn on_relax(hook: impl FnMut() + 'static) {
        ON_RELAX.set(Some(Box::new(hook)));
    }

    /// From now on the test's thread runs on the CPU with this number.
    pub(crate) fn run_on(cpu: usize) {
        CPU.set(cpu);
    }

    fn assert_may_sleep() {
        assert_eq!(LOCKS_HELD.get(), 0, "sleeping with a lock held");
    }
}

// SAFETY: the memory comes from the global allocator with the layout asked for: K1.
unsafe impl Kernel for Fake {
    const PAGE: PageSize = PageSize::KIB4;

    type Lock = FakeLock;

    fn alloc(self, layout: Layout) -> Option<NonNull<u8>> {
        Self::assert_may_sleep();
        assert_ne!(layout.size(), 0, "an allocation of nothing");
        let call = CALLS.get();
        CALLS.set(call + 1);
        if FAIL_AT.get() == Some(call) {
            return None;
        }
        // SAFETY: the size is not 0.
        let memory = NonNull::new(unsafe { alloc::alloc(layout) })?;
        // Kernel memory is not zeroed.
        // SAFETY: the memory is `layout.size()` bytes long.
        unsafe { memory.write_bytes(0xc5, layout.size()) };
        LIVE.with_borrow_mut(|live| live.insert(memory.as_ptr().addr(), layout));
        Some(memory)
    }

    unsafe fn free(self, memory: NonNull<u8>, layout: Layout) {
        Self::assert_may_sleep();
        let was = LIVE.with_borrow_mut(|live| live.remove(&memory.as_ptr().addr()));
        assert_eq!(was, Some(layout), "memory that was not allocated, or with another layout");
        // SAFETY: the memory came from `alloc` with this layout, by the assertion.
        unsafe { alloc::dealloc(memory.as_ptr(), layout) };
    }

    fn log(self, level: Level, text: fmt::Arguments<'_>) {
        LOG.with_borrow_mut(|log| log.push((level, text.to_string())));
    }

    fn cpus(self) -> usize {
        CPUS
    }

    fn cpu(self) -> usize {
        CPU.get()
    }

    fn relax(self) {
        Self::assert_may_sleep();
        ON_RELAX.with_borrow_mut(|hook| {
            if let Some(hook) = hook {
                hook();
            }
        });
    }
}

/// A spin lock that knows whether its thread holds one.
#[derive(Debug)]
pub(crate) struct FakeLock(SpinLock);

// SAFETY: every promise is the spin lock's.
unsafe impl RawLock for FakeLock {
    fn new() -> Self {
        Self(SpinLock::new())
    }

    fn acquire(&self) {
        self.0.acquire();
        LOCKS_HELD.set(LOCKS_HELD.get() + 1);
    }

    fn try_acquire(&self) -> bool {
        let taken = self.0.try_acquire();
        LOCKS_HELD.set(LOCKS_HELD.get() + usize::from(taken));
        taken
    }

    unsafe fn release(&self) {
        LOCKS_HELD.set(LOCKS_HELD.get() - 1);
        // SAFETY: by the caller.
        unsafe { self.0.release() }
    }
}

/// The memory of a device: pages of the test, at a frame number of its choice.
#[derive(Debug)]
pub(crate) struct Device {
    pages: NonNull<u8>,
    layout: Layout,
    range: FrameRange,
}

impl Device {
    /// `frames` frames from `first` on.
    pub(crate) fn new(first: u64, frames: u64) -> Self {
        let range = FrameRange::new(Pfn::new(first), frames).unwrap();
        let bytes = usize::try_from(frames).unwrap() * Fake::PAGE.bytes();
        let layout = Layout::from_size_align(bytes, Fake::PAGE.bytes()).unwrap();
        // SAFETY: a range has at least one frame.
        let pages = NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).expect("memory for the device");
        Self { pages, layout, range }
    }

    /// The frames.
    pub(crate) fn range(&self) -> FrameRange {
        self.range
    }

    /// Where they are.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.pages
    }

    /// The frames as the adapter sees them.
    pub(crate) fn mapping(&self) -> Mapping<'_> {
        // SAFETY: the pages are this device's for as long as it lives, and no reference to them is made.
        unsafe { Mapping::new(self.pages, self.range, Fake::PAGE) }.unwrap()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: the pages came from the global allocator with this layout.
        unsafe { alloc::dealloc(self.pages.as_ptr(), self.layout) };
    }
}
