//! Who may have memory from where: the gate of private memory nodes.
//!
//! Memory of a private node belongs to one device or service. It is managed like ordinary page frames and nobody
//! gets it unless its owner opened that door.
#![no_std]
#![deny(unsafe_code)]

#[cfg(all(loom, not(feature = "loom")))]
compile_error!("`--cfg loom` needs `--features loom`: run the models as CONTRIBUTING.md shows.");

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod addr;
pub mod frame;
pub mod sync;

pub use addr::{FrameRange, Order, PageSize, Pfn};
pub use frame::{FrameError, FrameSource, FreeError, MigrateType};
