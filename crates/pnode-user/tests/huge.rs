//! Huge mappings: one fault brings 2 MiB from one block, parts of it go their own way, and no byte is lost on the way.

mod support;

use pnode_core::policy::{Mode, Wish};
use pnode_core::{Features, MemoryClass, NodeId, NodeMask, Order, Request};
use pnode_user::machine::{
    Advice, Builder, Existing, Mapping, Place, Placement, Process, ProcessError, Rights,
};
use pnode_user::{Machine, NodeSpec};

use support::{ids, on_all};

const PAGE: usize = 4096;
const HUGE: usize = Machine::HUGE_PAGES;

fn builder() -> Builder {
    let far = Features::RECLAIM | Features::DEMOTION | Features::HOTUNPLUG;
    Machine::builder()
        .node(NodeSpec::ordinary(4096))
        .node(NodeSpec::ordinary(2048))
        .node(NodeSpec::private(MemoryClass::FAR, 256).features(far))
        .node(NodeSpec::private(MemoryClass::HBM, 1024))
        .swap(2048)
}

fn store(process: &Process, page: usize, value: u64) {
    process.write(page, 16, &value.to_le_bytes()).unwrap();
}

fn load(process: &Process, page: usize) -> u64 {
    let mut bytes = [0; 8];
    process.read(page, 16, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn number(place: Place) -> Option<u64> {
    match place {
        Place::Resident { pfn, .. } => Some(pfn.get()),
        _ => None,
    }
}

#[test]
fn one_fault_brings_a_block_and_parts_of_it_go_their_own_way() {
    on_all(builder, |machine| {
        let [near, _, far, _] = ids(machine);
        let process = machine.process(4 * HUGE, near).unwrap();
        let area = process.map(3 * HUGE, Rights::ReadWrite).unwrap();
        process.advise(area.clone(), Advice::Huge).unwrap();
        store(&process, HUGE + 77, 1);
        let first = number(process.place(HUGE)).unwrap();
        assert_eq!(first % HUGE as u64, 0);
        assert!((0..HUGE).all(|page| number(process.place(HUGE + page)) == Some(first + page as u64)));
        assert!(process.is_huge(HUGE + 5) && !process.is_huge(0));
        let counters = machine.counters();
        assert_eq!((counters.hard_faults, counters.huge_faults), (1, 1));
        assert_eq!(machine.free_frames(near), 4096 - HUGE as u64);
        assert!(process.view().mappings() <= 3, "one mapping shows all of it: {:?}", process.view());
        for page in HUGE..2 * HUGE {
            assert_eq!(load(&process, page), if page == HUGE + 77 { 1 } else { 0 });
            store(&process, page, page as u64);
        }
        assert_eq!(machine.counters().hard_faults, 1);
        // A part is unmapped, a part is protected, a part is given up, and a part goes to a lower tier and to swap.
        process.unmap(HUGE..HUGE + 10).unwrap();
        process.protect(HUGE + 10..HUGE + 20, Rights::Read).unwrap();
        process.advise(HUGE + 20..HUGE + 30, Advice::DontNeed).unwrap();
        process.advise(HUGE + 30..HUGE + 300, Advice::PageOut).unwrap();
        assert!(!process.is_huge(HUGE + 400));
        assert!((HUGE + 30..HUGE + 286).all(|page| process.place(page).is_resident_on(far)));
        assert!((HUGE + 286..HUGE + 300).all(|page| process.place(page) == Place::Swapped));
        assert!(
            (HUGE + 300..2 * HUGE)
                .all(|page| number(process.place(page)) == Some(first + (page - HUGE) as u64))
        );
        assert!(process.write(HUGE + 12, 0, &[1]).is_err());
        for page in HUGE + 10..2 * HUGE {
            let given_up = (HUGE + 20..HUGE + 30).contains(&page);
            assert_eq!(load(&process, page), if given_up { 0 } else { page as u64 }, "page {page}");
        }
        // A fork shares each page of it.
        let child = process.fork().unwrap();
        store(&child, 2 * HUGE - 1, 5);
        assert_eq!((load(&process, 2 * HUGE - 1), load(&child, 2 * HUGE - 1)), (2 * HUGE as u64 - 1, 5));
        // Without the advice pages are small.
        process.advise(0..HUGE, Advice::Small).unwrap();
        store(&process, 0, 1);
        assert_eq!((process.place(1), machine.counters().huge_faults), (Place::Untouched, 1));
    });
}

#[test]
fn a_huge_mapping_moves_as_a_whole_if_there_is_a_block() {
    on_all(builder, |machine| {
        let [near, other] = ids(machine);
        let memory = machine.map(2 * HUGE, near).unwrap();
        memory.advise_huge();
        for page in 0..2 * HUGE {
            memory.write(page * PAGE + 8, &(page as u64).to_le_bytes()).unwrap();
        }
        assert!(memory.is_huge(0) && memory.is_huge(HUGE));
        memory.migrate(100, other).unwrap();
        assert!(memory.is_huge(0) && (0..HUGE).all(|page| memory.place(page).is_resident_on(other)));
        assert!(memory.place(HUGE).is_resident_on(near));
        let counters = machine.counters();
        assert_eq!((counters.huge_moves, counters.migrated), (1, HUGE as u64));
        // No block is left there: the page goes alone, and the others stay.
        let request = Request::order(Order::new(9).unwrap()).prefer(other).this_node_only();
        let mut held: Vec<_> = std::iter::from_fn(|| machine.alloc(request).ok()).collect();
        machine.free(held.pop().unwrap()).unwrap();
        let single = machine.alloc(Request::page().prefer(other).this_node_only()).unwrap();
        memory.migrate(HUGE + 3, other).unwrap();
        assert!(memory.place(HUGE + 3).is_resident_on(other) && memory.place(HUGE + 4).is_resident_on(near));
        assert!(!memory.is_huge(HUGE));
        held.into_iter().chain([single]).for_each(|frame| machine.free(frame).unwrap());
        let mut word = [0; 8];
        for page in 0..2 * HUGE {
            memory.read(page * PAGE + 8, &mut word).unwrap();
            assert_eq!(u64::from_le_bytes(word), page as u64);
        }
        // Also when the node leaves from under it.
        machine.unplug(other).unwrap();
        memory.read(7 * PAGE + 8, &mut word).unwrap();
        assert_eq!((u64::from_le_bytes(word), memory.place(7).is_resident_on(near)), (7, true));
    });
}

#[test]
fn where_no_block_is_free_pages_are_small() {
    on_all(builder, |machine| {
        let [near, _, _, hbm] = ids(machine);
        // A driver's own mapping takes its node's blocks, and then its pages.
        let ring = machine.map_at(3 * HUGE, Placement::Owner(hbm)).unwrap();
        ring.advise_huge();
        let grant = machine.owner_grant(hbm).unwrap();
        let one = grant.alloc(Request::page()).unwrap();
        ring.write(0, &[1]).unwrap();
        ring.write(HUGE * PAGE, &[2]).unwrap();
        assert!(ring.is_huge(0) && !ring.is_huge(HUGE));
        let counters = machine.counters();
        assert_eq!((counters.huge_faults, counters.huge_refused), (1, 1));
        assert!(ring.place(HUGE).is_resident_on(hbm));
        machine.free(one).unwrap();
        drop(ring);
        assert_eq!(machine.free_frames(hbm), 1024);
        // A run that somebody touched a page of before, and one that ends behind the memory, are small, too.
        let process = machine.process(2 * HUGE, near).unwrap();
        process.map(HUGE + 100, Rights::ReadWrite).unwrap();
        store(&process, 3, 1);
        process.advise(0..HUGE + 100, Advice::Huge).unwrap();
        store(&process, 4, 1);
        store(&process, HUGE + 1, 1);
        assert!(!process.is_huge(0) && process.place(HUGE + 2) == Place::Untouched);
        let beyond = process.advise(0..2 * HUGE, Advice::Huge);
        assert_eq!(beyond, Err(ProcessError::NotMapped { page: HUGE + 100 }));
    });
}

/// Seeded steps compared with a word a page.
#[test]
fn no_byte_is_lost_whatever_becomes_of_huge_mappings() {
    let machines: [fn() -> Builder; 2] = [builder, tiers];
    for (seed, builder) in (11u64..).zip(machines.into_iter().cycle()).take(4) {
        println!("seed {seed}");
        on_all(builder, |machine| {
            let [near, other, far, _] = ids(machine);
            let mut state = seed;
            let mut random = move |below: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % below
            };
            let memory = machine.map(3 * HUGE, near).unwrap();
            memory.advise_huge();
            let mut words = vec![0u64; memory.pages()];
            let mut found = [0; 8];
            for step in 0..400 {
                let page = random(memory.pages());
                match random(9) {
                    0..=2 => {
                        words[page] = step + 1;
                        memory.write(page * PAGE, &words[page].to_le_bytes()).unwrap();
                    }
                    3 => {
                        memory.read(page * PAGE, &mut found).unwrap();
                        assert_eq!(u64::from_le_bytes(found), words[page], "step {step}, page {page}");
                    }
                    4 => memory.migrate(page, [near, other][random(2)]).unwrap(),
                    5 => {
                        let pages = [page..(page + 20).min(words.len()), 0..words.len()];
                        memory.demote(pages[random(2)].clone(), far).unwrap();
                    }
                    // Not every far tier opened the door.
                    7 => drop(memory.promote(page & !(HUGE - 1)..words.len(), far)),
                    6 => {
                        machine.reclaim(1 + random(64));
                    }
                    _ => {
                        machine.age();
                    }
                }
            }
            for (page, word) in words.iter().enumerate() {
                memory.read(page * PAGE, &mut found).unwrap();
                assert_eq!(u64::from_le_bytes(found), *word, "page {page}");
            }
            let counters = machine.counters();
            assert!(counters.huge_faults >= 2 && counters.huge_moves > 0, "{counters}");
        });
    }
}

/// Two ordinary nodes, a far tier with every door that moving takes, and a device that users may bind to.
fn tiers() -> Builder {
    let far = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION | Features::HOTUNPLUG;
    Machine::builder()
        .node(NodeSpec::ordinary(3072))
        .node(NodeSpec::ordinary(3072))
        .node(NodeSpec::private(MemoryClass::FAR, 2048).features(far))
        .node(NodeSpec::private(MemoryClass::HBM, 2048).features(Features::USER_NUMA | Features::HOTUNPLUG))
}

fn fill(memory: &Mapping) {
    memory.advise_huge();
    for page in 0..memory.pages() {
        memory.write(page * PAGE + 8, &(page as u64 + 1).to_le_bytes()).unwrap();
    }
}

#[track_caller]
fn holds(memory: &Mapping) {
    for page in 0..memory.pages() {
        let mut word = [0; 8];
        memory.read(page * PAGE + 8, &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), page as u64 + 1, "page {page}");
    }
}

#[track_caller]
fn is_whole_on(memory: &Mapping, node: NodeId) {
    for page in (0..memory.pages()).step_by(HUGE) {
        assert!(memory.is_huge(page) && memory.place(page).is_resident_on(node), "{:?}", memory.place(page));
    }
}

#[test]
fn a_huge_mapping_goes_to_private_memory_and_comes_back_whole() {
    on_all(tiers, |machine| {
        let [near, other, far, device] = ids(machine);
        let memory = machine.map(2 * HUGE, near).unwrap();
        fill(&memory);
        // By its drivers, in a circle through every kind of node.
        for node in [device, far, device, other, far, near] {
            for page in [7, HUGE + 9] {
                match machine.owner_grant(node) {
                    Ok(grant) => memory.migrate_with(page, &grant).unwrap(),
                    Err(_) => memory.migrate(page, node).unwrap(),
                }
            }
            is_whole_on(&memory, node);
            holds(&memory);
            is_whole_on(&memory, node);
        }
        assert_eq!(machine.counters().huge_moves, 12);
        // By tiering: demoted as asked, promoted as asked.
        assert_eq!(memory.demote(0..2 * HUGE, far).unwrap().pages, 2 * HUGE);
        is_whole_on(&memory, far);
        assert_eq!(memory.promote(0..2 * HUGE, far), Ok(2 * HUGE));
        is_whole_on(&memory, near);
        holds(&memory);
        // A part of it goes alone.
        assert_eq!(memory.demote(1..HUGE, far).unwrap().pages, HUGE - 1);
        assert!(memory.place(0).is_resident_on(near) && !memory.is_huge(0));
        holds(&memory);
    });
}

#[test]
fn reclaim_promotion_and_unplug_take_huge_mappings_whole() {
    on_all(tiers, |machine| {
        let [near, _, far, _] = ids(machine);
        let memory = machine.map(2 * HUGE, near).unwrap();
        fill(&memory);
        machine.age();
        // A page of the second one is hot, so all of it is.
        memory.read((HUGE + 3) * PAGE, &mut [0]).unwrap();
        assert_eq!(machine.reclaim(1), HUGE);
        assert!(memory.is_huge(0) && memory.place(0).is_resident_on(far));
        assert!(memory.is_huge(HUGE) && memory.place(HUGE).is_resident_on(near));
        holds(&memory);
        // It is hot now, and comes back whole.
        assert_eq!(machine.promote_hot(far, 1), Ok(HUGE));
        is_whole_on(&memory, near);
        machine.age();
        assert_eq!(machine.reclaim(2 * HUGE), 2 * HUGE);
        is_whole_on(&memory, far);
        assert_eq!(machine.unplug(far).unwrap().pages, 2 * HUGE);
        is_whole_on(&memory, near);
        holds(&memory);
        machine.plug(far).unwrap();
        // Where the tier has no block for it, its pages go one by one.
        let grant = machine.owner_grant(far).unwrap();
        let mut held: Vec<_> = std::iter::from_fn(|| grant.alloc(Request::page()).ok()).collect();
        (0..100).for_each(|_| machine.free(held.remove(0)).unwrap());
        machine.age();
        assert_eq!(machine.reclaim(60), 60);
        assert_eq!((0..2 * HUGE).filter(|page| memory.place(*page).is_resident_on(far)).count(), 60);
        holds(&memory);
        held.into_iter().for_each(|frame| machine.free(frame).unwrap());
    });
}

#[test]
fn policies_place_and_move_huge_mappings() {
    on_all(tiers, |machine| {
        let [near, other, _, device] = ids(machine);
        let process = machine.process(4 * HUGE, near).unwrap();
        let area = process.map(3 * HUGE, Rights::ReadWrite).unwrap();
        process.advise(area.clone(), Advice::Huge).unwrap();
        let bind = |node| Wish::new(Mode::Bind, NodeMask::of(node));
        // Bound to a private node: one fault there.
        process.mbind(0..HUGE, &bind(device), Existing::Stay).unwrap();
        store(&process, 5, 1);
        assert!(process.is_huge(5) && process.place(5).is_resident_on(device));
        assert_eq!((machine.counters().huge_faults, machine.policy_faults().hard), (1, 1));
        // The policy changes, and what is there follows, whole.
        process.mbind(0..HUGE, &bind(other), Existing::Move).unwrap();
        assert!(process.is_huge(5) && process.place(5).is_resident_on(other));
        // move_pages of one page, and migrate_pages of all, there and back in one call.
        store(&process, HUGE + 5, 2);
        assert!(process.is_huge(HUGE) && process.place(HUGE).is_resident_on(near));
        assert_eq!(process.move_pages(&[(HUGE + 5, device), (HUGE + 6, device)]), [Ok(device), Ok(device)]);
        assert!(process.is_huge(HUGE) && process.place(HUGE).is_resident_on(device));
        process.move_pages(&[(HUGE, near)]).into_iter().for_each(|moved| assert_eq!(moved, Ok(near)));
        let both = NodeMask::of(near).with(other);
        let swapped = NodeMask::of(other).with(near);
        assert_eq!(process.migrate_pages(&both, &swapped), (0, 0));
        assert_eq!(process.migrate_pages(&NodeMask::of(near), &NodeMask::of(other)), (HUGE, 0));
        assert!(process.is_huge(0) && process.is_huge(HUGE) && process.place(HUGE).is_resident_on(other));
        assert_eq!(machine.counters().huge_moves, 4);
        // A full bind brings no huge page from elsewhere: its pages are small, and then it fails.
        process.mbind(2 * HUGE..3 * HUGE, &bind(device), Existing::Stay).unwrap();
        let grant = machine.owner_grant(device).unwrap();
        let mut held: Vec<_> = std::iter::from_fn(|| grant.alloc(Request::page()).ok()).collect();
        machine.free(held.pop().unwrap()).unwrap();
        store(&process, 2 * HUGE, 3);
        assert!(!process.is_huge(2 * HUGE) && process.place(2 * HUGE).is_resident_on(device));
        assert!(process.write(2 * HUGE + 1, 0, &[1]).is_err());
        held.into_iter().for_each(|frame| machine.free(frame).unwrap());
        assert_eq!([5, HUGE + 5, 2 * HUGE].map(|page| load(&process, page)), [1, 2, 3]);
    });
}
