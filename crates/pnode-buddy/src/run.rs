//! Contiguous frames that are no block: an exact range, or any number of frames anywhere, aligned and within limits.
//!
//! A run is in the books as blocks: it is cut into naturally aligned ones, each as large as can be, and each of them is
//! taken by one compare-and-swap. There is no claim that spans words here either; a run that cannot be completed gives
//! back what it has, block by block, as frees do. [`Zone::free_range`] frees all the blocks of a range, if the range
//! begins and ends where blocks do. (CMA and `alloc_contig_range`, `mm/page_alloc.c`, and `alloc_pages_exact` offer the
//! same to Linux drivers.)

use core::fmt;
use core::ops::ControlFlow;

use pnode_core::sync::spin_loop;
use pnode_core::{FrameRange, FreeError, MigrateType, Order, Pfn};

use crate::error::AllocAtError;
use crate::gate::Seen;
use crate::table::Part;
use crate::walk::{Look, Use, split_into_blocks};
use crate::zone::Zone;

/// How often a search for a run that competed with others looks again.
const LOOKS: u32 = 16;

/// What a run of frames has to be like.
///
/// ```
/// use pnode_buddy::{Geometry, Line, Metadata, Run, Zone};
/// use pnode_core::{FrameRange, Order, Pfn};
///
/// let range = FrameRange::new(Pfn::new(0), 1 << 21)?;
/// let mut lines = vec![Line::ZERO; Geometry::new(range)?.lines()];
/// let zone = Zone::new(range, Metadata::assume_zeroed(&mut lines))?;
/// // 300 frames that a device with 32 address bits reaches (4 KiB frames below 4 GiB), aligned to 64 KiB.
/// let run = zone.alloc_run(Run::of(300).aligned(Order::new(4)?).below(Pfn::new(1 << 20)))?;
/// assert_eq!((run.frames(), run.start().get() % 16), (300, 0));
/// zone.free_range(run)?;
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    frames: u64,
    align: Order,
    from: Pfn,
    below: Pfn,
    migrate: MigrateType,
}

impl Run {
    /// Any `frames` adjacent frames, unmovable.
    pub const fn of(frames: u64) -> Self {
        Self {
            frames,
            align: Order::ZERO,
            from: Pfn::new(0),
            below: Pfn::new(u64::MAX),
            migrate: MigrateType::Unmovable,
        }
    }

    /// The first frame is a multiple of `2^align`.
    #[must_use]
    pub const fn aligned(self, align: Order) -> Self {
        Self { align, ..self }
    }

    /// No frame is below `from`.
    #[must_use]
    pub const fn from(self, from: Pfn) -> Self {
        Self { from, ..self }
    }

    /// All frames are below `below`, as for a device that drives few address bits.
    #[must_use]
    pub const fn below(self, below: Pfn) -> Self {
        Self { below, ..self }
    }

    /// The type of areas that were unclaimed before.
    #[must_use]
    pub const fn migrate(self, migrate: MigrateType) -> Self {
        Self { migrate, ..self }
    }
}

/// Why no run of frames was handed out. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// A run has at least one frame.
    Empty,
    /// No such run was free all through the call.
    Exhausted {
        /// The frames asked for.
        frames: u64,
    },
    /// The zone is isolated.
    Closed,
    /// Others took and gave back frames of every candidate for too long; try again.
    Contended,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a run of no frames was asked for"),
            Self::Exhausted { frames } => {
                write!(f, "no run of {frames} free frames is there; move blocks away, or ask for less")
            }
            Self::Closed => f.write_str("the zone is isolated; no run is handed out"),
            Self::Contended => f.write_str("runs of free frames are being taken and given back; try again"),
        }
    }
}

impl core::error::Error for RunError {}

/// Why a range was not freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeRangeError {
    /// Frames from the start of the range that were freed before: 0, and nothing has changed, unless somebody else freed
    /// parts of the range during the call.
    pub freed: u64,
    /// The first block that could not be freed, and why.
    pub cause: FreeError,
}

impl fmt::Display for FreeRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.freed {
            0 => write!(f, "nothing was freed: {}", self.cause),
            freed => write!(f, "{freed} frames were freed, then somebody else was faster: {}", self.cause),
        }
    }
}

impl core::error::Error for FreeRangeError {}

impl Zone<'_> {
    /// Takes exactly the frames of `range`: all or none. Areas that were unclaimed become ones of `migrate`.
    ///
    /// The range may begin and end anywhere. It is freed by [`Zone::free_range`]; the blocks that it is made of (see the
    /// module docs) may also be freed one by one, and so a tail of it given back early.
    ///
    /// # Errors
    ///
    /// [`AllocAtError`] for the first block that could not be taken, and nothing has changed.
    pub fn alloc_range(&self, range: FrameRange, migrate: MigrateType) -> Result<(), AllocAtError> {
        self.take_range(range, migrate, &mut None)
    }

    /// [`Zone::alloc_range`]; tells `seen` of the move that giving back is.
    fn take_range(
        &self,
        range: FrameRange,
        migrate: MigrateType,
        seen: &mut Option<Seen>,
    ) -> Result<(), AllocAtError> {
        if !self.span().contains_range(range) {
            return Err(AllocAtError::OutOfZone { pfn: range.start() });
        }
        let mut failed = None;
        each_block(range, |pfn, order| match self.alloc_at(pfn, order, migrate) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some((pfn, error));
                ControlFlow::Break(())
            }
        });
        let Some((end, error)) = failed else { return Ok(()) };
        // Others that look for a run saw these frames taken: they see the gate moved, too, and look again.
        self.gate.enter();
        each_block(range, |pfn, order| {
            if pfn == end {
                return ControlFlow::Break(());
            }
            // Just taken, and nobody else knows it: the free cannot be refused.
            let _ = self.free(pfn, order);
            ControlFlow::Continue(())
        });
        self.gate.leave();
        *seen = seen.map(Seen::after_own);
        Err(error)
    }

    /// Takes a run of adjacent frames, of any number.
    ///
    /// Without limits, and if a block that holds the run is free, it is the start of the block that [`Zone::alloc`] would
    /// have taken, and the rest stays free: `O(1)`. Else it is the lowest place that will do: `O(zone)`.
    ///
    /// # Errors
    ///
    /// [`RunError`], and nothing has changed.
    pub fn alloc_run(&self, run: Run) -> Result<FrameRange, RunError> {
        if run.frames == 0 {
            return Err(RunError::Empty);
        }
        let limits = FrameRange::new(run.from, run.below.get().saturating_sub(run.from.get()));
        let Some(window) = limits.ok().and_then(|limits| limits.intersection(self.span())) else {
            return Err(RunError::Exhausted { frames: run.frames });
        };
        if window == self.span() {
            if let Some(found) = self.alloc_run_in_block(run) {
                return Ok(found);
            }
        }
        for _ in 0..LOOKS {
            if self.is_shut() {
                return Err(RunError::Closed);
            }
            let mut seen = Some(self.gate.look());
            match self.first_run(run, window, &mut seen) {
                Ok(found) => return Ok(found),
                Err(false) if seen.is_some_and(|seen| self.gate.still(seen)) => {
                    return Err(RunError::Exhausted { frames: run.frames });
                }
                Err(_) => spin_loop(),
            }
        }
        Err(RunError::Contended)
    }

    /// Frees all blocks of `range`, which begins and ends where blocks do.
    ///
    /// # Errors
    ///
    /// [`FreeRangeError`] if a frame of it is not allocated, or a block lies in it in part only
    /// ([`FreeError::WrongOrder`]), and nothing has changed; for the one exception see there.
    pub fn free_range(&self, range: FrameRange) -> Result<(), FreeRangeError> {
        let refused = |cause| Err(FreeRangeError { freed: 0, cause });
        if !self.span().contains_range(range) {
            return refused(FreeError::OutOfZone { pfn: range.start() });
        }
        let mut wrong = None;
        let _ = self.walk_range(range, Look::Glance, &mut |piece| {
            let (pfn, first) = (Pfn::new(piece.pfn), Pfn::new(piece.pfn.max(range.start().get())));
            let whole = pfn >= range.start() && piece.last() < range.end().get();
            wrong = match (piece.what, Order::new(piece.order)) {
                (Use::Block, Ok(_)) if whole => return ControlFlow::Continue(()),
                (Use::Block, Ok(order)) => Some(FreeError::WrongOrder { pfn: first, order }),
                (Use::Cached, _) => Some(FreeError::Cached { pfn: first }),
                (Use::Absent, _) => Some(self.absence(first)),
                _ => Some(FreeError::NotAllocated { pfn: first }),
            };
            ControlFlow::Break(())
        });
        if let Some(cause) = wrong {
            return refused(cause);
        }
        let mut result = Ok(());
        let _ = self.walk_range(range, Look::Glance, &mut |piece| {
            let pfn = Pfn::new(piece.pfn);
            let freed = match (piece.what, Order::new(piece.order)) {
                (Use::Block, Ok(order)) => self.free(pfn, order),
                _ => Err(FreeError::NotAllocated { pfn }),
            };
            match freed {
                Ok(()) => ControlFlow::Continue(()),
                Err(cause) => {
                    result = Err(FreeRangeError { freed: piece.pfn - range.start().get(), cause });
                    ControlFlow::Break(())
                }
            }
        });
        result
    }

    /// The start of a free block that is large enough.
    fn alloc_run_in_block(&self, run: Run) -> Option<FrameRange> {
        let order = Order::for_frames(run.frames).filter(|order| *order >= run.align)?;
        let pfn = self.alloc(order, run.migrate).ok()?;
        let found = FrameRange::new(pfn, run.frames).ok()?;
        if run.frames == order.frames() {
            return Some(found);
        }
        // It is ours, so the free cannot be refused; if somebody is faster then, we look elsewhere.
        self.free(pfn, order).ok()?;
        self.alloc_range(found, run.migrate).ok().map(|()| found)
    }

    /// The lowest run in the window that can be taken; `Err(true)` if a candidate was in motion.
    fn first_run(&self, run: Run, window: FrameRange, seen: &mut Option<Seen>) -> Result<FrameRange, bool> {
        let mut from = window.start();
        let mut busy = false;
        while let Some(found) = self.next_run(run, from, window.end()) {
            let at = match self.take_range(found, run.migrate, seen) {
                Ok(()) => return Ok(found),
                Err(AllocAtError::Isolated { pfn }) => {
                    // Nothing before the end of that range will do.
                    let isolated = self.listed_around(Part::Isolated, pfn);
                    isolated.map_or(pfn, |range| Pfn::new(range.end().get() - 1))
                }
                Err(AllocAtError::NotFree { pfn, .. } | AllocAtError::Offline { pfn }) => pfn,
                Err(AllocAtError::Contended { pfn }) => {
                    busy = true;
                    pfn
                }
                Err(_) => found.start(),
            };
            from = Pfn::new(at.get() + 1);
        }
        Err(busy)
    }

    /// The lowest run of free frames in `from..end`.
    fn next_run(&self, run: Run, from: Pfn, end: Pfn) -> Option<FrameRange> {
        let window = FrameRange::new(from, end.get().checked_sub(from.get())?).ok()?;
        let mut found = None;
        // Where the free frames that were seen last begin; the walk leaves no frame out.
        let mut start = from.get();
        let _ = self.walk_range(window, Look::Glance, &mut |piece| {
            let last = piece.last().min(end.get() - 1);
            if piece.what != Use::Free {
                start = last + 1;
            } else if let Some(aligned) = Pfn::new(start).align_up(run.align) {
                if aligned.get() <= last && last - aligned.get() >= run.frames - 1 {
                    found = FrameRange::new(aligned, run.frames).ok();
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        found
    }
}

/// The naturally aligned blocks that a range consists of, until `visit` says stop.
fn each_block(range: FrameRange, mut visit: impl FnMut(Pfn, Order) -> ControlFlow<()>) {
    let mut flow = ControlFlow::Continue(());
    split_into_blocks(range.start().get()..range.end().get(), &mut |pfn, order| {
        if flow.is_continue() {
            flow = visit(pfn, order);
        }
    });
}
