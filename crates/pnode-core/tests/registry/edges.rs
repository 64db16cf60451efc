//! The edges that neither small worlds nor random steps reach: limits, bad storage, callbacks, and the table of who is
//! served from where.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pnode_core::grant::{DOORS, Right};
use pnode_core::registry::{ListSlot, NodeRecord, NodeSlot, Slots, ZoneSlot};
use pnode_core::{
    AllocError, Cpus, DistanceError, Distances, Features, Frame, FrameError, FrameRange, FrameSource,
    FrameZone, FreeError, MemoryClass, MigrateType, NodeId, NodeIdTooLarge, NodeMask, NodeOps, Nodes, Order,
    Owner, Pfn, Private, Reason, RegisterError, Request, Service, ServiceError, Storage, StorageError,
    UnregisterError, WordZone,
};

use super::step::id;

fn zone(start: u64, frames: u64) -> WordZone {
    WordZone::new(FrameRange::new(Pfn::new(start), frames).unwrap()).unwrap()
}

/// A registry of `nodes` nodes and 1 zone with these lengths of records, scratch and lists.
fn built(nodes: usize, distances: usize, zones: usize, lengths: [usize; 3]) -> Result<usize, StorageError> {
    let [records, scratch, lists] = lengths;
    let mut node_slots: Vec<_> = (0..nodes).map(|_| NodeSlot::new()).collect();
    let mut zone_slots: Vec<_> = (0..zones).map(|_| ZoneSlot::<WordZone>::new()).collect();
    let mut lists: Vec<_> = (0..lists).map(|_| ListSlot::new()).collect();
    let slots = Slots {
        nodes: &mut node_slots,
        records: &mut vec![NodeRecord::new(); records],
        zones: &mut zone_slots,
        scratch: &mut vec![0; scratch],
        lists: &mut lists,
    };
    Ok(Nodes::<WordZone>::new(slots, Distances::uniform(distances).unwrap())?.capacity())
}

#[test]
fn storage_that_does_not_fit_is_refused() {
    assert_eq!(built(2, 2, 3, [2, 3, 12]), Ok(2));
    assert_eq!(built(2, 3, 3, [2, 3, 12]), Err(StorageError::Nodes { slots: 2, distances: 3 }));
    assert_eq!(built(2, 2, 0, [2, 0, 0]), Err(StorageError::Zones { slots: 0 }));
    // Miri takes minutes for that many slots.
    if !cfg!(miri) {
        let many = usize::from(u16::MAX);
        assert_eq!(built(1, 1, many, [1, many, 2 * many]), Err(StorageError::Zones { slots: many }));
    }
    for (lengths, field, length, wanted) in [
        ([1, 3, 12], "records", 1, 2),
        ([3, 3, 12], "records", 3, 2),
        ([2, 2, 12], "scratch", 2, 3),
        ([2, 3, 11], "lists", 11, 12),
        ([2, 3, 13], "lists", 13, 12),
    ] {
        assert_eq!(built(2, 2, 3, lengths), Err(StorageError::Length { field, length, wanted }));
    }
}

#[test]
fn the_last_of_1024_nodes_is_served_and_there_is_no_next_one() {
    assert_eq!(NodeId::new(1024), Err(NodeIdTooLarge { number: 1024 }));
    assert_eq!(Distances::uniform(1025).unwrap_err(), DistanceError::Nodes { nodes: 1025 });
    assert_eq!(Distances::uniform(0).unwrap_err(), DistanceError::Nodes { nodes: 0 });
    let memory = zone(0, 1);
    let mut storage = Storage::<WordZone, 1024, 1>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(1024).unwrap()).unwrap();
    let last = id(1023);
    nodes.ordinary(last, MemoryClass::DRAM).unwrap().online(&memory).unwrap();
    for from in [Request::page(), Request::page().prefer(last), Request::page().prefer(last).this_node_only()]
    {
        let frame = nodes.alloc(from).unwrap();
        assert_eq!(frame.node(), last);
        nodes.free(frame).unwrap();
    }
    assert_eq!(nodes.states().memory, NodeMask::of(last));
}

#[test]
fn distances_that_are_none_are_refused() {
    let entry = |table: &[u8]| Distances::from_table(2, table).unwrap_err();
    let bad = |from, to, distance| DistanceError::Entry { from: id(from), to: id(to), distance };
    assert_eq!(entry(&[10, 0, 20, 10]), bad(0, 1, 0));
    assert_eq!(entry(&[10, 9, 20, 10]), bad(0, 1, 9));
    assert_eq!(entry(&[10, 10, 20, 10]), bad(0, 1, 10));
    assert_eq!(entry(&[10, 20, 20, 11]), bad(1, 1, 11));
    assert_eq!(entry(&[0, 20, 20, 10]), bad(0, 0, 0));
    assert_eq!(entry(&[10, 20, 20]), DistanceError::Size { entries: 3, wanted: 4 });
    assert_eq!(
        Distances::from_table(3, &[10; 6]).unwrap_err(),
        DistanceError::Size { entries: 6, wanted: 9 }
    );
    assert!(Distances::from_table(2, &[10, 255, 11, 10]).is_ok());
}

#[test]
fn a_table_speaks_of_its_own_nodes_only() {
    let table = [10, 11, 12, 21, 10, 23, 31, 32, 10];
    let distances = Distances::from_table(3, &table).unwrap();
    let uniform = Distances::uniform(3).unwrap();
    for (from, to) in (0..5).flat_map(|from| (0..5).map(move |to| (from, to))) {
        let there = from < 3 && to < 3;
        let entry = there.then(|| table[3 * from + to]);
        assert_eq!(distances.between(id(from), id(to)), entry, "{from} to {to}");
        let equal = there.then_some(if from == to { 10 } else { 20 });
        assert_eq!(uniform.between(id(from), id(to)), equal, "{from} to {to}");
    }
}

/// Who is served from where: A and B ordinary, C and D private, after the table of the Linux series (mail of 6 May 2026)
/// with a grant where that one has a flag.
#[test]
fn requests_are_served_from_where_the_table_says() {
    let zones: [WordZone; 4] = std::array::from_fn(|node| zone(64 * node as u64, 1));
    let mut storage = Storage::<WordZone, 4, 4>::new();
    // Seen from C, B is nearer than A.
    let table = [10, 20, 30, 40, 20, 10, 30, 40, 30, 20, 10, 15, 40, 30, 15, 10];
    let nodes = Nodes::new(storage.slots(), Distances::from_table(4, &table).unwrap()).unwrap();
    let [a, b, c, d] = [0, 1, 2, 3].map(id);
    for (node, zone) in [a, b].into_iter().zip(&zones) {
        nodes.ordinary(node, MemoryClass::DRAM).unwrap().online(zone).unwrap();
    }
    let [owner_c, owner_d] =
        [c, d].map(|node| nodes.register(node, Private::class(MemoryClass::FAR), Features::NONE).unwrap());
    owner_c.online(&zones[2]).unwrap();
    owner_d.online(&zones[3]).unwrap();
    let grant = owner_c.grant().unwrap();
    let mask = |nodes: &[NodeId]| nodes.iter().copied().collect::<NodeMask>();

    // Each request is made until it fails: the order of the nodes that serve it, and the error that ends it.
    let ordinary = |request: Request<'_>| served(|| nodes.alloc(request), |frame| nodes.free(frame).unwrap());
    let granted = |request: Request<'_>| served(|| grant.alloc(request), |frame| nodes.free(frame).unwrap());
    let out = AllocError::NoMemory { order: Order::ZERO };
    let page = Request::page();
    assert_eq!(ordinary(page.prefer(c)), (vec![b, a], out));
    assert_eq!(ordinary(page.prefer(c).nodemask(&NodeMask::ALL)), (vec![b, a], out));
    assert_eq!(ordinary(page.prefer(a)), (vec![a, b], out));
    assert_eq!(ordinary(page.prefer(c).this_node_only()), (vec![], AllocError::Private { node: c }));
    assert_eq!(ordinary(page.prefer(a).nodemask(&mask(&[a, c]))), (vec![a], out));
    assert_eq!(ordinary(page.prefer(c).nodemask(&mask(&[c, d]))), (vec![], AllocError::Masked { node: c }));
    assert_eq!(ordinary(page.nodemask(&NodeMask::EMPTY)), (vec![], AllocError::Masked { node: a }));
    assert_eq!(
        ordinary(page.prefer(a).this_node_only().nodemask(&mask(&[b]))),
        (vec![], AllocError::Masked { node: a })
    );
    assert_eq!(granted(page), (vec![c], out));
    assert_eq!(granted(page.prefer(c).this_node_only()), (vec![c], out));
    assert_eq!(granted(page.nodemask(&mask(&[c, d]))), (vec![c], out));
    assert_eq!(granted(page.nodemask(&mask(&[a, c, d]))), (vec![c], out));
    assert_eq!(granted(page.nodemask(&mask(&[a, d]))), (vec![], AllocError::Masked { node: c }));
    for preferred in [a, d] {
        let other = AllocError::OtherNode { granted: c, preferred };
        assert_eq!(granted(page.prefer(preferred)), (vec![], other));
    }
}

/// Among equally far nodes the next number comes first, so that neighbours do not all spill onto the same node.
#[test]
fn equally_far_nodes_serve_in_a_ring() {
    let zones: [WordZone; 4] = std::array::from_fn(|node| zone(64 * node as u64, 1));
    let mut storage = Storage::<WordZone, 4, 4>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(4).unwrap()).unwrap();
    for (node, zone) in zones.iter().enumerate() {
        nodes.ordinary(id(node), MemoryClass::DRAM).unwrap().online(zone).unwrap();
    }
    for from in 0..4 {
        let request = Request::page().prefer(id(from));
        let (order, _) = served(|| nodes.alloc(request), |frame| nodes.free(frame).unwrap());
        assert_eq!(order, [0, 1, 2, 3].map(|step| id((from + step) % 4)));
    }
}

/// The nodes that serve, one after the other, until nobody does.
fn served(
    mut alloc: impl FnMut() -> Result<Frame, AllocError>,
    free: impl Fn(Frame),
) -> (Vec<NodeId>, AllocError) {
    let mut frames = Vec::new();
    let error = loop {
        match alloc() {
            Ok(frame) => frames.push(frame),
            Err(error) => break error,
        }
    };
    let nodes = frames.iter().map(Frame::node).collect();
    frames.into_iter().for_each(free);
    (nodes, error)
}

#[test]
fn every_grant_is_counted() {
    let mut storage = Storage::<WordZone, 2, 1>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(2).unwrap()).unwrap();
    let owner: Owner<'_, WordZone> =
        nodes.register(id(1), Private::class(MemoryClass::FAR), Features::PIN).unwrap();
    let mut grants = Vec::new();
    for references in 1..=500 {
        grants.push(owner.grant().unwrap());
        grants.push(nodes.grant(id(1), Reason::Pin).unwrap());
        let error = UnregisterError::Referenced { node: id(1), references: 2 * references };
        assert_eq!(owner.unregister(), Err(error));
    }
    grants.truncate(1);
    assert_eq!(owner.unregister(), Err(UnregisterError::Referenced { node: id(1), references: 1 }));
    // A grant that is forgotten is never given back: the node stays, closed to nobody's harm.
    std::mem::forget(grants.pop());
    assert_eq!(owner.unregister(), Err(UnregisterError::Referenced { node: id(1), references: 1 }));
    assert_eq!(nodes.ordinary(id(1), MemoryClass::DRAM).err(), Some(RegisterError::Busy { node: id(1) }));
}

struct Quiet;

impl NodeOps for Quiet {}

#[test]
fn a_callback_holds_its_node_even_if_it_unwinds() {
    let memory = zone(0, 1);
    let ops = Quiet;
    let service = Service::new(&ops);
    let mut storage = Storage::<WordZone, 1, 1>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(1).unwrap()).unwrap();
    let owner = nodes.register(id(0), Private::class(MemoryClass::FAR), Features::NONE).unwrap();
    owner.online(&memory).unwrap();
    owner.serve(&service).unwrap();
    let within = nodes.with_service(id(0), |_| {
        // The whole teardown happens under a running callback; only the last step must wait for it.
        owner.drain().unwrap();
        owner.end_service().unwrap();
        owner.offline(FrameRange::new(Pfn::new(0), 1).unwrap()).unwrap();
        assert!(nodes.with_service(id(0), |_| ()).is_none());
        owner.unregister()
    });
    assert_eq!(within, Some(Err(UnregisterError::Referenced { node: id(0), references: 1 })));
    owner.resume().unwrap();
    owner.online(&memory).unwrap();
    owner.serve(&service).unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        nodes.with_service(id(0), |_| std::panic::resume_unwind(Box::new("a callback fails")));
    }));
    assert!(unwound.is_err());
    assert_eq!(nodes.state(id(0)).map(|state| state.references()), Some(0));
}

/// A zone of which another CPU takes a frame each time after its used frames were counted, if it hands out any.
struct Contended(WordZone);

impl FrameSource for Contended {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        self.0.alloc(order, migrate)
    }
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.0.free(pfn, order)
    }
}

impl FrameZone for Contended {
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
        let used = self.0.used_frames();
        let _ = self.0.alloc(Order::ZERO, MigrateType::Movable);
        used
    }
}

#[test]
fn no_frame_outlives_its_service() {
    struct Silent;
    impl NodeOps for Silent {}
    let service = Service::new(&Silent);
    let zones = [0, 64].map(|start| Contended(zone(start, 2)));
    let mut storage = Storage::<Contended, 1, 2>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(1).unwrap()).unwrap();
    let owner = nodes.register(id(0), Private::class(MemoryClass::FAR), Features::NONE).unwrap();
    zones.iter().for_each(|zone| owner.online(zone).unwrap());
    owner.serve(&service).unwrap();
    owner.close(zones[1].span()).unwrap();
    let used = || zones.iter().map(|zone| zone.0.used_frames()).sum::<u64>();

    let block = owner.grant().unwrap().alloc(Request::page()).unwrap();
    assert_eq!(owner.end_service(), Err(ServiceError::StillUsed { node: id(0), frames: 1 }));
    assert!(owner.state().unwrap().is_serviced());
    nodes.free(block).unwrap();
    owner.end_service().unwrap();
    assert!(!owner.state().unwrap().is_serviced());
    assert_eq!(used(), 0, "nothing was handed out between the count and the end");

    // What was open is open again, and what was closed is closed.
    let grant = owner.grant().unwrap();
    let blocks = [(); 2].map(|()| grant.alloc(Request::page()).unwrap());
    assert!(blocks.iter().all(|block| zones[0].span().contains(block.pfn())));
    assert!(grant.alloc(Request::page()).is_err());
}

#[test]
fn features_are_those_of_the_registration() {
    let memory = zone(0, 1);
    let mut storage = Storage::<WordZone, 2, 1>::new();
    let nodes = Nodes::<WordZone>::new(storage.slots(), Distances::uniform(2).unwrap()).unwrap();
    assert_eq!((nodes.features(id(0)), nodes.features(id(2))), (None, None));
    nodes.ordinary(id(0), MemoryClass::DRAM).unwrap();
    assert_eq!(nodes.features(id(0)), Some(Features::NONE));
    let owner = nodes.register(id(1), Private::class(MemoryClass::FAR), Features::WRITE_FENCE).unwrap();
    let claimed = || assert_eq!(nodes.features(id(1)), Some(Features::WRITE_FENCE));
    claimed();
    owner.online(&memory).unwrap();
    claimed();
    owner.drain().unwrap();
    claimed();
    owner.offline(memory.span()).unwrap();
    owner.unregister().unwrap();
    assert_eq!(nodes.features(id(1)), None);
}

#[cfg(feature = "alloc")]
#[test]
fn boxed_storage_is_refused_before_it_is_allocated() {
    use pnode_core::BoxedStorage;
    let boxed = |nodes, zones| BoxedStorage::<WordZone>::new(nodes, zones).map(|_| ());
    assert_eq!(boxed(2, 3), Ok(()));
    assert_eq!(boxed(1025, 1), Err(StorageError::TooManyNodes { slots: 1025 }));
    assert_eq!(boxed(usize::MAX, 1), Err(StorageError::TooManyNodes { slots: usize::MAX }));
    assert_eq!(boxed(1, 0), Err(StorageError::Zones { slots: 0 }));
    assert_eq!(boxed(1, usize::MAX), Err(StorageError::Zones { slots: usize::MAX }));
}

#[test]
fn cpus_are_a_fact_of_their_own() {
    let mut storage = Storage::<WordZone, 3, 1>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(3).unwrap()).unwrap();
    let states = |cpus: NodeMask| {
        let now = nodes.states();
        assert_eq!((now.possible, now.cpus), ((0..3).map(id).collect(), cpus));
        assert_eq!((now.memory, now.ordinary_memory), (NodeMask::EMPTY, NodeMask::EMPTY));
    };
    states(NodeMask::EMPTY);
    let dram = nodes.ordinary(id(1), MemoryClass::DRAM).unwrap();
    let device = nodes.register(id(2), Private::class(MemoryClass::FAR), Features::NONE).unwrap();
    dram.set_cpus(Cpus::Present).unwrap();
    states(NodeMask::of(id(1)));
    device.set_cpus(Cpus::Present).unwrap();
    dram.set_cpus(Cpus::Absent).unwrap();
    states(NodeMask::of(id(2)));
    assert!(device.state().unwrap().has_cpus() && device.state().unwrap().is_private());
    // The fact is one of this life: the next owner of the id starts without it.
    device.unregister().unwrap();
    assert_eq!(device.set_cpus(Cpus::Present).unwrap_err().node, id(2));
    states(NodeMask::EMPTY);
}

#[test]
fn a_grant_names_frames_of_its_own_node_only() {
    let memory = [zone(0, 4), zone(32, 4), zone(64, 4), zone(96, 4)];
    let mut storage = Storage::<WordZone, 3, 4>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(3).unwrap()).unwrap();
    nodes.ordinary(id(0), MemoryClass::DRAM).unwrap().online(&memory[0]).unwrap();
    let claim = || Private::class(MemoryClass::DEVICE_BUFFER);
    let one = nodes.register(id(1), claim(), Features::NONE).unwrap();
    let two = nodes.register(id(2), claim(), Features::RECLAIM).unwrap();
    one.online(&memory[1]).unwrap();
    one.online(&memory[2]).unwrap();
    two.online(&memory[3]).unwrap();
    let (one, two) = (one.grant().unwrap(), two.grant().unwrap());
    let order = Order::ZERO;
    // Not only in the first zone of the node.
    for pfn in [32, 35, 64, 67].map(Pfn::new) {
        assert_eq!(one.adopt(pfn, order).map(|frame| frame.node()), Ok(id(1)));
        assert!(one.zone_of(pfn).is_some_and(|zone| zone.span().contains(pfn)));
        assert!(two.adopt(pfn, order).is_err() && two.zone_of(pfn).is_none());
        assert_eq!(two.free(pfn, order), Err(FreeError::OutOfZone { pfn }));
    }
    for pfn in [0, 3, 36, 96, 200].map(Pfn::new) {
        assert!(one.adopt(pfn, order).is_err() && one.zone_of(pfn).is_none());
    }
    // As a source it hands out all that its node has, with nothing of another's, and takes it back.
    let movable = MigrateType::Movable;
    let taken: Vec<_> = (0..8).map(|_| FrameSource::alloc(&one, order, movable).unwrap()).collect();
    assert!(taken.iter().all(|pfn| (32..36).contains(&pfn.get()) || (64..68).contains(&pfn.get())));
    assert_eq!(FrameSource::alloc(&one, order, movable), Err(FrameError::Exhausted { order }));
    assert_eq!(one.alloc_at_hand(movable), None, "a zone without a cache has nothing at hand");
    taken.into_iter().for_each(|pfn| one.free(pfn, order).unwrap());
}

/// Every block, asked for by its frame: from the ordinary side, and on a grant. The gate is the same as for a search.
#[test]
fn a_block_is_had_by_its_frame_only_where_a_search_might_find_it() {
    let zones = [zone(0, 4), zone(8, 4), zone(16, 4)];
    let mut storage = Storage::<WordZone, 3, 3>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(3).unwrap()).unwrap();
    let near = nodes.ordinary(id(0), MemoryClass::DRAM).unwrap();
    near.online(&zones[0]).unwrap();
    nodes.ordinary(id(1), MemoryClass::DRAM).unwrap().online(&zones[1]).unwrap();
    let owner = nodes.register(id(2), Private::class(MemoryClass::FAR), Features::NONE).unwrap();
    owner.online(&zones[2]).unwrap();
    let grant = owner.grant().unwrap();
    let nothing = |order| Err(AllocError::NoMemory { order });
    let only_near = Request::page().prefer(id(0)).this_node_only();
    let near_mask = NodeMask::of(id(0));
    for number in 0..24 {
        let pfn = Pfn::new(number);
        let on = (number % 8 < 4).then_some(number / 8);
        let taken = nodes.alloc_at(pfn, Request::page());
        match on {
            None => assert_eq!(taken, nothing(Order::ZERO)),
            Some(2) => assert_eq!(taken, Err(AllocError::Private { node: id(2) })),
            Some(node) => {
                let frame = taken.unwrap();
                assert_eq!((frame.pfn(), u64::from(frame.node().get())), (pfn, node));
                assert_eq!(nodes.alloc_at(pfn, Request::page()), nothing(Order::ZERO), "it is taken");
                nodes.free(frame).unwrap();
            }
        }
        for request in [only_near, Request::page().nodemask(&near_mask)] {
            let taken = nodes.alloc_at(pfn, request);
            assert_eq!(taken.is_ok(), on == Some(0), "{pfn:?} {taken:?}");
            taken.into_iter().for_each(|frame| nodes.free(frame).unwrap());
        }
        let taken = grant.alloc_at(pfn, Request::page());
        assert_eq!(taken.is_ok(), on == Some(2), "{pfn:?} {taken:?}");
        taken.into_iter().for_each(|frame| nodes.free(frame).unwrap());
    }
    assert_eq!(
        grant.alloc_at(Pfn::new(17), Request::order(Order::new(1).unwrap())),
        nothing(Order::new(1).unwrap())
    );
    // A preference of another node is refused as in a search, and one of the grant's own changes nothing.
    let other = AllocError::OtherNode { granted: id(2), preferred: id(0) };
    assert_eq!(grant.alloc_at(Pfn::new(16), Request::page().prefer(id(0))), Err(other));
    let own = grant.alloc_at(Pfn::new(16), Request::page().prefer(id(2))).unwrap();
    nodes.free(own).unwrap();
    // Nor does it reach a node that drains.
    near.drain().unwrap();
    assert_eq!(nodes.alloc_at(Pfn::new(0), Request::page()), nothing(Order::ZERO));
    owner.drain().unwrap();
    assert_eq!(grant.alloc_at(Pfn::new(16), Request::page()), nothing(Order::ZERO));
}

#[test]
fn a_block_goes_back_to_the_registry_that_handed_it_out() {
    let zones = [zone(0, 4), zone(0, 4)];
    let mut storage = [(); 2].map(|()| Storage::<WordZone, 1, 1>::new());
    let [mine, other] = &mut storage;
    let [mine, other] = [mine, other].map(|storage| {
        let nodes: Nodes<'_, WordZone> = Nodes::new(storage.slots(), Distances::uniform(1).unwrap()).unwrap();
        nodes
    });
    mine.ordinary(id(0), MemoryClass::DRAM).unwrap().online(&zones[0]).unwrap();
    other.ordinary(id(0), MemoryClass::DRAM).unwrap().online(&zones[1]).unwrap();
    // Both have handed out the frame of the same number, from the node of the same number.
    let [frame, foreign] = [&mine, &other].map(|nodes| nodes.alloc(Request::page()).unwrap());
    assert_eq!((frame.pfn(), frame.node()), (foreign.pfn(), foreign.node()));
    assert!(mine.issued(&frame) && !mine.issued(&foreign));
    let pfn = foreign.pfn();
    assert_eq!(mine.free(foreign), Err(FreeError::Foreign { pfn }));
    assert_eq!(zones.each_ref().map(|zone| zone.used_frames()), [1, 1]);
    // Whoever has the number only says which registry it is of.
    other.free(other.adopt(pfn, Order::ZERO).unwrap()).unwrap();
    mine.free(frame).unwrap();
    assert_eq!(zones.each_ref().map(|zone| zone.used_frames()), [0, 0]);
}

#[test]
fn registries_that_follow_one_another_on_the_same_memory_are_told_apart_by_their_marks() {
    let zones = [zone(0, 4), zone(0, 4)];
    let mut kept = None;
    let mut life = |zone: &WordZone, mark| {
        let mut storage = Storage::<WordZone, 1, 1>::new();
        let nodes: Nodes<'_, WordZone> = Nodes::new(storage.slots(), Distances::uniform(1).unwrap()).unwrap();
        let nodes = nodes.marked(mark);
        nodes.ordinary(id(0), MemoryClass::DRAM).unwrap().online(zone).unwrap();
        let frame = nodes.alloc(Request::page()).unwrap();
        if let Some(old) = kept.replace(frame) {
            let pfn = Frame::pfn(&old);
            assert!(!nodes.issued(&old));
            assert_eq!(nodes.free(old), Err(FreeError::Foreign { pfn }));
        }
    };
    life(&zones[0], 1);
    life(&zones[1], 2);
}

/// A grant takes frames on every way or on none, as the table of doors says for its reason.
#[test]
fn a_grant_to_work_on_pages_takes_no_frames() {
    let memory = zone(0, 4);
    let mut storage = Storage::<WordZone, 1, 1>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(1).unwrap()).unwrap();
    let doors = Features::from_bits(0x1ff).unwrap();
    let owner = nodes.register(id(0), Private::class(MemoryClass::FAR), doors).unwrap();
    owner.online(&memory).unwrap();
    let (order, movable) = (Order::ZERO, MigrateType::Movable);
    for (reason, door, right) in DOORS {
        assert_eq!((reason.door(), reason.right()), (door, right), "{reason}");
        let grant = if reason == Reason::Owner { owner.grant() } else { nodes.grant(id(0), reason) }.unwrap();
        let ways = [
            grant.alloc(Request::page()).map(|frame| nodes.free(frame).unwrap()).is_ok(),
            grant.alloc_at(Pfn::new(1), Request::page()).map(|frame| nodes.free(frame).unwrap()).is_ok(),
            FrameSource::alloc(&grant, order, movable).map(|pfn| grant.free(pfn, order).unwrap()).is_ok(),
        ];
        assert_eq!(ways, [right == Right::TakeFrames; 3], "{reason}");
        assert_eq!(owner.used_frames(), 0, "{reason}");
    }
}
