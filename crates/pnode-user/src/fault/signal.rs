//! Traps by `SIGSEGV` and `SIGBUS`, and the process's table of who serves which addresses.
//!
//! A signal handler belongs to the process, so this is the one place of the workspace with statics: the handler that
//! was there before ours, and the table. All backends use the table.
//!
//! The handler runs on the stack of the thread that trapped, not on the small alternate one: a pager may compress.
//! It takes locks, which is sound because the signal is synchronous: a thread is interrupted only at an instruction
//! that touches a view, and no code touches a view while it holds one of our locks (see [`super::Pager`]).

use core::ffi::{c_int, c_void};
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use pnode_core::PageSize;

use super::{Access, FaultError, Pager, copy};
use crate::sys::{self, SigAction, SysError};

struct Served {
    start: usize,
    bytes: usize,
    page: PageSize,
    pager: Weak<dyn Pager>,
}

/// Sorted by start; the runs do not overlap, because each is a mapping of its own.
static TABLE: RwLock<Vec<Served>> = RwLock::new(Vec::new());
/// What the process did on each of [`SIGNALS`] before us.
static PREVIOUS: [OnceLock<SigAction>; 2] = [OnceLock::new(), OnceLock::new()];

/// `SIGBUS` and `SIGSEGV`.
const SIGNALS: [c_int; 2] = [7, 11];
const SA_SIGINFO: c_int = 4;
/// The signal is not blocked while its handler runs, which spares the kernel two changes of the thread's mask. The handler
/// takes no fault of ours: pagers touch no view.
const SA_NODEFER: c_int = 0x4000_0000;

/// Installs the handler, once for the process.
pub(super) fn install() -> Result<(), SysError> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    for (signal, previous) in
        SIGNALS.into_iter().zip(&PREVIOUS).filter(|(_, previous)| previous.get().is_none())
    {
        let handler = on_signal as extern "C" fn(c_int, *const c_void, *mut c_void) as usize;
        let action = SigAction { handler, mask: [0; 16], flags: SA_SIGINFO | SA_NODEFER, restorer: 0 };
        // SAFETY: `on_signal` is a function with the three arguments that SA_SIGINFO promises.
        let before = unsafe { sys::set_signal(signal, &action) }?;
        let _ = previous.set(before);
    }
    Ok(())
}

pub(super) fn attach(start: usize, bytes: usize, page: PageSize, pager: Weak<dyn Pager>) {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    let place = table.partition_point(|served| served.start < start);
    table.insert(place, Served { start, bytes, page, pager });
}

pub(super) fn detach(start: usize) {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    table.retain(|served| served.start != start);
}

/// Who serves `address`, and which page of its view that is.
pub(super) fn pager_at(address: usize) -> Option<(Arc<dyn Pager>, usize)> {
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    let before = table.partition_point(|served| served.start <= address);
    let served = table.get(before.checked_sub(1)?)?;
    let offset = address - served.start;
    let pager = (offset < served.bytes).then(|| served.pager.upgrade())??;
    Some((pager, offset >> served.page.shift()))
}

extern "C" fn on_signal(signal: c_int, info: *const c_void, context: *mut c_void) {
    let errno = sys::errno();
    // SAFETY: the kernel hands a `siginfo_t`, whose `si_addr` stands at byte 16 on the 64-bit machines.
    let address = unsafe { info.wrapping_byte_add(16).cast::<usize>().read() };
    let served = pager_at(address).map(|(pager, page)| pager.fault(page, access(context)));
    match served {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            if !stop_copy(context) {
                report(address, error);
                pass_on(signal, info, context);
            }
        }
        None => pass_on(signal, info, context),
    }
    sys::set_errno(errno);
}

#[cfg(target_arch = "x86_64")]
mod context {
    //! Where the registers stand in the `ucontext_t` of Linux on x86-64: 40 bytes of head, then `gregs`.
    pub(super) const PROGRAM_COUNTER: usize = 40 + 16 * 8;
    pub(super) const FAULT_CODE: usize = 40 + 19 * 8;
    /// Bit 1 of the processor's fault code: the access was a write.
    pub(super) const WRITE: u64 = 2;
}

#[cfg(target_arch = "x86_64")]
fn access(context: *const c_void) -> Access {
    // SAFETY: the kernel hands a `ucontext_t` that lives until the handler returns; the field is inside it.
    let code = unsafe { context.wrapping_byte_add(context::FAULT_CODE).cast::<u64>().read() };
    if code & context::WRITE != 0 { Access::Write } else { Access::Read }
}

#[cfg(target_arch = "aarch64")]
mod context {
    //! Where the registers stand in the `ucontext_t` of Linux on aarch64: 168 bytes of head and 8 of padding, then the
    //! `sigcontext`, whose records begin at a multiple of 16 after `pstate`.
    pub(super) const PROGRAM_COUNTER: usize = 176 + 264;
    pub(super) const RECORDS: usize = 176 + 288;
    pub(super) const RECORDS_BYTES: usize = 4096;
    /// The record with the fault's syndrome, which stands at its byte 8.
    pub(super) const SYNDROME_MAGIC: u32 = 0x4553_5201;
    /// Bit 6 of the syndrome of a data abort: the access was a write.
    pub(super) const WRITE: u64 = 1 << 6;
    /// The class of a syndrome, and that of data aborts of programs.
    pub(super) const CLASS_SHIFT: u32 = 26;
    pub(super) const DATA_ABORT: u64 = 0x24;
}

#[cfg(target_arch = "aarch64")]
fn access(context: *const c_void) -> Access {
    let mut at = 0;
    // A record is a magic number and its own size; one without a size is the last.
    while at + 16 <= context::RECORDS_BYTES {
        let record = context.wrapping_byte_add(context::RECORDS + at);
        // SAFETY: the kernel hands a `ucontext_t` that lives until the handler returns; the records are inside it.
        let [magic, size] = unsafe { record.cast::<[u32; 2]>().read() };
        if magic == context::SYNDROME_MAGIC {
            // SAFETY: as above; the record has 16 bytes.
            let syndrome = unsafe { record.wrapping_byte_add(8).cast::<u64>().read() };
            if syndrome >> context::CLASS_SHIFT & 0x3f != context::DATA_ABORT {
                return Access::Unknown;
            }
            return if syndrome & context::WRITE != 0 { Access::Write } else { Access::Read };
        }
        if size == 0 {
            break;
        }
        at += size as usize;
    }
    Access::Unknown
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn access(_context: *const c_void) -> Access {
    Access::Unknown
}

/// Lets an interrupted [`copy::bytes`] return early; false if something else was interrupted.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn stop_copy(context: *mut c_void) -> bool {
    let counter = context.wrapping_byte_add(context::PROGRAM_COUNTER).cast::<usize>();
    // SAFETY: as in `access`.
    let Some(stop) = copy::stop_at(unsafe { counter.read() }) else { return false };
    // SAFETY: as in `access`; the copy's own code goes on at `stop` with the registers as they are.
    unsafe { counter.write(stop) };
    true
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn stop_copy(_context: *mut c_void) -> bool {
    false
}

/// One sentence before the process ends. Straight to the descriptor: the thread may hold the lock of `stderr`.
fn report(address: usize, error: FaultError) {
    // SAFETY: descriptor 2 is open or the write fails; `ManuallyDrop` keeps it open.
    let mut stderr = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(2) });
    let _ = writeln!(*stderr, "pnode: an access to {address:#x} cannot be served: {error}");
}

/// Does what the process did on this signal before us.
fn pass_on(signal: c_int, info: *const c_void, context: *mut c_void) {
    const SIG_DFL: usize = 0;
    const SIG_IGN: usize = 1;
    let default = SigAction { handler: SIG_DFL, mask: [0; 16], flags: 0, restorer: 0 };
    let previous = SIGNALS.into_iter().zip(&PREVIOUS).find(|(of, _)| *of == signal);
    let previous = previous.and_then(|(_, previous)| previous.get().copied()).unwrap_or(default);
    if previous.handler == SIG_DFL || previous.handler == SIG_IGN {
        // The instruction runs again and ends the process, with the core dump that it would have had without us.
        // SAFETY: the default action needs no handler.
        let _ = unsafe { sys::set_signal(signal, &default) };
    } else if previous.flags & SA_SIGINFO != 0 {
        // SAFETY: the process installed a function of this shape (SA_SIGINFO) at this address.
        let handler = unsafe {
            core::mem::transmute::<usize, extern "C" fn(c_int, *const c_void, *mut c_void)>(previous.handler)
        };
        handler(signal, info, context);
    } else {
        // SAFETY: without SA_SIGINFO a handler takes the signal's number only.
        let handler = unsafe { core::mem::transmute::<usize, extern "C" fn(c_int)>(previous.handler) };
        handler(signal);
    }
}
