//! Compressed RAM as a service: pages live in a compressed node, read where they are, and leave it to be written.
//!
//! A compressed node *advertises* more frames than it has memory for, and lives on its data compressing. What makes that
//! safe is that contents cannot change behind the service's back: pages come in by demotion only, through admission;
//! while they are resident they are read-only; and a write promotes the page to ordinary memory before it happens. So
//! physical use grows only when the service lets it, and an accepted page is never lost.
//!
//! After the compressed RAM of the Linux private memory nodes (mail *mm/cram*, February 2026), with its gaps closed: a
//! promotion without memory is an error and not a success, pages are evicted before the service goes, and no fence
//! outlives it.
//!
//! # What a host calls, on one page
//!
//! | when | the host | the service |
//! | --- | --- | --- |
//! | at start | makes a [`Cram`] over words that it lends, and in each thread a [`Handler`] with that thread's [`Medium`] | |
//! | **demotion**: a cold private anonymous page is to leave | unmaps it (so that it cannot change), calls [`Handler::demote`], which refuses any other, puts [`Resident::to_bits`] in the page-table entry, frees the old frame | tests admission for this very page, keeps a compressed copy. On an error nothing is left in the node: map the page again, or take it to the next tier |
//! | **read fault** | takes a frame, calls [`Handler::read`], maps the frame *read-only*; the page stays resident, and the frame is a clean cache that may be dropped at any time | decompresses, verifies; a node that can be mapped itself is mapped read-only, and no fault happens |
//! | **write fault** | calls [`Handler::write_fault`]; takes a frame, or returns [`Promotion::no_memory`]; [`Promotion::copy_to`] the frame; maps it writable; [`Copied::finish`] | exactly one of all racing writers gets the [`Promotion`], the others [`Retry`]; the page is freed and scrubbed only in `finish`. A promotion that is dropped on the way leaves the page resident |
//! | **write in place**, if the host sets a budget | [`Handler::open`], [`Handler::fence`] | counts the open pages, and sets the worst case of each aside in the medium |
//! | **free**: unmap or exit | calls [`Handler::free`] | scrubs: the frame costs nothing any more |
//! | **fork** | keeps one [`Resident`] for both and counts it, or promotes first | a `Resident` is a name; the service does not count who keeps it |
//! | **hot page**: the device names a frame that is read often | calls [`Cram::nominate`]; promotes the page as for a write | keeps to a [`RateLimit`], and drops what names a page that is gone |
//! | **balloon**: the device wants memory back | asks [`Cram::balloon_step`] until it has nothing to do | says what comes next: inflate, deflate, or make room by the next [`Rung`] |
//! | **pressure** | asks [`Cram::pressure`], evicts as it asks | 0 is idle, 1..=999 asks for eviction while demotion goes on, 1000 admits nothing |
//! | **registration** | makes [`CramOps`] over its own [`CramHost`], calls [`CramNode::register`] | claims the node, brings its memory online, installs the callbacks; all or nothing |
//! | **unplug** | [`Cram::close`]; for each of [`Cram::residents`] promotes or frees the page; [`Cram::finish`]; then drops the medium and its frames | takes nothing from `close` on, and does not finish while a page is left |
//!
//! A result of [`FaultError::Retry`] means: leave the fault without having changed anything, let others run, and let the
//! access fault again. [`FaultError::Stale`] means that somebody else has settled it: look at the entry again.
//!
//! ```
//! use pnode_compress::codec::Scratch;
//! use pnode_compress::cram::{Cram, Curve, FaultError, Retry};
//! use pnode_compress::memory::{BufferFrames, PageBytes};
//! use pnode_compress::store::{Config, Shard, Store};
//! use pnode_core::PageOrigin;
//! use pnode_core::sync::AtomicU64;
//! # let words = |n| (0..n).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
//!
//! // A node of 64 frames that advertises 256.
//! let config = Config::new(256, 16);
//! let (mut pages, mut taken) = (vec![PageBytes::ZEROED; 64], words(1));
//! let (mut store_words, mut shards) = (words(config.words()?), [Shard::<pnode_core::sync::SpinLock>::new()]);
//! let store = Store::new(config, BufferFrames::new(&mut pages, &mut taken)?, &mut store_words, &mut shards)?;
//! let mut cram_words = words(Cram::words(256));
//! let cram = Cram::new(256, Curve::DEFAULT, &mut cram_words)?;
//!
//! let (mut scratch, mut buffer) = (Scratch::new(), [0; 4096]);
//! let mut handler = cram.handler(store.worker(0, &mut scratch, &mut buffer)?);
//!
//! // Demotion, and a read that leaves the page where it is.
//! let page = [*b"a line in a log\n"; 256].concat();
//! let resident = handler.demote(PageOrigin::PrivateAnonymous, &page)?;
//! let mut frame = [0; 4096];
//! handler.read(resident, &mut frame)?;
//! assert_eq!(page, frame);
//!
//! // A write without memory to promote to: try again later, and the page is still there.
//! let out_of_memory = handler.write_fault(resident)?.no_memory();
//! assert_eq!(out_of_memory, FaultError::Retry(Retry::NoMemory));
//!
//! // A write that finds a frame.
//! let copied = handler.write_fault(resident)?.copy_to(&mut frame)?;
//! // .. the host maps `frame` writable here ..
//! copied.finish();
//! assert!(matches!(handler.read(resident, &mut [0; 4096]), Err(FaultError::Stale(_))));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod balloon;
mod bound;
mod budget;
mod charge;
mod error;
mod frames;
mod handler;
mod limit;
mod medium;
mod node;
mod ops;
mod pressure;
mod stats;

pub use balloon::{Balloon, BalloonStep, Rung};
pub use bound::{Announced, Bound};
pub use charge::Charge;
pub use error::{DemoteError, FaultError, LifeError, OpenError, Retry};
pub use frames::{Resident, Stale};
pub use handler::{Copied, Handler, Promotion};
pub use limit::{NotPromoted, RateLimit};
pub use medium::{Medium, ReadError, TrimFailed, Usage, WriteError};
pub use node::{CramNode, CramNodeError};
pub use ops::{CramHost, CramOps};
pub use pressure::{Curve, CurveError, Pressure};
pub use stats::CramStats;

use core::fmt;

use pnode_core::sync::{AtomicU32, AtomicU64, Ordering, fence};

use frames::{Frames, State};
use stats::COUNTERS;

/// Where a compressed node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Pages may come in.
    Open = 0,
    /// No page comes in; the ones that are there are to be promoted or freed.
    Draining = 1,
    /// No page is there, and none will be.
    Closed = 2,
}

/// The service of one compressed node; see the [module](self). All calls may come from many threads at once.
pub struct Cram<'m> {
    frames: Frames<'m>,
    curve: Curve,
    phase: AtomicU32,
    /// What the driver says, if it says anything.
    told: AtomicU32,
    /// What the curve said last.
    seen: AtomicU32,
    occupied: AtomicU64,
    ballooned: AtomicU64,
    /// Pages that may be open for writing, and pages that are.
    budget: AtomicU64,
    writable: AtomicU64,
    /// The frame where the search for a page to close goes on.
    hand: AtomicU32,
    counters: [AtomicU64; COUNTERS],
}

/// Fewer words were lent than [`Cram::words`] asks for, or there are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CramTooSmall {
    /// The words that were lent.
    pub words: usize,
    /// The words that are needed.
    pub needed: usize,
}

impl fmt::Display for CramTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} words were lent, {} are needed, for at least one frame", self.words, self.needed)
    }
}

impl core::error::Error for CramTooSmall {}

/// Advertised and physical capacity, side by side and never mixed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capacity {
    /// Frames that the node seems to have.
    pub advertised_frames: u64,
    /// Frames that hold a page, or are about to.
    pub occupied_frames: u64,
    /// Frames in the balloon, which no page may use.
    pub ballooned_frames: u64,
    /// Frames whose page is open for writing.
    pub writable_frames: u64,
    /// The medium's physical memory in use, in bytes.
    pub used_bytes: u64,
    /// The medium's physical memory in all, in bytes.
    pub physical_bytes: u64,
}

impl<'m> Cram<'m> {
    /// How many words a service of `frames` advertised frames takes, of 8 bytes each.
    pub const fn words(frames: u32) -> usize {
        Frames::words(frames)
    }

    /// A service for a node that advertises `frames` frames, all free, whose pressure follows `curve`.
    ///
    /// # Errors
    ///
    /// [`CramTooSmall`] if `words` has fewer than [`Cram::words`] words, or there are no frames.
    pub fn new(frames: u32, curve: Curve, words: &'m mut [AtomicU64]) -> Result<Self, CramTooSmall> {
        let too_small = CramTooSmall { words: words.len(), needed: Self::words(frames.max(1)) };
        let words = &*words;
        let words = words.get(..Self::words(frames)).filter(|_| frames > 0).ok_or(too_small)?;
        Ok(Self {
            frames: Frames::new(frames, words),
            curve,
            phase: AtomicU32::new(Phase::Open as u32),
            told: AtomicU32::new(0),
            seen: AtomicU32::new(0),
            occupied: AtomicU64::new(0),
            ballooned: AtomicU64::new(0),
            budget: AtomicU64::new(0),
            writable: AtomicU64::new(0),
            hand: AtomicU32::new(0),
            counters: core::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// One thread's way to the service, through that thread's way to the medium.
    ///
    /// All handlers of a service are given ways to one and the same medium, which serves no other service.
    pub fn handler<M: Medium>(&self, medium: M) -> Handler<'_, 'm, M> {
        Handler::new(self, medium, &mut [])
    }

    /// The same, with room for pages that were freed and wait for one trim of all their frames.
    ///
    /// Freeing is then in two phases: the page is gone at once, its frame is used again after [`Handler::flush`]. When
    /// `deferred` is full, a page is discarded at once. What `deferred` holds does not matter.
    pub fn deferring<'c, M: Medium>(&'c self, medium: M, deferred: &'c mut [Resident]) -> Handler<'c, 'm, M> {
        Handler::new(self, medium, deferred)
    }

    /// The page that is resident in a frame, by now. For a frame that a device names as hot, see [`Cram::nominate`].
    pub fn resident_at(&self, frame: u32) -> Option<Resident> {
        self.frames.resident_at(frame)
    }

    /// What the driver knows of its device's pressure; it holds until the next call. The higher of this and of what
    /// follows from use counts.
    pub fn set_pressure(&self, pressure: Pressure) {
        // Relaxed: admission is tested anew for each page, and a page that is under way was admitted before.
        self.told.store(pressure.permille().into(), Ordering::Relaxed);
    }

    /// The pressure as of the last page that was tested, or the driver's if that is higher.
    pub fn pressure(&self) -> Pressure {
        let told = self.told.load(Ordering::Relaxed);
        Pressure::new(told.max(self.seen.load(Ordering::Relaxed)))
    }

    /// Where the node is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Open,
            1 => Phase::Draining,
            _ => Phase::Closed,
        }
    }

    fn step(&self, from: Phase, to: Phase) -> Result<(), LifeError> {
        // Relaxed: what a step must be ordered with, the fences in `close` and `admit` and the count of pages order.
        self.phase
            .compare_exchange(from as u32, to as u32, Ordering::Relaxed, Ordering::Relaxed)
            .map(|_| ())
            .map_err(|_| LifeError::OutOfOrder { phase: self.phase() })
    }

    /// Takes no page from now on.
    ///
    /// # Errors
    ///
    /// [`LifeError::OutOfOrder`] unless the node is open.
    pub fn close(&self) -> Result<(), LifeError> {
        self.step(Phase::Open, Phase::Draining)?;
        // Pairs with the fence in `admit`: a page that is coming in sees that the node is closed, or is counted before
        // anybody looks at the count after this call.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Takes pages again.
    ///
    /// # Errors
    ///
    /// [`LifeError::OutOfOrder`] unless the node is draining.
    pub fn reopen(&self) -> Result<(), LifeError> {
        self.step(Phase::Draining, Phase::Open)
    }

    /// Ends the service of a node that is drained. Its medium may go.
    ///
    /// # Errors
    ///
    /// [`LifeError::Occupied`] while a page is there; [`LifeError::OutOfOrder`] unless the node is draining.
    pub fn finish(&self) -> Result<(), LifeError> {
        if self.phase() != Phase::Draining {
            return Err(LifeError::OutOfOrder { phase: self.phase() });
        }
        // Acquire pairs with the Release in `vacate`: what the last page's handler did with the medium is done.
        match self.occupied.load(Ordering::Acquire) {
            0 => self.step(Phase::Draining, Phase::Closed),
            pages => Err(LifeError::Occupied { pages }),
        }
    }

    /// The pages that are resident, by frame. A page that leaves meanwhile may be named or not; one that stays is named.
    pub fn residents(&self) -> impl Iterator<Item = Resident> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let page = self.frames.resident_from(from)?;
            from = page.frame() + 1;
            Some(page)
        })
    }

    /// Whether the page is resident, by now.
    pub fn is_resident(&self, page: Resident) -> bool {
        matches!(self.frames.state(page), Some(State::Resident | State::Writable))
    }

    /// Advertised and physical capacity, with what `medium` says of its use.
    pub fn capacity(&self, medium: &impl Medium) -> Capacity {
        let Usage { used, physical } = medium.usage();
        Capacity {
            advertised_frames: self.frames.count().into(),
            occupied_frames: self.occupied.load(Ordering::Relaxed),
            ballooned_frames: self.ballooned.load(Ordering::Relaxed),
            writable_frames: self.writable.load(Ordering::Relaxed),
            used_bytes: used,
            physical_bytes: physical,
        }
    }

    /// The pressure that follows from `usage` now, with the driver's.
    fn press(&self, usage: Usage) -> Pressure {
        // Two threads may judge at once; either verdict is one of a moment ago.
        let last = Pressure::new(self.seen.load(Ordering::Relaxed));
        let seen = self.curve.pressure(last, usage.used, usage.physical);
        self.seen.store(seen.permille().into(), Ordering::Relaxed);
        self.pressure()
    }

    /// Tests whether a page may come in now, and takes a frame for it.
    fn admit(&self, usage: Usage) -> Result<Resident, DemoteError> {
        let pressure = self.press(usage);
        if !pressure.admits() {
            return Err(DemoteError::Pressure { pressure });
        }
        self.occupied.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `close`.
        fence(Ordering::SeqCst);
        let phase = self.phase();
        let page = if phase == Phase::Open {
            self.frames.begin_fill().ok_or(DemoteError::NoFrame)
        } else {
            Err(DemoteError::NotOpen { phase })
        };
        page.inspect_err(|_| {
            // Relaxed: nobody touched the medium for this page.
            self.occupied.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// Gives back the frame of a page that the caller was filling or freeing.
    fn vacate(&self, page: Resident) {
        self.frames.freed(page);
        // Release pairs with the Acquire in `finish`.
        self.occupied.fetch_sub(1, Ordering::Release);
    }
}

impl fmt::Debug for Cram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cram({:?}, {:?}, {:?})", self.phase(), self.pressure(), self.stats())
    }
}
