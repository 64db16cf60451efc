//! Policies of ranges of pages: of an address space, or of a shared object.

use core::fmt;
use core::ops::Range;

/// A range of pages and what was set on it; a slot of [`Ranges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEntry<P> {
    start: u64,
    end: u64,
    value: P,
}

impl<P: Copy> RangeEntry<P> {
    /// The pages.
    pub const fn pages(&self) -> Range<u64> {
        self.start..self.end
    }

    /// What was set on them.
    pub const fn value(&self) -> P {
        self.value
    }
}

/// Values set on ranges of pages, on slots that the caller supplies.
///
/// Pages are numbered as the host likes: by virtual page number for an address space, by offset for an object. `P` is a
/// [`Policy`](super::Policy), a reference to one or the host's own handle. Setting costs time linear in the number of
/// entries, looking up logarithmic. Neighbours that are set to equal values are one entry.
///
/// ```
/// use pnode_core::policy::Ranges;
///
/// let mut slots = [None; 8];
/// let mut ranges = Ranges::new(&mut slots);
/// ranges.set(0..100, Some('a'))?;
/// ranges.set(40..60, None)?;                                  // back to the task's policy
/// assert_eq!((ranges.get(39), ranges.get(40), ranges.get(60)), (Some('a'), None, Some('a')));
/// # Ok::<(), pnode_core::policy::RangesError>(())
/// ```
///
/// # Invariants
///
/// - **E1** the first `len` slots are taken, in rising order, and do not overlap; no entry is empty.
/// - **E2** entries that touch had different values when the later one was set; [`Ranges::values_mut`] may make them
///   equal since.
#[derive(Debug)]
pub struct Ranges<'s, P> {
    slots: &'s mut [Option<RangeEntry<P>>],
    len: usize,
}

impl<'s, P: Copy + PartialEq> Ranges<'s, P> {
    /// No values; what the slots held is dropped.
    pub fn new(slots: &'s mut [Option<RangeEntry<P>>]) -> Self {
        slots.fill(None);
        Self { slots, len: 0 }
    }

    /// What is set on `page`.
    pub fn get(&self, page: u64) -> Option<P> {
        let index = self.ending_after(page);
        self.entry(index).filter(|entry| entry.start <= page).map(|entry| entry.value)
    }

    /// Sets `value` on `pages`, or takes away what is set there for `None`. Entries that are hit in part are split.
    ///
    /// # Errors
    ///
    /// [`RangesError`]; nothing has changed then.
    pub fn set(&mut self, pages: Range<u64>, value: Option<P>) -> Result<(), RangesError> {
        let Range { start, end } = pages;
        if start >= end {
            return Err(RangesError::Empty { start, end });
        }
        // The entries that are replaced: all that overlap, and their equal neighbours.
        let mut first = self.ending_after(start);
        let mut next = first + self.taken().iter().skip(first).take_while(|e| starts_before(e, end)).count();
        let mut middle = value.map(|value| RangeEntry { start, end, value });
        let cut = |entry: Option<RangeEntry<P>>, start: u64, end: u64| {
            entry.map(|entry| RangeEntry { start, end, ..entry }).filter(|entry| entry.start < entry.end)
        };
        let overlapped = |index: usize| self.entry(index).filter(|_| first < next);
        let mut left = cut(overlapped(first), overlapped(first).map_or(0, |entry| entry.start), start);
        let mut right = cut(
            overlapped(next.wrapping_sub(1)),
            end,
            overlapped(next.wrapping_sub(1)).map_or(0, |entry| entry.end),
        );
        if let Some(middle) = &mut middle {
            let before = left.or_else(|| self.entry(first.wrapping_sub(1)));
            if let Some(entry) = before.filter(|entry| entry.end == start && entry.value == middle.value) {
                first -= usize::from(left.take().is_none());
                middle.start = entry.start;
            }
            let after = right.or_else(|| self.entry(next));
            if let Some(entry) = after.filter(|entry| entry.start == end && entry.value == middle.value) {
                next += usize::from(right.take().is_none());
                middle.end = entry.end;
            }
        }
        let pieces = [left, middle, right];
        let count = pieces.iter().flatten().count();
        let len = self.len - (next - first) + count;
        if len > self.slots.len() {
            return Err(RangesError::Full { slots: self.slots.len(), wanted: len });
        }
        self.slots.copy_within(next..self.len, first + count);
        // INVARIANT: E1 and E2: the pieces are in order, lie where the entries from `first` to `next` lay, and were
        // merged with equal neighbours.
        for (slot, piece) in self.slots.iter_mut().skip(first).zip(pieces.into_iter().flatten()) {
            *slot = Some(piece);
        }
        self.slots.iter_mut().take(self.len).skip(len).for_each(|slot| *slot = None);
        self.len = len;
        Ok(())
    }

    /// The entries, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = RangeEntry<P>> + '_ {
        self.taken().iter().copied().flatten()
    }

    /// Every value, to be changed in place: for rebinding. Neighbours that become equal stay apart.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut P> + '_ {
        self.slots.iter_mut().take(self.len).flatten().map(|entry| &mut entry.value)
    }

    fn taken(&self) -> &[Option<RangeEntry<P>>] {
        self.slots.get(..self.len).unwrap_or_default()
    }

    fn entry(&self, index: usize) -> Option<RangeEntry<P>> {
        self.taken().get(index).copied().flatten()
    }

    /// The index of the first entry that ends after `page`.
    fn ending_after(&self, page: u64) -> usize {
        self.taken().partition_point(|slot| slot.as_ref().is_some_and(|entry| entry.end <= page))
    }
}

fn starts_before<P>(slot: &Option<RangeEntry<P>>, page: u64) -> bool {
    slot.as_ref().is_some_and(|entry| entry.start < page)
}

/// Why a value cannot be set on a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangesError {
    /// The range holds no page.
    Empty {
        /// Its first page.
        start: u64,
        /// The page behind its last.
        end: u64,
    },
    /// There are not enough slots.
    Full {
        /// How many there are.
        slots: usize,
        /// How many this takes.
        wanted: usize,
    },
}

impl fmt::Display for RangesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { start, end } => write!(f, "the range from page {start} to page {end} is empty"),
            Self::Full { slots, wanted } => {
                write!(f, "this takes {wanted} ranges and there are {slots} slots")
            }
        }
    }
}

impl core::error::Error for RangesError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// What every page holds, written down page by page.
    fn pages(model: &[Option<u8>]) -> Vec<(u64, u64, u8)> {
        let mut entries: Vec<(u64, u64, u8)> = Vec::new();
        for (page, value) in model.iter().enumerate() {
            let page = page as u64;
            match (value, entries.last_mut()) {
                (Some(value), Some(last)) if last.1 == page && last.2 == *value => last.1 += 1,
                (Some(value), _) => entries.push((page, page + 1, *value)),
                (None, _) => {}
            }
        }
        entries
    }

    proptest! {
        #[test]
        fn agrees_with_a_page_by_page_model(
            slots in 0usize..6,
            steps in prop::collection::vec((0u64..12, 0u64..12, prop::option::of(0u8..2)), 1..40),
        ) {
            let mut storage = std::vec![None; slots];
            let mut ranges = Ranges::new(&mut storage);
            let mut model = [None; 12];
            for (start, end, value) in steps {
                let mut wanted = model;
                let result = ranges.set(start..end, value);
                if start >= end {
                    prop_assert_eq!(result, Err(RangesError::Empty { start, end }));
                } else {
                    wanted[start as usize..end as usize].fill(value);
                    let needed = pages(&wanted).len();
                    if needed > slots {
                        prop_assert_eq!(result, Err(RangesError::Full { slots, wanted: needed }));
                    } else {
                        prop_assert_eq!(result, Ok(()));
                        model = wanted;
                    }
                }
                let entries: Vec<_> = ranges.iter().map(|e| (e.start, e.end, e.value)).collect();
                prop_assert_eq!(entries, pages(&model));
                for page in 0..13 {
                    prop_assert_eq!(ranges.get(page), model.get(page as usize).copied().flatten());
                }
            }
        }
    }
}
