//! Moving pages into compressed nodes: by hand, and when ordinary memory runs out.

use core::fmt;
use core::ops::Range;
use std::sync::Arc;

use pnode_compress::cram;
use pnode_core::{Denied, NodeId, Reason};

use super::compressed::Compressed;
use super::mapping::{Mapping, Page, Region, State};
use super::{Machine, Shared};
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
    /// The node does not keep pages compressed.
    NotCompressed {
        /// The node.
        node: NodeId,
    },
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
            Self::NotCompressed { node } => write!(f, "{node:?} does not keep pages compressed"),
            Self::Refused(error) => error.fmt(f),
            Self::Unplugged { node } => write!(f, "{node:?} is unplugged"),
            Self::NotResident => f.write_str("the page is not in a frame"),
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DemoteError {}

impl Mapping {
    /// Moves those of `pages` that are in frames into the compressed node `node`. Pages in other places are left alone,
    /// as are those that do not exist. A program that touches a page meanwhile waits.
    ///
    /// # Errors
    ///
    /// [`DemoteError`] if the node takes nothing at all: its door is shut, or it is no compressed node. Refusals of
    /// single pages are counted in the [`Demotion`].
    pub fn demote(&self, pages: Range<usize>, node: NodeId) -> Result<Demotion, DemoteError> {
        let region = &*self.region;
        let shared = &region.shared;
        let grant = shared.nodes.grant(node, Reason::Demotion).map_err(DemoteError::Denied)?;
        let target = shared.site(node).and_then(|site| site.compressed());
        let target = target.ok_or(DemoteError::NotCompressed { node })?;
        let mut done = Demotion::default();
        for page in region.clamp(pages) {
            let Some(mut cell) = region.lock(page) else { break };
            if let State::Resident(_) = cell.state {
                done.count(region.demote(page, &mut cell, target));
            }
        }
        drop(grant);
        Ok(done)
    }
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
    /// As [`Machine::reclaim`]. May run inside a fault that holds a page: it never waits for another one.
    pub(super) fn reclaim(&self, pages: usize) -> usize {
        self.counters.direct_reclaims.add(1);
        let mut targets = Vec::new();
        for site in &self.sites {
            if let (Some(target), Ok(grant)) =
                (site.compressed(), self.nodes.grant(site.node, Reason::Demotion))
            {
                targets.push((Arc::clone(target), grant));
            }
        }
        let regions = self.live_regions();
        let all: usize = regions.iter().map(|region| region.pages.len()).sum();
        if targets.is_empty() || all == 0 {
            return 0;
        }
        let (mut index, mut page) = self.regions().hand;
        let mut done = 0;
        // Twice around: the first visit may have to mark what the second one takes.
        for _ in 0..2 * all {
            if done == pages || targets.is_empty() {
                break;
            }
            index %= regions.len();
            let region = &regions[index];
            if page >= region.pages.len() {
                (index, page) = (index + 1, 0);
                continue;
            }
            if let Ok(mut cell) = region.pages[page].try_lock() {
                done += usize::from(region.visit(page, &mut cell, &mut targets));
            }
            page += 1;
        }
        self.regions().hand = (index, page);
        done
    }
}

impl Region {
    /// One visit of the search for cold pages; whether the page was demoted. A target that is full is struck off.
    fn visit<G>(&self, page: usize, cell: &mut Page, targets: &mut Vec<(Arc<Compressed>, G)>) -> bool {
        if !matches!(cell.state, State::Resident(_)) {
            return false;
        }
        if core::mem::take(&mut cell.referenced) {
            // If the kernel refuses, the page merely looks cold.
            let _ = self.view.unmap(page, 1);
            return false;
        }
        while let Some((target, _)) = targets.first() {
            match self.demote(page, cell, target) {
                Ok(()) => return true,
                Err(DemoteError::Kernel(_)) => return false,
                Err(_) => drop(targets.remove(0)),
            }
        }
        false
    }
}
