//! [`CramNode`]: compressed RAM as a private node in a registry, put there and taken away in the right order.

use core::fmt;

use pnode_core::ops::Service;
use pnode_core::sync::{RawLock, SpinLock};
use pnode_core::{
    Features, FrameRange, FrameZone, Grant, MemoryClass, NodeId, Nodes, OfflineError, OnlineError, Owner,
    Private, RegisterError, ServiceError, Stale, UnregisterError,
};

use super::{Cram, LifeError, Phase, Resident};

/// A private node that is compressed RAM.
///
/// ```text
///  register:    claim the id -> memory online -> callbacks installed             pages may come in
///
///  unregister:  drain        no page comes in, no grant is given
///               evict        every page is promoted or freed                     nobody maps the node any more
///               (the host dismantles its store, which gives frames and grants back)
///               unregister   callbacks go -> memory offline -> the id is free
/// ```
///
/// The Linux series clears its callbacks first and evicts afterwards, so that a page may be left behind a write fence that
/// nobody can lift. Here the callbacks of a node cannot go before the last page has gone.
///
/// Dropping it leaves the node as it is: registered and, unless it was drained, at work.
pub struct CramNode<'m, Z: FrameZone, L: RawLock = SpinLock> {
    owner: Owner<'m, Z, L>,
    cram: &'m Cram<'m>,
}

/// Why a compressed node was not registered, or not taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CramNodeError {
    /// A compressed node needs these features, too.
    Features {
        /// What is missing.
        missing: Features,
    },
    /// The id is not to be had.
    Register(RegisterError),
    /// Its memory cannot come online.
    Online(OnlineError),
    /// Its callbacks cannot be installed, or removed. [`ServiceError::StillUsed`]: dismantle the store first.
    Service(ServiceError),
    /// Pages are still there, or the step does not follow.
    Life(LifeError),
    /// Its memory cannot go offline.
    Offline(OfflineError),
    /// The id cannot be given up yet.
    Unregister(UnregisterError),
    /// The node was given up before.
    Stale(Stale),
}

impl fmt::Display for CramNodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Features { missing } => write!(f, "a compressed node needs {missing:?}, too"),
            Self::Register(error) => error.fmt(f),
            Self::Online(error) => error.fmt(f),
            Self::Service(error) => error.fmt(f),
            Self::Life(error) => error.fmt(f),
            Self::Offline(error) => error.fmt(f),
            Self::Unregister(error) => error.fmt(f),
            Self::Stale(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CramNodeError {}

impl<'m, Z: FrameZone, L: RawLock> CramNode<'m, Z, L> {
    /// What every compressed node has: pages come by demotion, leave by reclaim, and are not written where they are.
    pub const FEATURES: Features = Features::RECLAIM.union(Features::DEMOTION).union(Features::WRITE_FENCE);

    /// Registers `node` with all of `zones` and the callbacks of `service`, of which [`super::CramOps`] are the usual
    /// ones, for pages that `cram` takes in.
    ///
    /// # Errors
    ///
    /// [`CramNodeError`]; nothing is registered then. If somebody has taken a grant on the node in the moment before its
    /// callbacks were refused, the id stays claimed and drains.
    pub fn register(
        nodes: &'m Nodes<'m, Z, L>,
        node: NodeId,
        features: Features,
        zones: &[&'m Z],
        cram: &'m Cram<'m>,
        service: &'m Service<'m>,
    ) -> Result<Self, CramNodeError> {
        let missing = Self::FEATURES.difference(features);
        if missing != Features::NONE {
            return Err(CramNodeError::Features { missing });
        }
        if cram.phase() != Phase::Open {
            return Err(CramNodeError::Life(LifeError::OutOfOrder { phase: cram.phase() }));
        }
        let claim = Private::class(MemoryClass::COMPRESSED);
        let owner = nodes.register(node, claim, features).map_err(CramNodeError::Register)?;
        let online = zones.iter().try_for_each(|zone| owner.online(zone).map_err(CramNodeError::Online));
        let served = online.and_then(|()| owner.serve(service).map_err(CramNodeError::Service));
        match served {
            Ok(()) => Ok(Self { owner, cram }),
            Err(error) => {
                // Nothing was handed out, so this fails only for the reason that the documentation names.
                let _ = owner.drain().map_err(CramNodeError::Stale).and_then(|()| give_up(&owner));
                Err(error)
            }
        }
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.owner.id()
    }

    /// The service.
    pub fn cram(&self) -> &'m Cram<'m> {
        self.cram
    }

    /// The node's owner, for what a compressed node has in common with others.
    pub fn owner(&self) -> &Owner<'m, Z, L> {
        &self.owner
    }

    /// A grant on the node, for the store or the device behind the service.
    ///
    /// # Errors
    ///
    /// As [`Owner::grant`].
    pub fn grant(&self) -> Result<Grant<'m, Z, L>, pnode_core::Denied> {
        self.owner.grant()
    }

    /// Takes no page from now on, and gives no grant. What is resident can be read, promoted and freed.
    ///
    /// # Errors
    ///
    /// [`CramNodeError::Life`] unless the service is open; [`CramNodeError::Stale`].
    pub fn drain(&self) -> Result<(), CramNodeError> {
        self.cram.close().map_err(CramNodeError::Life)?;
        self.owner.drain().map_err(CramNodeError::Stale)
    }

    /// Calls [`CramNode::drain`] off.
    ///
    /// # Errors
    ///
    /// [`CramNodeError::Life`] if the service does not drain, or has ended; [`CramNodeError::Stale`].
    pub fn resume(&self) -> Result<(), CramNodeError> {
        if self.cram.phase() != Phase::Draining {
            return Err(CramNodeError::Life(LifeError::OutOfOrder { phase: self.cram.phase() }));
        }
        self.owner.resume().map_err(CramNodeError::Stale)?;
        self.cram.reopen().map_err(CramNodeError::Life)
    }

    /// Names every resident page to `take_out`, which promotes or frees it, and ends the service if none is left.
    ///
    /// A page that could not be taken out just now, for want of memory or because somebody was at it, is named again by
    /// the next call. Handlers that defer frees must have flushed, or be gone.
    ///
    /// # Errors
    ///
    /// [`LifeError::Occupied`] while pages are left; [`LifeError::OutOfOrder`] unless the node drains.
    pub fn evict(&self, take_out: impl FnMut(Resident)) -> Result<(), LifeError> {
        if self.cram.phase() == Phase::Open {
            return Err(LifeError::OutOfOrder { phase: Phase::Open });
        }
        self.cram.residents().for_each(take_out);
        match self.cram.phase() {
            Phase::Closed => Ok(()),
            _ => self.cram.finish(),
        }
    }

    /// Takes the node away: its callbacks, its memory, its id. A step that was done by an earlier call is not done again,
    /// so after an error the caller mends what it names and calls once more.
    ///
    /// # Errors
    ///
    /// [`CramNodeError::Life`] before the node was evicted; [`CramNodeError::Service`] while the store holds frames;
    /// [`CramNodeError::Unregister`] while somebody holds a grant or a callback runs.
    pub fn unregister(&self) -> Result<(), CramNodeError> {
        match self.cram.phase() {
            Phase::Closed => {}
            phase => return Err(CramNodeError::Life(LifeError::OutOfOrder { phase })),
        }
        match self.owner.end_service() {
            Ok(()) | Err(ServiceError::NotServiced { .. }) => give_up(&self.owner),
            Err(error) => Err(CramNodeError::Service(error)),
        }
    }
}

/// Takes the memory of a node without a service offline and gives the node up.
fn give_up<Z: FrameZone, L: RawLock>(owner: &Owner<'_, Z, L>) -> Result<(), CramNodeError> {
    loop {
        let mut range: Option<FrameRange> = None;
        owner.ranges(|found| range = Some(found));
        let Some(range) = range else { break };
        owner.offline(range).map_err(CramNodeError::Offline)?;
    }
    owner.unregister().map_err(CramNodeError::Unregister)
}

impl<Z: FrameZone, L: RawLock> fmt::Debug for CramNode<'_, Z, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CramNode({:?}, {:?})", self.owner.id(), self.cram)
    }
}
