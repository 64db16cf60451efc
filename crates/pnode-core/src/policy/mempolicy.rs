//! A policy that was compared with the nodes there are, and follows them.

use super::remap::{relative, remap};
use super::{Mode, Numbering, PolicyError, Wish};
use crate::cpuset::Mems;
use crate::frame::FrameZone;
use crate::node::{Features, NodeId, NodeMask, Stamp};
use crate::page::PageOrigin;
use crate::registry::Nodes;
use crate::sync::RawLock;

/// What a policy is set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A task: what its ranges and objects do not say otherwise.
    Task,
    /// A range of an address space or of a shared object, with pages of this origin.
    Range(PageOrigin),
}

/// A policy in force: which nodes its pages go to.
///
/// # Invariants
///
/// - **M1** `private` is empty unless the mode is bind, and each of its nodes had opened `USER_NUMA` when it was put in.
/// - **M2** no node that was registered after `stamp` is ever put into `private`, and none is ever granted by this
///   policy: an id that was given up and registered again is another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    mode: Mode,
    numbering: Numbering,
    home: Option<NodeId>,
    /// The ordinary nodes that the policy chooses from.
    ordinary: NodeMask,
    /// The private ones.
    private: NodeMask,
    /// For positions: the nodes they were counted in. Otherwise what the user named.
    reference: NodeMask,
    stamp: Stamp,
}

/// The nodes that a policy set at some moment may choose from.
struct View {
    ordinary: NodeMask,
    /// Private nodes whose owners opened `USER_NUMA`.
    consenting: NodeMask,
    /// The other private nodes with memory.
    closed: NodeMask,
}

impl View {
    fn of<Z: FrameZone, L: RawLock>(nodes: &Nodes<'_, Z, L>, stamp: Stamp) -> Self {
        let states = nodes.states();
        let private = nodes.opened_since(Features::NONE, Some(stamp));
        let consenting = nodes.opened_since(Features::USER_NUMA, Some(stamp));
        Self {
            ordinary: states.ordinary_memory.difference(&states.draining),
            closed: private.difference(&consenting),
            consenting,
        }
    }

    /// The nodes that `mode` may choose from within `mems`.
    fn eligible(&self, mode: Mode, mems: &Mems) -> NodeMask {
        let ordinary = self.ordinary.intersection(mems.ordinary());
        match mode {
            Mode::Bind => ordinary.union(&self.consenting.intersection(mems.private())),
            _ => ordinary,
        }
    }
}

impl Policy {
    /// No policy.
    pub const DEFAULT: Self = Self::without_nodes(Mode::Default);
    /// The node of the CPU that faults.
    pub const LOCAL: Self = Self::without_nodes(Mode::Local);

    const fn without_nodes(mode: Mode) -> Self {
        Self {
            mode,
            numbering: Numbering::Positional,
            home: None,
            ordinary: NodeMask::EMPTY,
            private: NodeMask::EMPTY,
            reference: NodeMask::EMPTY,
            stamp: Stamp(0),
        }
    }

    /// Compares `wish` with the nodes of the registry and the cpuset `mems` of the task.
    ///
    /// Nodes outside the cpuset and nodes without memory drop out of the wish. A bind that still names a private node
    /// needs its owner's consent, for all of them; other modes are narrowed to ordinary nodes, so that interleaving over
    /// all nodes keeps working.
    ///
    /// # Errors
    ///
    /// [`PolicyError`], which says what to change.
    pub fn new<Z: FrameZone, L: RawLock>(
        nodes: &Nodes<'_, Z, L>,
        wish: &Wish,
        target: Target,
        mems: &Mems,
    ) -> Result<Self, PolicyError> {
        let mode = wish.mode();
        if let Some(node) = wish.home_node() {
            if !mode.takes_home() {
                return Err(PolicyError::TakesNoHome { mode });
            }
            if node.index() >= nodes.capacity() {
                return Err(PolicyError::UnknownHome { node });
            }
        }
        match (mode.takes_nodes(), wish.nodes().is_empty()) {
            (false, true) => return Ok(Self::without_nodes(mode)),
            (false, false) => return Err(PolicyError::TakesNoNodes { mode }),
            (true, true) => return Err(PolicyError::NoNodes { mode }),
            (true, false) => {}
        }
        let stamp = nodes.stamp();
        let view = View::of(nodes, stamp);
        let eligible = view.eligible(mode, mems);
        let chosen = match wish.node_numbering() {
            Numbering::Relative => relative(wish.nodes(), &eligible),
            Numbering::Positional | Numbering::Static => wish.nodes().intersection(&eligible),
        };
        if mode == Mode::Bind {
            // Relative numbers count consenting nodes only, so they name no closed one.
            let named = match wish.node_numbering() {
                Numbering::Relative => chosen,
                Numbering::Positional | Numbering::Static => {
                    wish.nodes().intersection(&view.closed.intersection(mems.private())).union(&chosen)
                }
            };
            let private = named.intersection(&view.consenting.union(&view.closed));
            if let (Target::Range(PageOrigin::PageCache), Some(node)) = (target, private.first()) {
                return Err(PolicyError::PageCache { node });
            }
            if let Some(node) = private.intersection(&view.closed).first() {
                return Err(PolicyError::NotConsenting { node });
            }
        }
        if chosen.is_empty() {
            return Err(PolicyError::NothingLeft { mode });
        }
        let reference = match wish.node_numbering() {
            Numbering::Positional => eligible,
            Numbering::Static | Numbering::Relative => *wish.nodes(),
        };
        // INVARIANT: M1 and M2, for `eligible` holds private nodes for bind only, and only such as had opened the door
        // and were registered by `stamp`.
        Ok(Self {
            mode,
            numbering: wish.node_numbering(),
            home: wish.home_node(),
            ordinary: chosen.intersection(&view.ordinary),
            private: chosen.intersection(&view.consenting),
            reference,
            stamp,
        })
    }

    /// Follows a change of the cpuset or of the nodes; the host calls this for each policy of the tasks concerned.
    ///
    /// Nodes that left drop out. Then positions are counted anew, static ids are looked up again, relative numbers are
    /// resolved again. None of this reaches a node that did not consent, nor one that was registered after the policy was
    /// set. A policy without nodes stops applying: ordinary memory serves its faults.
    pub fn rebind<Z: FrameZone, L: RawLock>(&mut self, nodes: &Nodes<'_, Z, L>, mems: &Mems) {
        if !self.mode.takes_nodes() {
            return;
        }
        let view = View::of(nodes, self.stamp);
        let eligible = view.eligible(self.mode, mems);
        let chosen = match self.numbering {
            Numbering::Static => self.reference,
            Numbering::Relative => relative(&self.reference, &eligible),
            Numbering::Positional => {
                // Who left drops out of the count too, so that the others do not move up.
                let there = view.ordinary.union(&view.consenting);
                let old = self.reference.intersection(&there);
                let living = self
                    .ordinary
                    .intersection(&view.ordinary)
                    .union(&self.private.intersection(&view.consenting));
                self.reference = eligible;
                remap(&living, &old, &eligible)
            }
        };
        let chosen = chosen.intersection(&eligible);
        // INVARIANT: M1 and M2, as in `new`: `view` was taken as of `stamp`.
        self.ordinary = chosen.intersection(&view.ordinary);
        self.private = chosen.intersection(&view.consenting);
    }

    /// How the policy chooses.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The ordinary nodes it chooses from.
    pub const fn ordinary(&self) -> &NodeMask {
        &self.ordinary
    }

    /// The private nodes it chooses from; empty unless the mode is bind.
    pub const fn private(&self) -> &NodeMask {
        &self.private
    }

    /// The node to start from instead of the faulting CPU's.
    pub const fn home(&self) -> Option<NodeId> {
        self.home
    }

    /// When the policy was set. It never reaches a private node that was registered later.
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whether the policy says nothing here: the next one in the lookup order counts.
    pub const fn is_default(&self) -> bool {
        matches!(self.mode, Mode::Default)
    }

    /// Whether all nodes of the policy left: it stopped applying.
    pub fn is_void(&self) -> bool {
        self.mode.takes_nodes() && self.ordinary.is_empty() && self.private.is_empty()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}
