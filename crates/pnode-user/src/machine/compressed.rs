//! A private node that keeps pages compressed: compressed RAM on its frames, and a window to read it through.
//!
//! A page that arrives is compressed into frames of the node. A program that reads it faults; the page is decompressed
//! into a frame of the *window*, a few frames of the same node, and mapped there read-only, as a compressing device
//! shows its lines through a cache. The page stays on the node, and the window is reused first in, first out. A write
//! never lands there: it moves the page to ordinary memory first.

use core::fmt;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, Weak};

use pnode_compress::codec::Scratch;
use pnode_compress::cram::{self, Cram, Curve, Pressure, Resident};
use pnode_compress::memory::Mapped;
use pnode_compress::store::{BlockSize, Config, ConfigError, Shard, Stats, Store, Worker};
use pnode_core::sync::{AtomicU64, SpinLock};
use pnode_core::{
    AllocError, Denied, Frame, FrameRange, FrameSource, Grant, NodeId, PageOrigin, Pfn, Request,
};

use super::reclaim::DemoteError;
use super::region::Region;
use super::site::Site;
use super::{Shared, Zone, keep};
use crate::arena::Arena;
use crate::backing::{Backing, OnBacking};
use crate::fault::{FaultError, Protection};

/// Two processors that demote at once do not wait for each other.
const SHARDS: usize = 2;

type Memory = Mapped<OnBacking<Grant<'static, Zone>>>;
type Handler<'h> = cram::Handler<'h, 'static, Worker<'h, 'static, Memory, SpinLock>>;

/// A compressed node at work.
///
/// # Invariants
///
/// - **Z1** `_arena` is dropped last, and only `service` holds references into it, which never leave.
pub(super) struct Compressed {
    node: NodeId,
    frames: FrameRange,
    /// How many of these frames there are.
    memory: u64,
    backing: Arc<Backing>,
    advertised: u32,
    /// `None` once the node is unplugged.
    service: RwLock<Option<Service>>,
    window: Mutex<Window>,
    /// The metadata of the store and of the service.
    _arena: Arena,
}

struct Service {
    cram: Cram<'static>,
    store: Store<'static, Memory>,
}

/// The frames through which stored pages are read.
struct Window {
    grant: Option<Grant<'static, Zone>>,
    /// Oldest first.
    frames: VecDeque<Shown>,
}

impl Window {
    /// A window of `count` frames that `grant` gives, which keeps none of them on an error.
    fn new(grant: Grant<'static, Zone>, count: u64) -> Result<Self, CompressedError> {
        let mut frames = VecDeque::new();
        for _ in 0..count {
            match grant.alloc(Request::page()) {
                Ok(frame) => frames.push_back(Shown { frame, page: None }),
                Err(error) => {
                    for Shown { frame, .. } in frames {
                        let returned = FrameSource::free(&grant, frame.pfn(), frame.order());
                        debug_assert_eq!(returned, Ok(()), "the grant gave the frame");
                    }
                    return Err(CompressedError::Window(error));
                }
            }
        }
        Ok(Self { grant: Some(grant), frames })
    }
}

struct Shown {
    frame: Frame,
    /// The page that is mapped there.
    page: Option<(Weak<Region>, usize)>,
}

/// What a thread needs to compress and decompress: too large for the stack of a thread that was interrupted.
struct Bench {
    /// The shard whose blocks take what is compressed here.
    shard: usize,
    scratch: Scratch,
    buffer: Vec<u8>,
    page: Vec<u8>,
}

/// The benches of a machine that no thread uses now.
#[derive(Default)]
pub(super) struct Benches {
    spare: Vec<Box<Bench>>,
    made: usize,
}

impl Compressed {
    /// Compressed RAM on the frames of `site` for up to `advertised` pages.
    pub(super) fn new(site: &Site, advertised: u64) -> Result<Self, CompressedError> {
        // First, so that on an error it is dropped last.
        let arena = Arena::new();
        let page = site.backing.page();
        let advertised = u32::try_from(advertised).ok().filter(|pages| *pages > 0);
        let advertised = advertised.ok_or(CompressedError::Advertised)?;
        let window = (site.memory() / 16).clamp(1, 64);
        // Blocks hold at least two raw pages.
        let block = if page.bytes() > 8192 { BlockSize::KIB128 } else { BlockSize::KIB16 };
        let room = (site.memory() - window) * page.bytes() as u64;
        let blocks = (room / block.bytes() as u64).max(SHARDS as u64);
        let blocks = u32::try_from(blocks).map_err(|_| CompressedError::Advertised)?;
        let config = Config::new(advertised, blocks).page(page).block(block);
        let words = |count: usize| -> Vec<_> { (0..count).map(|_| AtomicU64::new(0)).collect() };
        let store_words = keep(&arena, words(config.words().map_err(CompressedError::Store)?));
        let shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::new()).collect();
        let memory = site.grant_for_setup().map_err(CompressedError::Grant)?;
        let memory = OnBacking::mapped(memory, &site.backing, site.frames);
        let store =
            Store::new(config, memory, store_words, keep(&arena, shards)).map_err(CompressedError::Store)?;
        let cram = Cram::new(advertised, Curve::DEFAULT, keep(&arena, words(Cram::words(advertised))))
            .map_err(|_| CompressedError::Advertised)?;
        let window = Window::new(site.grant_for_setup().map_err(CompressedError::Grant)?, window)?;
        Ok(Self {
            node: site.node,
            frames: site.frames,
            memory: site.memory(),
            backing: Arc::clone(&site.backing),
            advertised,
            service: RwLock::new(Some(Service { cram, store })),
            window: Mutex::new(window),
            _arena: arena,
        })
    }

    pub(super) const fn node(&self) -> NodeId {
        self.node
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `work` with the service, unless the node is unplugged.
    fn with<R>(&self, work: impl FnOnce(&Service) -> R) -> Option<R> {
        self.service.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(work)
    }

    /// Calls `work` with a way to the service and room for a page, unless the node is unplugged. Not to be called
    /// inside itself: a waiting [`Compressed::close`] would stand between the two.
    fn handle<R>(&self, shared: &Shared, work: impl FnOnce(&mut Handler<'_>, &mut [u8]) -> R) -> Option<R> {
        let mut bench = Bench::take(shared);
        let Bench { shard, scratch, buffer, page } = &mut *bench;
        let result = self.with(|service| {
            let worker = service.store.worker(*shard, scratch, buffer).ok()?;
            Some(work(&mut service.cram.handler(worker), page))
        });
        Bench::put_back(shared, bench);
        result.flatten()
    }

    /// Takes in the page in `frame`, which nobody maps.
    pub(super) fn demote(&self, shared: &Shared, frame: &Frame) -> Result<Resident, DemoteError> {
        let unplugged = DemoteError::Unplugged { node: self.node };
        let (site, index) = shared.locate(frame.pfn()).ok_or(DemoteError::NotResident)?;
        let taken = self.handle(shared, |handler, page| {
            if !site.backing.read(index, 0, page) {
                return Err(DemoteError::NotResident);
            }
            handler.demote(PageOrigin::PrivateAnonymous, page).map_err(DemoteError::Refused)
        });
        taken.ok_or(unplugged)?
    }

    /// Copies the page to `frame` and calls `settle`, which makes the frame the page; then the page leaves the node.
    /// On an error it stays.
    pub(super) fn promote(
        &self,
        shared: &Shared,
        page: Resident,
        frame: &Frame,
        settle: impl FnOnce() -> Result<(), FaultError>,
    ) -> Result<(), FaultError> {
        let (site, index) = shared.locate(frame.pfn()).ok_or(FaultError::NotMapped)?;
        let promoted = self.handle(shared, |handler, bytes| {
            let copied = handler.write_fault(page)?.copy_to(bytes)?;
            if !site.backing.write(index, 0, bytes) {
                return Err(FaultError::NotMapped);
            }
            settle()?;
            copied.finish();
            Ok(())
        });
        promoted.unwrap_or(Err(FaultError::NotMapped))
    }

    /// Notes that there was no memory to promote a page to.
    pub(super) fn no_memory(&self, shared: &Shared, page: Resident) {
        self.handle(shared, |handler, _| {
            handler.write_fault(page).map(|promotion| promotion.no_memory()).err()
        });
    }

    /// Frees a page that nobody maps. The caller holds the page.
    pub(super) fn free(&self, shared: &Shared, page: Resident) {
        let freed = self.handle(shared, |handler, _| handler.free(page));
        debug_assert!(!matches!(freed, Some(Err(_))), "{freed:?}");
    }

    /// Maps the page read-only through the window. The caller holds the page.
    pub(super) fn show(&self, region: &Region, at: usize, page: Resident) -> Result<(), FaultError> {
        let mut window = self.window();
        let Some(mut shown) = window.frames.pop_front() else { return Err(FaultError::NotMapped) };
        // Dropped after the window is unlocked: it may be the last to know its region.
        let evicted = shown.page.take().and_then(|(region, page)| Some((region.upgrade()?, page)));
        let mapped = self.replace(&shown.frame, evicted.as_ref(), region, at, page);
        if mapped.is_ok() {
            shown.page = Some((Weak::clone(&region.me), at));
            window.frames.push_back(shown);
        } else {
            window.frames.push_front(shown);
        }
        drop(window);
        drop(evicted);
        mapped
    }

    fn replace(
        &self,
        frame: &Frame,
        evicted: Option<&(Arc<Region>, usize)>,
        region: &Region,
        at: usize,
        page: Resident,
    ) -> Result<(), FaultError> {
        if let Some((region, page)) = evicted {
            // Without the page's lock: if it has moved on to a frame of its own, it is mapped again at its next touch.
            region.view.unmap(*page, 1).map_err(FaultError::Kernel)?;
        }
        let index = frame.pfn().checked_sub(self.frames.start()).ok_or(FaultError::NotMapped)?;
        let written = self.handle(&region.shared, |handler, bytes| {
            handler.read(page, bytes)?;
            if self.backing.write(index, 0, bytes) { Ok(()) } else { Err(FaultError::NotMapped) }
        });
        written.unwrap_or(Err(FaultError::NotMapped))?;
        region.view.map(at, 1, &self.backing, index, Protection::ReadOnly).map_err(FaultError::Kernel)
    }

    /// Forgets that a page is shown: it is mapped elsewhere now, or nowhere. The caller holds the page.
    pub(super) fn forget(&self, region: &Region, at: usize) {
        for shown in &mut self.window().frames {
            let is_ours = |(of, page): &(Weak<Region>, usize)| *page == at && Weak::ptr_eq(of, &region.me);
            if shown.page.as_ref().is_some_and(is_ours) {
                shown.page = None;
            }
        }
    }

    /// Frames that the store and the window hold.
    pub(super) fn held_frames(&self) -> u64 {
        let page = self.backing.page().bytes() as u64;
        let pool = self.with(|service| service.store.stats().pool_bytes).unwrap_or(0) / page;
        pool + self.window().frames.len() as u64
    }

    /// Calls `each` with every frame of the window.
    pub(super) fn each_window(&self, mut each: impl FnMut(Pfn)) {
        self.window().frames.iter().for_each(|shown| each(shown.frame.pfn()));
    }

    /// How full it is, or `None` once it is unplugged.
    pub(super) fn usage(&self) -> Option<CompressedUse> {
        let (stats, pressure) = self.with(|service| (service.store.stats(), service.cram.pressure()))?;
        let page = self.backing.page().bytes() as u64;
        let window = self.window().frames.len() as u64 * page;
        let (advertised, physical) = (u64::from(self.advertised) * page, self.memory * page);
        Some(CompressedUse { stats, pressure, advertised, physical, window })
    }

    /// Takes no page from now on.
    pub(super) fn drain(&self) {
        // A second call finds it draining already.
        self.with(|service| service.cram.close().is_ok());
    }

    /// Takes pages again.
    pub(super) fn resume(&self) {
        self.with(|service| service.cram.reopen().is_ok());
    }

    /// Gives every frame back and ends the service.
    ///
    /// # Errors
    ///
    /// [`cram::LifeError`] while pages are there; nothing has changed then.
    pub(super) fn close(&self, shared: &Shared) -> Result<(), cram::LifeError> {
        let mut service: RwLockWriteGuard<'_, _> =
            self.service.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Service { cram, .. }) = &*service {
            cram.finish()?;
        }
        if let Some(Service { store, .. }) = service.take() {
            drop(store.dismantle());
        }
        drop(service);
        let mut window = self.window();
        let shown: Vec<_> = window.frames.drain(..).collect();
        let grant = window.grant.take();
        drop(window);
        for Shown { frame, page } in shown {
            if let Some((region, page)) = page.and_then(|(region, page)| Some((region.upgrade()?, page))) {
                // What cannot be unmapped keeps its frame: it must not show what somebody else writes there.
                if region.view.unmap(page, 1).is_err() {
                    continue;
                }
            }
            shared.give_back(frame);
        }
        drop(grant);
        Ok(())
    }
}

impl Bench {
    /// The bench that was used last, so that a single thread keeps to one shard.
    fn take(shared: &Shared) -> Box<Self> {
        shared.benches.lock().unwrap_or_else(PoisonError::into_inner).take(shared.page.bytes())
    }

    fn put_back(shared: &Shared, bench: Box<Self>) {
        shared.benches.lock().unwrap_or_else(PoisonError::into_inner).spare.push(bench);
    }
}

impl Benches {
    fn take(&mut self, page: usize) -> Box<Bench> {
        self.spare.pop().unwrap_or_else(|| {
            let shard = self.made % SHARDS;
            self.made += 1;
            Box::new(Bench { shard, scratch: Scratch::new(), buffer: vec![0; page], page: vec![0; page] })
        })
    }
}

/// How full a compressed node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressedUse {
    /// What the store holds.
    pub stats: Stats,
    /// How hard it is pressed.
    pub pressure: Pressure,
    /// The bytes of pages that the node says it can take.
    pub advertised: u64,
    /// The bytes that it has.
    pub physical: u64,
    /// Of these, the bytes through which pages are read.
    pub window: u64,
}

/// Why a compressed node could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressedError {
    /// It must advertise 1 to 2^32 - 1 pages.
    Advertised,
    /// Its owner was refused.
    Grant(Denied),
    /// It has no frames to read pages through.
    Window(AllocError),
    /// The store cannot be.
    Store(ConfigError),
}

impl fmt::Display for CompressedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Advertised => f.write_str("a compressed node advertises 1 to 2^32 - 1 pages"),
            Self::Grant(denied) => denied.fmt(f),
            Self::Window(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CompressedError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Machine, NodeSpec};
    use pnode_core::{MemoryClass, Order};

    #[test]
    fn the_metadata_of_a_node_ends_with_its_life() {
        let machine = Machine::builder()
            .node(NodeSpec::ordinary(64))
            .node(NodeSpec::compressed(64, 128))
            .build()
            .unwrap();
        let [dram, node] = [0, 1].map(|number| machine.node(number).unwrap());
        let memory = machine.map(8, dram).unwrap();
        for round in 0..3u8 {
            memory.write(0, &[round; 100]).unwrap();
            assert_eq!(memory.demote(0..1, node).unwrap().pages, 1);
            let service = Arc::downgrade(&machine.shared.site(node).unwrap().compressed().unwrap());
            machine.unplug(node).unwrap();
            assert!(service.upgrade().is_none(), "round {round}");
            machine.plug(node).unwrap();
            let mut bytes = [0xff; 100];
            memory.read(0, &mut bytes).unwrap();
            assert_eq!(bytes, [round; 100]);
        }
    }

    #[test]
    fn a_service_that_finds_too_few_frames_keeps_none() {
        // The window of a node of 48 frames has 3.
        let machine =
            Machine::builder().node(NodeSpec::private(MemoryClass::COMPRESSED, 48)).build().unwrap();
        let node = machine.node(0).unwrap();
        let grant = machine.owner_grant(node).unwrap();
        let taken: Vec<_> = (0..46).map(|_| grant.alloc(Request::page()).unwrap()).collect();
        let shared = &machine.shared;
        let refused = Compressed::new(shared.site(node).unwrap(), 96).err();
        assert_eq!(refused, Some(CompressedError::Window(AllocError::NoMemory { order: Order::ZERO })));
        assert_eq!(machine.free_frames(node), 2);
        taken.into_iter().for_each(|frame| machine.free(frame).unwrap());
        machine.audit().unwrap();
        drop(grant);
        // Nor does it keep a grant.
        machine.unplug(node).unwrap();
    }
}
