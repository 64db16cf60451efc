//! Compressed RAM against a device that can be overrun: with all safeguards nothing is lost, whatever happens; without
//! any one of them something is, and the test sees it.
//!
//! `PNODE_SIM_EVENTS` sets the events of a run (8,000 otherwise in a debug build); `PNODE_SIM_SEEDS` the runs.

#[path = "support/host.rs"]
mod host;
#[path = "support/synth.rs"]
mod synth;

use host::{Load, Memory, Outcome, PAGE, Plan, run};
use pnode_compress::device::{Safeguard, Safeguards};

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn plan(load: Load, safeguards: Safeguards, seed: u64) -> Plan {
    Plan {
        pages: 512,
        advertised: 400,
        physical: 120 * PAGE as u64,
        ordinary: 128,
        events: from_env("PNODE_SIM_EVENTS", if cfg!(debug_assertions) { 8_000 } else { 100_000 }),
        load,
        safeguards,
        faults: 50,
        seed,
    }
}

fn simulate(plan: &Plan) -> Outcome {
    let contents: Vec<u8> =
        ["slab", "json", "sparse", "zero"].iter().flat_map(|kind| synth::corpus(kind, 16)).collect();
    run(plan, &mut Memory::new(plan), &contents, &mut |_| {})
}

#[test]
fn with_all_safeguards_no_accepted_page_is_lost() {
    let (mut events, mut promoted) = (0, 0);
    for seed in 1..=from_env("PNODE_SIM_SEEDS", if cfg!(debug_assertions) { 1 } else { 3 }) {
        for load in [Load::Steady, Load::Storm] {
            let plan = plan(load, Safeguards::ALL, seed);
            let outcome = simulate(&plan);
            println!("seed {seed}, {load:?}: {} demoted, {} promoted", outcome.demoted, outcome.promoted);
            assert_eq!(outcome.wrong, Vec::<String>::new(), "seed {seed}, {load:?}");
            assert_eq!((outcome.poisoned, outcome.overruns), (0, 0), "seed {seed}, {load:?}");
            assert_eq!(outcome.bound_broken, 0, "seed {seed}, {load:?}: the bound was below the truth");
            assert_eq!(outcome.unscrubbed, 0, "seed {seed}, {load:?}: each frame is scrubbed once");
            assert_eq!(outcome.left_over, 0, "seed {seed}, {load:?}: a frame was not scrubbed");
            assert!(
                outcome.refused > 0 && outcome.retried > 0,
                "seed {seed}, {load:?}: nothing was ever short"
            );
            assert!(
                outcome.trimmed > 0 && outcome.zeroed > 0,
                "seed {seed}, {load:?}: a way to scrub was not tried"
            );
            events += plan.events;
            promoted += outcome.promoted;
        }
    }
    println!("{events} events, {promoted} promotions");
}

#[test]
fn without_any_one_safeguard_the_device_is_overrun_and_a_reader_sees_poison() {
    for missing in Safeguard::ALL {
        let outcome = simulate(&plan(Load::Storm, Safeguards::ALL.without(missing), 1));
        println!("without {missing:?}: {} overruns, {} pages lost", outcome.overruns, outcome.poisoned);
        assert!(outcome.poisoned > 0, "without {missing:?} nothing was lost: {outcome:?}");
    }
}
