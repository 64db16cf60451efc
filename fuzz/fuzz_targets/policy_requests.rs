//! Worlds, policies and what is placed by them, compared page by page with the rules that the tests of pnode-core spell out a second time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pnode_core::Features;
use pnode_core::policy::{Mode, Numbering};

#[path = "../../crates/pnode-core/tests/policy_model/history.rs"]
mod history;
#[path = "../../crates/pnode-core/tests/policy_world/mod.rs"]
mod policy_world;
#[path = "../../crates/pnode-core/tests/policy_model/rules.rs"]
mod rules;

use history::{History, Step};
use policy_world::{CLOSED, IDS, Kind, OPEN};
use rules::Set;

/// Bytes of a step, and how many steps an input may have.
const STEP: usize = 6;
const STEPS: usize = 40;

/// Bytes before the first step: a kind and a weight a node, the distances, and the frames of a node.
const WORLD: usize = 2 * IDS + IDS * IDS + 1;

fuzz_target!(|bytes: &[u8]| {
    let Some((world, steps)) = bytes.split_at_checked(WORLD) else { return };
    let (kinds, rest) = world.split_at(IDS);
    let (weights, rest) = rest.split_at(IDS);
    let (distances, frames) = rest.split_at(IDS * IDS);
    let distance = |(place, byte): (usize, &u8)| if place % (IDS + 1) == 0 { 10 } else { 11 + byte % 3 };
    History {
        kinds: kinds.iter().map(|byte| kind(*byte)).collect(),
        table: distances.iter().enumerate().map(distance).collect(),
        frames: 1 + u64::from(frames[0] % 2),
        weights: weights.iter().map(|byte| byte % 4).collect(),
        steps: steps.chunks_exact(STEP).take(STEPS).map(step).collect(),
    }
    .check();
});

fn kind(byte: u8) -> Kind {
    match byte % 8 {
        0..3 => Kind::Ordinary,
        3..6 => OPEN,
        6 => CLOSED,
        _ => Kind::Private(Features::USER_NUMA | Features::RECLAIM),
    }
}

fn set(byte: u8) -> Set {
    (0..IDS as u16).filter(|number| byte >> number & 1 == 1).collect()
}

fn node(byte: u8) -> u16 {
    u16::from(byte) % IDS as u16
}

/// What is done, from which node's CPU a page is asked for then, and at which turn.
fn step(bytes: &[u8]) -> (Step, u16, u64) {
    let &[what, one, two, three, cpu, turn] = bytes else { unreachable!("chunks of {STEP}") };
    let step = match what % 16 {
        0 => Step::Leave(node(one)),
        1..3 => Step::Join(node(one), kind(two)),
        3 => Step::Drain(node(one)),
        4 => Step::Resume(node(one)),
        5 => Step::Group(set(one)),
        6..8 => Step::Follow(set(one)),
        8..10 => Step::Rebind(usize::from(one) % 3),
        _ => {
            let slot = usize::from(one) % 3;
            let numbering = [Numbering::Positional, Numbering::Static, Numbering::Relative];
            Step::Set {
                slot,
                mode: Mode::ALL[usize::from(three) % Mode::ALL.len()],
                numbering: numbering[usize::from(one) / 3 % 3],
                named: set(two),
                home: (three >= 192).then(|| node(three)),
                cache: one >= 128 && slot == 1,
            }
        }
    };
    (step, node(cpu), u64::from(turn % 9))
}
