//! Which frame: a concurrent allocator of page frames on memory of the caller.
//!
//! # Stealing
//!
//! See below.
#![no_std]
#![deny(unsafe_code)]

#[cfg(all(loom, not(feature = "loom")))]
compile_error!("`--cfg loom` needs `--features loom`: run the models as CONTRIBUTING.md shows.");

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

mod at;
mod audit;
mod bitmap;
mod collect;
mod count;
mod cpu;
mod error;
mod free;
mod gate;
mod geometry;
mod hint;
mod map;
mod metadata;
mod node;
mod owned;
mod search;
mod stats;
mod walk;
mod word;
mod zone;

pub use audit::AuditError;
pub use cpu::{Cpu, Keep};
pub use error::{AllocAtError, ZoneError};
pub use geometry::Geometry;
pub use map::Occupancy;
pub use metadata::{Line, Metadata};
pub use stats::{FreeCounts, Stats};
pub use zone::Zone;
