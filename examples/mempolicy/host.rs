//! A host of the machine that a file describes: its nodes, real memory behind them, and a process whose pages its
//! policies place.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::ops::Range;

use pnode::buddy::Zone;
use pnode::core::policy::{FaultCounters, Mode, MoveDenied, PlaceError, PolicyError, Target, Weights, Wish};
use pnode::core::{
    AllocError, BoxedStorage, Denied, Distances, Frame, Grant, MemoryClass, Mems, NodeHandle, NodeId,
    NodeMask, Nodes, Owner, PageOrigin, PageSize, Pfn, Placement, Policy, Private, Reason, Request, Tier,
    Watermarks,
};
use pnode::user::MachineFile;
use pnode::user::backing::{Backing, Memory};

use crate::cli::say;

/// The frame numbers of consecutive nodes are so far apart.
const STRIDE_SHIFT: u32 = 24;

pub(crate) struct Host<'h> {
    pub(crate) file: &'h MachineFile,
    pub(crate) nodes: &'h Nodes<'h, Zone<'static>>,
    /// By node, the highest first, with what each keeps back.
    zones: &'h [Vec<(Zone<'static>, Watermarks)>],
    /// By node: its owner, for a private one.
    owners: &'h [Option<Owner<'h, Zone<'static>>>],
    memory: Vec<Backing>,
}

/// Builds the host and calls `work` with it. Every frame must have come back by then.
pub(crate) fn with<R>(
    file: &MachineFile,
    work: impl FnOnce(&Host<'_>) -> Result<R, String>,
) -> Result<R, String> {
    let count = file.nodes().len();
    let ids: Vec<NodeId> =
        (0..count).map(|node| NodeId::new(node as u16)).collect::<Result<_, _>>().map_err(say)?;
    let mut zones = Vec::new();
    let mut memory = Vec::new();
    for (id, (_, spec)) in ids.iter().zip(file.nodes()) {
        let first = Pfn::new((id.index() as u64) << STRIDE_SHIFT);
        zones.push(spec.zones_at(first).map_err(say)?.into_iter().rev().collect::<Vec<_>>());
        let made_of = file.memory(*id).unwrap_or(&Memory::File);
        memory.push(Backing::made_of(made_of, spec.span(), PageSize::KIB4).map_err(say)?);
    }
    let table: Vec<u8> =
        ids.iter().flat_map(|from| ids.iter().map(move |to| file.distance(*from, *to))).collect();
    let mut storage = BoxedStorage::new(count, zones.iter().map(Vec::len).sum()).map_err(say)?;
    let distances = Distances::from_table(count, &table).map_err(say)?;
    let nodes = Nodes::new(storage.slots(), distances).map_err(say)?;
    let mut owners = Vec::new();
    for ((id, zones), (_, spec)) in ids.iter().zip(&zones).zip(file.nodes()) {
        let class = spec.memory_class();
        if spec.is_private() {
            let owner = nodes.register(*id, Private::class(class), spec.doors()).map_err(say)?;
            online(&owner, zones)?;
            owners.push(Some(owner));
        } else {
            online(&nodes.ordinary(*id, class).map_err(say)?, zones)?;
            owners.push(None);
        }
    }
    let result = work(&Host { file, nodes: &nodes, zones: &zones, owners: &owners, memory })?;
    match zones.iter().flatten().find(|(zone, _)| zone.used_frames() > 0) {
        Some((zone, _)) => Err(format!("{zone:?} has lost {} frames", zone.used_frames())),
        None => Ok(result),
    }
}

fn online<'m>(
    handle: &NodeHandle<'m, Zone<'static>>,
    zones: &'m [(Zone<'static>, Watermarks)],
) -> Result<(), String> {
    zones.iter().try_for_each(|(zone, marks)| handle.online_with(zone, *marks)).map_err(say)
}

impl<'h> Host<'h> {
    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        (0..self.memory.len()).filter_map(|node| NodeId::new(node as u16).ok())
    }

    pub(crate) fn name(&self, node: NodeId) -> &str {
        self.file.name(node).unwrap_or("?")
    }

    pub(crate) fn is_private(&self, node: NodeId) -> bool {
        self.file.nodes().nth(node.index()).is_some_and(|(_, spec)| spec.is_private())
    }

    pub(crate) fn ordinary(&self) -> NodeMask {
        self.ids().filter(|node| !self.is_private(*node)).fold(NodeMask::EMPTY, |mask, node| mask.with(node))
    }

    /// The grant of a private node's owner: what a driver has and nobody else.
    pub(crate) fn owner_grant(&self, node: NodeId) -> Result<Grant<'h, Zone<'static>>, String> {
        let owner = self.owners[node.index()].as_ref().ok_or("an ordinary node has no owner")?;
        owner.grant().map_err(say)
    }

    pub(crate) fn free(&self, node: NodeId) -> u64 {
        self.zones[node.index()].iter().map(|(zone, _)| zone.free_frames()).sum()
    }

    /// What `numactl --hardware` says, and what it could not: classes, doors and tiers.
    pub(crate) fn hardware(&self) -> String {
        let mut out = format!("available: {} nodes\n", self.memory.len());
        for (id, (name, spec)) in self.ids().zip(self.file.nodes()) {
            let kind = match (spec.is_private(), spec.advertised()) {
                (false, _) => "ordinary",
                (true, None) => "private",
                (true, Some(_)) => "compressed",
            };
            let MiB(size) = MiB::of(spec.frames());
            let class: MemoryClass = spec.memory_class();
            let _ = write!(
                out,
                "node {:<2} {name:<10} {kind:<10} {size:>7} MiB  {:<13} {:>4} ns {:>6} MiB/s  tier {}",
                id.get(),
                class.name(),
                class.latency_ns(),
                class.bandwidth_mib_s(),
                Tier::of(class).get(),
            );
            let _ = if spec.is_private() { writeln!(out, "  doors {}", spec.doors()) } else { writeln!(out) };
            let mib =
                |range: &Range<u64>| format!("{} to {} MiB", MiB::of(range.start).0, MiB::of(range.end).0);
            if spec.zones().count() > 1 {
                for (zone, reserve) in spec.zones() {
                    let _ = write!(out, "        zone {}", mib(&zone));
                    let _ = match reserve {
                        0 => writeln!(out),
                        frames => writeln!(out, ", {} MiB of it for who must be there", MiB::of(frames).0),
                    };
                }
            }
            for hole in spec.holes() {
                let _ = writeln!(out, "        no memory from {}", mib(&hole));
            }
        }
        out.push_str("node distances:\nnode");
        let columns: String = self.ids().map(|to| format!("{:>5}", to.get())).collect();
        out.push_str(&columns);
        for from in self.ids() {
            let row: String = self.ids().map(|to| format!("{:>5}", self.file.distance(from, to))).collect();
            let _ = write!(out, "\n{:>3}:{row}", from.get());
        }
        out.push('\n');
        for (name, mask) in self.file.cpusets() {
            let nodes: Vec<_> = mask.iter().map(|node| self.name(node)).collect();
            let _ = writeln!(out, "cpuset {name}: {}", nodes.join(" "));
        }
        out
    }
}

/// Frames as MiB, for people.
struct MiB(String);

impl MiB {
    fn of(frames: u64) -> Self {
        let mib = frames as f64 * PageSize::KIB4.bytes() as f64 / (1 << 20) as f64;
        Self(if mib.fract() == 0.0 { format!("{mib:.0}") } else { format!("{mib:.2}") })
    }
}

/// What a process asked for and what became of it.
pub(crate) struct Process<'p, 'h> {
    pub(crate) host: &'p Host<'h>,
    pub(crate) cpu: NodeId,
    pub(crate) mems: Mems,
    pub(crate) policy: Policy,
    pub(crate) weights: Vec<u8>,
    pub(crate) counters: FaultCounters,
    origin: PageOrigin,
    pages: Vec<Frame>,
}

/// Why a page did not move.
#[derive(Debug)]
pub(crate) enum MoveError {
    Denied(MoveDenied),
    Grant(Denied),
    Full(AllocError),
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(error) => error.fmt(f),
            Self::Grant(error) => error.fmt(f),
            Self::Full(error) => error.fmt(f),
        }
    }
}

impl<'p, 'h> Process<'p, 'h> {
    pub(crate) fn new(host: &'p Host<'h>, cpu: NodeId) -> Result<Self, String> {
        Ok(Self {
            host,
            cpu,
            mems: Mems::root(host.nodes).map_err(say)?,
            policy: Policy::DEFAULT,
            weights: Vec::new(),
            counters: FaultCounters::new(),
            origin: PageOrigin::PrivateAnonymous,
            pages: Vec::new(),
        })
    }

    /// set_mempolicy: what all pages follow from now on, or, for other memory than anonymous one, mbind of its range.
    pub(crate) fn set_policy(
        &mut self,
        mode: Mode,
        nodes: NodeMask,
        origin: PageOrigin,
    ) -> Result<(), PolicyError> {
        let target =
            if origin == PageOrigin::PrivateAnonymous { Target::Task } else { Target::Range(origin) };
        self.policy = Policy::new(self.host.nodes, &Wish::new(mode, nodes), target, &self.mems)?;
        self.origin = origin;
        Ok(())
    }

    /// Touches `count` new pages: hard faults. Those that came stay if one does not.
    pub(crate) fn touch(&mut self, count: usize) -> Result<(), PlaceError> {
        for _ in 0..count {
            let placement = Placement::new(self.origin, self.cpu)
                .mems(&self.mems)
                .weights(Weights::new(&self.weights))
                .turn(self.pages.len() as u64);
            let placement = match self.origin {
                PageOrigin::PrivateAnonymous => placement.task(&self.policy),
                // Of shared memory the object's own policy counts, whoever touches it.
                PageOrigin::SharedAnonymous => placement.object(&self.policy),
                _ => placement.range(&self.policy),
            };
            let placed = self.host.nodes.place(&placement).inspect_err(|_| self.counters.count_failure())?;
            self.counters.count(&placed.report);
            let number = (self.pages.len() as u64).to_le_bytes();
            let written = self.host.memory_of(&placed.frame, |memory, frame| memory.write(frame, 0, &number));
            debug_assert!(written, "the frame is one of its node");
            self.pages.push(placed.frame);
        }
        Ok(())
    }

    /// move_pages: every page to `to`. Says how many moved before one could not.
    pub(crate) fn move_to(&mut self, to: NodeId) -> (usize, Option<MoveError>) {
        for index in 0..self.pages.len() {
            let from = self.pages[index].node();
            if from == to {
                continue;
            }
            match self.move_one(index, from, to) {
                Ok(()) => {}
                Err(error) => return (index, Some(error)),
            }
        }
        (self.pages.len(), None)
    }

    fn move_one(&mut self, index: usize, from: NodeId, to: NodeId) -> Result<(), MoveError> {
        let nodes = self.host.nodes;
        nodes.check_move(from, to, &self.mems).map_err(MoveError::Denied)?;
        let new = if self.host.is_private(to) {
            nodes.grant(to, Reason::UserMigrate).map_err(MoveError::Grant)?.alloc(Request::page())
        } else {
            nodes.alloc(Request::page().prefer(to).this_node_only())
        }
        .map_err(MoveError::Full)?;
        let old = std::mem::replace(&mut self.pages[index], new);
        let copied = self.host.memory_of(&self.pages[index], |to, to_frame| {
            self.host.memory_of(&old, |from, from_frame| to.copy_frame(to_frame, from, from_frame))
        });
        debug_assert!(copied, "both frames are of their nodes");
        let freed = nodes.free(old);
        debug_assert_eq!(freed, Ok(()), "the page was ours");
        Ok(())
    }

    /// How many pages are on each node.
    pub(crate) fn places(&self) -> BTreeMap<NodeId, usize> {
        let mut places = BTreeMap::new();
        self.pages.iter().for_each(|page| *places.entry(page.node()).or_default() += 1);
        places
    }

    /// One line as `/proc/PID/numa_maps` has it.
    pub(crate) fn numa_maps(&self) -> String {
        let named = self.policy.ordinary().union(self.policy.private());
        let nodes: Vec<_> = named.iter().map(|node| node.get().to_string()).collect();
        let policy = match nodes.is_empty() {
            true => self.policy.mode().to_string(),
            false => format!("{}:{}", self.policy.mode(), nodes.join(",")),
        };
        let kind = match self.origin {
            PageOrigin::PrivateAnonymous => "anon",
            PageOrigin::SharedAnonymous => "shmem",
            PageOrigin::PageCache => "file",
            PageOrigin::Unmovable => "kernel",
        };
        let mut out = format!("7f0000000000 {} {kind}={}", policy.replace(' ', "-"), self.pages.len());
        let places = self.places().into_iter().map(|(node, pages)| format!(" N{}={pages}", node.get()));
        out.extend(places);
        out.push_str(" kernelpagesize_kB=4");
        out
    }

    /// Checks that each page still has its bytes, and gives all back.
    pub(crate) fn exit(&mut self) -> Result<(), String> {
        for (number, page) in std::mem::take(&mut self.pages).into_iter().enumerate() {
            let mut bytes = [0; 8];
            let read = self.host.memory_of(&page, |memory, frame| memory.read(frame, 0, &mut bytes));
            if !read || u64::from_le_bytes(bytes) != number as u64 {
                return Err(format!("page {number} has lost its bytes"));
            }
            self.host.nodes.free(page).map_err(say)?;
        }
        Ok(())
    }
}

impl<'h> Host<'h> {
    /// Calls `work` with the memory of a frame's node and its number there.
    fn memory_of<R>(&self, frame: &Frame, work: impl FnOnce(&Backing, u64) -> R) -> R {
        work(&self.memory[frame.node().index()], frame.pfn().get() & ((1 << STRIDE_SHIFT) - 1))
    }
}
