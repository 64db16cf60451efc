//! Soft and hard faults: the seed scenario, and what an observer can count.
#![allow(missing_docs)]

mod policy_world;

use std::collections::BTreeMap;

use pnode_core::policy::{
    FaultCounters, FaultCounts, FaultKind, Mode, Outcome, PolicyError, Ranges, Target, Wish,
};
use pnode_core::{Frame, PageOrigin, Placement, Policy};
use policy_world::{A, B, C, OPEN, World, id, mask};

/// A file's pages in memory: whoever touches one first places it.
struct PageCache {
    pages: BTreeMap<u64, Frame>,
}

impl PageCache {
    fn touch(&mut self, world: &World, page: u64, who: &Placement<'_>, observer: &FaultCounters) -> Outcome {
        let report = match self.pages.get(&page) {
            Some(frame) => who.soft(frame.node(), world.nodes.distances()),
            None => {
                let placed = world.nodes.place(who).unwrap();
                self.pages.insert(page, placed.frame);
                placed.report
            }
        };
        observer.count(&report);
        report.outcome()
    }
}

/// Process A reads a file; process B maps it, wants it on the private node and touches it.
#[test]
fn invariant_13_the_seed_scenario() {
    let world = World::of_two_and_two(OPEN, 16);
    let (nodes, mems) = (world.nodes, world.mems());
    let observer = FaultCounters::new();
    let mut file = PageCache { pages: BTreeMap::new() };
    let file_page = Placement::new(PageOrigin::PageCache, id(A)).mems(&mems);

    // A has no policy; all its faults are hard and nobody wanted the pages elsewhere.
    for page in 0..4 {
        assert_eq!(file.touch(&world, page, &file_page, &observer), Outcome::Unasked);
    }
    assert_eq!(observer.read(), FaultCounts { hard: 4, ..FaultCounts::default() });

    // B binds its mapping of the file: refused, with the reason.
    let wish = Wish::new(Mode::Bind, mask(&[C]));
    let refused = Policy::new(nodes, &wish, Target::Range(PageOrigin::PageCache), &mems);
    assert_eq!(refused, Err(PolicyError::PageCache { node: id(C) }));

    // B binds itself instead. Its soft faults find the pages elsewhere, and its hard ones do not ask its policy.
    let task = Policy::new(nodes, &wish, Target::Task, &mems).unwrap();
    let by_b = file_page.task(&task);
    for page in 0..6 {
        assert_eq!(file.touch(&world, page, &by_b, &observer), Outcome::Elsewhere);
    }
    assert!(file.pages.values().all(|frame| frame.node() == id(A)), "no soft fault moved a page");
    assert_eq!(world.used(C), 0, "no page of the file is on the private node");
    let counts = FaultCounts { hard: 6, soft: 4, hard_elsewhere: 2, soft_elsewhere: 4, failed: 0 };
    assert_eq!(observer.read(), counts);

    // The anonymous counterpart works.
    let anonymous = Policy::new(nodes, &wish, Target::Range(PageOrigin::PrivateAnonymous), &mems).unwrap();
    let page = Placement::new(PageOrigin::PrivateAnonymous, id(A)).range(&anonymous).mems(&mems);
    let placed = nodes.place(&page).unwrap();
    assert_eq!((placed.frame.node(), placed.report.outcome()), (id(C), Outcome::AsWanted));
    assert_eq!(placed.report.kind(), FaultKind::Hard);
    assert_eq!(placed.report.to_string(), "hard fault, page on node 2, as wanted");
    nodes.free(placed.frame).unwrap();
}

/// A range policy on a file mapping that is allowed, for it names ordinary nodes, still decides nothing; that shows too.
#[test]
fn a_hard_fault_of_the_page_cache_does_not_consult_the_mapping() {
    let world = World::of_two_and_two(OPEN, 4);
    let to_b = world.bind(&[B]);
    let page = Placement::new(PageOrigin::PageCache, id(A)).range(&to_b);
    let placed = world.nodes.place(&page).unwrap();
    assert_eq!(placed.frame.node(), id(A));
    assert_eq!(placed.report.outcome(), Outcome::Elsewhere);
    assert_eq!(placed.report.wanted().unwrap().first(), id(B));
    assert_eq!(placed.report.to_string(), "hard fault, page on node 0, wanted node 1");
    world.nodes.free(placed.frame).unwrap();
}

/// Two processes map one object and bind it differently: the object's own tree decides, whoever faults first.
#[test]
fn shared_anonymous_memory_follows_the_objects_tree() {
    let world = World::of_two_and_two(OPEN, 8);
    let mut slots = [None; 4];
    let mut tree = Ranges::new(&mut slots);
    let (to_b, to_c) = (world.bind(&[B]), world.bind(&[C]));
    tree.set(0..4, Some(to_b)).unwrap();
    tree.set(2..3, Some(to_c)).unwrap();
    for (page, expected) in [(0, B), (2, C), (3, B), (7, A)] {
        let object = tree.get(page).unwrap_or_default();
        // The mapping that faults first has other ideas.
        let shared = Placement::new(PageOrigin::SharedAnonymous, id(A)).object(&object).range(&to_c);
        let placed = world.nodes.place(&shared).unwrap();
        assert_eq!(placed.frame.node(), id(expected), "page {page}");
        let second = shared.soft(placed.frame.node(), world.nodes.distances());
        let got = if page == 7 { Outcome::Elsewhere } else { Outcome::AsWanted };
        assert_eq!((second.kind(), second.outcome()), (FaultKind::Soft, got));
        world.nodes.free(placed.frame).unwrap();
    }
}

#[test]
fn what_a_policy_wanted() {
    let world = World::of_two_and_two(OPEN, 4);
    let wanted = |policy: &Policy, cpu: u16| {
        let page = Placement::new(PageOrigin::PrivateAnonymous, id(cpu)).range(policy).turn(1);
        page.wanted(world.nodes.distances()).map(|w| (w.first().get(), policy_world::numbers(w.any())))
    };
    assert_eq!(wanted(&Policy::DEFAULT, B), None);
    assert_eq!(wanted(&Policy::LOCAL, B), Some((B, vec![B])));
    assert_eq!(wanted(&world.bind(&[B]), A), Some((B, vec![B])));
    assert_eq!(wanted(&world.bind(&[B, C]), A), Some((B, vec![B, C])));
    assert_eq!(wanted(&world.bind(&[B, C]), C), Some((C, vec![B, C])));
    assert_eq!(wanted(&world.set(Mode::PreferredMany, &[A, B]).unwrap(), B), Some((B, vec![A, B])));
    assert_eq!(wanted(&world.set(Mode::Preferred, &[B, C]).unwrap(), A), Some((B, vec![B])));
    assert_eq!(wanted(&world.set(Mode::Interleave, &[A, B]).unwrap(), A), Some((B, vec![B])));
}

#[test]
fn failures_are_counted() {
    let world = World::of_two_and_two(OPEN, 1);
    let observer = FaultCounters::default();
    let bind = world.bind(&[C]);
    let page = Placement::new(PageOrigin::PrivateAnonymous, id(A)).range(&bind);
    let placed = world.nodes.place(&page).unwrap();
    observer.count(&placed.report);
    if world.nodes.place(&page).is_err() {
        observer.count_failure();
    }
    assert_eq!(observer.read(), FaultCounts { hard: 1, failed: 1, ..FaultCounts::default() });
    world.nodes.free(placed.frame).unwrap();
}
