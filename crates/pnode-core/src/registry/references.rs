//! Counted references on nodes: who holds one keeps the node from being given up.

use super::storage::doors;
use super::{Nodes, Registration};
use crate::frame::FrameZone;
use crate::grant::{Denied, Grant, Reason};
use crate::node::{Facts, NodeId, Stamp, Word};
use crate::ops::Service;
use crate::sync::{Ordering, RawLock};

impl<'m, Z: FrameZone, L: RawLock> Nodes<'m, Z, L> {
    /// Asks for a grant on the private node `node` for `reason`, as a service of the host.
    ///
    /// Takes no lock and may be called in any context.
    ///
    /// # Errors
    ///
    /// [`Denied`], which says which door is shut.
    pub fn grant(&'m self, node: NodeId, reason: Reason) -> Result<Grant<'m, Z, L>, Denied> {
        self.grant_since(node, reason, None)
    }

    /// As [`Nodes::grant`], but only if `node` was registered by `stamp`: who remembered the id then meant that node.
    ///
    /// # Errors
    ///
    /// As [`Nodes::grant`], and [`Denied::Stale`].
    pub fn grant_as_of(
        &'m self,
        node: NodeId,
        reason: Reason,
        stamp: Stamp,
    ) -> Result<Grant<'m, Z, L>, Denied> {
        self.grant_since(node, reason, Some(stamp))
    }

    fn grant_since(
        &'m self,
        node: NodeId,
        reason: Reason,
        stamp: Option<Stamp>,
    ) -> Result<Grant<'m, Z, L>, Denied> {
        let slot = self.slot(node).ok_or(Denied::Unknown { node })?;
        let word = slot.update(|word| {
            if !word.facts().has(Facts::REGISTERED) {
                return Err(Denied::Unknown { node });
            }
            if !word.facts().has(Facts::PRIVATE) {
                return Err(Denied::NotPrivate { node });
            }
            // Ordered and proved as the doors below.
            if stamp.is_some_and(|stamp| slot.born.load(Ordering::Relaxed) > stamp.0) {
                return Err(Denied::Stale { node });
            }
            let door = reason.door().ok_or(Denied::OwnerOnly { node })?;
            // The word's Acquire load ordered this after the store at registration, and the compare-and-swap of the
            // word proves that it is still that registration.
            if !doors(slot).contains(door) {
                return Err(Denied::NotOpened { node, reason, door });
            }
            if word.facts().has(Facts::DRAINING) && reason != Reason::HotUnplug {
                return Err(Denied::Draining { node });
            }
            held(word, node)
        })?;
        Ok(Grant::new(self, Registration { node, generation: word.generation() }, reason))
    }

    /// A grant for the owner of `registration`.
    pub(super) fn owner_grant(&'m self, registration: Registration) -> Result<Grant<'m, Z, L>, Denied> {
        let Registration { node, generation } = registration;
        let slot = self.slot(node).ok_or(Denied::Unknown { node })?;
        slot.update(|word| {
            if word.generation() != generation || !word.facts().has(Facts::REGISTERED) {
                return Err(Denied::Stale { node });
            }
            if word.facts().has(Facts::DRAINING) {
                return Err(Denied::Draining { node });
            }
            held(word, node)
        })?;
        Ok(Grant::new(self, registration, Reason::Owner))
    }

    /// Calls `f` with the service of `node`, holding a reference on the node meanwhile. `None` if it has no service.
    ///
    /// `f` may sleep if the caller may: no lock is held. The service is called for a draining node too, until its owner
    /// ends it.
    pub fn with_service<R>(&self, node: NodeId, f: impl FnOnce(&Service<'m>) -> R) -> Option<R> {
        let slot = self.slot(node)?;
        slot.update(|word| {
            if word.facts().has(Facts::SERVICED) { held(word, node) } else { Err(Denied::Unknown { node }) }
        })
        .ok()?;
        let _reference = Reference { nodes: self, node };
        slot.service.get().map(f)
    }

    /// Gives a reference back.
    pub(crate) fn release(&self, node: NodeId) {
        if let Some(slot) = self.slot(node) {
            // Release pairs with the Acquire of the compare-and-swap in `unregister`: what the holder did with the node
            // happened before the node is given up. The count cannot wrap: each holder gives back once.
            slot.word.fetch_sub(1, Ordering::Release);
        }
    }
}

/// `word` with one more reference.
fn held(word: Word, node: NodeId) -> Result<Word, Denied> {
    let references = word.references().checked_add(1).ok_or(Denied::TooManyReferences { node })?;
    Ok(Word::new(word.generation(), word.facts(), references))
}

/// A reference that is given back even if the callback unwinds.
struct Reference<'a, 'm, Z: FrameZone, L: RawLock> {
    nodes: &'a Nodes<'m, Z, L>,
    node: NodeId,
}

impl<Z: FrameZone, L: RawLock> Drop for Reference<'_, '_, Z, L> {
    fn drop(&mut self) {
        self.nodes.release(self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reference_is_the_last() {
        let node = NodeId::new(3).unwrap();
        let facts = Facts::REGISTERED.with(Facts::PRIVATE);
        let generation = Word(0).generation();
        let most = held(Word::new(generation, facts, u32::MAX - 1), node).unwrap();
        assert!(most == Word::new(generation, facts, u32::MAX), "the count does not reach the facts");
        assert_eq!(held(most, node).err(), Some(Denied::TooManyReferences { node }));
    }
}
