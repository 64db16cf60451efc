//! Where the frame of a page comes from.
//!
//! A mapping's pages go to frames in the same order where they can: then one mapping of the kernel serves the whole
//! *run*, and a fault changes an entry of its page table only ([`View::lay`](crate::fault::View::lay)). A run is begun by
//! finding a free block and reserves nothing: the block is given back at once, and each page asks for its own frame of it
//! when it is touched. Who finds it taken takes any other.

use pnode_core::sync::Ordering;
use pnode_core::{AllocError, Frame, NodeId, Order, Pfn, Reason, Request};

use super::Shared;
use super::mapping::Placement;
use super::region::Region;
use super::site::Site;
use crate::fault::{FaultError, Standing};

/// The orders of the runs that are looked for: what the processor maps by one entry, and what a kernel looks around.
const RUNS: [Order; 2] = [order(9), order(4)];
/// A run of the first order is begun only while the node has so many of them free.
const PLENTY: u64 = 8;
/// How many pages go their own way after no run was found.
const DISCOURAGED: u32 = 64;

pub(super) const fn order(order: u8) -> Order {
    match Order::new(order) {
        Ok(order) => order,
        Err(_) => unreachable!(),
    }
}

/// Which block of a node is asked for.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    /// This frame.
    At(Pfn),
    /// Any block of this order, of this node only.
    Block(Order),
    /// Any frame, where the policy allows it.
    Any,
}

impl Region {
    /// The frame for page `page`, which is touched for the first time.
    pub(super) fn first_frame(&self, page: usize, standing: Standing) -> Result<Frame, FaultError> {
        if self.is_governed(page) {
            return self.own_frame(page);
        }
        let node = self.placement.node();
        let site = self.shared.site(node).ok_or(FaultError::NotMapped)?;
        match self.placement {
            Placement::Owner(_) => {
                let grant = site.owner_grant().map_err(FaultError::Denied)?;
                let take = |ask| match ask {
                    Ask::At(pfn) => grant.alloc_at(pfn, Request::page()),
                    Ask::Block(order) => grant.alloc(Request::order(order)),
                    Ask::Any => grant.alloc(Request::page()),
                };
                self.in_run(page, site, standing, take).map_err(FaultError::NoFrame)
            }
            Placement::Bound(_) if !self.has_left(site) => match self.bound_frame(page, site, standing) {
                // It left just now. To wait for the end of the drain would be to wait for ourselves: the drain visits
                // this page too, which we hold.
                Err(_) if self.has_left(site) => self.near_frame(page, standing),
                taken => taken,
            },
            Placement::Bound(_) | Placement::Near(_) => self.near_frame(page, standing),
        }
    }

    /// The frame for page `page`, whose bytes are elsewhere now.
    pub(super) fn frame_again(&self, page: usize, standing: Standing) -> Result<Frame, FaultError> {
        match self.first_frame(page, standing) {
            // A driver's page that was moved off its node, and then to swap: it was in ordinary memory when it went, and
            // its bytes must not wait for a node that may never come back, or may be full then.
            Err(FaultError::Denied(_) | FaultError::NoFrame(_))
                if matches!(self.placement, Placement::Owner(_)) =>
            {
                self.ordinary_frame()
            }
            taken => taken,
        }
    }

    /// Exactly this frame for `page`, if the policy would take a frame of its node first.
    pub(super) fn exactly(&self, page: usize, pfn: Pfn) -> Option<Frame> {
        if self.is_governed(page) {
            return None;
        }
        let node = self.placement.node();
        let site = self.shared.site(node).filter(|site| site.frames.contains(pfn))?;
        match self.placement {
            Placement::Owner(_) => site.owner_grant().ok()?.alloc_at(pfn, Request::page()).ok(),
            Placement::Bound(_) if site.is_private() => {
                let grant = self.shared.nodes.grant_as_of(node, Reason::UserPolicy, self.stamp).ok()?;
                grant.alloc_at(pfn, Request::page()).ok()
            }
            Placement::Bound(_) if self.has_left(site) => None,
            Placement::Bound(_) | Placement::Near(_) => {
                self.shared.nodes.alloc_at(pfn, Request::page().prefer(node).this_node_only()).ok()
            }
        }
    }

    /// Whether the node that the mapping is bound to is leaving, or has left: the bind does not apply any more, also if
    /// another node has the id now.
    fn has_left(&self, site: &Site) -> bool {
        site.is_unplugged()
            || site.life() != self.life
            || self.shared.nodes.state(site.node).is_none_or(|state| state.is_draining())
    }

    /// A frame of the node that the mapping is bound to.
    fn bound_frame(&self, page: usize, site: &Site, standing: Standing) -> Result<Frame, FaultError> {
        if !site.is_private() {
            let take = |ask| self.shared.ask_ordinary(site.node, ask, Request::this_node_only);
            return self.in_run(page, site, standing, take).map_err(FaultError::NoFrame);
        }
        // The stamp is what holds if the node leaves and comes back while we are here.
        let grant = self.shared.nodes.grant_as_of(site.node, Reason::UserPolicy, self.stamp);
        let grant = grant.map_err(FaultError::Denied)?;
        let take = |ask| match ask {
            Ask::At(pfn) => grant.alloc_at(pfn, Request::page()),
            Ask::Block(order) => grant.alloc(Request::order(order)),
            Ask::Any => grant.alloc(Request::page()),
        };
        self.in_run(page, site, standing, take).map_err(FaultError::NoFrame)
    }

    /// The frame of ordinary memory for a page that is touched for the first time; reclaims if there is none.
    fn near_frame(&self, page: usize, standing: Standing) -> Result<Frame, FaultError> {
        let node = self.placement.node();
        let Some(site) = self.shared.site(node).filter(|site| !site.is_private()) else {
            return self.ordinary_frame();
        };
        let take = |ask| self.shared.ask_ordinary(node, ask, |request| request);
        match self.in_run(page, site, standing, take) {
            Err(AllocError::NoMemory { .. }) => self.ordinary_frame(),
            taken => taken.map_err(FaultError::NoFrame),
        }
    }

    /// A frame of ordinary memory; reclaims if there is none.
    pub(super) fn ordinary_frame(&self) -> Result<Frame, FaultError> {
        const BATCH: usize = 32;
        let mems = self.mems();
        let request = Request::page().prefer(self.placement.node()).nodemask(mems.ordinary());
        loop {
            match patiently(|| self.shared.nodes.alloc(request)) {
                Err(AllocError::NoMemory { .. }) if self.shared.reclaim(BATCH) > 0 => {}
                result => {
                    let taken = result.inspect_err(|error| self.shared.note_shortage(error));
                    return taken.map_err(FaultError::NoFrame);
                }
            }
        }
    }

    /// Takes the frame of `site` with which the page's run goes on, or begins a run, or takes any frame.
    fn in_run(
        &self,
        page: usize,
        site: &Site,
        standing: Standing,
        take: impl Fn(Ask) -> Result<Frame, AllocError>,
    ) -> Result<Frame, AllocError> {
        let wanted = match standing {
            Standing::Laid { file, frame } if site.backing.is_file(file) => {
                site.frames.start().checked_add(frame)
            }
            Standing::Absent => self.begin_run(page, site, &take),
            _ => None,
        };
        let taken = wanted.and_then(|pfn| take(Ask::At(pfn)).ok());
        taken.map_or_else(|| patiently(|| take(Ask::Any)), Ok)
    }

    /// Lays a run of free frames around `page`; gives back the frame that is the page's.
    fn begin_run(
        &self,
        page: usize,
        site: &Site,
        take: impl Fn(Ask) -> Result<Frame, AllocError>,
    ) -> Option<Pfn> {
        // Relaxed: a hint that orders nothing.
        let discouraged = self.discouraged.load(Ordering::Relaxed);
        if !self.view.can_lay() || !site.backing.can_be_laid() {
            return None;
        }
        if discouraged > 0 {
            self.discouraged.store(discouraged - 1, Ordering::Relaxed);
            return None;
        }
        for order in RUNS {
            let pages = 1 << order.get();
            let plenty = order != RUNS[0] || site.free_frames() >= PLENTY * order.frames();
            if !plenty || self.pages.len() < pages && order != RUNS[1] {
                continue;
            }
            let Ok(block) = take(Ask::Block(order)) else { continue };
            let pfn = block.pfn();
            self.shared.put_back(block);
            let first = page & !(pages - 1);
            let count = pages.min(self.pages.len() - first);
            let frame = pfn.checked_sub(site.frames.start())?;
            self.view.lay(first, count, &site.backing, frame).ok()?;
            return pfn.checked_add((page - first) as u64);
        }
        self.discouraged.store(DISCOURAGED, Ordering::Relaxed);
        None
    }
}

impl Shared {
    /// Asks for ordinary memory, nearest to `node`; `narrow` says what else the policy wants of a request for any frame.
    fn ask_ordinary(
        &self,
        node: NodeId,
        ask: Ask,
        narrow: impl Fn(Request<'static>) -> Request<'static>,
    ) -> Result<Frame, AllocError> {
        match ask {
            Ask::At(pfn) => self.nodes.alloc_at(pfn, Request::page().prefer(node).this_node_only()),
            Ask::Block(order) => self.nodes.alloc(Request::order(order).prefer(node).this_node_only()),
            Ask::Any => self.nodes.alloc(narrow(Request::page().prefer(node))),
        }
    }
}

/// Asks again while blocks are in motion: whoever moves them is a thread that runs sooner or later.
fn patiently(mut take: impl FnMut() -> Result<Frame, AllocError>) -> Result<Frame, AllocError> {
    loop {
        match take() {
            Err(AllocError::Contended { .. }) => std::thread::yield_now(),
            result => return result,
        }
    }
}
