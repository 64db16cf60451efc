//! Traces of allocations: record what a program asks of a source of frames, and replay it on others.
//!
//! `cargo run --release --example trace_replay -- [--record FILE] [--replay FILE] [--svg FILE]`; see `--help`.

#[macro_use]
#[path = "../support/pipe.rs"]
mod pipe;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use pnode::buddy::Zone;
use pnode::core::{BoxedStorage, Distances, FrameRange, FrameSource, NodeId, Nodes, Order, Pfn, Private};

#[path = "../support/cli.rs"]
#[allow(dead_code, reason = "the examples share it, and each needs a part")]
mod cli;
mod plot;
mod program;
mod replay;
mod sources;
mod trace;

use cli::machine::Described;
use cli::{ensure, say};
use replay::Outcome;
use sources::{Cached, Pick, Textbook};
use trace::{Recorder, Trace};

const HELP: &str = "\
Traces of allocations: recorded from one source of frames, replayed on others.

usage: trace_replay [OPTIONS]

  --replay FILE    the trace to replay; without it the example records a program of its own
  --record FILE    also write the trace to this file
  --svg FILE       draw how full, how broken up and how often refused, for each source
  --machine FILE   replay also on each private node of this machine, through its owner's grant
                   (those that have as many frames as the trace; the others are left out)
  --frames N       how many frames the example's own program has (default 65536, or the largest private
                   node of the machine)
  --events N       how many steps it takes (default 200000)
  --seed N         what its chances are taken from (default 1)
  --help           this text

A trace is replayed on a zone of pnode-buddy, on one through a CPU's cache, on a private node through a
grant, and on two textbook buddy allocators. An oracle owns a bit for each frame: the exit code is 0 only if no source
ever handed out what was taken, took everything back, and - but for the cached one - refused nothing that it had.";

struct Options {
    replay: Option<PathBuf>,
    record: Option<PathBuf>,
    svg: Option<PathBuf>,
    machine: Option<Described>,
    frames: Option<u64>,
    events: usize,
    seed: u64,
}

fn main() -> ExitCode {
    let outcome = match parse(std::env::args_os().skip(1)) {
        Ok(None) => {
            println!("{HELP}\n\n{}", trace::GRAMMAR);
            Ok(())
        }
        Ok(Some(options)) => show(&options),
        Err(sentence) => Err(sentence),
    };
    cli::ending::end("trace_replay", outcome)
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut options = Options {
        replay: None,
        record: None,
        svg: None,
        machine: None,
        frames: None,
        events: 200_000,
        seed: 1,
    };
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value; see --help"));
        match name.as_str() {
            "--help" | "-h" => return Ok(None),
            "--replay" => options.replay = Some(value()?.into()),
            "--record" => options.record = Some(value()?.into()),
            "--svg" => options.svg = Some(value()?.into()),
            "--machine" => options.machine = Some(Described::read(&value()?)?),
            "--frames" => options.frames = Some(number(&name, &value()?, 1024..=1 << 24)?),
            "--events" => options.events = number(&name, &value()?, 1..=1 << 28)? as usize,
            "--seed" => options.seed = number(&name, &value()?, 0..=u64::MAX)?,
            _ => return Err(format!("{name} is no option; see --help")),
        }
    }
    Ok(Some(options))
}

fn number(name: &str, value: &OsString, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{name} takes a number from {} to {}", range.start(), range.end()))
}

fn zone(start: u64, frames: u64) -> Result<Zone<'static>, String> {
    Zone::boxed(FrameRange::new(Pfn::new(start), frames).map_err(say)?, &[]).map_err(say)
}

fn show(options: &Options) -> Result<(), String> {
    let (trace, what) = match &options.replay {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("{} cannot be read ({error})", path.display()))?;
            (
                Trace::parse(&text).map_err(|error| format!("{}, {error}", path.display()))?,
                path.display().to_string(),
            )
        }
        None => {
            let private = options.machine.iter().flat_map(|machine| machine.file.nodes());
            let largest = private.filter(|(_, spec)| spec.is_private()).map(|(_, spec)| spec.frames()).max();
            let frames = options.frames.or(largest).unwrap_or(65_536);
            let zone = zone(0, frames)?;
            let recorder = Recorder::new(&zone);
            program::run(&recorder, frames, options.events, options.seed)?;
            (recorder.finish(frames), format!("a program of the example's, seed {}", options.seed))
        }
    };
    println!("trace      {what}: {} events on {} frames", trace.events.len(), trace.frames);
    if let Some(path) = &options.record {
        let text = trace.to_string();
        // What is written must read back, or the file is worth nothing.
        ensure(Trace::parse(&text)? == trace, "the trace does not read back as it was")?;
        std::fs::write(path, text)
            .map_err(|error| format!("{} cannot be written ({error})", path.display()))?;
        println!("recorded   {}", path.display());
    }
    let outcomes = on_all(&trace, options.machine.as_ref())?;
    println!(
        "\n{:<30} {:>9} {:>9} {:>9} {:>11} {:>9}",
        "source", "refused", "of order 9", "needless", "broken up", "ns each"
    );
    for (name, outcome) in &outcomes {
        println!(
            "{name:<30} {:>9} {:>9} {:>9} {:>9.1} % {:>9.0}",
            outcome.refused(),
            outcome.refused[usize::from(Order::HUGE.get())],
            outcome.needless,
            outcome.mean_broken() * 100.0,
            outcome.took.as_nanos() as f64 / trace.events.len().max(1) as f64,
        );
    }
    println!("\n\"broken up\" is the mean share of the free memory that no huge page (order 9) fits into.");
    if let Some(path) = &options.svg {
        let title = format!("{} events on {} frames: {what}", trace.events.len(), trace.frames);
        std::fs::write(path, plot::svg(&title, &trace, &outcomes))
            .map_err(|error| format!("the picture cannot be written to {} ({error})", path.display()))?;
        println!("picture: {}", path.display());
    }
    for (name, outcome) in outcomes.iter().filter(|(name, _)| name != CACHED) {
        ensure(outcome.needless == 0, &format!("{name} refused blocks that it had"))?;
    }
    println!("No frame was ever in two hands, and every frame has gone back.");
    Ok(())
}

const CACHED: &str = "zone, through a CPU's cache";

/// Replays the trace on every source there is.
fn on_all(trace: &Trace, machine: Option<&Described>) -> Result<Vec<(String, Outcome)>, String> {
    let mut outcomes = Vec::new();
    let mut on = |name: &str, source: &dyn FrameSource| {
        let outcome = replay::replay(trace, source).map_err(|error| format!("{name}: {error}"))?;
        outcomes.push((name.to_owned(), outcome));
        Ok::<(), String>(())
    };
    let plain = zone(0, trace.frames)?;
    on("zone", &plain)?;
    let behind = zone(0, trace.frames)?;
    let cached = Cached::new(&behind);
    on(CACHED, &cached)?;
    drop(cached);
    on_grants(trace, machine, &mut on)?;
    on("textbook buddy, lowest first", &Textbook::new(trace.frames, Pick::Lowest))?;
    on("textbook buddy, last first", &Textbook::new(trace.frames, Pick::Last))?;
    for zone in [&plain, &behind] {
        zone.audit().map_err(say)?;
        ensure(zone.free_frames() == trace.frames, "a frame was lost")?;
    }
    Ok(outcomes)
}

/// Private nodes, through the grants of their owners.
fn on_grants(
    trace: &Trace,
    machine: Option<&Described>,
    on: &mut dyn FnMut(&str, &dyn FrameSource) -> Result<(), String>,
) -> Result<(), String> {
    let own = Described::own(&format!("node card private {}frames class device-buffer", trace.frames))?;
    let file = &machine.unwrap_or(&own).file;
    for (name, spec) in file.nodes().filter(|(_, spec)| spec.is_private() && spec.frames() >= trace.frames) {
        let zone = zone(0, trace.frames)?;
        let mut storage = BoxedStorage::new(1, 1).map_err(say)?;
        let nodes = Nodes::new(storage.slots(), Distances::uniform(1).map_err(say)?).map_err(say)?;
        let claim = Private::class(spec.memory_class());
        let owner = nodes.register(NodeId::new(0).map_err(say)?, claim, spec.doors()).map_err(say)?;
        owner.online(&zone).map_err(say)?;
        let grant = owner.grant().map_err(say)?;
        on(&format!("private node {name}, by a grant"), &grant)?;
        zone.audit().map_err(say)?;
        ensure(zone.free_frames() == trace.frames, "a frame was lost")?;
    }
    Ok(())
}
