//! Memory policy on a machine of your own, as `numactl` shows it on the kernel's.
//!
//! `cargo run --release --example mempolicy -- [--machine FILE] [--hardware] [--membind NODES] ...`; see `--help`.

#[macro_use]
#[path = "../support/pipe.rs"]
mod pipe;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use pnode::core::policy::Mode;
use pnode::core::{NodeId, NodeMask, PageOrigin};

#[path = "../support/cli.rs"]
#[allow(dead_code, reason = "the examples share it, and each needs a part")]
mod cli;
mod demo;
mod host;

use cli::machine::Described;
use cli::{ensure, say};
use host::{Host, Process};

const MACHINE: &str = include_str!("../machines/two_sockets.machine");

const HELP: &str = "\
Memory policy as numactl has it, on a machine that a file describes.

usage: mempolicy [--machine FILE] [--hardware] [POLICY] [OPTIONS]

without a policy: every policy in turn, each checked, and what private nodes refuse

  --hardware              the nodes: kinds, sizes, classes, doors, tiers, distances
POLICY
  --membind NODES         these nodes and no other; the one policy that may name private nodes
  --preferred NODE        this node first
  --preferred-many NODES  these nodes first
  --interleave NODES      these nodes in turn (private ones are left out)
  --weighted NODE=W,...   in turn, each as often as its weight says (1 to 255)
  --localalloc            the node of the CPU
OPTIONS
  --pages N               how many pages the process touches (default 64)
  --cpu NODE              the node that it runs on (default: the first ordinary one)
  --cpuset NAME           the cpuset of the file that it is in
  --file                  the pages are a file's (mbind on a mapped file)
  --shared                the pages are shared memory (mbind on a shared object)
  --move NODE             afterwards, move_pages of all of them to this node
  --show                  also the policy in force, and what the faults counted
  --machine FILE          the machine (default: examples/machines/two_sockets.machine)
  --svg FILE              without a policy: draw where the pages land
  --help                  this text

NODES are names or numbers with commas, ranges as 0-2, or all. The exit code is 0 only if the policy was
accepted, every page was placed and kept its bytes, and every frame has gone back.";

/// A policy as the command line has it.
struct Asked {
    mode: Mode,
    nodes: String,
}

struct Options {
    machine: Described,
    hardware: bool,
    policy: Option<Asked>,
    pages: usize,
    cpu: Option<String>,
    cpuset: Option<String>,
    origin: PageOrigin,
    target: Option<String>,
    show: bool,
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match parse(std::env::args_os().skip(1)) {
        Ok(None) => {
            println!("{HELP}");
            Ok(())
        }
        Ok(Some(options)) => host::with(&options.machine.file, |host| run(host, &options)),
        Err(sentence) => Err(sentence),
    };
    cli::ending::end("mempolicy", outcome)
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut options = Options {
        machine: Described::own(MACHINE)?,
        hardware: false,
        policy: None,
        pages: 64,
        cpu: None,
        cpuset: None,
        origin: PageOrigin::PrivateAnonymous,
        target: None,
        show: false,
        svg: None,
    };
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value; see --help"));
        let mut text = || value().map(|value| value.to_string_lossy().into_owned());
        let mode = match name.as_str() {
            "--membind" | "-m" => Some(Mode::Bind),
            "--preferred" | "-p" => Some(Mode::Preferred),
            "--preferred-many" | "-P" => Some(Mode::PreferredMany),
            "--interleave" | "-i" => Some(Mode::Interleave),
            "--weighted" | "-w" => Some(Mode::WeightedInterleave),
            "--localalloc" | "-l" => Some(Mode::Local),
            _ => None,
        };
        if let Some(mode) = mode {
            let nodes = if mode.takes_nodes() { text()? } else { String::new() };
            if options.policy.replace(Asked { mode, nodes }).is_some() {
                return Err(format!("{name} is a second policy; name one"));
            }
            continue;
        }
        match name.as_str() {
            "--help" | "-h" => return Ok(None),
            "--hardware" | "-H" => options.hardware = true,
            "--show" | "-s" => options.show = true,
            "--file" => options.origin = PageOrigin::PageCache,
            "--shared" => options.origin = PageOrigin::SharedAnonymous,
            "--cpu" | "-N" => options.cpu = Some(text()?),
            "--cpuset" => options.cpuset = Some(text()?),
            "--move" => options.target = Some(text()?),
            "--machine" => options.machine = Described::read(&value()?)?,
            "--svg" => options.svg = Some(value()?.into()),
            "--pages" => {
                let pages = text()?.parse().ok().filter(|pages| (1..=1 << 24).contains(pages));
                options.pages = pages.ok_or("--pages takes a number from 1 to 16777216")?;
            }
            _ => return Err(format!("{name} is no option; see --help")),
        }
    }
    Ok(Some(options))
}

fn run(host: &Host<'_>, options: &Options) -> Result<(), String> {
    if options.hardware {
        print!("{}", host.hardware());
    }
    let Some(asked) = &options.policy else {
        let is_all = options.hardware && options.svg.is_none() && !options.show && options.target.is_none();
        return if is_all { Ok(()) } else { show_all(host, options) };
    };
    let cpu = match &options.cpu {
        Some(name) => node(host, name)?,
        None => host.ordinary().first().ok_or("the machine has no ordinary node; add one")?,
    };
    let mut process = Process::new(host, cpu)?;
    if let Some(name) = &options.cpuset {
        let mask = host.file.cpuset(name).ok_or_else(|| format!("the file has no cpuset {name}; add one"))?;
        process.mems = process.mems.child(mask);
    }
    let nodes = if asked.mode == Mode::WeightedInterleave {
        weights(host, &asked.nodes, &mut process.weights)?
    } else {
        nodes(host, &asked.nodes)?
    };
    process.set_policy(asked.mode, nodes, options.origin).map_err(say)?;
    let placed = process.touch(options.pages).map_err(say);
    println!("{}", process.numa_maps());
    let moved = match &options.target {
        Some(target) if placed.is_ok() => {
            let (moved, error) = process.move_to(node(host, target)?);
            println!("{}", process.numa_maps());
            error.map_or(Ok(()), |error| {
                Err(format!("{moved} pages were moved, the next one was not: {error}"))
            })
        }
        _ => Ok(()),
    };
    if options.show {
        show_process(host, &process);
    }
    process.exit()?;
    placed.and(moved)
}

/// Every policy in turn.
fn show_all(host: &Host<'_>, options: &Options) -> Result<(), String> {
    if !options.hardware {
        print!("{}", host.hardware());
    }
    println!("\na process touches {} pages and reads where they are\n", options.pages);
    let smallest = host.file.nodes().map(|(_, spec)| spec.frames()).min().unwrap_or(0);
    ensure(
        options.pages as u64 <= smallest,
        &format!("the smallest node has {smallest} frames; touch no more with --pages, or name one policy"),
    )?;
    let bars = demo::run(host, options.pages)?;
    if let Some(path) = &options.svg {
        std::fs::write(path, demo::svg(host, &bars))
            .map_err(|error| format!("the picture cannot be written to {} ({error})", path.display()))?;
        println!("\npicture: {}", path.display());
    }
    println!(
        "\nEvery page was where its policy says, and no private node gave a frame that its owner did not open it for."
    );
    Ok(())
}

fn show_process(host: &Host<'_>, process: &Process<'_, '_>) {
    let names = |mask: &NodeMask| mask.iter().map(|node| host.name(node)).collect::<Vec<_>>().join(" ");
    println!("policy: {}", process.policy.mode());
    println!("ordinary nodes: {}", names(process.policy.ordinary()));
    println!("private nodes: {}", names(process.policy.private()));
    println!("cpuset: {}", names(&process.mems.ordinary().union(process.mems.private())));
    println!("cpu on: {}", host.name(process.cpu));
    let counts = process.counters.read();
    println!(
        "faults: {} hard, {} of them elsewhere, {} failed",
        counts.hard, counts.hard_elsewhere, counts.failed
    );
    for (node, pages) in process.places() {
        println!("node {} {}: {pages} pages, {} frames free", node.get(), host.name(node), host.free(node));
    }
}

/// A node by its name or number.
fn node(host: &Host<'_>, text: &str) -> Result<NodeId, String> {
    let number = || text.parse().ok().and_then(|number: u16| host.ids().find(|node| node.get() == number));
    let names: Vec<_> = host.file.nodes().map(|(name, _)| name).collect();
    host.file.node(text).or_else(number).ok_or_else(|| {
        format!("{text:?} is no node; there are {} (0 to {})", names.join(", "), names.len() - 1)
    })
}

/// Nodes as `all`, `dram0,cxl`, `0-2,4`.
fn nodes(host: &Host<'_>, text: &str) -> Result<NodeMask, String> {
    if text == "all" {
        return Ok(host.ids().fold(NodeMask::EMPTY, |mask, node| mask.with(node)));
    }
    let mut mask = NodeMask::EMPTY;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let range = part
            .split_once('-')
            .and_then(|(from, to)| Some((from.parse::<u16>().ok()?, to.parse::<u16>().ok()?)));
        match range {
            Some((from, to)) if from <= to => {
                for number in from..=to {
                    mask.insert(node(host, &number.to_string())?);
                }
            }
            _ => mask.insert(node(host, part)?),
        }
    }
    Ok(mask)
}

/// Nodes and weights as `dram0=3,dram1=1`.
fn weights(host: &Host<'_>, text: &str, weights: &mut Vec<u8>) -> Result<NodeMask, String> {
    let mut mask = NodeMask::EMPTY;
    *weights = vec![1; host.ids().count()];
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, weight) =
            part.split_once('=').ok_or_else(|| format!("{part}: write NODE=WEIGHT, as dram0=3"))?;
        let node = node(host, name)?;
        let weight = weight.parse().ok().filter(|weight| *weight > 0);
        weights[node.index()] =
            weight.ok_or_else(|| format!("{part}: a weight is a number from 1 to 255"))?;
        mask.insert(node);
    }
    Ok(mask)
}
