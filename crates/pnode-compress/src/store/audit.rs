//! A look at the whole store: does every bit have an owner, and every number its proof?

use core::fmt;

use pnode_core::sync::{Ordering, RawLock};

use super::dedup::mix;
use super::entry::{Entry, Kind};
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
    /// A shared object is counted for more or fewer pages than name it, or is not there.
    Shared {
        /// Its number.
        number: u32,
        /// The pages that it is counted for.
        counted: u64,
        /// The pages that name it.
        found: u64,
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
            Self::Shared { number, counted, found } => {
                write!(f, "shared object {number} is counted for {counted} pages, {found} name it")
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
        let (mut sharing, mut shared) = (0, 0);
        for index in 0..shape.slots + shape.shared {
            // The entry of a shared object is named by where it is, past the last page.
            let slot = Slot(index);
            let Some(entry) = self.pool.entry(index) else { break };
            match entry.kind() {
                Kind::Empty => {}
                Kind::Inline(_) => inline += 1,
                Kind::Shared(_) => sharing += 1,
                Kind::Object => {
                    if entry.readers() > 0 || entry.is_dying() {
                        return Err(AuditError::Pinned { slot });
                    }
                    let block = self.pool.block_of(entry.place());
                    let first = (entry.place() % u64::from(shape.places())) as u32;
                    let granules = shape.covered(entry);
                    let there = block < shape.blocks && self.pool.pfn(block).is_some();
                    if !there || first + granules > shape.places() {
                        return Err(AuditError::Stray { slot });
                    }
                    objects += 1;
                    shared += u64::from(index >= shape.slots);
                    bytes += entry.len(shape.page) as u64;
                    covered += u64::from(granules);
                }
            }
        }
        self.audit_shared()?;
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
            ("pages", stats.pages, objects - shared + inline + sharing),
            ("shared pages", stats.shared_pages, sharing),
            ("shared objects", stats.shared_objects, shared),
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

    /// Whether each shared object is there, and counted for as many pages as name it.
    fn audit_shared(&self) -> Result<(), AuditError> {
        let (slots, shared) = (self.pool.shape.slots, self.pool.shape.shared);
        let named = |slot| match self.pool.page(slot).map(Entry::kind) {
            Some(Kind::Shared(number)) => Some(number),
            _ => None,
        };
        let wrong = |number| {
            let found = (0..slots).filter(|&slot| named(slot) == Some(number)).count() as u64;
            AuditError::Shared { number, counted: self.pool.users(number), found }
        };
        // Each number has a weight of its own, so that one pass over the pages and one over the numbers suffice: the sums
        // agree if every count does, and otherwise but for one chance in 2^64.
        let weight = |number: u32| mix(u64::from(number) + 1);
        let mut balance = 0u64;
        for number in (0..slots).filter_map(named) {
            if number >= shared {
                return Err(wrong(number));
            }
            balance = balance.wrapping_add(weight(number));
        }
        for number in 0..shared {
            let users = self.pool.users(number);
            let there = self.pool.entry(self.pool.index_of(number)).is_some_and(Entry::is_object);
            if there != (users > 0) {
                return Err(wrong(number));
            }
            balance = balance.wrapping_sub(weight(number).wrapping_mul(users));
        }
        if balance == 0 {
            return Ok(());
        }
        let miscounted = |number: &u32| matches!(wrong(*number), AuditError::Shared { counted, found, .. } if counted != found);
        match (0..shared).find(miscounted) {
            Some(number) => Err(wrong(number)),
            None => Ok(()),
        }
    }
}
