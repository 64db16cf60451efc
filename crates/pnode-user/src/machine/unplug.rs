//! Taking a node away while it is in use.

use core::fmt;

use pnode_compress::cram::LifeError;
use pnode_core::policy::Placement;
use pnode_core::{NodeId, OfflineError, RegisterError, Stale, UnregisterError};

use super::region::{Page, Region, State};
use super::site::Site;
use super::spec::BuildError;
use super::trace::{Note, What, Why};
use super::{Machine, Shared};
use crate::fault::FaultError;

/// What unplugging a node moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unplugged {
    /// Pages that were moved off the node.
    pub pages: usize,
}

/// Why a node was not unplugged. It is in use as before; some of its pages may have moved off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnplugError {
    /// The machine has no such node.
    Unknown {
        /// The node.
        node: NodeId,
    },
    /// The node is unplugged already.
    Stale(Stale),
    /// Some page has no place to go to.
    Evacuate {
        /// The node.
        node: NodeId,
        /// Pages that were moved before.
        moved: usize,
        /// Why the next one was not.
        error: FaultError,
    },
    /// Pages came in while the node was emptied; call again.
    Service(LifeError),
    /// Frames are in use that no mapping holds.
    Offline(OfflineError),
    /// Grants hold the node for longer than a fault does. Its memory is offline; drop them and call again.
    Unregister(UnregisterError),
}

impl fmt::Display for UnplugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { node } => write!(f, "the machine has no {node:?}"),
            Self::Stale(stale) => stale.fmt(f),
            Self::Evacuate { node, moved, error } => {
                write!(f, "{node:?} stays: {moved} of its pages were moved, the next one was not ({error})")
            }
            Self::Service(error) => error.fmt(f),
            Self::Offline(error) => error.fmt(f),
            Self::Unregister(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for UnplugError {}

impl Machine {
    /// Takes `node` away: nothing new lands there, its pages move to the remaining ordinary nodes, its memory goes
    /// offline and its id is given up. Programs run on; who touches a page that moves waits.
    ///
    /// # Errors
    ///
    /// [`UnplugError`]; no page is lost.
    pub fn unplug(&self, node: NodeId) -> Result<Unplugged, UnplugError> {
        let shared = &*self.shared;
        let site = shared.site(node).ok_or(UnplugError::Unknown { node })?;
        let _changing = site.changing();
        let mut moved = 0;
        if !site.is_unplugged() {
            site.drain().map_err(UnplugError::Stale)?;
            moved = shared.empty(site).inspect_err(|_| site.resume())?;
            site.set_unplugged();
            shared.rebind_policies();
        }
        site.give_up().map_err(|error| match error {
            UnregisterError::Stale(stale) => UnplugError::Stale(stale),
            error => UnplugError::Unregister(error),
        })?;
        shared.note(|| Note::new(What::Unplug, Why::Asked).on(node).count(moved as u64));
        Ok(Unplugged { pages: moved })
    }

    /// Brings a node back that was unplugged, with the claim and the size that it had. Its memory is all zero, and no
    /// policy that named it before applies to it.
    ///
    /// # Errors
    ///
    /// [`BuildError`], [`BuildError::Register`] among them if it was not unplugged. The node stays unplugged, unless
    /// somebody took frames of it before its set-up failed: then it is draining, and [`Machine::unplug`] takes it away.
    pub fn plug(&self, node: NodeId) -> Result<(), BuildError> {
        let site = self.shared.site(node).ok_or(BuildError::Register(RegisterError::Unknown { node }))?;
        site.plug(self.shared.nodes)?;
        self.shared.rebind_policies();
        self.shared.note(|| Note::new(What::Plug, Why::Asked).on(node).count(site.memory()));
        Ok(())
    }
}

impl Shared {
    /// Moves everything off a draining node and takes its memory offline. Returns how many pages it moved.
    fn empty(&self, site: &Site) -> Result<usize, UnplugError> {
        let node = site.node;
        let mut moved = 0;
        for region in self.live_regions() {
            region.evacuate(node, &mut moved).map_err(|error| UnplugError::Evacuate {
                node,
                moved,
                error,
            })?;
        }
        for common in self.object_pages() {
            if common.lock().node() == Some(node) {
                let evacuated = self
                    .place(&Placement::new(common.origin(), node))
                    .and_then(|frame| common.move_to(self, frame).map_err(FaultError::Kernel));
                evacuated.map_err(|error| UnplugError::Evacuate { node, moved, error })?;
                moved += 1;
                self.counters.evacuated.add(1);
                self.note(|| {
                    let note = Note::new(What::Migrate, Why::Leaving);
                    common.lock().frame().map_or(note, |frame| note.frame(frame))
                });
            }
        }
        if let Some(compressed) = site.compressed() {
            // While somebody else holds frames the node will not go, and its service must go on.
            let frames = site.used_frames().saturating_sub(compressed.held_frames());
            if frames > 0 {
                return Err(UnplugError::Offline(OfflineError::StillUsed { range: site.frames, frames }));
            }
            compressed.close(self).map_err(UnplugError::Service)?;
        }
        site.with_handle(|handle| site.take_offline(handle)).map_err(UnplugError::Offline)?;
        site.backing.forget();
        Ok(moved)
    }
}

impl Region {
    /// Moves every page of the mapping off `node`.
    fn evacuate(&self, node: NodeId, moved: &mut usize) -> Result<(), FaultError> {
        for page in 0..self.pages.len() {
            let Some(mut cell) = self.lock(page) else { break };
            let is_there = match &cell.state {
                State::Untouched | State::Swapped(_) => false,
                State::Resident(frame) => frame.node() == node,
                State::Common(common) => common.lock().node() == Some(node),
                State::Stored { node: on, .. } => *on == node,
            };
            if is_there {
                let leaving = |page: &Page| page.node() == Some(node);
                let whole =
                    self.move_huge_to_ordinary(page, &mut cell, leaving).map_err(FaultError::Kernel)?;
                if let Some(block) = whole {
                    *moved += Machine::HUGE_PAGES;
                    self.shared.counters.evacuated.add(Machine::HUGE_PAGES as u64);
                    self.note_huge(What::Migrate, Why::Leaving, block);
                    continue;
                }
                self.move_to_ordinary(page, &mut cell)?;
                *moved += 1;
                self.shared.counters.evacuated.add(1);
                self.note(What::Migrate, Why::Leaving, &cell);
            }
        }
        Ok(())
    }
}
