//! A driver that uses nothing but pnode-core and pnode-buddy: no heap, no operating system, no door open to anybody.
//!
//! `cargo run --release --example no_uapi_driver [-- --machine FILE]`; see `--help`.

#[macro_use]
#[path = "support/pipe.rs"]
mod pipe;

#[path = "support/ending.rs"]
mod ending;
#[path = "support/machine.rs"]
#[allow(dead_code, reason = "the examples share it, and each uses a part")]
mod machine;

use std::process::ExitCode;

/// What would be the driver's own crate, `no_std` and without `alloc`: it names only `core` and pnode.
mod driver {
    use core::fmt;

    use pnode::buddy::Zone;
    use pnode::core::{
        AllocError, Denied, Frame, FreeError, Grant, MemoryClass, NodeId, Nodes, OfflineError, OnlineError,
        Order, Owner, Private, RegisterError, Request, Stale, UnregisterError,
    };
    use pnode::core::{Features, Pfn};

    /// Descriptors of the device's ring.
    pub(crate) const RING: usize = 16;

    /// A crypto engine with memory of its own: data goes through blocks of 8 frames that the engine reads in one piece.
    pub(crate) struct Engine<'m> {
        owner: Owner<'m, Zone<'m>>,
        /// Held as long as the engine runs; every block comes from it.
        grant: Option<Grant<'m, Zone<'m>>>,
        ring: [Option<Frame>; RING],
        head: usize,
    }

    impl<'m> Engine<'m> {
        /// Claims `node` with every door shut and brings the device's memory online. A probe that fails leaves the node
        /// as it found it.
        pub(crate) fn probe(
            nodes: &'m Nodes<'m, Zone<'m>>,
            node: NodeId,
            bar: &'m Zone<'m>,
        ) -> Result<Self, Problem> {
            let owner = nodes.register(node, Private::class(MemoryClass::DEVICE_BUFFER), Features::NONE)?;
            match Self::start(&owner, bar) {
                Ok(grant) => Ok(Self { owner, grant: Some(grant), ring: [const { None }; RING], head: 0 }),
                Err(problem) => {
                    // Nobody else can have taken a frame of it yet, so each step that applies succeeds; what the caller
                    // wants to hear is why the probe failed.
                    let _ = owner.drain();
                    let _ = owner.offline(bar.span());
                    let _ = owner.unregister();
                    Err(problem)
                }
            }
        }

        fn start(owner: &Owner<'m, Zone<'m>>, bar: &'m Zone<'m>) -> Result<Grant<'m, Zone<'m>>, Problem> {
            owner.online(bar)?;
            Ok(owner.grant()?)
        }

        /// Puts a block of `2^order` contiguous frames on the ring and gives back its first frame, for the descriptor.
        pub(crate) fn submit(&mut self, order: Order) -> Result<Pfn, Problem> {
            let grant = self.grant.as_ref().ok_or(Problem::Removed)?;
            let slot =
                self.ring.get_mut(self.head % RING).filter(|slot| slot.is_none()).ok_or(Problem::RingFull)?;
            let block = grant.alloc(Request::order(order).zeroed())?;
            let pfn = block.pfn();
            *slot = Some(block);
            self.head += 1;
            Ok(pfn)
        }

        /// The engine is done with the oldest block: gives it back.
        pub(crate) fn complete(&mut self) -> Result<Option<Pfn>, Problem> {
            let oldest =
                (self.head..self.head + RING).map(|at| at % RING).find(|at| self.ring[*at].is_some());
            let Some(block) = oldest.and_then(|at| self.ring[at].take()) else { return Ok(None) };
            let pfn = block.pfn();
            self.owner.nodes().free(block)?;
            Ok(Some(pfn))
        }

        /// Removes the device: drains, gives every block back, and gives the node up, in this order.
        pub(crate) fn remove(&mut self, bar: &Zone<'m>) -> Result<(), Problem> {
            self.owner.drain()?;
            while self.complete()?.is_some() {}
            self.grant = None;
            self.owner.offline(bar.span())?;
            self.owner.unregister()?;
            Ok(())
        }

        /// Tries to leave without tidying up, as a hasty driver does.
        pub(crate) fn hasty_remove(&self, bar: &Zone<'m>) -> (Result<(), Problem>, Result<(), Problem>) {
            let offline = self.owner.offline(bar.span()).map(drop).map_err(Problem::from);
            (offline, self.owner.unregister().map_err(Problem::from))
        }
    }

    macro_rules! problems {
        ($($name:ident($error:ty)),*) => {
            /// What can go wrong, each with what to do about it.
            #[derive(Debug)]
            pub(crate) enum Problem {
                RingFull,
                Removed,
                $($name($error)),*
            }

            impl fmt::Display for Problem {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    match self {
                        Self::RingFull => f.write_str("the ring is full; complete a block first"),
                        Self::Removed => f.write_str("the device was removed"),
                        $(Self::$name(error) => error.fmt(f)),*
                    }
                }
            }

            $(impl From<$error> for Problem {
                fn from(error: $error) -> Self {
                    Self::$name(error)
                }
            })*
        };
    }
    problems!(
        Register(RegisterError),
        Online(OnlineError),
        Grant(Denied),
        Alloc(AllocError),
        Free(FreeError),
        Drain(Stale),
        Offline(OfflineError),
        Unregister(UnregisterError)
    );
}

use driver::{Engine, Problem, RING};
use machine::Described;
use pnode::buddy::{Geometry, Line, Metadata, Zone};
use pnode::core::{
    AllocError, BoxedStorage, Denied, Distances, FrameRange, MemoryClass, NodeId, Nodes, Order, Pfn, Reason,
    Request, Storage,
};
use pnode::user::NodeSpec;

const HELP: &str = "\
A driver that uses nothing but pnode-core and pnode-buddy.

It registers its device's memory as a private node with every door shut, keeps a ring of
contiguous blocks there, and is removed in order. What others try is refused, and so is
a removal that forgets something.

usage: no_uapi_driver [--machine FILE] [--help]

  --machine FILE   the nodes, as a machine file has them, instead of an ordinary node and a device of
                   96 frames: the driver gets the first private node, with every door shut whatever
                   the file says, and the other private nodes have no driver here
  --help           this text";

fn main() -> ExitCode {
    let outcome = match arguments() {
        Ok(None) => {
            println!("{HELP}");
            Ok(())
        }
        Ok(Some(Host::Own)) => own().map_err(|error| error.to_string()),
        Ok(Some(Host::File(machine))) => of_file(&machine).map_err(|error| machine.about(&error.to_string())),
        Err(sentence) => Err(sentence),
    };
    ending::end("no_uapi_driver", outcome)
}

/// Where the driver's node is.
enum Host {
    Own,
    File(Described),
}

/// What the command line asks for; `None` if help is wanted.
fn arguments() -> Result<Option<Host>, String> {
    let mut host = Host::Own;
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument.to_string_lossy() {
            "--help" | "-h" => return Ok(None),
            "--machine" => {
                let file = arguments.next().ok_or("--machine needs a file name; see --help")?;
                host = Host::File(Described::read(&file)?);
            }
            other => return Err(format!("{other} is no option; see --help")),
        }
    }
    Ok(Some(host))
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The order of the blocks on the ring.
const BLOCK: u8 = 3;

/// A host with one ordinary node. Everything is memory of the caller; nothing is on a heap.
fn own() -> Outcome {
    let [dram, device] = [NodeId::new(0)?, NodeId::new(1)?];
    let dram_range = FrameRange::new(Pfn::new(0), 1024)?;
    let bar = FrameRange::new(Pfn::new(0x10_0000), 96)?;
    let mut lines = [const { Line::ZERO }; 72];
    let (dram_lines, bar_lines) = lines.split_at_mut(Geometry::new(dram_range)?.lines());
    let dram_zone = Zone::new(dram_range, Metadata::zeroed(dram_lines))?;
    let bar_zone = Zone::new(bar, Metadata::zeroed(bar_lines))?;
    let mut storage = Storage::<Zone<'_>, 2, 2>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(2)?)?;
    nodes.ordinary(dram, MemoryClass::DRAM)?.online(&dram_zone)?;
    show(&nodes, &[(dram, &dram_zone)], device, &bar_zone)
}

/// The ordinary nodes of a file, and its first private one for the driver.
fn of_file(machine: &Described) -> Outcome {
    let line = "node nic private 256frames class device-buffer";
    let device = machine.file.find(NodeSpec::is_private);
    let device = device.ok_or_else(|| format!("the driver needs a private node; add a line as: {line}"))?;
    let (zones, ids, table) = (machine.zones()?, machine.ids(), machine.distances());
    let mut storage = BoxedStorage::new(ids.len(), zones.iter().map(Vec::len).sum())?;
    let nodes = Nodes::new(storage.slots(), Distances::from_table(ids.len(), &table)?)?;
    let mut ordinary = Vec::new();
    for ((node, (_, spec)), zones) in ids.iter().zip(machine.file.nodes()).zip(&zones) {
        let handle = if spec.is_private() { continue } else { nodes.ordinary(*node, spec.memory_class())? };
        for zone in zones {
            handle.online(zone)?;
            ordinary.push((*node, zone));
        }
    }
    // One BAR is enough for the driver: the largest.
    let bar = zones[device.index()].iter().max_by_key(|zone| zone.managed_frames());
    show(&nodes, &ordinary, device, bar.ok_or("a node has a zone")?)
}

/// The driver's life on `device`, whose memory is `bar`, beside the `ordinary` nodes with their zones.
fn show<'m>(
    nodes: &'m Nodes<'m, Zone<'m>>,
    ordinary: &[(NodeId, &'m Zone<'m>)],
    device: NodeId,
    bar: &'m Zone<'m>,
) -> Outcome {
    let sentence = |problem: Problem| problem.to_string();
    let block = Order::new(BLOCK)?;
    let fit = bar.managed_frames() / block.frames();
    if fit == 0 {
        return Err(format!("the device's node has no room for a block of {} frames", block.frames()).into());
    }
    let (_, elsewhere) = ordinary.first().ok_or("the driver's host needs an ordinary node")?;
    // A BAR whose frames are somebody else's: the probe fails, and the node is free for the next one.
    match Engine::probe(nodes, device, elsewhere) {
        Err(problem @ Problem::Online(_)) => println!("wrong BAR    refused: {problem}"),
        Err(problem) => return Err(format!("the wrong BAR was refused for another reason: {problem}").into()),
        Ok(_) => return Err("a BAR that is somebody else's memory was taken".into()),
    }
    assert!(nodes.state(device).is_some_and(|state| !state.is_registered()), "a failed probe leaves nothing");
    let mut engine = Engine::probe(nodes, device, bar).map_err(sentence)?;
    println!("probed       {} frames at {:?}, every door shut", bar.managed_frames(), bar.span().start());

    let mut submitted = 0;
    let full = loop {
        match engine.submit(block) {
            Ok(pfn) => {
                submitted += 1;
                println!("submitted    {} frames at {pfn:?}", block.frames());
            }
            Err(problem) => break problem,
        }
    };
    println!("then         refused: {full}");
    // The device runs out of whole blocks, or the ring out of descriptors.
    assert_eq!(submitted, fit.min(RING as u64));
    assert_eq!(bar.used_frames(), submitted * block.frames());
    let first = engine.complete().map_err(sentence)?;
    println!("completed    {first:?}, and submitted again: {:?}", engine.submit(block).map_err(sentence)?);

    // What others try.
    let insist = Request::page().prefer(device).this_node_only();
    let refusal = nodes.alloc(insist).err();
    assert_eq!(refusal, Some(AllocError::Private { node: device }));
    println!("others       refused: {}", AllocError::Private { node: device });
    for reason in [Reason::Demotion, Reason::UserPolicy, Reason::Pin] {
        match nodes.grant(device, reason) {
            Err(denied @ Denied::NotOpened { .. }) => println!("             refused: {denied}"),
            other => return Err(format!("the device's door opened by itself: {other:?}").into()),
        }
    }
    let near = nodes.alloc(Request::page().prefer(device))?;
    println!("             a request near the device is served by {:?}", near.node());
    let distance = |node| nodes.distances().between(device, node);
    assert!(ordinary.iter().all(|(node, _)| distance(*node) >= distance(near.node())), "the nearest serves");
    assert_ne!(near.node(), device);
    nodes.free(near)?;

    let (offline, unregister) = engine.hasty_remove(bar);
    for refused in [offline, unregister] {
        let Err(problem) = refused else { return Err("a hasty removal was let through".into()) };
        println!("hasty exit   refused: {problem}");
    }
    engine.remove(bar).map_err(sentence)?;
    println!(
        "removed      {} of {} frames free, {:?} is unregistered",
        bar.free_frames(),
        bar.managed_frames(),
        device
    );
    assert!(bar.used_frames() == 0 && nodes.state(device).is_some_and(|state| !state.is_registered()));
    bar.audit()?;
    for (_, zone) in ordinary {
        zone.audit()?;
    }
    Ok(())
}
