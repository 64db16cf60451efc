//! Nodes with holes and several zones: no frame where there is no memory, and limits that are kept.
#![allow(missing_docs)]

mod support;

use pnode_core::{AllocError, Features, Frame, MemoryClass, OfflineError, Order, Pfn, Request, Watermarks};
use pnode_user::machine::{Builder, Place, Placement, UnplugError, Use};
use pnode_user::{Machine, NodeSpec};

use support::{ids, on_all};

const PAGE: usize = 4096;

/// 100 frames of ordinary memory in three zones, one of which ends in a hole; 64 of a device, in two zones with a hole between
/// them; a compressed node with a hole.
fn machine() -> Builder {
    let doors = Features::RECLAIM
        | Features::DEMOTION
        | Features::PROMOTION
        | Features::USER_NUMA
        | Features::HOTUNPLUG;
    Machine::builder()
        .node(NodeSpec::ordinary(120).zone(16, 4).zone(40, 0).hole(50, 20))
        .node(NodeSpec::private(MemoryClass::FAR, 72).features(doors).zone(32, 0).hole(28, 8))
        .node(NodeSpec::compressed(80, 200).hole(3, 16))
        .swap(64)
}

fn all_of(machine: &Machine, request: Request<'_>) -> Vec<Frame> {
    std::iter::from_fn(|| machine.alloc(request).ok()).collect()
}

fn give_back(machine: &Machine, frames: impl IntoIterator<Item = Frame>) {
    frames.into_iter().for_each(|frame| machine.free(frame).unwrap());
}

#[test]
fn every_frame_is_handed_out_and_none_of_a_hole() {
    on_all(machine, |machine| {
        let [dram, far, compressed] = ids(machine);
        assert_eq!([dram, far, compressed].map(|node| machine.frames(node)), [100, 64, 64]);
        for node in [dram, far] {
            let near = machine.node(0).unwrap();
            let memory = if node == dram {
                machine.map_at(200, Placement::Near(near))
            } else {
                machine.map_at(200, Placement::Bound(node))
            }
            .unwrap();
            let mut places = Vec::new();
            for page in 0..machine.frames(node) as usize - if node == dram { 4 } else { 0 } {
                memory.write(page * PAGE, &(page as u64).to_le_bytes()).unwrap();
                let Place::Resident { node: on, pfn } = memory.place(page) else {
                    panic!("page {page} is nowhere")
                };
                assert_eq!(on, node);
                places.push(pfn);
            }
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), machine.frames(node) as usize - if node == dram { 4 } else { 0 });
            let seen = machine.occupancy();
            let seen = &seen.nodes[node.index()];
            let base = node.index() << 24;
            let holes: Vec<usize> =
                (0..seen.frames.len()).filter(|frame| seen.frames[*frame] == Use::Hole).collect();
            assert_eq!(holes, if node == dram { (50..70).collect::<Vec<_>>() } else { (28..36).collect() });
            assert!(places.iter().all(|pfn| !holes.contains(&(pfn.get() as usize - base))));
            assert_eq!(seen.borders, if node == dram { vec![16, 56] } else { vec![32] });
            for page in 0..places.len() {
                let mut word = [0; 8];
                memory.read(page * PAGE, &mut word).unwrap();
                assert_eq!(u64::from_le_bytes(word), page as u64);
            }
        }
        let svg = machine.occupancy().to_svg("holes");
        assert!(svg.contains("no memory") && svg.contains("a zone begins"), "{svg}");
    });
}

#[test]
fn limits_and_reserves_are_kept() {
    on_all(machine, |machine| {
        let [dram, far, _] = ids(machine);
        let zones = machine.zones(dram);
        assert_eq!(
            zones.iter().map(|zone| (zone.span.frames(), zone.frames)).collect::<Vec<_>>(),
            [(16, 16), (40, 34), (64, 50)]
        );
        // The highest zone first, and the reserve for nobody who has a choice.
        let taken = all_of(machine, Request::page());
        assert_eq!(taken.len(), 96);
        let zone_of = |frame: &Frame| zones.iter().position(|zone| zone.span.contains(frame.pfn())).unwrap();
        let order: Vec<usize> = taken.iter().map(zone_of).collect();
        assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
        let below = |zone: usize| Request::page().below(zones[zone].span.end());
        let reserved = all_of(machine, below(0));
        assert_eq!(reserved.len(), 4);
        assert!(reserved.iter().all(|frame| zone_of(frame) == 0));
        give_back(machine, taken);
        // Free frames beyond the limit do not help.
        let low = all_of(machine, below(0));
        assert_eq!(
            (low.len(), machine.alloc(below(0))),
            (12, Err(AllocError::NoMemory { order: Order::ZERO }))
        );
        let middle = all_of(machine, below(1));
        assert!(middle.len() == 34 && middle.iter().all(|frame| zone_of(frame) == 1));
        assert_eq!(
            machine.alloc(Request::page().below(Pfn::new(0))),
            Err(AllocError::NoMemory { order: Order::ZERO })
        );
        give_back(machine, reserved.into_iter().chain(low).chain(middle));
        // The same through a grant.
        let grant = machine.owner_grant(far).unwrap();
        let limit = machine.zones(far)[0].span.end();
        let reachable: Vec<_> =
            std::iter::from_fn(|| grant.alloc(Request::page().below(limit)).ok()).collect();
        assert_eq!(reachable.len(), 28);
        assert!(reachable.iter().all(|frame| frame.pfn() < limit));
        give_back(machine, reachable);
    });
}

#[test]
fn a_node_of_several_zones_leaves_whole_or_not_at_all() {
    on_all(machine, |machine| {
        let [_, far, _] = ids(machine);
        let zones = machine.zones(far);
        for held_in in [0, 1] {
            let grant = machine.owner_grant(far).unwrap();
            let request =
                if held_in == 0 { Request::page().below(zones[0].span.end()) } else { Request::page() };
            let held = grant.alloc(request).unwrap();
            assert!(zones[held_in].span.contains(held.pfn()));
            drop(grant);
            let memory = machine.map_at(10, Placement::Bound(far)).unwrap();
            (0..10).for_each(|page| memory.write(page * PAGE, &[page as u8 + 1]).unwrap());
            assert!(matches!(
                machine.unplug(far),
                Err(UnplugError::Offline(OfflineError::StillUsed { range, frames: 1 })) if range == zones[held_in].span
            ));
            // All of it serves again.
            assert_eq!(machine.free_frames(far), 63);
            let grant = machine.owner_grant(far).unwrap();
            let taken: Vec<_> = std::iter::from_fn(|| grant.alloc(Request::page()).ok()).collect();
            assert_eq!(taken.len(), 63);
            give_back(machine, taken);
            drop(grant);
            machine.free(held).unwrap();
            machine.unplug(far).unwrap();
            assert_eq!(machine.zones(far).iter().map(|zone| zone.free).sum::<u64>(), 0);
            machine.plug(far).unwrap();
            assert_eq!(machine.free_frames(far), 64);
            for page in 0..10 {
                let mut byte = [0];
                memory.read(page * PAGE, &mut byte).unwrap();
                assert_eq!(byte, [page as u8 + 1]);
            }
        }
    });
}

#[test]
fn a_store_and_a_heap_live_with_holes() {
    on_all(machine, |machine| {
        let [dram, far, compressed] = ids(machine);
        let memory = machine.map(90, dram).unwrap();
        let noise = |page: usize| -> Vec<u8> {
            (0..PAGE).map(|byte| (page * 31 + byte * byte / 7 + byte * page) as u8).collect()
        };
        (0..90).for_each(|page| memory.write(page * PAGE, &noise(page)).unwrap());
        assert!(memory.demote(0..90, compressed).unwrap().pages > 0);
        for page in 0..90 {
            let mut bytes = vec![0; PAGE];
            memory.read(page * PAGE, &mut bytes).unwrap();
            assert_eq!(bytes, noise(page), "page {page}");
        }
        let usage = machine.compressed(compressed).unwrap();
        assert_eq!(usage.physical, 64 * PAGE as u64);
        drop(memory);
        let heap = machine.owner_grant(far).unwrap().into_heap().unwrap();
        let objects: Vec<_> = (0..).map_while(|number| heap.boxed([number as u64; 128]).ok()).collect();
        assert!(objects.len() > 100, "{}", objects.len());
        assert!(objects.iter().enumerate().all(|(number, object)| **object == [number as u64; 128]));
    });
}

#[test]
fn each_zone_keeps_its_share_of_the_watermarks() {
    let marks = Watermarks::new(10, 20, 40).unwrap();
    let builder =
        || Machine::builder().node(NodeSpec::ordinary(110).watermarks(marks).zone(50, 0).hole(60, 10));
    on_all(builder, |machine| {
        let [node] = ids(machine);
        let mins: Vec<_> = machine.zones(node).iter().map(|zone| (zone.marks.min(), zone.frames)).collect();
        assert_eq!(mins, [(5, 50), (5, 50)]);
        let taken = all_of(machine, Request::page());
        assert_eq!(taken.len(), 90);
        assert_eq!(machine.zones(node).iter().map(|zone| zone.free).collect::<Vec<_>>(), [5, 5]);
        give_back(machine, taken);
    });
}
