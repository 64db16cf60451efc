//! Registering a node: claiming an id, its class and its doors.

use super::storage::{Registration, doors};
use super::{NodeHandle, Nodes, Owner, RegisterError, Stale};
use crate::frame::FrameZone;
use crate::node::{Facts, Features, MemoryClass, NodeId, Word};
use crate::sync::{Ordering, RawLock};

/// What the owner of a private node claims beside its doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Private {
    class: MemoryClass,
}

impl Private {
    /// A private node whose memory is of `class`.
    pub const fn class(class: MemoryClass) -> Self {
        Self { class }
    }
}

impl<'m, Z: FrameZone, L: RawLock> Nodes<'m, Z, L> {
    /// Claims `node` as ordinary memory: its zones will serve any request that its lists allow.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Unknown`], [`RegisterError::Busy`] or [`RegisterError::Spent`].
    pub fn ordinary(
        &'m self,
        node: NodeId,
        class: MemoryClass,
    ) -> Result<NodeHandle<'m, Z, L>, RegisterError> {
        let registration = self.claim(node, class, Facts::REGISTERED, Features::NONE)?;
        Ok(NodeHandle::new(self, registration))
    }

    /// Claims `node` as private memory of `claim`'s class, with only the doors `features` open.
    ///
    /// The features are fixed until the node is given up. The [`Owner`] is the only one who can open the node's memory;
    /// it is not a secret number but a value, so nobody can make up another one.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Features`] for a set that contradicts itself, [`RegisterError::Unknown`],
    /// [`RegisterError::Busy`] or [`RegisterError::Spent`].
    pub fn register(
        &'m self,
        node: NodeId,
        claim: Private,
        features: Features,
    ) -> Result<Owner<'m, Z, L>, RegisterError> {
        let features = features.check()?;
        let facts = Facts::REGISTERED.with(Facts::PRIVATE);
        let registration = self.claim(node, claim.class, facts, features)?;
        Ok(Owner::new(NodeHandle::new(self, registration)))
    }

    fn claim(
        &self,
        node: NodeId,
        class: MemoryClass,
        facts: Facts,
        features: Features,
    ) -> Result<Registration, RegisterError> {
        let slot = self.slot(node).ok_or(RegisterError::Unknown { node })?;
        let mut admin = self.admin.lock();
        // The lock orders this after whoever gave the id up.
        let word = slot.load(Ordering::Relaxed);
        if word.facts().has(Facts::REGISTERED) {
            return Err(RegisterError::Busy { node });
        }
        let generation = word.generation().next().ok_or(RegisterError::Spent { node })?;
        let Some(record) = admin.records.get_mut(node.index()) else {
            return Err(RegisterError::Unknown { node });
        };
        record.class = class;
        slot.features.store(features.bits(), Ordering::Relaxed);
        let births = self.births.load(Ordering::Relaxed).saturating_add(1);
        slot.born.store(births, Ordering::Relaxed);
        // Release pairs with the Acquire loads of the word: who sees the node registered sees its doors. Nobody else
        // changes the word of an unregistered node while we hold the lock.
        slot.word.store(Word::new(generation, facts, 0).0, Ordering::Release);
        // After the word: a stamp that counts this registration was taken when the node was there. Release pairs with
        // the Acquire in `stamp`.
        self.births.store(births, Ordering::Release);
        Ok(Registration { node, generation })
    }

    /// Checks that `claim` and `features` are what `registration` was made with.
    pub(super) fn check_same_claim(
        &self,
        registration: Registration,
        claim: Private,
        features: Features,
    ) -> Result<(), RegisterError> {
        let Registration { node, generation } = registration;
        let admin = self.admin.lock();
        let slot = self.slot(node).ok_or(RegisterError::Unknown { node })?;
        // The lock orders this after whoever registered the node.
        let word = slot.load(Ordering::Relaxed);
        if word.generation() != generation || !word.facts().has(Facts::REGISTERED) {
            return Err(Stale { node }.into());
        }
        let same_class = admin.records.get(node.index()).is_some_and(|record| record.class == claim.class);
        if same_class && doors(slot) == features { Ok(()) } else { Err(RegisterError::Busy { node }) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::distance::Distances;
    use crate::registry::Storage;
    use crate::small::WordZone;

    #[test]
    fn an_id_without_generations_left_is_spent() {
        let node = NodeId::new(0).unwrap();
        let mut storage = Storage::<WordZone, 1, 1>::new();
        let nodes = Nodes::<WordZone>::new(storage.slots(), Distances::uniform(1).unwrap()).unwrap();
        // All lives of the id but the last are over.
        let slot = nodes.slot(node).unwrap();
        let over = Word(u64::MAX << 41);
        assert_eq!((over.facts(), over.references()), (Facts::NONE, 0));
        slot.word.store(over.0, Ordering::Relaxed);
        nodes.ordinary(node, MemoryClass::DRAM).unwrap().unregister().unwrap();
        assert_eq!(nodes.ordinary(node, MemoryClass::DRAM).err(), Some(RegisterError::Spent { node }));
        assert_eq!(nodes.state(node).map(|state| state.is_registered()), Some(false));
    }
}
