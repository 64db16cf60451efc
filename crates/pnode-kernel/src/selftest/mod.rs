//! Private nodes tested on the frames of a device, inside the kernel that will use them.
//!
//! [`run`] builds registries of its own on the range, so it needs nothing to be registered and leaves nothing behind but
//! the contents of the frames. The host tests run the same cases on a fake kernel.

mod frames;
mod isolation;
mod life;
mod pages;

use pnode_core::{Distances, Features, FrameRange, MemoryClass, NodeId, Nodes, Owner, Pfn, Private};

use crate::cpus::CpuZone;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mapping::Mapping;
use crate::own::Own;
use crate::report::{Failure, Report};
use crate::storage::{CpuStorage, RegistryStorage, ZoneStorage};

/// Fails the case unless a condition holds; the number says what was found.
macro_rules! check {
    ($holds:expr, $expected:literal, $found:expr) => {
        if !$holds {
            return Err($crate::report::Failure { expected: $expected, found: $found as u64 });
        }
    };
}
use check;

/// A step of a case that must succeed.
trait Must<T> {
    /// The value, or a failure that says what was expected.
    fn must(self, expected: &'static str) -> Result<T, Failure>;
}

impl<T, E> Must<T> for Result<T, E> {
    fn must(self, expected: &'static str) -> Result<T, Failure> {
        self.map_err(|_| Failure { expected, found: 0 })
    }
}

impl<T> Must<T> for Option<T> {
    fn must(self, expected: &'static str) -> Result<T, Failure> {
        self.ok_or(Failure { expected, found: 0 })
    }
}

/// A case: its name, and what it does with a machine in its first state.
type Case<K> = (&'static str, for<'a, 'm> fn(&Machine<'a, 'm, K>) -> Result<(), Failure>);

/// The cases, from the plain to what stands on it.
const fn cases<K: Kernel>() -> [Case<K>; 11] {
    [
        ("a node is closed to every reason by default", isolation::closed_by_default),
        ("ordinary requests never reach the node", isolation::ordinary_requests_stay_out),
        ("every order is allocated and freed, all of it", frames::every_order),
        ("mixed orders never overlap", frames::mixed_orders),
        ("a double free, a wrong order, a foreign frame are refused", frames::bad_frees),
        ("frames keep what is written to them", pages::patterns),
        ("a store of compressed pages stands on the node", pages::compressed),
        ("a grant and a frame keep the node", life::holders_keep_the_node),
        ("the node is evacuated and unregistered", life::evacuation),
        ("the id is registered again, and the old owner is stale", life::another_life),
        ("metadata is consistent after all that", frames::audit),
    ]
}

/// How many frames the ordinary node beside the private one has. They are numbers only: nobody touches them.
const ORDINARY_FRAMES: u64 = 64;

/// The nodes of the machine.
const DRAM: u16 = 0;
const DEVICE: u16 = 1;

/// A machine for one case: an ordinary node, and an id for a private one whose memory is the device's.
struct Machine<'a, 'm, K: Kernel> {
    kernel: K,
    nodes: &'m Nodes<'m, CpuZone<'m, K>, K::Lock>,
    zone: &'m CpuZone<'m, K>,
    mapping: Mapping<'a>,
}

/// The private node of a machine.
type Device<'m, K> = Owner<'m, CpuZone<'m, K>, <K as Kernel>::Lock>;

impl<'m, K: Kernel> Machine<'_, 'm, K> {
    fn id(&self, number: u16) -> Result<NodeId, Failure> {
        NodeId::new(number).must("a small node id")
    }

    /// Registers the device with these doors and brings its memory online.
    fn device(&self, features: Features) -> Result<Device<'m, K>, Failure> {
        let claim = Private::class(MemoryClass::DEVICE_BUFFER);
        let owner =
            self.nodes.register(self.id(DEVICE)?, claim, features).must("the device to be registered")?;
        owner.online(self.zone).must("its memory to come online")?;
        Ok(owner)
    }

    /// Takes the device down again; everything must have been given back.
    fn take_down(&self, owner: &Device<'m, K>) -> Result<(), Failure> {
        owner.drain().must("the device to drain")?;
        owner.offline(self.mapping.range()).must("its memory to go offline")?;
        owner.unregister().must("the device to be given up")
    }

    /// Room for the numbers of so many frames, or of all that the device has if those are fewer.
    fn list_of_device_frames(&self, frames: u64) -> Result<Own<[u64], K>, Failure> {
        self.list(frames.min(self.mapping.range().frames()))
    }

    /// A page of the kernel's memory, zeroed.
    fn page(&self) -> Result<Own<[u8], K>, Failure> {
        Own::slice(self.kernel, K::PAGE.bytes(), |_| 0).must("memory for a page")
    }

    /// Room for the numbers of so many frames.
    fn list(&self, frames: u64) -> Result<Own<[u64], K>, Failure> {
        let len = usize::try_from(frames).must("a list that fits the address space")?;
        Own::slice(self.kernel, len, |_| 0).must("memory for a list of frames")
    }
}

/// Runs every case on the frames of `mapping`, whose contents are lost, and reports in KTAP. `true` if all passed.
///
/// # Errors
///
/// [`Errno`] if a machine could not even be built: no memory for metadata, or an impossible range.
pub fn run<K: Kernel>(kernel: K, mapping: Mapping<'_>) -> Result<bool, Errno> {
    let cases = cases::<K>();
    let mut report = Report::begin(kernel, cases.len());
    for (name, case) in cases {
        report.case(name, run_one(kernel, mapping, case)?);
        kernel.relax();
    }
    Ok(report.passed())
}

/// Builds a machine, runs a case on it, and checks that every frame came back.
fn run_one<K: Kernel>(
    kernel: K,
    mapping: Mapping<'_>,
    case: for<'a, 'm> fn(&Machine<'a, 'm, K>) -> Result<(), Failure>,
) -> Result<Result<(), Failure>, Errno> {
    // Away from the device's frames, wherever those are.
    let ordinary =
        if mapping.range().start().get() >= ORDINARY_FRAMES { Pfn::new(0) } else { mapping.range().end() };
    let mut device = ZoneStorage::new(kernel, mapping.range())?;
    let mut dram = ZoneStorage::new(kernel, FrameRange::new(ordinary, ORDINARY_FRAMES)?)?;
    let (zone, dram) = (device.zone()?, dram.zone()?);
    let (mut slots, mut dram_slots) = (CpuStorage::new(kernel)?, CpuStorage::new(kernel)?);
    let zone = CpuZone::new(kernel, &zone, slots.slots(&zone));
    let dram = CpuZone::new(kernel, &dram, dram_slots.slots(&dram));
    let mut storage = RegistryStorage::new(kernel, 2, 2)?;
    let nodes = Nodes::with_lock(storage.slots()?, Distances::uniform(2)?)?;
    nodes.ordinary(NodeId::new(DRAM)?, MemoryClass::DRAM)?.online(&dram)?;
    let result = case(&Machine { kernel, nodes: &nodes, zone: &zone, mapping });
    Ok(result.and_then(|()| frames::nothing_left(&zone, &dram)))
}
