//! Private memory nodes in a process: real page faults on nodes of memory files.
#![deny(unsafe_code)]
// A std crate takes everything from std.
#![allow(clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

mod arena;
pub mod backing;
pub mod fault;
pub mod machine;
mod sys;

pub use machine::{Machine, NodeSpec};
pub use sys::SysError;
