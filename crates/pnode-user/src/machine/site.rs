//! The memory of one node: where its bytes are, who hands out its frames, and its registration.

use core::fmt;
use std::sync::Arc;

use pnode_core::sync::{AtomicBool, Ordering};
use pnode_core::{
    Denied, Features, FrameRange, Grant, MemoryClass, NodeHandle, NodeId, Owner, PageSize, Private, Stale,
};

use super::compressed::Compressed;
use super::spec::{BuildError, Kind, NodeSpec};
use super::{Machine, Registry, Zone};
use crate::arena::Arena;
use crate::backing::Backing;

/// One node of a machine.
pub(super) struct Site {
    // Before `backing`: what it keeps there ends first.
    compressed: Option<Arc<Compressed>>,
    holder: Holder,
    pub(super) node: NodeId,
    pub(super) frames: FrameRange,
    pub(super) class: MemoryClass,
    pub(super) features: Features,
    pub(super) zone: &'static Zone,
    pub(super) backing: Arc<Backing>,
    unplugged: AtomicBool,
}

enum Holder {
    Ordinary(NodeHandle<'static, Zone>),
    Private(Owner<'static, Zone>),
}

impl Site {
    pub(super) fn new(
        page: PageSize,
        node: NodeId,
        frames: FrameRange,
        zone: &'static Zone,
        nodes: &'static Registry,
        arena: &Arena,
        spec: &NodeSpec,
    ) -> Result<Self, BuildError> {
        let backing =
            Backing::new(frames.frames(), page).map_err(|error| BuildError::Memory { node, error })?;
        let backing = Arc::new(backing);
        let private = |features| nodes.register(node, Private::class(spec.class), features);
        let (holder, features) = match spec.kind {
            Kind::Ordinary => (nodes.ordinary(node, spec.class).map(Holder::Ordinary), Features::NONE),
            Kind::Private(features) | Kind::Compressed { features, .. } => {
                (private(features).map(Holder::Private), features)
            }
        };
        let holder = holder.map_err(BuildError::Register)?;
        let mut site = Self {
            compressed: None,
            holder,
            node,
            frames,
            class: spec.class,
            features,
            zone,
            backing,
            unplugged: AtomicBool::new(false),
        };
        site.handle().online(zone).map_err(BuildError::Online)?;
        if let Kind::Compressed { advertised, .. } = spec.kind {
            let compressed = Compressed::new(&site, arena, advertised)
                .map_err(|error| BuildError::Compressed { node, error })?;
            site.compressed = Some(Arc::new(compressed));
        }
        Ok(site)
    }

    pub(super) fn handle(&self) -> &NodeHandle<'static, Zone> {
        match &self.holder {
            Holder::Ordinary(handle) => handle,
            Holder::Private(owner) => owner,
        }
    }

    pub(super) fn owner_grant(&self) -> Result<Grant<'static, Zone>, Denied> {
        match &self.holder {
            Holder::Ordinary(_) => Err(Denied::NotPrivate { node: self.node }),
            Holder::Private(owner) => owner.grant(),
        }
    }

    /// Lets nothing new land here.
    pub(super) fn drain(&self) -> Result<(), Stale> {
        self.handle().drain()?;
        self.compressed().into_iter().for_each(|compressed| compressed.drain());
        Ok(())
    }

    /// Undoes [`Site::drain`].
    pub(super) fn resume(&self) {
        self.compressed().into_iter().for_each(|compressed| compressed.resume());
        // Only a node that was given up is stale, and then there is nothing to resume.
        let _ = self.handle().resume();
    }

    pub(super) const fn is_private(&self) -> bool {
        matches!(self.holder, Holder::Private(_))
    }

    pub(super) fn compressed(&self) -> Option<&Arc<Compressed>> {
        self.compressed.as_ref()
    }

    pub(super) fn is_unplugged(&self) -> bool {
        self.unplugged.load(Ordering::Relaxed)
    }

    pub(super) fn set_unplugged(&self) {
        self.unplugged.store(true, Ordering::Relaxed);
    }

    pub(super) fn free_frames(&self) -> u64 {
        if self.is_unplugged() { 0 } else { self.zone.free_frames() }
    }
}

impl Machine {
    /// Checks every node: its zone against itself, and against what the mappings and the compressed store hold.
    ///
    /// Exact while no other thread uses the machine.
    ///
    /// # Errors
    ///
    /// The first [`AuditError`].
    pub fn audit(&self) -> Result<(), AuditError> {
        let mut held = vec![0u64; self.shared.sites.len()];
        for region in self.shared.live_regions() {
            region.each_frame(|node, frames| held[node.index()] += frames.frames());
        }
        for site in &self.shared.sites {
            let node = site.node;
            let used = site.zone.used_frames();
            site.zone.audit().map_err(|error| AuditError::Zone { node, error })?;
            let stored = site.compressed().map_or(0, |compressed| compressed.held_frames());
            let expected = held[node.index()] + stored;
            if used < expected {
                return Err(AuditError::Held { node, used, expected });
            }
            if used > expected {
                return Err(AuditError::Leaked { node, frames: used - expected });
            }
        }
        Ok(())
    }
}

/// What an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditError {
    /// The zone contradicts itself.
    Zone {
        /// The node.
        node: NodeId,
        /// How.
        error: pnode_buddy::AuditError,
    },
    /// More frames are held than the zone handed out.
    Held {
        /// The node.
        node: NodeId,
        /// Frames that the zone says are used.
        used: u64,
        /// Frames that are held.
        expected: u64,
    },
    /// Frames are handed out that neither a mapping nor the store holds. The caller of [`Machine::alloc`] holds them,
    /// or they are lost.
    Leaked {
        /// The node.
        node: NodeId,
        /// How many.
        frames: u64,
    },
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone { node, error } => write!(f, "{node:?}: {error}"),
            Self::Held { node, used, expected } => {
                write!(f, "{node:?}: {expected} frames are held, but only {used} were handed out")
            }
            Self::Leaked { node, frames } => {
                write!(f, "{node:?}: {frames} frames are handed out that nobody holds; give them back")
            }
        }
    }
}

impl core::error::Error for AuditError {}
