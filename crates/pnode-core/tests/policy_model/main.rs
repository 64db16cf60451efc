//! Random worlds and histories against the policy rules written a second time.
//!
//! The registry is exhausted page by page, and must take each from the node that the rules name, and fail as they say.
#![allow(missing_docs)]

mod history;
#[path = "../policy_world/mod.rs"]
mod policy_world;
mod rules;

use history::{History, Step};
use pnode_core::Features;
use pnode_core::policy::{Mode, Numbering};
use policy_world::{IDS, Kind};
use proptest::prelude::*;
use rules::Set;

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Ordinary),
        3 => Just(policy_world::OPEN),
        1 => Just(policy_world::CLOSED),
        1 => Just(Kind::Private(Features::USER_NUMA | Features::RECLAIM)),
    ]
}

fn set() -> impl Strategy<Value = Set> {
    prop::collection::btree_set(0..IDS as u16, 0..=IDS)
}

fn numbering() -> impl Strategy<Value = Numbering> {
    prop::sample::select(vec![Numbering::Positional, Numbering::Static, Numbering::Relative])
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..IDS as u16;
    let mode = prop_oneof![3 => Just(Mode::Bind), 2 => prop::sample::select(Mode::ALL.to_vec())];
    let policy =
        (0..3usize, mode, numbering(), set(), prop::option::weighted(0.2, node.clone()), any::<bool>());
    prop_oneof![
        2 => node.clone().prop_map(Step::Leave),
        3 => (node.clone(), kind()).prop_map(|(node, kind)| Step::Join(node, kind)),
        1 => node.clone().prop_map(Step::Drain),
        1 => node.prop_map(Step::Resume),
        2 => set().prop_map(Step::Group),
        3 => set().prop_map(Step::Follow),
        6 => policy.prop_map(|(slot, mode, numbering, named, home, cache)| {
            Step::Set { slot, mode, numbering, named, home, cache: cache && slot == 1 }
        }),
        3 => (0..3usize).prop_map(Step::Rebind),
    ]
}

fn distances() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(11u8..14, IDS * IDS).prop_map(|mut table| {
        (0..IDS).for_each(|node| table[node * IDS + node] = 10);
        table
    })
}
proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 400 }, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_rules(
        kinds in prop::collection::vec(kind(), IDS - 1),
        table in distances(),
        frames in 1u64..3,
        steps in prop::collection::vec((step(), 0..IDS as u16, 0u64..9), 1..25),
        weights in prop::collection::vec(0u8..4, 0..=IDS),
    ) {
        History { kinds: [vec![Kind::Ordinary], kinds].concat(), table, frames, weights, steps }.check();
    }
}
