//! Keeping memory free and promoting hot pages: step by step, and by a thread under programs that touch their pages.

use std::time::Duration;

use pnode_core::{AllocError, Denied, Depth, Features, MemoryClass, Order, Reason, Request, Watermarks};
use pnode_user::machine::BuildError;
use pnode_user::machine::{KeepFree, Mapping, Placement};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;
const TIER: Features = Features::RECLAIM.union(Features::DEMOTION).union(Features::PROMOTION);

fn machine() -> Machine {
    Machine::builder()
        .node(NodeSpec::ordinary(64))
        .node(NodeSpec::private(MemoryClass::FAR, 128).features(TIER))
        .node(NodeSpec::private(MemoryClass::DEVICE_BUFFER, 16))
        .build()
        .unwrap()
}

fn fill(memory: &Mapping, pages: usize, value: u8) {
    (0..pages).for_each(|page| memory.write(page * PAGE, &[page as u8 ^ value; PAGE]).unwrap());
}

fn check(memory: &Mapping, pages: usize, value: u8) {
    for page in 0..pages {
        let mut bytes = [0; PAGE];
        memory.read(page * PAGE, &mut bytes).unwrap();
        assert_eq!(bytes, [page as u8 ^ value; PAGE], "page {page}");
    }
}

#[test]
fn a_step_frees_what_is_cold_and_brings_back_what_is_hot() {
    let machine = machine();
    let [dram, far, card] = [0, 1, 2].map(|number| machine.node(number).unwrap());
    let keep = KeepFree { low: 8, high: 24 };
    let memory = machine.map(60, dram).unwrap();
    fill(&memory, 50, 1);
    assert_eq!(machine.balance(dram, keep), 0, "14 frames are free");
    fill(&memory, 60, 1);
    machine.age();
    // The last twenty are hot.
    (40..60).for_each(|page| memory.read(page * PAGE, &mut [0]).unwrap());
    assert_eq!(machine.balance(dram, keep), 20);
    assert_eq!(machine.free_frames(dram), 24);
    assert_eq!(machine.balance(dram, keep), 0, "enough is free");
    let on_far = |memory: &Mapping| (0..60).filter(|page| memory.place(*page).is_resident_on(far)).count();
    assert_eq!(on_far(&memory), 20);
    assert!((40..60).all(|page| memory.place(page).is_resident_on(dram)), "hot pages stay");

    machine.age();
    let cold: Vec<usize> = (0..60).filter(|page| memory.place(*page).is_resident_on(far)).collect();
    cold[..5].iter().for_each(|page| memory.read(page * PAGE, &mut [0]).unwrap());
    assert_eq!(machine.promote_hot(far, 3), Ok(3));
    assert_eq!(machine.promote_hot(far, 100), Ok(2));
    assert_eq!(machine.promote_hot(far, 100), Ok(0), "nobody touched the others");
    assert_eq!(on_far(&memory), 15);
    assert!(matches!(machine.promote_hot(card, 1), Err(Denied::NotOpened { reason: Reason::Promotion, .. })));
    check(&memory, 60, 1);
    let ring = machine.map_at(4, Placement::Owner(card)).unwrap();
    fill(&ring, 4, 9);
    machine.age();
    machine.balance(dram, KeepFree { low: 64, high: 64 });
    assert_eq!(machine.free_frames(card), 12, "a node whose doors are shut is not looked at");
    check(&ring, 4, 9);
    machine.audit().unwrap();
}

#[test]
fn a_thread_keeps_memory_free_under_a_program_and_loses_nothing() {
    let machine = machine();
    let [dram, far] = [0, 1].map(|number| machine.node(number).unwrap());
    let background = machine.background(KeepFree { low: 16, high: 32 }, Duration::from_millis(1)).unwrap();
    let memory = machine.map(100, dram).unwrap();
    // As many rounds as the thread needs to have its turns: on a busy machine those are many thousands. The values repeat
    // after 256 of them, so a page that is 256 rounds old would not be noticed, and one that is a round old is.
    let values = (0..=u8::MAX).cycle();
    for (round, value) in values.enumerate() {
        fill(&memory, 100, value);
        check(&memory, 100, value);
        if round >= 4 && machine.counters().promoted_hot >= 20 {
            drop(background);
            check(&memory, 100, value);
            break;
        }
    }
    assert!(machine.counters().demoted > 0 && machine.free_frames(far) < 128);
    machine.audit().unwrap();
}

fn marks(min: u64, low: u64, high: u64) -> Watermarks {
    Watermarks::new(min, low, high).unwrap()
}

#[test]
fn requests_stop_at_the_watermarks_of_a_node() {
    let machine = Machine::builder()
        .node(NodeSpec::ordinary(64).watermarks(marks(4, 8, 16)))
        .node(NodeSpec::ordinary(32))
        .node(NodeSpec::private(MemoryClass::DEVICE_BUFFER, 16).watermarks(marks(2, 2, 3)))
        .build()
        .unwrap();
    let [near, other, card] = [0, 1, 2].map(|number| machine.node(number).unwrap());
    assert_eq!(machine.watermarks(near), marks(4, 8, 16));
    assert_eq!(machine.watermarks(other), Watermarks::NONE);
    let no_memory = AllocError::NoMemory { order: Order::ZERO };
    // Twice: the marks hold again when the node was away.
    for _ in 0..2 {
        let request = Request::page().prefer(near);
        let mut taken = Vec::new();
        while let Ok(frame) = machine.alloc(request) {
            // At the low mark of the first node requests go to the other; when that is full, down to the min mark.
            let expected = if (56..88).contains(&taken.len()) { other } else { near };
            assert_eq!(frame.node(), expected, "block {}", taken.len());
            taken.push(frame);
        }
        assert_eq!([near, other].map(|node| machine.free_frames(node)), [4, 0]);
        let emergency = request.depth(Depth::Emergency);
        taken.extend((0..4).map(|_| machine.alloc(emergency).unwrap()));
        assert_eq!(machine.alloc(emergency).unwrap_err(), no_memory);

        let grant = machine.owner_grant(card).unwrap();
        taken.extend((0..14).map(|_| grant.alloc(Request::page()).unwrap()));
        assert_eq!(grant.alloc(Request::page()).unwrap_err(), no_memory);
        taken.push(grant.alloc(Request::page().depth(Depth::Emergency)).unwrap());
        drop(grant);

        taken.into_iter().for_each(|frame| machine.free(frame).unwrap());
        machine.audit().unwrap();
        for node in [near, card] {
            machine.unplug(node).unwrap();
            machine.plug(node).unwrap();
        }
    }
}

#[test]
fn reclaim_keeps_a_node_between_its_own_watermarks() {
    let machine = Machine::builder()
        .node(NodeSpec::ordinary(64).watermarks(marks(4, 8, 20)))
        .node(NodeSpec::private(MemoryClass::FAR, 128).features(TIER))
        .build()
        .unwrap();
    let dram = machine.node(0).unwrap();
    let nothing = KeepFree { low: 0, high: 0 };
    let memory = machine.map(60, dram).unwrap();
    fill(&memory, 56, 3);
    machine.background_step(nothing);
    assert_eq!(machine.free_frames(dram), 8, "the low watermark is not passed");
    fill(&memory, 57, 3);
    machine.background_step(nothing);
    assert_eq!(machine.free_frames(dram), 20, "reclaim goes on to the high watermark");
    assert_eq!(machine.balance(dram, machine.watermarks(dram).into()), 0);
    // A program never gets what is kept for emergencies: its faults reclaim before.
    let more = machine.map(60, dram).unwrap();
    for page in 0..60 {
        more.write(page * PAGE, &[page as u8 ^ 4; PAGE]).unwrap();
        assert!(machine.free_frames(dram) >= 4, "page {page}");
    }
    check(&memory, 57, 3);
    check(&more, 60, 4);
    machine.audit().unwrap();
}

#[test]
fn watermarks_that_leave_nothing_are_refused() {
    let build = |spec| Machine::builder().node(spec).build().map(|_| ()).unwrap_err();
    let refused = build(NodeSpec::ordinary(16).watermarks(marks(1, 2, 16)));
    assert!(matches!(refused, BuildError::Watermarks { frames: 16, .. }), "{refused}");
    let reserve = marks(1, 2, 3).with_lowmem_reserve(14).unwrap();
    let refused = build(NodeSpec::ordinary(16).watermarks(reserve));
    assert!(matches!(refused, BuildError::Watermarks { .. }), "{refused}");
    let refused = build(NodeSpec::compressed(32, 64).watermarks(marks(1, 2, 3)));
    assert!(matches!(refused, BuildError::StoreWatermarks { .. }), "{refused}");
}
