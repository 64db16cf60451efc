//! Describing a machine.

use core::fmt;
use std::sync::Arc;

use pnode_core::{
    DistanceError, Features, FrameRange, MemoryClass, NodeId, NodeOps, OnlineError, PageSize, Pfn,
    RegisterError, ServiceError, StorageError, Watermarks,
};

use super::clock::Delays;
use super::compressed::CompressedError;
use super::service::Services;
use super::shape::{Shape, ShapeError};
use super::swap::Swap;
use super::watch::On;
use super::{Machine, Shared};
use crate::backing::{Backing, Memory, MemoryError};
use crate::fault::{Backend, BackendError, Choice};
use crate::sys::SysError;

/// A node of a machine that is to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    pub(super) class: MemoryClass,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    pub(super) marks: Watermarks,
}

/// What kind of node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ordinary,
    Private(Features),
    Compressed { features: Features, advertised: u64 },
}

impl NodeSpec {
    /// The doors of a compressed node unless [`NodeSpec::features`] says otherwise: pages arrive by demotion, are read
    /// in place, leave by a write, and may be moved off when the node goes away.
    pub const COMPRESSED: Features = Features::RECLAIM
        .union(Features::DEMOTION)
        .union(Features::HOTUNPLUG)
        .union(Features::OOM)
        .union(Features::WRITE_FENCE);

    /// The most frames of a node.
    pub const MOST_FRAMES: u64 = 1 << STRIDE_SHIFT;

    /// Ordinary memory of `frames` frames.
    pub const fn ordinary(frames: u64) -> Self {
        Self {
            class: MemoryClass::DRAM,
            kind: Kind::Ordinary,
            shape: Shape::of(frames),
            marks: Watermarks::NONE,
        }
    }

    /// A private node of `frames` frames with every door shut.
    pub const fn private(class: MemoryClass, frames: u64) -> Self {
        Self { class, kind: Kind::Private(Features::NONE), shape: Shape::of(frames), marks: Watermarks::NONE }
    }

    /// A private node that keeps pages compressed: it has `physical` frames and takes up to `advertised` pages.
    pub const fn compressed(physical: u64, advertised: u64) -> Self {
        let kind = Kind::Compressed { features: Self::COMPRESSED, advertised };
        Self { class: MemoryClass::COMPRESSED, kind, shape: Shape::of(physical), marks: Watermarks::NONE }
    }

    /// The same node made of memory of `class`.
    #[must_use]
    pub const fn class(mut self, class: MemoryClass) -> Self {
        self.class = class;
        self
    }

    /// The same node with the doors `features` open, if it is private.
    #[must_use]
    pub const fn features(mut self, features: Features) -> Self {
        self.kind = match self.kind {
            Kind::Ordinary => Kind::Ordinary,
            Kind::Private(_) => Kind::Private(features),
            Kind::Compressed { advertised, .. } => Kind::Compressed { features, advertised },
        };
        self
    }

    /// The same node with `marks`, whose high mark is less than its frames: requests stop at min and look elsewhere first
    /// at low, and [`Machine::background_step`] keeps the node between low and high. Whoever asks by
    /// [`Depth::Emergency`](pnode_core::Depth::Emergency) gets the rest. Not for a compressed node, whose store asks for
    /// all of its frames.
    #[must_use]
    pub const fn watermarks(mut self, marks: Watermarks) -> Self {
        self.marks = marks;
        self
    }

    /// How many of its frames are kept free, and for whom.
    pub const fn marks(&self) -> Watermarks {
        self.marks
    }

    /// What its memory is made of.
    pub const fn memory_class(&self) -> MemoryClass {
        self.class
    }

    /// Whether it is private; a compressed node is.
    pub const fn is_private(&self) -> bool {
        !matches!(self.kind, Kind::Ordinary)
    }

    /// Its open doors; an ordinary node has none.
    pub const fn doors(&self) -> Features {
        match self.kind {
            Kind::Ordinary => Features::NONE,
            Kind::Private(features) | Kind::Compressed { features, .. } => features,
        }
    }

    /// How many pages it takes, if it keeps them compressed.
    pub const fn advertised(&self) -> Option<u64> {
        match self.kind {
            Kind::Compressed { advertised, .. } => Some(advertised),
            Kind::Ordinary | Kind::Private(_) => None,
        }
    }
}

/// What a machine is to be; see [`Machine::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    nodes: Vec<(NodeSpec, Memory)>,
    distances: Option<Vec<u8>>,
    faults: Option<Choice>,
    mappings: Option<usize>,
    fault_around: Option<usize>,
    swap: u64,
    delays: Option<Delays>,
    services: Services,
}

/// The frame numbers of consecutive nodes are so far apart, in frames: 64 GiB at 4 KiB.
pub(super) const STRIDE_SHIFT: u32 = 24;
/// The most nodes of a machine.
pub(super) const MAX_NODES: usize = 64;

impl Builder {
    /// Adds a node; ids count from 0 in the order of the calls.
    #[must_use]
    pub fn node(self, spec: NodeSpec) -> Self {
        self.node_of(spec, Memory::File)
    }

    /// Adds a node as [`Builder::node`] does, whose memory is `memory`.
    ///
    /// Of memory whose single frames cannot be mapped ([`Memory::HugeTlb`], most devices) are private nodes with every door
    /// shut: nobody's pages come there, and their drivers use blocks ([`Machine::owner_grant`]) and heaps.
    #[must_use]
    pub fn node_of(mut self, spec: NodeSpec, memory: Memory) -> Self {
        self.nodes.push((spec, memory));
        self
    }

    /// The distances between the nodes, row by row as in the ACPI SLIT. Without them all nodes are equally far.
    #[must_use]
    pub fn distances(mut self, table: &[u8]) -> Self {
        self.distances = Some(table.to_vec());
        self
    }

    /// Which fault backend to use. Without it `PNODE_FAULTS` decides (see [`Choice::from_env`]).
    #[must_use]
    pub fn faults(mut self, choice: Choice) -> Self {
        self.faults = Some(choice);
        self
    }

    /// A first touch brings up to `pages` pages: those of the aligned run around it that nobody touched and whose frames
    /// stand side by side. A power of two up to 512; 1 (without this) brings the touched page alone.
    ///
    /// A page then costs a fraction of a fault, as with the kernel's `fault_around_bytes`; and a program may hold up to so
    /// many frames more than it touched.
    #[must_use]
    pub fn fault_around(mut self, pages: usize) -> Self {
        self.fault_around = Some(pages);
        self
    }

    /// With a swap file of room for `pages` pages, where cold pages go that no node takes.
    #[must_use]
    pub fn swap(mut self, pages: u64) -> Self {
        self.swap = pages;
        self
    }

    /// Simulates the latency and the bandwidth that the nodes' classes state; without this all memory is as fast as it is. See
    /// [`Machine::simulated_time`].
    #[must_use]
    pub fn delays(mut self, delays: Delays) -> Self {
        self.delays = Some(delays);
        self
    }

    /// Lets `ops` answer for the pages of node number `node`, which is private and does not compress; it is asked as the
    /// module of [`NodeOps`] says: about writes that a fence forbids, pages that left, frames that are free, and memory
    /// that failed ([`Machine::memory_failure`]). What it keeps goes back by [`Machine::release`].
    #[must_use]
    pub fn service(mut self, node: u16, ops: Arc<dyn NodeOps + Send + Sync>) -> Self {
        self.services.0.push((node, ops));
        self
    }

    /// Keeps at most `mappings` kernel mappings (see [`crate::fault::View`]).
    #[must_use]
    pub fn mappings(mut self, mappings: usize) -> Self {
        self.mappings = Some(mappings);
        self
    }

    /// Builds the machine: memory for every node, the nodes registered and online, and a fault backend.
    ///
    /// # Errors
    ///
    /// [`BuildError`]; nothing stays behind.
    pub fn build(self) -> Result<Machine, BuildError> {
        let bytes = crate::sys::page_bytes();
        let page = PageSize::from_bytes(bytes).ok_or(BuildError::PageSize { bytes })?;
        if self.nodes.is_empty() || self.nodes.len() > MAX_NODES {
            return Err(BuildError::Nodes { nodes: self.nodes.len() });
        }
        let around = self.fault_around.unwrap_or(1);
        if !around.is_power_of_two() || around > 512 {
            return Err(BuildError::FaultAround { pages: around });
        }
        for (index, (spec, _)) in self.nodes.iter().enumerate() {
            spec.check(index)?;
        }
        let serves = |number: u16| {
            self.nodes.get(usize::from(number)).is_some_and(|(spec, _)| matches!(spec.kind, Kind::Private(_)))
        };
        if let Some((number, _)) = self.services.0.iter().find(|(number, _)| !serves(*number)) {
            return Err(BuildError::NotServed { number: *number });
        }
        let choice = match self.faults {
            Some(choice) => choice,
            None => Choice::from_env().map_err(BuildError::Faults)?,
        };
        let faults = match self.mappings {
            Some(mappings) => Backend::start_with_budget(choice, mappings),
            None => Backend::start(choice),
        }
        .map_err(BuildError::Faults)?;
        let swap = match self.swap {
            0 => None,
            slots => Some(Swap::new(slots, page).map_err(|error| BuildError::Swap { error })?),
        };
        let shared = Shared::new(page, faults, around, swap, &self.nodes, &self.services, self.distances)?;
        if let Some(delays) = self.delays {
            shared.watch.start(On::Clock);
            if delays == Delays::Waited {
                shared.watch.start(On::Delays);
            }
        }
        Ok(Machine { shared: Arc::new(shared) })
    }
}

impl NodeSpec {
    /// Memory for node `node`.
    pub(super) fn backing(
        &self,
        node: NodeId,
        memory: &Memory,
        page: PageSize,
    ) -> Result<Backing, BuildError> {
        let backing = Backing::made_of(memory, self.span(), page);
        let backing = backing.map_err(|error| BuildError::Memory { node, error })?;
        let is_shut = matches!(self.kind, Kind::Private(Features::NONE));
        if backing.shows_frames() || is_shut { Ok(backing) } else { Err(BuildError::WholeOnly { node }) }
    }

    /// Whether its marks, holes and zones suit it, which is node number `index`.
    fn check(&self, index: usize) -> Result<(), BuildError> {
        let (marks, frames) = (self.marks, self.frames());
        let (node, _) = frames_of(index, self.span())?;
        if marks != Watermarks::NONE && self.advertised().is_some() {
            return Err(BuildError::StoreWatermarks { node });
        }
        let leaves_some =
            marks.high() < frames && marks.lowmem_reserve() < frames.saturating_sub(marks.low());
        if marks != Watermarks::NONE && !leaves_some {
            return Err(BuildError::Watermarks { node, marks, frames });
        }
        self.check_shape().map_err(|error| BuildError::Shape { node, error })
    }
}

/// The frames of node number `index`.
pub(super) fn frames_of(index: usize, frames: u64) -> Result<(NodeId, FrameRange), BuildError> {
    let node = u16::try_from(index).ok().and_then(|number| NodeId::new(number).ok());
    let node = node.ok_or(BuildError::Nodes { nodes: index + 1 })?;
    if frames > 1 << STRIDE_SHIFT {
        return Err(BuildError::Frames { node, frames });
    }
    let range = FrameRange::new(Pfn::new((index as u64) << STRIDE_SHIFT), frames);
    Ok((node, range.map_err(|_| BuildError::Frames { node, frames })?))
}

/// Why a machine could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// A machine has 1 to 64 nodes.
    Nodes {
        /// How many it was to have.
        nodes: usize,
    },
    /// A node has at least one frame, and at most 2^24.
    Frames {
        /// The node.
        node: NodeId,
        /// How many frames it was to have.
        frames: u64,
    },
    /// The watermarks of a node leave some of its frames to ordinary requests.
    Watermarks {
        /// The node.
        node: NodeId,
        /// What it was to keep free.
        marks: Watermarks,
        /// How many frames it has.
        frames: u64,
    },
    /// The holes and zones of a node cannot be.
    Shape {
        /// The node.
        node: NodeId,
        /// Why.
        error: ShapeError,
    },
    /// A compressed node has no watermarks: its store asks for all of its frames.
    StoreWatermarks {
        /// The node.
        node: NodeId,
    },
    /// A first touch brings 1, 2, 4, .. 512 pages.
    FaultAround {
        /// How many it was to bring.
        pages: usize,
    },
    /// A service answers for a private node that does not compress.
    NotServed {
        /// The number of the node.
        number: u16,
    },
    /// The registry refused a service.
    Service(ServiceError),
    /// The kernel gave no memory for the swap file.
    Swap {
        /// What it said.
        error: SysError,
    },
    /// The kernel's pages are of a size that frames cannot have.
    PageSize {
        /// The size in bytes.
        bytes: usize,
    },
    /// There is no such memory for a node.
    Memory {
        /// The node.
        node: NodeId,
        /// Why.
        error: MemoryError,
    },
    /// Single frames of this memory cannot be mapped, so that only private nodes with every door shut have it.
    WholeOnly {
        /// The node.
        node: NodeId,
    },
    /// The distances are no table of distances.
    Distances(DistanceError),
    /// There is no way to take page faults.
    Faults(BackendError),
    /// The registry refused its memory.
    Storage(StorageError),
    /// The registry refused a node.
    Register(RegisterError),
    /// The registry refused the memory of a node.
    Online(OnlineError),
    /// A compressed node could not be set up.
    Compressed {
        /// The node.
        node: NodeId,
        /// Why.
        error: CompressedError,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes { nodes } => write!(f, "a machine has 1 to {MAX_NODES} nodes, not {nodes}"),
            Self::Frames { node, frames } => {
                write!(f, "{node:?} has 1 to {} frames, not {frames}", 1 << STRIDE_SHIFT)
            }
            Self::Watermarks { node, marks, frames } => {
                let (high, low) = (marks.high(), marks.low());
                write!(
                    f,
                    "{node:?} has {frames} frames; its high watermark {high}, and its low one {low} with the lowmem "
                )?;
                write!(f, "reserve {}, have to be below that", marks.lowmem_reserve())
            }
            Self::Shape { node, error } => write!(f, "{node:?}: {error}"),
            Self::StoreWatermarks { node } => {
                write!(f, "the store of {node:?} asks for all of its frames; leave its watermarks out")
            }
            Self::FaultAround { pages } => {
                write!(f, "a first touch brings a power of two of pages, up to 512, not {pages}")
            }
            Self::NotServed { number } => {
                write!(f, "node number {number} is no private node that takes a service")
            }
            Self::Service(error) => error.fmt(f),
            Self::Swap { error } => write!(f, "no memory for the swap file ({error}); make it smaller"),
            Self::PageSize { bytes } => write!(f, "pages of {bytes} bytes are not supported"),
            Self::Memory { node, error } => write!(f, "no memory for {node:?}: {error}"),
            Self::WholeOnly { node } => write!(
                f,
                "single frames of the memory of {node:?} cannot be mapped; make it private with every door shut, or of memory huge"
            ),
            Self::Distances(error) => error.fmt(f),
            Self::Faults(error) => error.fmt(f),
            Self::Storage(error) => error.fmt(f),
            Self::Register(error) => error.fmt(f),
            Self::Online(error) => error.fmt(f),
            Self::Compressed { node, error } => write!(f, "{node:?}: {error}"),
        }
    }
}

impl core::error::Error for BuildError {}
