//! Memory policies and cpusets of a process, and the frames that follow them.

use core::ops::Range;

use pnode_core::policy::{PlaceError, Placement, Policy, Target, Wish};
use pnode_core::{Frame, Mems, NodeMask, PageOrigin};

use super::super::Shared;
use super::super::region::{Region, State};
use super::layout::{Area, Task};
use super::{Process, ProcessError};
use crate::fault::FaultError;

/// What becomes of pages that are there when a policy is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They stay where they are.
    Stay,
    /// Those that are elsewhere move to where the policy wants them (`MPOL_MF_MOVE`).
    Move,
}

impl Process {
    /// Sets the policy of the task: it counts for all areas without a policy of their own (`set_mempolicy`).
    ///
    /// # Errors
    ///
    /// [`ProcessError::Policy`]; nothing has changed then.
    pub fn set_mempolicy(&self, wish: &Wish) -> Result<(), ProcessError> {
        let _changing = self.layout().changing();
        let mems = self.layout().table().task.mems;
        let policy = Policy::new(self.region.shared.nodes, wish, Target::Task, &mems);
        self.layout().table_mut().task.policy = policy.map_err(ProcessError::Policy)?;
        Ok(())
    }

    /// Sets the policy of `pages`, all of which are mapped (`mbind`). Returns how many pages moved.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; nothing has changed then, unless it is [`ProcessError::Page`]: the policy is set, and the pages
    /// before that one have moved.
    pub fn mbind(&self, pages: Range<usize>, wish: &Wish, existing: Existing) -> Result<usize, ProcessError> {
        let _changing = self.layout().changing();
        let areas = self.areas_of(&pages)?;
        let mems = self.layout().table().task.mems;
        let target = Target::Range(PageOrigin::PrivateAnonymous);
        let policy =
            Policy::new(self.region.shared.nodes, wish, target, &mems).map_err(ProcessError::Policy)?;
        let mut table = self.layout().table_mut();
        areas.into_iter().for_each(|(part, area)| table.set(part, Area { policy, ..area }));
        drop(table);
        let mut moved = 0;
        if existing == Existing::Move {
            for page in pages {
                let failed = |error| ProcessError::Page { page, error };
                moved += usize::from(self.region.follow_policy(page).map_err(failed)?);
            }
        }
        Ok(moved)
    }

    /// Confines the process to `nodes`, as far as the machine has them: its cpuset. Its policies are bound anew; pages stay
    /// where they are. If none of the nodes is ordinary, the ordinary ones of the machine serve.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Cpuset`]; nothing has changed then.
    pub fn set_cpuset(&self, nodes: &NodeMask) -> Result<(), ProcessError> {
        let _changing = self.layout().changing();
        let registry = self.region.shared.nodes;
        let mems = Mems::root(registry).map_err(ProcessError::Cpuset)?.child(nodes);
        let mut table = self.layout().table_mut();
        table.task.mems = mems;
        table.policies_mut().for_each(|policy| policy.rebind(registry, &mems));
        Ok(())
    }

    /// The nodes that the process may use.
    pub fn cpuset(&self) -> Mems {
        self.layout().table().task.mems
    }
}

impl Shared {
    /// Lets the policies of all processes follow a node that left or came.
    pub(in super::super) fn rebind_policies(&self) {
        for region in self.live_regions() {
            if let Some(layout) = &region.layout {
                let _changing = layout.changing();
                let mut table = layout.table_mut();
                let mems = table.task.mems;
                table.policies_mut().for_each(|policy| policy.rebind(self.nodes, &mems));
            }
        }
    }
}

/// What counts for one page: copies, for nothing may be locked while a frame is looked for.
struct Counting {
    task: Task,
    range: Policy,
    page: usize,
}

impl Counting {
    fn placement(&self) -> Placement<'_> {
        Placement::new(PageOrigin::PrivateAnonymous, self.task.cpu)
            .task(&self.task.policy)
            .range(&self.range)
            .mems(&self.task.mems)
            .turn(self.page as u64)
    }
}

impl Region {
    fn counting(&self, page: usize) -> Option<Counting> {
        let table = self.layout.as_ref()?.table();
        let (_, area) = table.at(page)?;
        Some(Counting { task: table.task, range: area.policy, page })
    }

    /// Whether a policy or a cpuset says more about `page` than: near the CPU.
    pub(in super::super) fn is_governed(&self, page: usize) -> bool {
        self.counting(page).is_some_and(|counting| {
            !counting.task.policy.is_default()
                || !counting.range.is_default()
                || counting.task.mems != Mems::UNRESTRICTED
        })
    }

    /// The nodes that the process may use; all of them for a mapping.
    pub(in super::super) fn mems(&self) -> Mems {
        self.layout.as_ref().map_or(Mems::UNRESTRICTED, |layout| layout.table().task.mems)
    }

    /// Whether `page` may come along with a touch of page `near`: they are in one area.
    pub(in super::super) fn admits_like(&self, page: usize, near: usize) -> bool {
        self.layout.as_ref().is_none_or(|layout| {
            let table = layout.table();
            table.at(page).map(|(start, _)| start) == table.at(near).map(|(start, _)| start)
        })
    }

    /// A frame for page `page` where its policies want it; reclaims if there is none.
    pub(in super::super) fn own_frame(&self, page: usize) -> Result<Frame, FaultError> {
        const BATCH: usize = 32;
        let Some(counting) = self.counting(page) else { return self.ordinary_frame() };
        let placement = counting.placement();
        loop {
            match self.shared.nodes.place(&placement) {
                Ok(placed) => {
                    self.shared.faults_by_policy.count(&placed.report);
                    return Ok(placed.frame);
                }
                Err(PlaceError::Contended { .. }) => std::thread::yield_now(),
                Err(PlaceError::NoMemory { .. }) if self.shared.reclaim(BATCH) > 0 => {}
                Err(error) => {
                    self.shared.faults_by_policy.count_failure();
                    return Err(FaultError::NoPlace(error));
                }
            }
        }
    }

    /// Moves page `page` to where its policies want it, if it is elsewhere; whether it moved.
    fn follow_policy(&self, page: usize) -> Result<bool, FaultError> {
        let (Some(mut cell), Some(counting)) = (self.lock(page), self.counting(page)) else {
            return Ok(false);
        };
        let State::Resident(frame) = &cell.state else { return Ok(false) };
        let wanted = counting.placement().wanted(self.shared.nodes.distances());
        if wanted.is_none_or(|wanted| wanted.any().contains(frame.node())) {
            return Ok(false);
        }
        let new = self.own_frame(page)?;
        if new.node() == frame.node() {
            self.shared.give_back(new);
            return Ok(false);
        }
        self.move_to(page, &mut cell, new).map_err(FaultError::Kernel)?;
        self.shared.counters.migrated.add(1);
        Ok(true)
    }
}
