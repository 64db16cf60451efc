//! A machine under a data oracle: whatever demotion, promotion, migration and unplugging do, every byte stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pnode_core::{AllocError, Denied, Features, FreeError, MemoryClass, NodeId, Order, Reason, Request};
use pnode_user::fault::{BackendKind, Choice, FaultError};
use pnode_user::machine::{AuditError, BuildError, Builder, DemoteError, Place, UnplugError};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;

/// Runs `test` on machines of all backends.
fn on_all(builder: impl Fn() -> Builder, test: impl Fn(&Machine)) {
    for (choice, kind) in [
        (Choice::Signal, BackendKind::Signal),
        (Choice::Userfaultfd, BackendKind::Userfaultfd),
        (Choice::UserfaultfdEvents, BackendKind::UserfaultfdEvents),
    ] {
        match builder().faults(choice).build() {
            Ok(machine) => {
                assert_eq!(machine.faults().kind(), kind);
                test(&machine);
                machine.audit().unwrap();
            }
            Err(BuildError::Faults(error)) if choice != Choice::Signal => println!("SKIPPED: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn three_nodes() -> Builder {
    Machine::builder()
        .node(NodeSpec::ordinary(128))
        .node(NodeSpec::ordinary(128))
        .node(NodeSpec::compressed(96, 288))
}

fn ids(machine: &Machine) -> [NodeId; 3] {
    [0, 1, 2].map(|number| machine.node(number).unwrap())
}

/// The bytes of page `page` in its version `version`: a third repeats one byte, the rest compresses about 2:1.
fn bytes_of(page: usize, version: u64) -> Vec<u8> {
    if page % 3 == 0 {
        return vec![(page as u64 + version) as u8; PAGE];
    }
    let mut seed = (page as u64) << 32 | version | 1;
    let words = (0..PAGE / 8).flat_map(|word| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let random = if word % 2 == 0 { seed } else { page as u64 };
        random.to_le_bytes()
    });
    words.collect()
}

fn read_page(memory: &pnode_user::machine::Mapping, page: usize) -> Vec<u8> {
    let mut bytes = vec![0; PAGE];
    memory.read(page * PAGE, &mut bytes).unwrap();
    bytes
}

#[test]
fn pages_come_back_from_the_compressed_node_and_writes_promote() {
    on_all(three_nodes, |machine| {
        let [near, far, compressed] = ids(machine);
        let memory = machine.map(100, far).unwrap();
        for page in 0..100 {
            assert_eq!(memory.place(page), Place::Untouched);
            memory.write(page * PAGE, &bytes_of(page, 0)).unwrap();
            assert!(memory.place(page).is_resident_on(far), "page {page}");
        }
        let demotion = memory.demote(0..100, compressed).unwrap();
        assert_eq!((demotion.pages, demotion.refused), (100, 0), "{demotion:?}");
        assert_eq!(machine.free_frames(far), 128, "demotion gives ordinary frames back");
        let usage = machine.compressed(compressed).unwrap();
        assert_eq!(usage.stats.pages, 100);
        assert!(usage.stats.pool_bytes < usage.stats.original_bytes);
        for page in 0..100 {
            assert_eq!(read_page(&memory, page), bytes_of(page, 0), "page {page}");
            assert!(memory.place(page).is_compressed_on(compressed), "a read does not move the page");
        }
        for page in (0..100).step_by(5) {
            memory.write(page * PAGE, &bytes_of(page, 1)[..100]).unwrap();
            assert!(memory.place(page).is_resident_on(far), "a write moves the page");
            let mut expected = bytes_of(page, 0);
            expected[..100].copy_from_slice(&bytes_of(page, 1)[..100]);
            assert_eq!(read_page(&memory, page), expected, "page {page}");
        }
        let counters = machine.counters();
        assert_eq!((counters.hard_faults, counters.demoted, counters.promoted), (100, 100, 20));
        assert_eq!(machine.free_frames(near), 128);
        assert_eq!(machine.unplug(compressed).unwrap().pages, 80);
        assert_eq!(machine.compressed(compressed), None);
        assert!(!machine.state(compressed).unwrap().is_registered());
        for page in 0..100 {
            assert!(matches!(memory.place(page), Place::Resident { .. }));
            assert_eq!(read_page(&memory, page)[200..], bytes_of(page, 0)[200..], "page {page}");
        }
        assert!(matches!(memory.demote(0..1, compressed), Err(DemoteError::Denied(_))));
        drop(memory);
        assert_eq!([near, far].map(|node| machine.free_frames(node)), [128, 128]);
    });
}

#[test]
fn no_ordinary_request_reaches_a_private_node_under_pressure() {
    on_all(three_nodes, |machine| {
        let [_, _, compressed] = ids(machine);
        let before = machine.free_frames(compressed);
        let mut taken = Vec::new();
        let error = loop {
            match machine.alloc(Request::page().prefer(compressed)) {
                Ok(frame) => taken.push(frame),
                Err(error) => break error,
            }
        };
        assert_eq!(error, AllocError::NoMemory { order: Order::ZERO });
        assert_eq!(taken.len(), 256);
        assert!(taken.iter().all(|frame| frame.node() != compressed));
        assert_eq!(machine.free_frames(compressed), before);
        let insist = Request::page().prefer(compressed).this_node_only();
        assert_eq!(machine.alloc(insist), Err(AllocError::Private { node: compressed }));
        for reason in [Reason::UserPolicy, Reason::Pin, Reason::Contig, Reason::Compaction] {
            assert!(matches!(machine.grant(compressed, reason), Err(Denied::NotOpened { .. })), "{reason}");
        }
        assert_eq!(machine.audit(), Err(AuditError::Leaked { node: taken[0].node(), frames: 128 }));
        taken.into_iter().for_each(|frame| machine.free(frame).unwrap());
    });
}

#[test]
fn a_touch_without_memory_demotes_cold_pages_first() {
    on_all(three_nodes, |machine| {
        let [near, ..] = ids(machine);
        // More pages than there are ordinary frames.
        let memory = machine.map(400, near).unwrap();
        for page in 0..400 {
            memory.write(page * PAGE, &bytes_of(page, 7)).unwrap();
        }
        let counters = machine.counters();
        assert!(counters.demoted >= 400 - 256 && counters.reclaim_passes > 0, "{counters}");
        for page in 0..400 {
            assert_eq!(read_page(&memory, page), bytes_of(page, 7), "page {page}");
        }
    });
}

#[test]
fn what_cannot_be_served_is_an_error_and_loses_nothing() {
    let builder = || Machine::builder().node(NodeSpec::ordinary(20)).node(NodeSpec::compressed(20, 40));
    on_all(builder, |machine| {
        let [dram, compressed] = [0, 1].map(|number| machine.node(number).unwrap());
        let memory = machine.map(100, dram).unwrap();
        let mut written = 0;
        let error = loop {
            match memory.write(written * PAGE, &bytes_of(written, 3)) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, FaultError::NoFrame(AllocError::NoMemory { order: Order::ZERO }));
        assert!(written > 40, "{written} pages on 20 frames and a compressed node");
        // The node is needed: its pages have no other place to go to.
        assert!(matches!(machine.unplug(compressed), Err(UnplugError::Evacuate { .. })));
        assert!(!machine.state(compressed).unwrap().is_draining());
        for page in 0..written {
            assert_eq!(read_page(&memory, page), bytes_of(page, 3), "page {page}");
        }
        assert_eq!(memory.write(100 * PAGE - 1, &[0, 0]), Err(FaultError::NotMapped));
    });
}

#[test]
fn random_pages_that_do_not_compress_are_refused_not_lost() {
    let builder = || Machine::builder().node(NodeSpec::ordinary(200)).node(NodeSpec::compressed(32, 300));
    on_all(builder, |machine| {
        let [dram, compressed] = [0, 1].map(|number| machine.node(number).unwrap());
        let memory = machine.map(150, dram).unwrap();
        let mut seed = 1u64;
        let pages: Vec<Vec<u8>> = (0..150)
            .map(|_| {
                let word = |_| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    seed.to_le_bytes()
                };
                (0..PAGE / 8).flat_map(word).collect()
            })
            .collect();
        for (page, bytes) in pages.iter().enumerate() {
            memory.write(page * PAGE, bytes).unwrap();
        }
        let demotion = memory.demote(0..150, compressed).unwrap();
        assert!(demotion.pages < 32 && demotion.pages + demotion.refused == 150, "{demotion:?}");
        assert!(matches!(demotion.reason, Some(DemoteError::Refused(_))));
        for (page, bytes) in pages.iter().enumerate() {
            assert_eq!(&read_page(&memory, page), bytes, "page {page}");
        }
    });
}

#[test]
fn threads_that_touch_and_services_that_move_lose_nothing() {
    on_all(
        || three_nodes().mappings(150),
        |machine| {
            const WRITERS: usize = 3;
            const PAGES: usize = 60;
            let nodes = ids(machine);
            // The writers go on until everything has happened to them often enough, whatever the machine's speed.
            let busy = &|| {
                let counters = machine.counters();
                counters.demoted.min(counters.promoted).min(counters.migrated) > 40
            };
            let stop = AtomicBool::new(false);
            let memories: Vec<_> = (0..WRITERS).map(|_| machine.map(PAGES, nodes[0]).unwrap()).collect();
            thread::scope(|scope| {
                let writers: Vec<_> = memories
                    .iter()
                    .enumerate()
                    .map(|(writer, memory)| {
                        scope.spawn(move || {
                            let mut versions = [0u64; PAGES];
                            let mut seed = writer as u64 + 1;
                            for version in (1..).take_while(|version| *version < 150 || !busy()) {
                                seed =
                                    seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                                let page = (seed >> 40) as usize % PAGES;
                                if versions[page] > 0 {
                                    let expected = bytes_of(page, versions[page]);
                                    assert!(
                                        read_page(memory, page) == expected,
                                        "writer {writer} page {page}"
                                    );
                                }
                                if seed >> 63 == 0 || versions[page] == 0 {
                                    memory.write(page * PAGE, &bytes_of(page, version)).unwrap();
                                    versions[page] = version;
                                }
                            }
                            versions
                        })
                    })
                    .collect();
                let (stop, memories) = (&stop, &memories);
                for mover in 0..2 {
                    scope.spawn(move || {
                        let mut seed = mover + 100u64;
                        while !stop.load(Ordering::Relaxed) {
                            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                            let memory = &memories[(seed >> 20) as usize % WRITERS];
                            let page = (seed >> 40) as usize % PAGES;
                            match seed >> 61 {
                                0..=2 => drop(memory.demote(page..page + 4, nodes[2]).unwrap()),
                                3 => drop(machine.reclaim(8)),
                                _ => drop(memory.migrate(page, nodes[(seed >> 33) as usize % 2])),
                            }
                        }
                    });
                }
                let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
                stop.store(true, Ordering::Relaxed);
                for (writer, versions) in written.into_iter().enumerate() {
                    let versions = versions.unwrap();
                    for (page, version) in
                        versions.into_iter().enumerate().filter(|(_, version)| *version > 0)
                    {
                        assert_eq!(
                            read_page(&memories[writer], page),
                            bytes_of(page, version),
                            "page {page}"
                        );
                    }
                }
            });
            machine.audit().unwrap();
            let counters = machine.counters();
            assert!(counters.demoted > 40 && counters.promoted > 40 && counters.migrated > 40, "{counters}");
            machine.unplug(nodes[2]).unwrap();
            machine.audit().unwrap();
            drop(memories);
            assert_eq!([nodes[0], nodes[1]].map(|node| machine.free_frames(node)), [128, 128]);
        },
    );
}

#[test]
fn descriptions_that_make_no_machine_are_refused() {
    assert_eq!(Machine::builder().build().unwrap_err(), BuildError::Nodes { nodes: 0 });
    let none = Machine::builder().node(NodeSpec::ordinary(0)).build();
    assert!(matches!(none, Err(BuildError::Frames { frames: 0, .. })));
    let huge = Machine::builder().node(NodeSpec::ordinary(1 << 40)).build();
    assert!(matches!(huge, Err(BuildError::Frames { .. })));
    let closed = NodeSpec::private(MemoryClass::FAR, 8).features(Features::DEMOTION);
    assert!(matches!(Machine::builder().node(closed).build(), Err(BuildError::Register(_))));
    let distances = Machine::builder().node(NodeSpec::ordinary(8)).distances(&[10, 20]).build();
    assert!(matches!(distances, Err(BuildError::Distances(_))));
    let empty = Machine::builder().node(NodeSpec::compressed(8, 0)).build();
    assert!(matches!(empty, Err(BuildError::Compressed { .. })));
}

#[test]
fn a_write_to_a_stored_page_without_memory_is_an_error_and_the_page_stays() {
    let builder = || Machine::builder().node(NodeSpec::ordinary(8)).node(NodeSpec::compressed(32, 64));
    on_all(builder, |machine| {
        let [dram, compressed] = [0, 1].map(|number| machine.node(number).unwrap());
        let memory = machine.map(2, dram).unwrap();
        memory.write(0, &bytes_of(1, 4)).unwrap();
        assert_eq!(memory.demote(0..1, compressed).unwrap().pages, 1);
        // A read maps the page, so that the write traps at a page that is there.
        assert_eq!(read_page(&memory, 0), bytes_of(1, 4));
        let taken: Vec<_> = (0..8).map(|_| machine.alloc(Request::page()).unwrap()).collect();
        let no_memory = FaultError::NoFrame(AllocError::NoMemory { order: Order::ZERO });
        assert_eq!(memory.write(0, &[1]), Err(no_memory));
        assert!(memory.place(0).is_compressed_on(compressed));
        assert_eq!(read_page(&memory, 0), bytes_of(1, 4));
        taken.into_iter().for_each(|frame| machine.free(frame).unwrap());
        memory.write(0, &bytes_of(1, 5)).unwrap();
        assert_eq!(read_page(&memory, 0), bytes_of(1, 5));
    });
}

#[test]
fn a_frame_of_another_machine_opens_nothing() {
    let build = || Machine::builder().node(NodeSpec::ordinary(8)).build().unwrap();
    let (machine, other) = (build(), build());
    let dram = machine.node(0).unwrap();
    let memory = machine.map(8, dram).unwrap();
    (0..8).for_each(|page| memory.write(page * PAGE, &[page as u8; PAGE]).unwrap());
    for _ in 0..8 {
        // Each has the number of a frame that holds a page here.
        let foreign = other.alloc(Request::page()).unwrap();
        let pfn = foreign.pfn();
        let mut bytes = [0; 4];
        assert!(!machine.read(&foreign, 0, &mut bytes) && !machine.write(&foreign, 0, &[9; 4]));
        assert_eq!(machine.free(foreign), Err(FreeError::Foreign { pfn }));
    }
    (0..8).for_each(|page| assert_eq!(read_page(&memory, page), [page as u8; PAGE]));
    machine.audit().unwrap();
}
