//! Private memory nodes in a process: real page faults on nodes that are memory files.
//!
//! The other crates say who may have memory ([`pnode_core`]), which frame ([`pnode_buddy`]) and how to make do with
//! fewer ([`pnode_compress`]). Here they run on real memory, without root and without a device: to see them work, and to
//! test a driver against them.
//!
//! - [`machine`]: a [`Machine`] of nodes and mappings. Touch an address and it faults; the fault goes through the gate,
//!   takes a frame and maps it there. Pages move between nodes, are fenced, compressed, promoted and evacuated under
//!   programs that use them. A [`Process`](machine::Process) is an address space with areas, policies and a cpuset, which
//!   forks.
//! - [`heap`]: a heap on one node, for Rust objects that are to be there and nowhere else.
//! - [`machine_file`]: a machine in one small text file.
//! - [`schedule`]: everybody who acts on a machine as steps of one thread, in an order that a seed names.
//! - [`fault`]: the faults themselves: addresses on which one's own pager maps what it likes.
//! - [`backing`]: the memory of a node, as a file in memory.
//!
//! ```
//! use pnode_core::{MemoryClass, Request};
//! use pnode_user::{Machine, NodeSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let machine = Machine::builder()
//!     .node(NodeSpec::ordinary(64))
//!     .node(NodeSpec::private(MemoryClass::DEVICE_BUFFER, 16))
//!     .build()?;
//! println!("{}", machine.faults());                       // who catches faults here, and why
//!
//! let [dram, card] = [machine.node(0)?, machine.node(1)?];
//! let memory = machine.map(8, dram)?;                     // addresses, and no memory yet
//! // SAFETY: the mapping lives, and this is its third page.
//! unsafe { memory.as_ptr().add(2 * machine.page().bytes()).write(7) };
//! assert!(memory.place(2).is_resident_on(dram));          // the write took a frame
//!
//! let packet = machine.owner_grant(card)?.alloc(Request::page())?;
//! assert!(machine.write(&packet, 0, b"header"));
//! machine.free(packet)?;
//! print!("{}", machine.occupancy());
//! # Ok(())
//! # }
//! ```
//!
//! # Unsafe code
//!
//! Only in `sys` (system calls), [`backing`], [`fault`], `heap::raw` and `heap::object` (the bytes of a heap and what is
//! typed of them), `arena` (values that refer to one another), and the one function of [`machine`] that keeps values in
//! an arena.
#![deny(unsafe_code)]

mod arena;
pub mod backing;
pub mod fault;
pub mod heap;
pub mod machine;
pub mod machine_file;
pub mod schedule;
mod sys;

pub use heap::NodeHeap;
pub use machine::{Machine, NodeSpec};
pub use machine_file::MachineFile;
pub use sys::SysError;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct ReadmeDoctests;
