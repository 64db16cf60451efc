//! Values that refer to one another and end together.
//!
//! The registry borrows its slots, its zones and its tables for one lifetime `'m`, and a grant borrows the registry.
//! A machine owns all of them at once, which no lifetime of Rust can say. So they are kept here, referred to as
//! `'static`, and dropped with the arena.
#![allow(unsafe_code)]

use std::sync::{Mutex, PoisonError};

/// A keeper of values of any type.
///
/// # Invariants
///
/// - **A1** Each entry is a value that was moved to the heap by [`Arena::keep`] and has not been dropped.
/// - **A2** Nobody uses a reference that `keep` returned once the arena's drop has begun: the callers' duty.
pub(crate) struct Arena {
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    value: *mut (),
    drop: unsafe fn(*mut ()),
}

// SAFETY: by the bound on `keep` every value may be sent, and the arena touches values only to drop them.
unsafe impl Send for Kept {}

impl Arena {
    pub(crate) const fn new() -> Self {
        Self { kept: Mutex::new(Vec::new()) }
    }

    /// Keeps `value` until the arena is dropped. Later values are dropped first.
    ///
    /// # Safety
    ///
    /// The caller stops using the reference, and everything made from it, before the arena is dropped (A2). A value
    /// that is kept may refer to those that were kept before it, also in its own drop.
    pub(crate) unsafe fn keep<T: Send + 'static>(&self, value: T) -> &'static mut T {
        unsafe fn drop_box<T>(value: *mut ()) {
            // SAFETY: by A1 the pointer came from a `Box<T>` and is dropped once, by `Arena::drop`.
            drop(unsafe { Box::from_raw(value.cast::<T>()) });
        }
        let value = Box::into_raw(Box::new(value));
        // INVARIANT: A1 by the line above.
        let kept = Kept { value: value.cast(), drop: drop_box::<T> };
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        // SAFETY: the box lives until the arena's drop, after which by A2 nobody uses the reference; nobody else has
        // a reference to it.
        unsafe { &mut *value }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let kept = core::mem::take(self.kept.get_mut().unwrap_or_else(PoisonError::into_inner));
        for Kept { value, drop } in kept.into_iter().rev() {
            // SAFETY: by A1 the value is alive and `drop` is of its type; by A2 nobody refers to it any more but
            // values that were kept later, which are gone.
            unsafe { drop(value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn values_end_with_the_arena_last_first() {
        struct Named(u32, Arc<Mutex<Vec<u32>>>);
        impl Drop for Named {
            fn drop(&mut self) {
                self.1.lock().unwrap().push(self.0);
            }
        }
        let ended = Arc::new(Mutex::new(Vec::new()));
        let arena = Arena::new();
        for name in 0..3 {
            // SAFETY: the reference is used on this line only.
            assert_eq!(unsafe { arena.keep(Named(name, Arc::clone(&ended))) }.0, name);
        }
        assert!(ended.lock().unwrap().is_empty());
        drop(arena);
        assert_eq!(*ended.lock().unwrap(), [2, 1, 0]);
    }
}
