//! A machine in a process: nodes on memory files, the registry as their gate, and mappings that take real faults.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `spec` | describing a machine and building it |
//! | `site` | the memory of one node: its backing, its zone, its registration |
//! | `compressed` | a private node that keeps pages compressed |
//! | `mapping` | runs of addresses, as a program has them |
//! | `process` | address spaces with areas and policies, which fork |
//! | `region` | their page tables: serving faults, moving pages |
//! | `common`, `object` | pages that several page tables hold: of a fork; of shared memory and files |
//! | `swap` | the swap file |
//! | `frames`, `around` | where the frame of a page comes from; bringing several pages at once |
//! | `bytes` | what is done with a frame that a page has |
//! | `service` | who answers for the pages of a private node |
//! | `huge` | 2 MiB by one fault |
//! | `reclaim` | demotion and promotion, by hand and when memory runs out |
//! | `heap` | heaps on a node |
//! | `background` | keeping memory free and promoting hot pages, by hand or by a thread |
//! | `unplug` | taking a node away while it is in use |
//! | `counters`, `picture`, `trace` | what can be read back |
//! | `clock` | simulated latency |
//! | `inject` | calls that fail on purpose |
//! | `watch`, `zone` | who looks on when a block changes hands |

mod around;
mod background;
mod bytes;
mod clock;
mod common;
mod compressed;
mod counters;
mod frames;
mod heap;
mod huge;
mod inject;
mod mapping;
mod object;
mod picture;
mod process;
mod reclaim;
mod region;
mod service;
mod shape;
mod site;
mod spec;
mod swap;
mod trace;
mod unplug;
mod watch;
mod zone;

use core::fmt;
use core::hash::{BuildHasher, Hasher};
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pnode_core::policy::{FaultCounters, FaultCounts};
use pnode_core::{
    AllocError, BoxedStorage, Denied, Distances, Frame, FreeError, Grant, NodeId, NodeState, Nodes, PageSize,
    Pfn, Reason, Request, Service, Watermarks,
};

use crate::arena::Arena;
use crate::backing::Memory;
use crate::fault::Backend;
use region::Region;
use site::Site;
use swap::Swap;
use trace::Note;
use watch::Watch;
use zone::Zone;

pub use background::{Background, KeepFree};
pub use clock::Delays;
pub use compressed::{CompressedError, CompressedUse};
pub use counters::Counters;
pub use heap::{MachineHeap, NodeFrames};
pub use inject::{Injections, Point};
pub use mapping::{MapError, Mapping, Place, Placement};
pub use object::Object;
pub use picture::{NodeOccupancy, Occupancy, Use};
pub use process::{
    Advice, AreaMap, Existing, MovePageError, NumaMaps, Process, ProcessError, Rights, Sharing,
};
pub use reclaim::{DemoteError, Demotion};
pub use shape::{ShapeError, ZoneUse};
pub use site::AuditError;
pub use spec::{BuildError, Builder, NodeSpec};
pub use trace::{Event, Trace, What, Why};
pub use unplug::{UnplugError, Unplugged};

type Registry = Nodes<'static, Zone>;

/// A machine of nodes.
///
/// Any number of threads may use it at once. Everything that it hands out borrows it or keeps it alive.
///
/// ```
/// use pnode_core::{AllocError, Denied, Reason, Request};
/// use pnode_user::{Machine, NodeSpec};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let machine = Machine::builder()
///     .node(NodeSpec::ordinary(256))
///     .node(NodeSpec::compressed(64, 192))
///     .build()?;
/// let [dram, compressed] = [machine.node(0)?, machine.node(1)?];
///
/// let memory = machine.map(100, dram)?;
/// memory.write(5 * 4096, b"touching a page takes a frame")?;
/// assert!(memory.place(5).is_resident_on(dram));
///
/// // No ordinary request reaches the private node, and only what its owner opened is granted.
/// let only = Request::page().prefer(compressed).this_node_only();
/// assert_eq!(machine.alloc(only), Err(AllocError::Private { node: compressed }));
/// assert!(matches!(machine.grant(compressed, Reason::Pin), Err(Denied::NotOpened { .. })));
///
/// // Demotion is open. The page is still there, readable in place; a write moves it back to ordinary memory.
/// assert_eq!(memory.demote(5..6, compressed)?.pages, 1);
/// let mut text = [0; 8];
/// memory.read(5 * 4096, &mut text)?;
/// assert_eq!(&text, b"touching");
/// assert!(memory.place(5).is_compressed_on(compressed));
/// memory.write(5 * 4096, b"T")?;
/// assert!(memory.place(5).is_resident_on(dram));
///
/// machine.unplug(compressed)?;
/// machine.audit()?;
/// # Ok(())
/// # }
/// ```
pub struct Machine {
    shared: Arc<Shared>,
}

/// What the machine and its mappings share.
///
/// # Invariants
///
/// - **S1** `_arena` is dropped last, and only `sites` and `nodes` hold references into it; neither leaves the crate.
struct Shared {
    counters: counters::Live,
    watch: Arc<Watch>,
    /// Faults whose page a policy placed.
    faults_by_policy: FaultCounters,
    faults: Arc<Backend>,
    page: PageSize,
    swap: Option<Swap>,
    objects: Mutex<Vec<Weak<object::Body>>>,
    /// How many pages a first touch brings at most: a power of two.
    fault_around: usize,
    has_services: bool,
    sites: Vec<Site>,
    nodes: &'static Registry,
    regions: Mutex<Regions>,
    benches: Mutex<compressed::Benches>,
    _arena: Arena,
}

/// All mappings, and where the search for cold pages goes on.
#[derive(Default)]
struct Regions {
    all: Vec<Weak<Region>>,
    hand: (usize, usize),
}

impl Machine {
    /// The most nodes that a machine can have.
    pub const MOST_NODES: usize = spec::MAX_NODES;

    /// Starts the description of a machine.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The id of node number `number`, in the order of the description.
    ///
    /// # Errors
    ///
    /// [`NoSuchNode`] if there were fewer.
    pub fn node(&self, number: u16) -> Result<NodeId, NoSuchNode> {
        let site = self.shared.sites.get(usize::from(number));
        site.map(|site| site.node).ok_or(NoSuchNode { number })
    }

    /// The ids of all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.shared.sites.iter().map(|site| site.node)
    }

    /// The facts about `node` now, or `None` for an id that the machine does not have.
    pub fn state(&self, node: NodeId) -> Option<NodeState> {
        self.shared.nodes.state(node)
    }

    /// Who catches page faults, and why; prints as one line.
    pub fn faults(&self) -> &Backend {
        &self.shared.faults
    }

    /// The size of a page and of a frame.
    pub fn page(&self) -> PageSize {
        self.shared.page
    }

    /// Takes a block of ordinary memory, as a kernel does for itself. Nothing is reclaimed for it.
    ///
    /// # Errors
    ///
    /// [`AllocError`], by [`Nodes::alloc`].
    #[inline]
    pub fn alloc(&self, request: Request<'_>) -> Result<Frame, AllocError> {
        self.shared.nodes.alloc(request).inspect_err(|error| self.shared.note_shortage(error))
    }

    /// Gives a block back.
    ///
    /// # Errors
    ///
    /// [`FreeError`], by [`Nodes::free`]; [`FreeError::Foreign`] for a block that this machine has not handed out.
    #[inline]
    pub fn free(&self, frame: Frame) -> Result<(), FreeError> {
        self.shared.nodes.free(frame)
    }

    /// Asks the gate for the right to a private node.
    ///
    /// # Errors
    ///
    /// [`Denied`] says which door is shut.
    pub fn grant(&self, node: NodeId, reason: Reason) -> Result<MachineGrant<'_>, Denied> {
        let grant = self.shared.nodes.grant(node, reason);
        let set_up =
            |grant| self.shared.site(node).map_or(Err(Denied::Unknown { node }), |site| site.set_up(grant));
        let grant = self.shared.gate(node, grant.and_then(set_up))?;
        Ok(MachineGrant { grant, machine: self })
    }

    /// The grant of the owner of private node `node`: whoever holds the machine plays all its drivers.
    ///
    /// # Errors
    ///
    /// [`Denied`], [`Denied::NotPrivate`] among them.
    pub fn owner_grant(&self, node: NodeId) -> Result<MachineGrant<'_>, Denied> {
        let site = self.shared.site(node).ok_or(Denied::Unknown { node })?;
        Ok(MachineGrant { grant: self.shared.gate(node, site.owner_grant())?, machine: self })
    }

    /// Copies bytes out of a block, from byte `offset` on. Says whether the block has them.
    #[must_use]
    pub fn read(&self, frame: &Frame, offset: usize, bytes: &mut [u8]) -> bool {
        self.shared.charge_access(frame.node(), bytes.len());
        self.shared.in_block(frame, offset, bytes.len(), |backing, index, offset, part| {
            backing.read(index, offset, &mut bytes[part])
        })
    }

    /// Copies bytes into a block, from byte `offset` on. Says whether the block has room for them.
    #[must_use]
    pub fn write(&self, frame: &Frame, offset: usize, bytes: &[u8]) -> bool {
        self.shared.charge_access(frame.node(), bytes.len());
        self.shared.in_block(frame, offset, bytes.len(), |backing, index, offset, part| {
            backing.write(index, offset, &bytes[part])
        })
    }

    /// Free frames of `node` now; 0 once it is unplugged.
    pub fn free_frames(&self, node: NodeId) -> u64 {
        self.shared.site(node).map_or(0, Site::free_frames)
    }

    /// Whether single frames of `node` can be mapped; see [`Builder::node_of`].
    pub fn shows_frames(&self, node: NodeId) -> bool {
        self.shared.site(node).is_some_and(|site| site.backing.shows_frames())
    }

    /// Frames of `node`, free or not; holes have none.
    pub fn frames(&self, node: NodeId) -> u64 {
        self.shared.site(node).map_or(0, Site::memory)
    }

    /// The watermarks of `node` as it was described; [`Watermarks::NONE`] if it keeps nothing back.
    pub fn watermarks(&self, node: NodeId) -> Watermarks {
        self.shared.site(node).map_or(Watermarks::NONE, |site| site.marks)
    }

    /// How full a compressed node is; `None` for other nodes, and once it is unplugged.
    pub fn compressed(&self, node: NodeId) -> Option<CompressedUse> {
        self.shared.site(node)?.compressed()?.usage()
    }

    /// What came of the faults of processes whose pages a policy or a cpuset placed.
    pub fn policy_faults(&self) -> FaultCounts {
        self.shared.faults_by_policy.read()
    }

    /// Pages in the swap file, and pages that it has room for in all.
    pub fn swap_use(&self) -> (u64, u64) {
        self.shared.swap_use()
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters.read()
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({:?}, {})", self.shared.nodes, self.shared.faults)
    }
}

/// The machine has no node of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchNode {
    /// The number.
    pub number: u16,
}

impl fmt::Display for NoSuchNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the machine has no node number {}", self.number)
    }
}

impl core::error::Error for NoSuchNode {}

/// A [`Grant`] on a node of a machine.
pub struct MachineGrant<'a> {
    /// Borrows the registry for longer than `'a` says; it is never handed out.
    grant: Grant<'static, Zone>,
    machine: &'a Machine,
}

impl MachineGrant<'_> {
    /// The node.
    pub fn node(&self) -> NodeId {
        self.grant.node()
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        self.grant.reason()
    }

    /// Takes a block of the node, or fails.
    ///
    /// # Errors
    ///
    /// [`AllocError`], by [`Grant::alloc`].
    #[inline]
    pub fn alloc(&self, request: Request<'_>) -> Result<Frame, AllocError> {
        self.grant.alloc(request).inspect_err(|error| self.machine.shared.note_shortage(error))
    }
}

impl fmt::Debug for MachineGrant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.grant.fmt(f)
    }
}

impl Shared {
    fn new(
        page: PageSize,
        faults: Arc<Backend>,
        fault_around: usize,
        swap: Option<Swap>,
        specs: &[(NodeSpec, Memory)],
        services: &service::Services,
        distances: Option<Vec<u8>>,
    ) -> Result<Self, BuildError> {
        let arena = Arena::new();
        let count = specs.len();
        let distances = match distances {
            None => Distances::uniform(count),
            Some(table) => Distances::from_table(count, keep(&arena, table)),
        }
        .map_err(BuildError::Distances)?;
        let zones = specs.iter().map(|(spec, _)| spec.zones().count()).sum();
        let storage = keep(&arena, BoxedStorage::new(count, zones).map_err(BuildError::Storage)?);
        // Machines follow one another on the same memory, and a caller may keep blocks of one that is gone.
        let mark = RandomState::new().build_hasher().finish();
        let nodes = Nodes::new(storage.slots(), distances).map_err(BuildError::Storage)?.marked(mark);
        let nodes: &'static Registry = keep(&arena, nodes);
        let watch = Arc::<Watch>::default();
        let turn = &*keep(&arena, Mutex::new(()));
        let mut sites = Vec::new();
        for (index, (spec, memory)) in specs.iter().enumerate() {
            let at @ (node, frames) = spec::frames_of(index, spec.span())?;
            let mut zones = Vec::new();
            let shaped = spec.zones_at(frames.start());
            for (zone, marks) in shaped.map_err(|error| BuildError::Shape { node, error })? {
                zones.push(&*keep(&arena, Zone::new(zone, marks, node, &watch)));
            }
            let wanted = services.0.iter().rfind(|(number, _)| usize::from(*number) == index);
            let service = wanted.map(|(_, ops)| {
                let ops: &'static service::Ops = keep(&arena, Arc::clone(ops));
                &*keep(&arena, Service::new(&**ops))
            });
            let backing = spec.backing(node, memory, page)?;
            sites.push(Site::new(backing, at, zones, nodes, turn, spec, service)?);
        }
        // INVARIANT: S1: `_arena` is the last field, and the other two are private and lend no `'static` reference.
        Ok(Self {
            counters: Default::default(),
            watch,
            faults_by_policy: FaultCounters::new(),
            faults,
            page,
            swap,
            objects: Mutex::default(),
            fault_around,
            has_services: !services.0.is_empty(),
            sites,
            nodes,
            regions: Mutex::default(),
            benches: Mutex::default(),
            _arena: arena,
        })
    }

    fn site(&self, node: NodeId) -> Option<&Site> {
        self.sites.get(node.index())
    }

    /// The site of a frame and the frame's number there.
    fn locate(&self, pfn: Pfn) -> Option<(&Site, u64)> {
        let site = self.sites.iter().find(|site| site.frames.contains(pfn))?;
        Some((site, pfn.checked_sub(site.frames.start())?))
    }

    /// Records that a request found no memory.
    #[cold]
    fn note_shortage(&self, error: &AllocError) {
        if let AllocError::NoMemory { order } = *error {
            self.note(|| Note::new(What::NoMemory, Why::Shortage).count(order.frames()));
        }
    }

    fn regions(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All mappings that live now.
    fn live_regions(&self) -> Vec<Arc<Region>> {
        let mut regions = self.regions();
        regions.all.retain(|region| region.strong_count() > 0);
        regions.all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Calls `copy(backing, frame, offset in the frame, part of the bytes)` for each frame of a run of bytes, which lie
    /// in a block that a caller holds.
    fn in_block(
        &self,
        frame: &Frame,
        offset: usize,
        bytes: usize,
        mut copy: impl FnMut(&crate::backing::Backing, u64, usize, core::ops::Range<usize>) -> bool,
    ) -> bool {
        // A token of this registry that a caller has is of a block that he took: those of mappings and stores never leave
        // them.
        if !self.nodes.issued(frame) {
            return false;
        }
        let Some((site, first)) = self.locate(frame.pfn()) else { return false };
        let size = self.page.bytes();
        let block = frame.order().frames() as usize * size;
        if offset.checked_add(bytes).is_none_or(|end| end > block) {
            return false;
        }
        let mut done = 0;
        while done < bytes {
            let at = offset + done;
            let part = (size - at % size).min(bytes - done);
            if !copy(&site.backing, first + (at / size) as u64, at % size, done..done + part) {
                return false;
            }
            done += part;
        }
        true
    }
}

/// Keeps `value` for the life of a [`Shared`] or of a compressed node that is being made.
#[allow(unsafe_code)]
fn keep<T: Send + 'static>(arena: &Arena, value: T) -> &'static mut T {
    // SAFETY: by S1, and by Z1 for a compressed node, the references end before the arena does: fields are dropped in the
    // order of their declaration. On an error in `Shared::new` or `Compressed::new` the arena is dropped last too: it is
    // declared first there.
    unsafe { arena.keep(value) }
}
