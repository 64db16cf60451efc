//! The Rust half of pnode.ko: `pnode-kernel` on the Linux kernel, its C interface, and the panic handler.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

mod line;
mod linux;

use linux::Linux;

pnode_kernel::export_c_interface!(Linux);

/// No input of a caller reaches a panic. If one happens it is a defect, and the kernel's BUG shows where.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    linux::bug(format_args!("{info}"))
}
