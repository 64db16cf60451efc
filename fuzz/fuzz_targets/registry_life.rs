//! Lives of several nodes, compared step by step with the rules that the tests of pnode-core spell out a second time.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/pnode-core/tests/registry/real.rs"]
mod real;
#[path = "../../crates/pnode-core/tests/registry/rules.rs"]
mod rules;
#[path = "../../crates/pnode-core/tests/registry/step.rs"]
mod step;

fuzz_target!(|bytes: &[u8]| {
    let four = |four: &[u8]| [four[0], four[1], four[2], four[3]];
    let steps: Vec<_> =
        bytes.chunks_exact(4).take(200).map(|bytes| step::Step::decode(four(bytes))).collect();
    real::check(&steps);
});
