//! The one place that names an atomic: a shim over `core` and loom, locks, and publication of references.
//!
//! Every crate of the workspace takes its atomics from here, so one switch (`--cfg loom`) puts every protocol under
//! the model checker. loom treats sequentially consistent *accesses* as acquire/release, so no algorithm here uses
//! them; where a total order is needed, [`fence`] with [`Ordering::SeqCst`] gives it.
//!
//! This is the only module of pnode-core with unsafe code.
#![allow(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr;

#[cfg(not(loom))]
mod shim {
    pub use core::hint::spin_loop;
    pub use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    /// A cell whose accesses loom can watch; here it is `core`'s.
    #[derive(Debug)]
    pub struct UnsafeCell<T: ?Sized>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// A cell that holds `value`.
        pub const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }
    }

    impl<T: ?Sized> UnsafeCell<T> {
        /// Calls `f` with a pointer for reading.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Calls `f` with a pointer for writing.
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(loom)]
mod model;

#[cfg(loom)]
mod shim {
    pub use super::model::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, explore,
        explore_hand_over, fence,
    };
    pub use loom::cell::UnsafeCell;

    /// Lets another thread of the model run: a spinning thread must yield, or loom explores the spin for ever.
    pub fn spin_loop() {
        loom::thread::yield_now();
    }
}

pub use shim::*;

/// A full fence right after a read-modify-write of this thread.
///
/// It orders that operation before everything that follows, loads too. On x86 the locked instruction was a full fence
/// already, and only the compiler has to be held back; elsewhere, and under loom, it is a sequentially consistent
/// fence. (The idea and its cost model are those of Linux's `smp_mb__after_atomic`.)
#[inline(always)]
#[cfg_attr(loom, track_caller)]
pub fn fence_after_rmw() {
    #[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), not(loom), not(miri)))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(any(target_arch = "x86", target_arch = "x86_64"), not(loom), not(miri))))]
    fence(Ordering::SeqCst);
}

/// A function that is `const` in normal builds only: loom's constructors are not.
#[macro_export]
#[doc(hidden)]
macro_rules! const_fn {
    ($(#[$attr:meta])* $vis:vis fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$attr])*
        $vis const fn $($rest)*
        #[cfg(loom)]
        $(#[$attr])*
        $vis fn $($rest)*
    };
}

/// The host's lock: a kernel brings its own, [`SpinLock`] is the default.
///
/// # Safety
///
/// Between a return from `acquire` (or a `true` from `try_acquire`) and the next call of `release`, no other call of
/// `acquire` returns and no other `try_acquire` returns `true`; and all that happened before that `release` is visible
/// after the next `acquire`.
pub unsafe trait RawLock: Send + Sync {
    /// A lock that nobody holds.
    fn new() -> Self;

    /// Waits until the lock is ours.
    fn acquire(&self);

    /// Takes the lock if nobody holds it.
    fn try_acquire(&self) -> bool;

    /// Gives the lock back.
    ///
    /// # Safety
    ///
    /// The caller holds the lock.
    unsafe fn release(&self);
}

/// A test-and-set lock that spins. Not fair; meant for short sections.
#[derive(Debug)]
pub struct SpinLock {
    held: AtomicBool,
}

// SAFETY: `held` goes from false to true in one compare-exchange only, so one caller wins; its Acquire pairs with the
// Release store in `release`.
unsafe impl RawLock for SpinLock {
    fn new() -> Self {
        Self { held: AtomicBool::new(false) }
    }

    fn acquire(&self) {
        while !self.try_acquire() {
            while self.held.load(Ordering::Relaxed) {
                spin_loop();
            }
        }
    }

    fn try_acquire(&self) -> bool {
        // Acquire pairs with the Release in `release`: the new holder sees all that the last one did.
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn release(&self) {
        // Release pairs with the Acquire in `try_acquire`.
        self.held.store(false, Ordering::Release);
    }
}

/// A value behind a [`RawLock`].
///
/// # Invariants
///
/// - **L1** `value` is touched only by the holder of `raw`, or through `&mut self`.
pub struct Lock<T, L: RawLock = SpinLock> {
    raw: L,
    value: UnsafeCell<T>,
}

// SAFETY: by L1 one thread at a time touches the value, which may therefore come from any thread that can send it.
unsafe impl<T: Send, L: RawLock> Sync for Lock<T, L> {}
// SAFETY: the lock owns its value.
unsafe impl<T: Send, L: RawLock> Send for Lock<T, L> {}

impl<T, L: RawLock> Lock<T, L> {
    /// A lock around `value` that nobody holds.
    pub fn new(value: T) -> Self {
        Self { raw: L::new(), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock. The guard gives it back.
    pub fn lock(&self) -> Guard<'_, T, L> {
        self.raw.acquire();
        Guard { lock: self, _not_send: PhantomData }
    }

    /// The lock's guard if nobody holds it.
    pub fn try_lock(&self) -> Option<Guard<'_, T, L>> {
        // Built only when the lock is ours: dropping a guard gives the lock back.
        self.raw.try_acquire().then(|| Guard { lock: self, _not_send: PhantomData })
    }
}

impl<T, L: RawLock> fmt::Debug for Lock<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock(..)")
    }
}

/// The right to the value of a held [`Lock`].
///
/// # Invariants
///
/// - **G1** while a guard lives, its lock is held by the guard's maker.
#[must_use = "the lock is given back at once if the guard is not kept"]
pub struct Guard<'a, T, L: RawLock = SpinLock> {
    lock: &'a Lock<T, L>,
    _not_send: PhantomData<*mut ()>,
}

impl<T, L: RawLock> Deref for Guard<'_, T, L> {
    type Target = T;

    fn deref(&self) -> &T {
        self.lock.value.with(|value| {
            // SAFETY: by G1 and L1 nobody else writes to the value while the guard lives.
            unsafe { &*value }
        })
    }
}

impl<T, L: RawLock> DerefMut for Guard<'_, T, L> {
    fn deref_mut(&mut self) -> &mut T {
        self.lock.value.with_mut(|value| {
            // SAFETY: by G1 and L1 nobody else touches the value, and `&mut self` makes this the only access by us.
            unsafe { &mut *value }
        })
    }
}

impl<T, L: RawLock> Drop for Guard<'_, T, L> {
    fn drop(&mut self) {
        // SAFETY: by G1 we hold the lock.
        unsafe { self.lock.raw.release() }
    }
}

/// A slot for a shared reference that one side publishes and others read without a lock.
///
/// The reference lives as long as the slot may be used, so a reader that loaded it just before it was withdrawn still
/// holds a valid reference: nothing has to be reclaimed.
///
/// # Invariants
///
/// - **A1** the pointer is null or was made from a `&'m T`.
pub struct Published<'m, T> {
    pointer: AtomicPtr<T>,
    _lifetime: PhantomData<core::cell::Cell<&'m T>>,
}

// SAFETY: by A1 the slot is an `Option<&'m T>`, which may be shared and sent if `T` may be shared.
unsafe impl<T: Sync> Sync for Published<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Send for Published<'_, T> {}

impl<'m, T> Published<'m, T> {
    const_fn! {
        /// An empty slot.
        pub fn empty() -> Self {
            // INVARIANT: A1 holds for null.
            Self { pointer: AtomicPtr::new(ptr::null_mut()), _lifetime: PhantomData }
        }
    }

    /// Fills the slot; who loads the reference sees all that was done before this call.
    pub fn publish(&self, value: &'m T) {
        // INVARIANT: A1 holds by the argument's type.
        // Release pairs with the Acquire in `get`.
        self.pointer.store(ptr::from_ref(value).cast_mut(), Ordering::Release);
    }

    /// Empties the slot. References that were loaded before stay valid.
    pub fn withdraw(&self) {
        // Who finds nothing learns nothing, so there is nothing to order.
        self.pointer.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// The published reference.
    #[inline]
    pub fn get(&self) -> Option<&'m T> {
        // Acquire pairs with the Release in `publish`.
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: by A1 the pointer is null or a reference that is valid for `'m`.
        unsafe { pointer.as_ref() }
    }
}

impl<T> fmt::Debug for Published<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Published({:?})", self.pointer.load(Ordering::Relaxed))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn a_held_lock_is_had_by_nobody_else_until_its_guard_is_gone() {
        let lock: Lock<u32> = Lock::new(1);
        let mut held = lock.try_lock().expect("nobody holds it");
        assert!(lock.try_lock().is_none());
        thread::scope(|scope| assert!(scope.spawn(|| lock.try_lock().is_none()).join().unwrap()));
        *held += 1;
        drop(held);
        assert_eq!(lock.try_lock().map(|value| *value), Some(2));
    }

    /// Each holder lets others run between its look and its change, so two holders at once would lose a change.
    #[test]
    fn holders_come_one_after_the_other() {
        const THREADS: u32 = 3;
        const TIMES: u32 = 20;
        let lock: Lock<u32> = Lock::new(0);
        let start = Barrier::new(THREADS as usize);
        let hold = || {
            start.wait();
            for _ in 0..TIMES {
                let mut value = lock.lock();
                let seen = *value;
                thread::yield_now();
                *value = seen + 1;
            }
        };
        thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(hold))));
        assert_eq!(*lock.lock(), THREADS * TIMES);
    }

    #[test]
    fn what_is_withdrawn_is_not_found() {
        let values = [1, 2];
        let slot = Published::empty();
        assert_eq!(slot.get(), None);
        for value in &values {
            slot.publish(value);
            assert!(slot.get().is_some_and(|found| ptr::eq(found, value)));
        }
        slot.withdraw();
        assert_eq!(slot.get(), None);
    }
}
