//! What is where in the address space of a process: its areas, and the policies that count for them.

use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pnode_core::policy::Policy;
use pnode_core::{Mems, NodeId};

use super::super::object::Body;
use super::{Rights, Sharing};
use crate::fault::{FaultError, Protection};

/// A run of pages that was mapped.
#[derive(Clone, PartialEq)]
pub(super) struct Area {
    pub(super) end: usize,
    pub(super) rights: Rights,
    pub(super) policy: Policy,
    pub(super) grain: Grain,
    /// The object whose pages these are; `None` for anonymous memory.
    pub(super) object: Option<Attached>,
}

/// How large the mappings of an area may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    Page,
    Huge,
}

/// An object in an area.
#[derive(Clone)]
pub(super) struct Attached {
    pub(super) body: Arc<Body>,
    /// What is to be added to a page of the address space for the object's page, wrapping.
    pub(super) shift: usize,
    pub(super) sharing: Sharing,
}

impl PartialEq for Attached {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.body, &other.body) && (self.shift, self.sharing) == (other.shift, other.sharing)
    }
}

/// What counts for a process as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// The node of the CPU that it runs on.
    pub(super) cpu: NodeId,
    pub(super) policy: Policy,
    pub(super) mems: Mems,
}

/// The areas of a process by their first pages, and its task.
#[derive(Clone)]
pub(super) struct Table {
    areas: BTreeMap<usize, Area>,
    pub(super) task: Task,
}

/// The layout of an address space.
///
/// Faults read it while they hold a page; so whoever changes it takes no page while it is locked. Changes are made one at
/// a time.
pub(in super::super) struct Layout {
    table: RwLock<Table>,
    changing: Mutex<()>,
}

impl Layout {
    pub(super) fn new(table: Table) -> Self {
        Self { table: RwLock::new(table), changing: Mutex::new(()) }
    }

    pub(super) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nobody else change the layout meanwhile. Before every page.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of `run` is anonymous memory of one area that asks for huge mappings and may be written to.
    pub(in super::super) fn asks_for_huge(&self, run: &Range<usize>) -> bool {
        let asks = |area: &Area| {
            area.end >= run.end && area.grain == Grain::Huge && area.rights == Rights::ReadWrite
        };
        self.table().at(run.start).is_some_and(|(_, area)| area.object.is_none() && asks(&area))
    }

    /// What the program may do at `page`.
    pub(in super::super) fn admitted(&self, page: usize) -> Result<Protection, FaultError> {
        match self.table().at(page).map(|(_, area)| area.rights) {
            None | Some(Rights::None) => Err(FaultError::NotMapped),
            Some(Rights::Read) => Ok(Protection::ReadOnly),
            Some(Rights::ReadWrite) => Ok(Protection::ReadWrite),
        }
    }
}

impl Table {
    pub(super) const fn new(task: Task) -> Self {
        Self { areas: BTreeMap::new(), task }
    }

    /// The area that `page` is in, and its first page.
    pub(super) fn at(&self, page: usize) -> Option<(usize, Area)> {
        let (start, area) = self.areas.range(..=page).next_back()?;
        (page < area.end).then(|| (*start, area.clone()))
    }

    /// The parts of areas that lie in `pages`.
    pub(super) fn within(&self, pages: &Range<usize>) -> Vec<(Range<usize>, Area)> {
        let first = self.at(pages.start).map_or(pages.start, |(start, _)| start);
        let inside = |(start, area): (&usize, &Area)| {
            let part = (*start).max(pages.start)..area.end.min(pages.end);
            (!part.is_empty()).then(|| (part, area.clone()))
        };
        self.areas.range(first..pages.end.max(first)).filter_map(inside).collect()
    }

    /// All areas.
    pub(super) fn all(&self) -> impl Iterator<Item = (Range<usize>, Area)> + '_ {
        self.areas.iter().map(|(start, area)| (*start..area.end, area.clone()))
    }

    /// What stands at `page`: the object, its page, and how it is shared.
    pub(super) fn object_at(&self, page: usize) -> Option<(Arc<Body>, usize, Sharing)> {
        let (_, area) = self.at(page)?;
        let Attached { body, shift, sharing } = area.object?;
        Some((body, page.wrapping_add(shift), sharing))
    }

    pub(super) fn policies_mut(&mut self) -> impl Iterator<Item = &mut Policy> {
        self.areas.values_mut().map(|area| &mut area.policy).chain([&mut self.task.policy])
    }

    /// The first page of `pages` that no area has.
    pub(super) fn first_gap(&self, pages: &Range<usize>) -> Option<usize> {
        let mut next = pages.start;
        for (part, _) in self.within(pages) {
            if part.start > next {
                break;
            }
            next = part.end;
        }
        (next < pages.end).then_some(next)
    }

    /// The lowest run of `count` pages below `limit` that no area has.
    pub(super) fn find_room(&self, count: usize, limit: usize) -> Option<Range<usize>> {
        let mut start = 0_usize;
        for (area, _) in self.all() {
            if area.start - start >= count {
                break;
            }
            start = area.end;
        }
        let end = start.checked_add(count)?;
        (end <= limit).then_some(start..end)
    }

    /// Maps `pages` with the attributes of `area`, in place of what was there.
    pub(super) fn set(&mut self, pages: Range<usize>, area: Area) {
        self.clear(&pages);
        self.areas.insert(pages.start, Area { end: pages.end, ..area });
        self.join(pages.end);
        self.join(pages.start);
    }

    /// Maps nothing at `pages`.
    pub(super) fn clear(&mut self, pages: &Range<usize>) {
        for edge in [pages.start, pages.end] {
            if let Some((start, area)) = self.at(edge).filter(|(start, _)| *start < edge) {
                self.areas.insert(start, Area { end: edge, ..area.clone() });
                self.areas.insert(edge, area);
            }
        }
        let inside: Vec<usize> = self.areas.range(pages.clone()).map(|(start, _)| *start).collect();
        inside.iter().for_each(|start| {
            self.areas.remove(start);
        });
    }

    /// Makes one of two areas that touch at `edge` and are alike.
    fn join(&mut self, edge: usize) {
        let Some((before, left)) = self.areas.range(..edge).next_back() else { return };
        let Some(right) = self.areas.get(&edge) else { return };
        if left.end == edge && (Area { end: right.end, ..left.clone() }) == *right {
            let before = *before;
            if let Some(right) = self.areas.remove(&edge) {
                self.areas.insert(before, right);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeded changes, compared with one entry a page.
    #[test]
    fn the_table_is_that_of_single_pages() {
        const PAGES: usize = 24;
        let task = Task { cpu: NodeId::new(0).unwrap(), policy: Policy::DEFAULT, mems: Mems::UNRESTRICTED };
        let mut table = Table::new(task);
        let mut model = [None; PAGES];
        let mut seed = 7u64;
        println!("seed {seed}");
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        for step in 0..20_000 {
            let start = random(PAGES);
            let pages = start..start + 1 + random(PAGES - start);
            match random(4) {
                0 => {
                    table.clear(&pages);
                    model[pages.clone()].fill(None);
                }
                rights => {
                    let rights = [Rights::None, Rights::Read, Rights::ReadWrite][rights - 1];
                    table.set(
                        pages.clone(),
                        Area { end: 0, rights, policy: Policy::DEFAULT, grain: Grain::Page, object: None },
                    );
                    model[pages.clone()].fill(Some(rights));
                }
            }
            for (page, expected) in model.iter().enumerate() {
                assert_eq!(table.at(page).map(|(_, area)| area.rights), *expected, "step {step} page {page}");
            }
            let runs = model.chunk_by(|a, b| a == b).filter(|run| run[0].is_some()).count();
            assert_eq!(table.all().count(), runs, "step {step}: alike neighbours are one");
            let gap = pages.clone().find(|page| model[*page].is_none());
            assert_eq!(table.first_gap(&pages), gap, "step {step}");
            let covered: usize = table.within(&pages).iter().map(|(part, _)| part.len()).sum();
            assert_eq!(covered, pages.clone().filter(|page| model[*page].is_some()).count(), "step {step}");
            let count = 1 + random(6);
            let room = (0..=PAGES - count).find(|at| model[*at..at + count].iter().all(Option::is_none));
            assert_eq!(table.find_room(count, PAGES), room.map(|at| at..at + count), "step {step}");
        }
    }
}
