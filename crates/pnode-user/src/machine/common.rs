//! Pages that several page tables hold: those that a fork shared, and those of an object.
//!
//! The page tables' entries refer to one [`Common`], which knows where the bytes are and who maps them. A page of a fork is
//! mapped read-only; who writes gets a copy, and the last one gets the page itself. A page of an object is written in
//! place by those who share it, and copied by those who have it privately.
//!
//! # Lock order
//!
//! A page of a page table, then the common page that it refers to, then views. Nobody waits for a common page while
//! holding another, nor for a page of a table while holding a common page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pnode_core::{Frame, NodeId, PageOrigin};

use super::Shared;
use super::object::Body;
use super::process::Sharing;
use super::reclaim::Routes;
use super::region::{Page, Region, State};
use super::swap::Slot;
use super::trace::{Note, What, Why};
use crate::fault::{FaultError, Protection};
use crate::sys::SysError;

/// A page that any number of page tables refer to.
pub(super) struct Common {
    /// The object that keeps the page, also while nobody maps it, and which of its pages it is.
    kept: Option<(Weak<Body>, usize)>,
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    held: Held,
    users: Vec<User>,
    /// Whether somebody touched it since reclaim last looked.
    referenced: bool,
    /// Whether the object's file does not have these bytes.
    dirty: bool,
}

/// A page of a page table.
struct User {
    region: Weak<Region>,
    page: usize,
}

/// Where the bytes are.
pub(super) enum Held {
    Resident(Frame),
    Swapped(Slot),
    /// In the file of the object.
    OnDisk,
    /// Nobody wrote any: they are zero.
    Zero,
    /// Nowhere: the last user took them along.
    Gone,
}

/// What reclaim came to with a common page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reclaimed {
    /// It has no frame any more.
    Yes,
    /// It has been touched, is in use just now, or has nowhere to go.
    No,
}

impl Common {
    fn new(held: Held, users: Vec<User>, kept: Option<(Weak<Body>, usize)>) -> Arc<Self> {
        Arc::new(Self { kept, inner: Mutex::new(Inner { held, users, referenced: true, dirty: false }) })
    }

    /// A page of an object that has no frame yet.
    pub(super) fn of_object(body: Weak<Body>, index: usize, held: Held) -> Arc<Self> {
        Self::new(held, Vec::new(), Some((body, index)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an object keeps it.
    pub(super) const fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// What the page is for.
    pub(super) fn origin(&self) -> PageOrigin {
        self.body().map_or(PageOrigin::PrivateAnonymous, |(body, _)| body.origin())
    }

    fn body(&self) -> Option<(Arc<Body>, usize)> {
        let (body, index) = self.kept.as_ref()?;
        Some((body.upgrade()?, *index))
    }

    /// Notes that page `page` of `region` refers to it, too.
    pub(super) fn join(&self, region: &Region, page: usize) {
        self.lock().users.push(User { region: Weak::clone(&region.me), page });
    }

    /// Counts as cold until somebody touches it again, if only one page table refers to it.
    pub(super) fn cool_if_alone(&self) -> bool {
        let mut inner = self.lock();
        let alone = inner.users() == 1;
        inner.referenced &= !alone;
        alone
    }

    /// Forgets that page `page` of `region` refers to it. What nobody keeps goes back with the last one.
    pub(super) fn leave(&self, shared: &Shared, region: &Region, page: usize) {
        let mut inner = self.lock();
        inner.forget(region, page);
        if inner.users.is_empty() && !self.is_kept() {
            inner.release(shared);
        }
    }

    /// Moves the page to `new`, or gives `new` back. Whoever touches it meanwhile waits.
    pub(super) fn move_to(&self, shared: &Shared, new: Frame) -> Result<(), SysError> {
        let (mut inner, users) = self.lock_with_users();
        let mut moved = unmap_all(&users);
        if let Held::Resident(old) = &inner.held {
            moved = moved.and_then(|()| shared.copy(&new, old));
        }
        let given_up = match (&inner.held, moved) {
            (Held::Resident(old), Ok(())) => {
                shared.moved(old, &new);
                core::mem::replace(&mut inner.held, Held::Resident(new))
            }
            _ => Held::Resident(new),
        };
        drop(inner);
        drop(users);
        if let Held::Resident(frame) = given_up {
            shared.give_back(frame);
        }
        moved
    }

    /// Takes the frame away if nobody touched the page since the last look: into the object's file, to a frame of a lower
    /// tier if `routes` lead there and no object keeps the page, or to swap. Waits for nothing.
    pub(super) fn reclaim(&self, shared: &Shared, routes: Option<&mut Routes>) -> Reclaimed {
        let Ok(mut inner) = self.inner.try_lock() else { return Reclaimed::No };
        let (Some(users), Held::Resident(frame)) = (inner.live_users(), &inner.held) else {
            return Reclaimed::No;
        };
        let (mut done, mut given_up) = (Reclaimed::No, None);
        let is_free = shared.may_reclaim(frame) && unmap_all(&users).is_ok();
        if is_free && !inner.referenced {
            let out = match self.body().filter(|(body, _)| body.has_file()) {
                Some((body, index)) => {
                    (!inner.dirty || body.write_back(index, frame)).then_some(Held::OnDisk)
                }
                None => {
                    let below = routes.filter(|_| !self.is_kept()).and_then(|to| to.below(shared, frame));
                    below.map(Held::Resident).or_else(|| shared.swap_out(frame).map(Held::Swapped))
                }
            };
            if let Some(out) = out {
                given_up = Some(core::mem::replace(&mut inner.held, out));
                inner.dirty = false;
                done = Reclaimed::Yes;
            }
        }
        inner.referenced = false;
        drop(inner);
        drop(users);
        if let Some(Held::Resident(frame)) = given_up {
            shared.give_back(frame);
        }
        done
    }

    /// Writes the page back to the object's file if the file does not have its bytes.
    pub(super) fn clean(&self) -> Result<(), SysError> {
        let (mut inner, users) = self.lock_with_users();
        let mut done = Ok(());
        if let (true, Held::Resident(frame), Some((body, index))) = (inner.dirty, &inner.held, self.body()) {
            // A write from here on faults, and makes it dirty again.
            done = unmap_all(&users);
            inner.dirty = done.is_err() || !body.write_back(index, frame);
        }
        drop(inner);
        drop(users);
        done
    }

    /// The page, locked, and those who refer to it. Each may be the last to know its region, so the caller unlocks the page
    /// before it drops them.
    fn lock_with_users(&self) -> (MutexGuard<'_, Inner>, Vec<(Arc<Region>, usize)>) {
        loop {
            let inner = self.lock();
            if let Some(users) = inner.live_users() {
                return (inner, users);
            }
            // One of them is going away and will leave the page.
            drop(inner);
            std::thread::yield_now();
        }
    }
}

fn unmap_all(users: &[(Arc<Region>, usize)]) -> Result<(), SysError> {
    users.iter().try_for_each(|(region, page)| region.view.unmap(*page, 1))
}

impl Inner {
    /// The frame, if the page has one.
    pub(super) const fn frame(&self) -> Option<&Frame> {
        match &self.held {
            Held::Resident(frame) => Some(frame),
            _ => None,
        }
    }

    /// Where the bytes are.
    pub(super) const fn held(&self) -> &Held {
        &self.held
    }

    /// The node that the page is on.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.frame().map(Frame::node)
    }

    /// How many page tables refer to it.
    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// Notes that the bytes in the frame are newer than those in the object's file.
    pub(super) fn write(&mut self) -> Option<&Frame> {
        (self.dirty, self.referenced) = (true, true);
        self.frame()
    }

    /// Whether the object's file lacks the page's bytes.
    pub(super) const fn is_dirty(&self) -> bool {
        self.dirty
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

    /// Gives up what it holds.
    pub(super) fn release(&mut self, shared: &Shared) {
        match core::mem::replace(&mut self.held, Held::Gone) {
            Held::Resident(frame) => shared.give_back(frame),
            Held::Swapped(slot) => shared.free_slot(slot),
            Held::OnDisk | Held::Zero | Held::Gone => {}
        }
    }

    /// Fills `frame` with the page's bytes and makes it the page, or gives it back; `body` is the object that keeps it.
    pub(super) fn bring_in(
        &mut self,
        shared: &Shared,
        frame: Frame,
        body: Option<(&Body, usize)>,
    ) -> Result<(), FaultError> {
        let filled = match (&self.held, body) {
            (Held::Swapped(slot), _) => shared.swap_in(slot, &frame),
            (Held::OnDisk, Some((body, index))) => body.read_in(index, &frame),
            (Held::Zero, _) => {
                shared.zero(&frame);
                true
            }
            _ => false,
        };
        if !filled {
            shared.give_back(frame);
            return Err(FaultError::NotMapped);
        }
        self.release(shared);
        self.held = Held::Resident(frame);
        Ok(())
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
        if inner.frame().is_none() {
            let body = common.body();
            let frame = self.common_frame(page, body.as_ref())?;
            inner.bring_in(&self.shared, frame, body.as_ref().map(|(body, index)| (&**body, *index)))?;
        }
        if writes == Writes::No {
            if mapped.is_some() {
                counters.spurious_faults.add(1);
                self.fault_was(Why::Settled, inner.frame());
                return Ok(());
            }
            let frame = inner.frame().ok_or(FaultError::NotMapped)?;
            // Whoever may do anything with the page may read it.
            self.protection(page, frame)?;
            self.map_as(page, frame, Protection::ReadOnly)?;
            counters.soft_faults.add(1);
            self.fault_was(Why::Present, Some(frame));
            return Ok(());
        }
        if self.sharing(page) == Sharing::Shared {
            let frame = inner.write().ok_or(FaultError::NotMapped)?;
            self.map(page, frame)?;
            counters.soft_faults.add(1);
            self.fault_was(Why::Present, Some(frame));
            return Ok(());
        }
        if inner.users() == 1 && !common.is_kept() {
            // Nobody else has it any more.
            let Held::Resident(frame) = core::mem::replace(&mut inner.held, Held::Gone) else {
                return Err(FaultError::NotMapped);
            };
            inner.users.clear();
            drop(inner);
            self.fault_was(Why::TakenOver, Some(&frame));
            cell.state = State::Resident(frame);
            counters.taken_over.add(1);
            return Ok(());
        }
        let new = self.own_frame(page)?;
        let Some(old) = inner.frame() else {
            self.shared.give_back(new);
            return Err(FaultError::NotMapped);
        };
        let copied = self.shared.copy(&new, old).map_err(FaultError::Kernel);
        if let Err(error) = copied.and_then(|()| self.map(page, &new)) {
            self.shared.give_back(new);
            return Err(error);
        }
        inner.forget(self, page);
        drop(inner);
        self.fault_was(Why::Copied, Some(&new));
        cell.state = State::Resident(new);
        counters.copied_on_write.add(1);
        Ok(())
    }

    /// Makes the page of `cell` one that others may refer to, and takes the right to write to it away.
    pub(super) fn make_common(&self, page: usize, cell: &mut Page) -> Result<Arc<Common>, FaultError> {
        if let State::Common(common) = &cell.state {
            return Ok(Arc::clone(common));
        }
        self.view.write_protect(page).map_err(FaultError::Kernel)?;
        let held = match core::mem::take(&mut cell.state) {
            State::Resident(frame) => {
                self.shared.note(|| Note::new(What::Fence, Why::Shared).frame(&frame));
                cell.freeable = false;
                Held::Resident(frame)
            }
            State::Swapped(slot) => Held::Swapped(slot),
            other => {
                cell.state = other;
                return Err(FaultError::NotMapped);
            }
        };
        let common = Common::new(held, vec![User { region: Weak::clone(&self.me), page }], None);
        cell.state = State::Common(Arc::clone(&common));
        Ok(common)
    }
}

/// Whether a touch writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    No,
    Yes,
}
