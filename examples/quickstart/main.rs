//! A private memory node at work, in a few seconds: real memory, real page faults, your data.
//!
//! `cargo run --release --example quickstart [FILE]`; see `--help`.

#[macro_use]
#[path = "../support/pipe.rs"]
mod pipe;

use std::process::ExitCode;

use pnode::core::{AllocError, Features, Frame, NodeId, Reason, Request};
use pnode::user::Machine;
use pnode::user::machine::{Mapping, Place};

mod input;
#[path = "../support/machine.rs"]
#[allow(dead_code, reason = "the examples share it, and each uses a part")]
mod machine;
mod options;
#[path = "../support/screen.rs"]
mod screen;

use input::{Input, checksum};
use machine::Described;
use options::{Command, Options};
use screen::{Bytes, Count, Progress, phase};

fn main() -> ExitCode {
    let outcome = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            println!("{}", options::HELP);
            Ok(())
        }
        Ok(Command::Run(options)) => run(&options),
        Err(sentence) => Err(sentence),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("\nquickstart: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Any error as the sentence that it prints as.
fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn run(options: &Options) -> Result<(), String> {
    let mut input = input::read(&options.input, options.limit)?;
    if let Some(machine) = &options.machine {
        // A tenth more ordinary memory than data, as in the machine that the program makes itself.
        let room = machine.ordinary_frames() * FRAME * 10 / 11;
        if input.bytes.len() > room {
            println!(
                "machine      has room for {} of the input's {}",
                Bytes(room as u64),
                Bytes(input.bytes.len() as u64)
            );
            input.bytes.truncate(room);
        }
    }
    let mut show = Show::new(&input, options)?;
    show.load()?;
    let greedy = show.press()?;
    show.demote(options)?;
    show.read_back()?;
    show.write()?;
    show.unplug()?;
    show.audit(greedy)
}

/// The size of a frame on most machines; what is sized by it need not be exact.
const FRAME: usize = 4096;

/// A machine that is small enough to be under pressure with this input: a tenth more ordinary memory than data, and a
/// private node that advertises three times its memory.
fn machine_for(input: &Input) -> String {
    let pages = input.bytes.len().div_ceil(FRAME);
    let ordinary = (pages * 11 / 10).max(64) / 2 + 16;
    let physical = (pages * 9 / 20).max(64);
    format!(
        "node dram0 ordinary {ordinary}frames\n\
         node dram1 ordinary {ordinary}frames\n\
         node zip compressed {physical}frames holds {}frames\n\
         distance dram0 dram1 20\n\
         distance dram0 zip 30\n\
         distance dram1 zip 30\n",
        physical * 3
    )
}

/// The machine, the data on it, and what the data should be.
struct Show<'i> {
    input: &'i Input,
    machine: Machine,
    /// The ordinary nodes.
    dram: Vec<NodeId>,
    private: NodeId,
    memory: Mapping,
    page: usize,
    pages: usize,
    /// What each page must sum to.
    expected: Vec<u64>,
    verified: u32,
}

impl<'i> Show<'i> {
    fn new(input: &'i Input, options: &Options) -> Result<Self, String> {
        let own;
        let description = match &options.machine {
            Some(description) => description,
            None => {
                own = Described::own(&machine_for(input))?;
                &own
            }
        };
        let private = description.role(
            "a compressed node that may be unplugged",
            |spec| spec.advertised().is_some() && spec.doors().contains(Features::HOTUNPLUG),
            "node zip compressed 4MiB holds 12MiB",
        )?;
        let doors =
            description.file.nodes().nth(private.index()).map_or(Features::NONE, |(_, spec)| spec.doors());
        let near = description.ordinary()?;
        let mut builder = description.file.builder();
        if let Some(choice) = options.backend {
            builder = builder.faults(choice);
        }
        let machine = builder.build().map_err(say)?;
        let page = machine.page().bytes();
        let pages = input.bytes.len().div_ceil(page);
        let is_private = |node| machine.state(node).is_some_and(|state| state.is_private());
        let dram: Vec<_> = machine.nodes().filter(|node| !is_private(*node)).collect();
        let memory = machine.map(pages, near).map_err(say)?;

        println!("input        {}, {}", input.name, Bytes(input.bytes.len() as u64));
        println!("page faults  {}", machine.faults());
        for node in dram.iter().copied() {
            let bytes = machine.frames(node) * page as u64;
            println!("node {}       ordinary memory, {}", node.get(), Bytes(bytes));
        }
        let usage = machine.compressed(private).ok_or("the private node keeps no pages")?;
        println!(
            "node {}       private, compressed: has {}, advertises {}",
            private.get(),
            Bytes(usage.physical),
            Bytes(usage.advertised)
        );
        println!("             open doors: {}", doors);
        let expected = vec![0; pages];
        Ok(Self { input, machine, dram, private, memory, page, pages, expected, verified: 0 })
    }

    /// The bytes of a page of the input; the last one is filled up with zeroes.
    fn page_of_input(&self, page: usize) -> Vec<u8> {
        let start = page * self.page;
        let end = (start + self.page).min(self.input.bytes.len());
        let mut bytes = self.input.bytes[start..end].to_vec();
        bytes.resize(self.page, 0);
        bytes
    }

    fn load(&mut self) -> Result<(), String> {
        phase(1, "Load", "every page is touched, and every first touch faults");
        let mut progress = Progress::new("pages", self.pages as u64);
        for page in 0..self.pages {
            let bytes = self.page_of_input(page);
            self.expected[page] = checksum(&bytes);
            self.memory
                .write(page * self.page, &bytes)
                .map_err(|error| format!("page {page} of the input: {error}"))?;
            progress.at(page as u64);
        }
        let took = progress.done();
        let faults = self.machine.counters().hard_faults;
        if faults < self.pages as u64 {
            return Err(format!("{} pages were touched, but only {faults} faults came", self.pages));
        }
        let each = took.as_secs_f64() * 1e6 / faults as f64;
        println!("   {} faults, {each:.1} µs each with the copying", Count(faults));
        self.show_places();
        Ok(())
    }

    fn press(&mut self) -> Result<Vec<Frame>, String> {
        phase(2, "Pressure", "a greedy program takes all ordinary memory that is left");
        let private_before = self.machine.free_frames(self.private);
        let mut greedy = Vec::new();
        let refusal = loop {
            match self.machine.alloc(Request::page().prefer(self.private)) {
                Ok(frame) => greedy.push(frame),
                Err(error) => break error,
            }
        };
        let on = |node: NodeId| greedy.iter().filter(|frame| frame.node() == node).count() as u64;
        let got: Vec<_> = self
            .dram
            .iter()
            .chain([&self.private])
            .map(|node| format!("{} of node {}", Count(on(*node)), node.get()))
            .collect();
        println!("   it asked for node {} and got frames: {}", self.private.get(), got.join(", "));
        println!("   then       refused: {refusal}");
        let insisting = Request::page().prefer(self.private).this_node_only();
        match self.machine.alloc(insisting) {
            Err(error @ AllocError::Private { .. }) => println!("   insisting  refused: {error}"),
            other => {
                return Err(format!("a request that insists on the private node was not refused: {other:?}"));
            }
        }
        for (who, reason) in
            [("a bind", Reason::UserPolicy), ("a pin", Reason::Pin), ("compaction", Reason::Compaction)]
        {
            match self.machine.grant(self.private, reason) {
                Err(denied) => println!("   {who:<10} refused: {denied}"),
                Ok(_) => return Err(format!("{who} was let in, though its door is shut")),
            }
        }
        if on(self.private) > 0 || self.machine.free_frames(self.private) != private_before {
            return Err("an ordinary request reached the private node".into());
        }
        Ok(greedy)
    }

    fn demote(&mut self, options: &Options) -> Result<(), String> {
        phase(3, "Demote", "pages that nobody touched for an age move to the private node");
        // The program goes on working on every fifth page; the others grow cold.
        self.machine.age();
        for page in (0..self.pages).step_by(5) {
            self.check_page(page)?;
        }
        let wanted = (self.pages * 7 / 10).max(1);
        let mut progress = Progress::new("pages", wanted as u64);
        let mut moved = 0;
        while moved < wanted {
            let step = self.machine.reclaim((wanted - moved).min(64));
            if step == 0 {
                break;
            }
            moved += step;
            progress.at(moved as u64);
        }
        if moved == wanted {
            progress.done();
        } else {
            let refused = self.machine.counters().demotion_refused;
            println!(
                "   {} pages moved, then the node was full ({} refused)",
                Count(moved as u64),
                Count(refused)
            );
        }
        if self.stored_pages().is_empty() {
            // Another private node is nearer, and took them all; this one is shown.
            moved = 0;
            for page in (0..self.pages).filter(|page| page % 5 != 0).take(wanted) {
                moved += self.memory.demote(page..page + 1, self.private).map_err(say)?.pages;
            }
            println!("   they are on a nearer node; {} pages move on", Count(moved as u64));
        }
        let usage = self.machine.compressed(self.private).ok_or("the private node is gone")?;
        let stats = usage.stats;
        println!(
            "   {} pages: {} of data became {} ({:.2} : 1 with packing)",
            Count(stats.pages),
            Bytes(stats.original_bytes),
            Bytes(stats.compressed_bytes),
            stats.original_bytes as f64 / stats.pool_bytes.max(1) as f64,
        );
        println!(
            "   physical use: {} of {} ({} of it to read through); it stands for {} of {} advertised",
            Bytes(stats.pool_bytes + usage.window),
            Bytes(usage.physical),
            Bytes(usage.window),
            Bytes(stats.original_bytes),
            Bytes(usage.advertised),
        );
        if moved == 0 {
            return Err("no page moved: the input does not compress; name another one".into());
        }
        let occupancy = self.machine.occupancy();
        print!("{occupancy}");
        if let Some(file) = &options.svg {
            let title =
                format!("pnode quickstart: {} in {} pages", self.input.name, Count(self.pages as u64));
            std::fs::write(file, occupancy.to_svg(&title))
                .map_err(|error| format!("the picture cannot be written to {} ({error})", file.display()))?;
            println!("   picture: {}", file.display());
        }
        Ok(())
    }

    fn read_back(&mut self) -> Result<(), String> {
        phase(
            4,
            "Read",
            "everything again: a page of the private node is read through a fault, and stays there",
        );
        let stored = self.stored_pages();
        let before = self.machine.counters().read_faults;
        self.verify()?;
        let faults = self.machine.counters().read_faults - before;
        println!("   {} reads came through the private node", Count(faults));
        if faults < stored.len() as u64 || self.stored_pages() != stored {
            return Err("reading moved pages off the private node".into());
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), String> {
        phase(
            5,
            "Write",
            "one stored page in eight is written to: each write moves its page to ordinary memory",
        );
        let stored = self.stored_pages();
        let mut shown = 0;
        let mut written = 0u64;
        for page in stored.iter().copied().step_by(8) {
            let text = format!("written by the quickstart, page {page}");
            let mut bytes = self.page_of_input(page);
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            self.expected[page] = checksum(&bytes);
            self.memory.write(page * self.page, text.as_bytes()).map_err(say)?;
            written += 1;
            match self.memory.place(page) {
                Place::Resident { node, pfn } if node != self.private => {
                    if shown < 3 {
                        shown += 1;
                        println!(
                            "   page {page:<7} compressed on node {} -> frame {pfn} of node {}",
                            self.private.get(),
                            node.get()
                        );
                    }
                }
                place => return Err(format!("page {page} was written and is still {place:?}")),
            }
        }
        let promoted = self.machine.counters().promoted;
        println!("   {} pages written, {} promoted", Count(written), Count(promoted));
        if promoted != written {
            return Err("a write did not promote its page exactly once".into());
        }
        self.verify()
    }

    fn unplug(&mut self) -> Result<(), String> {
        phase(6, "Unplug", "the private node goes away while its pages are in use");
        let stored = self.stored_pages().len();
        let unplugged = self.machine.unplug(self.private).map_err(say)?;
        println!(
            "   {} pages moved to ordinary memory; node {} is gone",
            Count(unplugged.pages as u64),
            self.private.get()
        );
        if unplugged.pages != stored {
            return Err(format!("{stored} pages were on the node, {} were moved", unplugged.pages));
        }
        self.show_places();
        self.verify()
    }

    fn audit(self, greedy: Vec<Frame>) -> Result<(), String> {
        phase(7, "Audit", "every zone against what is held");
        for frame in greedy {
            self.machine.free(frame).map_err(say)?;
        }
        self.machine.audit().map_err(say)?;
        let Self { machine, memory, dram, pages, verified, .. } = self;
        drop(memory);
        machine.audit().map_err(say)?;
        for node in dram {
            let (free, all) = (machine.free_frames(node), machine.frames(node));
            println!("   node {}: {} of {} frames free", node.get(), Count(free), Count(all));
            if free != all {
                return Err(format!("{} frames of node {} are lost", all - free, node.get()));
            }
        }
        println!(
            "\nOK: {} pages, every byte verified {verified} times; nothing but demotion ever reached the private node.",
            Count(pages as u64)
        );
        Ok(())
    }

    fn check_page(&self, page: usize) -> Result<(), String> {
        let mut bytes = vec![0; self.page];
        self.memory.read(page * self.page, &mut bytes).map_err(|error| format!("page {page}: {error}"))?;
        if checksum(&bytes) == self.expected[page] {
            Ok(())
        } else {
            Err(format!("page {page} has lost its bytes"))
        }
    }

    /// Reads every page and compares its checksum.
    fn verify(&mut self) -> Result<(), String> {
        let mut progress = Progress::new("verified", self.pages as u64);
        for page in 0..self.pages {
            self.check_page(page)?;
            progress.at(page as u64);
        }
        progress.done();
        self.verified += 1;
        Ok(())
    }

    /// The pages that are compressed on the private node now.
    fn stored_pages(&self) -> Vec<usize> {
        (0..self.pages).filter(|page| self.memory.place(*page).is_compressed_on(self.private)).collect()
    }

    fn show_places(&self) {
        let on = |node: NodeId| {
            (0..self.pages).filter(|page| self.memory.place(*page).node() == Some(node)).count()
        };
        let places: Vec<_> = self
            .machine
            .nodes()
            .map(|node| format!("node {}: {}", node.get(), Count(on(node) as u64)))
            .collect();
        println!("   pages are on {}", places.join(", "));
    }
}
