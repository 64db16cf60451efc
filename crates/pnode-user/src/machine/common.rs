//! Pages that several page tables hold: those that a fork shared, and those of an object.
//!
//! The page tables' entries refer to one [`Common`], which has the frame and knows who maps it. A page of a fork is mapped
//! read-only; who writes gets a copy, and the last one gets the page itself.
//!
//! # Lock order
//!
//! A page of a page table, then the common page that it refers to, then views. Nobody waits for a common page while
//! holding another, nor for a page of a table while holding a common page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pnode_core::{Frame, NodeId};

use super::Shared;
use super::region::{Page, Region, State};
use crate::fault::{FaultError, Protection};
use crate::sys::SysError;

/// A page that any number of page tables refer to.
pub(super) struct Common {
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    held: Held,
    users: Vec<User>,
    /// Whether somebody touched it since reclaim last looked.
    pub(super) referenced: bool,
}

/// A page of a page table.
struct User {
    region: Weak<Region>,
    page: usize,
}

/// Where the bytes are.
enum Held {
    Resident(Frame),
    /// Nowhere: the last user took the frame along.
    Gone,
}

impl Common {
    /// The page in `frame`, which page `page` of `region` refers to.
    pub(super) fn new(frame: Frame, region: &Region, page: usize) -> Arc<Self> {
        let users = vec![User { region: Weak::clone(&region.me), page }];
        Arc::new(Self { inner: Mutex::new(Inner { held: Held::Resident(frame), users, referenced: true }) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that page `page` of `region` refers to it, too.
    pub(super) fn join(&self, region: &Region, page: usize) {
        self.lock().users.push(User { region: Weak::clone(&region.me), page });
    }

    /// Forgets that page `page` of `region` refers to it. The frame goes back with the last one.
    pub(super) fn leave(&self, shared: &Shared, region: &Region, page: usize) {
        let mut inner = self.lock();
        inner.forget(region, page);
        if inner.users.is_empty() {
            if let Held::Resident(frame) = core::mem::replace(&mut inner.held, Held::Gone) {
                shared.give_back(frame);
            }
        }
    }

    /// Moves the page to `new`, or gives `new` back. Whoever touches it meanwhile waits.
    pub(super) fn move_to(&self, shared: &Shared, new: Frame) -> Result<(), SysError> {
        loop {
            let mut inner = self.lock();
            // Each may be the last to know its region, so they are dropped after the page is unlocked.
            let Some(users) = inner.live_users() else {
                // One of them is going away and will leave the page.
                drop(inner);
                std::thread::yield_now();
                continue;
            };
            let unmapped = users.iter().try_for_each(|(region, page)| region.view.unmap(*page, 1));
            let given_up = match (&inner.held, unmapped) {
                (Held::Resident(old), Ok(())) => {
                    shared.copy(&new, old);
                    core::mem::replace(&mut inner.held, Held::Resident(new))
                }
                _ => Held::Resident(new),
            };
            drop(inner);
            drop(users);
            if let Held::Resident(frame) = given_up {
                shared.give_back(frame);
            }
            return unmapped;
        }
    }
}

impl Inner {
    /// The frame, if the page has one.
    pub(super) fn frame(&self) -> Option<&Frame> {
        match &self.held {
            Held::Resident(frame) => Some(frame),
            Held::Gone => None,
        }
    }

    /// The node that the page is on.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.frame().map(Frame::node)
    }

    /// How many page tables refer to it.
    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// Whether page `page` of `region` is the one that counts it where it must be counted once.
    pub(super) fn is_counted_at(&self, region: &Region, page: usize) -> bool {
        self.users.first().is_some_and(|user| user.is(region, page))
    }

    /// Notes that the page that referred to it moved within the table.
    pub(super) fn rename(&mut self, region: &Region, from: usize, to: usize) {
        for user in self.users.iter_mut().filter(|user| user.is(region, from)) {
            user.page = to;
        }
    }

    fn forget(&mut self, region: &Region, page: usize) {
        if let Some(index) = self.users.iter().position(|user| user.is(region, page)) {
            self.users.swap_remove(index);
        }
    }

    /// Those who refer to it, `None` if one of them is going away just now.
    fn live_users(&self) -> Option<Vec<(Arc<Region>, usize)>> {
        self.users.iter().map(|user| Some((user.region.upgrade()?, user.page))).collect()
    }
}

impl User {
    fn is(&self, region: &Region, page: usize) -> bool {
        self.page == page && Weak::ptr_eq(&self.region, &region.me)
    }
}

impl Region {
    /// Serves a touch of a page that others may share.
    pub(super) fn serve_common(
        &self,
        page: usize,
        cell: &mut Page,
        common: &Arc<Common>,
        writes: Writes,
        mapped: Option<Protection>,
    ) -> Result<(), FaultError> {
        let counters = &self.shared.counters;
        let mut inner = common.lock();
        inner.referenced = true;
        if writes == Writes::No {
            if mapped.is_some() {
                counters.spurious_faults.add(1);
                return Ok(());
            }
            let frame = inner.frame().ok_or(FaultError::NotMapped)?;
            // Whoever may do anything with the page may read it.
            self.protection(page, frame)?;
            self.map_as(page, frame, Protection::ReadOnly)?;
            counters.soft_faults.add(1);
            return Ok(());
        }
        if inner.users() == 1 {
            // Nobody else has it any more.
            let Held::Resident(frame) = core::mem::replace(&mut inner.held, Held::Gone) else {
                return Err(FaultError::NotMapped);
            };
            inner.users.clear();
            drop(inner);
            cell.state = State::Resident(frame);
            counters.taken_over.add(1);
            return Ok(());
        }
        let new = self.own_frame(page)?;
        let Some(old) = inner.frame() else {
            self.shared.give_back(new);
            return Err(FaultError::NotMapped);
        };
        self.shared.copy(&new, old);
        if let Err(error) = self.map(page, &new) {
            self.shared.give_back(new);
            return Err(error);
        }
        inner.forget(self, page);
        drop(inner);
        cell.state = State::Resident(new);
        counters.copied_on_write.add(1);
        Ok(())
    }

    /// Makes the page in the frame of `cell` one that others may refer to, and takes the right to write to it away.
    pub(super) fn make_common(&self, page: usize, cell: &mut Page) -> Result<Arc<Common>, FaultError> {
        if let State::Common(common) = &cell.state {
            return Ok(Arc::clone(common));
        }
        self.view.write_protect(page).map_err(FaultError::Kernel)?;
        match core::mem::take(&mut cell.state) {
            State::Resident(frame) => {
                let common = Common::new(frame, self, page);
                cell.state = State::Common(Arc::clone(&common));
                Ok(common)
            }
            other => {
                cell.state = other;
                Err(FaultError::NotMapped)
            }
        }
    }
}

/// Whether a touch writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    No,
    Yes,
}
