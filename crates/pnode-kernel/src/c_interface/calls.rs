//! Calls of processes for C: [`calls`](crate::calls) behind numbers.

use core::ptr::NonNull;

use super::{put, status};
use crate::calls::{Call, argument_bytes, decode};
use crate::errno::Errno;
use crate::kernel::Kernel;

/// `struct pnode_call`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallArguments {
    /// `enum pnode_call_kind`.
    pub kind: u32,
    /// Of a disk.
    pub checksums: u32,
    /// The first page of a span, the first byte of memory, or the pages of a disk.
    pub first: u64,
    /// What follows the last one, or the frames of a disk.
    pub end: u64,
}

impl From<Call> for CallArguments {
    fn from(call: Call) -> Self {
        let (kind, checksums, first, end) = match call {
            Call::Query => (0, 0, 0, 0),
            Call::Free(pages) => (1, 0, pages.start, pages.end),
            Call::MoveIn(memory) => (2, 0, memory.start, memory.end),
            Call::MoveOut(memory) => (3, 0, memory.start, memory.end),
            Call::AddDisk { pages, frames, checksums } => (4, checksums, u64::from(pages), frames),
            Call::RemoveDisk => (5, 0, 0, 0),
        };
        Self { kind, checksums, first, end }
    }
}

/// `pnode_call_bytes`.
pub fn call_bytes(command: u32) -> i32 {
    match argument_bytes(command) {
        Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
        Err(errno) => errno.to_return(),
    }
}

/// `pnode_call_decode`.
///
/// # Safety
///
/// `argument` is null or valid for reads of as many bytes as [`call_bytes`] says; `out` is null or valid for a write.
pub unsafe fn call_decode<K: Kernel>(
    _kernel: K,
    command: u32,
    argument: *const u8,
    user_end: u64,
    out: *mut CallArguments,
) -> i32 {
    status((|| {
        let out = NonNull::new(out).ok_or(Errno::EFAULT)?;
        let argument = NonNull::new(argument.cast_mut()).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let argument = unsafe { core::slice::from_raw_parts(argument.as_ptr(), argument_bytes(command)?) };
        let call = decode(command, argument, K::PAGE, user_end)?;
        // SAFETY: by the caller.
        unsafe { put(out, call.into()) };
        Ok(())
    })())
}
