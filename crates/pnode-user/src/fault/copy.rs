//! A byte copy that a fault cannot kill: it stops there and says how much is left.
//!
//! The kernel copies from and to programs in the same way (its exception table, `copy_from_user`). The copy is
//! written in assembly, so the compiler assumes nothing about the bytes: other threads may change them meanwhile.

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.pnode_user_copy,\"ax\",@progbits",
    ".hidden pnode_user_copy",
    ".globl pnode_user_copy",
    ".hidden pnode_user_copy_move",
    ".globl pnode_user_copy_move",
    ".hidden pnode_user_copy_stop",
    ".globl pnode_user_copy_stop",
    "pnode_user_copy:",
    "mov rcx, rdx",
    "pnode_user_copy_move:",
    // A fault leaves rcx at the number of bytes still to copy, and the program counter here.
    "rep movsb",
    "pnode_user_copy_stop:",
    "mov rax, rcx",
    "ret",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.pnode_user_copy,\"ax\",@progbits",
    ".hidden pnode_user_copy",
    ".globl pnode_user_copy",
    ".hidden pnode_user_copy_words",
    ".globl pnode_user_copy_words",
    ".hidden pnode_user_copy_bytes",
    ".globl pnode_user_copy_bytes",
    ".hidden pnode_user_copy_move",
    ".globl pnode_user_copy_move",
    ".hidden pnode_user_copy_stop",
    ".globl pnode_user_copy_stop",
    "pnode_user_copy:",
    "cmp x2, #8",
    "b.lo pnode_user_copy_bytes",
    "pnode_user_copy_words:",
    // The addresses move on after both accesses, so a step that faulted can be taken again.
    "ldr x3, [x1]",
    "str x3, [x0]",
    "add x1, x1, #8",
    "add x0, x0, #8",
    "sub x2, x2, #8",
    "cmp x2, #8",
    "b.hs pnode_user_copy_words",
    "pnode_user_copy_bytes:",
    "cbz x2, pnode_user_copy_stop",
    "pnode_user_copy_move:",
    "ldrb w3, [x1]",
    "strb w3, [x0]",
    "add x1, x1, #1",
    "add x0, x0, #1",
    "sub x2, x2, #1",
    "cbnz x2, pnode_user_copy_move",
    "pnode_user_copy_stop:",
    "mov x0, x2",
    "ret",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
unsafe extern "C" {
    fn pnode_user_copy_words();
    fn pnode_user_copy_bytes();
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
unsafe extern "C" {
    fn pnode_user_copy(to: *mut u8, from: *const u8, count: usize) -> usize;
    fn pnode_user_copy_move();
    fn pnode_user_copy_stop();
}

/// Copies `count` bytes; gives back how many were not copied because an access could not be served (0 is success).
///
/// # Safety
///
/// Both runs of addresses are memory that the caller may read and write in this way (fresh memory of its own, a
/// frame, or addresses of a [`super::View`]), and no Rust reference that promises otherwise covers them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) unsafe fn bytes(to: *mut u8, from: *const u8, count: usize) -> usize {
    // SAFETY: the assembly above reads `count` bytes at `from`, writes them at `to` and touches nothing else.
    unsafe { pnode_user_copy(to, from, count) }
}

/// As elsewhere, but an access that cannot be served ends the process.
///
/// # Safety
///
/// As elsewhere.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) unsafe fn bytes(to: *mut u8, from: *const u8, count: usize) -> usize {
    for index in 0..count {
        // SAFETY: inside the run that the caller vouches for.
        let byte = unsafe { from.wrapping_add(index).read_volatile() };
        // SAFETY: as above.
        unsafe { to.wrapping_add(index).write_volatile(byte) };
    }
    0
}

/// If the program counter stands at the copy above, where it must go on so that the copy stops.
#[cfg(target_arch = "x86_64")]
pub(super) fn stop_at(program_counter: usize) -> Option<usize> {
    let address = |label: unsafe extern "C" fn()| label as *const () as usize;
    (program_counter == address(pnode_user_copy_move)).then(|| address(pnode_user_copy_stop))
}

/// If the program counter stands at the copy above, where it must go on so that the copy stops: a step of eight bytes that may
/// have reached into the next page goes on byte by byte.
#[cfg(target_arch = "aarch64")]
pub(super) fn stop_at(program_counter: usize) -> Option<usize> {
    let address = |label: unsafe extern "C" fn()| label as *const () as usize;
    // The two accesses are the first two instructions, of four bytes each.
    let is_access = |first: usize| (first..first + 8).contains(&program_counter);
    if is_access(address(pnode_user_copy_words)) {
        return Some(address(pnode_user_copy_bytes));
    }
    is_access(address(pnode_user_copy_move)).then(|| address(pnode_user_copy_stop))
}
