//! Many pages at once: populating, faulting around, and what both leave behind when they cannot go on.

mod support;

use std::io::Read;

use pnode_core::{AllocError, Features, MemoryClass, Order};
use pnode_user::fault::{BackendKind, FaultError};
use pnode_user::machine::{BuildError, Mapping, Place, Placement};
use pnode_user::{Machine, NodeSpec};
use support::on_all;

const PAGE: usize = 4096;

/// The bytes of all pages, read through the program's own pointer.
fn bytes(memory: &Mapping) -> Vec<u8> {
    let mut bytes = vec![0xff; memory.pages() * PAGE];
    memory.read(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn populated_pages_are_zero_present_and_in_few_mappings() {
    on_all(
        || Machine::builder().node(NodeSpec::ordinary(3000)),
        |machine| {
            let dram = machine.node(0).unwrap();
            for round in 0..3 {
                let memory = machine.map(2100, dram).unwrap();
                // One page was there before, and has bytes that must stay.
                memory.write(700 * PAGE, &[7; PAGE]).unwrap();
                let before = machine.counters();
                assert_eq!(memory.populate(0..usize::MAX), Ok(2099));
                assert_eq!(memory.populate(0..2100), Ok(0));
                assert!((0..2100).all(|page| memory.view().mapped(page).is_some()));
                let faults = machine.counters().failed_faults + machine.counters().soft_faults;
                let seen = bytes(&memory);
                for page in 0..2100 {
                    let byte = if page == 700 { 7 } else { 0 };
                    assert!(
                        seen[page * PAGE..(page + 1) * PAGE].iter().all(|seen| *seen == byte),
                        "{round} {page}"
                    );
                }
                let after = machine.counters();
                assert_eq!(after.failed_faults + after.soft_faults, faults, "reading takes no fault");
                assert!(after.hard_faults - before.hard_faults < 100, "they came in runs: {after}");
                assert!(memory.view().mappings() < 20, "{:?}", memory.view());
                assert_eq!(machine.free_frames(dram), 900);
                // The next round finds these bytes in its frames unless they are cleared.
                (0..2100).for_each(|page| memory.write(page * PAGE, &[0xee; PAGE]).unwrap());
            }
        },
    );
}

#[test]
fn populating_stops_where_memory_ends_and_keeps_what_came() {
    on_all(
        || Machine::builder().node(NodeSpec::ordinary(100)),
        |machine| {
            let memory = machine.map(130, machine.node(0).unwrap()).unwrap();
            let exhausted = FaultError::NoFrame(AllocError::NoMemory { order: Order::ZERO });
            assert_eq!(memory.populate(5..130), Err(exhausted));
            let there = (0..130).filter(|page| memory.place(*page) != Place::Untouched).count();
            assert_eq!(there, 100);
            memory.write(5 * PAGE, &[1; 90 * PAGE]).unwrap();
        },
    );
}

#[test]
fn each_placement_populates_from_its_own_node() {
    let far =
        Features::USER_NUMA.union(Features::RECLAIM).union(Features::DEMOTION).union(Features::WRITE_FENCE);
    let plain = NodeSpec::private(MemoryClass::HBM, 64).features(Features::USER_NUMA);
    assert!(Machine::builder().node(NodeSpec::private(MemoryClass::FAR, 64).features(far)).build().is_err());
    let fenced = far.difference(Features::USER_NUMA);
    on_all(
        || {
            let fenced = NodeSpec::private(MemoryClass::FAR, 64).features(fenced);
            Machine::builder().node(NodeSpec::ordinary(64)).node(plain).node(fenced)
        },
        |machine| {
            let [dram, hbm, far] = [0, 1, 2].map(|number| machine.node(number).unwrap());
            for (placement, node) in
                [(Placement::Near(dram), dram), (Placement::Bound(hbm), hbm), (Placement::Owner(far), far)]
            {
                let memory = machine.map_at(40, placement).unwrap();
                assert_eq!(memory.populate(0..40), Ok(40));
                assert!((0..40).all(|page| memory.place(page).is_resident_on(node)), "{placement:?}");
                assert_eq!(bytes(&memory), vec![0; 40 * PAGE]);
                if node == far {
                    memory.write(0, &[1]).unwrap();
                    assert!(memory.place(0).is_resident_on(dram), "the fence holds for what was populated");
                }
            }
        },
    );
}

#[test]
fn a_touch_brings_its_neighbours_where_asked_and_alone_where_not() {
    for around in [1, 16, 512] {
        on_all(
            || Machine::builder().node(NodeSpec::ordinary(2048)).fault_around(around),
            |machine| {
                let dram = machine.node(0).unwrap();
                let memory = machine.map(1000, dram).unwrap();
                memory.write(100 * PAGE, &[9]).unwrap();
                let there = |memory: &Mapping| {
                    (0..1000).filter(|page| memory.place(*page) != Place::Untouched).collect::<Vec<_>>()
                };
                let first = 100 & !(around - 1);
                let came = there(&memory);
                assert!(
                    came.contains(&100) && came.iter().all(|page| (first..first + around).contains(page))
                );
                let laid = machine.faults().kind() != BackendKind::Signal;
                assert!(came.len() <= around && (came.len() >= around.min(16) || !laid), "{came:?}");
                for page in 0..1000 {
                    memory.write(page * PAGE + 8, &[page as u8]).unwrap();
                }
                let counters = machine.counters();
                assert_eq!(counters.hard_faults + counters.faulted_around, 1000);
                assert!(counters.hard_faults <= 1000_u64.div_ceil(around as u64) * 2);
                assert!((0..1000).all(|page| bytes(&memory)[page * PAGE + 8] == page as u8));
                assert_eq!(machine.free_frames(dram), 1048);
            },
        );
    }
    for wrong in [0, 3, 1024] {
        let refused = Machine::builder().node(NodeSpec::ordinary(8)).fault_around(wrong).build().unwrap_err();
        assert_eq!(refused, BuildError::FaultAround { pages: wrong });
    }
}

#[test]
fn a_system_call_reads_into_what_was_populated() {
    on_all(
        || Machine::builder().node(NodeSpec::ordinary(64)),
        |machine| {
            let memory = machine.map(8, machine.node(0).unwrap()).unwrap();
            memory.populate(2..6).unwrap();
            let start = memory.as_ptr().wrapping_add(2 * PAGE);
            // SAFETY: four pages of the mapping, which nobody else uses now.
            let target = unsafe { std::slice::from_raw_parts_mut(start, 4 * PAGE) };
            target.fill(3);
            let mut zeroes = std::fs::File::open("/dev/zero").unwrap();
            zeroes.read_exact(target).unwrap();
            assert_eq!(bytes(&memory), vec![0; 8 * PAGE]);
        },
    );
}
