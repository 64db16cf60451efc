//! Reading a machine file.

use core::ops::RangeInclusive;

use pnode_core::{Features, MemoryClass, NodeId, NodeMask, PageSize, Watermarks, distance};

use super::error::{MOST_FRAMES, MOST_PAGES, MachineFileError, Problem};
use super::words::{Line, Word, lines};
use super::{MachineFile, class_named, id};
use crate::backing::Memory;
use crate::machine::{Delays, Machine, NodeSpec};
use crate::sys;

type Outcome<T> = Result<T, MachineFileError>;

/// The machine that `text` describes.
pub(super) fn file(text: &str) -> Outcome<MachineFile> {
    let mut reader = Reader::default();
    // Nodes first: the other statements may name those that come later.
    for line in lines(text) {
        match line.keyword().text {
            "node" => reader.node(line)?,
            "hole" | "zone" | "distance" | "cpuset" | "swap" | "delays" => {}
            _ => return Err(line.keyword().wrong(Problem::Statement)),
        }
    }
    if reader.nodes.is_empty() {
        return Err(MachineFileError { line: 1, column: 1, width: 1, problem: Problem::NoNodes });
    }
    for line in lines(text) {
        match line.keyword().text {
            "hole" => reader.hole(line)?,
            "zone" => reader.zone(line)?,
            "distance" => reader.distance(line)?,
            "cpuset" => reader.cpuset(line)?,
            "swap" => reader.swap(line)?,
            "delays" => reader.delays(line)?,
            _ => {}
        }
    }
    Ok(reader.finish())
}

/// What has been read so far. Each thing comes with the line that says it.
#[derive(Default)]
struct Reader {
    nodes: Vec<(String, NodeSpec, Memory, u32)>,
    distances: Vec<(NodeId, NodeId, u8, u32)>,
    cpusets: Vec<(String, NodeMask, u32)>,
    swap: Option<(u64, u32)>,
    delays: Option<(Delays, u32)>,
}

impl Reader {
    fn finish(self) -> MachineFile {
        let count = self.nodes.len();
        let mut table = Vec::new();
        if !self.distances.is_empty() {
            let unsaid = |entry| if entry % (count + 1) == 0 { distance::LOCAL } else { distance::REMOTE };
            table.extend((0..count * count).map(unsaid));
            for (from, to, said, _) in self.distances {
                table[from.index() * count + to.index()] = said;
            }
        }
        MachineFile {
            nodes: self.nodes.into_iter().map(|(name, spec, memory, _)| (name, spec, memory)).collect(),
            distances: table,
            cpusets: self.cpusets.into_iter().map(|(name, mask, _)| (name, mask)).collect(),
            swap: self.swap.map(|(pages, _)| pages),
            delays: self.delays.map(|(delays, _)| delays),
        }
    }

    fn node(&mut self, mut line: Line<'_>) -> Outcome<()> {
        let name = name(&mut line)?;
        if let Some((.., line)) = self.nodes.iter().find(|(other, ..)| other == name.text) {
            return Err(name.wrong(Problem::Taken { line: *line }));
        }
        if self.nodes.len() == Machine::MOST_NODES {
            return Err(line.keyword().wrong(Problem::Nodes));
        }
        let kind = line.expect("ordinary, private or compressed")?;
        if !matches!(kind.text, "ordinary" | "private" | "compressed") {
            return Err(kind.wrong(Problem::Kind));
        }
        let size = line.expect("the node's size, as 64MiB")?;
        let frames = frames(size, MOST_FRAMES)?;
        let properties = Properties::read(line)?;
        let memory = properties.memory.clone().map_or(Memory::File, |(_, memory)| memory);
        let spec = properties.of(kind, size, frames)?;
        self.nodes.push((name.text.into(), spec, memory, name.line()));
        Ok(())
    }

    fn hole(&mut self, mut line: Line<'_>) -> Outcome<()> {
        let (_, node) = self.known(&mut line)?;
        let start = line.expect("where the hole begins in the node, as 16MiB")?;
        let first = size(start, 0..=MOST_FRAMES)?;
        let word = line.expect("the size of the hole, as 1MiB")?;
        let frames = frames(word, MOST_FRAMES)?;
        self.reshape(node, word, |spec| spec.hole(first, frames))?;
        line.end()
    }

    fn zone(&mut self, mut line: Line<'_>) -> Outcome<()> {
        let (_, node) = self.known(&mut line)?;
        let word = line.expect("the size of the zone, as 16MiB")?;
        let frames = frames(word, MOST_FRAMES)?;
        let mut reserve = 0;
        if line.take_if("reserve").is_some() {
            reserve = size(line.expect("the lowmem reserve of the zone, as 1MiB")?, 0..=MOST_FRAMES)?;
        }
        self.reshape(node, word, |spec| spec.zone(frames, reserve))?;
        line.end()
    }

    /// Changes the shape of a node as `word` says.
    fn reshape(
        &mut self,
        node: NodeId,
        word: Word<'_>,
        change: impl Fn(NodeSpec) -> NodeSpec,
    ) -> Outcome<()> {
        let (_, spec, ..) = &mut self.nodes[node.index()];
        *spec = change(*spec);
        spec.check_shape().map_err(|error| word.wrong(Problem::Shape(error)))?;
        let (marks, frames) = (spec.marks(), spec.frames());
        if marks != Watermarks::NONE && marks.high() >= frames {
            return Err(word.wrong(Problem::HoleUnderMarks { frames }));
        }
        Ok(())
    }

    fn distance(&mut self, mut line: Line<'_>) -> Outcome<()> {
        let (_, from) = self.known(&mut line)?;
        let one_way = line.take_if("->").is_some();
        let (other, to) = self.known(&mut line)?;
        if from == to {
            return Err(other.wrong(Problem::Itself));
        }
        let said = line.expect("the distance, as 21")?;
        let number = said.text.parse::<u8>().ok().filter(|number| *number > distance::LOCAL);
        let number = number.ok_or_else(|| said.wrong(Problem::Distance))?;
        let ways = if one_way { &[(from, to)][..] } else { &[(from, to), (to, from)] };
        for (from, to) in ways {
            let same = self.distances.iter().find(|(one, other, ..)| (one, other) == (from, to));
            if let Some((.., line)) = same {
                return Err(said.wrong(Problem::Taken { line: *line }));
            }
            self.distances.push((*from, *to, number, said.line()));
        }
        line.end()
    }

    fn cpuset(&mut self, mut line: Line<'_>) -> Outcome<()> {
        let name = name(&mut line)?;
        if let Some((_, _, line)) = self.cpusets.iter().find(|(other, ..)| other == name.text) {
            return Err(name.wrong(Problem::Taken { line: *line }));
        }
        let (_, first) = self.known(&mut line)?;
        let mut nodes = NodeMask::of(first);
        while let Some(word) = line.take() {
            let node = self.find(word)?;
            if nodes.contains(node) {
                return Err(word.wrong(Problem::Twice));
            }
            nodes.insert(node);
        }
        self.cpusets.push((name.text.into(), nodes, name.line()));
        Ok(())
    }

    fn swap(&mut self, mut line: Line<'_>) -> Outcome<()> {
        if let Some((_, said)) = self.swap {
            return Err(line.keyword().wrong(Problem::Taken { line: said }));
        }
        let size = line.expect("the size of the swap file, as 256MiB")?;
        self.swap = Some((frames(size, MOST_PAGES)?, size.line()));
        line.end()
    }

    fn delays(&mut self, mut line: Line<'_>) -> Outcome<()> {
        if let Some((_, said)) = self.delays {
            return Err(line.keyword().wrong(Problem::Taken { line: said }));
        }
        let word = line.expect("counted or waited")?;
        let delays = match word.text {
            "counted" => Delays::Counted,
            "waited" => Delays::Waited,
            _ => return Err(word.wrong(Problem::Delays)),
        };
        self.delays = Some((delays, word.line()));
        line.end()
    }

    /// The next word, which names a node.
    fn known<'t>(&self, line: &mut Line<'t>) -> Outcome<(Word<'t>, NodeId)> {
        let word = line.expect("the name of a node")?;
        Ok((word, self.find(word)?))
    }

    fn find(&self, word: Word<'_>) -> Outcome<NodeId> {
        let index = self.nodes.iter().position(|(name, ..)| name == word.text);
        index.and_then(id).ok_or_else(|| word.wrong(Problem::Unknown))
    }
}

/// The properties of a node as they stand in its line.
#[derive(Default)]
struct Properties<'t> {
    class: Option<(Word<'t>, MemoryClass)>,
    latency: Option<(Word<'t>, u32)>,
    bandwidth: Option<(Word<'t>, u32)>,
    doors: Option<(Word<'t>, Features)>,
    holds: Option<(Word<'t>, u64)>,
    memory: Option<(Word<'t>, Memory)>,
    /// With the word of the high one.
    marks: Option<(Word<'t>, (Word<'t>, Watermarks))>,
}

impl<'t> Properties<'t> {
    fn read(mut line: Line<'t>) -> Outcome<Self> {
        let mut read = Self::default();
        while let Some(key) = line.take() {
            match key.text {
                "class" => {
                    let word = line.expect("a class of memory, as dram")?;
                    let class = class_named(word.text).ok_or_else(|| word.wrong(Problem::Class))?;
                    once(&mut read.class, key, class)?;
                }
                "latency" => {
                    let word = line.expect("a time, as 350ns")?;
                    once(&mut read.latency, key, quantity(word, "ns")?)?;
                }
                "bandwidth" => {
                    let word = line.expect("a rate, as 20000MiB/s")?;
                    once(&mut read.bandwidth, key, quantity(word, "MiB/s")?)?;
                }
                "doors" => {
                    let word = line.expect("doors, as RECLAIM|DEMOTION")?;
                    once(&mut read.doors, key, doors(word)?)?;
                }
                "holds" => {
                    let word = line.expect("what it takes, as 192MiB")?;
                    once(&mut read.holds, key, frames(word, MOST_PAGES)?)?;
                }
                "memory" => {
                    let word = line.expect("what its memory is made of, as huge")?;
                    once(&mut read.memory, key, memory(word)?)?;
                }
                "watermarks" => once(&mut read.marks, key, watermarks(&mut line)?)?,
                _ => return Err(key.wrong(Problem::Property)),
            }
        }
        Ok(read)
    }

    /// A node of the kind `kind` with these properties.
    fn of(self, kind: Word<'_>, size: Word<'_>, frames: u64) -> Outcome<NodeSpec> {
        let missing = |what| size.wrong(Problem::Missing { what });
        let class = self.class.map(|(_, class)| class);
        let mut spec = match kind.text {
            "ordinary" => NodeSpec::ordinary(frames),
            "private" => {
                let class = class.ok_or_else(|| missing("the class of a private node, as: class far"))?;
                NodeSpec::private(class, frames)
            }
            _ => {
                let (_, pages) = self.holds.ok_or_else(|| missing("what it takes, as: holds 192MiB"))?;
                NodeSpec::compressed(frames, pages)
            }
        };
        if let (Some((key, _)), None) = (self.holds, spec.advertised()) {
            return Err(key.wrong(Problem::Holds));
        }
        if let Some((key, doors)) = self.doors {
            if !spec.is_private() {
                return Err(key.wrong(Problem::OrdinaryDoors));
            }
            spec = spec.features(doors);
        }
        if let Some((key, (high, marks))) = self.marks {
            if spec.advertised().is_some() {
                return Err(key.wrong(Problem::StoreWatermarks));
            }
            if marks.high() >= frames {
                return Err(high.wrong(Problem::Watermarks { frames }));
            }
            spec = spec.watermarks(marks);
        }
        let class = class.unwrap_or(spec.memory_class());
        let latency = self.latency.map_or(class.latency_ns(), |(_, latency)| latency);
        let bandwidth = self.bandwidth.map_or(class.bandwidth_mib_s(), |(_, bandwidth)| bandwidth);
        Ok(spec.class(MemoryClass::new(class.name(), latency, bandwidth)))
    }
}

/// Notes a property that may stand once in a line.
fn once<'t, T>(place: &mut Option<(Word<'t>, T)>, key: Word<'t>, value: T) -> Outcome<()> {
    match place.replace((key, value)) {
        None => Ok(()),
        Some(_) => Err(key.wrong(Problem::Twice)),
    }
}

/// The next word, which is a name that the file gives.
fn name<'t>(line: &mut Line<'t>) -> Outcome<Word<'t>> {
    const MOST: usize = 32;
    let word = line.expect("a name")?;
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let first = word.text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if first && word.text.len() <= MOST && word.text.bytes().all(inner) {
        Ok(word)
    } else {
        Err(word.wrong(Problem::Name))
    }
}

/// What a node's memory is made of.
fn memory(word: Word<'_>) -> Outcome<Memory> {
    match word.text {
        "huge" => Ok(Memory::Huge),
        "hugetlb" => Ok(Memory::HugeTlb),
        path if path.starts_with('/') => Ok(Memory::Device(path.into())),
        other => {
            let digits = other.strip_prefix("numa:").filter(|digits| digits_only(digits).is_some());
            let node = digits.and_then(|digits| digits.parse().ok());
            node.map(Memory::Numa).ok_or_else(|| word.wrong(Problem::Memory))
        }
    }
}

/// The next three words, which are watermarks; with the last of them.
fn watermarks<'t>(line: &mut Line<'t>) -> Outcome<(Word<'t>, Watermarks)> {
    let mut next = |what, least| {
        let word = line.expect(what)?;
        let mark = frames(word, MOST_FRAMES)?;
        if mark < least { Err(word.wrong(Problem::NotRising)) } else { Ok((word, mark)) }
    };
    let (_, min) = next("the min watermark, as 1MiB", 0)?;
    let (_, low) = next("the low watermark, as 2MiB", min)?;
    let (word, high) = next("the high watermark, as 4MiB", low)?;
    let marks = Watermarks::new(min, low, high).map_err(|_| word.wrong(Problem::NotRising))?;
    Ok((word, marks))
}

/// A number above 0 that `unit` follows.
fn quantity(word: Word<'_>, unit: &'static str) -> Outcome<u32> {
    let digits = word.text.strip_suffix(unit);
    let number = digits.and_then(digits_only).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| word.wrong(Problem::Quantity { unit }))
}

/// A size as a number of frames, 1 to `most`.
fn frames(word: Word<'_>, most: u64) -> Outcome<u64> {
    size(word, 1..=most)
}

/// A size as a number of frames of this range.
fn size(word: Word<'_>, range: RangeInclusive<u64>) -> Outcome<u64> {
    const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let wrong = |problem| word.wrong(problem);
    let (least, most) = (*range.start(), *range.end());
    let too_large = || wrong(Problem::Frames { least, most });
    let number = |digits| digits_only(digits).ok_or_else(|| wrong(Problem::Size));
    let frames = if let Some(digits) = word.text.strip_suffix("frames") {
        number(digits)?
    } else {
        let unit = UNITS.into_iter().find_map(|(unit, shift)| Some((word.text.strip_suffix(unit)?, shift)));
        let (digits, shift) = unit.ok_or_else(|| wrong(Problem::Size))?;
        let bytes = number(digits)?.checked_mul(1 << shift).ok_or_else(too_large)?;
        let page = page().bytes();
        if bytes % page as u64 != 0 {
            return Err(wrong(Problem::NotWhole { page }));
        }
        bytes / page as u64
    };
    if range.contains(&frames) { Ok(frames) } else { Err(too_large()) }
}

/// A number that is written in digits and nothing else; one that is too large for 64 bits is the largest.
fn digits_only(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// The size of a frame here.
fn page() -> PageSize {
    PageSize::from_bytes(sys::page_bytes()).unwrap_or(PageSize::KIB4)
}

/// Doors with `|` between them, which go together.
fn doors(word: Word<'_>) -> Outcome<Features> {
    if word.text == "NONE" {
        return Ok(Features::NONE);
    }
    let mut set = Features::NONE;
    for name in word.text.split('|') {
        let door = Features::DOORS.into_iter().find(|(_, other)| *other == name);
        set |= door.ok_or_else(|| word.wrong(Problem::Door))?.0;
    }
    set.check().map_err(|error| word.wrong(Problem::Doors(error)))
}
