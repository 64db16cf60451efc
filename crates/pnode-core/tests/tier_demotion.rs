//! Tiers, demotion rounds, back-pressure and promotion.
#![allow(missing_docs)]

use std::cell::Cell;
use std::collections::BTreeSet;

use pnode_core::ops::{Block, MaySleep, MoveError, Moved};
use pnode_core::tier::{Admission, Delivery, Tier, TierError, TierSlot, Tiers, demote};
use pnode_core::{
    Denied, Distances, Features, FrameRange, MemoryClass, NodeId, NodeMask, NodeOps, Nodes, Pfn, Private,
    Reason, Request, Service, Storage, WordZone,
};
use proptest::prelude::*;

const IDS: usize = 6;
type Registry = Nodes<'static, WordZone>;

fn id(number: u16) -> NodeId {
    NodeId::new(number).unwrap()
}

fn mask(numbers: &[u16]) -> NodeMask {
    numbers.iter().copied().map(id).collect()
}

fn registry(distances: Distances<'static>) -> &'static Registry {
    let storage = Box::leak(Box::new(Storage::<WordZone, IDS, IDS>::new()));
    Box::leak(Box::new(Nodes::new(storage.slots(), distances).unwrap()))
}

/// The tiers of the nodes as they are now.
fn tiers(nodes: &Registry) -> Tiers<'static> {
    let mut tiers = Tiers::new(Box::leak(Box::new([TierSlot::EMPTY; IDS])));
    tiers.refresh(nodes).unwrap();
    tiers
}

fn zone(number: u16, frames: u64) -> &'static WordZone {
    let range = FrameRange::new(Pfn::new(u64::from(number) * 64), frames).unwrap();
    Box::leak(Box::new(WordZone::new(range).unwrap()))
}

fn private(
    nodes: &'static Registry,
    number: u16,
    class: MemoryClass,
    features: Features,
) -> pnode_core::Owner<'static, WordZone> {
    let owner = nodes.register(id(number), Private::class(class), features).unwrap();
    owner.online(zone(number, 4)).unwrap();
    owner
}

fn ordinary(nodes: &'static Registry, number: u16, class: MemoryClass) {
    nodes.ordinary(id(number), class).unwrap().online(zone(number, 4)).unwrap();
}

const BOTH_WAYS: Features = Features::RECLAIM.union(Features::DEMOTION);

/// 0: DRAM. 1: far DRAM, ordinary. 2: HBM, private. 3: far, private. 4: compressed, private. 5: far, private and closed.
fn machine() -> &'static Registry {
    let nodes = registry(Distances::uniform(IDS).unwrap());
    ordinary(nodes, 0, MemoryClass::DRAM);
    ordinary(nodes, 1, MemoryClass::FAR);
    private(nodes, 2, MemoryClass::HBM, Features::RECLAIM | Features::PROMOTION);
    private(nodes, 3, MemoryClass::FAR, BOTH_WAYS | Features::PROMOTION);
    private(nodes, 4, MemoryClass::COMPRESSED, BOTH_WAYS);
    private(nodes, 5, MemoryClass::FAR, Features::NONE);
    nodes
}

fn targets(tiers: &Tiers<'_>, from: u16, allowed: &NodeMask, distances: &Distances<'_>) -> Vec<u16> {
    tiers.targets(id(from), allowed, distances).map(NodeId::get).collect()
}

#[test]
fn classes_fall_into_tiers() {
    let tier = |class| Tier::of(class).get();
    assert_eq!(tier(MemoryClass::DRAM), 4);
    assert_eq!(tier(MemoryClass::HBM), 0);
    assert_eq!(tier(MemoryClass::ACCELERATOR), 3);
    assert_eq!(tier(MemoryClass::DEVICE_BUFFER), tier(MemoryClass::FAR));
    assert!(Tier::of(MemoryClass::COMPRESSED) > Tier::of(MemoryClass::FAR));
    // Slightly slower DRAM is DRAM, and slightly faster DRAM.
    assert_eq!(Tier::of(MemoryClass::new("dimm", 95, 52_000)), Tier::of(MemoryClass::DRAM));
    assert_eq!(Tier::of(MemoryClass::new("dimm", 105, 48_000)), Tier::of(MemoryClass::DRAM));
    assert_eq!(Tier::of(MemoryClass::new("broken", 1, 0)), Tier::of(MemoryClass::new("slow", u32::MAX, 1)));
}

#[test]
fn cold_pages_go_to_the_next_tier_that_opened_its_door() {
    let nodes = machine();
    let tiers = tiers(nodes);
    let all = |from| targets(&tiers, from, &NodeMask::ALL, nodes.distances());
    // Far memory first (the ordinary node and the private one that consents, by number), compressed memory after it.
    assert_eq!(all(0), [1, 3, 4]);
    assert_eq!(all(1), [4]);
    // A private node above DRAM demotes into DRAM. Ties go by number from the node on, as in zonelists: 3 before 1.
    assert_eq!(all(2), [0, 3, 1, 4]);
    assert_eq!(all(3), [4]);
    assert_eq!(all(4), []);
    // Closed: nothing leaves and nothing arrives.
    assert_eq!(all(5), []);
    assert_eq!(targets(&tiers, 0, &mask(&[3, 5]), nodes.distances()), [3]);
    assert_eq!(targets(&tiers, 1000, &NodeMask::ALL, nodes.distances()), []);
}

#[test]
fn in_a_tier_the_nearest_comes_first() {
    const TABLE: [u8; IDS * IDS] = {
        let mut table = [20; IDS * IDS];
        let mut node = 0;
        while node < IDS {
            table[node * IDS + node] = 10;
            node += 1;
        }
        table[1] = 40;
        table[3] = 30;
        table
    };
    let nodes = registry(Distances::from_table(IDS, &TABLE).unwrap());
    ordinary(nodes, 0, MemoryClass::DRAM);
    for number in [1, 2, 3] {
        private(nodes, number, MemoryClass::FAR, BOTH_WAYS);
    }
    let tiers = tiers(nodes);
    assert_eq!(targets(&tiers, 0, &NodeMask::ALL, nodes.distances()), [2, 3, 1]);
    // A table that speaks of fewer nodes makes the others equal, and loses none.
    assert_eq!(targets(&tiers, 0, &NodeMask::ALL, &Distances::uniform(1).unwrap()), [1, 2, 3]);
}

/// Distances of another machine are no reason to panic, nor to lose a node.
#[test]
fn a_table_of_any_size_names_the_same_nodes() {
    let nodes = machine();
    let tiers = tiers(nodes);
    for (from, count) in (0..IDS as u16).flat_map(|from| (1..=2 * IDS).map(move |count| (from, count))) {
        let set = |distances: &Distances<'_>| -> BTreeSet<u16> {
            targets(&tiers, from, &NodeMask::ALL, distances).into_iter().collect()
        };
        assert_eq!(set(&Distances::uniform(count).unwrap()), set(nodes.distances()), "{from} of {count}");
    }
}

#[test]
fn hot_pages_go_to_the_nearest_ordinary_node_of_a_higher_tier() {
    let nodes = machine();
    let tiers = tiers(nodes);
    let promote = |page, cpu, allowed: &[u16]| {
        tiers.promotion(id(page), id(cpu), &mask(allowed), nodes.distances()).map(NodeId::get)
    };
    let all = [0, 1, 2, 3, 4, 5];
    assert_eq!(promote(3, 0, &all), Some(0));
    assert_eq!(promote(1, 0, &all), Some(0));
    // Node 1 is as slow; never the private node above DRAM; nothing is above DRAM that a page could go to.
    assert_eq!(promote(3, 1, &[1, 2, 3]), None);
    assert_eq!(promote(0, 0, &all), None);
    assert_eq!(promote(2, 0, &all), None);
    // Doors: 4 and 5 did not open PROMOTION.
    assert_eq!(promote(4, 0, &all), None);
    assert_eq!(promote(5, 0, &all), None);
}

#[test]
fn a_refresh_follows_the_registry() {
    let nodes = machine();
    let mut slots = [TierSlot::EMPTY; IDS];
    let mut tiers = Tiers::new(&mut slots);
    assert!(tiers.is_stale(nodes));
    tiers.refresh(nodes).unwrap();
    assert!(!tiers.is_stale(nodes));
    // A node that drains receives nothing after the refresh, and before it no grant is had for it.
    let nodes = registry(Distances::uniform(IDS).unwrap());
    ordinary(nodes, 0, MemoryClass::DRAM);
    let far = private(nodes, 3, MemoryClass::FAR, BOTH_WAYS);
    tiers.refresh(nodes).unwrap();
    assert_eq!(targets(&tiers, 0, &NodeMask::ALL, nodes.distances()), [3]);
    far.drain().unwrap();
    let denied = nodes.grant(id(3), Reason::Demotion).map(|_| ());
    assert_eq!(denied, Err(Denied::Draining { node: id(3) }));
    tiers.refresh(nodes).unwrap();
    assert_eq!(targets(&tiers, 0, &NodeMask::ALL, nodes.distances()), []);
    far.resume().unwrap();
    far.offline(FrameRange::new(Pfn::new(3 * 64), 4).unwrap()).unwrap();
    assert!(tiers.is_stale(nodes));
    let mut few = [TierSlot::EMPTY; 2];
    let short = Tiers::new(&mut few).refresh(nodes);
    assert_eq!(short, Err(TierError { slots: 2, nodes: IDS }));
}

/// A service that is blocked takes nothing, from the very page on at which it is blocked, and is asked again for each.
#[test]
fn invariant_15_a_blocked_node_receives_nothing_within_the_same_batch() {
    let (near, far) = (id(3), id(4));
    let pressure = Cell::new(998);
    let mut pages: Vec<u32> = (0..8).collect();
    let mut at_near = Vec::new();
    let mut at_far = Vec::new();
    let admit = |node| {
        let blocked = node == near && pressure.get() >= 1000;
        if blocked { Admission::Blocked } else { Admission::Open }
    };
    let demoted = demote(&mut pages, [near, far], admit, |node, page| {
        if node == near {
            at_near.push(*page);
            pressure.set(pressure.get() + 1);
        } else {
            at_far.push(*page);
        }
        Delivery::Arrived
    });
    assert_eq!((at_near, at_far, demoted), (vec![0, 1], (2..8).collect(), 8));

    // Blocked from the start, and nobody else: everything goes on to swap, in its order.
    let mut pages: Vec<u32> = (0..8).collect();
    let demoted = demote(&mut pages, [near], admit, |_, _| panic!("it is blocked"));
    assert_eq!((pages, demoted), ((0..8).collect(), 0));
}

proptest! {
    /// Whatever nodes answer: one round, each page offered to each node at most once and to none after it arrived, and
    /// every page ends either on exactly one node or, in its old order, with those for swap.
    #[test]
    fn invariant_16_one_round_and_leftovers_reach_swap(
        pages in 0usize..12,
        targets in prop::collection::vec(0u16..5, 0..5),
        answers in prop::collection::vec(0u8..5, 200),
    ) {
        let mut batch: Vec<usize> = (0..pages).collect();
        let mut answers = answers.into_iter();
        let blocked = Cell::new(None);
        let mut offered = BTreeSet::new();
        let mut arrived = Vec::new();
        let mut visits = Vec::new();
        let turns: Vec<(usize, u16)> = targets.iter().copied().enumerate().collect();
        let turn = Cell::new(0);
        let count = demote(
            &mut batch,
            turns.iter().map(|(index, node)| { turn.set(*index); id(*node) }),
            |_| {
                let block = blocked.get() == Some(turn.get());
                if block { Admission::Blocked } else { Admission::Open }
            },
            |node, page| {
                assert_eq!(node, id(turns[turn.get()].1));
                assert_ne!(blocked.get(), Some(turn.get()), "a blocked node was offered a page");
                assert!(offered.insert((turn.get(), *page)), "offered twice to one target");
                assert!(!arrived.contains(page), "offered after it arrived");
                visits.push(turn.get());
                match answers.next().unwrap_or(0) {
                    0 => Delivery::Full,
                    1 => Delivery::Refused,
                    2 => { blocked.set(Some(turn.get())); arrived.push(*page); Delivery::Arrived }
                    _ => { arrived.push(*page); Delivery::Arrived }
                }
            },
        );
        prop_assert!(visits.is_sorted(), "a target was visited twice");
        prop_assert!(offered.len() <= pages * targets.len());
        prop_assert_eq!(&batch[..count], &arrived[..]);
        let left: Vec<usize> = (0..pages).filter(|page| !arrived.contains(page)).collect();
        prop_assert_eq!(&batch[count..], &left[..]);
    }
}

/// The whole way: order from the table, a grant for each private target, admission and moving by the node's service,
/// ordinary requests for ordinary targets, the rest to swap.
#[test]
fn demotion_through_services_and_grants() {
    struct Device {
        room: std::sync::atomic::AtomicUsize,
    }
    impl NodeOps for Device {
        fn migrate_to(&self, _: MaySleep<'_>, _: NodeId, blocks: &[Block]) -> Result<Moved, MoveError> {
            use std::sync::atomic::Ordering::Relaxed;
            match self.room.load(Relaxed) {
                0 => Err(MoveError::Full { arrived: 0 }),
                room => {
                    self.room.store(room - 1, Relaxed);
                    Ok(Moved { arrived: blocks.len() })
                }
            }
        }
    }
    let nodes = registry(Distances::uniform(IDS).unwrap());
    ordinary(nodes, 0, MemoryClass::DRAM);
    let served = private(nodes, 3, MemoryClass::FAR, BOTH_WAYS);
    private(nodes, 4, MemoryClass::COMPRESSED, BOTH_WAYS);
    let device = Box::leak(Box::new(Device { room: 2.into() }));
    served.serve(Box::leak(Box::new(Service::new(device)))).unwrap();
    let tiers = tiers(nodes);

    let mut cold: Vec<Block> =
        (0..8).map(|pfn| Block { pfn: Pfn::new(pfn), order: pnode_core::Order::ZERO }).collect();
    let mut moved = Vec::new();
    let demoted = demote(
        &mut cold,
        tiers.targets(id(0), &NodeMask::ALL, nodes.distances()),
        |node| match nodes.grant(node, Reason::Demotion) {
            Ok(_) => Admission::Open,
            Err(_) => Admission::Blocked,
        },
        |node, block| {
            let service = nodes.with_service(node, |service| {
                service.ops().migrate_to(MaySleep::here(), node, std::slice::from_ref(block))
            });
            match service {
                Some(Ok(_)) => Delivery::Arrived,
                Some(Err(_)) => Delivery::Full,
                // A node without a service: the host moves the page into a frame of it.
                None => match nodes.grant(node, Reason::Demotion).unwrap().alloc(Request::page()) {
                    Ok(frame) => {
                        moved.push(frame);
                        Delivery::Arrived
                    }
                    Err(_) => Delivery::Full,
                },
            }
        },
    );
    // Two on the device, four on the node behind it, two for swap.
    assert_eq!((demoted, moved.len()), (6, 4));
    assert!(moved.iter().all(|frame| frame.node() == id(4)));
    moved.into_iter().for_each(|frame| nodes.free(frame).unwrap());
}
