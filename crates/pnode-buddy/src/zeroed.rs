//! Which free frames are known to be zero, for hosts that scrub memory ahead of time or whose device does it for them.
//!
//! A bit a frame on further lines of the caller: 32 KiB a GiB at 4 KiB pages. The zone does not know of it. The bits of a
//! block change only while it is allocated, by who has it, or absent, so the hand-over of the block orders them too. (The
//! buddy allocator of the GPU drivers keeps cleared blocks apart for the same users, `drivers/gpu/drm/drm_buddy.c`.)

use core::fmt;
use core::ops::ControlFlow;

use pnode_core::sync::AtomicU64;
use pnode_core::sync::Ordering::Relaxed;
use pnode_core::{FrameError, FrameRange, FrameSource, FreeError, MigrateType, Order, Pfn};

use crate::error::ZoneError;
use crate::metadata::{Line, Words};
use crate::node::{self, CHILDREN};
use crate::walk::{Look, Use};
use crate::word;
use crate::zone::Zone;

/// What is known of the bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// All of them are zero.
    Zero,
    /// Nothing: zero them if you need to.
    Unknown,
}

/// Why frames were not marked as zero. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MarkError {
    /// The range is not inside the zone.
    OutOfZone {
        /// The range.
        range: FrameRange,
    },
    /// This frame is in service: somebody may have it, and write to it.
    InService {
        /// The frame.
        pfn: Pfn,
    },
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfZone { range } => write!(f, "{range:?} is not inside this zone; cut it to the zone"),
            Self::InService { pfn } => {
                write!(f, "{pfn:?} is in service; take its range offline, or allocate it and free it as zero")
            }
        }
    }
}

impl core::error::Error for MarkError {}

/// A zone with the knowledge of which frames are zero.
///
/// ```
/// use pnode_buddy::{Contents, Geometry, Line, Metadata, Zeroed, Zone};
/// use pnode_core::{FrameRange, MigrateType, Order, Pfn};
///
/// let range = FrameRange::new(Pfn::new(0), 4096)?;
/// let (mut lines, mut bits) = ([Line::ZERO; 64], [Line::ZERO; 8]);
/// assert!(Geometry::new(range)?.lines() <= 64 && Zeroed::lines(range) == 8);
/// let zone = Zone::new(range, Metadata::assume_zeroed(&mut lines))?;
/// let zeroed = Zeroed::new(&zone, &mut bits)?;
/// let (pfn, contents) = zeroed.alloc(Order::ZERO, MigrateType::Movable)?;
/// assert_eq!(contents, Contents::Unknown);
/// // The frame is scrubbed here.
/// zeroed.free_as(pfn, Order::ZERO, Contents::Zero)?;
/// assert_eq!(zeroed.alloc(Order::ZERO, MigrateType::Movable)?, (pfn, Contents::Zero));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Zeroed<'z, 'm> {
    zone: &'z Zone<'m>,
    bits: Words<'z>,
}

impl<'z, 'm> Zeroed<'z, 'm> {
    /// How many [`Line`]s the bits for the frames of `range` take.
    pub const fn lines(range: FrameRange) -> usize {
        (range.frames() as usize).div_ceil(64 * Line::WORDS)
    }

    /// Nothing is known of the frames of `zone` yet; the lines are set to zero.
    ///
    /// # Errors
    ///
    /// [`ZoneError::MetadataTooSmall`].
    pub fn new(zone: &'z Zone<'m>, lines: &'z mut [Line]) -> Result<Self, ZoneError> {
        let (needed, given) = (Self::lines(zone.span()), lines.len());
        if given < needed {
            return Err(ZoneError::MetadataTooSmall { needed, given });
        }
        lines.fill(Line::ZERO);
        Ok(Self { zone, bits: Words::borrowed(lines) })
    }

    /// The zone. What was allocated there without this value has to be shown to [`Zeroed::take`].
    pub fn zone(&self) -> &'z Zone<'m> {
        self.zone
    }

    /// [`Zone::alloc`], and what is known of the block's bytes. From now on nothing is.
    ///
    /// # Errors
    ///
    /// As [`Zone::alloc`].
    pub fn alloc(&self, order: Order, migrate: MigrateType) -> Result<(Pfn, Contents), FrameError> {
        let pfn = self.zone.alloc(order, migrate)?;
        Ok((pfn, self.take(pfn, order)))
    }

    /// What is known of the bytes of a block that the caller has just allocated in another way (a [`Cpu`](crate::Cpu), a
    /// run): to be asked before the first write, because from now on nothing is known. For frames outside the zone
    /// nothing is.
    pub fn take(&self, pfn: Pfn, order: Order) -> Contents {
        if !self.zone.covers(pfn, order) {
            return Contents::Unknown;
        }
        let mut contents = Contents::Zero;
        self.each_word(pfn, order.frames(), |word, mask| {
            // Relaxed, here and below: the block is ours, and who has it next is ordered by the zone.
            let known = word.load(Relaxed) & mask;
            if known != mask {
                contents = Contents::Unknown;
            }
            if known != 0 {
                word.fetch_and(!mask, Relaxed);
            }
        });
        contents
    }

    /// [`Zone::free`] of a block of which `contents` is known.
    ///
    /// # Errors
    ///
    /// As [`Zone::free`]; what is known has not changed then.
    pub fn free_as(&self, pfn: Pfn, order: Order, contents: Contents) -> Result<(), FreeError> {
        if !self.zone.is_allocated(pfn, order) {
            // Refused, and the zone says why. If it is allocated by now, nothing is known of it.
            return self.zone.free(pfn, order);
        }
        match contents {
            Contents::Zero => self.each_word(pfn, order.frames(), |word, mask| {
                word.fetch_or(mask, Relaxed);
            }),
            Contents::Unknown => {
                self.take(pfn, order);
            }
        }
        let freed = self.zone.free(pfn, order);
        if freed.is_err() {
            // Somebody else freed it since we looked.
            self.take(pfn, order);
        }
        freed
    }

    /// Marks all frames of a range as zero that is out of service (isolated with nothing in use, or offline): after its
    /// device was reset, say.
    ///
    /// # Errors
    ///
    /// [`MarkError`], and nothing has changed.
    pub fn mark_zeroed(&self, range: FrameRange) -> Result<(), MarkError> {
        if !self.zone.span().contains_range(range) {
            return Err(MarkError::OutOfZone { range });
        }
        let mut served = None;
        let _ = self.zone.walk_range(range, Look::Glance, &mut |piece| {
            if piece.what == Use::Absent {
                return ControlFlow::Continue(());
            }
            served = Some(Pfn::new(piece.pfn.max(range.start().get())));
            ControlFlow::Break(())
        });
        if let Some(pfn) = served {
            return Err(MarkError::InService { pfn });
        }
        self.each_word(range.start(), range.frames(), |word, mask| {
            word.fetch_or(mask, Relaxed);
        });
        Ok(())
    }

    /// How many frames are known to be zero: `O(zone)`, a snapshot.
    pub fn zeroed_frames(&self) -> u64 {
        (0..self.bits.len()).map(|at| u64::from(self.bits.at(at).load(Relaxed).count_ones())).sum()
    }

    /// The words of bits of some frames of the zone, with the mask of these.
    fn each_word(&self, pfn: Pfn, frames: u64, mut visit: impl FnMut(&AtomicU64, u64)) {
        let first = pfn.get() - self.zone.span().start().get();
        let last = first + (frames - 1);
        for at in first / 64..=last / 64 {
            let low = if at == first / 64 { first % 64 } else { 0 };
            let high = if at == last / 64 { last % 64 } else { 63 };
            visit(self.bits.at(at as usize), (!0 >> (63 - (high - low))) << low);
        }
    }
}

impl FrameSource for Zeroed<'_, '_> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        Zeroed::alloc(self, order, migrate).map(|(pfn, _)| pfn)
    }
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.free_as(pfn, order, Contents::Unknown)
    }
}

impl fmt::Debug for Zeroed<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zeroed({:?}, {} frames known to be zero)", self.zone, self.zeroed_frames())
    }
}

impl Zone<'_> {
    /// Whether exactly this block is allocated, at a glance.
    fn is_allocated(&self, pfn: Pfn, order: Order) -> bool {
        let Some(block) = FrameRange::block(pfn, order).filter(|_| self.covers(pfn, order)) else {
            return false;
        };
        let mut found = false;
        let _ = self.walk_range(block, Look::Glance, &mut |piece| {
            found = piece.what == Use::Block && (piece.pfn, piece.order) == (pfn.get(), order.get());
            ControlFlow::Break(())
        });
        // In a word that a CPU owns, a frame that was freed may still lie in the inbox.
        found && (order.get() >= word::ORDER || !self.is_posted(pfn))
    }

    fn is_posted(&self, pfn: Pfn) -> bool {
        let index = self.word_index(pfn.get());
        let (area, child) = (index / CHILDREN as usize, index as u32 % CHILDREN);
        let owned = self.node(1, area).load(Relaxed) & node::OWNER != 0;
        owned && self.is_in_inbox(area, child, pfn.get() as u32 & (word::FRAMES - 1))
    }
}
