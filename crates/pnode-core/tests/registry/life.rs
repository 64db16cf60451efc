//! Every step of a node's life, in and out of order: all sequences of up to a few steps, each compared with the rules.

use pnode_core::{Depth, Features, MigrateType, Order, Reason, Watermarks};

use super::real::check;
use super::rules::Rules;
use super::step::{Ask, Outcome, Step, Who};

/// One frame from the nearest node.
fn page() -> Ask {
    Ask {
        preferred: None,
        mask: None,
        this_node_only: false,
        depth: Depth::Min,
        order: Order::ZERO,
        migrate: MigrateType::Movable,
        below: None,
    }
}

/// The steps of one private node with two ranges. Handles are numbered as they are made, so 0 is the node's first owner,
/// and stale in its second life.
fn steps() -> Vec<Step> {
    let features = (Features::DEMOTION | Features::RECLAIM | Features::HOTUNPLUG).bits();
    let marks = Watermarks::NONE;
    vec![
        Step::Register { node: 1, who: Who::Private(1), features },
        Step::Register { node: 1, who: Who::Ordinary(0), features: 0 },
        Step::Join { handle: 0, class: 1, features },
        Step::Online { handle: 0, zone: 0, marks },
        Step::Online { handle: 0, zone: 3, marks },
        Step::Close { handle: 0, zone: 3 },
        Step::Reopen { handle: 0, zone: 3 },
        Step::Offline { handle: 0, zone: 0 },
        Step::Offline { handle: 0, zone: 3 },
        Step::Serve { handle: 0 },
        Step::EndService { handle: 0 },
        Step::Drain { handle: 0 },
        Step::Resume { handle: 0 },
        Step::OwnerGrant { handle: 0 },
        Step::Grant { node: 1, reason: Reason::Demotion },
        Step::Grant { node: 1, reason: Reason::HotUnplug },
        Step::DropGrant { grant: 0 },
        Step::GrantAlloc { grant: 0, ask: page() },
        Step::Alloc { ask: Ask { preferred: Some(1), this_node_only: true, ..page() } },
        Step::Free { block: 0 },
        Step::Unregister { handle: 0 },
        Step::Unregister { handle: 1 },
    ]
}

/// Tries every step after every sequence of up to `length` steps that happen. A step that is refused changes nothing,
/// which the check sees, so nothing new comes after it.
fn every_life(life: &mut Vec<Step>, rules: &Rules, steps: &[Step], length: usize, tried: &mut u64) {
    let mut all = life.clone();
    let mut happened = Vec::new();
    for step in steps {
        let mut rules = rules.clone();
        match rules.step(step) {
            Outcome::Refused(_) | Outcome::NobodyThere => all.push(step.clone()),
            _ => happened.push((step, rules)),
        }
    }
    // All refused ones in a row: each leaves the world as the next one wants it.
    check(&all);
    *tried += (all.len() - life.len()) as u64;
    for (step, rules) in happened {
        life.push(step.clone());
        *tried += 1;
        if length > 1 {
            every_life(life, &rules, steps, length - 1, tried);
        } else {
            check(life);
        }
        life.pop();
    }
}

#[test]
fn every_short_life_follows_the_rules() {
    // Miri takes a thousand times as long for a step.
    let (length, least) = if cfg!(miri) { (2, 30) } else { (6, 100_000) };
    let mut tried = 0;
    every_life(&mut Vec::new(), &Rules::default(), &steps(), length, &mut tried);
    println!("{tried} steps tried");
    assert!(tried > least, "{tried}");
}
