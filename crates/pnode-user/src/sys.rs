//! The few system calls that the harness needs, declared by ourselves against the C library that std links anyway.
//!
//! Everything here is a thin wrapper: it turns `-1` into a [`SysError`] and gives a name to a combination of flags.
//! Numbers and layouts are those of Linux on 64-bit machines (`include/uapi/asm-generic/mman*.h`,
//! `include/uapi/linux/userfaultfd.h`, the C library's `struct sigaction`).
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_long, c_ulong, c_void};
use core::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A system call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysError {
    /// The name of the call.
    pub call: &'static str,
    /// What the kernel answered.
    pub errno: i32,
}

impl SysError {
    /// The calling thread's last error, for the call `call` that has just failed.
    fn last(call: &'static str) -> Self {
        Self { call, errno: io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    }

    /// Whether the kernel ran out of memory, address space or mappings.
    pub const fn is_no_memory(self) -> bool {
        self.errno == 12
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, io::Error::from_raw_os_error(self.errno))
    }
}

impl core::error::Error for SysError {}

mod c {
    use super::{c_char, c_int, c_long, c_ulong, c_void};

    unsafe extern "C" {
        pub(super) fn mmap(
            address: *mut c_void,
            bytes: usize,
            protection: c_int,
            flags: c_int,
            fd: c_int,
            offset: i64,
        ) -> *mut c_void;
        pub(super) fn munmap(address: *mut c_void, bytes: usize) -> c_int;
        pub(super) fn mprotect(address: *mut c_void, bytes: usize, protection: c_int) -> c_int;
        pub(super) fn madvise(address: *mut c_void, bytes: usize, advice: c_int) -> c_int;
        pub(super) fn fallocate(fd: c_int, mode: c_int, offset: i64, bytes: i64) -> c_int;
        pub(super) fn memfd_create(name: *const c_char, flags: u32) -> c_int;
        pub(super) fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
        pub(super) fn poll(fds: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
        pub(super) fn eventfd(initial: u32, flags: c_int) -> c_int;
        pub(super) fn syscall(number: c_long, ...) -> c_long;
        pub(super) fn sigaction(signal: c_int, new: *const SigAction, old: *mut SigAction) -> c_int;
        pub(super) fn getrlimit(resource: c_int, limit: *mut [u64; 2]) -> c_int;
        pub(super) fn getauxval(kind: c_ulong) -> c_ulong;
        pub(super) fn __errno_location() -> *mut c_int;
    }

    #[repr(C)]
    pub(super) struct PollFd {
        pub(super) fd: c_int,
        pub(super) events: i16,
        pub(super) revents: i16,
    }

    /// The C library's `struct sigaction`, the same in glibc and musl on the 64-bit machines.
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub(crate) struct SigAction {
        pub(crate) handler: usize,
        pub(crate) mask: [u64; 16],
        pub(crate) flags: c_int,
        pub(crate) restorer: usize,
    }
}

pub(crate) use c::SigAction;

/// What a mapping lets the program do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    None,
    Read,
    ReadWrite,
}

impl Rights {
    const fn bits(self) -> c_int {
        match self {
            Self::None => 0,
            Self::Read => 1,
            Self::ReadWrite => 1 | 2,
        }
    }
}

/// Whether a new mapping has its pages at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    Present,
    Absent,
}

const MAP_SHARED: c_int = 0x01;
const MAP_PRIVATE: c_int = 0x02;
const MAP_FIXED: c_int = 0x10;
const MAP_ANONYMOUS: c_int = 0x20;
const MAP_NORESERVE: c_int = 0x4000;
const MAP_POPULATE: c_int = 0x8000;

/// The size of the kernel's pages in bytes.
pub(crate) fn page_bytes() -> usize {
    const AT_PAGESZ: c_ulong = 6;
    // SAFETY: getauxval reads the process's auxiliary vector and takes any key.
    let bytes = unsafe { c::getauxval(AT_PAGESZ) };
    if bytes == 0 { 4096 } else { bytes as usize }
}

/// A run of addresses that belongs to us, unmapped when dropped.
///
/// # Invariants
///
/// - **M1** `start..start + bytes` is mapped by us and by nobody else, page-aligned, until the drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    start: usize,
    bytes: usize,
}

impl Reservation {
    /// Reserves `bytes` bytes of address space that no access gets through to, and no memory.
    pub(crate) fn new(bytes: usize) -> Result<Self, SysError> {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let start = unsafe { c::mmap(core::ptr::null_mut(), bytes, Rights::None.bits(), flags, -1, 0) };
        if start as isize == -1 {
            return Err(SysError::last("mmap"));
        }
        // INVARIANT: M1 by the kernel's answer.
        Ok(Self { start: start as usize, bytes })
    }

    /// Maps the whole of a memory file, shared, for reading and writing.
    pub(crate) fn of_file(file: BorrowedFd<'_>, bytes: usize) -> Result<Self, SysError> {
        Self::of_part(file, 0, bytes)
    }

    /// Maps a part of a file as [`Reservation::of_file`] does.
    pub(crate) fn of_part(file: BorrowedFd<'_>, offset: usize, bytes: usize) -> Result<Self, SysError> {
        let (rights, offset) = (Rights::ReadWrite.bits(), offset as i64);
        let address = core::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let start = unsafe { c::mmap(address, bytes, rights, MAP_SHARED, file.as_raw_fd(), offset) };
        if start as isize == -1 {
            return Err(SysError::last("mmap"));
        }
        // INVARIANT: M1 by the kernel's answer.
        Ok(Self { start: start as usize, bytes })
    }

    pub(crate) const fn start(&self) -> usize {
        self.start
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn address(&self, offset: usize, bytes: usize) -> *mut c_void {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes), "outside the reservation");
        (self.start + offset) as *mut c_void
    }

    /// Maps `bytes` bytes of a memory file at `file_offset` over what is mapped at `offset`. Atomic for the threads
    /// that touch the addresses meanwhile: they see the old mapping or the new one.
    pub(crate) fn map_file(
        &self,
        offset: usize,
        bytes: usize,
        file: BorrowedFd<'_>,
        file_offset: usize,
        rights: Rights,
        pages: Pages,
    ) -> Result<(), SysError> {
        let address = self.address(offset, bytes);
        let flags = match pages {
            Pages::Present => MAP_SHARED | MAP_FIXED | MAP_POPULATE,
            Pages::Absent => MAP_SHARED | MAP_FIXED,
        };
        let (fd, file_offset) = (file.as_raw_fd(), file_offset as i64);
        // SAFETY: by M1 the replaced addresses are ours; Rust code holds no reference into them (only raw pointers
        // and `crate::fault::copy` reach them).
        let mapped = unsafe { c::mmap(address, bytes, rights.bits(), flags, fd, file_offset) };
        if mapped as isize == -1 { Err(SysError::last("mmap")) } else { Ok(()) }
    }

    /// Maps nothing over what is mapped at `offset`: every touch traps. Atomic as [`Reservation::map_file`].
    pub(crate) fn map_nothing(&self, offset: usize, bytes: usize) -> Result<(), SysError> {
        let address = self.address(offset, bytes);
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
        // SAFETY: as in `map_file`.
        let mapped = unsafe { c::mmap(address, bytes, Rights::None.bits(), flags, -1, 0) };
        if mapped as isize == -1 { Err(SysError::last("mmap")) } else { Ok(()) }
    }

    /// Takes the pages at `offset` out of the page table, and leaves the mapping. The next touch of each faults. Atomic
    /// as [`Reservation::map_file`].
    pub(crate) fn zap(&self, offset: usize, bytes: usize) -> Result<(), SysError> {
        const MADV_DONTNEED: c_int = 4;
        let address = self.address(offset, bytes);
        // SAFETY: by M1 the addresses are ours, and no reference into them exists as in `map_file`. They show memory
        // files, whose bytes stay in the file, or nothing.
        let result = unsafe { c::madvise(address, bytes, MADV_DONTNEED) };
        if result == 0 { Ok(()) } else { Err(SysError::last("madvise")) }
    }

    /// Asks for huge pages behind what is mapped here.
    pub(crate) fn prefer_huge_pages(&self) -> Result<(), SysError> {
        const MADV_HUGEPAGE: c_int = 14;
        // SAFETY: by M1 the addresses are ours, and the advice changes no byte.
        let result = unsafe { c::madvise(self.start as *mut c_void, self.bytes, MADV_HUGEPAGE) };
        if result == 0 { Ok(()) } else { Err(SysError::last("madvise")) }
    }

    /// Lets the memory file that is mapped here have pages of this node of the machine only, whoever touches them.
    pub(crate) fn bind(&self, node: u16) -> Result<(), SysError> {
        const MPOL_BIND: c_long = 2;
        const NODES: usize = 1 << 16;
        let mut mask = vec![0u64; NODES / 64];
        mask[usize::from(node) / 64] |= 1 << (node % 64);
        let words = usize::from(node) / 64 + 1;
        // The kernel reads one bit less than it is told of.
        let bits = words * 64 + 1;
        // SAFETY: the mask has the bits that the kernel reads, and outlives the call, which changes no byte of memory.
        let result = unsafe {
            c::syscall(number::MBIND, self.start, self.bytes, MPOL_BIND, mask.as_ptr(), bits, 0 as c_long)
        };
        if result == 0 { Ok(()) } else { Err(SysError::last("mbind")) }
    }

    /// Changes the rights of what is mapped at `offset`. Atomic as [`Reservation::map_file`].
    pub(crate) fn protect(&self, offset: usize, bytes: usize, rights: Rights) -> Result<(), SysError> {
        let address = self.address(offset, bytes);
        // SAFETY: by M1 the addresses are ours, and no reference into them exists as in `map_file`.
        let result = unsafe { c::mprotect(address, bytes, rights.bits()) };
        if result == 0 { Ok(()) } else { Err(SysError::last("mprotect")) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: by M1 the addresses are ours; whoever drops the reservation holds no pointer that it still uses.
        unsafe { c::munmap(self.start as *mut c_void, self.bytes) };
    }
}

/// Where the pages of a memory file come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// From all of memory.
    Pages,
    /// From the pool of huge pages.
    Huge,
}

/// A file that lives in memory only, `bytes` long and full of zeroes.
pub(crate) fn memory_file(bytes: u64, pool: Pool) -> Result<OwnedFd, SysError> {
    const MFD_CLOEXEC: u32 = 1;
    const MFD_HUGETLB: u32 = 4;
    let flags = match pool {
        Pool::Pages => MFD_CLOEXEC,
        Pool::Huge => MFD_CLOEXEC | MFD_HUGETLB,
    };
    const EFBIG: i32 = 27;
    // A file that grows beyond the process's limit ends the process by a signal, so the limit is looked at first.
    if bytes > file_size_limit() {
        return Err(SysError { call: "ftruncate", errno: EFBIG });
    }
    // SAFETY: the name is a C string with static lifetime.
    let fd = unsafe { c::memfd_create(c"pnode".as_ptr(), flags) };
    let file = File::from(owned(fd, "memfd_create")?);
    file.set_len(bytes)
        .map_err(|error| SysError { call: "ftruncate", errno: error.raw_os_error().unwrap_or(0) })?;
    Ok(file.into())
}

/// Takes the memory of the first `bytes` bytes out of a file; they read as zeroes from then on, through every mapping. False if
/// the file keeps them.
pub(crate) fn forget(file: BorrowedFd<'_>, bytes: usize) -> bool {
    const KEEP_SIZE: c_int = 1;
    const PUNCH_HOLE: c_int = 2;
    // SAFETY: no pointers; mappings of the file stay mappings of it.
    let result = unsafe { c::fallocate(file.as_raw_fd(), KEEP_SIZE | PUNCH_HOLE, 0, bytes as i64) };
    result == 0
}

/// The size of the huge pages of the kernel's pool, in bytes.
pub(crate) fn huge_page_bytes() -> u64 {
    let read = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = read.lines().find_map(|line| line.strip_prefix("Hugepagesize:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.filter(|kib| *kib > 0).map_or(2 << 20, |kib| kib << 10)
}

/// Whether the kernel has huge pages for memory files that ask for them.
pub(crate) fn memory_files_have_huge_pages() -> bool {
    let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    // The word in brackets is the one that holds.
    std::fs::read_to_string(path).is_ok_and(|text| {
        ["[always]", "[within_size]", "[advise]", "[force]"].iter().any(|word| text.contains(word))
    })
}

/// The largest file that the process may write, in bytes.
fn file_size_limit() -> u64 {
    const RLIMIT_FSIZE: c_int = 1;
    let mut limit = [u64::MAX; 2];
    // SAFETY: `limit` has the layout of the kernel's `struct rlimit64`, which is that of `struct rlimit` on 64-bit machines.
    let result = unsafe { c::getrlimit(RLIMIT_FSIZE, &mut limit) };
    if result == 0 { limit[0] } else { u64::MAX }
}

fn owned(fd: RawFd, call: &'static str) -> Result<OwnedFd, SysError> {
    if fd < 0 {
        return Err(SysError::last(call));
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A counter that one thread raises and another waits for.
pub(crate) fn event_fd() -> Result<OwnedFd, SysError> {
    const EFD_CLOEXEC: c_int = 0o2000000;
    // SAFETY: no pointers.
    owned(unsafe { c::eventfd(0, EFD_CLOEXEC) }, "eventfd")
}

/// Waits until one of the two can be read; says which.
pub(crate) fn wait_readable(first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> (bool, bool) {
    const POLLIN: i16 = 1;
    let ready = |fd: RawFd| c::PollFd { fd, events: POLLIN, revents: 0 };
    let mut fds = [ready(first.as_raw_fd()), ready(second.as_raw_fd())];
    // SAFETY: `fds` is an array of two entries that lives over the call.
    unsafe { c::poll(fds.as_mut_ptr(), 2, -1) };
    (fds[0].revents != 0, fds[1].revents != 0)
}

/// Where a userfaultfd may catch faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultScope {
    /// Faults of the program itself only; what an unprivileged process gets.
    UserOnly,
    /// Also those that system calls take on the program's behalf.
    UserAndKernel,
}

/// The numbers of system calls that the C library has no names for.
mod number {
    use super::c_long;

    #[cfg(target_arch = "x86_64")]
    pub(super) const USERFAULTFD: c_long = 323;
    #[cfg(target_arch = "x86_64")]
    pub(super) const MBIND: c_long = 237;
    // Those of the newer machines are the same on all of them.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) const USERFAULTFD: c_long = 282;
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) const MBIND: c_long = 235;
}

/// Opens a userfaultfd.
pub(crate) fn userfaultfd(scope: FaultScope) -> Result<OwnedFd, SysError> {
    const O_CLOEXEC_NONBLOCK: c_long = 0o2000000 | 0o4000;
    const UFFD_USER_MODE_ONLY: c_long = 1;
    let flags = match scope {
        FaultScope::UserOnly => O_CLOEXEC_NONBLOCK | UFFD_USER_MODE_ONLY,
        FaultScope::UserAndKernel => O_CLOEXEC_NONBLOCK,
    };
    // SAFETY: no pointers.
    let fd = unsafe { c::syscall(number::USERFAULTFD, flags) };
    owned(fd as RawFd, "userfaultfd")
}

/// A request of the userfaultfd interface and its argument block.
///
/// # Safety
///
/// The type has the size and layout that the kernel reads and writes for `REQUEST`.
pub(crate) unsafe trait Request {
    const REQUEST: c_ulong;
    const NAME: &'static str;
}

/// Carries out `request`.
pub(crate) fn control<R: Request>(fd: BorrowedFd<'_>, request: &mut R) -> Result<(), SysError> {
    // SAFETY: by `Request` the kernel reads and writes exactly the block behind the exclusive reference.
    let result = unsafe { c::ioctl(fd.as_raw_fd(), R::REQUEST, core::ptr::from_mut(request)) };
    if result == 0 { Ok(()) } else { Err(SysError::last(R::NAME)) }
}

/// What to do on a signal; gives back what was done before.
///
/// # Safety
///
/// `action` names a handler of the shape that its flags say, which lives as long as the process.
pub(crate) unsafe fn set_signal(signal: c_int, action: &SigAction) -> Result<SigAction, SysError> {
    let mut old = SigAction { handler: 0, mask: [0; 16], flags: 0, restorer: 0 };
    // SAFETY: both point to whole structures; the handler is as the caller promises.
    let result = unsafe { c::sigaction(signal, action, &mut old) };
    if result == 0 { Ok(old) } else { Err(SysError::last("sigaction")) }
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> i32 {
    // SAFETY: no arguments; the C library answers with the address of the thread's own cell.
    let cell = unsafe { c::__errno_location() };
    // SAFETY: the cell is valid for the thread's life.
    unsafe { *cell }
}

/// Puts a value that [`errno`] gave back.
pub(crate) fn set_errno(value: i32) {
    // SAFETY: as in `errno`.
    let cell = unsafe { c::__errno_location() };
    // SAFETY: as in `errno`; no other thread uses this cell.
    unsafe { *cell = value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_says_which_and_why() {
        let error = Reservation::new(usize::MAX / 2).unwrap_err();
        assert!(error.is_no_memory());
        assert!(error.to_string().starts_with("mmap: "), "{error}");
    }

    #[test]
    fn a_memory_file_is_seen_through_every_mapping() {
        let page = page_bytes();
        let file = memory_file(4 * page as u64, Pool::Pages).unwrap();
        use std::os::fd::AsFd;
        let all = Reservation::of_file(file.as_fd(), 4 * page).unwrap();
        let window = Reservation::new(2 * page).unwrap();
        window.map_file(page, page, file.as_fd(), 3 * page, Rights::Read, Pages::Present).unwrap();
        // SAFETY: the last page of the four is mapped for writing, and nothing else refers to it.
        unsafe { ((all.start() + 3 * page) as *mut u8).write_volatile(77) };
        // SAFETY: the second page of the window is mapped for reading.
        assert_eq!(unsafe { ((window.start() + page) as *const u8).read_volatile() }, 77);
    }
}
