//! Private memory nodes inside an operating-system kernel: the Rust half of `pnode.ko`, with nothing of Linux in it.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`Kernel`] | what is asked of the kernel around: memory for metadata, locks, a log |
//! | [`Own`] | values in that memory, each allocation of which may fail |
//! | [`Mapping`] | the frames of a device as bytes |
//! | [`CpuZone`] | a zone with a cache for each CPU |
//! | [`Desks`] | working memory for those who compress pages, one for each CPU |
//! | [`storage`] | the metadata of a registry and of a zone |
//! | [`selftest`] | private nodes tested on the frames of a device, with a report in KTAP |
//! | [`c_interface`] | all of it as C sees it: the functions of `include/pnode.h` |
//! | [`calls`] | what a process may ask of `/dev/pnodeN`, examined |
//! | [`Errno`] | error numbers, for that edge only |
//!
//! The module itself is in `module/`, a workspace of its own: it implements [`Kernel`] for Linux and adds the C half.
//! The host tests implement it for a fake kernel, which can fail each allocation.
//!
//! Unsafe code is confined to `own`, `mapping` and `c_interface`.
#![no_std]
#![deny(unsafe_code)]

mod buffer;
pub mod c_interface;
pub mod calls;
mod cpus;
mod desks;
mod errno;
mod kernel;
mod mapping;
mod own;
mod report;
pub mod selftest;
pub mod storage;

pub use buffer::Buffer;
pub use cpus::{CpuSlot, CpuZone};
pub use desks::{Desk, Desks};
pub use errno::Errno;
pub use kernel::{Kernel, Level, NoMemory};
pub use mapping::{Mapping, MappingError};
pub use own::{Own, Room};
pub use report::{Failure, Report};
