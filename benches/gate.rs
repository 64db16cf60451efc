//! The cost of the gate: what a request pays, beyond the frame call itself, for being told who may have memory from
//! where.
//!
//! `cargo bench --bench gate` prints instructions per call, counted by callgrind (of valgrind), because on a shared
//! machine they are the only stable figure, and checks them against the limits below. Without valgrind it says so and
//! checks only that every measured path does what it claims; `cargo bench -- --test` runs that part alone.

#[path = "support/callgrind.rs"]
mod callgrind;

use std::hint::black_box;
use std::process::ExitCode;

use callgrind::Count;

use pnode::core::registry::{ListSlot, NodeRecord, NodeSlot, Slots, ZoneSlot};
use pnode::core::{
    AllocError, Distances, Features, FrameError, FrameRange, FrameSource, FrameZone, FreeError, Grant,
    MemoryClass, MigrateType, NodeId, Nodes, Order, Pfn, Private, Request, WordZone,
};

/// How many instructions a request may cost beyond the frame call that serves it.
const LIMIT: f64 = 40.0;

/// A zone whose frame call is a call, as that of any large allocator is: what the compiler merges in one variant and not
/// in another would be measured otherwise.
struct Zone(WordZone);

impl FrameSource for Zone {
    #[inline(never)]
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        self.0.alloc(order, migrate)
    }

    #[inline(never)]
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.0.free(pfn, order)
    }
}

impl FrameZone for Zone {
    fn span(&self) -> FrameRange {
        self.0.span()
    }
    fn free_frames(&self) -> u64 {
        self.0.free_frames()
    }
    fn managed_frames(&self) -> u64 {
        self.0.managed_frames()
    }
    fn isolate(&self) {
        self.0.isolate();
    }
    fn reopen(&self) {
        self.0.reopen();
    }
    fn used_frames(&self) -> u64 {
        self.0.used_frames()
    }
}

/// What is repeated.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    /// The zone alone: the yardstick.
    Bare,
    /// The zone alone, asked this often when it is full.
    BareFull(u16),
    /// A request of anybody.
    Request,
    /// A request that the registry also takes back.
    RequestAndFree,
    /// A request with a nodemask, a preferred node and zeroing.
    Masked,
    /// A request on a grant.
    Granted,
    /// A request that finds this many zones full before one that is not.
    PastFull(u16),
}

const PATHS: [(&str, Path); 11] = [
    ("bare", Path::Bare),
    ("bare-full-8", Path::BareFull(8)),
    ("bare-full-16", Path::BareFull(16)),
    ("request", Path::Request),
    ("request-free", Path::RequestAndFree),
    ("masked", Path::Masked),
    ("granted", Path::Granted),
    ("full-8", Path::PastFull(8)),
    ("full-16", Path::PastFull(16)),
    ("full-32", Path::PastFull(32)),
    ("full-60", Path::PastFull(60)),
];

/// The sizes of registry at which the gate must cost the same.
const NODES: [u16; 3] = [2, 64, 1024];

fn node(number: u16) -> NodeId {
    NodeId::new(number).expect("a small number")
}

/// Repeats `path` on a registry with slots for `nodes` nodes; how often it served the request.
fn repeat(path: Path, nodes: u16, times: u32) -> u32 {
    let zones: Vec<Zone> = (0..u64::from(nodes.min(64)))
        .map(|zone| FrameRange::new(Pfn::new(zone * 64), 1).ok().and_then(WordZone::new).map(Zone))
        .collect::<Option<_>>()
        .expect("a zone of one frame");
    let count = usize::from(nodes);
    let mut node_slots: Vec<_> = (0..count).map(|_| NodeSlot::new()).collect();
    let mut zone_slots: Vec<_> = zones.iter().map(|_| ZoneSlot::new()).collect();
    let mut lists: Vec<_> = (0..2 * count * zones.len()).map(|_| ListSlot::new()).collect();
    let slots = Slots {
        nodes: &mut node_slots,
        records: &mut vec![NodeRecord::new(); count],
        zones: &mut zone_slots,
        scratch: &mut vec![0; zones.len()],
        lists: &mut lists,
    };
    let distances = Distances::uniform(count).expect("not too many nodes");
    let registry = Nodes::<'_, Zone>::new(slots, distances).expect("slots that fit");
    let (private, ordinary) = zones.split_last().expect("at least two zones");
    for (number, zone) in (0..).zip(ordinary) {
        let handle = registry.ordinary(node(number), MemoryClass::DRAM).expect("a free id");
        handle.online(zone).expect("a free slot");
    }
    let owner = registry.register(node(nodes - 1), Private::class(MemoryClass::FAR), Features::NONE);
    let owner = owner.expect("a free id");
    owner.online(private).expect("a free slot");
    let grant = owner.grant().expect("a living node");
    let full = match path {
        Path::PastFull(full) => usize::from(full),
        Path::BareFull(_) => 1,
        _ => 0,
    };
    for zone in &zones[..full] {
        zone.0.alloc(Order::ZERO, MigrateType::Movable).expect("one frame");
    }
    (0..times).filter(|_| once(path, &registry, &grant, &zones)).count() as u32
}

/// Takes a frame along `path` and gives it back.
#[inline(always)]
fn once(path: Path, registry: &Nodes<'_, Zone>, grant: &Grant<'_, Zone>, zones: &[Zone]) -> bool {
    let request = Request::order(black_box(Order::ZERO)).prefer(black_box(NODE_0));
    match path {
        Path::Bare => {
            let zone = &zones[0];
            let pfn = zone.alloc(black_box(Order::ZERO), MigrateType::Movable);
            pfn.is_ok_and(|pfn| zone.free(pfn, Order::ZERO).is_ok())
        }
        Path::BareFull(often) => (0..often)
            .all(|_| black_box(&zones[0]).alloc(black_box(Order::ZERO), MigrateType::Movable).is_err()),
        Path::Request => give_back(registry.alloc(request), &zones[0]),
        Path::RequestAndFree => registry.alloc(request).is_ok_and(|frame| registry.free(frame).is_ok()),
        Path::Masked => {
            give_back(registry.alloc(request.nodemask(&pnode::core::NodeMask::ALL).zeroed()), &zones[0])
        }
        Path::Granted => {
            give_back(grant.alloc(Request::order(black_box(Order::ZERO))), &zones[zones.len() - 1])
        }
        Path::PastFull(full) => give_back(registry.alloc(request), &zones[usize::from(full)]),
    }
}

const NODE_0: NodeId = match NodeId::new(0) {
    Ok(node) => node,
    Err(_) => panic!("0 is a node id"),
};

/// Straight to the zone, so that the paths differ in how they take the frame only.
#[inline(always)]
fn give_back(frame: Result<pnode::core::Frame, AllocError>, zone: &Zone) -> bool {
    frame.is_ok_and(|frame| zone.free(frame.pfn(), Order::ZERO).is_ok())
}

/// What `path` costs with `nodes` nodes.
fn count(path: &str, nodes: u16) -> Result<Count, String> {
    callgrind::count(&[path, &nodes.to_string()])
}

/// Prints the counts and says which limits they break.
fn report() -> Result<Vec<String>, String> {
    let mut broken = Vec::new();
    println!("{:<14} {:>6} {:>14} {:>14} {:>8}", "path", "nodes", "instructions", "beyond bare", "atomic");
    let print = |path: &str, nodes: u16, count: Count, bare: Count| {
        let beyond = count.instructions - bare.instructions;
        println!(
            "{path:<14} {nodes:>6} {:>14.1} {beyond:>14.1} {:>8.1}",
            count.instructions, count.atomic_writes
        );
        beyond
    };
    let bare = count("bare", 2)?;
    print("bare", 2, bare, bare);
    for path in ["request", "masked", "granted", "request-free"] {
        let mut gates = Vec::new();
        for nodes in NODES {
            gates.push(print(path, nodes, count(path, nodes)?, bare));
        }
        // What `request-free` adds is the way back; the limit speaks of the way to the frame.
        if path != "request-free" && gates.iter().any(|gate| *gate > LIMIT) {
            broken.push(format!("{path}: the gate costs {gates:.1?} instructions; the limit is {LIMIT}"));
        }
        if gates.iter().any(|gate| (gate - gates[0]).abs() > 0.5) {
            broken.push(format!("{path}: the gate's cost depends on the number of nodes: {gates:.1?}"));
        }
    }
    let refusals = [8, 16].map(|often| count(&format!("bare-full-{often}"), 2));
    let (eight, sixteen) = (refusals[0].clone()?, refusals[1].clone()?);
    let refusal = Count {
        instructions: (sixteen.instructions - eight.instructions) / 8.0,
        atomic_writes: (sixteen.atomic_writes - eight.atomic_writes) / 8.0,
    };
    let full = [8u16, 16, 32, 60];
    let mut walks = Vec::new();
    for zones in full {
        let walk = count(&format!("full-{zones}"), 64)?;
        print(&format!("full-{zones}"), 64, walk, bare);
        walks.push(walk);
    }
    let per_zone = |event: fn(&Count) -> f64| -> Vec<f64> {
        let step = |i: usize| (event(&walks[i]) - event(&walks[i - 1])) / f64::from(full[i] - full[i - 1]);
        (1..full.len()).map(step).collect()
    };
    let (instructions, writes) = (per_zone(|walk| walk.instructions), per_zone(|walk| walk.atomic_writes));
    println!(
        "each full zone that is walked past: {instructions:.1?} instructions, {writes:.1?} atomic writes"
    );
    println!("of which the zone's own refusal: {:.1} and {:.1}", refusal.instructions, refusal.atomic_writes);
    if instructions.iter().any(|step| (step - instructions[0]).abs() > 1.0) {
        broken.push(format!("a walk over full zones is not linear: {instructions:?}"));
    }
    if writes.iter().any(|writes| *writes > 0.0) {
        broken.push(format!("a walk over full zones writes: {writes:?}"));
    }
    Ok(broken)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, path, nodes, times] = &arguments[..] {
        let path = PATHS.iter().find(|(name, _)| name == path).map(|(_, path)| *path);
        if let ("--repeat", Some(path), Ok(nodes), Ok(times)) =
            (&flag[..], path, nodes.parse(), times.parse())
        {
            return if repeat(path, nodes, times) == times { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    }
    for (name, path) in PATHS {
        for nodes in NODES.into_iter().filter(|nodes| !matches!(path, Path::PastFull(_)) || *nodes >= 64) {
            assert_eq!(repeat(path, nodes, 3), 3, "{name} with {nodes} nodes must be served");
        }
    }
    callgrind::judge(report)
}
