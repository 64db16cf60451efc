//! Memory policies and cpusets of a process, and the frames that follow them.

use core::ops::Range;
use std::sync::Arc;

use pnode_core::policy::{Placement, Policy, Target, Wish};
use pnode_core::{Frame, Mems, NodeMask, PageOrigin};

use super::super::Shared;
use super::super::common::Common;
use super::super::object::Body;
use super::super::region::{Page, Region, State};
use super::layout::{Area, Task};
use super::{Process, ProcessError, Sharing};
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
    /// Where shared memory is shared, this is the policy of the object, for all who map it; where a file is, private nodes
    /// are refused, for its pages may be there already and belong to everybody.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; nothing has changed then, unless it is [`ProcessError::Page`]: the policy is set, and the pages
    /// before that one have moved.
    pub fn mbind(&self, pages: Range<usize>, wish: &Wish, existing: Existing) -> Result<usize, ProcessError> {
        let _changing = self.layout().changing();
        let areas = self.areas_of(&pages)?;
        let mems = self.layout().table().task.mems;
        let policy_for = |origin| {
            let policy = Policy::new(self.region.shared.nodes, wish, Target::Range(origin), &mems);
            policy.map_err(ProcessError::Policy)
        };
        let origin = |area: &Area| match &area.object {
            Some(object) if object.sharing == Sharing::Shared || object.body.has_file() => {
                object.body.origin()
            }
            _ => PageOrigin::PrivateAnonymous,
        };
        // All of them are tested before any is set.
        let policies =
            areas.iter().map(|(_, area)| policy_for(origin(area))).collect::<Result<Vec<_>, _>>()?;
        let mut table = self.layout().table_mut();
        for ((part, area), policy) in areas.into_iter().zip(policies) {
            match &area.object {
                Some(object) if origin(&area) == PageOrigin::SharedAnonymous => {
                    object.body.put_policy(policy)
                }
                _ => table.set(part, Area { policy, ..area }),
            }
        }
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
        self.live_objects().iter().for_each(|object| object.rebind());
    }
}

/// What counts for one page: copies, for nothing may be locked while a frame is looked for.
pub(in super::super) struct Counting {
    task: Task,
    range: Policy,
    page: usize,
}

impl Counting {
    pub(in super::super) fn placement(&self) -> Placement<'_> {
        self.placement_of(PageOrigin::PrivateAnonymous)
    }

    pub(in super::super) fn placement_of(&self, origin: PageOrigin) -> Placement<'_> {
        Placement::new(origin, self.task.cpu)
            .task(&self.task.policy)
            .range(&self.range)
            .mems(&self.task.mems)
            .turn(self.page as u64)
    }
}

impl Region {
    pub(in super::super) fn counting(&self, page: usize) -> Option<Counting> {
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

    /// Who sees writes to `page`.
    pub(in super::super) fn sharing(&self, page: usize) -> Sharing {
        let object = self.layout.as_ref().and_then(|layout| layout.table().object_at(page));
        object.map_or(Sharing::Private, |(_, _, sharing)| sharing)
    }

    /// Whether an object's page stands at `page`.
    pub(in super::super) fn is_of_object(&self, page: usize) -> bool {
        self.layout.as_ref().is_some_and(|layout| layout.table().object_at(page).is_some())
    }

    /// The object's page that stands at `page`, which nobody touched here; that it was there already is reported.
    pub(in super::super) fn object_page(&self, page: usize) -> Option<Arc<Common>> {
        let (body, index, _) = self.layout.as_ref()?.table().object_at(page)?;
        let common = body.page(index)?;
        let resident = common.lock().node();
        if let (Some(actual), Some(counting)) = (resident, self.counting(page)) {
            let object = body.policy();
            let placement = counting.placement_of(body.origin()).object(&object);
            self.shared.faults_by_policy.count(&placement.soft(actual, self.shared.nodes.distances()));
        }
        Some(common)
    }

    /// A frame for a common page that has none: where the policies of `page` or of its object want it.
    pub(in super::super) fn common_frame(
        &self,
        page: usize,
        body: Option<&(Arc<Body>, usize)>,
    ) -> Result<Frame, FaultError> {
        match body {
            None => self.own_frame(page),
            Some((body, index)) => body.frame(*index, self.counting(page).as_ref()),
        }
    }

    /// A frame for page `page` where its policies want it; reclaims if there is none.
    pub(in super::super) fn own_frame(&self, page: usize) -> Result<Frame, FaultError> {
        match self.counting(page) {
            Some(counting) => self.shared.place(&counting.placement()),
            None => self.ordinary_frame(),
        }
    }

    /// Moves page `page` to where its policies want it, if it is elsewhere; whether it moved.
    fn follow_policy(&self, page: usize) -> Result<bool, FaultError> {
        let (Some(mut cell), Some(counting)) = (self.lock(page), self.counting(page)) else {
            return Ok(false);
        };
        let State::Resident(frame) = &cell.state else { return Ok(false) };
        let wanted = counting.placement().wanted(self.shared.nodes.distances());
        if wanted.as_ref().is_none_or(|wanted| wanted.any().contains(frame.node())) {
            return Ok(false);
        }
        let astray = |page: &Page| {
            page.node().is_some_and(|node| wanted.as_ref().is_some_and(|wanted| !wanted.any().contains(node)))
        };
        let whole = self.migrate_huge(page, &mut cell, astray, || self.policy_block(page));
        if whole.map_err(FaultError::Kernel)? {
            return Ok(true);
        }
        let State::Resident(frame) = &cell.state else { return Ok(false) };
        let new = self.own_frame(page)?;
        if new.node() == frame.node() {
            self.shared.give_back(new);
            return Ok(false);
        }
        self.move_to(page, &mut cell, new).map_err(FaultError::Kernel)?;
        self.migrated(&cell);
        Ok(true)
    }
}
