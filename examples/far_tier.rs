//! A far tier that is used on purpose only: cold pages go there, hot ones come back, nothing falls over into it.
//!
//! `cargo run --release --example far_tier`

#[macro_use]
#[path = "support/pipe.rs"]
mod pipe;
#[path = "support/cli.rs"]
mod cli;

use std::ops::Range;
use std::process::ExitCode;

use pnode::core::{AllocError, Features, NodeId, Request};
use pnode::user::Machine;
use pnode::user::machine::{Mapping, Place};

use cli::{Options, ensure, say};

const HELP: &str = "\
A far tier that is used on purpose only.

A program has more pages as there is ordinary memory. The cold ones are demoted to a far node,
which is private: it opened the doors DEMOTION, RECLAIM and PROMOTION, and no other. The program's hot
pages change over time; each round the tier's service promotes what was touched there and demotes what was
not touched. Watch the share of accesses that ordinary memory serves, and what an access takes on average by
the latency that the machine simulates (with \"delays counted\" in its description). In between an ordinary request that
finds no ordinary memory fails, although the far node has room: there is no fallback.";

/// The most frames of ordinary memory that the program fills.
const LARGEST: usize = 16_384;

const MACHINE: &str = "\
node dram ordinary 256frames
node far private 512frames class far doors RECLAIM|DEMOTION|PROMOTION
delays counted";

/// How large everything is, from how much ordinary memory there is.
struct Size {
    pages: usize,
    hot: usize,
    /// How far the program's interest moves at a time.
    step: usize,
    accesses: usize,
}

fn main() -> ExitCode {
    cli::main("far_tier", HELP, MACHINE, run)
}

fn run(options: &Options) -> Result<(), String> {
    let description = &options.machine;
    let doors = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION;
    let far = description.role(
        "a private node with the doors RECLAIM, DEMOTION and PROMOTION",
        |spec| spec.is_private() && spec.advertised().is_none() && spec.doors().contains(doors),
        "node far private 2MiB class far doors RECLAIM|DEMOTION|PROMOTION",
    )?;
    let ordinary = description.ordinary_frames();
    let near = description.ordinary()?;
    let machine = options.build()?;
    let pages = (ordinary * 7 / 4).min(ordinary + machine.frames(far) as usize * 3 / 4);
    if !(64..=LARGEST).contains(&ordinary) || pages < ordinary * 5 / 4 {
        return Err(description.about(&format!(
            "this example fills 64 to {LARGEST} frames of ordinary memory, and a far tier of at least a third of them"
        )));
    }
    let size = Size {
        pages,
        hot: ordinary * 75 / 128,
        step: (pages - ordinary * 75 / 128) * 15 / 32,
        accesses: ordinary * 125 / 8,
    };
    let page = machine.page().bytes();
    let memory = machine.map(pages, near).map_err(say)?;
    for number in 0..pages {
        memory.write(number * page, &(number as u64).to_le_bytes()).map_err(say)?;
    }
    println!(
        "{pages} pages, {ordinary} frames of ordinary memory: {} pages are on the far tier\n",
        on(&memory, far)
    );

    no_fallback(&machine, far)?;

    println!("round  hot pages   served by ordinary memory        promoted  demoted  an access");
    let mut versions = vec![0u64; pages];
    let mut shares = Vec::new();
    for round in 0..9 {
        // The program's interest moves on every third round.
        let first = round / 3 * size.step;
        machine.age();
        let start = machine.simulated_time();
        let (near, touched) =
            work(&memory, far, page, first..first + size.hot, &size, round as u64, &mut versions)?;
        let an_access = (machine.simulated_time() - start).as_nanos() / size.accesses as u128;
        let before = machine.counters().demoted;
        // The service: room first, then what was touched on the far tier comes back.
        let hot_and_far: Vec<usize> =
            touched.into_iter().filter(|page| memory.place(*page).is_resident_on(far)).collect();
        machine.reclaim(hot_and_far.len());
        let mut promoted = 0;
        for page in hot_and_far {
            promoted += memory.promote(page..page + 1, far).map_err(say)?;
        }
        let share = near * 100 / size.accesses;
        let bar = "█".repeat(share * 24 / 100) + &"·".repeat(24 - share * 24 / 100);
        let demoted = machine.counters().demoted - before;
        println!(
            "{:>5}  {first:>5}..{:<5} {bar} {share:>3} %   {promoted:>8} {demoted:>8}  {an_access:>6} ns",
            round + 1,
            first + size.hot
        );
        shares.push(share);
    }
    cli::draw(&machine, "far_tier: after nine rounds", options.svg.as_ref())?;
    options.write_trace(&machine, "far_tier: nine rounds")?;
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
    (0..memory.pages()).filter(|page| memory.place(*page).is_resident_on(node)).count()
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
    far: NodeId,
    page: usize,
    interest: Range<usize>,
    size: &Size,
    round: u64,
    versions: &mut [u64],
) -> Result<(usize, Vec<usize>), String> {
    let mut seed = round + 1;
    let mut near = 0;
    let mut hot = vec![false; size.pages];
    for access in 0..size.accesses {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let random = (seed >> 33) as usize;
        let number =
            if access % 40 != 0 { interest.start + random % interest.len() } else { random % size.pages };
        let place = memory.place(number);
        near += usize::from(matches!(place, Place::Resident { node, .. } if node != far));
        hot[number] = true;
        versions[number] = seed;
        memory.write(number * page + 8, &seed.to_le_bytes()).map_err(say)?;
    }
    Ok((near, (0..size.pages).filter(|page| hot[*page]).collect()))
}
