//! Traps by userfaultfd: the descriptor, and the thread that serves its events.
//!
//! Layouts and numbers are those of `include/uapi/linux/userfaultfd.h`; behaviour is that of
//! `Documentation/admin-guide/mm/userfaultfd.rst`.

use core::ffi::c_ulong;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Access, Refused, signal};
use crate::sys::{self, FaultScope, Request, SysError};

const API: u64 = 0xaa;
/// Write protection of mappings of memory files.
const FEATURE_WP_SHMEM: u64 = 1 << 12;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

// SAFETY: `struct uffdio_api`, three 64-bit words.
unsafe impl Request for Api {
    const REQUEST: c_ulong = 0xc018_aa3f;
    const NAME: &'static str = "UFFDIO_API";
}

#[repr(C)]
struct Register {
    start: u64,
    bytes: u64,
    mode: u64,
    ioctls: u64,
}

// SAFETY: `struct uffdio_register`, four 64-bit words.
unsafe impl Request for Register {
    const REQUEST: c_ulong = 0xc020_aa00;
    const NAME: &'static str = "UFFDIO_REGISTER";
}

#[repr(C)]
struct Wake {
    start: u64,
    bytes: u64,
}

// SAFETY: `struct uffdio_range`, two 64-bit words.
unsafe impl Request for Wake {
    const REQUEST: c_ulong = 0x8010_aa02;
    const NAME: &'static str = "UFFDIO_WAKE";
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    bytes: u64,
    mode: u64,
}

// SAFETY: `struct uffdio_writeprotect`, three 64-bit words.
unsafe impl Request for WriteProtect {
    const REQUEST: c_ulong = 0xc018_aa06;
    const NAME: &'static str = "UFFDIO_WRITEPROTECT";
}

/// Which touches of a run of addresses become events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Any touch of a page that is not there.
    Missing,
    /// Writes to pages that are protected.
    Writes,
}

/// A userfaultfd and the thread that serves it. Dropping it stops the thread.
pub(super) struct Catcher {
    fd: OwnedFd,
    stop: Arc<File>,
    thread: Option<JoinHandle<()>>,
}

impl Catcher {
    /// Opens a userfaultfd with the widest scope that the kernel grants, and starts the thread.
    pub(super) fn start() -> Result<(Self, FaultScope), Refused> {
        // As root the kernel's own faults come too. Without privilege asking for them is refused with EPERM.
        let (fd, scope) = match sys::userfaultfd(FaultScope::UserAndKernel) {
            Ok(fd) => (fd, FaultScope::UserAndKernel),
            Err(_) => (sys::userfaultfd(FaultScope::UserOnly).map_err(Refused::Call)?, FaultScope::UserOnly),
        };
        // The kernel answers a refused handshake with the features that it has.
        let mut api = Api { api: API, features: FEATURE_WP_SHMEM, ioctls: 0 };
        if let Err(error) = sys::control(fd.as_fd(), &mut api) {
            let lacking = api.features & FEATURE_WP_SHMEM == 0;
            return Err(match lacking {
                true => Refused::Feature { name: "UFFD_FEATURE_WP_HUGETLBFS_SHMEM" },
                false => Refused::Call(error),
            });
        }
        let stop = Arc::new(File::from(sys::event_fd().map_err(Refused::Call)?));
        let thread = thread::Builder::new()
            .name("pnode-faults".into())
            .spawn({
                // Of its own, so that reading needs nothing that could fail later.
                let events = fd.try_clone().map_err(|error| {
                    Refused::Call(SysError { call: "dup", errno: error.raw_os_error().unwrap_or(0) })
                })?;
                let stop = Arc::clone(&stop);
                move || serve_events(File::from(events), stop.as_fd())
            })
            .map_err(|error| {
                Refused::Call(SysError { call: "clone", errno: error.raw_os_error().unwrap_or(0) })
            })?;
        Ok((Self { fd, stop, thread: Some(thread) }, scope))
    }

    /// Turns touches of `start..start + bytes` into events.
    pub(super) fn watch(&self, start: usize, bytes: usize, watch: Watch) -> Result<(), SysError> {
        let (start, bytes) = (start as u64, bytes as u64);
        let mode = match watch {
            Watch::Missing => 1,
            Watch::Writes => 2,
        };
        sys::control(self.fd.as_fd(), &mut Register { start, bytes, mode, ioctls: 0 })?;
        match watch {
            Watch::Missing => Ok(()),
            Watch::Writes => sys::control(self.fd.as_fd(), &mut WriteProtect { start, bytes, mode: 1 }),
        }
    }
}

impl Drop for Catcher {
    fn drop(&mut self) {
        let _ = (&*self.stop).write_all(&1u64.to_ne_bytes());
        let Some(thread) = self.thread.take() else { return };
        // A pager that the thread keeps alive for the length of one event may own the last reference to us.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// How long the thread looks for the next event before it sleeps. Who walks through memory faults again at once, and
/// waking a sleeper costs several times what a fault does.
const PATIENCE: Duration = Duration::from_micros(50);

/// Ends the process if the thread unwinds: threads that wait for it would wait for ever.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

fn serve_events(mut events: File, stop: BorrowedFd<'_>) {
    const MESSAGE: usize = 32;
    let _guard = AbortOnUnwind;
    let mut messages = [0u8; 16 * MESSAGE];
    let mut last = Instant::now();
    loop {
        if last.elapsed() > PATIENCE {
            let (_, stopped) = sys::wait_readable(events.as_fd(), stop);
            if stopped {
                return;
            }
        }
        // Nothing to read (EAGAIN) after a wake-up means that the toucher left: its mapping has changed.
        let read = events.read(&mut messages).unwrap_or(0);
        if read > 0 {
            last = Instant::now();
        }
        for message in messages[..read].chunks_exact(MESSAGE) {
            serve_event(events.as_fd(), message);
        }
    }
}

/// Serves one `struct uffd_msg`: the event's number at byte 0; for a page fault, flags at 8 and the address at 16.
fn serve_event(fd: BorrowedFd<'_>, message: &[u8]) {
    const EVENT_PAGEFAULT: u8 = 0x12;
    const FLAG_WRITE: u64 = 1;
    const FLAG_PROTECTED: u64 = 2;
    let word = |at: usize| message[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    if message[0] != EVENT_PAGEFAULT {
        return;
    }
    let (flags, address) = (word(8), word(16) as usize);
    let access = if flags & (FLAG_WRITE | FLAG_PROTECTED) != 0 { Access::Write } else { Access::Read };
    if let Some((pager, page)) = signal::pager_at(address) {
        if pager.fault(page, access).is_err() {
            // The toucher takes the signal next, and there learns the reason (or a system call fails with EFAULT).
            pager.view().shut(page);
        }
    }
    let page = sys::page_bytes();
    // The view may be gone by now; then nobody sleeps there.
    let _ = sys::control(fd, &mut Wake { start: (address & !(page - 1)) as u64, bytes: page as u64 });
}
