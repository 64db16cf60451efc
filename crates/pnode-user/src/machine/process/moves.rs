//! Moving pages on a user's request, and saying where they are.

use core::fmt;
use core::ops::Range;

use pnode_core::policy::{Mode, MoveDenied};
use pnode_core::{AllocError, Denied, Frame, NodeId, NodeMask, Reason, Request};

use super::super::mapping::Place;
use super::super::region::{Page, Region, State};
use super::{Process, Rights, Sharing};
use crate::sys::SysError;

/// Why a page was not moved. It is where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MovePageError {
    /// Nobody touched it, or it is not mapped.
    NotThere,
    /// Other processes map it, too.
    Shared,
    /// The rules do not let it move.
    Rule(MoveDenied),
    /// The target did not grant its frames.
    Denied(Denied),
    /// The target has no frame.
    NoFrame(AllocError),
    /// The kernel does not unmap it.
    Kernel(SysError),
}

impl fmt::Display for MovePageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere => f.write_str("the page is not there; touch it first"),
            Self::Shared => f.write_str("other processes map the page, too; it is not moved for one of them"),
            Self::Rule(error) => error.fmt(f),
            Self::Denied(error) => error.fmt(f),
            Self::NoFrame(error) => error.fmt(f),
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for MovePageError {}

impl Process {
    /// Moves each page to the node beside it, a huge mapping as a whole if the node has a block for it; says for each which node it is on then, or why it did not move
    /// (`move_pages`).
    pub fn move_pages(&self, moves: &[(usize, NodeId)]) -> Vec<Result<NodeId, MovePageError>> {
        let mems = self.cpuset();
        moves.iter().map(|(page, to)| self.region.move_for_user(*page, *to, &mems)).collect()
    }

    /// Moves all pages on nodes of `from` to the nodes of `to`, one for one in rising order, around if `to` has fewer
    /// (`migrate_pages`). Returns how many moved, and how many did not.
    pub fn migrate_pages(&self, from: &NodeMask, to: &NodeMask) -> (usize, usize) {
        let (mems, targets) = (self.cpuset(), to.iter().collect::<Vec<_>>());
        let target = |node: NodeId| {
            let index = from.iter().position(|source| source == node)?;
            targets.get(index % targets.len().max(1)).copied()
        };
        let (mut moved, mut left) = (0, 0);
        let pages = self.layout().table().clone().all().flat_map(|(pages, _)| pages).collect::<Vec<_>>();
        // Where they are before the first moves: a huge mapping takes pages along whose turn comes later.
        let places: Vec<_> =
            pages.into_iter().filter_map(|page| Some((page, self.place(page).node()?))).collect();
        for (page, on) in places {
            let Some(to) = target(on).filter(|to| *to != on) else { continue };
            match self.region.move_for_user(page, to, &mems) {
                Ok(_) => moved += 1,
                Err(_) => left += 1,
            }
        }
        (moved, left)
    }

    /// Where the pages of each area are, as `/proc/PID/numa_maps` says it.
    pub fn numa_maps(&self) -> NumaMaps {
        let table = self.layout().table().clone();
        let areas = table.all().map(|(pages, area)| {
            let mut map = AreaMap {
                pages: pages.clone(),
                rights: area.rights,
                mode: match (&area.object, area.policy.is_default()) {
                    (Some(object), _) if object.sharing == Sharing::Shared => object.body.policy().mode(),
                    (_, true) => table.task.policy.mode(),
                    (_, false) => area.policy.mode(),
                },
                on: vec![0; self.region.shared.sites.len()],
                compressed: 0,
                shared: 0,
                swapped: 0,
            };
            for page in pages {
                map.count(&self.region, page);
            }
            map
        });
        NumaMaps { areas: areas.collect() }
    }
}

/// Where the pages of a process are; prints one line an area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaMaps {
    /// The areas, from the lowest on.
    pub areas: Vec<AreaMap>,
}

/// Where the pages of an area are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AreaMap {
    /// Its pages.
    pub pages: Range<usize>,
    /// What the program may do.
    pub rights: Rights,
    /// The mode of the policy that counts: its own, else the task's.
    pub mode: Mode,
    /// Pages on each node, by the node's number; compressed ones included.
    pub on: Vec<usize>,
    /// Pages that a compressed node stores.
    pub compressed: usize,
    /// Pages that other processes map, too.
    pub shared: usize,
    /// Pages in the swap file.
    pub swapped: usize,
}

impl AreaMap {
    fn count(&mut self, region: &Region, page: usize) {
        let place = region.place(page);
        if let Some(count) = place.node().and_then(|node| self.on.get_mut(node.index())) {
            *count += 1;
        }
        self.compressed += usize::from(matches!(place, Place::Compressed { .. }));
        self.swapped += usize::from(place == Place::Swapped);
        if let Some(State::Common(common)) = region.lock(page).as_deref().map(|cell| &cell.state) {
            self.shared += usize::from(common.lock().users() > 1);
        }
    }
}

impl fmt::Display for NumaMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for area in &self.areas {
            write!(f, "{:>8} {:<22} pages={}", area.pages.start, area.mode.to_string(), area.pages.len())?;
            for (node, pages) in area.on.iter().enumerate().filter(|(_, pages)| **pages > 0) {
                write!(f, " N{node}={pages}")?;
            }
            for (name, pages) in
                [("compressed", area.compressed), ("shared", area.shared), ("swapped", area.swapped)]
            {
                if pages > 0 {
                    write!(f, " {name}={pages}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Region {
    fn move_for_user(
        &self,
        page: usize,
        to: NodeId,
        mems: &pnode_core::Mems,
    ) -> Result<NodeId, MovePageError> {
        let mut cell = self.lock(page).ok_or(MovePageError::NotThere)?;
        let from = match &cell.state {
            State::Untouched => return Err(MovePageError::NotThere),
            State::Resident(frame) => frame.node(),
            State::Stored { node, .. } => *node,
            State::Swapped(_) => return Err(MovePageError::NotThere),
            State::Common(common) => {
                let inner = common.lock();
                if inner.users() > 1 {
                    return Err(MovePageError::Shared);
                }
                inner.node().ok_or(MovePageError::NotThere)?
            }
        };
        self.shared.nodes.check_move(from, to, mems).map_err(MovePageError::Rule)?;
        if from == to {
            return Ok(to);
        }
        if let State::Common(common) = &cell.state {
            if !self.shared.nodes.may_live_on(to, common.origin()) {
                return Err(MovePageError::Rule(MoveDenied::To { node: to }));
            }
        }
        if self.move_huge_for_user(page, &mut cell, to)? {
            return Ok(to);
        }
        let new = self.frame_for_user(to)?;
        if matches!(cell.state, State::Stored { .. }) {
            // Its node is open to users and compresses: it comes back to ordinary memory first.
            self.shared.give_back(new);
            return Err(MovePageError::NotThere);
        }
        self.move_to(page, &mut cell, new).map_err(MovePageError::Kernel)?;
        self.migrated(&cell);
        Ok(to)
    }

    /// Moves the huge mapping that `page` is part of, if there is one and the target has a block for it; whether it moved.
    fn move_huge_for_user(&self, page: usize, cell: &mut Page, to: NodeId) -> Result<bool, MovePageError> {
        let (shared, elsewhere) = (&self.shared, |page: &Page| page.node() != Some(to));
        let is_private = shared.nodes.state(to).is_some_and(|state| state.is_private());
        let moved = self.migrate_huge(page, cell, elsewhere, || match is_private {
            true => shared.huge_frames_of(&shared.nodes.grant(to, Reason::UserMigrate).ok()?),
            false => shared.huge_frames_on(to),
        });
        moved.map_err(MovePageError::Kernel)
    }

    fn frame_for_user(&self, to: NodeId) -> Result<Frame, MovePageError> {
        let nodes = self.shared.nodes;
        if nodes.state(to).is_some_and(|state| state.is_private()) {
            let grant = self.shared.gate(to, nodes.grant(to, Reason::UserMigrate));
            let grant = grant.map_err(MovePageError::Denied)?;
            return grant.alloc(Request::page()).map_err(MovePageError::NoFrame);
        }
        nodes.alloc(Request::page().prefer(to).this_node_only()).map_err(MovePageError::NoFrame)
    }
}
