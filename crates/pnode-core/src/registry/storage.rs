//! The memory of a registry: slots that the caller supplies.

use core::fmt;

use super::zone_word::ZoneWord;
use crate::const_fn;
use crate::frame::{FrameZone, MigrateType};
use crate::node::{Features, Generation, MemoryClass, NodeId, NodeMask, Stamp, Word};
use crate::ops::Service;
use crate::request::Depth;
use crate::sync::{AtomicU16, AtomicU64, Ordering, Published};
use crate::watermark::Watermarks;

/// Ends a list of zones; no zone has this number.
pub(super) const END: u16 = u16::MAX;

/// What is kept of one node, read without a lock.
#[derive(Debug)]
pub struct NodeSlot<'m> {
    /// Generation, facts and references; see [`Word`].
    pub(super) word: AtomicU64,
    /// The doors; written before the word says *registered*.
    pub(super) features: AtomicU16,
    /// Which registration of the registry this is; written before the word says *registered*.
    pub(super) born: AtomicU64,
    /// The first of the node's zones, lowest slot first, chained by [`ZoneSlot::next`].
    pub(super) first: AtomicU16,
    pub(super) service: Published<'m, Service<'m>>,
}

impl NodeSlot<'_> {
    const_fn! {
        /// A slot without a node.
        pub fn new() -> Self {
            Self {
                word: AtomicU64::new(0),
                features: AtomicU16::new(0),
                born: AtomicU64::new(0),
                first: AtomicU16::new(END),
                service: Published::empty(),
            }
        }
    }

    #[inline]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn load(&self, order: Ordering) -> Word {
        Word(self.word.load(order))
    }

    /// Whether this is a private node with memory that does not drain, whose owner opened all of `wanted`, and which was
    /// registered by `stamp`.
    pub(super) fn is_open_to(&self, wanted: Features, stamp: Option<Stamp>) -> bool {
        let state = self.load(Ordering::Acquire).state();
        let there = state.is_private() && state.has_memory() && !state.is_draining();
        // The word's Acquire load ordered these after the stores in `claim`.
        let meant = stamp.is_none_or(|stamp| self.born.load(Ordering::Relaxed) <= stamp.0);
        there && meant && doors(self).contains(wanted)
    }

    /// Changes the word by `change` in one atomic step; `change` refuses with `Err`.
    ///
    /// Acquire pairs with the Release of the last change, Release with the Acquire of the next one: who changes a
    /// node's word sees all that happened before the changes it follows.
    pub(super) fn update<E>(&self, mut change: impl FnMut(Word) -> Result<Word, E>) -> Result<Word, E> {
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            let next = change(Word(seen))?;
            match self.word.compare_exchange_weak(seen, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(next),
                Err(now) => seen = now,
            }
        }
    }
}

impl Default for NodeSlot<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// What is kept of one node under the registry's lock.
#[derive(Clone, Copy, Debug)]
pub struct NodeRecord {
    pub(super) class: MemoryClass,
}

impl NodeRecord {
    /// A record without a node.
    pub const fn new() -> Self {
        Self { class: MemoryClass::DRAM }
    }
}

impl Default for NodeRecord {
    fn default() -> Self {
        Self::new()
    }
}

/// What is kept of one zone, read without a lock.
#[derive(Debug)]
pub struct ZoneSlot<'m, Z> {
    /// Whose zone this is; see [`ZoneWord`].
    pub(super) word: AtomicU64,
    pub(super) source: Published<'m, Z>,
    /// The next zone of the same node.
    pub(super) next: AtomicU16,
    /// The lowmem reserve is counted in here, so that the common request reads one number.
    pub(super) min: AtomicU64,
    /// As `min`.
    pub(super) low: AtomicU64,
    pub(super) high: AtomicU64,
    pub(super) lowmem: AtomicU64,
}

impl<Z> ZoneSlot<'_, Z> {
    const_fn! {
        /// A slot without a zone.
        pub fn new() -> Self {
            Self {
                word: AtomicU64::new(0),
                source: Published::empty(),
                next: AtomicU16::new(END),
                min: AtomicU64::new(0),
                low: AtomicU64::new(0),
                high: AtomicU64::new(0),
                lowmem: AtomicU64::new(0),
            }
        }
    }

    #[inline]
    pub(super) fn load(&self) -> ZoneWord {
        // Acquire pairs with the Release in `store`: who sees a zone's word sees its watermarks, and does not find the
        // zone that had the slot before.
        ZoneWord::from_raw(self.word.load(Ordering::Acquire))
    }

    pub(super) fn store(&self, word: ZoneWord) {
        self.word.store(word.raw(), Ordering::Release);
    }

    /// The watermarks are four words: a reader may see old and new ones mixed, which shifts a reserve for a moment.
    pub(super) fn set_watermarks(&self, marks: Watermarks) {
        let movable = |depth| marks.kept_back(depth, MigrateType::Movable);
        self.min.store(movable(Depth::Min), Ordering::Relaxed);
        self.low.store(movable(Depth::Low), Ordering::Relaxed);
        self.high.store(marks.high(), Ordering::Relaxed);
        self.lowmem.store(marks.lowmem_reserve(), Ordering::Relaxed);
    }

    /// What [`ZoneSlot::set_watermarks`] stored, for a holder of the registry's lock.
    pub(super) fn watermarks(&self) -> Watermarks {
        let lowmem = self.lowmem.load(Ordering::Relaxed);
        let mark = |word: &AtomicU64| word.load(Ordering::Relaxed).saturating_sub(lowmem);
        let high = self.high.load(Ordering::Relaxed);
        let marks = Watermarks::new(mark(&self.min), mark(&self.low), high);
        marks.and_then(|marks| marks.with_lowmem_reserve(lowmem)).unwrap_or_default()
    }
}

impl<Z> Default for ZoneSlot<'_, Z> {
    fn default() -> Self {
        Self::new()
    }
}

/// A place in a zonelist: the number of a zone, or the end.
#[derive(Debug)]
pub struct ListSlot(pub(super) AtomicU16);

impl ListSlot {
    const_fn! {
        /// The end of a list.
        pub fn new() -> Self {
            Self(AtomicU16::new(END))
        }
    }
}

impl Default for ListSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// The memory of a registry for `n` nodes and `k` zones, borrowed from the caller for good: two registries on the same
/// slots would hand one's private zones to the other's walkers.
///
/// | field | length |
/// | --- | --- |
/// | `nodes`, `records` | `n` |
/// | `zones`, `scratch` | `k` |
/// | `lists` | `2 * n * k`: for each node two copies of its fallback list |
#[derive(Debug)]
pub struct Slots<'m, Z> {
    /// One for each node.
    pub nodes: &'m mut [NodeSlot<'m>],
    /// One for each node.
    pub records: &'m mut [NodeRecord],
    /// One for each zone of any node.
    pub zones: &'m mut [ZoneSlot<'m, Z>],
    /// Room to sort the zones in.
    pub scratch: &'m mut [u16],
    /// The zonelists.
    pub lists: &'m mut [ListSlot],
}

/// The memory of a registry for up to `N` nodes and `K` zones, as one value that the caller places.
#[derive(Debug)]
pub struct Storage<'m, Z, const N: usize, const K: usize> {
    nodes: [NodeSlot<'m>; N],
    records: [NodeRecord; N],
    zones: [ZoneSlot<'m, Z>; K],
    scratch: [u16; K],
    lists: [[[ListSlot; K]; 2]; N],
}

impl<'m, Z: FrameZone, const N: usize, const K: usize> Storage<'m, Z, N, K> {
    /// Slots without nodes or zones.
    pub fn new() -> Self {
        Self {
            nodes: core::array::from_fn(|_| NodeSlot::new()),
            records: [NodeRecord::new(); N],
            zones: core::array::from_fn(|_| ZoneSlot::new()),
            scratch: [END; K],
            lists: core::array::from_fn(|_| {
                core::array::from_fn(|_| core::array::from_fn(|_| ListSlot::new()))
            }),
        }
    }

    /// The slots, borrowed for as long as the registry lives.
    pub fn slots(&'m mut self) -> Slots<'m, Z> {
        Slots {
            nodes: &mut self.nodes,
            records: &mut self.records,
            zones: &mut self.zones,
            scratch: &mut self.scratch,
            lists: self.lists.as_flattened_mut().as_flattened_mut(),
        }
    }
}

impl<Z: FrameZone, const N: usize, const K: usize> Default for Storage<'_, Z, N, K> {
    fn default() -> Self {
        Self::new()
    }
}

/// The memory of a registry on the heap, for sizes that are known at run time only.
#[cfg(feature = "alloc")]
#[derive(Debug)]
pub struct BoxedStorage<'m, Z> {
    nodes: alloc::boxed::Box<[NodeSlot<'m>]>,
    records: alloc::boxed::Box<[NodeRecord]>,
    zones: alloc::boxed::Box<[ZoneSlot<'m, Z>]>,
    scratch: alloc::boxed::Box<[u16]>,
    lists: alloc::boxed::Box<[ListSlot]>,
}

#[cfg(feature = "alloc")]
impl<'m, Z: FrameZone> BoxedStorage<'m, Z> {
    /// Slots for `nodes` nodes and `zones` zones.
    ///
    /// # Errors
    ///
    /// [`StorageError::TooManyNodes`] or [`StorageError::Zones`] for numbers that no registry can have.
    pub fn new(nodes: usize, zones: usize) -> Result<Self, StorageError> {
        if nodes > NodeId::COUNT {
            return Err(StorageError::TooManyNodes { slots: nodes });
        }
        check_zones(zones)?;
        Ok(Self {
            nodes: (0..nodes).map(|_| NodeSlot::new()).collect(),
            records: (0..nodes).map(|_| NodeRecord::new()).collect(),
            zones: (0..zones).map(|_| ZoneSlot::new()).collect(),
            scratch: (0..zones).map(|_| END).collect(),
            lists: (0..2 * nodes * zones).map(|_| ListSlot::new()).collect(),
        })
    }

    /// The slots, borrowed for as long as the registry lives.
    pub fn slots(&'m mut self) -> Slots<'m, Z> {
        Slots {
            nodes: &mut self.nodes,
            records: &mut self.records,
            zones: &mut self.zones,
            scratch: &mut self.scratch,
            lists: &mut self.lists,
        }
    }
}

/// Why slots cannot hold a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageError {
    /// There are slots for another number of nodes than the distance table speaks of.
    Nodes {
        /// How many nodes there are slots for.
        slots: usize,
        /// How many nodes the distance table speaks of.
        distances: usize,
    },
    /// There are slots for more nodes than ids.
    TooManyNodes {
        /// How many nodes there are slots for.
        slots: usize,
    },
    /// There are no zone slots, or more than zone numbers.
    Zones {
        /// How many zone slots there are.
        slots: usize,
    },
    /// The records, the scratch room or the lists have the wrong length; see the table at [`Slots`].
    Length {
        /// Which of them.
        field: &'static str,
        /// Its length.
        length: usize,
        /// The length it must have.
        wanted: usize,
    },
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes { slots, distances } => {
                write!(f, "slots for {slots} nodes, but the distances speak of {distances}")
            }
            Self::TooManyNodes { slots } => {
                write!(f, "slots for {slots} nodes; there can be {} at most", NodeId::COUNT)
            }
            Self::Zones { slots } => write!(f, "{slots} zone slots; there can be 1 to {}", END - 1),
            Self::Length { field, length, wanted } => {
                write!(f, "`{field}` has {length} entries and needs {wanted}")
            }
        }
    }
}

impl core::error::Error for StorageError {}

fn check_zones(slots: usize) -> Result<(), StorageError> {
    if slots == 0 || slots >= usize::from(END) { Err(StorageError::Zones { slots }) } else { Ok(()) }
}

impl<Z> Slots<'_, Z> {
    pub(super) fn check(&self, distances: usize) -> Result<(), StorageError> {
        let (nodes, zones) = (self.nodes.len(), self.zones.len());
        if nodes != distances {
            return Err(StorageError::Nodes { slots: nodes, distances });
        }
        check_zones(zones)?;
        for (field, length, wanted) in [
            ("records", self.records.len(), nodes),
            ("scratch", self.scratch.len(), zones),
            ("lists", self.lists.len(), 2 * nodes * zones),
        ] {
            if length != wanted {
                return Err(StorageError::Length { field, length, wanted });
            }
        }
        Ok(())
    }
}

/// The node and generation of a registration, by which a handle proves that it is not stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
}

/// Facts about all nodes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NodeStates {
    /// With a slot in the registry.
    pub possible: NodeMask,
    /// Claimed by somebody.
    pub registered: NodeMask,
    /// Claimed as private.
    pub private: NodeMask,
    /// With memory.
    pub memory: NodeMask,
    /// Ordinary and with memory: what an ordinary request may land on.
    pub ordinary_memory: NodeMask,
    /// With a service.
    pub serviced: NodeMask,
    /// Being torn down.
    pub draining: NodeMask,
    /// With CPUs beside their memory.
    pub cpus: NodeMask,
}

impl NodeStates {
    pub(super) fn read<'s, 'm: 's>(slots: impl Iterator<Item = &'s NodeSlot<'m>>) -> Self {
        let mut states = Self::default();
        for (index, slot) in slots.enumerate() {
            let state = slot.load(Ordering::Acquire).state();
            let Some(node) = NodeId::from_index(index) else { break };
            for (mask, holds) in [
                (&mut states.possible, true),
                (&mut states.registered, state.is_registered()),
                (&mut states.private, state.is_private()),
                (&mut states.memory, state.has_memory()),
                (&mut states.ordinary_memory, state.has_memory() && !state.is_private()),
                (&mut states.serviced, state.is_serviced()),
                (&mut states.draining, state.is_draining()),
                (&mut states.cpus, state.has_cpus()),
            ] {
                if holds {
                    mask.insert(node);
                }
            }
        }
        states
    }
}

/// The doors of a slot whose word was loaded before with Acquire.
pub(super) fn doors(slot: &NodeSlot<'_>) -> Features {
    // The word's Acquire load ordered this after the store in `claim`.
    Features::from_bits(slot.features.load(Ordering::Relaxed)).unwrap_or(Features::NONE)
}
