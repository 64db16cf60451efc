//! Watermarks of a zone: how much of it is kept back, and for whom.

use core::fmt;

use crate::frame::MigrateType;
use crate::request::Depth;

/// How many frames of a zone are kept free, in frames.
///
/// The words are those of the Linux page allocator: below *low* reclaim should start and ordinary requests look
/// elsewhere first; below *min* only emergencies are served; above *high* reclaim may rest.
///
/// # Invariants
///
/// - **W1** `min <= low <= high`.
/// - **W2** `low + lowmem` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Watermarks {
    min: u64,
    low: u64,
    high: u64,
    lowmem: u64,
}

impl Watermarks {
    /// Nothing is kept back.
    pub const NONE: Self = Self { min: 0, low: 0, high: 0, lowmem: 0 };

    /// The watermarks `min`, `low` and `high`, in frames.
    ///
    /// # Errors
    ///
    /// [`WatermarkError`] unless they rise.
    pub const fn new(min: u64, low: u64, high: u64) -> Result<Self, WatermarkError> {
        if min > low || low > high {
            return Err(WatermarkError::NotRising { min, low, high });
        }
        // INVARIANT: W1 was tested above.
        Ok(Self { min, low, high, lowmem: 0 })
    }

    /// With a lowmem reserve: `frames` more are kept back from requests whose contents could live elsewhere, which are all
    /// but the unmovable ones and those below a limit ([`Request::below`](crate::Request::below)). A zone that everybody can
    /// use, and some can use only, does not fill up with the pages of those who have a choice. After `lowmem_reserve` of Linux (`mm/page_alloc.c`).
    ///
    /// # Errors
    ///
    /// [`WatermarkError::ReserveTooLarge`] if low watermark and reserve are more than there can be.
    pub const fn with_lowmem_reserve(self, frames: u64) -> Result<Self, WatermarkError> {
        if self.low.checked_add(frames).is_none() {
            return Err(WatermarkError::ReserveTooLarge { frames });
        }
        // INVARIANT: W2 was tested above.
        Ok(Self { lowmem: frames, ..self })
    }

    /// How many frames more than the watermark are kept back from requests that are not unmovable.
    pub const fn lowmem_reserve(&self) -> u64 {
        self.lowmem
    }

    /// Below this only emergencies are served.
    pub const fn min(&self) -> u64 {
        self.min
    }

    /// Below this reclaim should start.
    pub const fn low(&self) -> u64 {
        self.low
    }

    /// Above this reclaim may rest.
    pub const fn high(&self) -> u64 {
        self.high
    }

    /// How many frames a request of `depth` for contents of `migrate`, wherever they are, must leave free.
    pub const fn kept_back(&self, depth: Depth, migrate: MigrateType) -> u64 {
        let lowmem = match migrate {
            MigrateType::Unmovable => 0,
            MigrateType::Movable | MigrateType::Huge => self.lowmem,
        };
        match depth {
            Depth::Low => self.low.saturating_add(lowmem),
            Depth::Min => self.min.saturating_add(lowmem),
            Depth::Emergency => 0,
        }
    }
}

/// Why watermarks are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatermarkError {
    /// They do not rise.
    NotRising {
        /// The min watermark that was asked for.
        min: u64,
        /// The low watermark that was asked for.
        low: u64,
        /// The high watermark that was asked for.
        high: u64,
    },
    /// The lowmem reserve is too large to be added to the low watermark.
    ReserveTooLarge {
        /// The reserve that was asked for, in frames.
        frames: u64,
    },
}

impl fmt::Display for WatermarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRising { min, low, high } => {
                write!(f, "watermarks must rise: min {min}, low {low}, high {high}")
            }
            Self::ReserveTooLarge { frames } => {
                write!(f, "a lowmem reserve of {frames} frames is too large; no zone has so many")
            }
        }
    }
}

impl core::error::Error for WatermarkError {}
