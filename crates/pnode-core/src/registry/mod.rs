//! The registry: which nodes there are, who owns them, and which zones they have.
//!
//! One value, [`Nodes`], on memory that the caller supplies. Whoever changes it takes its lock; whoever allocates, frees
//! or asks for a grant takes none.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `storage` | the slots and their words |
//! | `claim` | registering a node: ordinary or private |
//! | `handle` | a node's life: memory on and off, draining, giving up |
//! | `owner` | what only the owner of a private node may do |
//! | `references` | counted references, by which teardown waits for grants and callbacks |
//! | `zonelist` | which zones serve whom, rebuilt while others walk them |
//! | `token` | a block that was handed out, and why there is none |
//! | `walk` | taking a block through a zonelist, and giving it back |
//! | `aim` | taking exactly one block, and blocks that are known by their numbers |

mod aim;
mod claim;
mod error;
mod handle;
mod owner;
mod references;
mod storage;
mod token;
mod walk;
mod zone_word;
mod zonelist;

use core::fmt;

pub use claim::Private;
pub use error::{OfflineError, OnlineError, RegisterError, ServiceError, Stale, UnregisterError};
pub use handle::{NodeHandle, Offlined};
pub use owner::Owner;
#[cfg(feature = "alloc")]
pub use storage::BoxedStorage;
pub(crate) use storage::Registration;
pub use storage::{ListSlot, NodeRecord, NodeSlot, NodeStates, Slots, Storage, StorageError, ZoneSlot};
pub use token::{AdoptError, AllocError, Frame};

use crate::distance::Distances;
use crate::frame::FrameZone;
use crate::node::{Features, NodeId, NodeMask, NodeState, Stamp};
use crate::sync::{AtomicU32, AtomicU64, Lock, Ordering, RawLock, SpinLock};
use storage::{NodeSlot as Slot, doors};
use token::Mark;

/// All nodes of a machine: the gate between requests and frames.
///
/// `Z` is the host's zone, anything that is a [`FrameZone`]; `L` is the host's lock. The registry is shared by
/// reference and has no destructor; handles and grants borrow it for `'m`.
///
/// ```
/// use pnode_core::{AllocError, Denied, Distances, Features, FrameRange, MemoryClass, NodeId, Nodes, Order, Pfn};
/// use pnode_core::{Private, Reason, Request, Storage, WordZone};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut storage = Storage::<WordZone, 4, 4>::new();                  // the caller's memory, no heap
/// let nodes = Nodes::new(storage.slots(), Distances::uniform(4)?)?;
/// let dram_zone = WordZone::new(FrameRange::new(Pfn::new(0), 16)?).ok_or("too large")?;
/// let nic_zone = WordZone::new(FrameRange::new(Pfn::new(0x10_0000), 16)?).ok_or("too large")?;
///
/// nodes.ordinary(NodeId::new(0)?, MemoryClass::DRAM)?.online(&dram_zone)?;
/// let nic = nodes.register(NodeId::new(2)?, Private::class(MemoryClass::DEVICE_BUFFER), Features::NONE)?;
/// nic.online(&nic_zone)?;
///
/// let buffer = nic.grant()?.alloc(Request::page().zeroed())?;      // this node or an error
/// assert_eq!(buffer.node(), nic.id());
/// let other = nodes.alloc(Request::page().prefer(nic.id()))?;      // ordinary: never the NIC
/// assert_eq!(other.node(), NodeId::new(0)?);
/// let only = Request::page().prefer(nic.id()).this_node_only();
/// assert_eq!(nodes.alloc(only), Err(AllocError::Private { node: nic.id() }));
/// assert!(matches!(nodes.grant(nic.id(), Reason::Demotion), Err(Denied::NotOpened { .. })));
/// # nodes.free(buffer)?;
/// # nodes.free(other)?;
/// # Ok(())
/// # }
/// ```
pub struct Nodes<'m, Z: FrameZone, L: RawLock = SpinLock> {
    nodes: &'m [Slot<'m>],
    zones: &'m [ZoneSlot<'m, Z>],
    lists: &'m [ListSlot],
    distances: Distances<'m>,
    mark: Mark,
    /// How often the zonelists were rebuilt; its lowest bit says which copy is current.
    epoch: AtomicU32,
    /// How many registrations there were; changed under the lock.
    births: AtomicU64,
    /// Held by whoever changes anything but a node's reference count.
    admin: Lock<Admin<'m>, L>,
}

/// What only the holder of the registry's lock touches.
struct Admin<'m> {
    records: &'m mut [NodeRecord],
    scratch: &'m mut [u16],
}

impl<'m, Z: FrameZone> Nodes<'m, Z> {
    /// A registry without nodes, on the caller's slots; node ids are those that `distances` speaks of.
    ///
    /// # Errors
    ///
    /// [`StorageError`] for slots that do not fit one another or the distances.
    pub fn new(slots: Slots<'m, Z>, distances: Distances<'m>) -> Result<Self, StorageError> {
        Self::with_lock(slots, distances)
    }
}

impl<'m, Z: FrameZone, L: RawLock> Nodes<'m, Z, L> {
    /// As [`Nodes::new`], with the host's lock.
    ///
    /// # Errors
    ///
    /// As [`Nodes::new`].
    pub fn with_lock(slots: Slots<'m, Z>, distances: Distances<'m>) -> Result<Self, StorageError> {
        slots.check(distances.nodes())?;
        // While a registry lives nobody else has its slots, and there is at least one.
        let mark = Mark(slots.nodes.as_ptr().addr() as u64);
        Ok(Self {
            mark,
            nodes: slots.nodes,
            zones: slots.zones,
            lists: slots.lists,
            distances,
            epoch: AtomicU32::new(0),
            births: AtomicU64::new(0),
            admin: Lock::new(Admin { records: slots.records, scratch: slots.scratch }),
        })
    }

    /// The same registry, its blocks told from those of others by `mark`.
    ///
    /// By default they are told by the address of the slots, which no two registries share that live at the same time. A
    /// host that keeps blocks of a registry which is gone, and makes another one on the same memory, gives each of them a
    /// number of its own, before the first block is handed out: [`Nodes::free`] takes those blocks only that have it.
    #[must_use]
    pub fn marked(mut self, mark: u64) -> Self {
        self.mark = Mark(mark);
        self
    }

    /// How many node ids the registry has slots for: ids from 0.
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// The facts about `node` now, or `None` for an id without a slot.
    ///
    /// Who is told a fact, by this or by any other question, sees what its teller did before (Acquire).
    pub fn state(&self, node: NodeId) -> Option<NodeState> {
        // Acquire, in all questions, pairs with the Release of the changes of a node's word.
        Some(self.slot(node)?.load(Ordering::Acquire).state())
    }

    /// The facts about all nodes. Each node is read in one step, the masks together are not one.
    pub fn states(&self) -> NodeStates {
        NodeStates::read(self.nodes.iter())
    }

    /// This moment: all nodes that are registered now were registered by then, and none that will be.
    pub fn stamp(&self) -> Stamp {
        // Acquire pairs with the Release in `claim`: who counts a registration sees the node.
        Stamp(self.births.load(Ordering::Acquire))
    }

    /// The private nodes with memory whose owners opened all of `doors`, but for those that drain.
    ///
    /// A survey: each node is read in one step, the nodes together are not, and a node may be gone when this returns.
    /// Only a [`Grant`](crate::Grant) makes sure.
    pub fn opened(&self, doors: Features) -> NodeMask {
        self.opened_since(doors, None)
    }

    /// As [`Nodes::opened`], without nodes that were registered after `stamp`.
    pub(crate) fn opened_since(&self, wanted: Features, stamp: Option<Stamp>) -> NodeMask {
        let ids = (0..self.nodes.len()).filter_map(NodeId::from_index);
        ids.zip(self.nodes).filter(|(_, slot)| slot.is_open_to(wanted, stamp)).map(|(node, _)| node).collect()
    }

    /// Whether `node` is one of [`Nodes::opened`].
    pub(crate) fn is_opened(&self, node: NodeId, wanted: Features) -> bool {
        self.slot(node).is_some_and(|slot| slot.is_open_to(wanted, None))
    }

    /// The features that `node` was registered with, whether or not it has memory or drains; none for an ordinary node.
    /// `None` if nobody registered it.
    ///
    /// Who holds a grant on the node is told its features for sure: nobody can give the node up meanwhile.
    pub fn features(&self, node: NodeId) -> Option<Features> {
        let slot = self.slot(node)?;
        slot.load(Ordering::Acquire).state().is_registered().then(|| doors(slot))
    }

    /// How often memory came or went, wrapping. Who derives a table from the registry rebuilds it when this changes.
    pub fn changes(&self) -> u32 {
        // Acquire pairs with the Release in `rebuild`.
        self.epoch.load(Ordering::Acquire)
    }

    /// The distances between the nodes.
    pub fn distances(&self) -> &Distances<'m> {
        &self.distances
    }

    /// The class of a registered node's memory, or `None` if the id is not claimed.
    pub fn class(&self, node: NodeId) -> Option<crate::node::MemoryClass> {
        let admin = self.admin.lock();
        let registered = self.state(node)?.is_registered();
        admin.records.get(node.index()).filter(|_| registered).map(|record| record.class)
    }

    fn slot(&self, node: NodeId) -> Option<&'m Slot<'m>> {
        self.nodes.get(node.index())
    }
}

impl<Z: FrameZone, L: RawLock> fmt::Debug for Nodes<'_, Z, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for node in self.states().registered.iter() {
            map.entry(&node, &self.state(node));
        }
        map.finish()
    }
}
