//! Keeping memory free and promoting hot pages: step by step, and by a thread under programs that touch their pages.

use std::time::Duration;

use pnode_core::{Denied, Features, MemoryClass, Reason};
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
