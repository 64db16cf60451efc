//! Private memory nodes: memory that is closed by default.
//!
//! This crate re-exports the workspace and holds no logic.
//!
//! | module | what it is | stands on |
//! | --- | --- | --- |
//! | [`core`] | who may have memory from where: nodes, grants, zonelists, policy | nothing but Rust's `core` |
//! | [`buddy`] | which frame: a concurrent allocator on metadata of the caller | `core` |
//! | [`compress`] | fewer frames: codecs, a packed store, compressed RAM | `core` |
//! | `user` | all of it on real page faults in a process; feature `user`, on by default, std and Linux | the three above |
//! | `kernel` | all of it in a kernel module: its Rust half; feature `kernel` | the three above |
//!
//! Start at [`core`], whose first page explains the gate, or with the driver in the README.
#![no_std]

pub use pnode_buddy as buddy;
pub use pnode_compress as compress;
pub use pnode_core as core;
#[cfg(feature = "kernel")]
pub use pnode_kernel as kernel;
#[cfg(feature = "user")]
pub use pnode_user as user;

/// Compiles and runs the programs of the README and of the guide.
#[cfg(doctest)]
mod texts {
    macro_rules! texts {
        ($($name:ident $file:literal)*) => {$(
            #[doc = include_str!($file)]
            pub struct $name;
        )*};
    }
    texts! { Readme "../README.md" }
    #[cfg(feature = "user")]
    texts! {
        Concepts "../docs/guide/concepts.md"
        Driver "../docs/guide/driver.md"
        Testing "../docs/guide/testing.md"
        CompressedRam "../docs/guide/compressed-ram.md"
        Porting "../docs/guide/porting.md"
    }
}
