//! Compressed RAM against a device that can be overrun, with a plot of what happens.
//!
//! `cargo run --release --example compressed_ram -- [--storm] [--without SAFEGUARD]`; see `--help`.

#[macro_use]
#[path = "../support/pipe.rs"]
mod pipe;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use pnode::compress::device::{Safeguard, Safeguards};

#[path = "../support/ending.rs"]
mod ending;
#[path = "../../crates/pnode-compress/tests/support/host.rs"]
mod host;
#[path = "../support/machine.rs"]
#[allow(dead_code, reason = "the examples share it, and each uses a part")]
mod machine;
mod plot;
#[path = "../support/screen.rs"]
#[allow(dead_code, reason = "the examples share it, and each needs a part")]
mod screen;

use host::{Load, Memory, Outcome, PAGE, Plan, Sample};
use machine::Described;
use screen::{Bytes, Count};

const HELP: &str = "\
Compressed RAM as a service, driven against a model of a compressing device with real data.

usage: compressed_ram [OPTIONS]

  --input FILE       what the pages hold; without it the program takes its own executable
  --storm            after a fifth of the time, write what does not compress
  --without NAME     leave out a safeguard: admission, fence, scrub or bound (implies --storm)
  --machine FILE     size and capacity of the device as the first compressed node of a machine file has them,
                     and ordinary memory as its ordinary nodes have it together; the load grows with both
  --svg FILE         where the plot goes (default: compressed_ram.svg in the temporary directory)
  --events N         how many accesses (default 200000)
  --writable N       let N pages be written where they are (default 0)
  --seed N           what chances are taken from (default 1)
  --help             this text

The device advertises more than three times the memory that it has, unless a machine file says how much, and
poisons what it has no memory for.
With all safeguards nothing is ever lost, and the exit code is 0 only if that held. Without one of them
something is lost, which the run shows; the exit code is 0 only if it did.";

struct Options {
    input: Option<PathBuf>,
    load: Load,
    missing: Vec<Safeguard>,
    sizes: Sizes,
    svg: PathBuf,
    events: u64,
    writable: u64,
    seed: u64,
}

/// The machine, in pages.
struct Sizes {
    ordinary: usize,
    advertised: u32,
    physical: u64,
}

impl Sizes {
    /// A device that advertises more than three times what it has.
    const OWN: Self = Self { ordinary: 1024, advertised: 3200, physical: 960 };

    fn of(machine: &Described) -> Result<Self, String> {
        let node = machine.role(
            "a compressed node",
            |spec| spec.advertised().is_some(),
            "node zip compressed 4MiB holds 12MiB",
        )?;
        machine.ordinary()?;
        let spec = machine.file.nodes().nth(node.index()).map(|(_, spec)| *spec);
        let advertised = spec.and_then(|spec| spec.advertised()).and_then(|pages| u32::try_from(pages).ok());
        let advertised = advertised.ok_or_else(|| machine.about("the compressed node holds too much"))?;
        let physical = spec.map_or(0, |spec| spec.frames());
        Ok(Self { ordinary: machine.ordinary_frames(), advertised, physical })
    }

    /// Pages that the load uses: more than ordinary memory has, and a few less than there is room for.
    fn pages(&self) -> usize {
        self.ordinary + self.advertised as usize / 25 * 24
    }
}

fn main() -> ExitCode {
    let outcome = match parse(std::env::args_os().skip(1)) {
        Ok(None) => {
            println!("{HELP}");
            Ok(())
        }
        Ok(Some(options)) => show(&options),
        Err(sentence) => Err(sentence),
    };
    ending::end("compressed_ram", outcome)
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut options = Options {
        input: None,
        load: Load::Steady,
        missing: Vec::new(),
        sizes: Sizes::OWN,
        svg: std::env::temp_dir().join("compressed_ram.svg"),
        events: 200_000,
        writable: 0,
        seed: 1,
    };
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value; see --help"));
        match name.as_str() {
            "--help" | "-h" => return Ok(None),
            "--storm" => options.load = Load::Storm,
            "--machine" => options.sizes = Sizes::of(&Described::read(&value()?)?)?,
            "--input" => options.input = Some(value()?.into()),
            "--svg" => options.svg = value()?.into(),
            "--events" => options.events = number(&value()?, 1_000)?,
            "--writable" => options.writable = number(&value()?, 0)?,
            "--seed" => options.seed = number(&value()?, 0)?,
            "--without" => {
                let value = value()?;
                let wanted = value.to_string_lossy().to_lowercase();
                let found =
                    Safeguard::ALL.into_iter().find(|guard| format!("{guard:?}").to_lowercase() == wanted);
                options.missing.push(found.ok_or(format!(
                    "there is no safeguard '{wanted}'; name admission, fence, scrub or bound"
                ))?);
                options.load = Load::Storm;
            }
            _ => return Err(format!("'{name}' means nothing here; see --help")),
        }
    }
    Ok(Some(options))
}

fn number(value: &OsString, least: u64) -> Result<u64, String> {
    let number = value.to_str().and_then(|value| value.parse().ok()).filter(|number| *number >= least);
    number.ok_or(format!("'{}' is no number of {least} or more", value.to_string_lossy()))
}

fn input(options: &Options) -> Result<Vec<u8>, String> {
    let path = match &options.input {
        Some(path) => path.clone(),
        None => {
            std::env::current_exe().map_err(|error| format!("no input: {error}; name one with --input"))?
        }
    };
    let mut bytes = std::fs::read(&path)
        .map_err(|error| format!("no input: {} cannot be read ({error})", path.display()))?;
    // The load draws pages from here; so many are enough to be as varied as the file.
    bytes.truncate(64 << 20);
    bytes.truncate(bytes.len() / PAGE * PAGE);
    if bytes.is_empty() {
        return Err(format!("no input: {} has no whole page of {PAGE} bytes", path.display()));
    }
    println!("input        {} of {}", Bytes(bytes.len() as u64), path.display());
    Ok(bytes)
}

fn show(options: &Options) -> Result<(), String> {
    let bytes = input(options)?;
    let safeguards = options.missing.iter().fold(Safeguards::ALL, |set, &guard| set.without(guard));
    let plan = Plan {
        pages: options.sizes.pages(),
        advertised: options.sizes.advertised,
        physical: options.sizes.physical * PAGE as u64,
        ordinary: options.sizes.ordinary,
        events: options.events,
        load: options.load,
        safeguards,
        writable: options.writable,
        faults: 20,
        seed: options.seed,
    };
    println!(
        "device       has {}, advertises {}",
        Bytes(plan.physical),
        Bytes(plan.advertised as u64 * PAGE as u64)
    );
    println!(
        "load         {} accesses to {}, {:?}",
        Count(plan.events),
        Bytes((plan.pages * PAGE) as u64),
        plan.load
    );
    match options.missing[..] {
        [] => println!("safeguards   all: admission, fence, scrub, bound"),
        _ => println!("safeguards   without {}", names(&options.missing)),
    }
    println!(
        "\n    event   residents  original       used      bound  ratio  pressure  balloon   swapped  poisoned"
    );
    let mut row = 0;
    let outcome = host::run(&plan, &mut Memory::new(&plan), &bytes, &mut |sample| {
        if row % 10 == 0 {
            print_row(sample);
        }
        row += 1;
    });
    // The last one, unless it was printed.
    if row % 10 != 1 {
        outcome.samples.last().map(print_row);
    }
    let svg = plot::svg(&plan, &options.missing, &outcome);
    std::fs::write(&options.svg, svg)
        .map_err(|error| format!("the plot cannot be written to {} ({error})", options.svg.display()))?;
    println!("\nplot         {}", options.svg.display());
    judge(options, &outcome)
}

fn print_row(sample: &Sample) {
    println!(
        "{:>9} {:>11} {:>9} {:>10} {:>10} {:>6.2} {:>9} {:>8} {:>9} {:>9}",
        Count(sample.event),
        Count(sample.residents),
        Bytes(sample.original),
        Bytes(sample.used),
        Bytes(sample.bound),
        sample.original as f64 / sample.used.max(1) as f64,
        sample.pressure,
        Count(sample.ballooned),
        Count(sample.swapped),
        Count(sample.poisoned)
    );
}

fn names(missing: &[Safeguard]) -> String {
    let names: Vec<_> = missing.iter().map(|guard| format!("{guard:?}").to_lowercase()).collect();
    names.join(" and ")
}

fn judge(options: &Options, outcome: &Outcome) -> Result<(), String> {
    let Outcome { demoted, refused, promoted, freed, retried, trimmed, zeroed, .. } = outcome;
    println!("pages        {} came in, {} were turned away", Count(*demoted), Count(*refused));
    println!(
        "             {} left to be written, {} were freed, {} accesses retried",
        Count(*promoted),
        Count(*freed),
        Count(*retried)
    );
    println!("scrubbed     {} frames by trims, {} one by one", Count(*trimmed), Count(*zeroed));
    if options.writable > 0 {
        println!(
            "in place     {} writes to {} pages that were opened, {} closed again",
            Count(outcome.in_place),
            Count(outcome.opened),
            Count(outcome.fenced)
        );
    }
    let (hot, balloon) = (outcome.hot, outcome.balloon);
    println!(
        "hot pages    {} promoted or tried, {} held back by the rate limit, {} gone by then",
        Count(hot.accepted),
        Count(hot.limited),
        Count(hot.stale)
    );
    println!(
        "balloon      {} frames in, {} out; room made by {} rounds of migration, {} of reclaim, {} of OOM; {} targets superseded",
        Count(balloon.inflated),
        Count(balloon.deflated),
        Count(balloon.migrate),
        Count(balloon.reclaim),
        Count(balloon.oom),
        Count(balloon.superseded)
    );
    println!("verified     {} pages that came back", Count(outcome.verified));
    println!(
        "lost         {} pages, by {} writes that the device had no memory for",
        Count(outcome.poisoned),
        Count(outcome.overruns)
    );
    if options.missing.is_empty() {
        if let Some(wrong) = outcome.wrong.first() {
            return Err(wrong.clone());
        }
        if outcome.poisoned + outcome.overruns + outcome.bound_broken + outcome.left_over > 0
            || outcome.unscrubbed != 0
        {
            return Err("a safeguard did not hold; the figures above say which".into());
        }
        println!("\nWith all safeguards no page was lost, and every frame was scrubbed once.");
        return Ok(());
    }
    if outcome.poisoned == 0 {
        return Err(format!(
            "nothing was lost without {}; try more events or another seed",
            names(&options.missing)
        ));
    }
    println!("\nPages were lost, because a safeguard was missing: {}.", names(&options.missing));
    Ok(())
}
