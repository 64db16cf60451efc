//! Coherent accelerator memory: working memory that the driver faults in, evicts in order of use, and overcommits.
//!
//! `cargo run --release --example gpu_coherent`

#[macro_use]
#[path = "support/pipe.rs"]
mod pipe;
#[path = "support/cli.rs"]
mod cli;

use std::collections::VecDeque;
use std::process::ExitCode;

use pnode::core::{AllocError, MemoryClass, NodeId, Request};
use pnode::user::fault::FaultError;
use pnode::user::machine::{Mapping, Place, Placement};
use pnode::user::{Machine, NodeSpec};

use cli::{Options, ensure, say};

const HELP: &str = "\
Coherent accelerator memory.

Three tensors want to be on a device that has room for two. The driver owns the node: its tensors are
mapped so that a first touch finds a frame on the device, or fails - never elsewhere by itself. What a
large device has more than two tensors need, its firmware keeps. Before each launch the driver brings the launch's tensors in and evicts the ones that were used
least recently to ordinary memory. The launches compute on the real bytes, and the results are checked.
Each line shows where the pages are when the launch runs: D on the device, . in ordinary memory.";

/// The most pages of a tensor.
const LARGEST: usize = 2048;
/// How many places of a tensor are shown.
const SHOWN: usize = 24;

const MACHINE: &str = "\
node dram ordinary 256frames
node gpu private 96frames class accelerator";

const NAMES: [char; 3] = ['A', 'B', 'C'];

fn main() -> ExitCode {
    cli::main("gpu_coherent", HELP, MACHINE, run)
}

/// The part of a driver that says which tensors are on the device.
struct Driver<'m> {
    machine: &'m Machine,
    dram: NodeId,
    device: NodeId,
    tensors: Vec<Mapping>,
    /// Pages of a tensor.
    pages: usize,
    /// Tensors by last use, the oldest first.
    order: VecDeque<usize>,
    evicted: usize,
    fetched: usize,
    /// The tensors that gave up pages since the last line, in that order, and how many.
    victims: Vec<(usize, usize)>,
}

impl Driver<'_> {
    /// Brings the pages of `wanted` onto the device. What is not wanted makes room, oldest tensor first.
    fn prepare(&mut self, wanted: &[usize]) -> Result<(), String> {
        for tensor in wanted {
            self.order.retain(|other| other != tensor);
            self.order.push_back(*tensor);
        }
        let grant = self.machine.owner_grant(self.device).map_err(say)?;
        for tensor in wanted {
            for page in 0..self.pages {
                let place = self.tensors[*tensor].place(page);
                let was_away = place != Place::Untouched && !place.is_resident_on(self.device);
                loop {
                    let moved = match self.tensors[*tensor].place(page) {
                        // The first touch faults it in on the device.
                        Place::Untouched => {
                            self.tensors[*tensor].write(page * self.machine.page().bytes(), &[0])
                        }
                        _ => self.tensors[*tensor].migrate_with(page, &grant),
                    };
                    match moved {
                        Ok(()) => break,
                        Err(FaultError::NoFrame(AllocError::NoMemory { .. })) => self.evict_one(wanted)?,
                        Err(error) => return Err(say(error)),
                    }
                }
                self.fetched += usize::from(was_away);
            }
        }
        Ok(())
    }

    /// Moves one page of the tensor that was used least recently to ordinary memory.
    fn evict_one(&mut self, wanted: &[usize]) -> Result<(), String> {
        for index in self.order.iter().copied().filter(|tensor| !wanted.contains(tensor)) {
            let tensor = &self.tensors[index];
            if let Some(page) = (0..self.pages).find(|page| tensor.place(*page).is_resident_on(self.device)) {
                tensor.migrate(page, self.dram).map_err(say)?;
                self.evicted += 1;
                match self.victims.last_mut() {
                    Some((last, pages)) if *last == index => *pages += 1,
                    _ => self.victims.push((index, 1)),
                }
                return Ok(());
            }
        }
        Err("the tensors of one launch do not fit the device; launch on fewer".into())
    }

    fn show(&mut self, what: &str) {
        let map = |tensor: &Mapping| -> String {
            let place = |page| if tensor.place(page).is_resident_on(self.device) { 'D' } else { '.' };
            (0..self.pages).step_by(self.pages.div_ceil(SHOWN)).map(place).collect()
        };
        let maps: Vec<_> = self.tensors.iter().map(map).collect();
        let victims: Vec<_> = std::mem::take(&mut self.victims)
            .into_iter()
            .map(|(tensor, pages)| format!("{pages} of {}", NAMES[tensor]))
            .collect();
        let evicted = if victims.is_empty() { "nothing".into() } else { victims.join(", ") };
        println!("{what:<10} A {}  B {}  C {}  evicted {evicted}", maps[0], maps[1], maps[2]);
    }
}

fn run(options: &Options) -> Result<(), String> {
    let description = &options.machine;
    let accelerator = |spec: &NodeSpec| spec.memory_class().name() == MemoryClass::ACCELERATOR.name();
    let device = description.role(
        "a private node of class accelerator",
        |spec| spec.is_private() && accelerator(spec),
        "node gpu private 96frames class accelerator",
    )?;
    let dram = description.ordinary()?;
    let machine = options.build()?;
    // Migrating by hand names one ordinary node, which must have room for a tensor that is evicted, and for some more.
    let room = machine.frames(dram).min(machine.frames(device) * 2) as usize;
    let pages = (room / 4).min(LARGEST);
    if pages == 0 {
        return Err(description.about("a tensor needs a page: 4 ordinary frames, and 2 of the device"));
    }
    let grant = machine.owner_grant(device).map_err(say)?;
    let surplus = machine.frames(device) - 2 * pages as u64;
    let firmware =
        (0..surplus).map(|_| grant.alloc(Request::page()).map_err(say)).collect::<Result<Vec<_>, _>>()?;
    drop(grant);
    let map = |_| machine.map_at(pages, Placement::Owner(device)).map_err(say);
    let tensors = (0..NAMES.len()).map(map).collect::<Result<Vec<_>, _>>()?;
    let order = VecDeque::new();
    let mut driver = Driver {
        machine: &machine,
        dram,
        device,
        tensors,
        pages,
        order,
        evicted: 0,
        fetched: 0,
        victims: Vec::new(),
    };

    // Without the driver's help the third tensor does not fit, and does not spill.
    let mut expected = vec![vec![0u64; pages]; NAMES.len()];
    driver.prepare(&[0])?;
    driver.prepare(&[1])?;
    driver.show("loaded");
    let refused = driver.tensors[2].write(0, &[1]);
    let Err(refusal @ FaultError::NoFrame(_)) = refused else {
        return Err(format!("the device is full, and a touch came to {refused:?}"));
    };
    println!("a touch of C refused: {refusal}\n");

    // (destination, source): destination += source + 1, page by page.
    for (destination, source) in [(0, 1), (2, 1), (0, 2), (1, 2), (0, 1), (2, 0)] {
        driver.prepare(&[source, destination])?;
        driver.show(&format!("{0} += {1} + 1", NAMES[destination], NAMES[source]));
        let on_device =
            |tensor: usize| (0..pages).all(|page| driver.tensors[tensor].place(page).is_resident_on(device));
        ensure(
            on_device(source) && on_device(destination),
            "a launch ran on pages that are not on the device",
        )?;
        for page in 0..pages {
            let (from, to) = (load(&driver, source, page)?, load(&driver, destination, page)?);
            store(&driver, destination, page, from + to + 1)?;
        }
        let added = expected[source].clone();
        expected[destination].iter_mut().zip(added).for_each(|(to, from)| *to += from + 1);
    }
    for (tensor, values) in expected.iter().enumerate() {
        for (page, value) in values.iter().enumerate() {
            ensure(load(&driver, tensor, page)? == *value, "a launch computed on wrong bytes")?;
        }
    }
    println!("\n{} pages evicted, {} brought back, every result right", driver.evicted, driver.fetched);
    ensure(driver.evicted > 0 && driver.fetched > 0, "the device was never overcommitted")?;
    cli::draw(&machine, "gpu_coherent: after the last launch", options.svg.as_ref())?;
    options.write_trace(&machine, "gpu_coherent: every launch")?;
    drop(driver);
    for frame in firmware {
        machine.free(frame).map_err(say)?;
    }
    machine.audit().map_err(say)?;
    let is_free = |node| machine.free_frames(node) == machine.frames(node);
    ensure(is_free(device) && is_free(dram), "a frame was lost")
}

fn load(driver: &Driver<'_>, tensor: usize, page: usize) -> Result<u64, String> {
    let mut bytes = [0; 8];
    driver.tensors[tensor].read(page * driver.machine.page().bytes() + 8, &mut bytes).map_err(say)?;
    Ok(u64::from_le_bytes(bytes))
}

fn store(driver: &Driver<'_>, tensor: usize, page: usize, value: u64) -> Result<(), String> {
    let offset = page * driver.machine.page().bytes() + 8;
    driver.tensors[tensor].write(offset, &value.to_le_bytes()).map_err(say)
}
