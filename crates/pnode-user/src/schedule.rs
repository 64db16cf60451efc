//! Who goes next: programs, reclaim and promotion as steps of one thread, in an order that a seed names.
//!
//! Threads interleave as they like, and a failure that took an hour to come does not come again. Here everybody who acts on a
//! machine is an *actor* of a [`Stage`] and takes one step at a time; a seed says who goes next. The same seed gives the same
//! steps, the same [trace](crate::machine::Trace) to the byte, and the same failure. [`shrink`] then leaves out what the
//! failure does not need, until each turn that is left is needed.
//!
//! After the seeded schedulers of FoundationDB's simulation (2010) and of shuttle, and the delta debugging of A. Zeller and R.
//! Hildebrandt (*Simplifying and Isolating Failure-Inducing Input*, 2002).
//!
//! ```
//! use pnode_user::machine::{KeepFree, Mapping};
//! use pnode_user::schedule::{self, Stage};
//! use pnode_user::{Machine, NodeSpec};
//!
//! /// A program that fills its memory, and the kernel's thread that keeps some free.
//! struct Two {
//!     machine: Machine,
//!     memory: Mapping,
//!     filled: usize,
//! }
//!
//! impl Stage for Two {
//!     type Failure = String;
//!
//!     fn actors(&self) -> usize {
//!         2
//!     }
//!
//!     fn step(&mut self, actor: usize) -> Result<(), String> {
//!         if actor == 0 && self.filled < self.memory.pages() {
//!             self.memory.write(self.filled * self.machine.page().bytes(), &[1]).map_err(|error| error.to_string())?;
//!             self.filled += 1;
//!         }
//!         if actor == 1 {
//!             self.machine.background_step(KeepFree { low: 8, high: 16 });
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let new = || -> Result<Two, Box<dyn std::error::Error>> {
//!     let machine = Machine::builder().node(NodeSpec::ordinary(32)).swap(64).build()?;
//!     let memory = machine.map(48, machine.node(0)?)?;
//!     Ok(Two { machine, memory, filled: 0 })
//! };
//! let first = schedule::run(&mut new()?, 7, 200);
//! let again = schedule::run(&mut new()?, 7, 200);
//! assert_eq!((first.failure, &first.turns), (None, &again.turns));
//! # Ok(())
//! # }
//! ```

/// A world that several act on.
pub trait Stage {
    /// What a step may fail with.
    type Failure;

    /// How many act; each has a number from 0 on.
    fn actors(&self) -> usize;

    /// Lets actor `actor` take one step. Who has nothing to do does nothing.
    ///
    /// What a step does may depend on what was done before and on nothing else: no clock, no other thread, no chance but the
    /// actor's own, from a seed that is his. Else the same turns are not the same life.
    ///
    /// # Errors
    ///
    /// What the schedule is looked through for.
    fn step(&mut self, actor: usize) -> Result<(), Self::Failure>;
}

/// How a schedule went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<F> {
    /// Who went, in turn; the last one is whose step failed, if one did.
    pub turns: Vec<usize>,
    /// What the last step failed with.
    pub failure: Option<F>,
}

/// Lets the actors of `stage` take `steps` steps in the order that `seed` names, or as many as go well.
pub fn run<S: Stage>(stage: &mut S, seed: u64, steps: usize) -> Outcome<S::Failure> {
    let actors = stage.actors();
    let mut state = seed;
    let next = core::iter::repeat_with(move || {
        // SplitMix64 (G. Steele and others, 2014), whose seeds may be any numbers, also small ones.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as usize % actors.max(1)
    });
    take(stage, next.take(if actors == 0 { 0 } else { steps }))
}

/// Lets the actors of `stage` take the steps of `turns`, or as many as go well. Numbers that no actor has are passed over.
pub fn replay<S: Stage>(stage: &mut S, turns: &[usize]) -> Outcome<S::Failure> {
    take(stage, turns.iter().copied())
}

fn take<S: Stage>(stage: &mut S, turns: impl Iterator<Item = usize>) -> Outcome<S::Failure> {
    let mut outcome = Outcome { turns: Vec::new(), failure: None };
    for actor in turns {
        if actor < stage.actors() {
            outcome.turns.push(actor);
            if let Err(failure) = stage.step(actor) {
                outcome.failure = Some(failure);
                break;
            }
        }
    }
    outcome
}

/// Leaves turns out of a schedule that fails, until none can be left out any more; each try is made on a stage of its own.
/// Any failure counts; `fails` says of one whether it is the one that is looked for.
///
/// Turns that do not fail are given back as they are.
pub fn shrink<S: Stage>(
    turns: &[usize],
    mut new: impl FnMut() -> S,
    mut fails: impl FnMut(&S::Failure) -> bool,
) -> Vec<usize> {
    let mut tried = |turns: &[usize]| {
        let Outcome { turns, failure } = replay(&mut new(), turns);
        failure.filter(&mut fails).map(|_| turns)
    };
    let Some(mut left) = tried(turns) else { return turns.to_vec() };
    let mut part = left.len().div_ceil(2);
    loop {
        let mut start = 0;
        let before = left.len();
        while start < left.len() {
            let end = (start + part).min(left.len());
            let without: Vec<usize> = left[..start].iter().chain(&left[end..]).copied().collect();
            match tried(&without) {
                Some(shorter) => left = shorter,
                None => start = end,
            }
        }
        if part == 1 && left.len() == before {
            return left;
        }
        part = if part > 1 { part.div_ceil(2) } else { 1 };
    }
}
