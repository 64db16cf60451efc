//! The Rust half of pnode.ko.
#![no_std]

unsafe extern "C" {
    fn pnode_host_log(text: *const u8, bytes: usize);
    fn pnode_host_bug(text: *const u8, bytes: usize) -> !;
}

#[unsafe(no_mangle)]
pub extern "C" fn pnode_selftest() -> i32 {
    let text = "rust half is here";
    unsafe { pnode_host_log(text.as_ptr(), text.len()) };
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    let text = "panic";
    unsafe { pnode_host_bug(text.as_ptr(), text.len()) }
}
