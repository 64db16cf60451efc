//! The life of a node: three facts and one word.
//!
//! ```text
//! unregistered -> registered -> online -> serviced -> draining -> offline -> unregistered
//! ```
//!
//! *Registered*, *online with memory* and *serviced* are three facts, kept apart in [`NodeState`]; [`Life`] is the name
//! people give to their combination.

use core::fmt;

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Nobody claimed the id.
    Unregistered,
    /// Claimed, without memory.
    Registered,
    /// Claimed, with memory that can be handed out.
    Online,
    /// Online, and a service answers for its pages.
    Serviced,
    /// Still with memory; nothing new lands, the owner evacuates.
    Draining,
    /// Drained, and its memory is gone; the last references may still be held.
    Offline,
}

/// Whether CPUs sit beside a node's memory. They come and go on their own; private nodes have none as a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// None: a memory-only node.
    Absent,
    /// At least one.
    Present,
}

/// The facts about a node, read in one atomic step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeState {
    pub(crate) facts: Facts,
    pub(crate) references: u32,
}

impl NodeState {
    /// Whether somebody claimed the id.
    pub const fn is_registered(self) -> bool {
        self.facts.has(Facts::REGISTERED)
    }

    /// Whether the node was claimed as private. A node is private or ordinary, never both.
    pub const fn is_private(self) -> bool {
        self.facts.has(Facts::PRIVATE)
    }

    /// Whether the node has memory.
    pub const fn has_memory(self) -> bool {
        self.facts.has(Facts::MEMORY)
    }

    /// Whether a service answers for the node's pages.
    pub const fn is_serviced(self) -> bool {
        self.facts.has(Facts::SERVICED)
    }

    /// Whether the node is being torn down: nothing new lands, no new references are handed out.
    pub const fn is_draining(self) -> bool {
        self.facts.has(Facts::DRAINING)
    }

    /// Whether CPUs sit beside the node's memory.
    pub const fn has_cpus(self) -> bool {
        self.facts.has(Facts::CPUS)
    }

    /// How many grants and running callbacks hold the node.
    pub const fn references(self) -> u32 {
        self.references
    }

    /// Where the node stands in its life.
    pub const fn life(self) -> Life {
        if !self.is_registered() {
            Life::Unregistered
        } else if self.is_draining() {
            if self.has_memory() { Life::Draining } else { Life::Offline }
        } else if !self.has_memory() {
            Life::Registered
        } else if self.is_serviced() {
            Life::Serviced
        } else {
            Life::Online
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_private() { "private" } else { "ordinary" };
        write!(f, "{kind}, {:?}, {} references", self.life(), self.references)
    }
}

/// The facts as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts(u8);

impl Facts {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const REGISTERED: Self = Self(1);
    pub(crate) const PRIVATE: Self = Self(1 << 1);
    pub(crate) const MEMORY: Self = Self(1 << 2);
    pub(crate) const SERVICED: Self = Self(1 << 3);
    pub(crate) const DRAINING: Self = Self(1 << 4);
    pub(crate) const CPUS: Self = Self(1 << 5);

    pub(crate) const fn has(self, facts: Self) -> bool {
        self.0 & facts.0 == facts.0
    }

    pub(crate) const fn with(self, facts: Self) -> Self {
        Self(self.0 | facts.0)
    }

    pub(crate) const fn without(self, facts: Self) -> Self {
        Self(self.0 & !facts.0)
    }
}

/// How often an id was given up: a handle from an earlier life never fits a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// Past this the id is spent: a wrapped generation would let the oldest handle fit again.
    const LAST: u32 = (1 << 24) - 1;

    pub(crate) const fn next(self) -> Option<Self> {
        if self.0 < Self::LAST { Some(Self(self.0 + 1)) } else { None }
    }
}

/// A node's word: everything that must change in one atomic step.
///
/// ```text
/// 63            40 39     32 31                0
/// |  generation   |  facts  |    references    |
/// ```
///
/// References are handed out and given back, facts change and the id is given up by compare-and-swap of this one word,
/// so no reference can appear between "nobody holds it" and "it is gone".
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    pub(crate) const fn new(generation: Generation, facts: Facts, references: u32) -> Self {
        Self((generation.0 as u64) << 40 | (facts.0 as u64) << 32 | references as u64)
    }

    pub(crate) const fn generation(self) -> Generation {
        Generation((self.0 >> 40) as u32)
    }

    pub(crate) const fn facts(self) -> Facts {
        Facts((self.0 >> 32) as u8)
    }

    pub(crate) const fn references(self) -> u32 {
        self.0 as u32
    }

    pub(crate) const fn state(self) -> NodeState {
        NodeState { facts: self.facts(), references: self.references() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_its_parts_apart() {
        let generation = Generation(Generation::LAST);
        let facts = Facts::REGISTERED.with(Facts::DRAINING);
        let word = Word::new(generation, facts, u32::MAX);
        assert_eq!((word.generation(), word.facts(), word.references()), (generation, facts, u32::MAX));
        assert_eq!(generation.next(), None);
        assert_eq!(Generation(0).next(), Some(Generation(1)));
    }

    #[test]
    fn life_is_named_by_the_facts() {
        let life = |facts| NodeState { facts, references: 0 }.life();
        let registered = Facts::REGISTERED.with(Facts::PRIVATE);
        let online = registered.with(Facts::MEMORY);
        assert_eq!(life(Facts::NONE), Life::Unregistered);
        assert_eq!(life(registered), Life::Registered);
        assert_eq!(life(online), Life::Online);
        assert_eq!(life(online.with(Facts::SERVICED)), Life::Serviced);
        assert_eq!(life(online.with(Facts::SERVICED).with(Facts::DRAINING)), Life::Draining);
        assert_eq!(life(registered.with(Facts::DRAINING)), Life::Offline);
        assert_eq!(online.without(Facts::MEMORY), registered);
    }
}
