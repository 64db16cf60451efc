//! Memory policy: where the pages of tasks, ranges and shared objects go.
//!
//! A [`Wish`] is what a user says. [`Policy::new`] compares it with the nodes there are, the cpuset and the owners'
//! consent. A [`Placement`] gathers all that decides about one page; its [`Plan`] is worked out without touching a frame,
//! and [`Nodes::place`](crate::Nodes::place) carries it out. What came of it is a [`FaultReport`].
//!
//! | rule | where |
//! | --- | --- |
//! | only bind may name a private node, with its owner's consent; other modes are narrowed to ordinary nodes | [`Policy::new`] |
//! | which policy counts for which page, and whether private nodes count in it | [`PageOrigin`](crate::PageOrigin) |
//! | a bind stays on its nodes: a page there, or an error that names them | [`PlaceError::BoundNodesFull`] |
//! | a policy never reaches a private node that was registered after it was set | [`Stamp`](crate::Stamp) |
//! | a page that is present is not moved by anybody's policy, and that is reported | [`Placement::soft`] |
//!
//! After `mm/mempolicy.c` of Linux and the policy rules of the private-node series (mail *Private Memory Nodes (w/
//! Compressed RAM)*, February to June 2026, and the tests in its author's tree).

mod error;
mod fault;
mod mempolicy;
mod migrate;
mod mode;
mod place;
mod plan;
mod ranges;
mod remap;

pub use error::PolicyError;
pub use fault::{FaultCounters, FaultCounts, FaultKind, FaultReport, Outcome};
pub use mempolicy::{Policy, Target};
pub use migrate::MoveDenied;
pub use mode::{Mode, Numbering, Wish};
pub use place::{PlaceError, Placed};
pub use plan::{Placement, Plan, Step, Wanted, Weights};
pub use ranges::{RangeEntry, Ranges, RangesError};
