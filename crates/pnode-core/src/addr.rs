//! Page frame numbers, orders, ranges and page sizes, with checked arithmetic only.
//!
//! Nothing here assumes a page of 4 KiB: a [`Pfn`] counts frames, and only [`PageSize`] turns frames into bytes.

use core::fmt;

/// The number of a page frame: its physical address divided by the page size.
///
/// Any value is valid. The words are those of the Linux memory-management code (`pfn`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(u64);

impl Pfn {
    /// The frame with number `number`.
    #[inline]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The frame number, in frames.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The frame `frames` after this one, or `None` past the end of the number space.
    #[inline]
    pub const fn checked_add(self, frames: u64) -> Option<Self> {
        match self.0.checked_add(frames) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// How many frames this one lies after `base`, or `None` if it lies before.
    #[inline]
    pub const fn checked_sub(self, base: Self) -> Option<u64> {
        self.0.checked_sub(base.0)
    }

    /// Whether a block of `order` may start here: blocks are naturally aligned.
    #[inline]
    pub const fn is_aligned(self, order: Order) -> bool {
        self.0 & (order.frames() - 1) == 0
    }

    /// The start of the naturally aligned block of `order` that holds this frame.
    #[inline]
    pub const fn align_down(self, order: Order) -> Self {
        Self(self.0 & !(order.frames() - 1))
    }

    /// The first frame at or after this one at which a block of `order` may start, or `None` past the end of the
    /// number space.
    #[inline]
    pub const fn align_up(self, order: Order) -> Option<Self> {
        match self.checked_add(order.frames() - 1) {
            Some(last) => Some(last.align_down(order)),
            None => None,
        }
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The size class of a block: a block of order `n` is `2^n` frames, naturally aligned.
///
/// # Invariants
///
/// - **O1** the value is at most [`Order::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(u8);

impl Order {
    /// One frame.
    pub const ZERO: Self = Self(0);
    /// 512 frames: a huge page of 2 MiB at 4 KiB pages.
    pub const HUGE: Self = Self(9);
    /// 2^18 frames: 1 GiB at 4 KiB pages.
    pub const MAX: Self = Self(18);
    /// How many orders there are.
    pub const COUNT: usize = Self::MAX.0 as usize + 1;

    /// The order `order`.
    ///
    /// # Errors
    ///
    /// [`OrderTooLarge`] above [`Order::MAX`].
    #[inline]
    pub const fn new(order: u8) -> Result<Self, OrderTooLarge> {
        if order > Self::MAX.0 {
            return Err(OrderTooLarge { order });
        }
        // INVARIANT: O1 was tested above.
        Ok(Self(order))
    }

    /// The smallest order whose blocks hold `frames` frames, or `None` for no frames or more than [`Order::MAX`] holds.
    #[inline]
    pub const fn for_frames(frames: u64) -> Option<Self> {
        if frames == 0 || frames > Self::MAX.frames() {
            return None;
        }
        // INVARIANT: O1 holds because `frames` is at most `2^MAX`.
        Some(Self(frames.next_power_of_two().trailing_zeros() as u8))
    }

    /// The order as a number, 0 to 18.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The number of frames in a block of this order.
    #[inline]
    pub const fn frames(self) -> u64 {
        1 << self.0
    }

    /// All orders, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + Clone {
        (0..=Self::MAX.0).map(Self)
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {}", self.0)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An order above [`Order::MAX`] was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderTooLarge {
    /// The order that was asked for.
    pub order: u8,
}

impl fmt::Display for OrderTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {} is above the largest order, {}; ask for a smaller block", self.order, Order::MAX)
    }
}

impl core::error::Error for OrderTooLarge {}

/// A run of frames: at least one, and no frame number overflows.
///
/// # Invariants
///
/// - **R1** `frames` is at least 1.
/// - **R2** `start + frames` does not overflow, so [`FrameRange::end`] exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameRange {
    start: Pfn,
    frames: u64,
}

impl FrameRange {
    /// The run of `frames` frames from `start`.
    ///
    /// # Errors
    ///
    /// [`RangeError::Empty`] for no frames, [`RangeError::Overflow`] past the end of the number space.
    pub const fn new(start: Pfn, frames: u64) -> Result<Self, RangeError> {
        if frames == 0 {
            return Err(RangeError::Empty { start });
        }
        if start.checked_add(frames).is_none() {
            return Err(RangeError::Overflow { start, frames });
        }
        // INVARIANT: R1 and R2 were tested above.
        Ok(Self { start, frames })
    }

    /// The block of `order` at `pfn`, or `None` past the end of the number space.
    pub const fn block(pfn: Pfn, order: Order) -> Option<Self> {
        match Self::new(pfn, order.frames()) {
            Ok(range) => Some(range),
            Err(_) => None,
        }
    }

    /// The first frame.
    #[inline]
    pub const fn start(self) -> Pfn {
        self.start
    }

    /// The frame after the last one.
    #[inline]
    pub const fn end(self) -> Pfn {
        // By R2 this does not overflow.
        Pfn(self.start.0 + self.frames)
    }

    /// How many frames, at least 1.
    #[inline]
    pub const fn frames(self) -> u64 {
        self.frames
    }

    /// Whether `pfn` is one of the frames.
    #[inline]
    pub const fn contains(self, pfn: Pfn) -> bool {
        pfn.0 >= self.start.0 && pfn.0 - self.start.0 < self.frames
    }

    /// Whether every frame of `other` is one of the frames.
    #[inline]
    pub const fn contains_range(self, other: Self) -> bool {
        other.start.0 >= self.start.0 && other.end().0 <= self.end().0
    }

    /// The frames that both ranges have, or `None` if there are none.
    pub const fn intersection(self, other: Self) -> Option<Self> {
        let start = if self.start.0 > other.start.0 { self.start } else { other.start };
        let end = if self.end().0 < other.end().0 { self.end() } else { other.end() };
        if start.0 < end.0 {
            // INVARIANT: R1 by the test, R2 because `end` is a frame number.
            Some(Self { start, frames: end.0 - start.0 })
        } else {
            None
        }
    }

    /// The frames, first to last.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Pfn> + Clone {
        (self.start.0..self.end().0).map(Pfn)
    }
}

impl fmt::Debug for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}..{:#x}", self.start.0, self.end().0)
    }
}

/// Why a run of frames cannot exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// A range has at least one frame.
    Empty {
        /// Where the range was to start.
        start: Pfn,
    },
    /// The last frame would lie past the end of the number space.
    Overflow {
        /// Where the range was to start.
        start: Pfn,
        /// How many frames it was to have.
        frames: u64,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { start } => write!(f, "a range at {start:?} needs at least one frame"),
            Self::Overflow { start, frames } => {
                write!(f, "{frames} frames from {start:?} pass the last frame number; shorten the range")
            }
        }
    }
}

impl core::error::Error for RangeError {}

/// The size of a page in bytes, a power of two that the host states.
///
/// # Invariants
///
/// - **P1** the shift is 12 to 16: pages of 4 KiB to 64 KiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u8);

impl PageSize {
    /// Pages of 4,096 bytes.
    pub const KIB4: Self = Self(12);
    /// Pages of 16,384 bytes.
    pub const KIB16: Self = Self(14);
    /// Pages of 65,536 bytes.
    pub const KIB64: Self = Self(16);

    /// The page size of `bytes` bytes, or `None` unless it is a power of two from 4 KiB to 64 KiB.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 12 && bytes <= 1 << 16 {
            // INVARIANT: P1 was tested above.
            Some(Self(bytes.trailing_zeros() as u8))
        } else {
            None
        }
    }

    /// The size in bytes.
    #[inline]
    pub const fn bytes(self) -> usize {
        1 << self.0
    }

    /// The size as a power of two: 12 for 4 KiB.
    #[inline]
    pub const fn shift(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.bytes() >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_round_up_to_the_frames_asked_for() {
        for frames in 1..=1024u64 {
            let order = Order::for_frames(frames).unwrap();
            assert!(order.frames() >= frames, "{frames}");
            assert!(order == Order::ZERO || order.frames() / 2 < frames, "{frames}");
        }
        assert_eq!(Order::for_frames(0), None);
        assert_eq!(Order::for_frames(Order::MAX.frames()), Some(Order::MAX));
        assert_eq!(Order::for_frames(Order::MAX.frames() + 1), None);
        assert_eq!(Order::new(19), Err(OrderTooLarge { order: 19 }));
        assert_eq!(Order::all().count(), Order::COUNT);
    }

    #[test]
    fn orders_are_their_numbers() {
        for (order, number) in Order::all().zip(0..) {
            assert_eq!((order.get(), Order::new(number), order.frames()), (number, Ok(order), 1 << number));
        }
    }

    #[test]
    fn pages_are_powers_of_two_from_4_to_64_kib() {
        let sizes = [(4096, 12), (8192, 13), (16_384, 14), (32_768, 15), (65_536, 16)];
        for (bytes, shift) in sizes {
            let size = PageSize::from_bytes(bytes).unwrap();
            assert_eq!((size.bytes(), size.shift()), (bytes, shift));
            assert_eq!(PageSize::from_bytes(bytes + 1), None);
            assert_eq!(PageSize::from_bytes(bytes - 1), None);
        }
        for bytes in [0, 1, 2048, 12_288, 131_072, usize::MAX, usize::MAX / 2 + 1] {
            assert_eq!(PageSize::from_bytes(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn ranges_refuse_nothing_and_overflow() {
        let last = Pfn::new(u64::MAX);
        assert_eq!(FrameRange::new(last, 0), Err(RangeError::Empty { start: last }));
        assert_eq!(FrameRange::new(last, 1), Err(RangeError::Overflow { start: last, frames: 1 }));
        let range = FrameRange::new(Pfn::new(u64::MAX - 1), 1).unwrap();
        assert_eq!(range.end(), last);
        assert!(range.contains(range.start()) && !range.contains(last));
    }

    #[test]
    fn intersections_agree_with_membership() {
        let ranges: [(u64, u64); 5] = [(0, 1), (0, 4), (2, 2), (3, 5), (7, 1)];
        for (a, b) in ranges.iter().flat_map(|a| ranges.map(|b| (*a, b))) {
            let a = FrameRange::new(Pfn::new(a.0), a.1).unwrap();
            let b = FrameRange::new(Pfn::new(b.0), b.1).unwrap();
            for pfn in (0..10).map(Pfn::new) {
                let both = a.contains(pfn) && b.contains(pfn);
                assert_eq!(a.intersection(b).is_some_and(|i| i.contains(pfn)), both, "{a:?} {b:?} {pfn:?}");
            }
            assert_eq!(a.contains_range(b), b.iter().all(|pfn| a.contains(pfn)), "{a:?} {b:?}");
        }
    }

    #[test]
    fn alignment_stops_at_the_top() {
        let nine = Order::HUGE;
        assert_eq!(Pfn::new(513).align_up(nine), Some(Pfn::new(1024)));
        assert_eq!(Pfn::new(512).align_up(nine), Some(Pfn::new(512)));
        assert_eq!(Pfn::new(u64::MAX).align_up(nine), None);
        assert_eq!(Pfn::new(1023).align_down(nine), Pfn::new(512));
    }
}
