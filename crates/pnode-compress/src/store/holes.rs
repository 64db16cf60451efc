//! Holes of a block, read off its bitmap: one bit a granule, set while the granule is held.

/// What a look at a block's bitmap found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Holes {
    /// The smallest hole of at least the wanted granules: where it starts, and how many granules it has.
    pub(crate) best: Option<(u32, u32)>,
    /// The largest hole, in granules.
    pub(crate) largest: u32,
    /// The largest hole but for the one in `largest`; as large as that if there are two of its size.
    second: u32,
}

impl Holes {
    /// The one hole of a block of `places` granules that are all free.
    pub(crate) fn whole(places: u32) -> Self {
        Self { best: Some((0, places)), largest: places, second: 0 }
    }

    /// The holes of a bitmap, of which those of at least `want` granules are candidates for `best`.
    #[inline]
    pub(crate) fn find(words: impl Iterator<Item = u64>, want: u32) -> Self {
        let mut search = Search { want, best: NO_HOLE, holes: Self::default() };
        // Before the first granule all counts as held, so that every hole has a first and a last edge.
        let (mut before, mut start, mut base) = (1, None, 0);
        for word in words {
            let mut edges = word ^ (word << 1 | before);
            before = word >> 63;
            while edges != 0 {
                let at = base + edges.trailing_zeros();
                edges &= edges - 1;
                start = match start {
                    None => Some(at),
                    Some(start) => {
                        search.add(start, at - start);
                        None
                    }
                };
            }
            base += 64;
        }
        if let Some(start) = start {
            search.add(start, base - start);
        }
        search.finish()
    }

    /// The largest hole that is left once `taken` granules of `best` are held.
    pub(crate) fn largest_after(&self, taken: u32) -> u32 {
        match self.best {
            Some((_, best)) if best == self.largest => self.second.max(best - taken),
            _ => self.largest,
        }
    }
}

/// Longer than any hole.
const NO_HOLE: (u32, u32) = (0, u32::MAX);

/// A walk over the holes. Each step goes without a branch: whether a hole is better than the last is anybody's guess.
struct Search {
    want: u32,
    best: (u32, u32),
    holes: Holes,
}

impl Search {
    #[inline(always)]
    fn add(&mut self, start: u32, granules: u32) {
        let Holes { largest, second, .. } = &mut self.holes;
        *second = (*second).max((*largest).min(granules));
        *largest = (*largest).max(granules);
        let better = granules >= self.want && granules < self.best.1;
        self.best = if better { (start, granules) } else { self.best };
    }

    #[inline(always)]
    fn finish(self) -> Holes {
        Holes { best: (self.best != NO_HOLE).then_some(self.best), ..self.holes }
    }
}

/// The part of a run of granules that lies in one bitmap word: the word's index and the mask.
pub(crate) fn masks(first: u32, granules: u32) -> impl Iterator<Item = (u32, u64)> + Clone {
    let (mut word, mut low, mut left) = (first / 64, first % 64, granules);
    core::iter::from_fn(move || {
        let here = left.min(64 - low);
        let mask = u64::MAX.checked_shr(64 - here)? << low;
        let found = (word, mask);
        (word, low, left) = (word + 1, 0, left - here);
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn naive(words: &[u64], want: u32) -> (Option<u32>, Vec<u32>) {
        let mut runs = Vec::new();
        let mut run = 0;
        for bit in 0..words.len() * 64 {
            if words[bit / 64] >> (bit % 64) & 1 == 0 {
                run += 1;
            } else if run > 0 {
                runs.push(run);
                run = 0;
            }
        }
        if run > 0 {
            runs.push(run);
        }
        runs.sort_unstable();
        (runs.iter().copied().find(|&run| run >= want), runs)
    }

    #[test]
    fn holes_agree_with_a_bit_by_bit_walk() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.rotate_left(31)
        };
        for round in 0..4000 {
            let words: Vec<u64> = (0..8)
                .map(|_| match round % 4 {
                    0 => next(),
                    1 => next() & next() & next(),
                    2 => next() | next() | next(),
                    _ => [0, u64::MAX, next(), !0 << (next() % 64)][(next() % 4) as usize],
                })
                .collect();
            for want in [0, 1, 2, 5, 17, 63, 64, 65, 129, 512] {
                let found = Holes::find(words.iter().copied(), want);
                let (best, mut runs) = naive(&words, want);
                assert_eq!(found.best.map(|best| best.1), best, "{words:x?} {want}");
                assert_eq!(found.largest, runs.last().copied().unwrap_or(0), "{words:x?}");
                if let Some((start, granules)) = found.best {
                    let free = masks(start, granules).all(|(word, mask)| words[word as usize] & mask == 0);
                    assert!(free, "{words:x?}: {start}+{granules}");
                    let taken = want.min(granules);
                    let at = runs.iter().position(|&run| run == granules).unwrap();
                    runs[at] -= taken;
                    assert_eq!(found.largest_after(taken), *runs.iter().max().unwrap(), "{words:x?} {want}");
                }
            }
        }
    }

    #[test]
    fn masks_cover_each_granule_once() {
        for first in [0, 1, 63, 64, 100] {
            for granules in [1, 2, 63, 64, 65, 128, 200] {
                let mut seen = Vec::new();
                for (word, mask) in masks(first, granules) {
                    seen.extend((0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| word * 64 + bit));
                }
                assert_eq!(seen, (first..first + granules).collect::<Vec<_>>());
            }
        }
    }
}
