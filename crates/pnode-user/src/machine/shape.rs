//! Which frames a node has, and which of its zones hands out which.

use core::ops::Range;

use pnode_buddy::{Zone, ZoneError};
use pnode_core::{FrameRange, NodeId, Pfn, Watermarks};

use super::Machine;
use super::spec::NodeSpec;

/// Holes and zones of a node, in frames from its first one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    span: u64,
    holes: List<{ NodeSpec::MOST_HOLES }>,
    /// Size and lowmem reserve of each zone but the last, which is the rest.
    zones: List<{ NodeSpec::MOST_ZONES - 1 }>,
}

/// Up to `N` pairs of numbers; counts on beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct List<const N: usize> {
    pairs: [(u64, u64); N],
    count: usize,
}

impl<const N: usize> List<N> {
    const EMPTY: Self = Self { pairs: [(0, 0); N], count: 0 };

    const fn with(mut self, pair: (u64, u64)) -> Self {
        if self.count < N {
            self.pairs[self.count] = pair;
        }
        self.count = self.count.saturating_add(1);
        self
    }

    const fn is_overfull(&self) -> bool {
        self.count > N
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.pairs.iter().take(self.count).copied()
    }
}

/// Why a node cannot have its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeError {
    /// A hole is inside its node and has at least one frame.
    HoleOutside {
        /// Its first frame, counted from the node's.
        start: u64,
        /// How many frames it was to have.
        frames: u64,
        /// How many the node has, with its holes.
        span: u64,
    },
    /// Two holes have frames in common.
    HolesOverlap {
        /// The first frame of the second one, counted from the node's.
        start: u64,
    },
    /// There are more holes than a node can have.
    Holes,
    /// There are more zones than a node can have.
    Zones,
    /// A zone has at least one frame, and leaves at least one to the next.
    ZoneSize {
        /// How many frames it was to have.
        frames: u64,
        /// How many there were left.
        left: u64,
    },
    /// A zone is nothing but holes.
    Empty {
        /// Which zone, from 0.
        zone: usize,
    },
    /// The low watermark and the lowmem reserve of a zone leave nothing of it.
    Reserve {
        /// How many frames were to be kept back.
        kept: u64,
        /// How many the zone has.
        frames: u64,
    },
    /// A compressed node is one zone: its store asks for all of its frames.
    Store,
    /// There can be no such zone.
    Zone(ZoneError),
}

impl core::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::HoleOutside { start, frames, span } => {
                write!(f, "a hole of {frames} frames at {start} is not inside the node's {span}")
            }
            Self::HolesOverlap { start } => {
                write!(f, "the hole at {start} overlaps another one; join the two")
            }
            Self::Holes => write!(f, "a node has up to {} holes; join some", NodeSpec::MOST_HOLES),
            Self::Zones => write!(f, "a node has up to {} zones; leave some out", NodeSpec::MOST_ZONES),
            Self::ZoneSize { frames, left } => {
                write!(
                    f,
                    "a zone of {frames} frames does not fit: {left} are left, and the last zone needs one"
                )
            }
            Self::Empty { zone } => {
                write!(f, "zone {zone} would be nothing but holes; make it larger, or the holes smaller")
            }
            Self::Reserve { kept, frames } => {
                write!(
                    f,
                    "low watermark and reserve keep {kept} frames of a zone that has {frames}; keep less"
                )
            }
            Self::Store => {
                f.write_str("the store of a compressed node asks for all of its frames; give it no zones")
            }
            Self::Zone(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ShapeError {}

/// A zone that a node is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// From the node's first frame on.
    start: u64,
    end: u64,
    /// How many of these frames there are.
    frames: u64,
    marks: Watermarks,
}

impl Shape {
    pub(super) const fn of(span: u64) -> Self {
        Self { span, holes: List::EMPTY, zones: List::EMPTY }
    }

    /// Frames of the node, with its holes.
    pub(super) const fn span(&self) -> u64 {
        self.span
    }

    /// Frames that there are.
    pub(super) const fn frames(&self) -> u64 {
        let (mut left, mut hole) = (self.span, 0);
        while hole < self.holes.count && hole < NodeSpec::MOST_HOLES {
            left = left.saturating_sub(self.holes.pairs[hole].1);
            hole += 1;
        }
        left
    }

    pub(super) fn holes(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.holes.iter().map(|(start, frames)| start..start.saturating_add(frames))
    }

    /// Where each zone begins and ends, and its lowmem reserve. The last one is the rest.
    pub(super) fn zones(&self) -> impl Iterator<Item = (Range<u64>, u64)> + '_ {
        let mut start = 0u64;
        self.zones.iter().chain([(u64::MAX, 0)]).map(move |(frames, reserve)| {
            let from = start;
            start = start.saturating_add(frames).min(self.span);
            (from..start, reserve)
        })
    }

    /// The zones of a node with these watermarks, which each zone has its share of.
    fn parts(&self, marks: Watermarks) -> Result<Vec<Part>, ShapeError> {
        self.check_lists()?;
        let total = self.frames().max(1);
        let mut parts = Vec::new();
        for (zone, (Range { start, end }, reserve)) in self.zones().enumerate() {
            let missing: u64 =
                self.holes().map(|hole| hole.end.min(end).saturating_sub(hole.start.max(start))).sum();
            let frames = (end - start).saturating_sub(missing);
            if frames == 0 {
                return Err(ShapeError::Empty { zone });
            }
            let share = |mark: u64| (u128::from(mark) * u128::from(frames) / u128::from(total)) as u64;
            let kept = share(marks.lowmem_reserve()).saturating_add(reserve);
            let low = share(marks.low());
            let too_much = ShapeError::Reserve { kept: low.saturating_add(kept), frames };
            if kept > 0 && low.saturating_add(kept) >= frames {
                return Err(too_much);
            }
            // Shares rise as the marks do.
            let marks = Watermarks::new(share(marks.min()), low, share(marks.high()))
                .and_then(|marks| marks.with_lowmem_reserve(kept))
                .map_err(|_| too_much)?;
            parts.push(Part { start, end, frames, marks });
        }
        Ok(parts)
    }

    /// Whether holes and zones are in the node, one beside the other.
    fn check_lists(&self) -> Result<(), ShapeError> {
        let span = self.span;
        if self.holes.is_overfull() {
            return Err(ShapeError::Holes);
        }
        if self.zones.is_overfull() {
            return Err(ShapeError::Zones);
        }
        for (number, (start, frames)) in self.holes.iter().enumerate() {
            let end = start.checked_add(frames).filter(|end| frames > 0 && *end <= span);
            let end = end.ok_or(ShapeError::HoleOutside { start, frames, span })?;
            if self.holes().take(number).any(|other| other.start < end && start < other.end) {
                return Err(ShapeError::HolesOverlap { start });
            }
        }
        let mut left = span;
        for (frames, _) in self.zones.iter() {
            if frames == 0 || frames >= left {
                return Err(ShapeError::ZoneSize { frames, left });
            }
            left -= frames;
        }
        Ok(())
    }
}

impl NodeSpec {
    /// The most holes of a node.
    pub const MOST_HOLES: usize = 16;
    /// The most zones of a node.
    pub const MOST_ZONES: usize = 4;

    /// The same node without memory in `frames` frames from `start` on, counted from its first frame: a hole in the middle of
    /// its addresses, as firmware and devices leave them.
    #[must_use]
    pub const fn hole(mut self, start: u64, frames: u64) -> Self {
        self.shape.holes = self.shape.holes.with((start, frames));
        self
    }

    /// The same node, whose next `frames` frames are a zone of their own; counted from its first frame, or from the zone
    /// before. What is left is its last zone. Requests are served by the highest zone that has a frame, so that lower ones are
    /// there for who needs them ([`Request::below`](pnode_core::Request::below)); of those, `reserve` frames are for nobody
    /// else. As `DMA32` and `Normal` of Linux. Each zone has its share of the node's watermarks.
    #[must_use]
    pub const fn zone(mut self, frames: u64, reserve: u64) -> Self {
        self.shape.zones = self.shape.zones.with((frames, reserve));
        self
    }

    /// How many frames it is to have, holes left out.
    pub const fn frames(&self) -> u64 {
        self.shape.frames()
    }

    /// How many frame numbers it takes, with its holes.
    pub const fn span(&self) -> u64 {
        self.shape.span()
    }

    /// The frames that there are not, counted from its first.
    pub fn holes(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.shape.holes()
    }

    /// Its zones from the lowest on: their frames, counted from its first, and the lowmem reserve of each.
    pub fn zones(&self) -> impl Iterator<Item = (Range<u64>, u64)> + '_ {
        self.shape.zones()
    }

    /// Whether its holes and zones are such as a node can have.
    ///
    /// # Errors
    ///
    /// [`ShapeError`], by which [`Builder::build`](super::Builder::build) would refuse it.
    pub fn check_shape(&self) -> Result<(), ShapeError> {
        if self.advertised().is_some() && self.zones().count() > 1 {
            return Err(ShapeError::Store);
        }
        self.shape.parts(self.marks).map(|_| ())
    }

    /// The zones of such a node whose first frame is `first`, from the lowest on, and what each keeps back: for hosts that are
    /// no [`Machine`].
    ///
    /// # Errors
    ///
    /// [`ShapeError`].
    pub fn zones_at(&self, first: Pfn) -> Result<Vec<(Zone<'static>, Watermarks)>, ShapeError> {
        let parts = self.shape.parts(self.marks)?;
        parts.into_iter().map(|part| Ok((self.zone_at(first, &part)?, part.marks))).collect()
    }

    fn zone_at(&self, first: Pfn, part: &Part) -> Result<Zone<'static>, ShapeError> {
        let range = |start: u64, end: u64| {
            let start = first.get().saturating_add(start);
            let frames = first.get().saturating_add(end).saturating_sub(start);
            let too_large = ShapeError::Zone(ZoneError::TooLarge { frames: end });
            FrameRange::new(Pfn::new(start), frames).map_err(|_| too_large)
        };
        let holes = self
            .holes()
            .map(|hole| (hole.start.max(part.start), hole.end.min(part.end)))
            .filter(|(start, end)| start < end)
            .map(|(start, end)| range(start, end))
            .collect::<Result<Vec<_>, _>>()?;
        Zone::boxed(range(part.start, part.end)?, &holes).map_err(ShapeError::Zone)
    }
}

/// A zone of a node of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZoneUse {
    /// The numbers of its frames, with its holes.
    pub span: FrameRange,
    /// How many frames there are.
    pub frames: u64,
    /// How many of them are free now; 0 while the node is unplugged.
    pub free: u64,
    /// What is kept back, and for whom.
    pub marks: Watermarks,
}

impl Machine {
    /// The zones of `node`, from the lowest on. Requests below the end of one are served by it and those before it:
    /// [`Request::below`](pnode_core::Request::below).
    ///
    /// ```
    /// use pnode_core::{AllocError, Order, Request};
    /// use pnode_user::{Machine, NodeSpec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // 64 frames that an old device can reach, 8 of them for nobody else, and a hole.
    /// let spec = NodeSpec::ordinary(256).zone(64, 8).hole(100, 20);
    /// let machine = Machine::builder().node(spec).build()?;
    /// let dram = machine.node(0)?;
    /// let zones = machine.zones(dram);
    /// assert_eq!(zones.iter().map(|zone| zone.frames).collect::<Vec<_>>(), [64, 172]);
    ///
    /// let reachable = Request::page().below(zones[0].span.end());
    /// let ring = machine.alloc(reachable)?;
    /// let other = machine.alloc(Request::page())?;            // who has no limit gets the upper zone first
    /// assert!(zones[0].span.contains(ring.pfn()) && zones[1].span.contains(other.pfn()));
    /// machine.free(ring)?;
    /// machine.free(other)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn zones(&self, node: NodeId) -> Vec<ZoneUse> {
        self.shared.site(node).map_or_else(Vec::new, |site| {
            site.zones
                .iter()
                .map(|zone| ZoneUse {
                    span: zone.span(),
                    frames: zone.managed_frames(),
                    free: if site.is_unplugged() { 0 } else { zone.free_frames() },
                    marks: zone.marks(),
                })
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_their_shares_and_holes_are_nobodys() {
        let marks = Watermarks::new(10, 20, 40).unwrap();
        let shape = NodeSpec::ordinary(100).zone(20, 3).zone(30, 0).hole(10, 20).hole(90, 10).shape;
        let parts = shape.parts(marks).unwrap();
        let seen: Vec<_> = parts.iter().map(|part| (part.start, part.end, part.frames)).collect();
        assert_eq!(seen, [(0, 20, 10), (20, 50, 20), (50, 100, 40)]);
        assert_eq!(shape.frames(), 70);
        let shares: Vec<_> = parts.iter().map(|part| part.marks).collect();
        let share = |min, low, high, lowmem| {
            Watermarks::new(min, low, high).unwrap().with_lowmem_reserve(lowmem).unwrap()
        };
        assert_eq!(shares, [share(1, 2, 5, 3), share(2, 5, 11, 0), share(5, 11, 22, 0)]);
    }

    #[test]
    fn a_shape_that_cannot_be_is_refused() {
        let node = NodeSpec::ordinary(100);
        let many =
            |spec: NodeSpec, times: u64, step: fn(NodeSpec, u64) -> NodeSpec| (0..times).fold(spec, step);
        let rows = [
            (node.hole(90, 11), ShapeError::HoleOutside { start: 90, frames: 11, span: 100 }),
            (node.hole(90, 0), ShapeError::HoleOutside { start: 90, frames: 0, span: 100 }),
            (node.hole(u64::MAX, 2), ShapeError::HoleOutside { start: u64::MAX, frames: 2, span: 100 }),
            (node.hole(10, 10).hole(19, 5), ShapeError::HolesOverlap { start: 19 }),
            (node.hole(10, 10).hole(5, 6), ShapeError::HolesOverlap { start: 5 }),
            (many(node, 17, |spec, hole| spec.hole(hole * 2, 1)), ShapeError::Holes),
            (many(node, 4, |spec, _| spec.zone(1, 0)), ShapeError::Zones),
            (node.zone(100, 0), ShapeError::ZoneSize { frames: 100, left: 100 }),
            (node.zone(0, 0), ShapeError::ZoneSize { frames: 0, left: 100 }),
            (node.zone(50, 0).zone(50, 0), ShapeError::ZoneSize { frames: 50, left: 50 }),
            (node.zone(10, 0).hole(0, 10), ShapeError::Empty { zone: 0 }),
            (node.zone(90, 0).hole(85, 15), ShapeError::Empty { zone: 1 }),
            (node.zone(10, 10), ShapeError::Reserve { kept: 10, frames: 10 }),
            (NodeSpec::compressed(100, 200).zone(10, 0), ShapeError::Store),
        ];
        for (spec, expected) in rows {
            assert_eq!(spec.check_shape(), Err(expected), "{spec:?}");
            let built = Machine::builder().node(spec).build().err();
            assert!(
                matches!(built, Some(super::super::BuildError::Shape { error, .. }) if error == expected)
            );
        }
        for spec in
            [node.hole(10, 10).hole(20, 5), node.hole(0, 99), many(node, 3, |spec, _| spec.zone(1, 0))]
        {
            assert_eq!(spec.check_shape(), Ok(()), "{spec:?}");
        }
    }
}
