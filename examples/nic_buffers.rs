//! Packet buffers on a network card: a stack that asks the card's own memory first.
//!
//! `cargo run --release --example nic_buffers`

#[macro_use]
#[path = "support/pipe.rs"]
mod pipe;
#[path = "support/cli.rs"]
mod cli;

use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use pnode::core::{AllocError, Frame, MemoryClass, NodeId, Request};
use pnode::user::machine::MachineGrant;
use pnode::user::{Machine, NodeSpec};

use cli::{Options, ensure, say};

const HELP: &str = "\
Packet buffers on a network card.

The card's memory is a private node; in the example's own machine every door of it is shut. The network stack holds the
owner's grant: it takes its buffers on the card as long as there are any, and in ordinary memory after
that. Two real sockets carry the payload from buffer to buffer. Meanwhile a neighbour asks for memory
near the card all the time, and never gets any of the card's.";

const PACKETS: u64 = 20_000;
const PAYLOAD: usize = 1400;
/// Packets on their way at a time, beyond those that the card has buffers for.
const MORE_THAN_FIT: usize = 32;

const MACHINE: &str = "\
node dram ordinary 512frames
node card private 64frames class device-buffer";

fn main() -> ExitCode {
    cli::main("nic_buffers", HELP, MACHINE, run)
}

/// The part of a network stack that hands out packet buffers.
struct Stack<'a> {
    machine: &'a Machine,
    card: MachineGrant<'a>,
    on_card: AtomicU64,
    elsewhere: AtomicU64,
}

impl Stack<'_> {
    /// A buffer on the card, or in ordinary memory near it when the card is out of buffers.
    fn buffer(&self) -> Result<Frame, AllocError> {
        match self.card.alloc(Request::page()) {
            Ok(frame) => {
                self.on_card.fetch_add(1, Ordering::Relaxed);
                Ok(frame)
            }
            Err(AllocError::NoMemory { .. }) => {
                let frame = self.machine.alloc(Request::page().prefer(self.card.node()))?;
                self.elsewhere.fetch_add(1, Ordering::Relaxed);
                Ok(frame)
            }
            Err(error) => Err(error),
        }
    }
}

/// The payload of packet `number`.
fn payload(number: u64) -> [u8; PAYLOAD] {
    let mut bytes = [number as u8; PAYLOAD];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn run(options: &Options) -> Result<(), String> {
    let description = &options.machine;
    let buffers = |spec: &NodeSpec| spec.memory_class().name() == MemoryClass::DEVICE_BUFFER.name();
    let card = description.role(
        "a private node of class device-buffer",
        |spec| spec.is_private() && buffers(spec),
        "node card private 64frames class device-buffer",
    )?;
    let machine = options.build()?;
    let in_flight = machine.frames(card) as usize + MORE_THAN_FIT;
    if in_flight as u64 > PACKETS / 2 {
        let most = PACKETS / 2 - MORE_THAN_FIT as u64;
        return Err(
            description.about(&format!("a card of more than {most} frames is never short of buffers"))
        );
    }
    if description.ordinary_frames() < 2 * MORE_THAN_FIT {
        return Err(description.about("the buffers that the card has no room for need 64 ordinary frames"));
    }
    let grant = machine.owner_grant(card).map_err(say)?;
    let stack =
        Stack { machine: &machine, card: grant, on_card: AtomicU64::new(0), elsewhere: AtomicU64::new(0) };
    let (near_end, far_end) = UnixDatagram::pair().map_err(|error| format!("no sockets ({error})"))?;
    let done = AtomicBool::new(false);

    let (asked, reached) = thread::scope(|scope| -> Result<_, String> {
        let neighbour = scope.spawn(|| neighbour(&machine, card, &done));
        let draw = || {
            cli::draw(
                &machine,
                "nic_buffers: every buffer of the card waits for the wire",
                options.svg.as_ref(),
            )
        };
        let outcome = carry(&stack, in_flight, draw, &near_end, &far_end);
        done.store(true, Ordering::Relaxed);
        let seen = neighbour.join().map_err(|_| "the neighbour did not end well")?;
        outcome.map(|()| seen)
    })?;

    let (on_card, elsewhere) = (stack.on_card.into_inner(), stack.elsewhere.into_inner());
    println!("packets carried        {PACKETS} of {PAYLOAD} bytes, every byte compared");
    println!("buffers on the card    {on_card}");
    println!("buffers elsewhere      {elsewhere} (the card had none left)");
    println!("neighbour's requests   {asked} near the card, {reached} of them served by it");
    ensure(reached == 0, "an ordinary request reached the card's memory")?;
    ensure(on_card > 0 && elsewhere > 0, "both kinds of buffers must have been used")?;
    options.write_trace(&machine, "nic_buffers: every packet")?;
    machine.audit().map_err(say)?;
    for (node, (name, spec)) in machine.nodes().zip(description.file.nodes()) {
        let (free, all) = (machine.free_frames(node), machine.frames(node));
        println!("free at the end        {free} of {all} frames, {name}");
        ensure(free == all || spec.advertised().is_some(), "a buffer was lost")?;
    }
    Ok(())
}

/// Sends every packet from a buffer, calls `at_fullest` when `in_flight` of them wait, receives it into another, and compares.
fn carry(
    stack: &Stack<'_>,
    in_flight: usize,
    at_fullest: impl FnOnce() -> Result<(), String> + Send,
    sender: &UnixDatagram,
    receiver: &UnixDatagram,
) -> Result<(), String> {
    let machine = stack.machine;
    // Buffers that were filled and wait for the wire, as many as the ring has room for.
    let (ring, wire) = mpsc::sync_channel::<Frame>(in_flight);
    let (full, start) = mpsc::channel();
    thread::scope(|scope| {
        let filler = scope.spawn(move || {
            let mut at_fullest = Some(at_fullest);
            for number in 0..PACKETS {
                if number == in_flight as u64 {
                    at_fullest.take().map_or(Ok(()), |draw| draw())?;
                    full.send(()).map_err(say)?;
                }
                let buffer = stack.buffer().map_err(say)?;
                ensure(machine.write(&buffer, 0, &payload(number)), "a packet does not fit its buffer")?;
                if let Err(mpsc::SendError(buffer)) = ring.send(buffer) {
                    return machine.free(buffer).map_err(say);
                }
            }
            Ok(())
        });
        let transmitter = scope.spawn(move || {
            // The wire is slow at first, so that the card runs out of buffers. An error means that the filler gave up.
            let _ = start.recv();
            let mut packet = [0; PAYLOAD];
            let mut first_problem = Ok(());
            // Every buffer goes back, also after a problem.
            for buffer in wire {
                ensure(machine.read(&buffer, 0, &mut packet), "a packet is longer than its buffer")?;
                machine.free(buffer).map_err(say)?;
                if first_problem.is_ok() {
                    first_problem = sender.send(&packet).map(drop).map_err(say);
                }
            }
            first_problem
        });
        let mut outcome = receiver.set_read_timeout(Some(std::time::Duration::from_secs(120))).map_err(say);
        for number in 0..PACKETS {
            outcome = outcome.and_then(|()| {
                let mut packet = [0; PAYLOAD];
                receiver
                    .recv(&mut packet)
                    .map_err(|error| format!("packet {number} did not come ({error})"))?;
                let buffer = stack.buffer().map_err(say)?;
                let mut back = [0; PAYLOAD];
                let kept = machine.write(&buffer, 0, &packet) && machine.read(&buffer, 0, &mut back);
                machine.free(buffer).map_err(say)?;
                ensure(kept && back == payload(number), "a packet has lost bytes")
            });
        }
        for part in [filler, transmitter] {
            part.join().map_err(|_| "a thread of the stack did not end well")??;
        }
        outcome
    })
}

/// Asks for memory near the card until told to stop: how often, and how often it was the card's.
fn neighbour(machine: &Machine, card: NodeId, done: &AtomicBool) -> (u64, u64) {
    let (mut asked, mut reached) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        asked += 1;
        if let Ok(frame) = machine.alloc(Request::page().prefer(card)) {
            reached += u64::from(frame.node() == card);
            if machine.free(frame).is_err() {
                break;
            }
        }
        thread::yield_now();
    }
    (asked, reached)
}
