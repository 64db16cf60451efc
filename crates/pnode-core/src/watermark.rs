//! Watermarks of a zone: how much of it is kept back, and for whom.

use core::fmt;

use crate::request::Depth;

/// How many frames of a zone are kept free, in frames.
///
/// The words are those of the Linux page allocator: below *low* reclaim should start and ordinary requests look
/// elsewhere first; below *min* only emergencies are served; above *high* reclaim may rest.
///
/// # Invariants
///
/// - **W1** `min <= low <= high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Watermarks {
    min: u64,
    low: u64,
    high: u64,
}

impl Watermarks {
    /// Nothing is kept back.
    pub const NONE: Self = Self { min: 0, low: 0, high: 0 };

    /// The watermarks `min`, `low` and `high`, in frames.
    ///
    /// # Errors
    ///
    /// [`WatermarkError`] unless they rise.
    pub const fn new(min: u64, low: u64, high: u64) -> Result<Self, WatermarkError> {
        if min > low || low > high {
            return Err(WatermarkError { min, low, high });
        }
        // INVARIANT: W1 was tested above.
        Ok(Self { min, low, high })
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

    /// How many frames a request of `depth` must leave free.
    pub const fn kept_back(&self, depth: Depth) -> u64 {
        match depth {
            Depth::Low => self.low,
            Depth::Min => self.min,
            Depth::Emergency => 0,
        }
    }
}

/// Watermarks that do not rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatermarkError {
    /// The min watermark that was asked for.
    pub min: u64,
    /// The low watermark that was asked for.
    pub low: u64,
    /// The high watermark that was asked for.
    pub high: u64,
}

impl fmt::Display for WatermarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, low, high } = self;
        write!(f, "watermarks must rise: min {min}, low {low}, high {high}")
    }
}

impl core::error::Error for WatermarkError {}
