//! The steps of a node's life: memory on and off, draining, giving up.

use core::fmt;

use super::storage::ZoneSlot;
use super::zone_word::Owned;
use super::{Admin, NodeSlot, Nodes, OfflineError, OnlineError, Registration, Stale, UnregisterError};
use crate::addr::FrameRange;
use crate::frame::FrameZone;
use crate::node::{Cpus, Facts, NodeId, NodeState, Word};
use crate::sync::{Guard, Ordering, RawLock, SpinLock};
use crate::watermark::Watermarks;

/// A registered node, in the hands of who registered it.
///
/// All steps may be called from several threads; they take the registry's lock.
pub struct NodeHandle<'m, Z: FrameZone, L: RawLock = SpinLock> {
    nodes: &'m Nodes<'m, Z, L>,
    registration: Registration,
}

/// What is left of a node after a range went offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offlined {
    /// The range is gone, others remain.
    OthersRemain,
    /// It was the last one: the node has no memory.
    WasTheLast,
}

impl<'m, Z: FrameZone, L: RawLock> NodeHandle<'m, Z, L> {
    pub(super) const fn new(nodes: &'m Nodes<'m, Z, L>, registration: Registration) -> Self {
        Self { nodes, registration }
    }

    /// The node's id.
    pub const fn id(&self) -> NodeId {
        self.registration.node
    }

    /// The facts about the node now.
    ///
    /// # Errors
    ///
    /// [`Stale`] if it was given up.
    pub fn state(&self) -> Result<NodeState, Stale> {
        Ok(self.current(self.slot()?)?.state())
    }

    /// Says whether CPUs sit beside the node's memory: the host calls this as they come and go.
    ///
    /// # Errors
    ///
    /// [`Stale`] if the node was given up.
    pub fn set_cpus(&self, cpus: Cpus) -> Result<(), Stale> {
        let _admin = self.nodes.admin.lock();
        self.set_facts(self.slot()?, |facts| match cpus {
            Cpus::Absent => facts.without(Facts::CPUS),
            Cpus::Present => facts.with(Facts::CPUS),
        })?;
        Ok(())
    }

    /// Brings the memory of `zone` online, with nothing kept back. Its frames can be handed out when this returns.
    ///
    /// A zone belongs to one registry: this one sees overlaps with its own zones only, and would hand out what another
    /// keeps private.
    ///
    /// # Errors
    ///
    /// [`OnlineError`] if the node drains, the frames belong to another zone, or the registry is full.
    pub fn online(&self, zone: &'m Z) -> Result<(), OnlineError> {
        self.online_with(zone, Watermarks::NONE)
    }

    /// As [`NodeHandle::online`], keeping `marks` back.
    ///
    /// # Errors
    ///
    /// As [`NodeHandle::online`].
    pub fn online_with(&self, zone: &'m Z, marks: Watermarks) -> Result<(), OnlineError> {
        let mut admin = self.nodes.admin.lock();
        let node = self.id();
        let slot = self.slot()?;
        let word = self.current(slot)?;
        if word.facts().has(Facts::DRAINING) {
            return Err(OnlineError::Draining { node });
        }
        let span = zone.span();
        for (_, taken, other) in self.nodes.online_zones(&admin) {
            let with = other.span();
            if span.intersection(with).is_some() {
                return Err(OnlineError::Overlaps { span, with, node: taken.load().node() });
            }
        }
        let Some(free) = self.nodes.zones.iter().find(|zone| !zone.load().is_taken()) else {
            return Err(OnlineError::Full { zones: self.nodes.zones.len() });
        };
        let private = word.facts().has(Facts::PRIVATE);
        let owner = if private { Owned::private(node) } else { Owned::ordinary(node) };
        free.set_watermarks(marks);
        free.store(free.load().taken_by(owner));
        free.source.publish(zone);
        // A zone that was isolated when it last went offline hands out again.
        zone.reopen();
        self.nodes.chain(node, slot, &admin);
        self.set_facts(slot, |facts| facts.with(Facts::MEMORY))?;
        self.nodes.rebuild(&mut admin);
        Ok(())
    }

    /// Closes a range: nothing new lands there, frees still do. The step before moving its pages away.
    ///
    /// # Errors
    ///
    /// [`OfflineError::Stale`] or [`OfflineError::UnknownRange`].
    pub fn close(&self, range: FrameRange) -> Result<(), OfflineError> {
        let admin = self.nodes.admin.lock();
        let (slot, zone) = self.find(range, &admin)?;
        shut(slot, zone);
        Ok(())
    }

    /// Undoes [`NodeHandle::close`].
    ///
    /// # Errors
    ///
    /// [`OfflineError::Stale`], [`OfflineError::UnknownRange`], or [`OfflineError::Draining`]: a draining node stays
    /// closed.
    pub fn reopen(&self, range: FrameRange) -> Result<(), OfflineError> {
        let admin = self.nodes.admin.lock();
        let (slot, zone) = self.find(range, &admin)?;
        if self.state()?.is_draining() {
            return Err(OfflineError::Draining { node: self.id() });
        }
        open(slot, zone);
        Ok(())
    }

    /// Takes a range offline. Its frames must all be free.
    ///
    /// # Errors
    ///
    /// [`OfflineError::StillUsed`] says how many frames must be moved away first; the range is as open or closed as it
    /// was before. [`OfflineError::Stale`] or [`OfflineError::UnknownRange`].
    pub fn offline(&self, range: FrameRange) -> Result<Offlined, OfflineError> {
        let mut admin = self.nodes.admin.lock();
        let (gone, zone) = self.find(range, &admin)?;
        let was_closed = gone.load().is_closed();
        shut(gone, zone);
        let frames = zone.used_frames();
        if frames > 0 {
            if !was_closed {
                open(gone, zone);
            }
            return Err(OfflineError::StillUsed { range, frames });
        }
        let slot = self.slot()?;
        // The word goes first, so that whoever meets this zone or this slot in other hands finds its word gone; the
        // reference goes before the slot's next word, so that nobody follows it under that word.
        gone.store(gone.load().vacant());
        gone.source.withdraw();
        self.nodes.chain(self.id(), slot, &admin);
        let left = if self.nodes.zones_of(self.id(), &admin).next().is_none() {
            self.set_facts(slot, |facts| facts.without(Facts::MEMORY))?;
            Offlined::WasTheLast
        } else {
            Offlined::OthersRemain
        };
        self.nodes.rebuild(&mut admin);
        Ok(left)
    }

    /// Starts the teardown: every range is closed and no new grants are handed out. Idempotent.
    ///
    /// # Errors
    ///
    /// [`Stale`] if the node was given up.
    pub fn drain(&self) -> Result<(), Stale> {
        let admin = self.nodes.admin.lock();
        let slot = self.slot()?;
        self.set_facts(slot, |facts| facts.with(Facts::DRAINING))?;
        self.nodes.zones_of(self.id(), &admin).for_each(|(_, slot, zone)| shut(slot, zone));
        Ok(())
    }

    /// Calls the teardown off: every range is open again and grants are handed out. Idempotent.
    ///
    /// # Errors
    ///
    /// [`Stale`] if the node was given up.
    pub fn resume(&self) -> Result<(), Stale> {
        let admin = self.nodes.admin.lock();
        let slot = self.slot()?;
        self.set_facts(slot, |facts| facts.without(Facts::DRAINING))?;
        self.nodes.zones_of(self.id(), &admin).for_each(|(_, slot, zone)| open(slot, zone));
        Ok(())
    }

    /// Gives the node up. Its id may be registered again, by anybody; handles of this life are stale from now on.
    ///
    /// # Errors
    ///
    /// [`UnregisterError::HasMemory`], then [`UnregisterError::Serviced`], then [`UnregisterError::Referenced`]: in the
    /// order in which a teardown must go. [`UnregisterError::Stale`] if it was given up before.
    pub fn unregister(&self) -> Result<(), UnregisterError> {
        let _admin = self.nodes.admin.lock();
        let node = self.id();
        let slot = self.slot()?;
        // The Acquire of the compare-and-swap pairs with the Release with which each reference was given back.
        slot.update(|word| {
            let word = self.check(word)?;
            if word.facts().has(Facts::MEMORY) {
                return Err(UnregisterError::HasMemory { node });
            }
            if word.facts().has(Facts::SERVICED) {
                return Err(UnregisterError::Serviced { node });
            }
            if word.references() > 0 {
                return Err(UnregisterError::Referenced { node, references: word.references() });
            }
            Ok(Word::new(word.generation(), Facts::NONE, 0))
        })?;
        Ok(())
    }

    /// Changes what a range keeps back.
    ///
    /// # Errors
    ///
    /// [`OfflineError::Stale`] or [`OfflineError::UnknownRange`].
    pub fn set_watermarks(&self, range: FrameRange, marks: Watermarks) -> Result<(), OfflineError> {
        let admin = self.nodes.admin.lock();
        let (slot, _) = self.find(range, &admin)?;
        slot.set_watermarks(marks);
        Ok(())
    }

    /// What a range keeps back.
    ///
    /// # Errors
    ///
    /// [`OfflineError::Stale`] or [`OfflineError::UnknownRange`].
    pub fn watermarks(&self, range: FrameRange) -> Result<Watermarks, OfflineError> {
        let admin = self.nodes.admin.lock();
        let (slot, _) = self.find(range, &admin)?;
        Ok(slot.watermarks())
    }

    /// The spans of the node's ranges, in the order in which a grant walks them: by zone slot, which is the order they
    /// came online in as long as none went.
    ///
    /// The registry's lock is held meanwhile: `visit` must not take a step in any node's life.
    pub fn ranges(&self, mut visit: impl FnMut(FrameRange)) {
        let admin = self.nodes.admin.lock();
        if self.state().is_ok() {
            self.nodes.zones_of(self.id(), &admin).for_each(|(_, _, zone)| visit(zone.span()));
        }
    }

    /// How many frames of the node are handed out.
    pub fn used_frames(&self) -> u64 {
        let admin = self.nodes.admin.lock();
        if self.state().is_ok() { self.nodes.used_frames(self.id(), &admin) } else { 0 }
    }

    pub(super) const fn registry(&self) -> &'m Nodes<'m, Z, L> {
        self.nodes
    }

    pub(super) const fn registration(&self) -> Registration {
        self.registration
    }

    pub(super) fn slot(&self) -> Result<&'m NodeSlot<'m>, Stale> {
        self.nodes.slot(self.id()).ok_or(Stale { node: self.id() })
    }

    /// The word of `slot`, if it is still of this registration.
    pub(super) fn current(&self, slot: &NodeSlot<'m>) -> Result<Word, Stale> {
        self.check(slot.load(Ordering::Acquire))
    }

    fn check(&self, word: Word) -> Result<Word, Stale> {
        let same = word.generation() == self.registration.generation && word.facts().has(Facts::REGISTERED);
        if same { Ok(word) } else { Err(Stale { node: self.id() }) }
    }

    /// Changes the facts, for a holder of the lock; references come and go meanwhile.
    pub(super) fn set_facts(
        &self,
        slot: &NodeSlot<'m>,
        change: impl Fn(Facts) -> Facts,
    ) -> Result<Word, Stale> {
        slot.update(|word| {
            let word = self.check(word)?;
            Ok(Word::new(word.generation(), change(word.facts()), word.references()))
        })
    }

    fn find(
        &self,
        range: FrameRange,
        admin: &Guard<'_, Admin<'m>, L>,
    ) -> Result<(&'m ZoneSlot<'m, Z>, &'m Z), OfflineError> {
        self.current(self.slot()?)?;
        self.nodes
            .zones_of(self.id(), admin)
            .find(|(_, _, zone)| zone.span() == range)
            .map(|(_, slot, zone)| (slot, zone))
            .ok_or(OfflineError::UnknownRange { range })
    }
}

/// Nothing new lands in the zone when this returns.
fn shut<Z: FrameZone>(slot: &ZoneSlot<'_, Z>, zone: &Z) {
    slot.store(slot.load().closed());
    zone.isolate();
}

/// The zone hands out again.
fn open<Z: FrameZone>(slot: &ZoneSlot<'_, Z>, zone: &Z) {
    slot.store(slot.load().open());
    zone.reopen();
}

impl<'m, Z: FrameZone, L: RawLock> Nodes<'m, Z, L> {
    /// The zones that are online, with the numbers of their slots.
    pub(super) fn online_zones(
        &self,
        _admin: &Guard<'_, Admin<'m>, L>,
    ) -> impl DoubleEndedIterator<Item = (usize, &'m ZoneSlot<'m, Z>, &'m Z)> + use<'m, Z, L> {
        let zones = self.zones;
        zones.iter().enumerate().filter_map(|(index, slot)| {
            let zone = slot.source.get().filter(|_| slot.load().is_taken())?;
            Some((index, slot, zone))
        })
    }

    /// Those of `node`.
    pub(super) fn zones_of(
        &self,
        node: NodeId,
        admin: &Guard<'_, Admin<'m>, L>,
    ) -> impl DoubleEndedIterator<Item = (usize, &'m ZoneSlot<'m, Z>, &'m Z)> + use<'m, Z, L> {
        self.online_zones(admin).filter(move |(_, slot, _)| slot.load().node() == node)
    }

    /// How many frames of `node` are handed out.
    pub(super) fn used_frames(&self, node: NodeId, admin: &Guard<'_, Admin<'m>, L>) -> u64 {
        self.zones_of(node, admin).map(|(_, _, zone)| zone.used_frames()).sum()
    }
}

impl<Z: FrameZone, L: RawLock> fmt::Debug for NodeHandle<'_, Z, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handle of {:?}", self.id())
    }
}
