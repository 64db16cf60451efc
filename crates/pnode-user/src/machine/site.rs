//! The memory of one node: where its bytes are, who hands out its frames, and its registration.

use core::fmt;
use core::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use pnode_core::sync::{AtomicU32, Ordering};
use pnode_core::{
    Denied, Features, FrameRange, Grant, MemoryClass, NodeHandle, NodeId, OfflineError, OnlineError, Owner,
    Private, Reason, Service, Stale, UnregisterError, Watermarks,
};

use super::compressed::Compressed;
use super::inject::Point;
use super::mapping::Placement;
use super::service::Served;
use super::spec::{BuildError, Kind, NodeSpec};
use super::watch::Watch;
use super::{Machine, Registry, Zone};
use crate::backing::Backing;
use crate::sys::SysError;

/// One node of a machine.
pub(super) struct Site {
    // Before `backing`: what it keeps there ends first.
    compressed: RwLock<Option<Arc<Compressed>>>,
    holder: RwLock<Holder>,
    pub(super) node: NodeId,
    pub(super) frames: FrameRange,
    pub(super) class: MemoryClass,
    pub(super) features: Features,
    kind: Kind,
    pub(super) marks: Watermarks,
    /// From the lowest on.
    pub(super) zones: Vec<&'static Zone>,
    /// The frames of its numbers that there are not, counted from the first.
    pub(super) holes: Vec<Range<u64>>,
    /// Whose turn it is to change which zones of the machine are online: those of one node get their places in the lists
    /// one after the other.
    turn: &'static Mutex<()>,
    pub(super) backing: Arc<Backing>,
    /// How often the node was plugged and unplugged: odd while it is there.
    life: AtomicU32,
    changing: Mutex<()>,
    pub(super) served: Served,
}

enum Holder {
    Ordinary(NodeHandle<'static, Zone>),
    Private(Owner<'static, Zone>),
}

impl Holder {
    /// Claims the node.
    fn claim(
        nodes: &'static Registry,
        node: NodeId,
        class: MemoryClass,
        kind: Kind,
    ) -> Result<Self, BuildError> {
        let claimed = match kind {
            Kind::Ordinary => nodes.ordinary(node, class).map(Self::Ordinary),
            Kind::Private(features) | Kind::Compressed { features, .. } => {
                nodes.register(node, Private::class(class), features).map(Self::Private)
            }
        };
        claimed.map_err(BuildError::Register)
    }

    fn handle(&self) -> &NodeHandle<'static, Zone> {
        match self {
            Self::Ordinary(handle) => handle,
            Self::Private(owner) => owner,
        }
    }
}

impl Site {
    pub(super) fn new(
        backing: Backing,
        (node, frames): (NodeId, FrameRange),
        zones: Vec<&'static Zone>,
        nodes: &'static Registry,
        turn: &'static Mutex<()>,
        spec: &NodeSpec,
        service: Option<&'static Service<'static>>,
    ) -> Result<Self, BuildError> {
        let features = match spec.kind {
            Kind::Ordinary => Features::NONE,
            Kind::Private(features) | Kind::Compressed { features, .. } => features,
        };
        let site = Self {
            compressed: RwLock::new(None),
            holder: RwLock::new(Holder::claim(nodes, node, spec.class, spec.kind)?),
            node,
            frames,
            class: spec.class,
            features,
            kind: spec.kind,
            marks: spec.marks,
            zones,
            holes: spec.holes().collect(),
            turn,
            backing: Arc::new(backing),
            life: AtomicU32::new(0),
            changing: Mutex::new(()),
            served: Served::by(service),
        };
        site.start()?;
        Ok(site)
    }

    /// Brings the memory online, and the service that the node may have.
    fn start(&self) -> Result<(), BuildError> {
        let node = self.node;
        if self.watch().fails(Point::Plug) {
            const EIO: i32 = 5;
            let error = SysError { call: "plug", errno: EIO };
            return Err(BuildError::Memory { node, error: error.into() });
        }
        self.bring_online().map_err(BuildError::Online)?;
        if let Some(service) = self.served.service {
            if let Holder::Private(owner) = &*self.holder.read().unwrap_or_else(PoisonError::into_inner) {
                owner.serve(service).map_err(BuildError::Service)?;
            }
        }
        if let Kind::Compressed { advertised, .. } = self.kind {
            let compressed =
                Compressed::new(self, advertised).map_err(|error| BuildError::Compressed { node, error })?;
            *self.compressed.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(compressed));
        }
        self.life.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Lets no other thread plug or unplug the node meanwhile. Before every other lock of the machine.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the node again after it was unplugged.
    pub(super) fn plug(&self, nodes: &'static Registry) -> Result<(), BuildError> {
        let _changing = self.changing();
        let mut holder = self.holder.write().unwrap_or_else(PoisonError::into_inner);
        *holder = Holder::claim(nodes, self.node, self.class, self.kind)?;
        drop(holder);
        self.start().inspect_err(|_| self.withdraw())
    }

    /// Gives up a node that was claimed and did not start.
    fn withdraw(&self) {
        let gone = self.with_handle(|handle| {
            handle.drain()?;
            self.take_offline(handle)
        });
        if matches!(gone, Err(OfflineError::StillUsed { .. })) {
            // Somebody was quick and has frames of it. So the node counts as plugged in: drained, and without service,
            // until an unplug takes it away.
            self.life.fetch_add(1, Ordering::Release);
            return;
        }
        // Whoever was quick and holds a grant can take nothing by it; an unplug tries again.
        let _ = self.give_up();
    }

    pub(super) fn with_handle<R>(&self, work: impl FnOnce(&NodeHandle<'static, Zone>) -> R) -> R {
        work(self.holder.read().unwrap_or_else(PoisonError::into_inner).handle())
    }

    /// The owner's grant, once the node is set up.
    pub(super) fn owner_grant(&self) -> Result<Grant<'static, Zone>, Denied> {
        self.set_up(self.grant_for_setup()?)
    }

    /// The owner's grant also while the node's service is made.
    pub(super) fn grant_for_setup(&self) -> Result<Grant<'static, Zone>, Denied> {
        match &*self.holder.read().unwrap_or_else(PoisonError::into_inner) {
            Holder::Ordinary(_) => Err(Denied::NotPrivate { node: self.node }),
            Holder::Private(owner) => owner.grant(),
        }
    }

    /// A grant of the node, if the node is set up by now: while its service is made it has memory, and that may fail still.
    pub(super) fn set_up(&self, grant: Grant<'static, Zone>) -> Result<Grant<'static, Zone>, Denied> {
        // After the grant was given: a node that is set up now was so in the life that the grant is of, or is so by now.
        if self.is_unplugged() { Err(Denied::Unknown { node: self.node }) } else { Ok(grant) }
    }

    /// Whether the node consents to a placement.
    pub(super) fn check(&self, placement: Placement) -> Result<(), Denied> {
        let (node, is_private) = (self.node, self.is_private());
        match placement {
            Placement::Owner(_) if !is_private => Err(Denied::NotPrivate { node }),
            Placement::Bound(_) if is_private && !self.features.contains(Features::USER_NUMA) => {
                Err(Denied::NotOpened { node, reason: Reason::UserPolicy, door: Features::USER_NUMA })
            }
            _ => Ok(()),
        }
    }

    /// Lets nothing new land here.
    pub(super) fn drain(&self) -> Result<(), Stale> {
        self.with_handle(|handle| handle.drain())?;
        self.compressed().into_iter().for_each(|compressed| compressed.drain());
        Ok(())
    }

    /// Undoes [`Site::drain`].
    pub(super) fn resume(&self) {
        self.compressed().into_iter().for_each(|compressed| compressed.resume());
        // Only a node that was given up is stale, and then there is nothing to resume, nor to bring online.
        let _ = self.with_handle(|handle| handle.resume());
        let _ = self.bring_online();
    }

    /// Gives the node's id up, and waits a moment for faults that hold the node.
    pub(super) fn give_up(&self) -> Result<(), UnregisterError> {
        const PATIENCE: Duration = Duration::from_millis(500);
        let start = Instant::now();
        if let Holder::Private(owner) = &*self.holder.read().unwrap_or_else(PoisonError::into_inner) {
            // The memory is offline, so nothing is left to answer for; a node that has no service says so.
            let _ = owner.end_service();
        }
        loop {
            match self.with_handle(|handle| handle.unregister()) {
                Err(UnregisterError::Referenced { .. }) if start.elapsed() < PATIENCE => thread::yield_now(),
                done => return done,
            }
        }
    }

    pub(super) const fn is_private(&self) -> bool {
        !matches!(self.kind, Kind::Ordinary)
    }

    /// Whether the node keeps pages compressed, whether its service is there now or not.
    pub(super) const fn compresses(&self) -> bool {
        matches!(self.kind, Kind::Compressed { .. })
    }

    pub(super) fn compressed(&self) -> Option<Arc<Compressed>> {
        self.compressed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which life of the node this is: it changes when the node is unplugged, and again when it is plugged in.
    pub(super) fn life(&self) -> u32 {
        // Acquire pairs with the Release of the changes: who sees a life sees the node's holder and service.
        self.life.load(Ordering::Acquire)
    }

    pub(super) fn is_unplugged(&self) -> bool {
        self.life() % 2 == 0
    }

    /// The service that the node had is closed by now, and goes with all its metadata.
    pub(super) fn set_unplugged(&self) {
        let service = self.compressed.write().unwrap_or_else(PoisonError::into_inner).take();
        self.life.fetch_add(1, Ordering::Release);
        // Not while it is locked, for it is large.
        drop(service);
    }

    pub(super) fn free_frames(&self) -> u64 {
        if self.is_unplugged() { 0 } else { self.free_now() }
    }

    fn turn(&self) -> MutexGuard<'static, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) -> &Watch {
        self.zones[0].watch()
    }

    fn free_now(&self) -> u64 {
        self.zones.iter().map(|zone| zone.free_frames()).sum()
    }

    /// Frames that are handed out.
    pub(super) fn used_frames(&self) -> u64 {
        self.zones.iter().map(|zone| zone.used_frames()).sum()
    }

    /// Frames that there are, used or not.
    pub(super) fn memory(&self) -> u64 {
        self.zones.iter().map(|zone| zone.managed_frames()).sum()
    }

    /// Brings those zones online that are not: the highest first, which is the first to be asked.
    fn bring_online(&self) -> Result<(), OnlineError> {
        let _turn = self.turn();
        self.with_handle(|handle| {
            let mut online = Vec::new();
            handle.ranges(|range| online.push(range));
            let missing = self.zones.iter().rev().filter(|zone| !online.contains(&zone.span()));
            missing.copied().try_for_each(|zone| handle.online_with(zone, zone.marks()))
        })
    }

    /// Takes the zones of a drained node offline, the lowest first. Those that went before one that is in use stay offline
    /// until [`Site::resume`].
    pub(super) fn take_offline(&self, handle: &NodeHandle<'static, Zone>) -> Result<(), OfflineError> {
        let _turn = self.turn();
        let mut online = Vec::new();
        handle.ranges(|range| online.push(range));
        let mut there = self.zones.iter().map(|zone| zone.span()).filter(|span| online.contains(span));
        there.try_for_each(|span| handle.offline(span).map(|_| ()))
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
        self.shared.each_frame(|node, frames| held[node.index()] += frames.frames());
        for site in &self.shared.sites {
            let node = site.node;
            let used = site.used_frames();
            for zone in &site.zones {
                zone.audit().map_err(|error| AuditError::Zone { node, error })?;
            }
            let stored = site.compressed().map_or(0, |compressed| compressed.held_frames());
            let expected = held[node.index()] + stored + site.served.kept_frames();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_a_node_before_it_is_set_up() {
        let doors = Features::RECLAIM | Features::DEMOTION | Features::USER_NUMA | Features::HOTUNPLUG;
        let builder = Machine::builder().node(NodeSpec::ordinary(32));
        let machine = builder.node(NodeSpec::compressed(32, 64).features(doors)).build().unwrap();
        let [dram, node] = [0, 1].map(|number| machine.node(number).unwrap());
        machine.unplug(node).unwrap();
        // What a plug does before the node's service is made.
        let site = machine.shared.site(node).unwrap();
        *site.holder.write().unwrap() =
            Holder::claim(machine.shared.nodes, node, site.class, site.kind).unwrap();
        site.bring_online().unwrap();
        let unknown = Some(Denied::Unknown { node });
        assert_eq!(machine.owner_grant(node).err(), unknown);
        assert_eq!(machine.grant(node, Reason::Demotion).err(), unknown);
        assert!(site.grant_for_setup().is_ok());
        let memory = machine.map_at(1, Placement::Bound(node)).unwrap();
        memory.write(0, &[1]).unwrap();
        assert!(memory.place(0).is_resident_on(dram));
        assert!(memory.demote(0..1, node).is_err());
        // What it does if that fails.
        site.withdraw();
        assert!(!machine.state(node).unwrap().is_registered());
        machine.plug(node).unwrap();
        assert!(machine.owner_grant(node).is_ok());
        machine.audit().unwrap();
    }

    #[test]
    fn a_node_whose_service_fails_stays_unplugged() {
        let mut machine = Machine::builder().node(NodeSpec::compressed(32, 64)).build().unwrap();
        let node = machine.node(0).unwrap();
        machine.unplug(node).unwrap();
        let promise = |machine: &mut Machine, pages| {
            let site = &mut Arc::get_mut(&mut machine.shared).unwrap().sites[0];
            site.kind = Kind::Compressed { features: site.features, advertised: pages };
        };
        promise(&mut machine, 0);
        for _ in 0..2 {
            assert!(matches!(machine.plug(node), Err(BuildError::Compressed { .. })));
            assert!(!machine.state(node).unwrap().is_registered());
            assert_eq!((machine.free_frames(node), machine.compressed(node)), (0, None));
        }
        promise(&mut machine, 64);
        machine.plug(node).unwrap();
        assert!(machine.compressed(node).is_some());
        machine.audit().unwrap();
        machine.unplug(node).unwrap();
    }
}
