//! Who may have memory from where: the gate of private memory nodes.
//!
//! Memory of a private node belongs to one device or service. It is managed like ordinary page frames and nobody
//! gets it unless its owner opened that door.
#![no_std]
#![deny(unsafe_code)]

#[cfg(all(loom, not(feature = "loom")))]
compile_error!("`--cfg loom` needs `--features loom`: run the models as CONTRIBUTING.md shows.");

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod addr;
pub mod cpuset;
pub mod distance;
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
    FeatureError, Features, Life, MemoryClass, NodeId, NodeIdTooLarge, NodeMask, NodeState, Stamp,
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
