//! Coherent accelerator memory: working memory that the driver faults in, evicts in order of use, and overcommits.
//!
//! `cargo run --release --example gpu_coherent`

#[macro_use]
#[path = "support/pipe.rs"]
mod pipe;
#[path = "support/cli.rs"]
mod cli;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

use pnode::core::{AllocError, MemoryClass, NodeId};
use pnode::user::fault::FaultError;
use pnode::user::machine::{Mapping, Place, Placement};
use pnode::user::{Machine, NodeSpec};

use cli::{ensure, say};

const HELP: &str = "\
Coherent accelerator memory.

The device has 96 frames; three tensors of 48 pages each want to be there. The driver owns the node: its
tensors are mapped so that a first touch finds a frame on the device, or fails - never elsewhere by
itself. Before each launch the driver brings the launch's tensors in and evicts the ones that were used
least recently to ordinary memory. The launches compute on the real bytes, and the results are checked.
Each line shows where the pages are when the launch runs: D on the device, . in ordinary memory.";

const TENSOR: usize = 48;
const NAMES: [char; 3] = ['A', 'B', 'C'];

fn main() -> ExitCode {
    cli::main("gpu_coherent", HELP, run)
}

/// The part of a driver that says which tensors are on the device.
struct Driver<'m> {
    machine: &'m Machine,
    dram: NodeId,
    device: NodeId,
    tensors: Vec<Mapping>,
    /// Tensors by last use, the oldest first.
    order: VecDeque<usize>,
    evicted: usize,
    fetched: usize,
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
            for page in 0..TENSOR {
                let was_away = self.tensors[*tensor].place(page).is_resident_on(self.dram);
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
        for tensor in self.order.iter().filter(|tensor| !wanted.contains(tensor)) {
            let tensor = &self.tensors[*tensor];
            if let Some(page) = (0..TENSOR).find(|page| tensor.place(*page).is_resident_on(self.device)) {
                tensor.migrate(page, self.dram).map_err(say)?;
                self.evicted += 1;
                return Ok(());
            }
        }
        Err("the tensors of one launch do not fit the device; launch on fewer".into())
    }

    fn show(&self, what: &str) {
        let map = |tensor: &Mapping| -> String {
            let place = |page| if tensor.place(page).is_resident_on(self.device) { 'D' } else { '.' };
            (0..TENSOR).step_by(2).map(place).collect()
        };
        let maps: Vec<_> = self.tensors.iter().map(map).collect();
        println!("{what:<12} A {}  B {}  C {}", maps[0], maps[1], maps[2]);
    }
}

fn run(svg: Option<PathBuf>) -> Result<(), String> {
    let machine = Machine::builder()
        .node(NodeSpec::ordinary(256))
        .node(NodeSpec::private(MemoryClass::ACCELERATOR, 96))
        .build()
        .map_err(say)?;
    let [dram, device] = [machine.node(0).map_err(say)?, machine.node(1).map_err(say)?];
    let map = |_| machine.map_at(TENSOR, Placement::Owner(device)).map_err(say);
    let tensors = (0..NAMES.len()).map(map).collect::<Result<Vec<_>, _>>()?;
    let order = VecDeque::new();
    let mut driver = Driver { machine: &machine, dram, device, tensors, order, evicted: 0, fetched: 0 };

    // Without the driver's help the third tensor does not fit, and does not spill.
    let mut expected = [[0u64; TENSOR]; 3];
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
            |tensor: usize| (0..TENSOR).all(|page| driver.tensors[tensor].place(page).is_resident_on(device));
        ensure(
            on_device(source) && on_device(destination),
            "a launch ran on pages that are not on the device",
        )?;
        for page in 0..TENSOR {
            let (from, to) = (load(&driver, source, page)?, load(&driver, destination, page)?);
            store(&driver, destination, page, from + to + 1)?;
        }
        let added = expected[source];
        expected[destination].iter_mut().zip(added).for_each(|(to, from)| *to += from + 1);
    }
    for (tensor, values) in expected.iter().enumerate() {
        for (page, value) in values.iter().enumerate() {
            ensure(load(&driver, tensor, page)? == *value, "a launch computed on wrong bytes")?;
        }
    }
    println!("\n{} pages evicted, {} brought back, every result right", driver.evicted, driver.fetched);
    ensure(driver.evicted > 0 && driver.fetched > 0, "the device was never overcommitted")?;
    cli::draw(&machine, "gpu_coherent: after the last launch", svg.as_ref())?;
    machine.audit().map_err(say)?;
    drop(driver);
    ensure(machine.free_frames(device) == 96 && machine.free_frames(dram) == 256, "a frame was lost")
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
