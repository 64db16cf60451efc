//! Carrying a plan out: taking a page where the policies say.

use core::fmt;

use super::plan::Spare;
use super::{FaultKind, FaultReport, Placement, Plan, Step};
use crate::addr::Order;
use crate::frame::{FrameZone, MigrateType};
use crate::grant::{Denied, Reason};
use crate::node::{NodeId, NodeMask};
use crate::page::PageOrigin;
use crate::registry::{AllocError, Frame, Nodes};
use crate::request::{Contents, Request};
use crate::sync::RawLock;

/// A page that a hard fault brought.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a block that is dropped stays in use; give it back with `Nodes::free`"]
pub struct Placed {
    /// The page.
    pub frame: Frame,
    /// Where it is, and where the policy wanted it.
    pub report: FaultReport,
}

/// Why a hard fault brought no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlaceError {
    /// No node of a bind has such a block. The bind does not spill: the shortage is these nodes' own
    /// ([`Plan::scope`]), and only a task that uses them can end it.
    BoundNodesFull {
        /// The node that was to be asked first.
        node: NodeId,
        /// The order that was asked for.
        order: Order,
    },
    /// No ordinary node of the cpuset has such a block.
    NoMemory {
        /// The order that was asked for.
        order: Order,
    },
    /// No node had such a block at hand, but on one of them blocks were in motion: no shortage. Let the other CPUs run,
    /// and ask again.
    Contended {
        /// The order that was asked for.
        order: Order,
    },
    /// The request itself is wrong.
    Refused(AllocError),
    /// A bound node could not be asked, though it is there and open.
    Denied(Denied),
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BoundNodesFull { node, order } => write!(
                f,
                "the bound nodes, {node:?} first, have no block of order {order}; free some there, or bind to more nodes"
            ),
            Self::NoMemory { order } => {
                write!(
                    f,
                    "no ordinary node of the cpuset has a block of order {order}; free some or ask for less"
                )
            }
            Self::Contended { order } => AllocError::Contended { order: *order }.fmt(f),
            Self::Refused(error) => error.fmt(f),
            Self::Denied(denied) => denied.fmt(f),
        }
    }
}

impl core::error::Error for PlaceError {}

/// What asking one node, or the ordinary ones, came to.
enum Asked {
    Got(Frame),
    /// It has no such block.
    Full,
    /// It may have one, in motion.
    Contended,
    /// It left, or is leaving: the policy no longer speaks of it.
    Left,
}

impl<'m, Z: FrameZone, L: RawLock> Nodes<'m, Z, L> {
    /// Takes a page where the policies of `placement` say: a hard fault.
    ///
    /// Ordinary nodes are asked by ordinary requests, private ones by a grant for [`Reason::UserPolicy`] each, which their
    /// owner's consent and the moment the policy was set must fit. A bind whose nodes all left no longer applies; one
    /// whose nodes are full ends in an error and spills nowhere. Takes no lock.
    ///
    /// # Errors
    ///
    /// [`PlaceError`]; nothing has changed then.
    pub fn place(&'m self, placement: &Placement<'_>) -> Result<Placed, PlaceError> {
        let plan = placement.plan(self.distances());
        let order = placement.order;
        let (mut full, mut contended) = (false, false);
        for step in plan.steps(self.distances()) {
            let asked = match step {
                Step::Ordinary { prefer, within } => self.ask_ordinary(prefer, within, placement)?,
                Step::Private { node } => self.ask_private(node, &plan, placement)?,
            };
            match asked {
                Asked::Got(frame) => return Ok(self.placed(frame, placement)),
                Asked::Full => full = true,
                Asked::Contended => contended = true,
                Asked::Left => {}
            }
        }
        if contended {
            return Err(PlaceError::Contended { order });
        }
        match plan.spare {
            Spare::IfAllLeft if full => {
                Err(PlaceError::BoundNodesFull { node: plan.asked_first(self.distances()), order })
            }
            Spare::IfAllLeft => match self.ask_ordinary(plan.from, &plan.mems, placement)? {
                Asked::Got(frame) => Ok(self.placed(frame, placement)),
                Asked::Contended => Err(PlaceError::Contended { order }),
                Asked::Full | Asked::Left => Err(PlaceError::NoMemory { order }),
            },
            Spare::Always => Err(PlaceError::NoMemory { order }),
        }
    }

    fn ask_ordinary(
        &self,
        prefer: NodeId,
        within: &NodeMask,
        placement: &Placement<'_>,
    ) -> Result<Asked, PlaceError> {
        match self.alloc(request(placement).prefer(prefer).nodemask(within)) {
            Ok(frame) => Ok(Asked::Got(frame)),
            Err(AllocError::NoMemory { .. } | AllocError::Masked { .. }) => {
                let states = self.states();
                let there = states.ordinary_memory.difference(&states.draining);
                Ok(if within.intersects(&there) { Asked::Full } else { Asked::Left })
            }
            Err(AllocError::Contended { .. }) => Ok(Asked::Contended),
            Err(error) => Err(PlaceError::Refused(error)),
        }
    }

    fn ask_private(
        &'m self,
        node: NodeId,
        plan: &Plan,
        placement: &Placement<'_>,
    ) -> Result<Asked, PlaceError> {
        let grant = match self.grant_as_of(node, Reason::UserPolicy, plan.stamp) {
            Ok(grant) => grant,
            Err(error @ Denied::TooManyReferences { .. }) => return Err(PlaceError::Denied(error)),
            // Features are fixed for a life of the id: a shut door means another life.
            Err(_) => return Ok(Asked::Left),
        };
        match grant.alloc(request(placement)) {
            Ok(frame) => Ok(Asked::Got(frame)),
            Err(AllocError::NoMemory { .. }) => {
                let there = self.state(node).is_some_and(|state| state.has_memory() && !state.is_draining());
                Ok(if there { Asked::Full } else { Asked::Left })
            }
            Err(AllocError::Draining { .. }) => Ok(Asked::Left),
            Err(AllocError::Contended { .. }) => Ok(Asked::Contended),
            Err(error) => Err(PlaceError::Refused(error)),
        }
    }

    fn placed(&self, frame: Frame, placement: &Placement<'_>) -> Placed {
        let report = FaultReport::new(FaultKind::Hard, placement.wanted(self.distances()), frame.node());
        Placed { frame, report }
    }
}

/// What a placement asks of whatever node it comes to.
fn request(placement: &Placement<'_>) -> Request<'static> {
    let migrate = match placement.origin {
        PageOrigin::Unmovable => MigrateType::Unmovable,
        _ => MigrateType::Movable,
    };
    let request = Request::order(placement.order).migrate(migrate).depth(placement.depth);
    match placement.contents {
        Contents::Zeroed => request.zeroed(),
        Contents::Any => request,
    }
}
