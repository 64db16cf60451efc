//! What a program needs when there is no C library: an entry point, two system calls, the memory routines that compiled
//! code refers to, and a panic handler. x86-64 Linux.

use core::arch::{asm, global_asm};
use core::fmt;

// The kernel enters here with the stack aligned to 16 bytes; a function expects it 8 below that.
global_asm!(".globl _start", "_start:", "xor %ebp, %ebp", "call {main}", "ud2", main = sym crate::start, options(att_syntax));

/// Writes text to standard output.
pub struct Out;

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let written: isize;
            // SAFETY: `write` reads `rest` and changes nothing of ours but the named registers.
            unsafe {
                asm!("syscall", inlateout("rax") 1isize => written, in("rdi") 1, in("rsi") rest.as_ptr(),
                    in("rdx") rest.len(), lateout("rcx") _, lateout("r11") _, options(nostack));
            }
            match usize::try_from(written).ok().and_then(|written| rest.get(written..)) {
                Some(unwritten) if written > 0 => rest = unwritten,
                _ => return Err(fmt::Error),
            }
        }
        Ok(())
    }
}

/// Prints a line.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        use core::fmt::Write;
        // Without a standard output there is nobody to tell; the exit status still says how it went.
        let _ = writeln!($crate::host::Out, $($text)*);
    }};
}

/// Ends the program.
pub fn exit(status: i32) -> ! {
    // SAFETY: `exit_group` does not return.
    unsafe { asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn, nostack)) }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("nostd-proof: {info}");
    exit(101)
}

/// Precompiled `core` names it; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// The memory routines are written in assembly or with volatile reads: a plain loop would be compiled into a call to
// the routine itself.

/// # Safety
///
/// As C's: both ranges are valid for `bytes` bytes and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    // SAFETY: by the caller; the direction flag is clear on entry to every function.
    unsafe {
        asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// As C's: both ranges are valid for `bytes` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= bytes {
        // SAFETY: by the caller, and copying forwards never overwrites what is still to be read.
        return unsafe { memcpy(to, from, bytes) };
    }
    // SAFETY: by the caller; backwards from the last byte, with the direction flag set and cleared again.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") bytes => _, inout("rdi") to.wrapping_add(bytes).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(bytes).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// # Safety
///
/// As C's: the range is valid for `bytes` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, bytes: usize) -> *mut u8 {
    // SAFETY: by the caller; the direction flag is clear on entry to every function.
    unsafe {
        asm!("rep stosb", inout("rcx") bytes => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// As C's: both ranges are valid for `bytes` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    for index in 0..bytes {
        // SAFETY: by the caller, as `index < bytes`.
        let a = unsafe { left.add(index).read_volatile() };
        // SAFETY: as above.
        let b = unsafe { right.add(index).read_volatile() };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
///
/// As C's: both ranges are valid for `bytes` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    // SAFETY: by the caller.
    unsafe { memcmp(left, right, bytes) }
}
