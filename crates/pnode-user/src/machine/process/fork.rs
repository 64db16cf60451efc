//! Forking: two address spaces with the same pages, until one of them writes.

use core::ops::Range;
use std::sync::Arc;

use super::super::region::{Region, State};
use super::layout::Layout;
use super::{Process, ProcessError};
use crate::fault::{self, View};

impl Process {
    /// A second process with the same areas, policies, cpuset and bytes, at addresses of its own.
    ///
    /// Pages are shared read-only until one of the two writes, which copies. Pages on a compressed node come back to
    /// ordinary memory for that. What other threads write meanwhile is in the child or not, page by page.
    ///
    /// # Errors
    ///
    /// [`ProcessError`] if there are no addresses, or no memory for pages that must come back; there is no child then, and
    /// the parent has all its bytes.
    pub fn fork(&self) -> Result<Process, ProcessError> {
        let parent = &*self.region;
        let shared = &parent.shared;
        let _changing = self.layout().changing();
        let table = self.layout().table().clone();
        let areas: Vec<Range<usize>> = table.all().map(|(pages, _)| pages).collect();
        let view = View::new(&shared.faults, self.pages(), shared.page).map_err(ProcessError::Kernel)?;
        let child = Region::new(shared, view, parent.placement, 0, Some(Layout::new(table)));
        fault::attach(&child);
        shared.regions().all.push(Arc::downgrade(&child));
        for page in areas.into_iter().flatten() {
            let Some(mut cell) = parent.lock(page) else { break };
            let failed = |error| ProcessError::Page { page, error };
            match cell.state {
                State::Untouched => continue,
                // The child finds it in its object.
                State::Common(ref common) if common.is_kept() => continue,
                State::Stored { .. } => parent.move_to_ordinary(page, &mut cell).map_err(failed)?,
                State::Resident(_) | State::Common(_) | State::Swapped(_) => {}
            }
            let common = parent.make_common(page, &mut cell).map_err(failed)?;
            common.join(&child, page);
            // From here on a write of the parent copies, so its page need not be held.
            drop(cell);
            if let Some(mut cell) = child.lock(page) {
                cell.state = State::Common(common);
            }
        }
        shared.counters.forks.add(1);
        Ok(Process { region: child })
    }
}
