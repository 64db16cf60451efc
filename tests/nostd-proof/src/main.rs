//! A program without libc and without an allocator that uses pnode's no_std crates: if they needed either, it would not
//! link. It runs on the host, prints what it did and exits 0.
//!
//! `cargo run --manifest-path tests/nostd-proof/Cargo.toml` from the repository's root.
#![no_std]
#![no_main]

mod codecs;
mod frames;
mod gate;
mod host;
mod kernel;

/// A part: the crate that it proves, and what it does with it.
type Part = (&'static str, fn() -> Result<(), &'static str>);

const PARTS: [Part; 4] = [
    ("pnode-core", gate::run),
    ("pnode-buddy", frames::run),
    ("pnode-compress", codecs::run),
    ("pnode-kernel", kernel::run),
];

extern "C" fn start() -> ! {
    for (name, part) in PARTS {
        if let Err(reason) = part() {
            say!("{name}: {reason}");
            host::exit(1);
        }
    }
    say!("no_std, no alloc, no libc: {} parts ran", PARTS.len());
    host::exit(0)
}
