//! Objects that processes map together: shared memory, and files with their page cache.
//!
//! An object keeps its pages, mapped or not. Pages of shared memory are zero before the first write and go to swap; pages
//! of a file come from its disk (which is memory here, too) and go back there. Page cache is never on a private node, and
//! shared memory is where the object's own policy says, not the mapping that touches it first.

use core::fmt;
use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use pnode_core::policy::{PlaceError, Placement, Policy, PolicyError, Target, Wish};
use pnode_core::{Frame, Mems, NodeId, PageOrigin};

use super::common::{Common, Held};
use super::inject::Point;
use super::mapping::{MapError, Place};
use super::process::Counting;
use super::trace::{Note, What, Why};
use super::{Machine, Shared};
use crate::fault::FaultError;

/// Shared memory or a file of a machine.
///
/// ```
/// use pnode_user::machine::{Rights, Sharing};
/// use pnode_user::{Machine, NodeSpec};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let machine = Machine::builder().node(NodeSpec::ordinary(256)).build()?;
/// let dram = machine.node(0)?;
/// let file = machine.file(vec![b'.'; 10_000], dram)?;
/// let (one, other) = (machine.process(100, dram)?, machine.process(100, dram)?);
/// let mine = one.map_object(&file, 0..3, Rights::ReadWrite, Sharing::Shared)?;
/// let private = other.map_object(&file, 0..3, Rights::ReadWrite, Sharing::Private)?;
///
/// one.write(mine.start, 5, b"written through a mapping")?;
/// let mut text = [0; 12];
/// file.read(5, &mut text)?;                                  // as read(2)
/// assert_eq!(&text, b"written thro");
/// other.write(private.start, 0, b"a copy of its own")?;
/// assert_eq!(file.sync()?, 1);                               // one page was dirty
/// assert!(file.on_disk().starts_with(b".....written through a mapping..."));
/// # Ok(())
/// # }
/// ```
pub struct Object {
    pub(super) body: Arc<Body>,
}

/// What an object's handles and mappings share.
pub(super) struct Body {
    me: Weak<Body>,
    shared: Arc<Shared>,
    /// The node that accesses without a process are near to.
    home: NodeId,
    pages: usize,
    /// The pages that somebody touched. Locked after a page of a page table, before a common page.
    common: Mutex<BTreeMap<usize, Arc<Common>>>,
    /// The file's contents, for a file.
    disk: Option<RwLock<Vec<u8>>>,
    policy: RwLock<Policy>,
}

impl Machine {
    /// Shared memory of `pages` pages, all zero. Accesses without a process take memory near `home`.
    ///
    /// # Errors
    ///
    /// [`MapError`].
    pub fn shared_memory(&self, pages: usize, home: NodeId) -> Result<Object, MapError> {
        self.object(pages, None, home)
    }

    /// A file with these contents, none of which is in memory yet. Accesses without a process take memory near `home`.
    ///
    /// # Errors
    ///
    /// [`MapError`].
    pub fn file(&self, contents: Vec<u8>, home: NodeId) -> Result<Object, MapError> {
        self.object(contents.len().div_ceil(self.page().bytes()), Some(RwLock::new(contents)), home)
    }

    fn object(&self, pages: usize, disk: Option<RwLock<Vec<u8>>>, home: NodeId) -> Result<Object, MapError> {
        if pages == 0 {
            return Err(MapError::Empty);
        }
        self.shared.site(home).ok_or(MapError::Unknown { node: home })?;
        let body = Arc::new_cyclic(|me| Body {
            me: Weak::clone(me),
            shared: Arc::clone(&self.shared),
            home,
            pages,
            common: Mutex::default(),
            disk,
            policy: RwLock::new(Policy::DEFAULT),
        });
        let mut objects = self.shared.objects();
        objects.retain(|object| object.strong_count() > 0);
        objects.push(Arc::downgrade(&body));
        Ok(Object { body })
    }
}

impl Object {
    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.body.pages
    }

    /// What its pages are for, which decides where they may be.
    pub fn origin(&self) -> PageOrigin {
        self.body.origin()
    }

    /// Copies bytes out of the object from byte `offset` on, as `read(2)` does.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if a page cannot be brought, or does not exist; the bytes before it have been copied.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), FaultError> {
        self.body.each_part(offset, bytes.len(), |inner, shared, within, part| {
            let frame = inner.frame().ok_or(FaultError::NotMapped)?;
            let (site, index) = shared.locate(frame.pfn()).ok_or(FaultError::NotMapped)?;
            let copied = site.backing.read(index, within, &mut bytes[part]);
            if copied { Ok(()) } else { Err(FaultError::NotMapped) }
        })
    }

    /// Copies bytes into the object from byte `offset` on, as `write(2)` does. The object does not grow.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if a page cannot be brought, or does not exist; the bytes before it have been copied.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), FaultError> {
        self.body.each_part(offset, bytes.len(), |inner, shared, within, part| {
            let frame = inner.write().ok_or(FaultError::NotMapped)?;
            let (site, index) = shared.locate(frame.pfn()).ok_or(FaultError::NotMapped)?;
            let copied = site.backing.write(index, within, &bytes[part]);
            if copied { Ok(()) } else { Err(FaultError::NotMapped) }
        })
    }

    /// Sets the object's policy, which decides where pages go that nobody touched yet.
    ///
    /// # Errors
    ///
    /// [`PolicyError`], [`PolicyError::PageCache`] among them: a file never is on a private node.
    pub fn set_policy(&self, wish: &Wish) -> Result<(), PolicyError> {
        self.body.set_policy(wish)
    }

    /// Writes all pages back that the file does not have; returns how many. Shared memory has no file and nothing to write.
    ///
    /// # Errors
    ///
    /// [`FaultError`] if a page could not be taken away from those who write to it.
    pub fn sync(&self) -> Result<usize, FaultError> {
        let mut written = 0;
        if self.body.has_file() {
            for common in self.body.all() {
                if common.lock().is_dirty() {
                    common.clean().map_err(FaultError::Kernel)?;
                    written += 1;
                }
            }
        }
        Ok(written)
    }

    /// What the disk has now; empty for shared memory.
    pub fn on_disk(&self) -> Vec<u8> {
        let read = |disk: &RwLock<Vec<u8>>| disk.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.body.disk.as_ref().map(read).unwrap_or_default()
    }

    /// Where page `index` is now.
    pub fn place(&self, index: usize) -> Place {
        let common = self.body.common().get(&index).map(Arc::clone);
        common.map_or(Place::Untouched, |common| Place::of_common(&common.lock()))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}, {} pages, {} touched)", self.origin(), self.pages(), self.body.common().len())
    }
}

impl Body {
    pub(super) const fn origin(&self) -> PageOrigin {
        match self.disk {
            Some(_) => PageOrigin::PageCache,
            None => PageOrigin::SharedAnonymous,
        }
    }

    pub(super) const fn has_file(&self) -> bool {
        self.disk.is_some()
    }

    fn common(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<Common>>> {
        self.common.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Common>> {
        self.common().values().map(Arc::clone).collect()
    }

    /// Page `index`, which may have no frame yet; `None` if the object does not have it.
    pub(super) fn page(&self, index: usize) -> Option<Arc<Common>> {
        let held = || if self.has_file() { Held::OnDisk } else { Held::Zero };
        let make = || Common::of_object(Weak::clone(&self.me), index, held());
        (index < self.pages).then(|| Arc::clone(self.common().entry(index).or_insert_with(make)))
    }

    pub(super) fn policy(&self) -> Policy {
        *self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_policy(&self, wish: &Wish) -> Result<(), PolicyError> {
        let policy = Policy::new(self.shared.nodes, wish, Target::Range(self.origin()), &Mems::UNRESTRICTED)?;
        self.put_policy(policy);
        Ok(())
    }

    /// Puts a policy in force that was made for pages of this origin.
    pub(super) fn put_policy(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Lets the policy follow a node that left or came.
    pub(super) fn rebind(&self) {
        let mut policy = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        policy.rebind(self.shared.nodes, &Mems::UNRESTRICTED);
    }

    /// A frame for page `index` where the policies want it that count for a process, or for nobody in particular.
    pub(super) fn frame(&self, index: usize, counting: Option<&Counting>) -> Result<Frame, FaultError> {
        let object = self.policy();
        let placement = match counting {
            Some(counting) => counting.placement_of(self.origin()),
            None => Placement::new(self.origin(), self.home),
        };
        self.shared.place(&placement.object(&object).turn(index as u64))
    }

    /// Copies page `index` of the file to `frame`; whether that was possible. Behind the file's end there are zeroes.
    pub(super) fn read_in(&self, index: usize, frame: &Frame) -> bool {
        let (Some(disk), Some((site, number))) = (&self.disk, self.shared.locate(frame.pfn())) else {
            return false;
        };
        self.shared.zero(frame);
        let disk = disk.read().unwrap_or_else(PoisonError::into_inner);
        let read = !self.shared.fails(Point::FileRead)
            && site.backing.write(number, 0, &disk[self.on_disk(index, disk.len())]);
        self.shared.counters.read_in.add(u64::from(read));
        self.shared.note(|| Note::new(What::File, if read { Why::In } else { Why::Refused }).frame(frame));
        read
    }

    /// Copies `frame` to page `index` of the file; whether that was possible.
    pub(super) fn write_back(&self, index: usize, frame: &Frame) -> bool {
        let (Some(disk), Some((site, number))) = (&self.disk, self.shared.locate(frame.pfn())) else {
            return false;
        };
        let mut disk = disk.write().unwrap_or_else(PoisonError::into_inner);
        let part = self.on_disk(index, disk.len());
        let written = !self.shared.fails(Point::FileWrite) && site.backing.read(number, 0, &mut disk[part]);
        self.shared.counters.written_back.add(u64::from(written));
        self.shared
            .note(|| Note::new(What::File, if written { Why::Out } else { Why::Refused }).frame(frame));
        written
    }

    /// The bytes of page `index` in a file of `length` bytes.
    fn on_disk(&self, index: usize, length: usize) -> Range<usize> {
        let bytes = self.shared.page.bytes();
        let start = (index * bytes).min(length);
        start..(start + bytes).min(length)
    }

    /// Calls `copy` for each page of a run of bytes, with the page in a frame, where the bytes begin there, and which part
    /// of them these are.
    fn each_part(
        &self,
        offset: usize,
        bytes: usize,
        mut copy: impl FnMut(&mut super::common::Inner, &Shared, usize, Range<usize>) -> Result<(), FaultError>,
    ) -> Result<(), FaultError> {
        let size = self.shared.page.bytes();
        let mut done = 0;
        while done < bytes {
            let at = offset.checked_add(done).ok_or(FaultError::NotMapped)?;
            let part = (size - at % size).min(bytes - done);
            let index = at / size;
            let common = self.page(index).ok_or(FaultError::NotMapped)?;
            let mut inner = common.lock();
            if inner.frame().is_none() {
                let frame = self.frame(index, None)?;
                inner.bring_in(&self.shared, frame, Some((self, index)))?;
            }
            copy(&mut inner, &self.shared, at % size, done..done + part)?;
            done += part;
        }
        Ok(())
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // Nobody maps it any more: each area of a process holds the object.
        for common in self.all() {
            common.lock().release(&self.shared);
        }
    }
}

impl Shared {
    pub(super) fn objects(&self) -> MutexGuard<'_, Vec<Weak<Body>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live_objects(&self) -> Vec<Arc<Body>> {
        self.objects().iter().filter_map(Weak::upgrade).collect()
    }

    /// All pages that objects keep. Waits for no object: one that is in use just now is left out.
    pub(super) fn idle_object_pages(&self) -> Vec<Arc<Common>> {
        let pages = |body: &Arc<Body>| match body.common.try_lock() {
            Ok(common) => common.values().map(Arc::clone).collect(),
            Err(_) => Vec::new(),
        };
        self.live_objects().iter().flat_map(pages).collect()
    }

    /// All pages that objects keep.
    pub(super) fn object_pages(&self) -> Vec<Arc<Common>> {
        self.live_objects().iter().flat_map(|body| body.all()).collect()
    }

    /// Takes a frame where `placement` says; reclaims if there is none.
    pub(super) fn place(&self, placement: &Placement<'_>) -> Result<Frame, FaultError> {
        const BATCH: usize = 32;
        loop {
            match self.nodes.place(placement) {
                Ok(placed) => {
                    self.faults_by_policy.count(&placed.report);
                    return Ok(placed.frame);
                }
                Err(PlaceError::Contended { .. }) => std::thread::yield_now(),
                Err(PlaceError::NoMemory { .. }) if self.reclaim(BATCH) > 0 => {}
                Err(error) => {
                    if matches!(error, PlaceError::NoMemory { .. }) {
                        self.note(|| Note::new(What::NoMemory, Why::Shortage));
                    }
                    self.faults_by_policy.count_failure();
                    return Err(FaultError::NoPlace(error));
                }
            }
        }
    }
}
