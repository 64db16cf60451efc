//! Compaction: emptying the sparsest blocks into the holes of the others, a few bytes at a time.
//!
//! A pass counts how full the blocks are, sets as many of the sparsest apart as the rest can take in, and walks the page
//! entries, moving each object that lies in a block set apart, large objects in an earlier walk than small ones. No list
//! of a block's objects is kept for this, which is why a page costs so little metadata. Blocks that become empty are given back at once.
//!
//! Nothing of this is on the way of a store: it runs when the host calls, for as long as the host says.

use pnode_core::sync::RawLock;

use super::Store;
use super::entry::Entry;
use super::pool::Pin;
use super::shard::Growth;
use super::worker::Worker;
use crate::memory::FrameMemory;

/// Sparse and full blocks are told apart in this many steps.
const STEPS: usize = 128;

/// The objects are moved in this many rounds, large ones first, while there are holes for them: filling bins by
/// decreasing size leaves the least unused.
const ROUNDS: usize = 16;

/// What a look at a block's bitmap, and at a page's entry, costs of a budget, in bytes that could have been moved.
const BLOCK_COST: usize = 64;
const ENTRY_COST: usize = 4;

/// A pass of compaction, which may be spread over many calls.
///
/// A pass may be dropped at any time: the next one finds the blocks that were set apart, and so does a store for which
/// there is no other room.
#[derive(Clone, Debug)]
pub struct Compaction {
    stage: Stage,
    /// How many blocks are how full.
    fullness: [u32; STEPS],
    used: u64,
    moved: u64,
    /// The most blocks that the store may have meanwhile.
    ceiling: u32,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Counting from this block on.
    Count {
        block: u32,
    },
    /// Setting apart from this block on blocks below `step`, and up to `rest` that are at it.
    Choose {
        block: u32,
        step: usize,
        rest: u32,
    },
    /// Moving the objects of pages from this slot on, in this one of the [`ROUNDS`].
    Move {
        slot: u32,
        round: usize,
    },
    /// Putting blocks back that were not emptied.
    Spare {
        block: u32,
    },
    Done,
}

/// How far a pass has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of objects that the pass has moved so far.
    pub moved_bytes: u64,
    /// Whether the pass is over: another call would do nothing.
    pub done: bool,
}

impl Compaction {
    /// A pass that has not begun.
    pub const fn new() -> Self {
        Self { stage: Stage::Count { block: 0 }, fullness: [0; STEPS], used: 0, moved: 0, ceiling: 0 }
    }

    /// The step of a block of `places` granules of which `used` are covered.
    fn step(used: u32, places: u32) -> usize {
        (used as usize * STEPS / places as usize).min(STEPS - 1)
    }

    /// How many blocks the pass can hope to empty, and so below which step it sets blocks apart.
    fn choose(&self, places: u32) -> Stage {
        let blocks: u64 = self.fullness.iter().map(|&blocks| u64::from(blocks)).sum();
        // One hundredth is left as holes: into the last ones nothing would fit.
        let needed = (self.used + self.used / 100).div_ceil(u64::from(places));
        let mut surplus = blocks.saturating_sub(needed);
        for (step, &here) in self.fullness.iter().enumerate() {
            if u64::from(here) > surplus {
                return if step == 0 && surplus == 0 {
                    Stage::Spare { block: 0 }
                } else {
                    Stage::Choose { block: 0, step, rest: surplus as u32 }
                };
            }
            surplus -= u64::from(here);
        }
        Stage::Spare { block: 0 }
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self::new()
    }
}

impl<'m, P: FrameMemory, L: RawLock> Worker<'_, 'm, P, L> {
    /// Goes on with a pass of compaction until about `budget` bytes were moved, or the pass is over.
    ///
    /// Looking costs something too, so a budget of some thousand bytes gets somewhere whatever there is to move. Objects
    /// that are being read stay where they are.
    pub fn compact(&mut self, pass: &mut Compaction, budget: usize) -> Progress {
        let store = self.shared();
        let mut left = budget.max(1);
        while left > 0 {
            let cost = match pass.stage {
                Stage::Count { block } => store.count_block(pass, block),
                Stage::Choose { block, step, rest } => store.choose_block(pass, block, step, rest),
                Stage::Move { slot, round } => self.move_page(pass, slot, round),
                Stage::Spare { block } => store.spare_block(pass, block),
                Stage::Done => break,
            };
            left = left.saturating_sub(cost);
        }
        Progress { moved_bytes: pass.moved, done: matches!(pass.stage, Stage::Done) }
    }

    fn move_page(&mut self, pass: &mut Compaction, slot: u32, round: usize) -> usize {
        let store = self.shared();
        let Some(entry) = store.pool.entry(slot) else {
            let last = round + 1 >= ROUNDS;
            pass.stage =
                if last { Stage::Spare { block: 0 } } else { Stage::Move { slot: 0, round: round + 1 } };
            return ENTRY_COST;
        };
        pass.stage = Stage::Move { slot: slot + 1, round };
        let small = entry.len(store.page_size()) < store.page_size().bytes() * (ROUNDS - 1 - round) / ROUNDS;
        if !entry.is_object() || small || entry.is_dying() || entry.readers() > 0 {
            return ENTRY_COST;
        }
        let block = store.pool.block_of(entry.place());
        if block >= store.pool.shape.blocks || !store.shard_of(block).is_condemned(&store.pool, block) {
            return ENTRY_COST;
        }
        let Ok(pin) = store.pool.pin(slot, entry, entry.age()) else { return ENTRY_COST };
        match store.relocate(self.home(), pin, pass.ceiling) {
            Some(bytes) => {
                pass.moved += bytes as u64;
                ENTRY_COST + bytes
            }
            None => ENTRY_COST,
        }
    }
}

impl<'m, P: FrameMemory, L: RawLock> Store<'m, P, L> {
    fn count_block(&self, pass: &mut Compaction, block: u32) -> usize {
        let places = self.pool.shape.places();
        if block >= self.pool.shape.blocks {
            let blocks = self.blocks();
            pass.ceiling = blocks.saturating_add(blocks / 8 + 1);
            pass.stage = pass.choose(places);
            return 0;
        }
        pass.stage = Stage::Count { block: block + 1 };
        if self.pool.pfn(block).is_none() {
            return ENTRY_COST;
        }
        let used = self.pool.used(block);
        pass.fullness[Compaction::step(used, places)] += 1;
        pass.used += u64::from(used);
        BLOCK_COST
    }

    fn choose_block(&self, pass: &mut Compaction, block: u32, step: usize, mut rest: u32) -> usize {
        if block >= self.pool.shape.blocks {
            pass.stage = Stage::Move { slot: 0, round: 0 };
            return 0;
        }
        let shard = self.shard_of(block);
        let present = self.pool.pfn(block).is_some();
        if present {
            let here = Compaction::step(self.pool.used(block), self.pool.shape.places());
            if here < step || here == step && rest > 0 {
                rest -= u32::from(here == step);
                shard.condemn(&self.pool, &self.limit, block);
            } else {
                // Of an earlier pass that was dropped.
                shard.spare(&self.pool, &self.limit, block);
            }
        }
        pass.stage = Stage::Choose { block: block + 1, step, rest };
        if present { BLOCK_COST } else { ENTRY_COST }
    }

    fn spare_block(&self, pass: &mut Compaction, block: u32) -> usize {
        if block >= self.pool.shape.blocks {
            pass.stage = Stage::Done;
            return 0;
        }
        pass.stage = Stage::Spare { block: block + 1 };
        if self.pool.pfn(block).is_some() {
            self.shard_of(block).spare(&self.pool, &self.limit, block);
        }
        ENTRY_COST
    }

    /// Moves a pinned object into a hole elsewhere. Returns its bytes, or `None` if it stays where it is.
    fn relocate(&self, home: usize, pin: Pin<'_, 'm, P>, ceiling: u32) -> Option<usize> {
        let moved = self.copy_elsewhere(home, pin.entry(), &pin, ceiling);
        let moved = match moved {
            Some(new) => pin.replace(new).map_err(|(pin, new)| (pin, new.into_claim())),
            None => Err((pin, None)),
        };
        match moved {
            Ok((entry, old)) => {
                self.release(old);
                Some(self.pool.shape.spanned(entry))
            }
            Err((pin, unused)) => {
                unused.into_iter().for_each(|claim| self.release(claim));
                self.unpin(pin);
                None
            }
        }
    }

    fn copy_elsewhere(
        &self,
        home: usize,
        entry: Entry,
        pin: &Pin<'_, 'm, P>,
        ceiling: u32,
    ) -> Option<super::pool::New> {
        let (tag, granules) = (entry.tag()?, self.pool.shape.covered(entry));
        let hole = self.place(home, granules, Growth::Never);
        // What fits no hole may go to a new block, as long as the pass stays near where it began: blocks will be given
        // back for it.
        let claim = match hole {
            None if self.blocks() < ceiling => self.place(home, granules, Growth::Fresh)?,
            hole => hole?,
        };
        let len = entry.len(self.page_size());
        let mut claim = Some(claim);
        let new = pin.read(|old| {
            self.pool
                .object(claim.take()?, tag, len, entry.age(), |place| {
                    place.copy_from_slice(old.bytes());
                    // Not made anew: what was damaged stays damaged.
                    old.sum().unwrap_or(0)
                })
                .map_err(|unused| claim = Some(unused))
                .ok()
        });
        claim.into_iter().for_each(|claim| self.release(claim));
        new.flatten()
    }
}
