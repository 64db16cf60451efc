//! When reclaim works on a zone, how hard, and who owns a watermark boost.
//!
//! Everything here is a decision: numbers in, a verdict out. The words are those of `kswapd` in Linux (`mm/vmscan.c`). A
//! boost raises a zone's high watermark, after fragmentation or because a service wants memory back; reclaim for a boost
//! alone is gentle and does not swap, unless the node's service says that it may. A service under pressure boosts by
//! all of a zone to say "free everything", and then the host must not take its boost away: mail *Private Memory Nodes (w/
//! Compressed RAM)*, February 2026.

use crate::cpuset::Mems;
use crate::frame::FrameZone;
use crate::node::{Features, NodeId};
use crate::ops::{BoostOwner, NoSleep, ReclaimPolicy, SwapRule};
use crate::registry::Nodes;
use crate::sync::RawLock;
use crate::watermark::Watermarks;

/// A zone as reclaim sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneLevel {
    free: u64,
    marks: Watermarks,
    boost: Boost,
}

/// Frames by which a zone's high watermark is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Boost(u64);

impl Boost {
    /// Not raised.
    pub const NONE: Self = Self(0);

    /// Raised by `frames`; by all of the zone's to say "free everything".
    pub const fn frames(frames: u64) -> Self {
        Self(frames)
    }

    /// By how many frames.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The boost after the host worked its watermarks out anew, as it does when memory comes or a knob is turned: gone,
    /// unless the service owns it.
    #[must_use]
    pub const fn after_recomputing(self, policy: ReclaimPolicy) -> Self {
        match policy.boost {
            BoostOwner::Host => Self::NONE,
            BoostOwner::Service => self,
        }
    }

    /// The boost after a pass that set out to satisfy `served` of it: less by that much, unless the service owns it.
    #[must_use]
    pub const fn after_pass(self, served: Self, policy: ReclaimPolicy) -> Self {
        match policy.boost {
            BoostOwner::Host => Self(self.0.saturating_sub(served.0)),
            BoostOwner::Service => self,
        }
    }
}

/// Whether background reclaim sleeps or works on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kswapd {
    /// It waits to be woken.
    Asleep,
    /// It works until the zone is balanced.
    Awake,
}

/// What kind of pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Memory is short.
    Normal,
    /// Memory is not short; a boost wants some more.
    Boosted,
}

/// What background reclaim does next on a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It rests.
    Rest,
    /// It makes a pass.
    Reclaim {
        /// Of this kind.
        pass: Pass,
        /// Until this many more frames are free.
        frames: u64,
    },
}

impl ZoneLevel {
    /// A zone with `free` frames free, these watermarks and this boost.
    pub const fn new(free: u64, marks: Watermarks, boost: Boost) -> Self {
        Self { free, marks, boost }
    }

    /// What is to be free for the boost to be satisfied.
    pub const fn boosted_high(&self) -> u64 {
        self.marks.high().saturating_add(self.boost.0)
    }

    /// What background reclaim does next: it wakes below *low*, or for a boost, and works until *high*. A shortage comes
    /// before a boost, so that gentle passes never stand in its way.
    pub const fn verdict(&self, kswapd: Kswapd) -> Verdict {
        let short = match kswapd {
            Kswapd::Asleep => self.free < self.marks.low(),
            Kswapd::Awake => self.free < self.marks.high(),
        };
        if short {
            return Verdict::Reclaim {
                pass: Pass::Normal,
                frames: self.marks.high().saturating_sub(self.free),
            };
        }
        let boosted = self.boosted_high();
        if self.boost.0 > 0 && self.free < boosted {
            return Verdict::Reclaim { pass: Pass::Boosted, frames: boosted.saturating_sub(self.free) };
        }
        Verdict::Rest
    }
}

/// Whether a pass may write pages to swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swapping {
    /// It may.
    Allowed,
    /// It may not.
    Forbidden,
}

impl Pass {
    /// Whether this pass may swap where `host` says whether any may: a boosted one only if the node's service says so, any
    /// other as the host says. A service's policy gives back what a boosted pass took; it takes nothing away and gives
    /// nothing that the host does not have.
    pub const fn swapping(self, host: Swapping, policy: ReclaimPolicy) -> Swapping {
        match (self, policy.swap) {
            (Self::Normal, _) | (Self::Boosted, SwapRule::MaySwap) => host,
            (Self::Boosted, SwapRule::Gentle) => Swapping::Forbidden,
        }
    }
}

impl<Z: FrameZone, L: RawLock> Nodes<'_, Z, L> {
    /// What the service of `node` says reclaim may do; the gentle default if it has none. The host asks once a pass.
    pub fn reclaim_policy(&self, node: NodeId) -> ReclaimPolicy {
        self.with_service(node, |service| service.ops().reclaim_policy(NoSleep::here())).unwrap_or_default()
    }

    /// Whether reclaim may work on `node` for a task of the cpuset `mems`: on an ordinary node if the cpuset has it, on a
    /// private one if its owner opened [`Features::RECLAIM`], whatever the cpuset says.
    ///
    /// The door replaces the cpuset's test because pages came to the node by other ways than the tasks' own requests. The
    /// pass itself takes a grant for [`Reason::Reclaim`](crate::Reason::Reclaim).
    pub fn may_reclaim(&self, node: NodeId, mems: &Mems) -> bool {
        let Some(state) = self.state(node).filter(|state| state.has_memory()) else { return false };
        if state.is_private() {
            self.is_opened(node, Features::RECLAIM)
        } else {
            mems.ordinary().contains(node)
        }
    }
}
