//! A machine in one small text file.
//!
//! ```text
//! # Two sockets, a far tier that cold pages go to, and a card that keeps its memory to itself.
//! node dram0 ordinary 64MiB watermarks 1MiB 2MiB 4MiB
//! node dram1 ordinary 64MiB
//! node cxl   private 128MiB class far latency 350ns doors RECLAIM|DEMOTION|PROMOTION
//! node zip   compressed 16MiB holds 48MiB
//! node card  private 64frames class device-buffer
//!
//! zone dram0 16MiB reserve 1MiB    # what an old device can reach is a zone of its own
//! hole dram1 8MiB 512KiB           # no memory there
//!
//! distance dram0 dram1 21          # the same both ways
//! distance dram0 cxl 24
//! distance cxl -> dram1 30         # seen from cxl
//! cpuset batch dram1 cxl
//! swap 256MiB
//! ```
//!
//! # Grammar
//!
//! One statement a line. Words are apart by blanks or tabs; `#` starts a comment that ends with its line.
//!
//! ```text
//! file      = { [ statement ] [ "#" comment ] newline }
//! statement = "node" NAME KIND SIZE { property }
//!           | "zone" NAME SIZE [ "reserve" SIZE ]  # the next part of the node's frames; the rest is its last zone
//!           | "hole" NAME SIZE SIZE  # in the node from the first size on, so long as the second
//!           | "distance" NAME [ "->" ] NAME NUMBER
//!           | "cpuset" NAME NAME { NAME }
//!           | "swap" SIZE
//!           | "delays" ( "counted" | "waited" )  # latency and bandwidth of the nodes are simulated
//! KIND      = "ordinary" | "private" | "compressed"
//! property  = "class" CLASS           # what the memory is; a private node must say it
//!           | "latency" NUMBER "ns"   # of an access, if other than the class's
//!           | "bandwidth" NUMBER "MiB/s"
//!           | "doors" DOOR { "|" DOOR }   # not for ordinary nodes, which have no doors
//!           | "holds" SIZE            # what a compressed node takes, measured before it is compressed
//!           | "memory" MEMORY         # what it is made of here, if other than a file in memory
//!           | "watermarks" SIZE SIZE SIZE  # min, low, high: kept free; not of compressed nodes
//! MEMORY    = "huge" | "hugetlb" | "numa:" NUMBER | the path of a device, from "/" on; no blank or "#" in it
//! CLASS     = "dram" | "hbm" | "device-buffer" | "accelerator" | "far" | "compressed"
//! DOOR      = "NONE" | a name of pnode_core::Features, as "RECLAIM"
//! SIZE      = NUMBER ( "frames" | "KiB" | "MiB" | "GiB" )
//! NAME      = a letter or "_", then letters, digits, "_", "-", "."; up to 32 of them
//! ```
//!
//! Nodes get their ids in the order of their lines, from 0. Names are for the file and its reader: a statement may use
//! a node that a later line describes. What is said twice is an error, and so is a distance that is said both ways and
//! one way. A pair of nodes without a distance is 20 apart; a node is 10 from itself. Tiers need no statement: they
//! follow from latency and bandwidth ([`pnode_core::tier::Tier::of`]).
//!
//! Watermarks rise (they may be equal), and high is below the node's size. Requests stop when no more than min would stay
//! free, and look elsewhere first at low; background reclaim begins below low and rests at high. See
//! [`NodeSpec::watermarks`].
//!
//! A node has one zone, or up to [`NodeSpec::MOST_ZONES`], from its first frame on in the order of their lines. Requests are
//! served by the highest that has a frame; the reserve of a zone is for those that must be below its end. Each zone has its
//! share of the node's watermarks. A node has up to [`NodeSpec::MOST_HOLES`] holes, which are part of its size: 64MiB with a
//! hole of 8MiB are 56MiB of memory. A compressed node has holes and no zones. See [`NodeSpec::zone`] and [`NodeSpec::hole`].
//!
//! Where a node's memory is to come from here is said by [`Memory`]: transparent huge pages, the kernel's pool of them, a node of
//! the real machine, or a device such as `/dev/dax0.0`.
//!
//! Sizes in bytes are whole frames of the machine that reads the file.

mod error;
mod parse;
mod words;

use core::fmt;
use core::str::FromStr;

use pnode_core::{Features, MemoryClass, NodeId, NodeMask, Watermarks, distance};

use crate::backing::Memory;
use crate::machine::{Builder, Delays, Machine, NodeSpec};

pub use error::{InText, MachineFileError, Problem};

/// A machine as a file describes it: nodes with names, distances, cpusets and swap.
///
/// ```
/// use pnode_user::MachineFile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let text = "node dram ordinary 64frames\n\
///             node card private 16frames class device-buffer";
/// let file: MachineFile = text.parse()?;
/// let machine = file.builder().build()?;
/// let card = file.node("card").ok_or("no card")?;
/// assert_eq!(machine.free_frames(card), 16);
/// assert_eq!(file.to_string().parse::<MachineFile>()?, file);
///
/// let text = "node dram ordinary 64frames\nnode card private 16frames class nic";
/// let error = text.parse::<MachineFile>().unwrap_err();
/// assert_eq!((error.line, error.column), (2, 34));
/// println!("{}", error.in_text(text));                   // the line, a mark under the word, and what to write
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineFile {
    nodes: Vec<(String, NodeSpec, Memory)>,
    /// Row by row; empty if the file says nothing of distances.
    distances: Vec<u8>,
    cpusets: Vec<(String, NodeMask)>,
    swap: Option<u64>,
    delays: Option<Delays>,
}

impl MachineFile {
    /// Starts a machine of these nodes, distances and swap; more can be added to it.
    pub fn builder(&self) -> Builder {
        let nodes = self.nodes.iter().map(|(_, spec, memory)| (*spec, memory.clone()));
        let builder = nodes.fold(Machine::builder(), |builder, (spec, memory)| builder.node_of(spec, memory));
        let builder = builder.swap(self.swap.unwrap_or(0));
        let builder = match self.delays {
            Some(delays) => builder.delays(delays),
            None => builder,
        };
        if self.distances.is_empty() { builder } else { builder.distances(&self.distances) }
    }

    /// The nodes with their names, in the order of their ids.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (&str, &NodeSpec)> {
        self.nodes.iter().map(|(name, spec, _)| (name.as_str(), spec))
    }

    /// The id of the node called `name`.
    pub fn node(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|(other, ..)| other == name).and_then(id)
    }

    /// The name of `node`.
    pub fn name(&self, node: NodeId) -> Option<&str> {
        self.nodes.get(node.index()).map(|(name, ..)| name.as_str())
    }

    /// What the memory of `node` is to be made of.
    pub fn memory(&self, node: NodeId) -> Option<&Memory> {
        self.nodes.get(node.index()).map(|(.., memory)| memory)
    }

    /// The first node that `suits`.
    pub fn find(&self, mut suits: impl FnMut(&NodeSpec) -> bool) -> Option<NodeId> {
        self.nodes.iter().position(|(_, spec, _)| suits(spec)).and_then(id)
    }

    /// The cpusets: the name of each and the nodes that it may use.
    pub fn cpusets(&self) -> impl ExactSizeIterator<Item = (&str, &NodeMask)> {
        self.cpusets.iter().map(|(name, mask)| (name.as_str(), mask))
    }

    /// The nodes of the cpuset called `name`.
    pub fn cpuset(&self, name: &str) -> Option<&NodeMask> {
        self.cpusets.iter().find(|(other, _)| other == name).map(|(_, mask)| mask)
    }

    /// How many pages the swap file has room for, if there is one.
    pub const fn swap(&self) -> Option<u64> {
        self.swap
    }

    /// Whether latency and bandwidth of the nodes are simulated, and how.
    pub const fn delays(&self) -> Option<Delays> {
        self.delays
    }

    /// The distance from one node to another, as the file has it.
    pub fn distance(&self, from: NodeId, to: NodeId) -> u8 {
        let said = self.distances.get(from.index() * self.nodes.len() + to.index());
        let unsaid = if from == to { distance::LOCAL } else { distance::REMOTE };
        said.copied().unwrap_or(unsaid)
    }
}

/// The id of node number `index`; the parser takes no more nodes than there are ids.
fn id(index: usize) -> Option<NodeId> {
    NodeId::new(u16::try_from(index).ok()?).ok()
}

impl FromStr for MachineFile {
    type Err = MachineFileError;

    fn from_str(text: &str) -> Result<Self, MachineFileError> {
        parse::file(text)
    }
}

/// Writes a file that reads back as the same machine.
impl fmt::Display for MachineFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, spec, memory) in &self.nodes {
            write!(f, "node {name} {}", Description(spec))?;
            match memory {
                Memory::File => {}
                Memory::Huge => f.write_str(" memory huge")?,
                Memory::HugeTlb => f.write_str(" memory hugetlb")?,
                Memory::Numa(node) => write!(f, " memory numa:{node}")?,
                Memory::Device(path) => write!(f, " memory {}", path.display())?,
            }
            writeln!(f)?;
        }
        for (name, spec, _) in &self.nodes {
            // The last zone is what the others leave.
            for (zone, reserve) in spec.zones().take(spec.zones().count() - 1) {
                write!(f, "zone {name} {}frames", zone.end - zone.start)?;
                if reserve > 0 {
                    write!(f, " reserve {reserve}frames")?;
                }
                writeln!(f)?;
            }
            for hole in spec.holes() {
                writeln!(f, "hole {name} {}frames {}frames", hole.start, hole.end - hole.start)?;
            }
        }
        let name = |node: usize| self.nodes[node].0.as_str();
        let entry = |from: usize, to: usize| self.distances[from * self.nodes.len() + to];
        let pairs = (0..self.nodes.len()).flat_map(|from| (0..from).map(move |to| (to, from)));
        for (one, other) in pairs.filter(|_| !self.distances.is_empty()) {
            let (there, back) = (entry(one, other), entry(other, one));
            if there == back {
                writeln!(f, "distance {} {} {there}", name(one), name(other))?;
            } else {
                writeln!(f, "distance {} -> {} {there}", name(one), name(other))?;
                writeln!(f, "distance {} -> {} {back}", name(other), name(one))?;
            }
        }
        for (set, mask) in &self.cpusets {
            write!(f, "cpuset {set}")?;
            for node in mask.iter() {
                write!(f, " {}", name(node.index()))?;
            }
            writeln!(f)?;
        }
        if let Some(pages) = self.swap {
            writeln!(f, "swap {pages}frames")?;
        }
        match self.delays {
            Some(Delays::Counted) => writeln!(f, "delays counted"),
            Some(Delays::Waited) => writeln!(f, "delays waited"),
            None => Ok(()),
        }
    }
}

/// A node's kind, size and properties, in the words of the file.
struct Description<'a>(&'a NodeSpec);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = self.0;
        let (kind, shut) = match (spec.is_private(), spec.advertised()) {
            (false, _) => ("ordinary", Features::NONE),
            (true, None) => ("private", Features::NONE),
            (true, Some(_)) => ("compressed", NodeSpec::COMPRESSED),
        };
        write!(f, "{kind} {}frames", spec.span())?;
        if let Some(pages) = spec.advertised() {
            write!(f, " holds {pages}frames")?;
        }
        let class = spec.memory_class();
        write!(f, " class {}", class.name())?;
        let usual = class_named(class.name()).unwrap_or(class);
        if class.latency_ns() != usual.latency_ns() {
            write!(f, " latency {}ns", class.latency_ns())?;
        }
        if class.bandwidth_mib_s() != usual.bandwidth_mib_s() {
            write!(f, " bandwidth {}MiB/s", class.bandwidth_mib_s())?;
        }
        if spec.doors() != shut {
            write!(f, " doors {}", spec.doors())?;
        }
        let marks = spec.marks();
        if marks != Watermarks::NONE {
            write!(f, " watermarks {}frames {}frames {}frames", marks.min(), marks.low(), marks.high())?;
        }
        Ok(())
    }
}

/// The classes that a file can name.
const CLASSES: [MemoryClass; 6] = [
    MemoryClass::DRAM,
    MemoryClass::HBM,
    MemoryClass::DEVICE_BUFFER,
    MemoryClass::ACCELERATOR,
    MemoryClass::FAR,
    MemoryClass::COMPRESSED,
];

fn class_named(name: &str) -> Option<MemoryClass> {
    CLASSES.into_iter().find(|class| class.name() == name)
}

#[cfg(test)]
mod tests;
