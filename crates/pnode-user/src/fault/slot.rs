//! What stands at each page of a view, and how many mappings of the kernel that takes.

use core::ops::Range;

use super::Protection;

/// What stands at one page of a view. Two pages that [continue](Slot::is_continued_by) each other share one mapping
/// of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Nothing; touches trap.
    Absent(Trap),
    /// Frame `frame` of the memory file `file`, in a mapping that shows all its pages.
    Mapped { file: i32, frame: u64, protection: Protection, trap: Trap },
    /// Frame `frame` of the memory file `file`, in a mapping under userfaultfd that shows a page only if it was made
    /// present.
    Laid { file: i32, frame: u64, shown: Option<Protection> },
}

/// How a touch that is not admitted reaches us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trap {
    Signal,
    Event,
}

impl Slot {
    fn is_continued_by(self, next: Self) -> bool {
        match (self, next) {
            (Self::Mapped { file, frame, protection, trap }, next) => {
                next == Self::Mapped { file, frame: frame + 1, protection, trap }
            }
            (Self::Laid { file, frame, .. }, Self::Laid { file: next_file, frame: next_frame, .. }) => {
                (next_file, next_frame) == (file, frame + 1)
            }
            (Self::Laid { .. }, _) => false,
            (absent, next) => absent == next,
        }
    }

    /// Whether a mapping of a file is there.
    pub(super) const fn has_mapping(&self) -> bool {
        !matches!(self, Self::Absent(_))
    }

    /// Whether no program sees a frame there.
    pub(super) const fn shows_nothing(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::Laid { shown: None, .. })
    }
}

/// The slots of a view.
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// How many mappings the kernel keeps for them.
    mappings: usize,
    /// The page at which the search for mappings to give up goes on.
    hand: usize,
}

/// How many pages lose their mapping at a time.
const CHUNK: usize = 64;

impl Slots {
    /// `pages` pages without anything, or `None` if there is no memory for so many.
    pub(super) fn new(pages: usize) -> Option<Self> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(pages).ok()?;
        slots.resize(pages, Slot::Absent(Trap::Signal));
        Some(Self { slots, mappings: 1, hand: 0 })
    }

    pub(super) fn get(&self, page: usize) -> Option<Slot> {
        self.slots.get(page).copied()
    }

    pub(super) fn part(&self, pages: Range<usize>) -> &[Slot] {
        &self.slots[pages]
    }

    pub(super) const fn mappings(&self) -> usize {
        self.mappings
    }

    /// Says what stands at `count` pages from `page` on; gives back by how much that changed the number of mappings.
    pub(super) fn set(&mut self, page: usize, count: usize, slot: impl Fn(usize) -> Slot) -> isize {
        let around = page.saturating_sub(1)..(page + count + 1).min(self.slots.len());
        let breaks =
            |slots: &[Slot]| slots.windows(2).filter(|pair| !pair[0].is_continued_by(pair[1])).count();
        let before = breaks(&self.slots[around.clone()]);
        for (index, place) in self.slots[page..page + count].iter_mut().enumerate() {
            *place = slot(index);
        }
        let after = breaks(&self.slots[around]);
        self.mappings = self.mappings + after - before;
        after as isize - before as isize
    }

    /// Says what the pages of mappings that exist show from now on, which changes no mapping.
    pub(super) fn set_shown(&mut self, pages: Range<usize>, to: Option<Protection>) {
        for slot in &mut self.slots[pages] {
            if let Slot::Laid { shown, .. } = slot {
                *shown = to;
            }
        }
    }

    /// The runs of `pages` in which neighbours are alike by `same`.
    pub(super) fn runs(
        &self,
        pages: Range<usize>,
        same: impl Fn(&Slot, &Slot) -> bool,
    ) -> Vec<(Range<usize>, Slot)> {
        let mut start = pages.start;
        let run = |slots: &[Slot]| {
            let run = start..start + slots.len();
            start = run.end;
            (run, slots[0])
        };
        self.slots[pages].chunk_by(same).map(run).collect()
    }

    /// All pages in one mapping of the kernel with `page`.
    pub(super) fn mapping_around(&self, page: usize) -> Range<usize> {
        let continued = |index: &usize| self.slots[*index - 1].is_continued_by(self.slots[*index]);
        let start = (1..=page).rev().take_while(continued).last().map_or(page, |index| index - 1);
        let end = (page + 1..self.slots.len()).take_while(continued).last().map_or(page, |index| index);
        start..end + 1
    }

    /// The next pages that should lose their mapping, outside `keep`; `None` if nothing outside it has one.
    pub(super) fn next_to_give_up(&mut self, keep: &Range<usize>) -> Option<Range<usize>> {
        let pages = self.slots.len();
        for _ in 0..=pages / CHUNK {
            let start = if self.hand < pages { self.hand } else { 0 };
            let end = (start / CHUNK * CHUNK + CHUNK).min(pages);
            self.hand = end;
            let kept = start < keep.end && keep.start < end;
            if !kept && self.slots[start..end].iter().any(Slot::has_mapping) {
                return Some(start..end);
            }
        }
        None
    }
}
