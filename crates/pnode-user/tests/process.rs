//! Processes under a data oracle: whatever mapping, protecting, moving, forking and reclaim do, each process sees its own
//! bytes and nothing else.

mod support;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pnode_core::policy::{Mode, MoveDenied, PolicyError, Wish};
use pnode_core::{Features, MemoryClass, NodeId, NodeMask};
use pnode_user::fault::FaultError;
use pnode_user::machine::{Advice, Builder, Existing, MovePageError, Place, Process, ProcessError, Rights};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;

/// On all backends; the test gives every frame back, but for those that a compressed node holds.
fn on_all(builder: impl Fn() -> Builder, test: impl Fn(&Machine)) {
    support::on_all(builder, |machine| {
        test(machine);
        assert!(machine.nodes().all(|node| {
            machine.compressed(node).is_some() || machine.free_frames(node) == machine.frames(node)
        }));
    });
}

fn id(machine: &Machine, number: u16) -> NodeId {
    machine.node(number).unwrap()
}

/// The first and the last word of a page, which the tests write alike.
fn store(process: &Process, page: usize, value: u64) -> Result<(), FaultError> {
    process.write(page, 0, &value.to_le_bytes())?;
    process.write(page, PAGE - 8, &value.to_le_bytes())
}

fn load(process: &Process, page: usize) -> Result<u64, FaultError> {
    let mut words = [[0; 8]; 2];
    process.read(page, 0, &mut words[0])?;
    process.read(page, PAGE - 8, &mut words[1])?;
    assert_eq!(words[0], words[1], "page {page} is torn");
    Ok(u64::from_le_bytes(words[0]))
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }

    fn range(&mut self, pages: usize) -> Range<usize> {
        let start = self.below(pages);
        start..start + 1 + self.below((pages - start).min(12))
    }
}

/// A process and what it must see: rights and value of each page.
struct Modelled {
    process: Process,
    pages: Vec<Option<(Rights, u64)>>,
}

impl Modelled {
    fn check(&self, page: usize) {
        let expected = match self.pages[page] {
            None | Some((Rights::None, _)) => Err(FaultError::NotMapped),
            Some((_, value)) => Ok(value),
        };
        assert_eq!(load(&self.process, page), expected, "page {page}");
    }

    fn step(&mut self, random: &mut Random, value: u64) {
        let (process, pages) = (&self.process, &mut self.pages);
        let range = random.range(pages.len());
        let is_mapped = pages[range.clone()].iter().all(Option::is_some);
        match random.below(9) {
            0 => {
                let rights = [Rights::ReadWrite, Rights::ReadWrite, Rights::Read][random.below(3)];
                match process.map(range.len(), rights) {
                    Ok(room) => {
                        assert_eq!(room.len(), range.len());
                        assert!(pages[room.clone()].iter().all(Option::is_none));
                        pages[room].fill(Some((rights, 0)));
                    }
                    Err(error) => {
                        assert_eq!(error, ProcessError::NoRoom { pages: range.len() });
                        assert!(pages.windows(range.len()).all(|run| run.iter().any(Option::is_some)));
                    }
                }
            }
            1 if random.below(3) == 0 => {
                process.unmap(range.clone()).unwrap();
                pages[range].fill(None);
            }
            2 => {
                let rights = [Rights::ReadWrite, Rights::Read, Rights::None][random.below(3)];
                let gap = range.clone().find(|page| pages[*page].is_none());
                let result = process.protect(range.clone(), rights);
                assert_eq!(result, gap.map_or(Ok(()), |page| Err(ProcessError::NotMapped { page })));
                if is_mapped {
                    pages[range].iter_mut().flatten().for_each(|(old, _)| *old = rights);
                }
            }
            3 if is_mapped => {
                let advice =
                    [Advice::DontNeed, Advice::Cold, Advice::Populate, Advice::PageOut][random.below(4)];
                let forbidden = range.clone().find(|page| matches!(pages[*page], Some((Rights::None, _))));
                let result = process.advise(range.clone(), advice);
                match (advice, forbidden) {
                    // Only what is there already needs no right.
                    (Advice::Populate, Some(_)) => {}
                    _ => assert_eq!(result, Ok(()), "{advice:?}"),
                }
                if advice == Advice::DontNeed {
                    pages[range].iter_mut().flatten().for_each(|(_, value)| *value = 0);
                }
            }
            4 if is_mapped => {
                let count = 1 + random.below(16);
                if let Ok(now) = process.remap(range.clone(), count) {
                    assert_eq!(now.len(), count);
                    let old: Vec<_> = pages[range.clone()].to_vec();
                    let rights = old[0].unwrap().0;
                    pages[range].fill(None);
                    for (index, page) in now.enumerate() {
                        assert!(pages[page].is_none(), "page {page} was somebody's");
                        pages[page] = old.get(index).copied().unwrap_or(Some((rights, 0)));
                    }
                }
            }
            _ => {
                let page = range.start;
                let written = store(process, page, value);
                match &mut pages[page] {
                    None | Some((Rights::None, _)) => assert_eq!(written, Err(FaultError::NotMapped)),
                    Some((Rights::Read, _)) => assert_eq!(written, Err(FaultError::ReadOnly)),
                    Some((Rights::ReadWrite, now)) => {
                        written.unwrap();
                        *now = value;
                    }
                }
            }
        }
    }
}

#[test]
fn forks_and_changes_keep_every_process_to_its_own_bytes() {
    const PAGES: usize = 64;
    let builder = || Machine::builder().node(NodeSpec::ordinary(400)).node(NodeSpec::compressed(64, 256));
    on_all(builder, |machine| {
        let seed = 0xf0_u64;
        println!("seed {seed:#x} on {:?}", machine.faults());
        let mut random = Random(seed);
        let first = machine.process(PAGES, id(machine, 0)).unwrap();
        let mut family = vec![Modelled { process: first, pages: vec![None; PAGES] }];
        for step in 1..6000u64 {
            let who = random.below(family.len());
            match random.below(40) {
                0 if family.len() < 6 => {
                    let (process, pages) = (family[who].process.fork().unwrap(), family[who].pages.clone());
                    family.push(Modelled { process, pages });
                }
                1 if family.len() > 1 => drop(family.swap_remove(who)),
                2 => {
                    machine.age();
                    machine.reclaim(random.below(40));
                }
                _ => family[who].step(&mut random, step),
            }
            let who = &family[random.below(family.len())];
            who.check(random.below(PAGES));
            if step % 500 == 0 {
                family.iter().for_each(|process| (0..PAGES).for_each(|page| process.check(page)));
                machine.audit().unwrap();
            }
        }
        let counters = machine.counters();
        assert!(counters.copied_on_write > 100 && counters.taken_over > 10, "{counters}");
        assert!(counters.demoted > 10, "{counters}");
    });
}

#[test]
fn thirty_two_children_share_what_nobody_wrote() {
    on_all(
        || Machine::builder().node(NodeSpec::ordinary(200)),
        |machine| {
            let dram = id(machine, 0);
            let parent = machine.process(100, dram).unwrap();
            let heap = parent.map(100, Rights::ReadWrite).unwrap();
            heap.clone().for_each(|page| store(&parent, page, page as u64).unwrap());
            let children: Vec<_> = (0..32).map(|_| parent.fork().unwrap()).collect();
            for child in &children {
                heap.clone().for_each(|page| assert_eq!(load(child, page), Ok(page as u64)));
            }
            assert_eq!(machine.free_frames(dram), 100, "33 processes, one copy");
            for (index, child) in children.iter().enumerate() {
                store(child, index, 1000 + index as u64).unwrap();
            }
            assert_eq!(machine.free_frames(dram), 100 - 32);
            heap.for_each(|page| assert_eq!(load(&parent, page), Ok(page as u64)));
            assert_eq!(parent.numa_maps().areas[0].shared, 100);
            for (index, child) in children.iter().enumerate() {
                assert_eq!(load(child, index), Ok(1000 + index as u64));
                assert_eq!(load(child, index + 1), Ok(index as u64 + 1));
            }
            machine.audit().unwrap();
            drop(children);
            assert_eq!(machine.free_frames(dram), 100);
            store(&parent, 0, 7).unwrap();
            assert_eq!(machine.counters().copied_on_write, 32, "the last one takes the page over");
        },
    );
}

#[test]
fn threads_fork_write_and_move_at_once() {
    on_all(
        || Machine::builder().node(NodeSpec::ordinary(300)).node(NodeSpec::ordinary(300)),
        |machine| {
            const PAGES: usize = 24;
            let [near, far] = [0, 1].map(|number| id(machine, number));
            let root = machine.process(PAGES, near).unwrap();
            root.map(PAGES, Rights::ReadWrite).unwrap();
            (0..PAGES).for_each(|page| store(&root, page, 1).unwrap());
            let stop = &AtomicBool::new(false);
            thread::scope(|scope| {
                for writer in 0..3u64 {
                    let root = &root;
                    scope.spawn(move || {
                        for round in 0..30u64 {
                            let child = root.fork().unwrap();
                            let before: Vec<_> = (0..PAGES).map(|page| load(&child, page).unwrap()).collect();
                            for page in (0..PAGES).filter(|page| page % 3 != 0) {
                                store(&child, page, 1000 * writer + round).unwrap();
                            }
                            let grandchild = child.fork().unwrap();
                            store(&child, 1, 5).unwrap();
                            drop(child);
                            for (page, before) in before.iter().enumerate() {
                                let expected = if page % 3 == 0 { *before } else { 1000 * writer + round };
                                assert_eq!(load(&grandchild, page), Ok(expected));
                            }
                        }
                        stop.store(true, Ordering::Relaxed);
                    });
                }
                // Pages move under all of them.
                while !stop.load(Ordering::Relaxed) {
                    let moves: Vec<_> = (0..PAGES).map(|page| (page, far)).collect();
                    root.move_pages(&moves);
                    root.migrate_pages(&NodeMask::of(far), &NodeMask::of(near));
                    machine.age();
                }
            });
            (0..PAGES).for_each(|page| assert_eq!(load(&root, page), Ok(1)));
        },
    );
}

#[test]
fn a_node_that_leaves_takes_no_shared_page_along() {
    let builder = || {
        let hbm = NodeSpec::private(MemoryClass::HBM, 64).features(Features::USER_NUMA | Features::HOTUNPLUG);
        Machine::builder().node(NodeSpec::ordinary(200)).node(hbm)
    };
    on_all(builder, |machine| {
        let [dram, hbm] = [0, 1].map(|number| id(machine, number));
        let parent = machine.process(40, dram).unwrap();
        let heap = parent.map(20, Rights::ReadWrite).unwrap();
        let bind = Wish::new(Mode::Bind, NodeMask::of(hbm));
        parent.mbind(heap.clone(), &bind, Existing::Stay).unwrap();
        heap.clone().for_each(|page| store(&parent, page, page as u64).unwrap());
        let child = parent.fork().unwrap();
        store(&child, 3, 33).unwrap();
        assert!(heap.clone().all(|page| child.place(page).is_resident_on(hbm)), "policies are inherited");
        assert_eq!(machine.unplug(hbm).unwrap().pages, 21);
        for page in heap.clone() {
            assert_eq!(load(&parent, page), Ok(page as u64));
            assert_eq!(load(&child, page), Ok(if page == 3 { 33 } else { page as u64 }));
            assert!(child.place(page).is_resident_on(dram));
        }
        // The bind is void, also when the id is taken again.
        machine.plug(hbm).unwrap();
        child.advise(heap.clone(), Advice::DontNeed).unwrap();
        store(&child, 0, 1).unwrap();
        assert!(child.place(0).is_resident_on(dram));
    });
}

#[test]
fn policies_place_and_consent_is_asked_for() {
    let open = Features::USER_NUMA;
    let builder = || {
        Machine::builder()
            .node(NodeSpec::ordinary(64))
            .node(NodeSpec::ordinary(64))
            .node(NodeSpec::private(MemoryClass::HBM, 16).features(open))
            .node(NodeSpec::private(MemoryClass::DEVICE_BUFFER, 16))
    };
    on_all(builder, |machine| {
        let [near, far, hbm, card] = [0, 1, 2, 3].map(|number| id(machine, number));
        let process = machine.process(200, near).unwrap();
        let area = process.map(100, Rights::ReadWrite).unwrap();
        let wish = |mode, nodes: &[NodeId]| Wish::new(mode, nodes.iter().copied().collect());

        let refused = process.mbind(area.clone(), &wish(Mode::Bind, &[card]), Existing::Stay);
        assert_eq!(refused, Err(ProcessError::Policy(PolicyError::NotConsenting { node: card })));
        // All of them, but only those that take part.
        process.set_mempolicy(&wish(Mode::Interleave, &[near, far, hbm, card])).unwrap();
        (0..20).for_each(|page| store(&process, page, 1).unwrap());
        let on = |pages: Range<usize>, node| {
            pages.filter(|page| process.place(*page).is_resident_on(node)).count()
        };
        assert_eq!((on(0..20, near), on(0..20, far)), (10, 10));

        // A bind moves what is there, holds, and ends in an error of its own.
        assert_eq!(process.mbind(0..10, &wish(Mode::Bind, &[hbm]), Existing::Move), Ok(10));
        assert_eq!(on(0..10, hbm), 10);
        process.mbind(20..40, &wish(Mode::Bind, &[hbm]), Existing::Move).unwrap();
        (20..26).for_each(|page| store(&process, page, 2).unwrap());
        assert!(
            matches!(store(&process, 26, 2), Err(FaultError::NoPlace(_))),
            "the node is full, and a bind spills nowhere"
        );
        (0..20).for_each(|page| assert_eq!(load(&process, page), Ok(1)));
        let counts = machine.policy_faults();
        assert_eq!((counts.hard_elsewhere, counts.failed > 0), (0, true));

        // move_pages: no door, no move.
        let moved = process.move_pages(&[(10, far), (11, far), (12, hbm), (13, card), (90, far), (0, near)]);
        assert_eq!(moved[..2], [Ok(far), Ok(far)]);
        assert!(matches!(moved[2], Err(MovePageError::NoFrame(_))), "{moved:?}");
        assert_eq!(moved[3], Err(MovePageError::Rule(MoveDenied::To { node: card })));
        assert_eq!(moved[4], Err(MovePageError::NotThere));
        assert_eq!(moved[5], Ok(near), "off the private node, which is open to users");
        let (there, stayed) = process.migrate_pages(&NodeMask::of(far), &NodeMask::of(near));
        assert_eq!((on(10..20, near), stayed), (10, 0));
        assert!(there > 0);

        // A cpuset narrows what comes from now on.
        process.set_cpuset(&NodeMask::of(far)).unwrap();
        (50..60).for_each(|page| store(&process, page, 3).unwrap());
        assert_eq!(on(50..60, far), 10);
        assert!(!process.cpuset().contains(near));

        let maps = process.numa_maps();
        assert_eq!(maps.areas.iter().map(|area| area.on[2]).sum::<usize>(), on(0..100, hbm));
        assert!(maps.to_string().contains("N1="), "{maps}");
    });
}

#[test]
fn ranges_that_are_wrong_change_nothing() {
    on_all(
        || Machine::builder().node(NodeSpec::ordinary(64)),
        |machine| {
            let process = machine.process(20, id(machine, 0)).unwrap();
            let area = process.map(10, Rights::ReadWrite).unwrap();
            store(&process, 5, 5).unwrap();
            let empty = Range { start: 3, end: 3 };
            assert_eq!(process.map(0, Rights::Read), Err(ProcessError::Empty));
            assert_eq!(process.map(11, Rights::Read), Err(ProcessError::NoRoom { pages: 11 }));
            assert_eq!(process.unmap(empty.clone()), Err(ProcessError::Empty));
            assert_eq!(process.unmap(5..21), Err(ProcessError::NotMapped { page: 20 }));
            assert_eq!(process.protect(5..11, Rights::Read), Err(ProcessError::NotMapped { page: 10 }));
            assert_eq!(process.advise(9..11, Advice::DontNeed), Err(ProcessError::NotMapped { page: 10 }));
            assert_eq!(process.remap(0..5, 0), Err(ProcessError::Empty));
            assert_eq!(process.remap(area.clone(), 30), Err(ProcessError::NoRoom { pages: 30 }));
            process.protect(0..2, Rights::Read).unwrap();
            assert_eq!(process.remap(0..5, 8), Err(ProcessError::SeveralAreas { page: 2 }));
            assert_eq!(process.areas(), [(0..2, Rights::Read), (2..10, Rights::ReadWrite)]);
            assert_eq!(load(&process, 5), Ok(5));
            assert_eq!(process.place(19), Place::Untouched);
            assert_eq!(process.read(usize::MAX, 1, &mut [0]), Err(FaultError::NotMapped));
            // Growing in place, and elsewhere.
            assert_eq!(process.remap(4..10, 12), Ok(4..16));
            let moved = process.remap(2..8, 3).unwrap();
            assert_eq!((moved.clone(), load(&process, 5)), (2..5, Err(FaultError::NotMapped)));
        },
    );
}
