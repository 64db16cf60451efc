//! Pressure: how hard the medium is pressed, as one number, and how it follows from use. Pure functions.

use core::fmt;

/// How hard a compressed node is pressed, 0 to 1000. At 1000 it takes no page more.
///
/// After `cram_set_pressure` of the Linux series (mail *mm/cram*, February 2026): 0 is idle, anything up to 999 asks
/// reclaim to evict that fraction while demotion goes on, 1000 shuts the door.
///
/// # Invariants
///
/// - **PR1** the value is at most 1000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pressure(u16);

impl Pressure {
    /// Idle.
    pub const IDLE: Self = Self(0);
    /// Nothing is admitted.
    pub const FULL: Self = Self(1000);

    /// The pressure `permille`; everything above 1000 is 1000.
    pub const fn new(permille: u32) -> Self {
        // INVARIANT: PR1 by the clamp.
        Self(if permille > 1000 { 1000 } else { permille as u16 })
    }

    /// The pressure in thousandths.
    pub const fn permille(self) -> u16 {
        self.0
    }

    /// Whether a page may come in: 999 admits, 1000 does not.
    pub const fn admits(self) -> bool {
        self.0 < 1000
    }
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pressure {}", self.0)
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How pressure follows from the use of physical memory, with a gap between shutting and opening the door.
///
/// ```text
///  1000 |              +----------    shut at `shut`, and kept shut
///       |            / |
///       |          /   |              until use is below `reopen`
///     0 +--------/-----+----------> used
///             calm reopen shut
/// ```
///
/// # Invariants
///
/// - **CU1** `calm <= reopen <= shut <= 1000`, and `calm < shut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Curve {
    calm: u16,
    reopen: u16,
    shut: u16,
}

/// A [`Curve`] whose marks do not rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurveError {
    /// Below this there is no pressure.
    pub calm: u16,
    /// Below this a shut door opens.
    pub reopen: u16,
    /// From this on the door is shut.
    pub shut: u16,
}

impl fmt::Display for CurveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calm, reopen, shut } = self;
        write!(
            f,
            "marks of {calm}, {reopen} and {shut} thousandths: give calm <= reopen <= shut <= 1000 and calm < shut"
        )
    }
}

impl core::error::Error for CurveError {}

impl Curve {
    /// No pressure below half, shut at 95 %, open again below 90 %.
    pub const DEFAULT: Self = Self { calm: 500, reopen: 900, shut: 950 };

    /// The curve with these marks, in thousandths of the physical memory that is in use.
    ///
    /// # Errors
    ///
    /// [`CurveError`] unless `calm <= reopen <= shut <= 1000` and `calm < shut`.
    pub const fn new(calm: u16, reopen: u16, shut: u16) -> Result<Self, CurveError> {
        if calm > reopen || reopen > shut || shut > 1000 || calm >= shut {
            return Err(CurveError { calm, reopen, shut });
        }
        // INVARIANT: CU1 was tested above.
        Ok(Self { calm, reopen, shut })
    }

    /// The pressure when `used` of `physical` bytes are in use and it was `last` before.
    ///
    /// Without physical memory the pressure is full.
    pub const fn pressure(&self, last: Pressure, used: u64, physical: u64) -> Pressure {
        if physical == 0 || used >= physical {
            return Pressure::FULL;
        }
        // `used < physical`, so the quotient is below 1000 and the product fits.
        let permille = (used as u128 * 1000 / physical as u128) as u32;
        let (calm, reopen, shut) = (self.calm as u32, self.reopen as u32, self.shut as u32);
        if permille >= shut || !last.admits() && permille >= reopen {
            return Pressure::FULL;
        }
        if permille <= calm {
            return Pressure::IDLE;
        }
        // By CU1 `calm < shut`; the result is below 1000 because `permille < shut`.
        Pressure::new((permille - calm) * 1000 / (shut - calm))
    }
}

impl Default for Curve {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_pressure_shuts_the_door() {
        assert!(Pressure::new(999).admits());
        assert!(!Pressure::new(1000).admits());
        assert_eq!(Pressure::new(1500), Pressure::FULL);
        assert_eq!(Pressure::new(u32::MAX), Pressure::FULL);
    }

    #[test]
    fn pressure_rises_with_use_and_the_door_has_a_gap() {
        for curve in [Curve::DEFAULT, Curve::new(0, 0, 1).unwrap(), Curve::new(0, 1000, 1000).unwrap()] {
            let mut last = Pressure::IDLE;
            for used in 0..=2000 {
                let now = curve.pressure(last, used, 1000);
                assert!(now >= last, "{curve:?} at {used}");
                assert_eq!(now == Pressure::FULL, used >= u64::from(curve.shut), "{curve:?} at {used}");
                last = now;
            }
            for used in (0..=2000).rev() {
                last = curve.pressure(last, used, 1000);
                assert_eq!(last.admits(), used < u64::from(curve.reopen), "{curve:?} at {used}");
            }
        }
        // Half way from calm to shut.
        assert_eq!(Curve::DEFAULT.pressure(Pressure::IDLE, 725, 1000), Pressure::new(500));
        assert_eq!(Curve::DEFAULT.pressure(Pressure::IDLE, 1 << 32, 1000), Pressure::FULL);
        assert_eq!(Curve::DEFAULT.pressure(Pressure::IDLE, 0, 0), Pressure::FULL);
        assert_eq!(Curve::DEFAULT.pressure(Pressure::IDLE, u64::MAX - 1, u64::MAX), Pressure::FULL);
        assert!(
            Curve::new(3, 2, 4).is_err() && Curve::new(2, 2, 2).is_err() && Curve::new(1, 2, 1001).is_err()
        );
    }
}
