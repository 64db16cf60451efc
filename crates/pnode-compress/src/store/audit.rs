//! A look at the whole store: does every bit have an owner, and every number its proof?

use core::fmt;

use pnode_core::sync::{Ordering, RawLock};

use super::entry::Kind;
use super::{Slot, Store};
use crate::memory::FrameMemory;

/// What is wrong with a store. There is no way there through this crate's safe functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditError {
    /// A page's object lies where no block is, or passes its block's end.
    Stray {
        /// The page.
        slot: Slot,
    },
    /// A page is still pinned, though no call is in flight.
    Pinned {
        /// The page.
        slot: Slot,
    },
    /// More or fewer granules are marked as covered than the pages' objects cover.
    Granules {
        /// Marked in the bitmaps.
        marked: u64,
        /// Covered by objects.
        covered: u64,
    },
    /// A block is in the wrong list of its shard.
    Lists {
        /// The shard.
        shard: usize,
        /// The block.
        block: u32,
    },
    /// A counter does not agree with what is there.
    Count {
        /// What is counted.
        what: &'static str,
        /// By the counter.
        counted: u64,
        /// By the audit.
        found: u64,
    },
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stray { slot } => write!(f, "the object of {slot:?} lies in no block"),
            Self::Pinned { slot } => write!(f, "{slot:?} is pinned by nobody"),
            Self::Granules { marked, covered } => {
                write!(f, "{marked} granules are marked as covered, objects cover {covered}")
            }
            Self::Lists { shard, block } => write!(f, "block {block} is in a wrong list of shard {shard}"),
            Self::Count { what, counted, found } => write!(f, "{what}: counted {counted}, found {found}"),
        }
    }
}

impl core::error::Error for AuditError {}

impl<P: FrameMemory, L: RawLock> Store<'_, P, L> {
    /// Checks the whole store, in time linear in its slots and blocks. No other call may be in flight.
    ///
    /// # Errors
    ///
    /// [`AuditError`]: the first thing that is wrong.
    pub fn audit(&self) -> Result<(), AuditError> {
        let shape = &self.pool.shape;
        let (mut objects, mut inline, mut bytes, mut covered) = (0, 0, 0, 0);
        for number in 0..shape.slots {
            let slot = Slot(number);
            let Some(entry) = self.pool.entry(number) else { break };
            match entry.kind() {
                Kind::Empty => {}
                Kind::Inline(_) => inline += 1,
                Kind::Object => {
                    if entry.readers() > 0 || entry.is_dying() {
                        return Err(AuditError::Pinned { slot });
                    }
                    let block = self.pool.block_of(entry.place());
                    let first = (entry.place() % u64::from(shape.places())) as u32;
                    let granules = shape.granules(entry.len());
                    let there = block < shape.blocks && self.pool.pfn(block).is_some();
                    if !there || first + granules > shape.places() {
                        return Err(AuditError::Stray { slot });
                    }
                    objects += 1;
                    bytes += entry.len() as u64;
                    covered += u64::from(granules);
                }
            }
        }
        let (mut blocks, mut marked) = (0, 0);
        for (shard, state) in self.shards.iter().enumerate() {
            let own = || (shard as u32..shape.blocks).step_by(self.shards.len());
            state
                .audit(&self.pool, &self.limit, own())
                .map_err(|block| AuditError::Lists { shard, block })?;
            for block in own().filter(|&block| self.pool.pfn(block).is_some()) {
                blocks += 1;
                marked += u64::from(self.pool.used(block));
            }
        }
        if marked != covered {
            return Err(AuditError::Granules { marked, covered });
        }
        let stats = self.stats();
        let counted = u64::from(self.limit.blocks.load(Ordering::Relaxed));
        for (what, counted, found) in [
            ("pages", stats.pages, objects + inline),
            ("inline pages", stats.inline_pages, inline),
            ("compressed bytes", stats.compressed_bytes, bytes),
            ("blocks", counted, blocks),
        ] {
            if counted != found {
                return Err(AuditError::Count { what, counted, found });
            }
        }
        Ok(())
    }
}
