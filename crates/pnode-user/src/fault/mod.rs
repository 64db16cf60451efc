//! Real page faults: who catches them, and the addresses that take them.
//!
//! A [`View`] is a run of addresses of which the kernel has mapped only what we mapped. Any other touch *traps*, and
//! the trap calls the view's [`Pager`], which maps something there; then the touching instruction runs again.
//! There are three backends:
//!
//! | backend | how a touch reaches us | who runs the pager | what maps a page |
//! | --- | --- | --- | --- |
//! | userfaultfd | `SIGBUS` to the toucher | the toucher, inside its signal handler | an entry of the page table |
//! | userfaultfd, events | the kernel queues an event and the toucher sleeps | the backend's own thread | the same |
//! | signal | `SIGSEGV` to the toucher | the toucher, inside its signal handler | a mapping of its own |
//!
//! Under userfaultfd a view may [lay](View::lay) a run of frames in one mapping and make its pages present one by one
//! (`UFFDIO_CONTINUE`); without, and for frames that lie apart, each page takes a mapping (`mmap`). The signal is also the
//! net of the other two: no system call both replaces a mapping and puts it under userfaultfd, so in between the
//! addresses admit nobody and a toucher gets the signal. The net makes every change of a mapping atomic for the program.
//!
//! With privilege, the events backend lets system calls that touch such addresses (`read(2)` into them) wait for the pager
//! too. Elsewhere they fail with `EFAULT` where a page is not present. Events cost several times what a signal costs:
//! two switches between threads.
//!
//! A pager must not touch addresses of any view itself, and must not wait for a lock that a thread may hold while it
//! touches them.
#![allow(unsafe_code)]

use core::fmt;
use std::sync::{Arc, Weak};

use pnode_compress::cram;
use pnode_core::policy::PlaceError;
use pnode_core::sync::{AtomicUsize, Ordering};
use pnode_core::{AllocError, Denied, NodeId};

use crate::sys::{FaultScope, SysError};

pub(crate) mod copy;
mod signal;
mod slot;
mod uffd;
mod view;

pub(crate) use view::Standing;
pub use view::{Protection, View};

/// Who serves a fault that a userfaultfd caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// The thread that touched the page, in a signal handler.
    Toucher,
    /// A thread of its own.
    Thread,
}

/// What a program did when it trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It read.
    Read,
    /// It wrote.
    Write,
    /// The machine does not say. A page that is mapped can only have trapped because of a write.
    Unknown,
}

/// Who serves the faults of a [`View`].
pub trait Pager: Send + Sync {
    /// The view that it serves.
    fn view(&self) -> &View;

    /// Serves a touch of page `page` of the view: maps something there that admits the access.
    ///
    /// Called at once by any number of threads, also for a page that is mapped by now.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if nothing can be mapped. A copy by the harness then stops and reports it; any other program
    /// ends, as the kernel would end it.
    fn fault(&self, page: usize, access: Access) -> Result<(), FaultError>;
}

/// Why a fault could not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultError {
    /// There is no frame for the page.
    NoFrame(AllocError),
    /// The page belongs on a node that does not let it in.
    Denied(Denied),
    /// The policies of a process found no frame for the page.
    NoPlace(PlaceError),
    /// A write to what the process may only read.
    ReadOnly,
    /// The page is stored on a compressed node, which does not give it back.
    Stored(cram::FaultError),
    /// The kernel refused a mapping.
    Kernel(SysError),
    /// Single frames of the node cannot be mapped.
    WholeOnly {
        /// The node.
        node: NodeId,
    },
    /// Nothing is mapped at this address of the program: it was unmapped, or never mapped.
    NotMapped,
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrame(error) => error.fmt(f),
            Self::Denied(denied) => denied.fmt(f),
            Self::NoPlace(error) => error.fmt(f),
            Self::ReadOnly => f.write_str("the process may only read this; give it the right to write"),
            Self::Stored(error) => error.fmt(f),
            Self::Kernel(error) => {
                write!(f, "the kernel refused a mapping ({error}); raise the limit it names")
            }
            Self::WholeOnly { node } => {
                write!(f, "single frames of {node:?} cannot be mapped; move the page elsewhere")
            }
            Self::NotMapped => f.write_str("nothing is mapped at this address; map it first"),
        }
    }
}

impl core::error::Error for FaultError {}

impl From<cram::FaultError> for FaultError {
    fn from(error: cram::FaultError) -> Self {
        Self::Stored(error)
    }
}

/// Which backend to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// userfaultfd where the kernel allows it, else signals.
    #[default]
    Best,
    /// userfaultfd or an error.
    Userfaultfd,
    /// userfaultfd with a thread that serves events, or an error: slower, but system calls wait for pages too if the
    /// process has the privilege.
    UserfaultfdEvents,
    /// Signals.
    Signal,
}

impl Choice {
    /// The choice that the environment variable `PNODE_FAULTS` states: `userfaultfd`, `userfaultfd-events`, `signal`, or
    /// `best` (also if it is not set).
    ///
    /// # Errors
    ///
    /// [`BackendError::UnknownChoice`] for anything else.
    pub fn from_env() -> Result<Self, BackendError> {
        match std::env::var_os("PNODE_FAULTS").as_ref().map(|value| value.as_encoded_bytes()) {
            None | Some(b"" | b"best") => Ok(Self::Best),
            Some(b"userfaultfd") => Ok(Self::Userfaultfd),
            Some(b"userfaultfd-events") => Ok(Self::UserfaultfdEvents),
            Some(b"signal") => Ok(Self::Signal),
            Some(_) => Err(BackendError::UnknownChoice),
        }
    }
}

/// The backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// A userfaultfd catches faults, and sends `SIGBUS` to who touched the page.
    Userfaultfd,
    /// Faults are events of a userfaultfd.
    UserfaultfdEvents,
    /// Faults are `SIGSEGV` signals.
    Signal,
}

/// Why no backend could be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendError {
    /// `PNODE_FAULTS` names no backend.
    UnknownChoice,
    /// userfaultfd was asked for and is not to be had.
    Userfaultfd(Refused),
    /// The signal handler could not be installed.
    Signal(SysError),
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownChoice => {
                f.write_str("PNODE_FAULTS is none of best, userfaultfd, userfaultfd-events and signal")
            }
            Self::Userfaultfd(refused) => write!(f, "no page faults by userfaultfd: {refused}"),
            Self::Signal(error) => write!(f, "no page faults by signals: {error}"),
        }
    }
}

impl core::error::Error for BackendError {}

/// Why userfaultfd cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// A system call failed.
    Call(SysError),
    /// The kernel does not know a feature that we need.
    Feature {
        /// The feature's name in `linux/userfaultfd.h`.
        name: &'static str,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Feature { name } => write!(f, "this kernel lacks {name}"),
        }
    }
}

/// The catcher of page faults, shared by all views of a machine.
pub struct Backend {
    uffd: Option<uffd::Catcher>,
    reason: Reason,
    budget: Budget,
}

#[derive(Clone, Copy)]
enum Reason {
    InToucher,
    Privileged,
    UserMode,
    AskedFor,
    Refused(Refused),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InToucher => {
                f.write_str("faults of the program itself, served by the thread that takes them")
            }
            Self::Privileged => f.write_str("privileged: system calls wait for pages too"),
            Self::UserMode => f.write_str("unprivileged: faults of the program itself"),
            Self::AskedFor => f.write_str("asked for"),
            Self::Refused(refused) => write!(f, "userfaultfd is not to be had: {refused}"),
        }
    }
}

impl Backend {
    /// Starts a backend.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if what `choice` admits cannot be had.
    pub fn start(choice: Choice) -> Result<Arc<Self>, BackendError> {
        // All kinds need the handler: it is also the net of events.
        signal::install().map_err(BackendError::Signal)?;
        let (uffd, reason) = match choice {
            Choice::Signal => (None, Reason::AskedFor),
            Choice::UserfaultfdEvents => match uffd::Catcher::start(Delivery::Thread) {
                Ok((catcher, FaultScope::UserAndKernel)) => (Some(catcher), Reason::Privileged),
                Ok((catcher, FaultScope::UserOnly)) => (Some(catcher), Reason::UserMode),
                Err(refused) => return Err(BackendError::Userfaultfd(refused)),
            },
            Choice::Best | Choice::Userfaultfd => match uffd::Catcher::start(Delivery::Toucher) {
                Ok((catcher, _)) => (Some(catcher), Reason::InToucher),
                Err(refused) if choice == Choice::Best => (None, Reason::Refused(refused)),
                Err(refused) => return Err(BackendError::Userfaultfd(refused)),
            },
        };
        Ok(Arc::new(Self { uffd, reason, budget: Budget::of_this_process() }))
    }

    /// As [`Backend::start`], but at most `mappings` kernel mappings are kept at a time (see [`View`]).
    ///
    /// # Errors
    ///
    /// As [`Backend::start`].
    pub fn start_with_budget(choice: Choice, mappings: usize) -> Result<Arc<Self>, BackendError> {
        let mut backend = Self::start(choice)?;
        if let Some(backend) = Arc::get_mut(&mut backend) {
            backend.budget.limit = mappings;
        }
        Ok(backend)
    }

    /// Which backend this is.
    pub const fn kind(&self) -> BackendKind {
        match &self.uffd {
            Some(catcher) => match catcher.delivery() {
                Delivery::Toucher => BackendKind::Userfaultfd,
                Delivery::Thread => BackendKind::UserfaultfdEvents,
            },
            None => BackendKind::Signal,
        }
    }

    /// How many kernel mappings the views hold now.
    pub fn mappings(&self) -> usize {
        self.budget.used.load(Ordering::Relaxed)
    }

    /// How many kernel mappings the views try to stay below.
    pub const fn mapping_limit(&self) -> usize {
        self.budget.limit
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind() {
            BackendKind::Userfaultfd => "userfaultfd",
            BackendKind::UserfaultfdEvents => "userfaultfd events",
            BackendKind::Signal => "SIGSEGV handler",
        };
        write!(f, "{name} ({})", self.reason)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({self})")
    }
}

/// How many mappings of the kernel (`vm.max_map_count`) the views may take together.
struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// Three quarters of what the process has left: the rest is for its other libraries and threads.
    fn of_this_process() -> Self {
        let most = std::fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse::<usize>().ok())
            .unwrap_or(65_530);
        let taken = std::fs::read_to_string("/proc/self/maps").map_or(0, |text| text.lines().count());
        Self { limit: most.saturating_sub(taken) / 4 * 3, used: AtomicUsize::new(0) }
    }
}

/// Announces that `pager` serves the addresses of its view, until the view is dropped.
pub fn attach<P: Pager + 'static>(pager: &Arc<P>) {
    let view = pager.view();
    let weak: Weak<dyn Pager> = Arc::<P>::downgrade(pager);
    signal::attach(view.start(), view.pages() * view.page().bytes(), view.page(), weak);
}

/// Copies bytes of a view to `bytes`, from byte `offset` of the view on, by touching them.
///
/// # Errors
///
/// [`FaultError`] if some page cannot be served; the bytes before it have been copied.
pub fn read<P: Pager>(pager: &P, offset: usize, bytes: &mut [u8]) -> Result<(), FaultError> {
    let to = bytes.as_mut_ptr();
    touch(pager, offset, bytes.len(), Access::Read, |address, done, count| {
        // SAFETY: `to` is `bytes`, of which `done + count` exist; the source is a part of the view, which the pager
        // owns and `touch` has checked.
        unsafe { copy::bytes(to.wrapping_add(done), address as *const u8, count) }
    })
}

/// Copies `bytes` into a view, from byte `offset` of the view on, by touching it.
///
/// # Errors
///
/// [`FaultError`] if some page cannot be served; the bytes before it have been copied.
pub fn write<P: Pager>(pager: &P, offset: usize, bytes: &[u8]) -> Result<(), FaultError> {
    let from = bytes.as_ptr();
    touch(pager, offset, bytes.len(), Access::Write, |address, done, count| {
        // SAFETY: as in `read`; no Rust reference into a view exists.
        unsafe { copy::bytes(address as *mut u8, from.wrapping_add(done), count) }
    })
}

/// Calls `copy(address, done, count)`, which says how many bytes it left, until nothing is left.
fn touch<P: Pager>(
    pager: &P,
    offset: usize,
    bytes: usize,
    access: Access,
    copy: impl Fn(usize, usize, usize) -> usize,
) -> Result<(), FaultError> {
    let view = pager.view();
    let end = offset.checked_add(bytes).filter(|end| *end <= view.pages() * view.page().bytes());
    if end.is_none() {
        return Err(FaultError::NotMapped);
    }
    let mut done = 0;
    while done < bytes {
        let left = copy(view.start() + offset + done, done, bytes - done);
        done = bytes - left;
        if left > 0 {
            // The copy stopped at a page that the pager could not serve; ask why. It may be able to by now.
            pager.fault((offset + done) >> view.page().shift(), access)?;
        }
    }
    Ok(())
}
