//! What only the owner of a private node may do.

use core::fmt;
use core::ops::Deref;

use super::{NodeHandle, Nodes, Private, RegisterError, ServiceError};
use crate::frame::FrameZone;
use crate::grant::{Denied, Grant};
use crate::node::{Facts, Features};
use crate::ops::Service;
use crate::sync::{RawLock, SpinLock};

/// The right to a private node, returned by [`Nodes::register`].
///
/// It dereferences to the node's [`NodeHandle`], which has the steps of its life. An owner has no destructor: a node
/// whose owner is gone stays registered, closed, until the registry is gone.
pub struct Owner<'m, Z: FrameZone, L: RawLock = SpinLock> {
    handle: NodeHandle<'m, Z, L>,
}

impl<'m, Z: FrameZone, L: RawLock> Owner<'m, Z, L> {
    pub(super) const fn new(handle: NodeHandle<'m, Z, L>) -> Self {
        Self { handle }
    }

    /// Another owner of the same node with the same claim: several ranges or devices of one driver share a node.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Busy`] for another claim: another class is another node, and features are fixed.
    pub fn join(&self, claim: Private, features: Features) -> Result<Self, RegisterError> {
        self.nodes().check_same_claim(self.registration(), claim, features)?;
        Ok(Self { handle: NodeHandle::new(self.nodes(), self.registration()) })
    }

    /// A grant on the node: the right to take its frames.
    ///
    /// # Errors
    ///
    /// [`Denied::Stale`], [`Denied::Draining`] or [`Denied::TooManyReferences`].
    pub fn grant(&self) -> Result<Grant<'m, Z, L>, Denied> {
        self.nodes().owner_grant(self.registration())
    }

    /// Installs the service that answers for the node's pages.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Busy`] if there is one, [`ServiceError::NoMemory`] before the node is online,
    /// [`ServiceError::Draining`] or [`ServiceError::Stale`].
    pub fn serve(&self, service: &'m Service<'m>) -> Result<(), ServiceError> {
        let _admin = self.nodes().admin.lock();
        let slot = self.slot()?;
        let node = self.id();
        let word = self.current(slot)?;
        if word.facts().has(Facts::DRAINING) {
            return Err(ServiceError::Draining { node });
        }
        if word.facts().has(Facts::SERVICED) {
            return Err(ServiceError::Busy { node });
        }
        if !word.facts().has(Facts::MEMORY) {
            return Err(ServiceError::NoMemory { node });
        }
        // Published before the fact is: who sees SERVICED finds the service.
        slot.service.publish(service);
        self.set_facts(slot, |facts| facts.with(Facts::SERVICED))?;
        Ok(())
    }

    /// Removes the service. Callbacks that run now go on; [`NodeHandle::unregister`] waits for them.
    ///
    /// # Errors
    ///
    /// [`ServiceError::StillUsed`] while frames are in use: a page without its service could never be moved or written
    /// again. [`ServiceError::NotServiced`] or [`ServiceError::Stale`].
    pub fn end_service(&self) -> Result<(), ServiceError> {
        let admin = self.nodes().admin.lock();
        let slot = self.slot()?;
        let node = self.id();
        if !self.current(slot)?.facts().has(Facts::SERVICED) {
            return Err(ServiceError::NotServiced { node });
        }
        // The zones are shut meanwhile, or a block handed out after they were counted would be left without its service.
        let zones = || self.nodes().zones_of(node, &admin);
        zones().for_each(|(_, _, zone)| zone.isolate());
        let ended = match self.nodes().used_frames(node, &admin) {
            0 => self.set_facts(slot, |facts| facts.without(Facts::SERVICED)).map_err(ServiceError::from),
            frames => Err(ServiceError::StillUsed { node, frames }),
        };
        if ended.is_ok() {
            slot.service.withdraw();
        }
        zones().filter(|(_, slot, _)| !slot.load().is_closed()).for_each(|(_, _, zone)| zone.reopen());
        ended.map(|_| ())
    }

    /// The registry this node is in.
    pub fn nodes(&self) -> &'m Nodes<'m, Z, L> {
        self.handle.registry()
    }
}

impl<'m, Z: FrameZone, L: RawLock> Deref for Owner<'m, Z, L> {
    type Target = NodeHandle<'m, Z, L>;

    fn deref(&self) -> &Self::Target {
        &self.handle
    }
}

impl<Z: FrameZone, L: RawLock> fmt::Debug for Owner<'_, Z, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner of {:?}", self.id())
    }
}
