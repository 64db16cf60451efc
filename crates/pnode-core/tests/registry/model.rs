//! Random lives of several nodes; the fuzz target `registry_life` feeds the same check.

use proptest::prelude::*;

use super::real::check;
use super::step::Step;

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 1_000 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_lives_follow_the_rules(bytes in prop::collection::vec(any::<[u8; 4]>(), 0..100)) {
        let steps: Vec<Step> = bytes.into_iter().map(Step::decode).collect();
        check(&steps);
    }

    /// Lives that get far: two nodes with memory stand at their beginning.
    #[test]
    fn random_lives_of_living_nodes_follow_the_rules(
        bytes in prop::collection::vec(any::<[u8; 4]>(), 0..100),
    ) {
        let beginning = [[2, 0, 0, 0], [0, 1, 1, 1], [4, 0, 0, 0], [4, 1, 1, 0]];
        let steps: Vec<Step> = beginning.into_iter().chain(bytes).map(Step::decode).collect();
        check(&steps);
    }
}
