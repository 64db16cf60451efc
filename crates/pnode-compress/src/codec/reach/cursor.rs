//! The quick encoder's search: a place in a page, and the last position of each hash.

use super::access::load;
use super::hash;

/// A page has this many bytes from a place on where a search goes on.
const REACH: usize = 24;
/// How many positions are probed from one load.
const PROBES: usize = 3;
/// How many bytes before a match are compared with those before its source.
const BEHIND: usize = 8;
/// Positions in a row without a match before positions are left out.
const PATIENCE: usize = 64;

/// A place in a page, the bytes there, and a table of earlier positions.
///
/// # Invariants
///
/// - **C1** `last + REACH = page.len()`, `2 <= last`, and `page.len() <= 65,536`.
/// - **C2** Each slot is at most `last + PROBES - 1`.
pub(in crate::codec) struct Cursor<'p, 's, const HASHED: usize> {
    page: &'p [u8],
    slots: &'s mut [u16; 4096],
    last: usize,
    at: usize,
    /// The 8 bytes at `at`.
    word: u64,
}

/// A match of 4 bytes or more.
pub(in crate::codec) struct Found {
    /// Where it starts.
    pub(in crate::codec) at: usize,
    /// How far back its source is.
    pub(in crate::codec) distance: usize,
    /// The bytes after the first 4: of the match, and as differences from its source.
    next: u64,
    later: u64,
    differ: u64,
}

impl Found {
    /// By how much a match of fewer than 12 bytes is longer than 4, and the 8 bytes that follow it; `None` for a longer
    /// one.
    ///
    /// What follows is shifted out of bytes that are loaded already, not loaded from where the match ends: from one
    /// match to the next that is the longest chain of operations that wait for each other.
    #[inline(always)]
    pub(in crate::codec) fn short(&self) -> Option<(usize, u64)> {
        if self.differ == 0 {
            return None;
        }
        let zeros = self.differ.trailing_zeros();
        let bits = zeros & 56;
        // Two shifts that no compiler makes into one of both words, which is slow where it exists.
        Some((zeros as usize / 8, self.next >> bits | self.later << 8 << (56 - bits)))
    }
}

impl<'p, 's, const HASHED: usize> Cursor<'p, 's, HASHED> {
    /// The first place that a search looks at; `None` if the page has fewer than 26 bytes or more than 65,536.
    #[inline(always)]
    pub(in crate::codec) fn new(page: &'p [u8], slots: &'s mut [u16; 4096]) -> Option<Self> {
        let last = page.len().checked_sub(REACH)?;
        if last < 2 || page.len() > 1 << 16 {
            return None;
        }
        slots.fill(0);
        // INVARIANT: C1: just tested. C2: 0.
        let mut cursor = Self { page, slots, last, at: 0, word: 0 };
        cursor.go(2);
        Some(cursor)
    }

    /// Goes on from a place in the page.
    #[inline(always)]
    pub(in crate::codec) fn go(&mut self, at: usize) {
        self.at = at;
        if at <= self.last {
            // REACH: C1.
            self.word = load!(u64, self.page, at);
        }
    }

    /// Goes on from a place where the bytes are `word`.
    #[inline(always)]
    pub(in crate::codec) fn go_onto(&mut self, at: usize, word: u64) {
        (self.at, self.word) = (at, word);
    }

    /// The 16 bytes from `from` on, up to 8 bytes before the end of the page.
    #[inline(always)]
    pub(in crate::codec) fn run(&self, from: usize) -> Option<&[u8; 16]> {
        // No overflow, and in the page, by C1.
        if from <= self.last { self.page[from..].first_chunk() } else { None }
    }

    /// Remembers `position`, where the bytes are `word`; returns the one of the same hash before, and whether 4 bytes are
    /// the same there.
    #[inline(always)]
    fn probe(&mut self, word: u64, position: usize) -> (usize, bool) {
        debug_assert!(position < self.last + PROBES);
        let slot = hash::<HASHED, 12>(word);
        // INVARIANT: C2: callers have tested `position`.
        let from = usize::from(core::mem::replace(&mut self.slots[slot], position as u16));
        // REACH: C2, as REACH - PROBES is at least 4.
        (from, load!(u32, self.page, from) == word as u32)
    }

    /// The next match from the cursor on, or the place out of reach where the cursor went.
    #[inline(always)]
    pub(in crate::codec) fn search(&mut self) -> Result<Found, usize> {
        let last = self.last;
        let (mut at, mut word) = (self.at, self.word);
        let from = 'found: {
            if at < 2 || at > last {
                return Err(at);
            }
            // What was skipped by a match is remembered by its end. REACH: just tested.
            let behind = load!(u64, self.page, at - 2);
            self.probe(behind, at - 2);
            for _ in 0..PATIENCE / PROBES {
                let (from, same) = self.probe(word, at);
                if same {
                    break 'found from;
                }
                let (from, same) = self.probe(word >> 8, at + 1);
                if same {
                    at += 1;
                    break 'found from;
                }
                let (from, same) = self.probe(word >> 16, at + 2);
                if same {
                    at += 2;
                    break 'found from;
                }
                at += PROBES;
                if at > last {
                    return Err(at);
                }
                // REACH: just tested.
                word = load!(u64, self.page, at);
            }
            // A long run without a match is most likely noise, which is left behind at a growing pace.
            let mut misses = 2 * PATIENCE;
            loop {
                let (from, same) = self.probe(word, at);
                if same {
                    break 'found from;
                }
                at += misses / PATIENCE;
                misses += misses / PATIENCE;
                if at > last {
                    return Err(at);
                }
                // REACH: just tested.
                word = load!(u64, self.page, at);
            }
        };
        // Here `at < last + PROBES` and, by C2, `from < last + PROBES`.
        const { assert!(4 + 8 + 8 <= REACH - PROBES + 1) };
        // REACH: here and below, as said above, 20 bytes are in reach.
        let (next, later) = (load!(u64, self.page, at + 4), load!(u64, self.page, at + 12));
        // REACH: as above.
        let differ = next ^ load!(u64, self.page, from + 4);
        Ok(Found { at, distance: at.wrapping_sub(from), next, later, differ })
    }

    /// How many bytes before a match are the same too, 7 at the most.
    ///
    /// Without a branch but one that is always taken after the first bytes of a page: nothing predicts when there are any.
    #[inline(always)]
    pub(in crate::codec) fn behind(&self, found: &Found) -> usize {
        let (at, from) = (found.at, found.at.wrapping_sub(found.distance));
        if from < BEHIND || from >= at || at > self.last + REACH {
            return 0;
        }
        // REACH: just tested, by C1.
        let before = load!(u64, self.page, at - BEHIND) ^ load!(u64, self.page, from - BEHIND);
        (before | 1).leading_zeros() as usize / 8
    }

    /// The position remembered for the hash of `word`.
    #[inline]
    pub(in crate::codec) fn earlier(&self, word: u64) -> usize {
        usize::from(self.slots[hash::<HASHED, 12>(word)])
    }
}

/// Where a match ends that is the same up to `stop`: `limit` at the most, which is in the page.
#[inline]
pub(in crate::codec) fn match_end(page: &[u8], mut stop: usize, distance: usize, limit: usize) -> usize {
    let limit = limit.min(page.len());
    if distance > stop {
        return stop;
    }
    while stop + 8 <= limit {
        // REACH: just tested, as `distance <= stop`.
        let differ = load!(u64, page, stop) ^ load!(u64, page, stop - distance);
        if differ != 0 {
            return stop + differ.trailing_zeros() as usize / 8;
        }
        stop += 8;
    }
    while stop < limit && page[stop] == page[stop - distance] {
        stop += 1;
    }
    stop.min(limit)
}

/// How long a match at `at` is, whose first 8 bytes differ by `differ` from those `distance` before; up to `limit`.
#[inline(always)]
pub(in crate::codec) fn match_length(
    page: &[u8],
    at: usize,
    distance: usize,
    differ: u64,
    limit: usize,
) -> usize {
    match differ {
        0 => match_end(page, at + 8, distance, limit) - at,
        _ => differ.trailing_zeros() as usize / 8,
    }
}
