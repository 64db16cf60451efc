//! What the memory of a node is made of, and why it cannot be.

use core::fmt;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::{self, Pool, Reservation, SysError};

/// What the memory of a node is made of.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Memory {
    /// A file in memory.
    #[default]
    File,
    /// A file in memory, of huge pages where the kernel finds them (`shmem_enabled` of transparent huge pages). Everything works
    /// as on [`Memory::File`], and accesses through a heap or by a driver miss the TLB less often.
    Huge,
    /// A file of huge pages from the kernel's pool (`vm.nr_hugepages`), all of them taken at once. No single frame of it can be
    /// mapped, so it is for private nodes with every door shut, whose driver uses blocks and heaps.
    HugeTlb,
    /// A file in memory that has its pages on this node of the real machine only.
    Numa(u16),
    /// This device (`/dev/dax0.0`), or a file that stands for one. Nobody else may use it meanwhile. It keeps what is written
    /// to it, and has old bytes when it is taken. A device whose mappings are aligned to more than a page is for private nodes
    /// with every door shut, as [`Memory::HugeTlb`].
    Device(PathBuf),
}

/// Why memory could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The kernel refused.
    Kernel(SysError),
    /// The kernel gives memory files no huge pages.
    NoTransparentPages,
    /// The kernel's pool has too few huge pages.
    Pool {
        /// How many are needed.
        pages: u64,
        /// The size of each, in bytes.
        bytes: u64,
    },
    /// The machine has no such node with memory, or the process may not use it.
    NoNumaNode {
        /// The node.
        node: u16,
    },
    /// The device cannot be used.
    Device(SysError),
    /// The device is too small.
    TooSmall {
        /// How many bytes are needed.
        needed: u64,
        /// How many it has.
        bytes: u64,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => write!(f, "{error}; make the machine smaller"),
            Self::NoTransparentPages => f.write_str(
                "the kernel gives memory files no huge pages; write advise to \
                 /sys/kernel/mm/transparent_hugepage/shmem_enabled, or leave memory huge out",
            ),
            Self::Pool { pages, bytes } => write!(
                f,
                "the kernel's pool lacks {pages} free huge pages of {} KiB; raise vm.nr_hugepages by so many, or say memory huge",
                bytes >> 10
            ),
            Self::NoNumaNode { node } => write!(
                f,
                "this machine has no node {node} with memory that the process may use; /sys/devices/system/node/has_memory \
                 lists what it has"
            ),
            Self::Device(error) => {
                write!(f, "its device cannot be used ({error}); name one that the process may read and write")
            }
            Self::TooSmall { needed, bytes } => {
                write!(f, "its device has {bytes} bytes of the {needed} that it needs; make the node smaller")
            }
        }
    }
}

impl core::error::Error for MemoryError {}

impl From<SysError> for MemoryError {
    fn from(error: SysError) -> Self {
        Self::Kernel(error)
    }
}

/// Memory that is mapped, with what its file is good for.
pub(super) struct Made {
    pub(super) file: OwnedFd,
    pub(super) direct: Reservation,
    /// Whether frames that nobody used are known to be zero, and made by the kernel at their first touch.
    pub(super) is_fresh: bool,
    /// Whether single frames can be mapped.
    pub(super) shows_frames: bool,
    /// Whether a run of frames can be laid that is shown page by page: only files in memory have that.
    pub(super) is_in_memory: bool,
}

impl Memory {
    /// `length` bytes of it.
    pub(super) fn make(&self, length: usize) -> Result<Made, MemoryError> {
        let bytes = length as u64;
        match self {
            Self::File => Ok(Made::in_memory(sys::memory_file(bytes, Pool::Pages)?, length)?),
            Self::Huge => {
                if !sys::memory_files_have_huge_pages() {
                    return Err(MemoryError::NoTransparentPages);
                }
                let made = Made::in_memory(sys::memory_file(bytes, Pool::Pages)?, length)?;
                made.direct.prefer_huge_pages()?;
                // The kernel makes single pages of what it is asked to show unwritten.
                Ok(Made { is_fresh: false, ..made })
            }
            Self::HugeTlb => {
                let huge = sys::huge_page_bytes();
                let pages = bytes.div_ceil(huge);
                let lacking = |_| MemoryError::Pool { pages, bytes: huge };
                let file = sys::memory_file(pages * huge, Pool::Huge).map_err(lacking)?;
                let length = usize::try_from(pages * huge).unwrap_or(length);
                let direct = Reservation::of_file(file.as_fd(), length).map_err(lacking)?;
                Ok(Made { file, direct, is_fresh: false, shows_frames: false, is_in_memory: false })
            }
            Self::Numa(node) => {
                let made = Made::in_memory(sys::memory_file(bytes, Pool::Pages)?, length)?;
                made.direct.bind(*node).map_err(|_| MemoryError::NoNumaNode { node: *node })?;
                Ok(made)
            }
            Self::Device(path) => Self::device(path, length),
        }
    }

    fn device(path: &Path, length: usize) -> Result<Made, MemoryError> {
        let refused = |call| {
            move |error: std::io::Error| {
                MemoryError::Device(SysError { call, errno: error.raw_os_error().unwrap_or(0) })
            }
        };
        let file: File = OpenOptions::new().read(true).write(true).open(path).map_err(refused("open"))?;
        let metadata = file.metadata().map_err(refused("stat"))?;
        // Who maps more of a file than it has gets a signal for it; of a device, an error.
        if metadata.is_file() && metadata.len() < length as u64 {
            return Err(MemoryError::TooSmall { needed: length as u64, bytes: metadata.len() });
        }
        let file = OwnedFd::from(file);
        let direct = Reservation::of_file(file.as_fd(), length).map_err(MemoryError::Device)?;
        let page = sys::page_bytes();
        let shows_frames = length < 2 * page || Reservation::of_part(file.as_fd(), page, page).is_ok();
        Ok(Made { file, direct, is_fresh: false, shows_frames, is_in_memory: false })
    }
}

impl Made {
    fn in_memory(file: OwnedFd, length: usize) -> Result<Self, SysError> {
        let direct = Reservation::of_file(file.as_fd(), length)?;
        Ok(Self { file, direct, is_fresh: true, shows_frames: true, is_in_memory: true })
    }
}
