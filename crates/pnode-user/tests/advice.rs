//! Advice that is about memory that is short (`MADV_FREE`, `MADV_PAGEOUT`, `MADV_COLD`), and reclaim of pages that a fork shares.

mod support;

use pnode_core::{Features, MemoryClass};
use pnode_user::machine::{Advice, Builder, Place, Process, Rights, Sharing};
use pnode_user::{Machine, NodeSpec};

use support::{ids, on_all};

const PAGE: usize = 4096;
const PAGES: usize = 24;
const TIER: Features = Features::RECLAIM.union(Features::DEMOTION).union(Features::HOTUNPLUG);

fn builder() -> Builder {
    Machine::builder()
        .node(NodeSpec::ordinary(128))
        .node(NodeSpec::private(MemoryClass::FAR, 16).features(TIER))
        .swap(128)
}

fn store(process: &Process, page: usize, value: u64) {
    process.write(page, 8, &value.to_le_bytes()).unwrap();
}

fn load(process: &Process, page: usize) -> u64 {
    let mut bytes = [0; 8];
    process.read(page, 8, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// A process whose pages hold their number plus 1.
fn filled(machine: &Machine, pages: usize) -> Process {
    let process = machine.process(pages, machine.node(0).unwrap()).unwrap();
    process.map(pages, Rights::ReadWrite).unwrap();
    (0..pages).for_each(|page| store(&process, page, page as u64 + 1));
    process
}

#[test]
fn what_is_paged_out_goes_below_then_to_swap_and_comes_back() {
    on_all(builder, |machine| {
        let [dram, far] = ids(machine);
        let process = filled(machine, PAGES);
        process.advise(0..PAGES, Advice::PageOut).unwrap();
        let places: Vec<Place> = (0..PAGES).map(|page| process.place(page)).collect();
        assert!(places[..16].iter().all(|place| place.is_resident_on(far)), "{places:?}");
        assert!(places[16..].iter().all(|place| *place == Place::Swapped), "{places:?}");
        assert_eq!(machine.free_frames(dram), 128);
        for page in 0..PAGES {
            assert_eq!(load(&process, page), page as u64 + 1);
        }
    });
}

#[test]
fn a_node_that_did_not_open_reclaim_is_left_alone() {
    let builder = || {
        Machine::builder()
            .node(NodeSpec::ordinary(64))
            .node(NodeSpec::private(MemoryClass::HBM, 32).features(Features::USER_NUMA))
            .swap(64)
    };
    on_all(builder, |machine| {
        let [_, hbm] = ids(machine);
        let process = filled(machine, 4);
        assert!(process.move_pages(&[(0, hbm), (1, hbm)]).iter().all(Result::is_ok));
        for advice in [Advice::Free, Advice::Cold, Advice::PageOut] {
            process.advise(0..2, advice).unwrap();
            machine.reclaim(64);
            assert!((0..2).all(|page| process.place(page).is_resident_on(hbm)), "{advice:?}");
            assert_eq!([load(&process, 0), load(&process, 1)], [1, 2], "{advice:?}");
        }
    });
}

#[test]
fn given_up_pages_go_when_memory_is_wanted_unless_they_are_written_again() {
    on_all(builder, |machine| {
        let [dram, _] = ids(machine);
        let process = filled(machine, PAGES);
        process.advise(0..8, Advice::Free).unwrap();
        // Nothing went yet, and reading does not change that they may.
        assert!((0..8).all(|page| load(&process, page) == page as u64 + 1));
        store(&process, 3, 33);
        let before = machine.free_frames(dram);
        process.advise(4..5, Advice::Populate).unwrap();
        // What was written, or is to be written, is wanted again.
        machine.reclaim(6);
        let gone: Vec<usize> = (0..8).filter(|page| process.place(*page) == Place::Untouched).collect();
        assert_eq!(gone, [0, 1, 2, 5, 6, 7]);
        assert_eq!(machine.counters().freed_lazily, 6);
        assert_eq!((machine.free_frames(dram), machine.counters().swapped_out), (before + 6, 0));
        for page in 0..PAGES {
            let kept = !gone.contains(&page);
            let value = if page == 3 { 33 } else { page as u64 + 1 };
            assert_eq!(load(&process, page), if kept { value } else { 0 }, "page {page}");
        }
        // A page that was given up, and taken, and used again, is a page like any other.
        store(&process, 0, 9);
        machine.age();
        machine.reclaim(1000);
        assert_eq!(load(&process, 0), 9);
        // What is in swap goes at once.
        process.advise(10..12, Advice::PageOut).unwrap();
        machine.reclaim(1000);
        let swapped = machine.swap_use().0;
        let on_swap = (10..12).filter(|page| process.place(*page) == Place::Swapped).count() as u64;
        process.advise(10..12, Advice::Free).unwrap();
        assert_eq!(machine.swap_use().0, swapped - on_swap);
    });
}

#[test]
fn pages_that_a_fork_shares_move_under_all_who_have_them() {
    on_all(builder, |machine| {
        let [dram, far] = ids(machine);
        let parent = filled(machine, PAGES);
        let children: Vec<Process> = (0..32).map(|_| parent.fork().unwrap()).collect();
        assert_eq!(machine.free_frames(dram), 128 - PAGES as u64, "32 children, one frame a page");
        // One of many does not say for all that a page is cold.
        parent.advise(0..4, Advice::PageOut).unwrap();
        assert!((0..4).all(|page| parent.place(page).is_resident_on(dram)));
        machine.reclaim(PAGES);
        let below = (0..PAGES).filter(|page| parent.place(*page).is_resident_on(far)).count();
        let swapped = (0..PAGES).filter(|page| parent.place(*page) == Place::Swapped).count();
        assert_eq!((below, swapped, machine.free_frames(dram)), (16, PAGES - 16, 128));
        assert_eq!(machine.counters().demoted, 16);
        for (number, process) in children.iter().chain([&parent]).enumerate() {
            for page in 0..PAGES {
                assert_eq!(load(process, page), page as u64 + 1, "process {number}");
            }
            assert!((0..PAGES).filter(|page| process.place(*page).is_resident_on(far)).count() == 16);
        }
        // Each write is a copy in ordinary memory, and the others do not see it.
        let lower = (0..PAGES).find(|page| parent.place(*page).is_resident_on(far)).unwrap();
        for (number, child) in children.iter().enumerate() {
            store(child, lower, 1000 + number as u64);
            assert!(child.place(lower).is_resident_on(dram));
        }
        assert_eq!(load(&parent, lower), lower as u64 + 1);
        assert!((0..32).all(|number| load(&children[number], lower) == 1000 + number as u64));
        // The node goes, and everybody keeps his bytes.
        machine.unplug(far).unwrap();
        for page in (0..PAGES).filter(|page| *page != lower) {
            assert!(children.iter().all(|child| load(child, page) == page as u64 + 1));
        }
    });
}

#[test]
fn a_fence_holds_for_what_a_fork_shares() {
    let builder = || {
        Machine::builder()
            .node(NodeSpec::ordinary(64))
            .node(NodeSpec::private(MemoryClass::FAR, 16).features(TIER | Features::WRITE_FENCE))
    };
    on_all(builder, |machine| {
        let [dram, fenced] = ids(machine);
        let parent = filled(machine, 8);
        let child = parent.fork().unwrap();
        machine.reclaim(8);
        assert!((0..8).all(|page| child.place(page).is_resident_on(fenced)));
        assert_eq!(load(&parent, 2), 3);
        store(&child, 2, 22);
        assert_eq!((load(&parent, 2), load(&child, 2)), (3, 22));
        assert!(child.place(2).is_resident_on(dram) && parent.place(2).is_resident_on(fenced));
        drop(child);
        // The last one who has a page takes it over, and a write still does not land on the node.
        store(&parent, 5, 55);
        assert!(parent.place(5).is_resident_on(dram));
        assert_eq!(load(&parent, 5), 55);
    });
}

/// What a page holds, as far as a program may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knows {
    Value(u64),
    /// This, or zero: it was given up.
    ValueOrZero(u64),
}

/// Seeded steps of all of it, compared with a word a page.
#[test]
fn advice_never_costs_a_byte_that_was_not_given_up() {
    for seed in [1, 2, 3u64] {
        println!("seed {seed}");
        on_all(builder, |machine| {
            let mut state = seed;
            let mut random = move |below: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % below
            };
            let [_, far] = ids(machine);
            let file = machine.file(vec![0; 4 * PAGE], machine.node(0).unwrap()).unwrap();
            let mut family = vec![(filled(machine, PAGES + 4), [Knows::Value(0); PAGES + 4])];
            let (first, known) = &mut family[0];
            first.unmap(PAGES..PAGES + 4).unwrap();
            assert_eq!(
                first.map_object(&file, 0..4, Rights::ReadWrite, Sharing::Private),
                Ok(PAGES..PAGES + 4)
            );
            (0..PAGES).for_each(|page| known[page] = Knows::Value(page as u64 + 1));
            let mut value = 100;
            for step in 0..600 {
                let who = random(family.len());
                let page = random(PAGES + 4);
                let (process, known) = &mut family[who];
                match random(10) {
                    0..=2 => {
                        value += 1;
                        store(process, page, value);
                        known[page] = Knows::Value(value);
                    }
                    3..=4 => {
                        let found = load(process, page);
                        match known[page] {
                            Knows::Value(value) => assert_eq!(found, value, "step {step}, page {page}"),
                            // Reading does not say that it is wanted: it may still go.
                            Knows::ValueOrZero(value) => assert!(found == value || found == 0, "step {step}"),
                        }
                    }
                    5 => {
                        let end = (page + 6).min(PAGES);
                        if page < end {
                            process.advise(page..end, Advice::Free).unwrap();
                            for known in &mut known[page..end] {
                                let (Knows::Value(value) | Knows::ValueOrZero(value)) = *known;
                                *known = Knows::ValueOrZero(value);
                            }
                        }
                    }
                    6 => {
                        let end = (page + 6).min(PAGES + 4);
                        let advice = [Advice::PageOut, Advice::Cold, Advice::Populate][random(3)];
                        process.advise(page..end, advice).unwrap();
                    }
                    7 => {
                        machine.reclaim(8);
                    }
                    8 => {
                        let child = process.fork().unwrap();
                        let known = *known;
                        if family.len() == 3 {
                            family.remove(1);
                        }
                        family.push((child, known));
                    }
                    _ => {
                        machine.age();
                        if random(4) == 0 {
                            machine.unplug(far).unwrap();
                            machine.plug(far).unwrap();
                        }
                    }
                }
            }
            for (process, known) in &family {
                for (page, known) in known.iter().enumerate() {
                    let found = load(process, page);
                    assert!(
                        matches!(known, Knows::Value(value) if *value == found)
                            || matches!(known, Knows::ValueOrZero(value) if *value == found || found == 0),
                        "page {page} holds {found}, known {known:?}"
                    );
                }
            }
            assert!(machine.counters().freed_lazily > 0 && machine.counters().demoted > 0);
        });
    }
}
