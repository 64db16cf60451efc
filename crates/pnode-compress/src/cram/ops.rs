//! [`CramOps`]: what compressed RAM answers when the host asks the service of a node.
//!
//! The host moves bytes and changes its page tables; what its errors mean to demotion, faults and reclaim is decided
//! here, once for all hosts. A fault that found no memory is a retry and never a success; a batch of demotions stops
//! where the door was shut; a page that is being freed stays with the service until it is scrubbed.

use pnode_core::ops::{
    Access, Block, BoostOwner, FaultVerdict, FreeVerdict, MaySleep, MoveError, Moved, NoSleep, NodeOps,
    ReclaimPolicy, SwapRule,
};
use pnode_core::reclaim::Boost;
use pnode_core::{NodeId, Order, Pfn};

use super::{Cram, DemoteError, FaultError, Pressure};

/// The host's half of a compressed node: one page at a time, from the host's page tables to a [`super::Handler`] and back.
pub trait CramHost: Sync {
    /// Takes the page in `block`, on another node, into the compressed node: unmap it, [`super::Handler::demote`], put the
    /// [`super::Resident`] in its place.
    ///
    /// # Errors
    ///
    /// [`DemoteError`]; the page is mapped as before.
    fn demote(&self, block: Block) -> Result<(), DemoteError>;

    /// Promotes the resident page that `block` stands for, because it is to be written:
    /// [`super::Handler::write_fault`] and what follows.
    ///
    /// # Errors
    ///
    /// [`FaultError`]. Whoever reads a poisoned page has been told.
    fn promote(&self, block: Block) -> Result<(), FaultError>;

    /// Frees the resident page that `block` stands for: [`super::Handler::free`]. Must not sleep.
    ///
    /// # Errors
    ///
    /// [`FaultError`].
    fn free(&self, block: Block) -> Result<(), FaultError>;
}

/// The callbacks of a compressed node over a [`CramHost`].
#[derive(Debug)]
pub struct CramOps<'m, H> {
    cram: &'m Cram<'m>,
    host: H,
}

impl<'m, H: CramHost> CramOps<'m, H> {
    /// The callbacks of the node whose service is `cram`.
    pub const fn new(cram: &'m Cram<'m>, host: H) -> Self {
        Self { cram, host }
    }

    /// The host's half.
    pub const fn host(&self) -> &H {
        &self.host
    }

    /// By how much a zone of `managed` frames is to be boosted, so that reclaim frees as much as the pressure asks for:
    /// nothing when idle, all of it when the door is shut.
    pub fn boost(&self, managed: u64) -> Boost {
        let permille = u128::from(self.cram.pressure().permille());
        // At most `managed`, as the pressure is at most 1,000.
        Boost::frames((u128::from(managed) * permille / 1000) as u64)
    }
}

impl<H: CramHost> NodeOps for CramOps<'_, H> {
    /// Stops at the first page that is not taken: the door is tested for each, and what it turned away goes to the next
    /// tier or to swap. Blocks of several frames are the host's to split first.
    fn migrate_to(&self, _: MaySleep<'_>, _: NodeId, blocks: &[Block]) -> Result<Moved, MoveError> {
        for (arrived, block) in blocks.iter().enumerate() {
            if block.order != Order::ZERO {
                return Ok(Moved { arrived });
            }
            match self.host.demote(*block) {
                Ok(()) => {}
                Err(DemoteError::Busy | DemoteError::PageLength { .. } | DemoteError::Origin { .. }) => {
                    return Ok(Moved { arrived });
                }
                Err(_) => return Err(MoveError::Full { arrived }),
            }
        }
        Ok(Moved { arrived: blocks.len() })
    }

    /// Of one write at most two faults come here: one that promotes the page or finds that somebody else has, and one
    /// more for each time that there was no memory. A read is none of the fence's business.
    fn fault(&self, _: MaySleep<'_>, block: Block, access: Access) -> FaultVerdict {
        if access == Access::Read {
            return FaultVerdict::PassOn;
        }
        match self.host.promote(block) {
            Ok(()) | Err(FaultError::Stale(_)) => FaultVerdict::Settled,
            Err(FaultError::Retry(_)) => FaultVerdict::Retry,
            Err(FaultError::Poisoned | FaultError::PageLength { .. }) => FaultVerdict::PassOn,
        }
    }

    /// The frame comes back when it has been scrubbed. A page that is promoted at this moment is freed by its promotion.
    fn free(&self, _: NoSleep<'_>, block: Block) -> FreeVerdict {
        match self.host.free(block) {
            Ok(()) | Err(FaultError::Retry(_)) => FreeVerdict::Kept,
            Err(_) => FreeVerdict::Release,
        }
    }

    /// The boost is the service's, and a pass for it may swap while there is pressure: on this node there is nothing
    /// else that it could do.
    fn reclaim_policy(&self, _: NoSleep<'_>) -> ReclaimPolicy {
        let pressed = self.cram.pressure() > Pressure::IDLE;
        let swap = if pressed { SwapRule::MaySwap } else { SwapRule::Gentle };
        ReclaimPolicy { swap, boost: BoostOwner::Service }
    }

    /// Nothing more is demoted to a device whose memory fails, until its driver says otherwise.
    fn memory_failure(&self, _: NoSleep<'_>, _: Pfn) {
        self.cram.set_pressure(Pressure::FULL);
    }
}
