//! Cpusets: which nodes a group of tasks may use.
//!
//! A cpuset governs private nodes as it governs ordinary ones, but membership alone opens nothing: that the group may
//! use a node, that its owner opened a door and that a zonelist leads there are three independent tests. Each cpuset has
//! at least one ordinary node, so a task can always have memory for what cannot live anywhere else.
//!
//! After `guarantee_online_mems` of Linux and the rules of the private-node series (mail *Private Memory Nodes (w/
//! Compressed RAM)*, February 2026): an ancestor lends its ordinary nodes, never its private ones.

use core::fmt;

use crate::frame::FrameZone;
use crate::node::{NodeId, NodeMask};
use crate::registry::Nodes;
use crate::sync::RawLock;

/// The nodes that a group of tasks may use now: a value, worked out from the root down and again when nodes come or go.
///
/// ```
/// # use pnode_core::{Distances, FrameRange, MemoryClass, Mems, NodeId, NodeMask, Nodes, Pfn, Storage, WordZone};
/// # let mut storage = Storage::<WordZone, 4, 4>::new();
/// # let nodes = Nodes::new(storage.slots(), Distances::uniform(4)?)?;
/// # let zones = [0, 16].map(|pfn| WordZone::new(FrameRange::new(Pfn::new(pfn), 16).unwrap()).unwrap());
/// # for (id, zone) in zones.iter().enumerate() {
/// #     nodes.ordinary(NodeId::new(id as u16)?, MemoryClass::DRAM)?.online(zone)?;
/// # }
/// let root = Mems::root(&nodes)?;
/// let batch = root.child(&NodeMask::of(NodeId::new(1)?));
/// assert!(!batch.contains(NodeId::new(0)?));
/// // Nothing that was asked for is there: the parent's ordinary nodes serve.
/// assert_eq!(batch.child(&NodeMask::of(NodeId::new(3)?)), batch);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// - **C1** `ordinary` is not empty.
/// - **C2** a child's sets are within its parent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mems {
    ordinary: NodeMask,
    private: NodeMask,
}

impl Mems {
    /// Cpusets are off, or do not count here (interrupts): any node.
    pub const UNRESTRICTED: Self = Self { ordinary: NodeMask::ALL, private: NodeMask::ALL };

    /// What the root has: every node with memory.
    ///
    /// # Errors
    ///
    /// [`NoOrdinaryMemory`].
    pub fn root<Z: FrameZone, L: RawLock>(nodes: &Nodes<'_, Z, L>) -> Result<Self, NoOrdinaryMemory> {
        let states = nodes.states();
        if states.ordinary_memory.is_empty() {
            return Err(NoOrdinaryMemory);
        }
        // INVARIANT: C1 was tested above.
        Ok(Self {
            ordinary: states.ordinary_memory,
            private: states.memory.difference(&states.ordinary_memory),
        })
    }

    /// What a child that asks for `requested` has: those of its parent's nodes, or the parent's ordinary ones if it asked
    /// for none of them.
    #[must_use]
    pub fn child(&self, requested: &NodeMask) -> Self {
        let own = self.ordinary.intersection(requested);
        // INVARIANT: C1 by the test, or by the parent's; C2 by the intersections.
        let ordinary = if own.is_empty() { self.ordinary } else { own };
        Self { ordinary, private: self.private.intersection(requested) }
    }

    /// The ordinary nodes; never empty.
    pub const fn ordinary(&self) -> &NodeMask {
        &self.ordinary
    }

    /// The private nodes.
    pub const fn private(&self) -> &NodeMask {
        &self.private
    }

    /// Whether the group may use `node`.
    pub const fn contains(&self, node: NodeId) -> bool {
        self.ordinary.contains(node) || self.private.contains(node)
    }
}

/// No ordinary node has memory, so no cpuset can be given any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoOrdinaryMemory;

impl fmt::Display for NoOrdinaryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no ordinary node has memory; bring some online first")
    }
}

impl core::error::Error for NoOrdinaryMemory {}
