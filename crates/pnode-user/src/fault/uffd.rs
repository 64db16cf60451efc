//! Traps by userfaultfd: the descriptor, the pages that it makes present, and the thread that serves events.
//!
//! Layouts and numbers are those of `include/uapi/linux/userfaultfd.h`; behaviour is that of
//! `Documentation/admin-guide/mm/userfaultfd.rst`.

use core::ffi::c_ulong;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Access, Delivery, Protection, Refused, signal};
use crate::sys::{self, FaultScope, Request, SysError};

const API: u64 = 0xaa;

/// What the kernel must know, by name. Write protection of memory files came last, with Linux 5.19.
const FEATURES: [(u64, &str); 3] = [
    (1 << 5, "UFFD_FEATURE_MISSING_SHMEM"),
    (1 << 10, "UFFD_FEATURE_MINOR_SHMEM"),
    (1 << 12, "UFFD_FEATURE_WP_HUGETLBFS_SHMEM"),
];
/// A fault is a `SIGBUS` of the toucher, and no event.
const FEATURE_SIGBUS: (u64, &str) = (1 << 7, "UFFD_FEATURE_SIGBUS");

const MISSING: u64 = 1;
const PROTECTED: u64 = 2;
const MINOR: u64 = 4;

/// Who waits for a page is woken when the event that he waits for has been served, and by nothing before: what he does
/// next must not overtake the end of the service.
const DONT_WAKE: u64 = 1;

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
struct ZeroPage {
    start: u64,
    bytes: u64,
    mode: u64,
    done: i64,
}

// SAFETY: `struct uffdio_zeropage`, four 64-bit words.
unsafe impl Request for ZeroPage {
    const REQUEST: c_ulong = 0xc020_aa04;
    const NAME: &'static str = "UFFDIO_ZEROPAGE";
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

#[repr(C)]
struct Continue {
    start: u64,
    bytes: u64,
    mode: u64,
    done: i64,
}

// SAFETY: `struct uffdio_continue`, four 64-bit words.
unsafe impl Request for Continue {
    const REQUEST: c_ulong = 0xc020_aa07;
    const NAME: &'static str = "UFFDIO_CONTINUE";
}

/// Which touches of a run of addresses become events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Any touch of a page that is not there.
    Missing,
    /// Writes to pages that are protected.
    Writes,
    /// Any touch of a page of a memory file that was not made [present](Catcher::present) here, and writes to those
    /// that were made present for reading.
    Everything,
}

/// A userfaultfd, and the thread that serves its events if it has any. Dropping it stops the thread.
pub(super) struct Catcher {
    fd: OwnedFd,
    server: Option<Server>,
}

struct Server {
    stop: Arc<File>,
    thread: Option<JoinHandle<()>>,
}

impl Catcher {
    /// Opens a userfaultfd: one whose faults the toucher serves, or one with a thread for them. The second kind has the
    /// widest scope that the kernel grants.
    pub(super) fn start(delivery: Delivery) -> Result<(Self, FaultScope), Refused> {
        let own = || sys::userfaultfd(FaultScope::UserOnly).map_err(Refused::Call);
        let (fd, scope) = match delivery {
            // A signal is no use to a system call, which fails either way.
            Delivery::Toucher => (own()?, FaultScope::UserOnly),
            // As root the kernel's own faults come too. Without privilege asking for them is refused with EPERM.
            Delivery::Thread => match sys::userfaultfd(FaultScope::UserAndKernel) {
                Ok(fd) => (fd, FaultScope::UserAndKernel),
                Err(_) => (own()?, FaultScope::UserOnly),
            },
        };
        let signal = (delivery == Delivery::Toucher).then_some(FEATURE_SIGBUS);
        let wanted = || FEATURES.into_iter().chain(signal);
        let mut api = Api { api: API, features: wanted().fold(0, |all, (bit, _)| all | bit), ioctls: 0 };
        if let Err(error) = sys::control(fd.as_fd(), &mut api) {
            // The kernel answers a refused handshake with the features that it has.
            return Err(match wanted().find(|(bit, _)| api.features & bit == 0) {
                Some((_, name)) => Refused::Feature { name },
                None => Refused::Call(error),
            });
        }
        let server = match delivery {
            Delivery::Toucher => None,
            Delivery::Thread => Some(Server::start(&fd)?),
        };
        Ok((Self { fd, server }, scope))
    }

    /// Who serves a fault.
    pub(super) const fn delivery(&self) -> Delivery {
        match self.server {
            Some(_) => Delivery::Thread,
            None => Delivery::Toucher,
        }
    }

    /// What tells it from other catchers while it lives.
    pub(super) fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Catches touches of `start..start + bytes`.
    pub(super) fn watch(&self, start: usize, bytes: usize, watch: Watch) -> Result<(), SysError> {
        let mode = match watch {
            Watch::Missing => MISSING,
            Watch::Writes => PROTECTED,
            Watch::Everything => MISSING | PROTECTED | MINOR,
        };
        let mut register = Register { start: start as u64, bytes: bytes as u64, mode, ioctls: 0 };
        sys::control(self.fd.as_fd(), &mut register)?;
        match watch {
            Watch::Missing | Watch::Everything => Ok(()),
            Watch::Writes => self.fence(start, bytes, Protection::ReadOnly),
        }
    }

    /// Makes pages present that are in the memory file but not in the page table.
    pub(super) fn present(&self, start: usize, bytes: usize, protection: Protection) -> Result<(), SysError> {
        /// Of `UFFDIO_CONTINUE`, since Linux 6.4.
        const PROTECT: u64 = 2;
        let mode = match protection {
            Protection::ReadOnly => PROTECT | DONT_WAKE,
            Protection::ReadWrite => DONT_WAKE,
        };
        in_parts(bytes, |done| {
            let (start, bytes) = ((start + done) as u64, (bytes - done) as u64);
            let mut request = Continue { start, bytes, mode, done: 0 };
            let result = sys::control(self.fd.as_fd(), &mut request);
            (request.done, result)
        })
    }

    /// Makes pages of zeroes present for writing, which the memory file must not have: `EEXIST` if it has one.
    pub(super) fn zero(&self, start: usize, bytes: usize) -> Result<(), SysError> {
        in_parts(bytes, |done| {
            let (start, bytes) = ((start + done) as u64, (bytes - done) as u64);
            let mut request = ZeroPage { start, bytes, mode: DONT_WAKE, done: 0 };
            let result = sys::control(self.fd.as_fd(), &mut request);
            (request.done, result)
        })
    }

    /// Changes what the pages that are present admit.
    pub(super) fn fence(&self, start: usize, bytes: usize, protection: Protection) -> Result<(), SysError> {
        /// Of `UFFDIO_WRITEPROTECT`, where it is another bit. Protecting wakes nobody and is refused with it.
        const DONT_WAKE: u64 = 2;
        let mode = match protection {
            Protection::ReadOnly => 1,
            Protection::ReadWrite => DONT_WAKE,
        };
        sys::control(self.fd.as_fd(), &mut WriteProtect { start: start as u64, bytes: bytes as u64, mode })
    }
}

/// Calls `step(done)` until all bytes are done. A step says how many bytes it has done, also when it fails; it is made
/// again if it has done any, for the kernel stops in the middle when it likes.
fn in_parts(
    bytes: usize,
    mut step: impl FnMut(usize) -> (i64, Result<(), SysError>),
) -> Result<(), SysError> {
    let mut done = 0;
    loop {
        match step(done) {
            (_, Ok(())) => return Ok(()),
            (part, Err(_)) if part > 0 => done += part as usize,
            (_, Err(error)) => return Err(error),
        }
        if done >= bytes {
            return Ok(());
        }
    }
}

impl Server {
    fn start(fd: &OwnedFd) -> Result<Self, Refused> {
        let refused = |call| {
            move |error: std::io::Error| {
                Refused::Call(SysError { call, errno: error.raw_os_error().unwrap_or(0) })
            }
        };
        let stop = Arc::new(File::from(sys::event_fd().map_err(Refused::Call)?));
        // Of its own, so that reading needs nothing that could fail later.
        let events = File::from(fd.try_clone().map_err(refused("dup"))?);
        let catcher = fd.as_raw_fd();
        let thread = thread::Builder::new()
            .name("pnode-faults".into())
            .spawn({
                let stop = Arc::clone(&stop);
                move || serve_events(events, stop.as_fd(), catcher)
            })
            .map_err(refused("clone"))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
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

fn serve_events(mut events: File, stop: BorrowedFd<'_>, catcher: RawFd) {
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
            serve_event(events.as_fd(), message, catcher);
        }
    }
}

/// Serves one `struct uffd_msg`: the event's number at byte 0; for a page fault, flags at 8 and the address at 16.
fn serve_event(fd: BorrowedFd<'_>, message: &[u8], catcher: RawFd) {
    const EVENT_PAGEFAULT: u8 = 0x12;
    const FLAG_WRITE: u64 = 1;
    const FLAG_PROTECTED: u64 = 2;
    let word = |at: usize| message[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    if message[0] != EVENT_PAGEFAULT {
        return;
    }
    let (flags, address) = (word(8), word(16) as usize);
    let access = if flags & (FLAG_WRITE | FLAG_PROTECTED) != 0 { Access::Write } else { Access::Read };
    // A sleeper that was woken early left an event behind that is read after its view is gone: the addresses may be those of a
    // view of another backend then.
    let served = signal::pager_at(address).filter(|(pager, _)| pager.view().is_caught_by(catcher));
    if let Some((pager, page)) = served {
        if pager.fault(page, access).is_err() {
            // The toucher takes the signal next, and there learns the reason (or a system call fails with EFAULT).
            pager.view().shut(page);
        }
    }
    let page = sys::page_bytes();
    // The view may be gone by now; then nobody sleeps there.
    let _ = sys::control(fd, &mut Wake { start: (address & !(page - 1)) as u64, bytes: page as u64 });
}
