//! What a page is for, which decides whose policy counts for it and whether it may live on a private node.

use core::fmt;

use crate::frame::FrameZone;
use crate::node::{Features, NodeId};
use crate::registry::Nodes;
use crate::sync::RawLock;

/// What a page is for.
///
/// | page | whose policy counts | private nodes of that policy |
/// | --- | --- | --- |
/// | private anonymous | the range's, else the task's | used, by bind |
/// | shared anonymous | the object's; else the task's | used if the object's, left out if the task's |
/// | page cache | the task's | left out; a bind of the mapping is refused when it is set |
/// | unmovable | the task's | left out |
///
/// Where private nodes are left out and a bind names no other, any ordinary node of the cpuset serves: such a request
/// ends in a page or in an ordinary shortage, never in an endless retry.
///
/// A page of the cache belongs to its file and may be unmapped now and mapped later, by anybody: a mapping's policy
/// that seemed to hold for it would hold by accident. After the discussion of soft and hard faults under mail *Private
/// Memory Nodes (w/ Compressed RAM)*, June 2026.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageOrigin {
    /// Memory of one process, without a file.
    PrivateAnonymous,
    /// An object that several processes may map, without a file: shared memory, a memory file.
    SharedAnonymous,
    /// Contents of a file, mapped or not.
    PageCache,
    /// What the kernel cannot move: page tables, slab, device rings.
    Unmovable,
}

/// Whose policy counts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider {
    /// The policy of the range of the address space.
    Range,
    /// The policy of the range of the shared object.
    Object,
    /// The policy of the task.
    Task,
}

/// What becomes of private nodes that a policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateNodes {
    /// They are used.
    Used,
    /// They are left out.
    LeftOut,
}

/// What counts for one [`PageOrigin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginRule {
    /// Whose policy counts; the task's if that one is default.
    pub decider: Decider,
    /// Private nodes that the decider's policy names.
    pub decider_private: PrivateNodes,
    /// Private nodes that the task's policy names, where the decider's is default.
    pub task_private: PrivateNodes,
}

/// The table above as data.
pub const ORIGINS: [(PageOrigin, OriginRule); 4] = [
    (PageOrigin::PrivateAnonymous, rule(Decider::Range, PrivateNodes::Used, PrivateNodes::Used)),
    (PageOrigin::SharedAnonymous, rule(Decider::Object, PrivateNodes::Used, PrivateNodes::LeftOut)),
    (PageOrigin::PageCache, rule(Decider::Task, PrivateNodes::LeftOut, PrivateNodes::LeftOut)),
    (PageOrigin::Unmovable, rule(Decider::Task, PrivateNodes::LeftOut, PrivateNodes::LeftOut)),
];

const fn rule(decider: Decider, decider_private: PrivateNodes, task_private: PrivateNodes) -> OriginRule {
    OriginRule { decider, decider_private, task_private }
}

impl PageOrigin {
    /// What counts for pages of this origin.
    pub const fn rule(self) -> OriginRule {
        let [anonymous, shared, cache, unmovable] = ORIGINS;
        match self {
            Self::PrivateAnonymous => anonymous.1,
            Self::SharedAnonymous => shared.1,
            Self::PageCache => cache.1,
            Self::Unmovable => unmovable.1,
        }
    }
}

impl<Z: FrameZone, L: RawLock> Nodes<'_, Z, L> {
    /// Whether pages of `origin` may be moved to `node` by a service of the host: demotion, for one.
    ///
    /// Any page may be on an ordinary node. On a private one only anonymous memory may; and behind a write fence only
    /// private anonymous memory, for the contents of a shared object can be written through the kernel's own mapping
    /// (`write(2)`), which no fence of page tables sees. The series demoted page cache at first, with that hole. Whether
    /// the move itself is allowed is asked of a grant.
    pub fn may_live_on(&self, node: NodeId, origin: PageOrigin) -> bool {
        let Some(state) = self.state(node).filter(|state| state.has_memory()) else { return false };
        match (state.is_private(), origin) {
            (false, _) | (true, PageOrigin::PrivateAnonymous) => true,
            (true, PageOrigin::SharedAnonymous) => {
                // A fence stands while the node drains, so this asks what it was registered with, not what is open now.
                self.features(node).is_some_and(|features| !features.contains(Features::WRITE_FENCE))
            }
            (true, PageOrigin::PageCache | PageOrigin::Unmovable) => false,
        }
    }
}

impl fmt::Display for PageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PrivateAnonymous => "private anonymous memory",
            Self::SharedAnonymous => "shared anonymous memory",
            Self::PageCache => "page cache",
            Self::Unmovable => "unmovable memory",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_origin_finds_its_own_row() {
        for (origin, rule) in ORIGINS {
            assert_eq!(origin.rule(), rule, "{origin}");
        }
    }
}
