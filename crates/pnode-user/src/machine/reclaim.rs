//! Demotion into private nodes and promotion out of them: by hand, and when ordinary memory runs out.

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use pnode_compress::cram;
use pnode_core::tier::{TierSlot, Tiers};
use pnode_core::{AllocError, Denied, Features, Frame, Grant, NodeId, NodeMask, Reason, Request};

use super::common::Reclaimed;
use super::compressed::Compressed;
use super::huge::Shown;
use super::mapping::Mapping;
use super::region::{Page, Region, State};
use super::site::Site;
use super::spec::MAX_NODES;
use super::trace::{Note, What, Why};
use super::{Machine, Shared, Zone};
use crate::fault::FaultError;
use crate::sys::SysError;

/// How far a demotion came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Demotion {
    /// Pages that moved.
    pub pages: usize,
    /// Pages that stay in ordinary memory because the node did not take them.
    pub refused: usize,
    /// Why the first of them was refused.
    pub reason: Option<DemoteError>,
}

/// Why a page was not demoted. It is where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DemoteError {
    /// The gate is shut.
    Denied(Denied),
    /// The node has no frame.
    NoFrame(AllocError),
    /// The node did not take the page.
    Refused(cram::DemoteError),
    /// The node was unplugged meanwhile.
    Unplugged {
        /// The node.
        node: NodeId,
    },
    /// The page is not in a frame.
    NotResident,
    /// The kernel did not unmap it.
    Kernel(SysError),
}

impl fmt::Display for DemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::NoFrame(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
            Self::Unplugged { node } => write!(f, "{node:?} is unplugged"),
            Self::NotResident => f.write_str("the page is not in a frame"),
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DemoteError {}

impl Mapping {
    /// Moves those of `pages` that are in frames of other nodes to the private node `node`. Compressed pages are left
    /// alone, as are those that do not exist. A program that touches a page meanwhile waits.
    ///
    /// # Errors
    ///
    /// [`DemoteError::Denied`] if the node takes nothing at all. Refusals of single pages are counted in the
    /// [`Demotion`].
    pub fn demote(&self, pages: Range<usize>, node: NodeId) -> Result<Demotion, DemoteError> {
        let region = &*self.region;
        let target = region.shared.target(node)?;
        let mut done = Demotion::default();
        let pages = region.clamp(pages);
        for page in pages.clone() {
            let Some(mut cell) = region.lock(page) else { break };
            match &cell.state {
                State::Resident(frame) if frame.node() != node => {
                    let elsewhere = |page: &Page| page.node() != Some(node);
                    let is_whole = page % Machine::HUGE_PAGES == 0 && pages.end - page >= Machine::HUGE_PAGES;
                    if is_whole && region.demote_huge(page, &mut cell, &target, elsewhere) {
                        done.pages += Machine::HUGE_PAGES;
                        continue;
                    }
                    done.count(region.demote(page, &mut cell, &target));
                }
                _ => {}
            }
        }
        Ok(done)
    }

    /// Moves those of `pages` that are on the private node `node` to ordinary memory. Returns how many.
    ///
    /// # Errors
    ///
    /// [`FaultError::Denied`] if the node did not open `PROMOTION`; [`FaultError`] if there is no memory to promote a
    /// page to, which stays where it is, as do those after it.
    pub fn promote(&self, pages: Range<usize>, node: NodeId) -> Result<usize, FaultError> {
        let region = &*self.region;
        let grant = region.shared.nodes.grant(node, Reason::Promotion);
        let grant = region.shared.gate(node, grant).map_err(FaultError::Denied)?;
        let mut done = 0;
        for page in region.clamp(pages) {
            let Some(mut cell) = region.lock(page) else { break };
            let on = match &cell.state {
                State::Resident(frame) => Some(frame.node()),
                State::Stored { node, .. } => Some(*node),
                State::Common(common) => common.lock().node(),
                State::Untouched | State::Swapped(_) => None,
            };
            if on == Some(node) {
                done += region
                    .promote_huge_or_page(page, &mut cell, Why::Asked, |page| page.node() == Some(node))?;
            }
        }
        drop(grant);
        Ok(done)
    }
}

/// A node that takes pages of others, and the right to move them there.
pub(super) enum Target {
    /// Into frames of an ordinary node of a lower tier.
    Ordinary(NodeId),
    /// Into frames of a private node.
    Private(Grant<'static, Zone>),
    /// Into compressed RAM. The grant keeps the node from being given up meanwhile.
    Compressed(Arc<Compressed>, Grant<'static, Zone>),
}

impl Target {
    /// A frame of the node, for a target that takes frames.
    pub(super) fn frame(&self, shared: &Shared) -> Result<Frame, DemoteError> {
        let taken = match self {
            Self::Ordinary(node) => shared.nodes.alloc(Request::page().prefer(*node).this_node_only()),
            Self::Private(grant) | Self::Compressed(_, grant) => grant.alloc(Request::page()),
        };
        taken.map_err(DemoteError::NoFrame)
    }

    /// The frames of a block of the node for a huge mapping; compressed RAM takes single pages.
    fn block(&self, shared: &Shared) -> Option<Vec<Frame>> {
        match self {
            Self::Ordinary(node) => shared.huge_frames_on(*node),
            Self::Private(grant) => shared.huge_frames_of(grant),
            Self::Compressed(..) => None,
        }
    }
}

/// Where the pages of each node are demoted to, as [`Tiers`] has it.
pub(super) struct Routes {
    /// By number of the node that pages come from: the nodes that take them, in order.
    from: Vec<Vec<NodeId>>,
    /// By number of the node: the way there. `None` for one that takes nothing now.
    to: Vec<Option<Target>>,
}

impl Demotion {
    fn count(&mut self, outcome: Result<(), DemoteError>) {
        match outcome {
            Ok(()) => self.pages += 1,
            Err(error) => {
                self.refused += 1;
                self.reason.get_or_insert(error);
            }
        }
    }
}

impl Machine {
    /// Starts a new age: every page counts as cold until it is touched again. Returns how many pages there are.
    ///
    /// The pages only lose their mappings, so that a touch shows, as with the kernel's idle page tracking.
    pub fn age(&self) -> usize {
        let mut pages = 0;
        for region in self.shared.live_regions() {
            for page in 0..region.pages.len() {
                if let Some(mut cell) = region.lock(page) {
                    cell.referenced = false;
                }
            }
            // After the flags: a touch in between is not seen, which makes a hot page look cold once, not the reverse.
            if region.view.unmap(0, region.pages.len()).is_ok() {
                pages += region.pages.len();
            }
        }
        pages
    }

    /// Looks for cold pages and demotes up to `pages` of them, as a kernel's reclaim thread does. Returns how many.
    ///
    /// A page is cold if nobody touched it since the search last came by: the first visit only takes its mapping
    /// away, so that a touch shows.
    pub fn reclaim(&self, pages: usize) -> usize {
        self.shared.reclaim(pages)
    }
}

impl Shared {
    fn target(&self, node: NodeId) -> Result<Target, DemoteError> {
        let site = self.site(node).ok_or(DemoteError::Denied(Denied::Unknown { node }))?;
        if !site.is_private() {
            return Ok(Target::Ordinary(node));
        }
        let grant = self.gate(node, self.nodes.grant(node, Reason::Demotion)).map_err(DemoteError::Denied)?;
        Ok(match site.compressed() {
            Some(service) => Target::Compressed(service, grant),
            // Its service comes or has gone; its frames are for that service only.
            None if site.compresses() => return Err(DemoteError::Unplugged { node }),
            None => Target::Private(grant),
        })
    }

    pub(super) fn routes(&self) -> Routes {
        let mut slots = [TierSlot::EMPTY; MAX_NODES];
        let mut tiers = Tiers::new(&mut slots);
        // There is a slot for each node; without tiers nothing goes anywhere.
        let _ = tiers.refresh(self.nodes);
        let targets = |from| tiers.targets(from, &NodeMask::ALL, self.nodes.distances()).collect();
        let from: Vec<Vec<NodeId>> = self.sites.iter().map(|site| targets(site.node)).collect();
        let is_used = |node: &NodeId| from.iter().any(|targets| targets.contains(node));
        let way = |node| Some(node).filter(is_used).and_then(|node| self.target(node).ok());
        let to = self.sites.iter().map(|site| way(site.node)).collect();
        Routes { from, to }
    }

    /// Whether reclaim may take a page away from the node of `frame`.
    pub(super) fn may_reclaim(&self, frame: &Frame) -> bool {
        let open = |site: &Site| !site.is_private() || site.features.contains(Features::RECLAIM);
        self.site(frame.node()).is_some_and(open)
    }

    /// Takes up to `pages` pages of objects away that nobody touched since the last look. What is mapped shows by being
    /// mapped again.
    fn reclaim_objects(&self, pages: usize) -> usize {
        let mut done = 0;
        // Twice, as for the pages of mappings.
        for _ in 0..2 {
            for common in self.idle_object_pages() {
                if done < pages {
                    done += usize::from(common.reclaim(self, None) == Reclaimed::Yes);
                }
            }
        }
        done
    }

    /// As [`Machine::reclaim`]. May run inside a fault that holds a page: it never waits for another one.
    pub(super) fn reclaim(&self, pages: usize) -> usize {
        self.counters.reclaim_passes.add(1);
        let mut routes = self.routes();
        let regions = self.live_regions();
        let all: usize = regions.iter().map(|region| region.pages.len()).sum();
        let swaps = self.has_swap();
        let mut done = 0;
        if done < pages {
            done += self.reclaim_objects(pages);
        }
        if routes.are_closed() && !swaps || all == 0 {
            self.note(|| Note::new(What::Reclaim, Why::Cold).count(done as u64));
            return done;
        }
        let (mut index, mut page) = self.regions().hand;
        let mut visits = 0;
        // Twice around: the first visit may have to mark what the second one takes.
        while done < pages && visits < 2 * all && (swaps || !routes.are_closed()) {
            index %= regions.len();
            let region = &regions[index];
            if page >= region.pages.len() {
                (index, page) = (index + 1, 0);
                continue;
            }
            if let Ok(mut cell) = region.pages[page].try_lock() {
                let whole = region.visit_huge(page, &mut cell, &routes);
                done += if whole {
                    Machine::HUGE_PAGES
                } else {
                    usize::from(region.visit(page, &mut cell, &mut routes))
                };
            }
            (page, visits) = (page + 1, visits + 1);
        }
        self.regions().hand = (index, page);
        self.note(|| Note::new(What::Reclaim, Why::Cold).count(done as u64));
        done
    }
}

impl Routes {
    fn are_closed(&self) -> bool {
        self.to.iter().all(Option::is_none)
    }

    /// Copies the page in `frame`, which nobody maps, to a frame of a lower tier, if there is one. Compressed nodes do not
    /// count: what they keep has one owner.
    pub(super) fn below(&mut self, shared: &Shared, frame: &Frame) -> Option<Frame> {
        for node in self.from.get(frame.node().index())? {
            let Some(Some(target)) = self.to.get(node.index()) else { continue };
            if matches!(target, Target::Compressed(..)) {
                continue;
            }
            let Ok(new) = target.frame(shared) else {
                self.to[node.index()] = None;
                continue;
            };
            if shared.copy(&new, frame).is_err() {
                shared.give_back(new);
                return None;
            }
            shared.moved(frame, &new);
            shared.counters.demoted.add(1);
            shared.note(|| Note::new(What::Demote, Why::Shared).frame(&new));
            return Some(new);
        }
        None
    }
}

impl Region {
    /// One visit of the search for cold pages; whether the page gave up its frame. A target that is full is struck off.
    pub(super) fn visit(&self, page: usize, cell: &mut Page, routes: &mut Routes) -> bool {
        if let State::Common(common) = &cell.state {
            return common.reclaim(&self.shared, Some(routes)) == Reclaimed::Yes;
        }
        let State::Resident(frame) = &cell.state else { return false };
        if cell.freeable && self.shared.may_reclaim(frame) {
            // As in `move_to`. Nobody wrote to it since it was given up, for that takes the page's lock.
            let unmapped = self.view.unmap(page, 1).is_ok();
            if unmapped {
                self.note(What::Reclaim, Why::GivenUp, cell);
                self.shared.counters.freed_lazily.add(1);
                self.discard(page, cell);
            }
            return unmapped;
        }
        let targets = routes.from.get(frame.node().index()).map_or(&[][..], |targets| targets);
        let may_swap = self.shared.has_swap() && self.shared.may_reclaim(frame);
        if targets.is_empty() && !may_swap {
            return false;
        }
        if core::mem::take(&mut cell.referenced) {
            // If the kernel refuses, the page merely looks cold.
            let _ = self.view.unmap(page, 1);
            return false;
        }
        for node in targets {
            let Some(Some(target)) = routes.to.get(node.index()) else { continue };
            match self.demote(page, cell, target) {
                Ok(()) => return true,
                Err(DemoteError::Kernel(_)) => return false,
                Err(_) => routes.to[node.index()] = None,
            }
        }
        may_swap && self.swap_out(page, cell)
    }

    /// A visit of a huge mapping none of whose pages was touched: whether all of it went to a lower tier. A node that has no
    /// block for it may have room for its pages.
    fn visit_huge(&self, page: usize, cell: &mut Page, routes: &Routes) -> bool {
        let (Some(node), false) = (cell.node(), cell.referenced) else { return false };
        let ways = routes.from.get(node.index()).map_or(&[][..], |targets| targets);
        let mut open = ways.iter().filter_map(|to| routes.to.get(to.index())?.as_ref());
        let is_cold = |page: &Page| !page.referenced && page.node() == Some(node);
        open.any(|target| self.demote_huge(page, cell, target, is_cold))
    }

    /// Moves the huge mapping that `page` is part of to the node of `target`; whether it is one, and there is a block for it.
    fn demote_huge(
        &self,
        page: usize,
        cell: &mut Page,
        target: &Target,
        suits: impl Fn(&Page) -> bool,
    ) -> bool {
        let take = || target.block(&self.shared);
        // What the kernel refuses for all pages it may do for single ones.
        let Ok(Some(block)) = self.move_huge(page, cell, Shown::AtNextTouch, suits, take) else {
            return false;
        };
        self.shared.counters.demoted.add(Machine::HUGE_PAGES as u64);
        self.note_huge(What::Demote, Why::Asked, block);
        true
    }

    /// Moves `page` to ordinary memory, or the huge mapping that it is part of if every page of that `suits`. Returns how many
    /// pages moved.
    pub(super) fn promote_huge_or_page(
        &self,
        page: usize,
        cell: &mut Page,
        why: Why,
        suits: impl Fn(&Page) -> bool,
    ) -> Result<usize, FaultError> {
        let whole = self.move_huge_to_ordinary(page, cell, suits).map_err(FaultError::Kernel)?;
        if let Some(block) = whole {
            self.note_huge(What::Promote, why, block);
            return Ok(Machine::HUGE_PAGES);
        }
        self.move_to_ordinary(page, cell)?;
        self.note(What::Promote, why, cell);
        Ok(1)
    }

    /// Writes a page that is in a frame to the swap file; whether there was room.
    fn swap_out(&self, page: usize, cell: &mut Page) -> bool {
        let State::Resident(frame) = &cell.state else { return false };
        // As in `move_to`.
        if self.view.unmap(page, 1).is_err() {
            return false;
        }
        let slot = self.shared.swap_out(frame);
        let written = slot.is_some();
        if let Some(slot) = slot {
            self.settle(cell, State::Swapped(slot));
        }
        written
    }
}
