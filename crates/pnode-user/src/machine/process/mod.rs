//! Processes: address spaces with areas, policies and a cpuset, which fork.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `layout` | which pages are mapped, with which rights and policies |
//! | `change` | mapping, unmapping, moving, protecting, giving advice |
//! | `fork` | a second address space that shares the pages until one of the two writes |
//! | `policy` | memory policies and cpusets, and the frames that follow them |
//! | `moves` | moving pages on request, and saying where they are |

mod change;
mod fork;
mod layout;
mod moves;
mod policy;

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use pnode_core::NodeId;
use pnode_core::policy::{Policy, PolicyError};
use pnode_core::{Mems, NoOrdinaryMemory};

use super::Machine;
use super::mapping::{MapError, Place, Placement};
use super::region::Region;
use crate::fault::{self, FaultError, View};
use crate::sys::SysError;
pub(super) use layout::Layout;
use layout::{Table, Task};

pub use change::Advice;
pub use moves::{AreaMap, MovePageError, NumaMaps};
pub(super) use policy::Counting;
pub use policy::Existing;

/// What a program may do with the pages of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Nothing: a touch is an error.
    None,
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

/// Who sees the writes of a process to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody: they go to the object.
    Shared,
    /// The process: a page that it writes to becomes a copy of its own.
    Private,
}

/// A process: an address space on a machine, with anonymous memory and mapped [objects](super::Object).
///
/// Its pages are numbered from 0, and [`Process::as_ptr`] is where page 0 stands. What was mapped may be touched through
/// that pointer, from any thread; what was not, and what the rights do not admit, ends the program, as the kernel would
/// end it. [`Process::read`] and [`Process::write`] touch in the same way and report that instead.
///
/// ```
/// use pnode_core::NodeId;
/// use pnode_user::machine::Rights;
/// use pnode_user::{Machine, NodeSpec};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let machine = Machine::builder().node(NodeSpec::ordinary(256)).build()?;
/// let parent = machine.process(1000, machine.node(0)?)?;
/// let heap = parent.map(10, Rights::ReadWrite)?;
/// parent.write(heap.start, 0, b"before the fork")?;
///
/// let child = parent.fork()?;
/// assert_eq!(machine.counters().copied_on_write, 0);        // one frame, two address spaces
/// child.write(heap.start, 0, b"child's")?;
/// let mut text = [0; 15];
/// parent.read(heap.start, 0, &mut text)?;
/// assert_eq!(&text, b"before the fork");
/// assert_eq!(machine.counters().copied_on_write, 1);
/// # Ok(())
/// # }
/// ```
pub struct Process {
    region: Arc<Region>,
}

impl Machine {
    /// Starts a process with room for `pages` pages, which runs on a CPU of node `cpu`. Nothing is mapped in it.
    ///
    /// # Errors
    ///
    /// [`MapError`].
    pub fn process(&self, pages: usize, cpu: NodeId) -> Result<Process, MapError> {
        if pages == 0 {
            return Err(MapError::Empty);
        }
        self.shared.site(cpu).ok_or(MapError::Unknown { node: cpu })?;
        let task = Task { cpu, policy: Policy::DEFAULT, mems: Mems::UNRESTRICTED };
        let view = View::new(&self.shared.faults, pages, self.shared.page).map_err(MapError::Kernel)?;
        let layout = Layout::new(Table::new(task));
        let region = Region::new(&self.shared, view, Placement::Near(cpu), 0, Some(layout));
        fault::attach(&region);
        self.shared.regions().all.push(Arc::downgrade(&region));
        Ok(Process { region })
    }
}

impl Process {
    /// The address of page 0. Reading and writing there is what the process is for, and unsafe like every use of a raw
    /// pointer.
    pub fn as_ptr(&self) -> *mut u8 {
        self.region.view.start() as *mut u8
    }

    /// How many pages the address space has, mapped or not.
    pub fn pages(&self) -> usize {
        self.region.pages.len()
    }

    /// The view, for what the kernel has mapped now.
    pub fn view(&self) -> &View {
        &self.region.view
    }

    /// Copies bytes out, from byte `offset` of page `page` on, by touching them.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if a page cannot be served; the bytes before it have been copied.
    pub fn read(&self, page: usize, offset: usize, bytes: &mut [u8]) -> Result<(), FaultError> {
        let offset = self.offset(page, offset)?;
        fault::read(&*self.region, offset, bytes)?;
        self.region.charge(offset..offset + bytes.len());
        Ok(())
    }

    /// Copies bytes in, from byte `offset` of page `page` on, by touching them.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if a page cannot be served; the bytes before it have been copied.
    pub fn write(&self, page: usize, offset: usize, bytes: &[u8]) -> Result<(), FaultError> {
        let offset = self.offset(page, offset)?;
        fault::write(&*self.region, offset, bytes)?;
        self.region.charge(offset..offset + bytes.len());
        Ok(())
    }

    /// Where page `page` is now.
    pub fn place(&self, page: usize) -> Place {
        self.region.place(page)
    }

    /// The areas that are mapped, from the lowest on, with their rights. Neighbours that are alike are one.
    pub fn areas(&self) -> Vec<(Range<usize>, Rights)> {
        self.layout().table().all().map(|(pages, area)| (pages, area.rights)).collect()
    }

    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    fn offset(&self, page: usize, offset: usize) -> Result<usize, FaultError> {
        let start = page.checked_mul(self.region.view.page().bytes());
        start.and_then(|start| start.checked_add(offset)).ok_or(FaultError::NotMapped)
    }

    fn layout(&self) -> &Layout {
        // Every region of a process was made with one.
        self.region.layout.as_ref().unwrap_or_else(|| unreachable!("a process has a layout"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // As with a mapping: whoever looks through all of them now must not keep the memory of one that has ended.
        self.region.give_all_back();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({:?}, {} areas)", self.region.view, self.layout().table().all().count())
    }
}

/// Why an address space was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessError {
    /// A range has at least one page.
    Empty,
    /// There is no run of so many pages that is free; start the process with more room, or unmap something.
    NoRoom {
        /// How many pages.
        pages: usize,
    },
    /// A page of the range is not mapped, or there is no such page.
    NotMapped {
        /// The first such page.
        page: usize,
    },
    /// The range is in more than one area: they differ in rights or policies.
    SeveralAreas {
        /// Where the first one ends.
        page: usize,
    },
    /// The policy cannot be.
    Policy(PolicyError),
    /// The cpuset cannot be.
    Cpuset(NoOrdinaryMemory),
    /// A page could not be brought or moved. Those before it were.
    Page {
        /// The page.
        page: usize,
        /// Why.
        error: FaultError,
    },
    /// The kernel refused.
    Kernel(SysError),
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a range has at least one page"),
            Self::NoRoom { pages } => {
                write!(f, "no {pages} pages in a row are free; start the process with more, or unmap some")
            }
            Self::NotMapped { page } => write!(f, "page {page} is not mapped; map it first"),
            Self::SeveralAreas { page } => {
                write!(
                    f,
                    "the range goes beyond its area, which ends at page {page}; take the areas one by one"
                )
            }
            Self::Policy(error) => error.fmt(f),
            Self::Cpuset(error) => error.fmt(f),
            Self::Page { page, error } => write!(f, "page {page}: {error}"),
            Self::Kernel(error) => write!(f, "the kernel refused ({error}); map less, or raise the limit"),
        }
    }
}

impl core::error::Error for ProcessError {}
