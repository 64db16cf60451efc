//! Private memory nodes: memory that is closed by default.
//!
//! This crate re-exports the workspace and holds no logic; see the modules.
#![no_std]

pub use pnode_buddy as buddy;
pub use pnode_compress as compress;
pub use pnode_core as core;
#[cfg(feature = "kernel")]
pub use pnode_kernel as kernel;
#[cfg(feature = "user")]
pub use pnode_user as user;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
