//! Page codecs, a packed page store and compressed RAM as a service, without an allocator.
#![no_std]
#![deny(unsafe_code)]

pub mod codec;
