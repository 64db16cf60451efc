//! [`Bound`]: an upper bound of a device's physical use that is never below the truth.

use core::fmt;

use pnode_core::sync::{AtomicU64, Ordering};

/// An upper bound of a device's physical use, in bytes, that is never below the truth. Shared by all who write to it.
///
/// A device tells its use when it is asked, which is too slow to do for each page, and the answer is old when it arrives.
/// After Jonathan Cameron's scheme (discussion of the compressed RAM series, 2026): what was written since the reading is
/// added to it, at its worst size; what was freed is ignored until the next reading.
///
/// The subtle part is *since*. A write that was announced before a reading may land after it. So writes are counted
/// twice, when they are announced and when they have landed, and a reading counts from the landed ones that were known
/// before it began: whatever was not known to have landed is added on top.
///
/// ```text
///  bound = reading + announced now - landed before the reading
/// ```
///
/// # Invariants
///
/// - **BD1** `announced` has counted every write before it begins, `landed` no write before it is over.
/// - **BD2** `base` is a reading of the device less what had landed before that reading, modulo 2^64. Such a base stays
///   true for ever: later frees only lower the use, and later writes are announced.
pub struct Bound {
    base: AtomicU64,
    announced: AtomicU64,
    landed: AtomicU64,
}

/// A write that was announced: tells the [`Bound`] when it is over.
///
/// A value that is dropped counts as a write that never landed, which makes the bound higher than need be for ever, but
/// never too low.
#[derive(Debug)]
#[must_use = "a write that never lands makes the bound too high"]
pub struct Announced<'b> {
    bound: &'b Bound,
    bytes: u64,
}

impl Announced<'_> {
    /// The write is over, or was not made.
    pub fn landed(self) {
        self.bound.land(self.bytes);
    }

    /// The write goes on, for as long as its page is open: whoever ends it tells by [`Bound::land`] with as many bytes.
    pub fn keep(self) {}
}

impl Bound {
    /// The bound of a device that has `used` bytes in use, and that nobody writes to.
    pub fn new(used: u64) -> Self {
        // INVARIANT: BD2: nothing has landed.
        Self { base: AtomicU64::new(used), announced: AtomicU64::new(0), landed: AtomicU64::new(0) }
    }

    /// The bound: the device uses no more than this.
    pub fn bytes(&self) -> u64 {
        // The base first: with an older one the result is only higher. Acquire pairs with the Release in `refresh`: every
        // write that the base takes off as landed is then among those announced.
        let base = self.base.load(Ordering::Acquire);
        base.wrapping_add(self.announced.load(Ordering::Relaxed))
    }

    /// Announces a write of at most `bytes`, unless the bound would pass `limit`. Make the write after this.
    ///
    /// Of two racing callers for whom only one has room, one gets it.
    pub fn announce(&self, bytes: u64, limit: u64) -> Option<Announced<'_>> {
        let mut announced = self.announced.load(Ordering::Relaxed);
        loop {
            // Any base is true by BD2, an old one only stricter. Acquire as in `bytes`, for a new one.
            let after = self.base.load(Ordering::Acquire).wrapping_add(announced).checked_add(bytes)?;
            if after > limit {
                return None;
            }
            // INVARIANT: BD1. Relaxed: who sees the write that follows, by whatever order, sees this before it.
            match self.announced.compare_exchange_weak(
                announced,
                announced.wrapping_add(bytes),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(Announced { bound: self, bytes }),
                Err(now) => announced = now,
            }
        }
    }

    /// A write that was announced with `bytes`, and kept, is over. To land what was not announced makes the bound untrue.
    pub fn land(&self, bytes: u64) {
        // Release pairs with the Acquire in `refresh`: a reading after it sees the write.
        self.landed.fetch_add(bytes, Ordering::Release);
    }

    /// Takes a new reading: `read` asks the device how many bytes it uses at the moment.
    ///
    /// The device has seen every write that was over before it was asked.
    pub fn refresh(&self, read: impl FnOnce() -> u64) {
        // Acquire pairs with the Release in `landed`. Before the reading, or a write that lands in between would be in
        // neither.
        let landed = self.landed.load(Ordering::Acquire);
        let reading = read();
        // INVARIANT: BD2. Release pairs with the Acquire in `bytes` and `announce`.
        self.base.store(reading.wrapping_sub(landed), Ordering::Release);
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bound({} bytes)", self.bytes())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_counts_until_a_reading_has_seen_it() {
        let bound = Bound::new(100);
        let first = bound.announce(50, 200).unwrap();
        assert_eq!(bound.bytes(), 150);
        // Announced and not landed: the reading may or may not have it, so it counts on top.
        bound.refresh(|| 120);
        assert_eq!(bound.bytes(), 170);
        first.landed();
        assert_eq!(bound.bytes(), 170);
        bound.refresh(|| 120);
        assert_eq!(bound.bytes(), 120);
        assert!(bound.announce(81, 200).is_none());
        bound.announce(80, 200).unwrap().landed();
        assert!(bound.announce(1, 200).is_none());
        assert!(bound.announce(u64::MAX, u64::MAX).is_none());
    }

    #[test]
    fn a_write_that_lands_during_the_reading_is_not_forgotten() {
        let bound = Bound::new(0);
        let mut announced = None;
        bound.refresh(|| {
            // The device answers before this write lands.
            announced = bound.announce(10, 100);
            0
        });
        announced.unwrap().landed();
        assert_eq!(bound.bytes(), 10);
    }
}
