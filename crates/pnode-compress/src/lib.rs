//! Page codecs, a packed page store and compressed RAM as a service, without an allocator.
//!
//! Three layers, each of use alone:
//!
//! - [`codec`]: a page in, an object of fewer bytes and a tag out, and back; pure functions.
//! - [`store`]: objects packed into blocks of frames that a [`FrameSource`](pnode_core::FrameSource) hands out, in
//!   production the grant of a private node.
//! - [`cram`]: compressed RAM as a service: what a host calls when it demotes a page, when a resident page is read or
//!   written, and when its node goes away.
//!
//! [`memory`] is where frames become bytes: the one promise that the host has to make.
#![no_std]
#![deny(unsafe_code)]

#[cfg(all(loom, not(feature = "loom")))]
compile_error!("`--cfg loom` needs `--features loom`: run the models as CONTRIBUTING.md shows.");

pub mod codec;
pub mod cram;
pub mod device;
pub mod memory;
pub mod store;
