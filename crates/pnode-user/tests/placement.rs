//! Where pages may be: policies, owners, fences, tiers, and nodes that leave and come back.

use pnode_core::{AllocError, Denied, Features, MemoryClass, NodeId, Order, Reason, Request};
use pnode_user::fault::FaultError;
use pnode_user::machine::{BuildError, DemoteError, MapError, Mapping, Placement, UnplugError};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;
const TIER: Features = Features::RECLAIM.union(Features::DEMOTION).union(Features::PROMOTION);

fn machine(private: NodeSpec) -> (Machine, NodeId, NodeId) {
    let machine = Machine::builder().node(NodeSpec::ordinary(64)).node(private).build().unwrap();
    let [dram, private] = [0, 1].map(|number| machine.node(number).unwrap());
    (machine, dram, private)
}

fn fill(memory: &Mapping, pages: usize) {
    for page in 0..pages {
        memory.write(page * PAGE, &[page as u8 + 1; PAGE]).unwrap();
    }
}

#[track_caller]
fn check(memory: &Mapping, pages: usize) {
    for page in 0..pages {
        let mut bytes = [0; PAGE];
        memory.read(page * PAGE, &mut bytes).unwrap();
        assert_eq!(bytes, [page as u8 + 1; PAGE], "page {page}");
    }
}

const NO_MEMORY: FaultError = FaultError::NoFrame(AllocError::NoMemory { order: Order::ZERO });

#[test]
fn a_bind_needs_consent_and_never_spills() {
    let (closed, _, private) = machine(NodeSpec::private(MemoryClass::HBM, 16));
    let refused = closed.map_at(4, Placement::Bound(private)).unwrap_err();
    assert!(matches!(refused, MapError::Denied(Denied::NotOpened { reason: Reason::UserPolicy, .. })));

    let (open, dram, private) =
        machine(NodeSpec::private(MemoryClass::HBM, 16).features(Features::USER_NUMA));
    let memory = open.map_at(20, Placement::Bound(private)).unwrap();
    fill(&memory, 16);
    assert!((0..16).all(|page| memory.place(page).is_resident_on(private)));
    assert_eq!(
        memory.write(16 * PAGE, &[1]),
        Err(NO_MEMORY),
        "there is ordinary memory, but the bind is a bind"
    );
    assert_eq!(open.free_frames(dram), 64);
    check(&memory, 16);
    // A bind to an ordinary node is one too.
    let near = open.map_at(80, Placement::Bound(dram)).unwrap();
    fill(&near, 64);
    assert_eq!(near.write(64 * PAGE, &[1]), Err(NO_MEMORY));
    open.audit().unwrap();
}

#[test]
fn only_the_owner_maps_a_closed_node() {
    let (machine, dram, private) = machine(NodeSpec::private(MemoryClass::DEVICE_BUFFER, 8));
    let refused = machine.map_at(1, Placement::Owner(dram)).unwrap_err();
    assert_eq!(refused, MapError::Denied(Denied::NotPrivate { node: dram }));
    let ring = machine.map_at(10, Placement::Owner(private)).unwrap();
    fill(&ring, 8);
    assert!((0..8).all(|page| ring.place(page).is_resident_on(private)));
    assert_eq!(ring.write(8 * PAGE, &[1]), Err(NO_MEMORY));
    // Nobody else moves pages in or out.
    assert!(matches!(ring.promote(0..8, private), Err(FaultError::Denied(Denied::NotOpened { .. }))));
    assert!(matches!(ring.demote(0..8, private), Err(DemoteError::Denied(Denied::NotOpened { .. }))));
    let other = machine.map(1, dram).unwrap();
    fill(&other, 1);
    assert_eq!(other.migrate(0, private), Err(FaultError::NoFrame(AllocError::Private { node: private })));
    assert_eq!(machine.reclaim(100), 0);
    // The owner itself may, with the grant in hand.
    ring.migrate(3, dram).unwrap();
    other.migrate_with(0, &machine.owner_grant(private).unwrap()).unwrap();
    assert!(ring.place(3).is_resident_on(dram) && other.place(0).is_resident_on(private));
    check(&ring, 8);
    check(&other, 1);
}

#[test]
fn a_far_tier_takes_cold_pages_and_gives_hot_ones_back() {
    let (machine, dram, far) = machine(NodeSpec::private(MemoryClass::FAR, 100).features(TIER));
    // More than the ordinary node has: cold pages must go to the tier.
    let memory = machine.map(120, dram).unwrap();
    fill(&memory, 120);
    let on_far = (0..120).filter(|page| memory.place(*page).is_resident_on(far)).count();
    assert!(on_far >= 120 - 64, "{on_far} pages on the tier");
    check(&memory, 120);
    // Without a fence pages of the tier are written in place.
    let page = (0..120).find(|page| memory.place(*page).is_resident_on(far)).unwrap();
    memory.write(page * PAGE, &[page as u8 + 1]).unwrap();
    assert!(memory.place(page).is_resident_on(far));
    // Promotion makes room by demotion where it must.
    assert_eq!(memory.promote(page..page + 1, far).unwrap(), 1);
    assert!(memory.place(page).is_resident_on(dram));
    check(&memory, 120);
    machine.audit().unwrap();
}

#[test]
fn the_fence_holds_for_any_provider() {
    let fenced = NodeSpec::private(MemoryClass::FAR, 32).features(TIER | Features::WRITE_FENCE);
    let (machine, dram, private) = machine(fenced);
    let memory = machine.map(10, dram).unwrap();
    fill(&memory, 10);
    assert_eq!(memory.demote(0..10, private).unwrap().pages, 10);
    check(&memory, 10);
    assert!((0..10).all(|page| memory.place(page).is_resident_on(private)), "reads pass");
    for page in 0..10 {
        memory.write(page * PAGE + 5, &[page as u8 + 1]).unwrap();
        assert!(memory.place(page).is_resident_on(dram), "a write leaves");
    }
    check(&memory, 10);
    assert_eq!(machine.counters().promoted, 10);
    assert_eq!(machine.free_frames(private), 32);
}

#[test]
fn a_node_that_comes_back_has_no_old_policies_and_no_old_bytes() {
    let spec = NodeSpec::private(MemoryClass::FAR, 16).features(Features::USER_NUMA | Features::HOTUNPLUG);
    let (machine, dram, private) = machine(spec);
    let memory = machine.map_at(12, Placement::Bound(private)).unwrap();
    fill(&memory, 6);
    assert_eq!(machine.unplug(private).unwrap().pages, 6);
    check(&memory, 6);
    assert!((0..6).all(|page| memory.place(page).is_resident_on(dram)));
    assert!(matches!(
        machine.map_at(1, Placement::Owner(private)).unwrap().write(0, &[1]),
        Err(FaultError::Denied(_))
    ));
    memory.write(6 * PAGE, &[7; PAGE]).unwrap();
    assert!(memory.place(6).is_resident_on(dram), "the bind stopped applying");

    machine.plug(private).unwrap();
    assert!(matches!(machine.plug(private), Err(BuildError::Register(_))));
    memory.write(7 * PAGE, &[8; PAGE]).unwrap();
    assert!(memory.place(7).is_resident_on(dram), "and does not attach to the node that has the id now");
    let fresh = machine.map_at(2, Placement::Bound(private)).unwrap();
    let mut bytes = [1; PAGE];
    fresh.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; PAGE]);
    assert!(fresh.place(0).is_resident_on(private));
    check(&memory, 8);
    machine.audit().unwrap();
}

#[test]
fn a_node_with_strange_frames_or_grants_stays_until_they_are_given_back() {
    let (machine, _, private) = machine(NodeSpec::compressed(64, 128));
    let grant = machine.owner_grant(private).unwrap();
    let frame = grant.alloc(Request::page()).unwrap();
    assert!(matches!(machine.unplug(private), Err(UnplugError::Offline(_))));
    assert!(!machine.state(private).unwrap().is_draining());
    machine.free(frame).unwrap();
    assert!(matches!(machine.unplug(private), Err(UnplugError::Unregister(_))), "the grant holds the node");
    drop(grant);
    assert_eq!(machine.unplug(private).unwrap().pages, 0);
    assert!(matches!(machine.unplug(private), Err(UnplugError::Stale(_))), "it is unplugged already");
    for _ in 0..3 {
        machine.plug(private).unwrap();
        assert!(machine.compressed(private).is_some());
        machine.unplug(private).unwrap();
    }
    machine.audit().unwrap();
}

#[test]
fn of_two_who_unplug_or_plug_at_once_one_does_it() {
    let (machine, ..) = machine(NodeSpec::compressed(64, 128));
    let [dram, private] = [0, 1].map(|number| machine.node(number).unwrap());
    let memory = machine.map(32, dram).unwrap();
    fill(&memory, 32);
    for round in 0..20 {
        memory.demote(0..32, private).unwrap();
        let both = |call: &(dyn Fn() -> bool + Sync)| {
            std::thread::scope(|scope| {
                let other = scope.spawn(call);
                usize::from(call()) + usize::from(other.join().unwrap())
            })
        };
        assert_eq!(both(&|| machine.unplug(private).is_ok()), 1, "round {round}");
        assert!(!machine.state(private).unwrap().is_registered());
        assert_eq!(both(&|| machine.plug(private).is_ok()), 1, "round {round}");
        assert_eq!(machine.compressed(private).map(|used| used.stats.pages), Some(0));
        check(&memory, 32);
    }
    machine.audit().unwrap();
}

#[test]
fn cold_pages_go_down_one_tier_at_a_time_and_a_node_above_dram_feeds_dram() {
    let hbm = Features::USER_NUMA | Features::RECLAIM;
    let machine = Machine::builder()
        .node(NodeSpec::ordinary(64))
        .node(NodeSpec::private(MemoryClass::FAR, 4).features(TIER))
        .node(NodeSpec::compressed(64, 128))
        .node(NodeSpec::private(MemoryClass::HBM, 8).features(hbm))
        .build()
        .unwrap();
    let [dram, far, compressed, hbm] = [0, 1, 2, 3].map(|number| machine.node(number).unwrap());
    let memory = machine.map(10, dram).unwrap();
    fill(&memory, 10);
    machine.age();
    assert_eq!(machine.reclaim(6), 6);
    let on = |node| (0..10).filter(|page| memory.place(*page).node() == Some(node)).count();
    assert_eq!(
        [dram, far, compressed, hbm].map(on),
        [4, 4, 2, 0],
        "the nearer tier first, the next when it is full"
    );
    let fast = machine.map_at(8, Placement::Bound(hbm)).unwrap();
    fill(&fast, 8);
    machine.age();
    machine.reclaim(64);
    assert!(
        (0..8).all(|page| !fast.place(page).is_resident_on(hbm)),
        "a node above DRAM may demote into DRAM"
    );
    check(&memory, 10);
    check(&fast, 8);
    machine.audit().unwrap();
}
