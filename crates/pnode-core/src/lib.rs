//! Who may have memory from where: the gate of private memory nodes.
//!
//! A *private node* is memory of one device or service: packet buffers, an accelerator's memory, a slow far tier,
//! compressed RAM. Its page frames are managed like any others, by the same allocator, reclaim and migration; but
//! nobody gets one unless the node's owner opened that door. This crate decides who may. Which frame it is, an allocator
//! below decides (pnode-buddy, or anything else that is a [`FrameZone`]).
//!
//! # The gate is a value
//!
//! A kernel has a hundred places that allocate, and each passes flags on to the next. A flag that opens private memory
//! therefore opens it too widely: for all private nodes, or for the allocations nested within. Here **taking a frame of a
//! private node takes a [`Grant`]**: a value that names one node and one [`Reason`], that only the node's registration
//! mints, and that cannot be copied, widened or used for another node. A [`Request`] has no place to put one. So what an
//! ordinary request says, whatever it prefers and whatever its mask names, is a question of *which ordinary node*.
//!
//! ```text
//!  anybody                      the owner              a service, for a reason
//!  nodes.alloc(request)         owner.grant()          nodes.grant(node, reason)
//!      |                             |                       |  did the owner open that door?
//!      |                             v                       v  no: Denied, which names the door
//!      |                         +-----------------------------+
//!      |                         | Grant: one node, one reason |  teardown waits until it is dropped
//!      |                         +-----------------------------+
//!      |                                       |  grant.alloc(request)
//!      v                                       v
//!  fallback list of the preferred node     own list of the granted node
//!  (ordinary zones, nearest first)         (its zones and no others)
//!      |                                       |
//!      v                                       v
//!  frames of ordinary nodes                frames of this node, or an error
//! ```
//!
//! No list leads from the left side to the right one, and each zone's word is read again after a block was taken, so a
//! walk that hotplug overtook gives back what it must not have.
//!
//! ```compile_fail,E0599
//! # use pnode_core::{Grant, NodeId, Nodes, Reason, Request, WordZone};
//! # fn widen<'m>(nodes: &'m Nodes<'m, WordZone>, node: NodeId) {
//! let grant = nodes.grant(node, Reason::Demotion).unwrap();
//! let mine = nodes.alloc(Request::page().with_grant(&grant)); // a request has no such thing
//! # }
//! ```
//! ```compile_fail,E0599
//! # use pnode_core::{NodeId, Nodes, Reason, WordZone};
//! # fn copy<'m>(nodes: &'m Nodes<'m, WordZone>, node: NodeId) {
//! let grant = nodes.grant(node, Reason::Demotion).unwrap();
//! let another = grant.clone(); // and a grant is one
//! # }
//! ```
//!
//! [`Nodes`] has the example that works: a node, its owner, a frame, and the refusals.
//!
//! # Modules
//!
//! | module | what it answers |
//! | --- | --- |
//! | [`addr`] | what a frame number, an order, a range and a page size are, with checked arithmetic only |
//! | [`frame`] | what is asked of an allocator: [`FrameSource`], [`FrameZone`], and their errors |
//! | [`failing`] | a source or a zone that fails on purpose, for tests of who uses it |
//! | [`small`] | the smallest zone there is: up to 31 frames in one word |
//! | [`node`] | what a node is: id, set, class of memory, open doors, life |
//! | [`distance`] | how far nodes are from one another |
//! | [`registry`] | which nodes there are, who owns them, which zones they have; allocation and teardown |
//! | [`grant`] | which reason needs which door, and the value that comes of it |
//! | [`request`] | what a caller may ask for |
//! | [`watermark`] | what a zone keeps back, and for whom |
//! | [`ops`] | what a service answers for the pages of its node, and where it may sleep |
//! | [`page`] | what a page is for, and whose policy counts for it |
//! | [`cpuset`] | which nodes a group of tasks may use |
//! | [`policy`] | where pages go: bind, preferred, interleave; hard and soft faults, and where a policy did not get its way |
//! | [`tier`] | where cold pages go and hot ones come back to |
//! | [`reclaim`] | when background reclaim works, how hard, and who owns a boost |
//! | [`oom`] | whose end would help in a shortage |
//! | [`sync`] | the atomics, as loom sees them too; the host's lock |
//!
//! The lower half of the table stands on the upper one and is policy: values and pure functions, which touch no frame
//! but through a request or a grant.
//!
//! # What it stands on
//!
//! `core` alone. The caller supplies all memory ([`Storage`], or [`Slots`] of its own), there are no statics, and nothing
//! calls back under the registry's lock but the zones it was given and the visitor of [`NodeHandle::ranges`]. Allocating,
//! freeing and granting take no lock. No input of a caller panics; what is refused is refused whole, with nothing changed.
//! Unsafe code is in [`sync`] only. The feature `alloc` adds `BoxedStorage`; `loom` has an effect under `--cfg loom` only.
//!
//! After the Linux series *private memory nodes (with compressed RAM)* (linux-mm, since November 2025), whose gates were a
//! flag and then a zonelist selector; DESIGN.md lists where this crate differs, and why.
#![no_std]
#![deny(unsafe_code)]

#[cfg(all(loom, not(feature = "loom")))]
compile_error!("`--cfg loom` needs `--features loom`: run the models as CONTRIBUTING.md shows.");

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod addr;
pub mod cpuset;
pub mod distance;
pub mod failing;
pub mod frame;
pub mod grant;
pub mod node;
pub mod oom;
pub mod ops;
pub mod page;
pub mod policy;
pub mod reclaim;
pub mod registry;
pub mod request;
pub mod small;
pub mod sync;
pub mod tier;
pub mod watermark;

pub use addr::{FrameRange, Order, OrderTooLarge, PageSize, Pfn, RangeError};
pub use cpuset::{Mems, NoOrdinaryMemory};
pub use distance::{DistanceError, Distances};
pub use frame::{FrameError, FrameSource, FrameZone, FreeError, MigrateType};
pub use grant::{Denied, Grant, Reason, Right};
pub use node::{
    Cpus, FeatureError, Features, Life, MemoryClass, NodeId, NodeIdTooLarge, NodeMask, NodeState, Stamp,
};
pub use ops::{NodeOps, Service};
pub use page::PageOrigin;
pub use policy::{Placement, Policy};
#[cfg(feature = "alloc")]
pub use registry::BoxedStorage;
pub use registry::{
    AdoptError, AllocError, Frame, NodeHandle, NodeStates, Nodes, OfflineError, Offlined, OnlineError, Owner,
    Private, RegisterError, ServiceError, Slots, Stale, Storage, StorageError, UnregisterError,
};
pub use request::{Contents, Depth, Fallback, Request};
pub use small::WordZone;
pub use tier::{Tier, TierSlot, Tiers};
pub use watermark::{WatermarkError, Watermarks};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
