//! A far tier that is used on purpose only: cold pages go there, hot ones come back, nothing falls over into it.
//!
//! `cargo run --release --example far_tier`

#[macro_use]
#[path = "support/pipe.rs"]
mod pipe;
#[path = "support/cli.rs"]
mod cli;

use std::path::PathBuf;
use std::process::ExitCode;

use pnode::core::{AllocError, Features, MemoryClass, NodeId, Request};
use pnode::user::machine::Mapping;
use pnode::user::{Machine, NodeSpec};

use cli::{ensure, say};

const HELP: &str = "\
A far tier that is used on purpose only.

A program has nearly twice as many pages as there is ordinary memory. The cold ones are demoted to a far node,
which is private: it opened the doors DEMOTION, RECLAIM and PROMOTION, and no other. The program's hot
pages change over time; each round the tier's service promotes what was touched there and demotes what was
not touched. Watch the share of accesses that ordinary memory serves. In between an ordinary request that
finds no ordinary memory fails, although the far node has room: there is no fallback.";

const DRAM: u64 = 256;
const PAGES: usize = 448;
const HOT: usize = 150;
const ACCESSES: usize = 4000;

fn main() -> ExitCode {
    cli::main("far_tier", HELP, run)
}

fn run(svg: Option<PathBuf>) -> Result<(), String> {
    let doors = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION;
    let machine = Machine::builder()
        .node(NodeSpec::ordinary(DRAM))
        .node(NodeSpec::private(MemoryClass::FAR, 512).features(doors))
        .build()
        .map_err(say)?;
    let [dram, far] = [machine.node(0).map_err(say)?, machine.node(1).map_err(say)?];
    let page = machine.page().bytes();
    let memory = machine.map(PAGES, dram).map_err(say)?;
    for number in 0..PAGES {
        memory.write(number * page, &(number as u64).to_le_bytes()).map_err(say)?;
    }
    println!(
        "{PAGES} pages, {DRAM} frames of ordinary memory: {} pages are on the far tier\n",
        on(&memory, far)
    );

    no_fallback(&machine, far)?;

    println!("round  hot pages   served by ordinary memory        promoted  demoted");
    let mut versions = [0u64; PAGES];
    let mut shares = Vec::new();
    for round in 0..9 {
        // The program's interest moves on every third round.
        let first = round / 3 * 140;
        machine.age();
        let (near, touched) = work(&memory, dram, page, first, round as u64, &mut versions)?;
        let before = machine.counters().demoted;
        // The service: room first, then what was touched on the far tier comes back.
        let hot_and_far: Vec<usize> =
            touched.into_iter().filter(|page| memory.place(*page).is_resident_on(far)).collect();
        machine.reclaim(hot_and_far.len());
        let mut promoted = 0;
        for page in hot_and_far {
            promoted += memory.promote(page..page + 1, far).map_err(say)?;
        }
        let share = near * 100 / ACCESSES;
        let bar = "█".repeat(share * 24 / 100) + &"·".repeat(24 - share * 24 / 100);
        let demoted = machine.counters().demoted - before;
        println!(
            "{:>5}  {first:>3}..{:<3}    {bar} {share:>3} %   {promoted:>8} {demoted:>8}",
            round + 1,
            first + HOT
        );
        shares.push(share);
    }
    cli::draw(&machine, "far_tier: after nine rounds", svg.as_ref())?;
    // Within each phase of interest the service must catch up.
    for phase in shares.chunks(3) {
        ensure(
            phase[2] >= 95 && phase[2] >= phase[0],
            "the tier's service did not bring the hot pages back",
        )?;
    }
    for (number, version) in versions.iter().enumerate() {
        let mut words = [0; 16];
        memory.read(number * page, &mut words).map_err(say)?;
        let expected = [(number as u64).to_le_bytes(), version.to_le_bytes()].concat();
        ensure(words[..] == expected, "a page has lost its bytes")?;
    }
    machine.audit().map_err(say)?;
    println!("\nEvery page has the bytes that were written last, wherever it is now.");
    Ok(())
}

fn on(memory: &Mapping, node: NodeId) -> usize {
    (0..PAGES).filter(|page| memory.place(*page).is_resident_on(node)).count()
}

/// Takes what is left of ordinary memory and shows that the next request fails.
fn no_fallback(machine: &Machine, far: NodeId) -> Result<(), String> {
    let mut taken = Vec::new();
    let refusal = loop {
        match machine.alloc(Request::page()) {
            Ok(frame) => taken.push(frame),
            Err(error) => break error,
        }
    };
    println!("a kernel's own request  refused: {refusal}");
    println!("                        while the far tier has {} free frames\n", machine.free_frames(far));
    ensure(matches!(refusal, AllocError::NoMemory { .. }), "the request failed for another reason")?;
    ensure(taken.iter().all(|frame| frame.node() != far), "an ordinary request fell over into the far tier")?;
    taken.into_iter().try_for_each(|frame| machine.free(frame)).map_err(say)
}

/// One round of the program: all but one access in forty go to the hot pages. Says how many ordinary memory served, and which
/// pages were touched.
fn work(
    memory: &Mapping,
    dram: NodeId,
    page: usize,
    first: usize,
    round: u64,
    versions: &mut [u64; PAGES],
) -> Result<(usize, Vec<usize>), String> {
    let mut seed = round + 1;
    let mut near = 0;
    let mut hot = vec![false; PAGES];
    for access in 0..ACCESSES {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let random = (seed >> 33) as usize;
        let number = if access % 40 != 0 { first + random % HOT } else { random % PAGES };
        near += usize::from(memory.place(number).is_resident_on(dram));
        hot[number] = true;
        versions[number] = seed;
        memory.write(number * page + 8, &seed.to_le_bytes()).map_err(say)?;
    }
    Ok((near, (0..PAGES).filter(|page| hot[*page]).collect()))
}
