//! Metadata in memory of the kernel: what a registry and a zone are built on.

use core::fmt;

use pnode_buddy::{Geometry, Line, Metadata, Zone, ZoneError};
use pnode_core::FrameRange;
use pnode_core::registry::{ListSlot, NodeRecord, NodeSlot, Slots, StorageError, ZoneSlot};

use crate::buffer::Buffer;
use crate::cpus::CpuSlot;
use crate::kernel::{Kernel, NoMemory};
use crate::own::Own;

/// The memory of a registry.
pub struct RegistryStorage<K: Kernel> {
    count: Count,
    nodes: Buffer<K>,
    records: Own<[NodeRecord], K>,
    zones: Buffer<K>,
    scratch: Own<[u16], K>,
    lists: Own<[ListSlot], K>,
}

/// How many nodes and zones a registry has slots for.
#[derive(Clone, Copy, Debug)]
struct Count {
    nodes: usize,
    zones: usize,
}

impl<K: Kernel> RegistryStorage<K> {
    /// Slots for `nodes` nodes with `zones` zones among them.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]; what was allocated before it has been given back.
    pub fn new(kernel: K, nodes: usize, zones: usize) -> Result<Self, NoMemory> {
        let lists = nodes
            .checked_mul(zones)
            .and_then(|each| each.checked_mul(2))
            .ok_or(NoMemory { bytes: usize::MAX })?;
        Ok(Self {
            count: Count { nodes, zones },
            nodes: Buffer::for_slice::<NodeSlot<'_>>(kernel, nodes)?,
            records: Own::slice(kernel, nodes, |_| NodeRecord::new())?,
            zones: Buffer::for_slice::<ZoneSlot<'_, ()>>(kernel, zones)?,
            scratch: Own::slice(kernel, zones, |_| 0)?,
            lists: Own::slice(kernel, lists, |_| ListSlot::new())?,
        })
    }

    /// Empty slots, borrowed for as long as the registry lives.
    ///
    /// # Errors
    ///
    /// None that a caller could bring about: the buffers have the size that the slots need.
    pub fn slots<'m, Z>(&'m mut self) -> Result<Slots<'m, Z>, StorageError> {
        let Count { nodes, zones } = self.count;
        Ok(Slots {
            nodes: self
                .nodes
                .slice(nodes, |_| NodeSlot::new())
                .ok_or(StorageError::Zones { slots: zones })?,
            records: &mut self.records,
            zones: self
                .zones
                .slice(zones, |_| ZoneSlot::new())
                .ok_or(StorageError::Zones { slots: zones })?,
            scratch: &mut self.scratch,
            lists: &mut self.lists,
        })
    }
}

/// The memory of a zone.
pub struct ZoneStorage<K: Kernel> {
    kernel: K,
    range: FrameRange,
    lines: Own<[Line], K>,
}

impl<K: Kernel> ZoneStorage<K> {
    /// Metadata for the frames of `range`.
    ///
    /// # Errors
    ///
    /// [`ZoneStorageError`].
    pub fn new(kernel: K, range: FrameRange) -> Result<Self, ZoneStorageError> {
        let geometry = Geometry::new(range)?;
        Ok(Self { kernel, range, lines: Own::slice(kernel, geometry.lines(), |_| Line::ZERO)? })
    }

    /// The zone, with every frame free, in memory of the kernel: it is too large for a stack that others share.
    ///
    /// # Errors
    ///
    /// [`ZoneStorageError`].
    #[inline(never)]
    pub fn zone(&mut self) -> Result<Own<Zone<'_>, K>, ZoneStorageError> {
        let room = Own::room(self.kernel)?;
        match new_zone(self.range, &mut self.lines) {
            Ok(zone) => Ok(room.fill(zone)),
            Err(error) => Err(error.into()),
        }
    }
}

/// A function of its own, so that no stack frame holds a zone twice.
#[inline(never)]
fn new_zone(range: FrameRange, lines: &mut [Line]) -> Result<Zone<'_>, ZoneError> {
    Zone::new(range, Metadata::zeroed(lines))
}

/// The memory of a zone's slots, one for each CPU of the kernel.
pub struct CpuStorage<K: Kernel> {
    cpus: usize,
    slots: Buffer<K>,
}

impl<K: Kernel> CpuStorage<K> {
    /// Memory for as many slots as the kernel may have CPUs.
    ///
    /// # Errors
    ///
    /// [`NoMemory`].
    pub fn new(kernel: K) -> Result<Self, NoMemory> {
        let cpus = kernel.cpus();
        Ok(Self { cpus, slots: Buffer::for_slice::<CpuSlot<'_>>(kernel, cpus)? })
    }

    /// Empty slots of `zone`.
    pub fn slots<'m>(&'m mut self, zone: &'m Zone<'m>) -> &'m [CpuSlot<'m>] {
        // The buffer has this size; without slots, every CPU would use the zone itself.
        self.slots.slice(self.cpus, |_| CpuSlot::new(zone)).unwrap_or_default()
    }
}

/// Why a range has no metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZoneStorageError {
    /// There is no memory for it.
    NoMemory(NoMemory),
    /// The range makes no zone.
    Zone(ZoneError),
}

impl fmt::Display for ZoneStorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory(error) => error.fmt(f),
            Self::Zone(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ZoneStorageError {}

impl From<NoMemory> for ZoneStorageError {
    fn from(error: NoMemory) -> Self {
        Self::NoMemory(error)
    }
}

impl From<ZoneError> for ZoneStorageError {
    fn from(error: ZoneError) -> Self {
        Self::Zone(error)
    }
}
