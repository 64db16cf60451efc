//! The trap that private memory nodes set for file pages, and how it is seen: process A reads a file, process B maps it,
//! wants it on the private node and touches it.
//!
//! `cargo run --release --example page_cache_soft_fault [FILE] [--machine FILE]`; see `--help`.

#[macro_use]
#[path = "support/pipe.rs"]
mod pipe;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use pnode::buddy::Zone;
use pnode::core::policy::{FaultCounters, FaultReport, Mode, PlaceError, PolicyError, Target, Wish};
use pnode::core::{
    BoxedStorage, Distances, Features, Frame, Mems, NodeId, NodeMask, Nodes, PageOrigin, Pfn, Placement,
    Policy, Private,
};

#[path = "support/machine.rs"]
#[allow(dead_code, reason = "the examples share it, and each uses a part")]
mod machine;
#[path = "support/screen.rs"]
#[allow(dead_code, reason = "the examples share it, and each uses a part")]
mod screen;

use machine::Described;
use screen::{Bytes, Count, phase};

const HELP: &str = "\
Soft faults: why a process that binds a mapped file to a private node would not get what it asked for,
and how this is refused, reported and counted.

usage: page_cache_soft_fault [FILE] [--machine FILE]

  FILE             the file that both processes use, its first 64 MiB (default: this program's own executable)
  --machine FILE   the nodes, as a machine file has them, instead of two ordinary ones and a private one that
                   fit the file; of a file that is too large for them the beginning is used
  --help           this text

Process A reads the file; the page cache fills with ordinary memory. Process B maps it and asks for the
private node: refused, with the reason. B then binds itself as a whole, which is allowed, and touches the
file: every page is there already, elsewhere, and an observer counts that. At last B copies the file to
anonymous memory bound to the private node, where the bind holds to the last page and not one further.
The exit code is 0 only if all of that held.";

const PAGE: usize = 4096;
const LIMIT: u64 = 64 << 20;

fn main() -> ExitCode {
    match arguments() {
        Ok(None) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Some((path, machine))) => match read(&path).and_then(|data| show(&path, data, machine)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(sentence) => failure(&sentence),
        },
        Err(sentence) => failure(&sentence),
    }
}

fn failure(sentence: &str) -> ExitCode {
    eprintln!("\npage_cache_soft_fault: {sentence}");
    ExitCode::FAILURE
}

/// The file and the machine, if one is named; `None` if help is wanted.
fn arguments() -> Result<Option<(PathBuf, Option<Described>)>, String> {
    let (mut path, mut machine) = (None, None);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let word = argument.to_string_lossy();
        match &*word {
            "--help" | "-h" => return Ok(None),
            "--machine" => {
                let file = arguments.next().ok_or("--machine needs a file name; see --help")?;
                machine = Some(Described::read(&file)?);
            }
            _ if word.starts_with('-') => return Err(format!("{word} is no option; see --help")),
            _ if path.is_some() => {
                return Err(format!("one file is enough, and {word} is a second; see --help"));
            }
            _ => path = Some(PathBuf::from(&argument)),
        }
    }
    let path = path.map_or_else(|| std::env::current_exe().map_err(say), Ok)?;
    Ok(Some((path, machine)))
}

/// A machine that fits a file of `pages` pages.
fn fitting(pages: usize) -> Result<Described, String> {
    let twice = 2 * pages;
    Described::own(&format!(
        "node near   ordinary {twice}frames\n\
         node far    ordinary {twice}frames\n\
         node device private  {pages}frames class accelerator doors USER_NUMA\n\
         distance near far 20\ndistance near device 30\ndistance far device 30\n"
    ))
}

fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    file.take(LIMIT).read_to_end(&mut data).map_err(|error| format!("{}: {error}", path.display()))?;
    if data.is_empty() {
        Err(format!("{} is empty; name a file with something in it", path.display()))
    } else {
        Ok(data)
    }
}

/// Any error as the sentence that it prints as.
fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What must hold: the program fails with `what` if not.
fn check(held: bool, what: &str) -> Result<(), String> {
    if held { Ok(()) } else { Err(format!("this did not hold: {what}")) }
}

type Machine<'m> = Nodes<'m, Zone<'m>>;

/// The contents of memory, by frame.
type Memory = BTreeMap<Pfn, Vec<u8>>;

/// A process, as far as page faults are concerned.
struct Process<'m> {
    nodes: &'m Machine<'m>,
    cpu: NodeId,
    policy: Policy,
    mems: Mems,
    counters: FaultCounters,
}

impl<'m> Process<'m> {
    fn new(nodes: &'m Machine<'m>, cpu: NodeId) -> Result<Self, String> {
        let mems = Mems::root(nodes).map_err(say)?;
        Ok(Self { nodes, cpu, policy: Policy::DEFAULT, mems, counters: FaultCounters::new() })
    }

    /// Asks for pages of a mapping to be bound to `node`: mbind.
    fn bind(&self, node: NodeId, origin: PageOrigin) -> Result<Policy, PolicyError> {
        Policy::new(self.nodes, &bind_to(node), Target::Range(origin), &self.mems)
    }

    fn placement<'p>(&'p self, origin: PageOrigin, range: &'p Policy) -> Placement<'p> {
        Placement::new(origin, self.cpu).task(&self.policy).range(range).mems(&self.mems)
    }
}

fn bind_to(node: NodeId) -> Wish {
    Wish::new(Mode::Bind, NodeMask::of(node))
}

/// The pages of one file that are in memory. They belong to the file: whoever touches one first places it.
struct PageCache<'d> {
    file: &'d [u8],
    pages: BTreeMap<usize, Frame>,
}

impl<'d> PageCache<'d> {
    fn count(&self) -> usize {
        self.file.len().div_ceil(PAGE)
    }

    fn contents(&self, page: usize) -> &'d [u8] {
        let end = self.file.len().min((page + 1) * PAGE);
        &self.file[page * PAGE..end]
    }

    /// A process touches all pages of the file; the last fault is returned, for people to read.
    fn touch(&mut self, who: &Process<'_>, memory: &mut Memory) -> Result<FaultReport, String> {
        let mut last = None;
        for page in 0..self.count() {
            let placement = who.placement(PageOrigin::PageCache, &Policy::DEFAULT);
            let report = match self.pages.get(&page) {
                Some(frame) => placement.soft(frame.node(), who.nodes.distances()),
                None => {
                    let placed = who.nodes.place(&placement).map_err(say)?;
                    memory.insert(placed.frame.pfn(), self.contents(page).to_vec());
                    self.pages.insert(page, placed.frame);
                    placed.report
                }
            };
            who.counters.count(&report);
            last = Some(report);
        }
        last.ok_or_else(|| "the file has no page".to_owned())
    }

    /// Drops every other page, as memory pressure may do at any time.
    fn drop_half(&mut self, nodes: &Machine<'_>, memory: &mut Memory) -> Result<usize, String> {
        let (keep, gone) = std::mem::take(&mut self.pages).into_iter().partition(|(page, _)| page % 2 == 0);
        self.pages = keep;
        let gone: BTreeMap<usize, Frame> = gone;
        let count = gone.len();
        for frame in gone.into_values() {
            memory.remove(&frame.pfn());
            nodes.free(frame).map_err(say)?;
        }
        Ok(count)
    }

    fn on(&self, node: NodeId) -> usize {
        self.pages.values().filter(|frame| frame.node() == node).count()
    }
}

fn show(path: &std::path::Path, mut data: Vec<u8>, machine: Option<Described>) -> Result<(), String> {
    let machine = machine.map_or_else(|| fitting(data.len().div_ceil(PAGE)), Ok)?;
    let file = &machine.file;
    let near = machine.ordinary()?;
    let private = machine.role(
        "a private node whose owner opened USER_NUMA",
        |spec| spec.is_private() && spec.doors().contains(Features::USER_NUMA),
        "node gpu private 8MiB class accelerator doors USER_NUMA",
    )?;
    let specs: Vec<_> = file.nodes().collect();
    let room = specs[near.index()].1.frames().min(specs[private.index()].1.frames());
    data.truncate(usize::try_from(room).map_err(say)?.saturating_mul(PAGE));
    let (data, pages) = (&data[..], data.len().div_ceil(PAGE));

    let (zones, ids, table) = (machine.zones()?, machine.ids(), machine.distances());
    let mut storage = BoxedStorage::new(specs.len(), zones.iter().map(Vec::len).sum()).map_err(say)?;
    let distances = Distances::from_table(specs.len(), &table).map_err(say)?;
    let nodes = Nodes::new(storage.slots(), distances).map_err(say)?;
    println!("file     {}, {}, {} pages", path.display(), Bytes(data.len() as u64), Count(pages as u64));
    for ((node, (name, spec)), zones) in ids.iter().zip(&specs).zip(&zones) {
        let size = Bytes(spec.frames() * PAGE as u64);
        if spec.is_private() {
            let claim = Private::class(spec.memory_class());
            let owner = nodes.register(*node, claim, spec.doors()).map_err(say)?;
            zones.iter().try_for_each(|zone| owner.online(zone)).map_err(say)?;
            println!("{node:?}   {name}: private, {size}; open doors: {}", spec.doors());
        } else {
            let handle = nodes.ordinary(*node, spec.memory_class()).map_err(say)?;
            zones.iter().try_for_each(|zone| handle.online(zone)).map_err(say)?;
            println!(
                "{node:?}   {name}: ordinary, {size}{}",
                if *node == near { "; both processes run here" } else { "" }
            );
        }
    }
    let device = file.name(private).unwrap_or("the device");

    let mut memory = Memory::new();
    let mut cache = PageCache { file: data, pages: BTreeMap::new() };
    let a = Process::new(&nodes, near)?;
    let mut b = Process::new(&nodes, near)?;

    phase(1, "read", "process A reads the file");
    let fault = cache.touch(&a, &mut memory)?;
    println!("   {} faults like this: {fault}", Count(a.counters.read().hard));
    check(cache.on(near) == pages, "A's pages are on the node it runs on")?;

    phase(2, "bind", &format!("process B maps the file and binds the mapping to {device}"));
    match b.bind(private, PageOrigin::PageCache) {
        Err(error @ PolicyError::PageCache { .. }) => println!("   refused: {error}"),
        Err(error) => return Err(format!("the bind was refused for another reason: {error}")),
        Ok(_) => return Err("the bind of page cache to a private node was accepted".to_owned()),
    }

    phase(3, "touch", "B touches the file all the same");
    let fault = cache.touch(&b, &mut memory)?;
    println!("   {} faults like this: {fault}", Count(b.counters.read().soft));
    check(b.counters.read().soft_elsewhere == 0, "no policy is in force, so none was disregarded")?;

    phase(4, "wish", &format!("B binds itself as a whole to {device}, which it may, and touches the file"));
    b.policy = Policy::new(&nodes, &bind_to(private), Target::Task, &b.mems).map_err(say)?;
    let fault = cache.touch(&b, &mut memory)?;
    println!("   {} faults like this: {fault}", Count(b.counters.read().soft_elsewhere));
    check(
        b.counters.read().soft_elsewhere == pages as u64,
        "each soft fault that disregarded the policy was counted",
    )?;
    let dropped = cache.drop_half(&nodes, &mut memory)?;
    println!("   memory pressure drops {} pages of the file; B touches it again", Count(dropped as u64));
    cache.touch(&b, &mut memory)?;
    let counts = b.counters.read();
    println!(
        "   {} hard faults put them back: page cache does not ask for private nodes",
        Count(counts.hard)
    );
    check(
        counts.hard_elsewhere == dropped as u64,
        "each hard fault that disregarded the policy was counted",
    )?;
    check(
        cache.on(private) == 0 && zones[private.index()].iter().all(|zone| zone.used_frames() == 0),
        "no page of the file was ever on the private node",
    )?;

    phase(5, "copy", &format!("B copies the file to anonymous memory bound to {device}"));
    let range = b.bind(private, PageOrigin::PrivateAnonymous).map_err(say)?;
    let mut copy = Vec::new();
    let mut fault = None;
    for (page, frame) in &cache.pages {
        let placed = nodes.place(&b.placement(PageOrigin::PrivateAnonymous, &range)).map_err(say)?;
        b.counters.count(&placed.report);
        memory.insert(placed.frame.pfn(), memory[&frame.pfn()].clone());
        check(placed.frame.node() == private, "a bound page of anonymous memory is on the private node")?;
        check(memory[&placed.frame.pfn()] == cache.contents(*page), "the copy has the file's bytes")?;
        fault = Some(placed.report);
        copy.push(placed.frame);
    }
    let fault = fault.ok_or("nothing was copied")?;
    println!("   {} faults like this: {fault}", Count(copy.len() as u64));

    phase(6, "spill?", &format!("B touches one page more than {device} has"));
    let ordinary = || {
        let ordinary = specs.iter().zip(&zones).filter(|((_, spec), _)| !spec.is_private());
        ordinary.flat_map(|(_, zones)| zones).map(|zone| zone.used_frames()).sum::<u64>()
    };
    let before = ordinary();
    loop {
        match nodes.place(&b.placement(PageOrigin::PrivateAnonymous, &range)) {
            // A file that is smaller than the node leaves room.
            Ok(placed) if placed.frame.node() == private => {
                b.counters.count(&placed.report);
                copy.push(placed.frame);
            }
            Err(error @ PlaceError::BoundNodesFull { .. }) => {
                println!("   no page: {error}");
                break;
            }
            Err(error) => return Err(format!("the bind failed for another reason: {error}")),
            Ok(placed) => return Err(format!("the bind spilled: {}", placed.report)),
        }
    }
    b.counters.count_failure();
    check(ordinary() == before, "a full bind takes nothing from ordinary nodes")?;

    println!("\nwhat the observer counted");
    println!("             hard   elsewhere        soft   elsewhere      failed");
    for (name, process) in [("A", &a), ("B", &b)] {
        let counts = process.counters.read();
        println!(
            "   {name} {:>12} {:>11} {:>11} {:>11} {:>11}",
            Count(counts.hard),
            Count(counts.hard_elsewhere),
            Count(counts.soft),
            Count(counts.soft_elsewhere),
            Count(counts.failed)
        );
    }

    for frame in copy.into_iter().chain(std::mem::take(&mut cache.pages).into_values()) {
        nodes.free(frame).map_err(say)?;
    }
    check(zones.iter().flatten().all(|zone| zone.used_frames() == 0), "every frame was given back")?;
    println!(
        "\nEverything held: refused where it could not hold, counted where it did not, kept where it could."
    );
    Ok(())
}
