//! `pnode_map`: a picture of a node for C.

use core::fmt;
use core::ptr::NonNull;

use super::{NodeHandle, handle, status};
use crate::errno::Errno;
use crate::kernel::Kernel;

/// The most columns or rows.
const LARGEST: u32 = 1024;

/// Text in memory of the caller, with room kept for the zero at its end.
struct Text<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end =
            self.used.checked_add(part.len()).filter(|end| *end < self.bytes.len()).ok_or(fmt::Error)?;
        self.bytes.get_mut(self.used..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
        self.used = end;
        Ok(())
    }
}

/// `pnode_map`.
///
/// # Safety
///
/// `node` is null or a live node; `text` is null or valid for writes of `bytes` bytes that nobody else uses meanwhile.
pub unsafe fn map<K: Kernel>(
    node: *mut NodeHandle<K>,
    columns: u32,
    rows: u32,
    text: *mut u8,
    bytes: u32,
) -> i32 {
    status((|| {
        let text = NonNull::new(text).ok_or(Errno::EFAULT)?;
        // SAFETY: by the caller.
        let node = unsafe { handle(node) }?;
        if !(1..=LARGEST).contains(&columns) || !(1..=LARGEST).contains(&rows) {
            return Err(Errno::EINVAL);
        }
        let len = usize::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        // SAFETY: by the caller the bytes are ours; memory of the kernel is initialised.
        let bytes = unsafe { core::slice::from_raw_parts_mut(text.as_ptr(), len) };
        let mut text = Text { bytes, used: 0 };
        let drawn = node.map(columns as usize, rows as usize, &mut text);
        // Only what is whole is shown.
        let end = if drawn.is_ok() { text.used } else { 0 };
        if let Some(byte) = text.bytes.get_mut(end) {
            *byte = 0;
        }
        drawn
    })())
}
