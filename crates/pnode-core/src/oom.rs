//! Whose end would free memory: scope and victims of a shortage.
//!
//! A shortage has a scope: the nodes that could have served the request. A task is a victim only if its end frees
//! memory there. Private nodes count in both if their owners opened [`Features::OOM`]; a shortage of a private node whose
//! owner did not has no victim: the request fails and nobody dies for it.
//!
//! The Linux series asks ordinary nodes only whether two tasks share memory, so a private node never makes a victim
//! (mail *Private Memory Nodes (w/ Compressed RAM)*, February 2026); here both kinds are asked alike.

use crate::frame::FrameZone;
use crate::node::{Features, NodeMask};
use crate::registry::Nodes;
use crate::sync::RawLock;

/// What limits a shortage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// Nothing: all ordinary memory is short.
    None,
    /// Some ordinary nodes, or private ones among others, were not to be used: others may have plenty.
    Nodes,
    /// No node of the scope counts: no victim would help.
    Hopeless,
}

/// The nodes on which a victim's end would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomScope {
    counted: NodeMask,
    constraint: Constraint,
}

/// A task that might be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<T> {
    /// The host's name for it.
    pub task: T,
    /// The nodes that it has memory on.
    pub uses: NodeMask,
    /// How many frames on nodes of the scope its end would free, with the host's adjustments.
    pub frames: u64,
}

impl OomScope {
    /// The scope of a shortage of the nodes `short`: for a policy's, [`Plan::scope`](crate::policy::Plan::scope).
    pub fn of<Z: FrameZone, L: RawLock>(nodes: &Nodes<'_, Z, L>, short: &NodeMask) -> Self {
        let ordinary = nodes.states().ordinary_memory;
        let counted = short.intersection(&ordinary.union(&nodes.opened(Features::OOM)));
        let constraint = if counted.is_empty() {
            Constraint::Hopeless
        } else if ordinary.is_subset(short) {
            Constraint::None
        } else {
            Constraint::Nodes
        };
        Self { counted, constraint }
    }

    /// What limits the shortage.
    pub const fn constraint(&self) -> Constraint {
        self.constraint
    }

    /// The nodes that count: those whose memory is summed up to judge a task's size by.
    pub const fn counted(&self) -> &NodeMask {
        &self.counted
    }

    /// Whether the end of a task that has memory on `uses` frees some in this scope.
    pub fn relieved_by(&self, uses: &NodeMask) -> bool {
        self.counted.intersects(uses)
    }

    /// The candidate with the most frames among those whose end helps; the first of equals.
    pub fn victim<T>(&self, candidates: impl IntoIterator<Item = Candidate<T>>) -> Option<Candidate<T>> {
        let helping = candidates.into_iter().filter(|candidate| self.relieved_by(&candidate.uses));
        helping.reduce(|most, next| if next.frames > most.frames { next } else { most })
    }
}
