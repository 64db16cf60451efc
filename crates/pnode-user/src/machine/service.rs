//! Services of private nodes: who answers for their pages, and when he is asked.
//!
//! | callback | called when |
//! | --- | --- |
//! | [`NodeOps::fault`] | a program writes to a page of the node that is fenced; without a lock held, before the harness promotes the page |
//! | [`NodeOps::migrated`] | a page of a program left the node: copied, and not mapped yet |
//! | [`NodeOps::free`] | a program's page let go of a frame of the node; what the service keeps is given back by [`Machine::release`] |
//! | [`NodeOps::memory_failure`] | [`Machine::memory_failure`] says so |
//!
//! Moving pages in ([`NodeOps::migrate_to`]), splits and the policy of reclaim are not asked for: pages arrive by the node's frames
//! here, no block of several frames is split, and reclaim has no boost.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pnode_core::ops::{self, Block, FaultVerdict, FreeVerdict, MaySleep, NoSleep};
use pnode_core::{Features, Frame, FreeError, NodeId, NodeOps, Pfn, Service};

use super::region::{Region, State};
use super::site::Site;
use super::{Machine, Shared};
use crate::fault::Access;

/// The callbacks of a service, as a machine keeps them.
pub(super) type Ops = Arc<dyn NodeOps + Send + Sync>;

/// The services that a machine is to have, by the number of the node.
#[derive(Clone, Default)]
pub(super) struct Services(pub(super) Vec<(u16, Ops)>);

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(number, _)| number)).finish()
    }
}

/// What a site has of its service.
pub(super) struct Served {
    pub(super) service: Option<&'static Service<'static>>,
    /// The frames that the service keeps although no page has them, by number.
    kept: Mutex<BTreeMap<u64, Frame>>,
}

impl Served {
    pub(super) fn by(service: Option<&'static Service<'static>>) -> Self {
        Self { service, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<u64, Frame>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many frames the service keeps.
    pub(super) fn kept_frames(&self) -> u64 {
        self.kept().values().map(|frame| frame.order().frames()).sum()
    }
}

const fn block(frame: &Frame) -> Block {
    Block { pfn: frame.pfn(), order: frame.order() }
}

impl Machine {
    /// Gives a block back that the service of `node` kept ([`FreeVerdict::Kept`]). The node cannot be unplugged while it keeps
    /// any.
    ///
    /// # Errors
    ///
    /// [`FreeError::NotAllocated`] if it keeps no block that begins there.
    pub fn release(&self, node: NodeId, pfn: Pfn) -> Result<(), FreeError> {
        let kept = self.shared.site(node).and_then(|site| site.served.kept().remove(&pfn.get()));
        self.shared.nodes.free(kept.ok_or(FreeError::NotAllocated { pfn })?)
    }

    /// Says that the memory of `pfn` failed; whether the frame's node has a service that was told.
    pub fn memory_failure(&self, pfn: Pfn) -> bool {
        let node = self.shared.locate(pfn).map(|(site, _)| site.node);
        let tell = |service: &Service<'static>| service.ops().memory_failure(NoSleep::here(), pfn);
        node.and_then(|node| self.shared.nodes.with_service(node, tell)).is_some()
    }
}

impl Shared {
    fn served(&self, node: NodeId) -> Option<&Site> {
        self.site(node).filter(|site| site.served.service.is_some())
    }

    /// Asks the service of the frame's node, if there is one, whether it keeps the frame; gives it back if it does not.
    pub(super) fn kept_by_service(&self, frame: Frame) -> Option<Frame> {
        let Some(site) = self.served(frame.node()) else { return Some(frame) };
        let ask = |service: &Service<'static>| service.ops().free(NoSleep::here(), block(&frame));
        match self.nodes.with_service(site.node, ask) {
            Some(FreeVerdict::Kept) => {
                site.served.kept().insert(frame.pfn().get(), frame);
                None
            }
            Some(FreeVerdict::Release) | None => Some(frame),
        }
    }

    /// Tells the service of the node that `from` is on that the page is at `to` now.
    pub(super) fn moved(&self, from: &Frame, to: &Frame) {
        if let Some(site) = self.served(from.node()) {
            let tell =
                |service: &Service<'static>| service.ops().migrated(NoSleep::here(), block(from), block(to));
            self.nodes.with_service(site.node, tell);
        }
    }
}

impl Region {
    /// Asks the service of the node that `page` is on about a write that its fence forbids; whether ordinary handling goes on.
    pub(super) fn service_passes_on(&self, page: usize, access: Access) -> bool {
        if access == Access::Read || !self.shared.has_services {
            return true;
        }
        // Nothing is locked while the service works.
        let fenced = self.lock(page).and_then(|cell| match &cell.state {
            State::Resident(frame) => {
                let site = self.shared.served(frame.node())?;
                site.features.contains(Features::WRITE_FENCE).then(|| (site.node, block(frame)))
            }
            _ => None,
        });
        let is_mapped = || self.view.mapped(page).is_some();
        let Some((node, block)) = fenced.filter(|_| access == Access::Write || is_mapped()) else {
            return true;
        };
        let ask =
            |service: &Service<'static>| service.ops().fault(MaySleep::here(), block, ops::Access::Write);
        match self.shared.nodes.with_service(node, ask) {
            None | Some(FaultVerdict::PassOn) => true,
            Some(FaultVerdict::Settled) => false,
            Some(FaultVerdict::Retry) => {
                std::thread::yield_now();
                false
            }
        }
    }
}
