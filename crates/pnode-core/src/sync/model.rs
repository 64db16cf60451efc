//! The atomics of a model run: loom's, each of whose orders can be weakened by name while the models run.
//!
//! A model proves an order only if it fails without it. `tests/weaken` takes every order of the workspace away in turn
//! and asks which model notices; so that this takes one build and not hundreds, the orders are looked up here, when they
//! are used, by where they stand in the source. Two variables of the environment steer that:
//!
//! - `PNODE_WEAKEN=FILE:LINE:COLUMN:ROLE` takes one order away: `acquire`, `release`, `failure` for the order of a
//!   compare-exchange that fails, `fence` for a whole fence, `total` for what makes a fence sequentially consistent;
//! - `PNODE_ORDERS=PATH` appends a line to that file for each order that a test uses (test, tab, name of the order), and one
//!   for each model (test, tab, `executions:` and how many interleavings there were).

extern crate std;

use core::cell::Cell;
use core::panic::Location;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::string::String;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{env, format, thread};

use loom::sync::atomic as real;
pub use loom::sync::atomic::Ordering;

/// What one order does for the operation that it stands at.
#[derive(Clone, Copy)]
enum Role {
    Acquire,
    Release,
    Failure,
    Fence,
    Total,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Release => "release",
            Self::Failure => "failure",
            Self::Fence => "fence",
            Self::Total => "total",
        }
    }
}

/// Explores the interleavings of `model` with at most `preemptions` switches away from a thread that could go on
/// (`LOOM_MAX_PREEMPTIONS` overrides it).
///
/// # Panics
///
/// If some interleaving panics or races, with what loom says of it: models are tests.
pub fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 20_000;
    let executions = Arc::new(Mutex::new(0_u64));
    let counted = Arc::clone(&executions);
    builder.check(move || {
        *counted.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        model();
    });
    let executions = *executions.lock().unwrap_or_else(PoisonError::into_inner);
    note(&format!("executions:{executions}"));
}

std::thread_local! {
    /// Whether sequentially consistent fences are more than acquire and release fences.
    static TOTAL: Cell<bool> = const { Cell::new(true) };
}

/// [`explore`] for a model that says who may touch memory that is not atomic: sequentially consistent fences are acquire
/// and release fences in it.
///
/// To loom, all that came before such a fence *happened before* all that comes after a later one. For atomics that is what
/// the memory model says; but it says nothing of the kind about other memory, so a fence would stand in for orders that
/// hand a page over. Models that search for what another thread made free need the fences, and `explore`.
///
/// # Panics
///
/// As [`explore`].
pub fn explore_hand_over(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    TOTAL.set(false);
    explore(preemptions, model);
    TOTAL.set(true);
}

/// Whether the order of this role at this place is to be taken away; notes that it was used.
fn weakened(place: &Location<'_>, role: Role) -> bool {
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    static NOTES: OnceLock<bool> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| env::var("PNODE_WEAKEN").ok());
    let notes = *NOTES.get_or_init(|| env::var_os("PNODE_ORDERS").is_some());
    if wanted.is_none() && !notes {
        return false;
    }
    let name = format!("{}:{}:{}:{}", place.file(), place.line(), place.column(), role.name());
    if notes {
        note(&name);
    }
    wanted.as_ref() == Some(&name)
}

/// Appends a line about this test to the file of notes, if there is one, unless the same line is there.
fn note(text: &str) {
    static NOTES: OnceLock<Option<Mutex<(File, BTreeSet<String>)>>> = OnceLock::new();
    let notes = NOTES.get_or_init(|| {
        let path = env::var_os("PNODE_ORDERS")?;
        let file = File::options().create(true).append(true).open(&path);
        Some(Mutex::new((file.unwrap_or_else(|error| panic!("{path:?}: {error}")), BTreeSet::new())))
    });
    let Some(notes) = notes else { return };
    // The threads of a model run on the thread of their test, which libtest names after it.
    let line = format!("{}\t{text}\n", thread::current().name().unwrap_or("main"));
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    let (file, lines) = &mut *notes;
    // A test may explore several models with equally many executions.
    if lines.insert(line.clone()) || text.starts_with("executions:") {
        file.write_all(line.as_bytes()).unwrap_or_else(|error| panic!("the file of notes: {error}"));
    }
}

/// The order of an operation that reads, writes, or both.
fn order(order: Ordering, place: &Location<'_>) -> Ordering {
    assert!(!matches!(order, Ordering::SeqCst), "{place}: no sequentially consistent accesses");
    let acquires = matches!(order, Ordering::Acquire | Ordering::AcqRel) && !weakened(place, Role::Acquire);
    let releases = matches!(order, Ordering::Release | Ordering::AcqRel) && !weakened(place, Role::Release);
    match (acquires, releases) {
        (true, true) => Ordering::AcqRel,
        (true, false) => Ordering::Acquire,
        (false, true) => Ordering::Release,
        (false, false) => Ordering::Relaxed,
    }
}

/// The order of a compare-exchange that fails.
fn failure(order: Ordering, place: &Location<'_>) -> Ordering {
    if matches!(order, Ordering::Acquire) && weakened(place, Role::Failure) {
        Ordering::Relaxed
    } else {
        order
    }
}

/// A fence, unless it is taken away.
#[track_caller]
pub fn fence(order: Ordering) {
    let place = Location::caller();
    if weakened(place, Role::Fence) {
        return;
    }
    let total = matches!(order, Ordering::SeqCst) && TOTAL.get() && !weakened(place, Role::Total);
    real::fence(if !total && matches!(order, Ordering::SeqCst) { Ordering::AcqRel } else { order });
}

macro_rules! atomics {
    ($($name:ident $(<$param:ident>)? ($value:ty) { $($extra:tt)* })*) => {$(
        /// loom's atomic of the same name; what `core`'s offers beyond these methods is not used in the workspace.
        #[derive(Debug)]
        pub struct $name $(<$param>)? (real::$name $(<$param>)?);

        #[allow(missing_docs, reason = "the methods are those of core")]
        impl $(<$param>)? $name $(<$param>)? {
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self(real::$name::new(value))
            }
            #[track_caller]
            pub fn load(&self, at: Ordering) -> $value {
                self.0.load(order(at, Location::caller()))
            }
            #[track_caller]
            pub fn store(&self, value: $value, at: Ordering) {
                self.0.store(value, order(at, Location::caller()));
            }
            #[track_caller]
            pub fn swap(&self, value: $value, at: Ordering) -> $value {
                self.0.swap(value, order(at, Location::caller()))
            }
            #[track_caller]
            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                done: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                let place = Location::caller();
                self.0.compare_exchange(old, new, order(done, place), failure(failed, place))
            }
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                done: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                let place = Location::caller();
                self.0.compare_exchange_weak(old, new, order(done, place), failure(failed, place))
            }
            #[track_caller]
            pub fn fetch_update(
                &self,
                done: Ordering,
                failed: Ordering,
                change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let place = Location::caller();
                self.0.fetch_update(order(done, place), failure(failed, place), change)
            }
            atomics!(@ $value; $($extra)*);
        }
    )*};
    (@ $value:ty; $($method:ident)*) => {$(
        #[track_caller]
        pub fn $method(&self, value: $value, at: Ordering) -> $value {
            self.0.$method(value, order(at, Location::caller()))
        }
    )*};
}

atomics! {
    AtomicBool(bool) { fetch_and fetch_or }
    AtomicPtr<T>(*mut T) {}
    AtomicU8(u8) { fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max }
    AtomicU16(u16) { fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max }
    AtomicU32(u32) { fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max }
    AtomicU64(u64) { fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max }
    AtomicUsize(usize) { fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max }
}
