//! Shows that no request leaks private memory: every world up to a stated size, every request in it, on the real
//! registry, each result compared with the rules spelled out once more in `oracle`.

#[macro_use]
#[path = "../support/pipe.rs"]
mod pipe;
mod check;
mod doors;
mod host;
mod lives;
#[path = "../support/machine.rs"]
#[allow(dead_code, reason = "the examples share it, and each uses a part")]
mod machine;
mod machine_worlds;
mod oracle;
mod places;
mod policies;
mod rights;
mod wishes;
mod world;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use check::{Verdict, check, shrink, verdict};
use doors::{DOORS, Door};
use machine::Described;
use machine_worlds::Choice;
use world::{Ask, Case, Step};

const HELP: &str = "\
Tries every way to get at private memory, in every small world, and counts the leaks.

usage: isolation [--machine FILE] [--steps N] [--open-a-door N | --every-door] [--help]

  --machine FILE   before all that, every three nodes of a machine file: their kinds, doors and distances
  --steps N        lives of up to N steps instead of 6; each further step takes about ten times as long
  --open-a-door N  builds a mistake into the host around the registry and shows the leak that comes of it
  --every-door     opens each door in turn; fails unless every one leaks

exit status: 0 no leak (with --every-door: each door leaked), 1 a leak or another difference, 2 bad arguments

doors:
";

/// What is enumerated.
struct Plan {
    units: Vec<Unit>,
    places: Vec<Ask>,
    policies: Vec<Ask>,
    rights: Vec<Ask>,
    lives: Vec<Ask>,
    choices: Vec<Choice>,
    of_choices: Vec<Ask>,
    steps: Vec<Step>,
}

/// A share of the work: a world, or all worlds one step on from a life.
enum Unit {
    /// The number of a choice of nodes, and of a world of it.
    Choice(usize, usize),
    Place(usize),
    Policy(usize),
    Right(usize),
    Life(Vec<Step>),
}

/// What came of it.
#[derive(Default)]
struct Tally {
    done: AtomicUsize,
    cases: AtomicU64,
    worlds: AtomicU64,
    stop: AtomicBool,
    found: Mutex<Vec<(usize, Case, Verdict)>>,
}

impl Plan {
    fn new(length: usize, choices: Vec<Choice>) -> Self {
        let steps = lives::steps();
        let of_choice = |(number, choice): (usize, &Choice)| {
            (0..choice.worlds()).map(move |world| Unit::Choice(number, world))
        };
        let mut units: Vec<Unit> = choices.iter().enumerate().flat_map(of_choice).collect();
        units.extend((0..rights::WORLDS).map(Unit::Right));
        units.extend((0..places::WORLDS).map(Unit::Place));
        units.extend((0..policies::WORLDS).map(Unit::Policy));
        units.extend(lives::prefixes(&steps, length.saturating_sub(1)).into_iter().map(Unit::Life));
        Self {
            units,
            places: places::asks(),
            policies: policies::asks(),
            rights: rights::asks(),
            lives: lives::asks(),
            of_choices: if choices.is_empty() { Vec::new() } else { machine_worlds::asks() },
            choices,
            steps,
        }
    }

    /// Does one share; the first case that breaks the rules.
    fn run(&self, unit: &Unit, door: Door, tally: &Tally) -> Option<(Case, Verdict)> {
        let world = |table, steps: Vec<Step>, asks: &[Ask]| {
            let (cases, broken) = check(table, &steps, asks, door);
            tally.worlds.fetch_add(1, Ordering::Relaxed);
            tally.cases.fetch_add(cases, Ordering::Relaxed);
            broken.map(|(ask, verdict)| (Case { table, steps, ask: ask.unwrap_or(asks[0]) }, verdict))
        };
        match unit {
            Unit::Choice(choice, number) => {
                let (table, steps) = self.choices[*choice].world(*number);
                world(table, steps, &self.of_choices)
            }
            Unit::Right(number) => world(None, rights::world(*number), &self.rights),
            Unit::Place(number) => {
                let (table, steps) = places::world(*number);
                world(table, steps, &self.places)
            }
            Unit::Policy(number) => {
                let (table, steps) = policies::world(*number);
                world(table, steps, &self.policies)
            }
            Unit::Life(life) => {
                self.steps.iter().find_map(|step| world(None, [&life[..], &[*step]].concat(), &self.lives))
            }
        }
    }

    /// Does all shares on all CPUs, up to the first that breaks the rules.
    fn enumerate(&self, door: Door) -> Tally {
        let tally = Tally::default();
        let next = AtomicUsize::new(0);
        let work = || {
            while !tally.stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(unit) = self.units.get(number) else { break };
                if let Some((case, verdict)) = self.run(unit, door, &tally) {
                    tally.stop.store(true, Ordering::Relaxed);
                    tally.found.lock().expect("no worker panics").push((number, case, verdict));
                }
                tally.done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            while std::io::stderr().is_terminal() && !workers.iter().all(|worker| worker.is_finished()) {
                self.draw(&tally);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        tally
    }

    fn draw(&self, tally: &Tally) {
        let (done, all) = (tally.done.load(Ordering::Relaxed), self.units.len());
        let filled = 40 * done / all;
        let millions = tally.cases.load(Ordering::Relaxed) as f64 / 1e6;
        eprint!(
            "\r[{}{}] {:3}% {millions:6.1} million cases",
            "#".repeat(filled),
            ".".repeat(40 - filled),
            100 * done / all
        );
        let _ = std::io::stderr().flush();
    }
}

impl Tally {
    /// The case that came first in the order of the enumeration, whichever worker found it.
    fn first(&self) -> Option<(usize, Case, Verdict)> {
        let found = self.found.lock().expect("no worker panics");
        found.iter().min_by_key(|(number, ..)| *number).cloned()
    }
}

/// Tells the shrunk case as a story.
fn tell(case: Case, door: Door) {
    let case = shrink(case, door);
    println!("the shortest way there:");
    for (number, step) in (1..).zip(&case.steps) {
        println!("  {number}. {step}");
    }
    match verdict(&case, door) {
        Some(Verdict::Leak { node, got }) => {
            println!("  {}. {}", case.steps.len() + 1, case.ask);
            println!("  -> and gets a frame of zone {got}, private memory of node {node}: LEAK");
        }
        Some(Verdict::Wrong { got, expected }) => {
            println!("  {}. {}", case.steps.len() + 1, case.ask);
            println!("  -> and gets a frame of zone {got:?}; the rules say {expected:?}");
        }
        Some(Verdict::Step { accepted }) => println!("  -> accepted: {accepted}; the rules say otherwise"),
        None => println!("  -> nothing: the case does not repeat itself"),
    }
}

/// Enumerates with one door open, or none. Whether a leak was found, or anything else wrong.
fn run(plan: &Plan, door: Door) -> bool {
    let start = Instant::now();
    let tally = plan.enumerate(door);
    let (cases, worlds) = (tally.cases.load(Ordering::Relaxed), tally.worlds.load(Ordering::Relaxed));
    let seconds = start.elapsed().as_secs_f64();
    let Some((number, case, verdict)) = tally.first() else {
        println!(
            "{} cases in {} worlds, {seconds:.1} s: 0 leaks, 0 differences",
            grouped(cases),
            grouped(worlds)
        );
        return false;
    };
    let what = if matches!(verdict, Verdict::Leak { .. }) { "a leak" } else { "a difference" };
    println!("{what} after {} cases in {} worlds", grouped(cases), grouped(worlds));
    if let Unit::Choice(choice, _) = plan.units[number] {
        println!("the nodes, from 0, are the machine's {}", plan.choices[choice].names.join(", "));
    }
    tell(case, door);
    true
}

/// `number` with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

fn main() -> ExitCode {
    let mut length = 6;
    let mut doors = vec![Door::Closed];
    let mut choices = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--machine" {
            let Some(file) = arguments.next() else { return refuse("--machine needs a file name") };
            match Described::read(file.as_ref()).and_then(|machine| machine_worlds::choices(&machine)) {
                Ok(of_file) => choices = of_file,
                Err(sentence) => return refuse(&sentence),
            }
            continue;
        }
        let mut number = || arguments.next().and_then(|number| number.parse::<usize>().ok());
        match argument.as_str() {
            "--steps" => match number().filter(|number| (1..=9).contains(number)) {
                Some(number) => length = number,
                None => return refuse("--steps takes a number from 1 to 9"),
            },
            "--open-a-door" => match number().and_then(|number| DOORS.get(number.wrapping_sub(1))) {
                Some((door, _)) => doors = vec![*door],
                None => return refuse(&format!("--open-a-door takes a number from 1 to {}", DOORS.len())),
            },
            "--every-door" => doors = DOORS.iter().map(|(door, _)| *door).collect(),
            "--help" | "-h" => {
                print!("{HELP}");
                for (number, (_, what)) in (1..).zip(DOORS) {
                    println!("  {number}  {what}");
                }
                return ExitCode::SUCCESS;
            }
            _ => return refuse("unknown argument; --help says what there is"),
        }
    }
    println!(
        "worlds of up to {} nodes with {} requests or {} faults under policies each, lives of up to {length} steps with {} requests after each",
        world::NODES,
        places::asks().len(),
        policies::asks().len(),
        lives::asks().len(),
    );
    let plan = Plan::new(length, choices);
    if !plan.choices.is_empty() {
        let worlds: usize = plan.choices.iter().map(Choice::worlds).sum();
        println!(
            "before them {} worlds of the machine's nodes, {} at a time, with {} requests and faults each",
            grouped(worlds as u64),
            plan.choices[0].names.len(),
            plan.of_choices.len()
        );
    }
    let every = doors.len() > 1;
    let mut leaks = 0;
    for door in &doors {
        if let Some(number) = DOORS.iter().position(|(other, _)| other == door) {
            println!("\ndoor {} is open: {}", number + 1, DOORS[number].1);
        }
        leaks += usize::from(run(&plan, *door));
    }
    if every {
        println!("\n{leaks} of {} open doors were seen", doors.len());
    }
    if (leaks == doors.len()) == every { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(2)
}
