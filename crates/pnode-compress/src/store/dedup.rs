//! Deduplication: pages with the same object come to share one, found by a sweep that the host runs when it has time.
//!
//! A store never looks for an equal page; the sweep does, some bytes of work at a time, with an index that the host lends
//! it for as long as a pass takes. The checksum that lies behind each object finds the candidates, so that a page which
//! has no twin costs a look at one word. What the index proposes is compared byte by byte, both objects held, before
//! anything is shared: equal objects of one codec are equal pages. Pages that are equal but were encoded by different
//! codecs are not found until recompression has brought them together.
//!
//! The idea is that of kernel same-page merging (Arcangeli, Eidus and Wright, *Increasing memory density by using KSM*,
//! 2009) applied to what is compressed already, as the proposals for zram and zswap did (Joonsoo Kim, 2017; the *zram
//! deduplication* series, 2022), but never on the way of a store, which is what those were not merged for. The hash there is
//! paid by every page; here it is the checksum, which is there anyway.

use pnode_core::sync::RawLock;

use super::checksum::checksum;
use super::entry::{Entry, GRANULE, Kind};
use super::pool::{New, Pin};
use super::{Change, Checksums, Store};
use crate::memory::FrameMemory;

/// Places of the index where an object may be noted: a cache line of them.
const WAYS: usize = 8;

/// Words of the index that are cleared at a time.
const CLEARED: usize = 256;

/// What a look at an entry, and at a checksum in the pool, costs of a budget, in bytes that could have been compared.
const ENTRY_COST: usize = 4;
const LOOK_COST: usize = 64;

/// A pass of deduplication, which may be spread over many calls, and the index that it is lent.
///
/// A word of the index stands for one object. With twice as many words as the store has slots practically every object is
/// kept in mind; with fewer, old ones are forgotten and some twins of theirs not found in this pass. Without any, nothing
/// is found. A pass may be dropped at any time.
#[derive(Debug)]
pub struct Deduplication<'i> {
    index: &'i mut [u64],
    stage: Stage,
    /// The number that was taken last, plus one.
    number: u32,
    found: Deduplicated,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Clear { from: usize },
    Look { slot: u32 },
    Done,
}

/// How far a pass of deduplication has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Deduplicated {
    /// Objects that the pass has looked at.
    pub looked_at: u64,
    /// Pages whose object was given up for an equal one.
    pub merged: u64,
    /// Bytes that this freed in the pool.
    pub saved_bytes: u64,
    /// Pairs with the same checksum and other bytes.
    pub unequal: u64,
    /// Equal pairs that stay apart because all of [`super::Config::shared`]'s objects are in use.
    pub no_number: u64,
    /// Objects whose bytes do not have their checksum. They are not shared; loading their pages says what is wrong.
    pub damaged: u64,
    /// Whether the pass is over: another call would do nothing.
    pub done: bool,
}

impl<'i> Deduplication<'i> {
    /// A pass that has not begun, with an index; what that holds does not matter.
    pub fn new(index: &'i mut [u64]) -> Self {
        let stage = if index.is_empty() { Stage::Done } else { Stage::Clear { from: 0 } };
        Self { index, stage, number: 0, found: Deduplicated::default() }
    }

    /// The places where an object with this key may be noted.
    fn places(&mut self, key: u64) -> &mut [u64] {
        let ways = self.index.len().min(WAYS);
        let sets = self.index.len() / ways;
        // The key's upper half is well mixed, and the product is below `sets`.
        let set = ((u128::from(mix(key)) * sets as u128) >> 64) as usize;
        &mut self.index[set * ways..(set + 1) * ways]
    }

    /// Notes that the page in `slot` has this key. Returns a page that had it before.
    fn note(&mut self, key: u64, slot: u32) -> Option<u32> {
        let print = mix(key) << 32;
        let places = self.places(key);
        let word = print | (u64::from(slot) + 1);
        if let Some(place) = places.iter_mut().find(|place| **place != 0 && **place >> 32 << 32 == print) {
            let other = (*place as u32).wrapping_sub(1);
            return (other != slot).then_some(other);
        }
        let free = places.iter().position(|place| *place == 0).unwrap_or(slot as usize % places.len());
        places[free] = word;
        None
    }

    /// Puts `slot` in the place of the page that has this key.
    fn renote(&mut self, key: u64, slot: u32) {
        let print = mix(key) << 32;
        if let Some(place) = self.places(key).iter_mut().find(|place| **place >> 32 << 32 == print) {
            *place = print | (u64::from(slot) + 1);
        }
    }
}

/// Spreads a key over all bits: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) fn mix(key: u64) -> u64 {
    let mixed = (key ^ key >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// What became of a pair that the index proposed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Merged {
    /// The later page is the earlier one's object now, and this many granules are free.
    Done(u32),
    /// They are one object already.
    Already,
    /// They have other bytes.
    Unequal,
    /// The earlier page is not there any more, or is being read.
    Gone,
    /// No number is left for them.
    NoNumber,
    /// One of them is in use just now.
    Busy,
    Damaged,
}

impl<'m, P: FrameMemory, L: RawLock> Store<'m, P, L> {
    /// Goes on with a pass of deduplication until about `budget` bytes were looked at, or the pass is over. Pages with
    /// equal objects share one from then on, until they are replaced or removed.
    ///
    /// Everything else may go on meanwhile. Pages that are being read stay as they are. Nothing is read as younger or older for having
    /// been looked at.
    ///
    /// ```
    /// # use pnode_compress::codec::Scratch;
    /// # use pnode_compress::memory::{BufferFrames, PageBytes};
    /// # use pnode_compress::store::{Config, Deduplication, Shard, Slot, Store};
    /// # use pnode_core::sync::{AtomicU64, SpinLock};
    /// # let mut pages = vec![PageBytes::ZEROED; 64];
    /// # let mut taken = [AtomicU64::new(0)];
    /// let config = Config::new(100, 16).shared(50);
    /// # let mut words: Vec<AtomicU64> = (0..config.words()?).map(|_| AtomicU64::new(0)).collect();
    /// # let mut shards: [Shard<SpinLock>; 1] = [Shard::new()];
    /// # let store = Store::new(config, BufferFrames::new(&mut pages, &mut taken)?, &mut words, &mut shards)?;
    /// # let (mut scratch, mut buffer) = (Scratch::new(), [0; 4096]);
    /// let mut worker = store.worker(0, &mut scratch, &mut buffer)?;
    /// let page = [*b"a line in a log\n"; 256].concat();
    /// (0..3).try_for_each(|slot| worker.store(Slot::new(slot), &page).map(drop))?;
    ///
    /// let mut index = [0; 200];
    /// let mut pass = Deduplication::new(&mut index);
    /// while !store.deduplicate(&mut pass, 4096).done {}
    /// assert_eq!((store.stats().shared_pages, store.stats().shared_objects), (3, 1));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn deduplicate(&self, pass: &mut Deduplication<'_>, budget: usize) -> Deduplicated {
        let mut left = budget.max(1);
        while left > 0 {
            let cost = match pass.stage {
                Stage::Clear { from } => {
                    let end = pass.index.len().min(from + CLEARED);
                    pass.index[from..end].fill(0);
                    let over = end == pass.index.len();
                    pass.stage = if over { Stage::Look { slot: 0 } } else { Stage::Clear { from: end } };
                    8 * (end - from)
                }
                Stage::Look { slot } if slot < self.slots() => {
                    pass.stage = Stage::Look { slot: slot + 1 };
                    self.look_for_twin(pass, slot)
                }
                Stage::Look { .. } => {
                    pass.stage = Stage::Done;
                    0
                }
                Stage::Done => break,
            };
            left = left.saturating_sub(cost);
        }
        pass.found.done = matches!(pass.stage, Stage::Done);
        pass.found
    }

    /// Looks at one page. Returns what that cost.
    fn look_for_twin(&self, pass: &mut Deduplication<'_>, slot: u32) -> usize {
        let Some((entry, pin)) = self.pin_quietly(slot) else { return ENTRY_COST };
        let key = self.key(&pin);
        self.unpin(pin);
        let Some(key) = key else { return ENTRY_COST };
        pass.found.looked_at += 1;
        let cost = ENTRY_COST
            + if self.pool.shape.checksums == Checksums::On {
                LOOK_COST
            } else {
                entry.len(self.page_size())
            };
        let Some(earlier) = pass.note(key, slot) else { return cost };
        match self.merge(pass, earlier, slot) {
            Merged::Done(granules) => {
                pass.found.merged += 1;
                pass.found.saved_bytes += u64::from(granules) * GRANULE as u64;
            }
            Merged::Already | Merged::Busy => {}
            Merged::Unequal => {
                pass.found.unequal += 1;
                pass.renote(key, slot);
            }
            // The one that is known to be there is the better one to know.
            Merged::Gone => pass.renote(key, slot),
            Merged::NoNumber => pass.found.no_number += 1,
            Merged::Damaged => pass.found.damaged += 1,
        }
        cost + 2 * entry.len(self.page_size())
    }

    /// Pins the object of a page, its own or a shared one, and leaves its age alone. With the page's entry.
    fn pin_quietly(&self, slot: u32) -> Option<(Entry, Pin<'_, 'm, P>)> {
        let entry = self.pool.page(slot)?;
        match entry.kind() {
            Kind::Object if entry.readers() == 0 => {
                Some((entry, self.pool.pin(slot, entry, entry.age()).ok()?))
            }
            Kind::Shared(_) => Some((entry, self.pin_named(slot, entry, None).ok()?)),
            _ => None,
        }
    }

    /// What objects of equal pages have in common: the checksum, the length, the tag.
    fn key(&self, pin: &Pin<'_, 'm, P>) -> Option<u64> {
        let entry = pin.entry();
        let sum = pin.read(|object| object.sum().unwrap_or_else(|| checksum(object.bytes())))?;
        Some(
            u64::from(sum) << 32
                | (entry.len(self.page_size()) as u64) << 8
                | u64::from(entry.tag()?.to_byte()),
        )
    }

    /// Makes the page in `slot` the object of the page in `earlier`, if they are equal.
    fn merge(&self, pass: &mut Deduplication<'_>, earlier: u32, slot: u32) -> Merged {
        let Some((first, one)) = self.pin_quietly(earlier) else { return Merged::Gone };
        let Some((second, other)) = self.pin_quietly(slot) else {
            self.unpin(one);
            return Merged::Busy;
        };
        let verdict =
            if one.index() == other.index() { Err(Merged::Already) } else { self.compare(&one, &other) };
        if let Err(verdict) = verdict {
            self.unpin(one);
            self.unpin(other);
            return verdict;
        }
        match (first.kind(), second.kind()) {
            (Kind::Shared(number), _) => {
                let joined = self.join(number, slot, second, other);
                self.unpin(one);
                joined
            }
            (_, Kind::Shared(number)) => {
                let joined = self.join(number, earlier, first, one);
                self.unpin(other);
                joined
            }
            _ => {
                // Whichever way this ends, the first page's object stays what it is while it is pinned.
                let (one, number) = match self.found_number(pass, one) {
                    Ok(shared) => shared,
                    Err((one, why)) => {
                        self.unpin(one);
                        self.unpin(other);
                        return why;
                    }
                };
                let joined = self.join(number, slot, second, other);
                self.unpin(one);
                joined
            }
        }
    }

    /// Whether two pinned objects are the same, byte by byte, and undamaged.
    fn compare(&self, one: &Pin<'_, 'm, P>, other: &Pin<'_, 'm, P>) -> Result<(), Merged> {
        if self.key(one) != self.key(other) {
            // It is another page by now.
            return Err(Merged::Gone);
        }
        let compared = one.read(|left| {
            let Some(left) = left.verified() else { return Err(Merged::Damaged) };
            match other.read(|right| left == right.bytes()) {
                Some(true) => Ok(()),
                _ => Err(Merged::Unequal),
            }
        });
        compared.unwrap_or(Err(Merged::Unequal))
    }

    /// Moves a pinned page's object to a number of its own, which only that page names so far.
    fn found_number<'p>(
        &self,
        pass: &mut Deduplication<'_>,
        pin: Pin<'p, 'm, P>,
    ) -> Result<(Pin<'p, 'm, P>, u32), (Pin<'p, 'm, P>, Merged)> {
        if pass.number == u32::MAX {
            return Err((pin, Merged::NoNumber));
        }
        let Some(number) = self.pool.take_number(pass.number) else {
            // Not asked again in this pass: to find none is a look at all of them.
            pass.number = u32::MAX;
            return Err((pin, Merged::NoNumber));
        };
        pass.number = number + 1;
        match pin.share(number) {
            Ok(pin) => {
                let was_own = Change { objects: u64::MAX, sharing: 1, shared: 1, ..Change::NONE };
                self.count(self.home_of(pin.entry()), was_own);
                if self.pool.made(number) {
                    // The page has gone meanwhile, and nobody else knows the number: taken out once the pin ends.
                    self.take_object_out(number);
                    return Err((pin, Merged::Busy));
                }
                Ok((pin, number))
            }
            Err(pin) => {
                self.pool.unmake(number);
                Err((pin, Merged::Busy))
            }
        }
    }

    /// Makes the page in `slot`, whose entry is `named` and whose object is pinned, name `number`, whose equal object is
    /// pinned by the caller.
    fn join(&self, number: u32, slot: u32, named: Entry, pin: Pin<'_, 'm, P>) -> Merged {
        if !self.pool.join(number) {
            self.unpin(pin);
            return Merged::Busy;
        }
        let granules = self.pool.shape.covered(pin.entry());
        let joined = match named.kind() {
            Kind::Shared(old) => {
                let replaced = self.pool.replace(slot, named, New::shared(number));
                self.unpin(pin);
                replaced.is_ok().then(|| if self.leave(old) { granules } else { 0 })
            }
            _ => match pin.replace(New::shared(number)) {
                Ok((old, claim)) => {
                    self.recount(self.home_of(old), old, Entry::shared(number));
                    self.release(claim);
                    Some(granules)
                }
                Err((pin, _)) => {
                    self.unpin(pin);
                    None
                }
            },
        };
        match joined {
            Some(granules) => Merged::Done(granules),
            None => {
                self.leave(number);
                Merged::Busy
            }
        }
    }
}
