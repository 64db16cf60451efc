//! Compressed RAM against a device that can be overrun: with all safeguards nothing is lost, whatever happens; without
//! any one of them something is, and the test sees it.
//!
//! `PNODE_SIM_EVENTS` sets the events of a run, `PNODE_SIM_SEEDS` the runs. Without them a debug build makes 32 short runs;
//! `cargo test --release -p pnode-compress --test cram_simulation` makes 32 of 40,000 events under each load.

#[path = "support/host.rs"]
mod host;
#[path = "support/synth.rs"]
mod synth;

use host::{Ballooning, Hot, Load, Memory, Outcome, PAGE, Plan, run};
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
        events: from_env("PNODE_SIM_EVENTS", if cfg!(debug_assertions) { 8_000 } else { 40_000 }),
        load,
        safeguards,
        writable: 0,
        faults: 50,
        seed,
    }
}

fn simulate(plan: &Plan) -> Outcome {
    let contents: Vec<u8> =
        ["slab", "json", "sparse", "zero"].iter().flat_map(|kind| synth::corpus(kind, 16)).collect();
    run(plan, &mut Memory::new(plan), &contents, &mut |_| {})
}

/// A world so small that a short run fills it.
fn small(load: Load, seed: u64) -> Plan {
    let events = from_env("PNODE_SIM_EVENTS", if cfg!(debug_assertions) { 800 } else { 40_000 });
    Plan {
        pages: 96,
        advertised: 72,
        physical: 22 * PAGE as u64,
        ordinary: 24,
        events,
        ..plan(load, Safeguards::ALL, seed)
    }
}

#[test]
fn with_all_safeguards_no_accepted_page_is_lost() {
    let (mut events, mut all) = (0, Outcome::default());
    let (mut hot, mut balloons) = (Vec::new(), Vec::new());
    for seed in 1..=from_env("PNODE_SIM_SEEDS", 32) {
        for load in [Load::Steady, Load::Storm] {
            let plan = if seed == 1 { plan(load, Safeguards::ALL, seed) } else { small(load, seed) };
            // Every other run lets some pages be written where they are.
            let plan = Plan { writable: if seed % 2 == 0 { 6 } else { 0 }, ..plan };
            let outcome = simulate(&plan);
            assert_eq!(outcome.wrong, Vec::<String>::new(), "seed {seed}, {load:?}");
            assert_eq!((outcome.poisoned, outcome.overruns), (0, 0), "seed {seed}, {load:?}");
            assert_eq!(outcome.bound_broken, 0, "seed {seed}, {load:?}: the bound was below the truth");
            assert_eq!(outcome.unscrubbed, 0, "seed {seed}, {load:?}: each frame is scrubbed once");
            assert_eq!(outcome.left_over, 0, "seed {seed}, {load:?}: a frame was not scrubbed");
            events += plan.events;
            all.promoted += outcome.promoted;
            all.refused += outcome.refused;
            all.retried += outcome.retried;
            all.trimmed += outcome.trimmed;
            all.zeroed += outcome.zeroed;
            all.injected += outcome.injected;
            assert!(
                plan.writable > 0 || outcome.opened + outcome.in_place == 0,
                "seed {seed}: no fence is open"
            );
            all.opened += outcome.opened;
            all.in_place += outcome.in_place;
            all.fenced += outcome.fenced;
            all.over_budget += outcome.over_budget;
            all.timed_out += outcome.timed_out;
            hot.push(outcome.hot);
            balloons.push(outcome.balloon);
            all.interrupts += outcome.interrupts;
        }
    }
    assert!(all.refused > 0 && all.retried > 0, "nothing was ever short");
    assert!(all.injected > events / 1000, "too little went wrong");
    assert!(all.trimmed > 0 && all.zeroed > 0, "a way to scrub was not tried");
    assert!(all.timed_out > 0 && all.interrupts > 0, "the device said too much or too little: {all:?}");
    assert!(
        all.in_place > all.opened && all.fenced > 0 && all.over_budget > 0,
        "the budget was not tried: {all:?}"
    );
    let hot = |of: fn(&Hot) -> u64| hot.iter().map(of).sum::<u64>();
    let hot = [hot(|hot| hot.accepted), hot(|hot| hot.limited), hot(|hot| hot.stale)];
    assert!(!hot.contains(&0), "accepted, limited and stale hot pages: {hot:?}");
    let sum = |of: fn(&Ballooning) -> u64| balloons.iter().map(of).sum::<u64>();
    let rungs = [sum(|balloon| balloon.migrate), sum(|balloon| balloon.reclaim), sum(|balloon| balloon.oom)];
    let superseded = sum(|balloon| balloon.superseded);
    assert!(
        !rungs.contains(&0) && superseded > 0,
        "migrations, reclaims and kills {rungs:?}, targets superseded {superseded}"
    );
    println!(
        "{hot:?} hot pages accepted, limited, stale; {rungs:?} rounds of migration, reclaim, OOM; {superseded} targets superseded"
    );
    println!(
        "{} pages opened for {} writes in place, {} closed again, {} times over budget; {} commands timed out",
        all.opened, all.in_place, all.fenced, all.over_budget, all.timed_out
    );
    println!(
        "{events} events, {} promotions, {} refusals, {} retries, {} calls that failed, nothing lost",
        all.promoted, all.refused, all.retried, all.injected
    );
}

#[test]
fn without_any_one_safeguard_the_device_is_overrun_and_a_reader_sees_poison() {
    for missing in Safeguard::ALL {
        let outcome = simulate(&plan(Load::Storm, Safeguards::ALL.without(missing), 1));
        println!("without {missing:?}: {} overruns, {} pages lost", outcome.overruns, outcome.poisoned);
        assert!(outcome.poisoned > 0, "without {missing:?} nothing was lost: {outcome:?}");
    }
}
