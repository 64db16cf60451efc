//! [`RateLimit`]: how many pages may be promoted because they are read often.

/// A bucket of tokens that fills with time: hot pages are promoted while there are tokens.
///
/// Time is a number that the host gives, in units of its own, so a simulation runs as fast as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    per_unit: u32,
    most: u32,
    tokens: u32,
    last: u64,
}

impl RateLimit {
    /// `per_unit` pages for each unit of time, saved up to `most`; the bucket is full at time `now`.
    pub const fn new(per_unit: u32, most: u32, now: u64) -> Self {
        Self { per_unit, most, tokens: most, last: now }
    }

    /// Takes a token at time `now`, if there is one. Time that runs backwards counts as no time.
    pub fn take(&mut self, now: u64) -> bool {
        let units = now.saturating_sub(self.last);
        let gained = units.saturating_mul(self.per_unit.into()).min(self.most.into()) as u32;
        self.tokens = self.tokens.saturating_add(gained).min(self.most);
        self.last = self.last.max(now);
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate_and_what_was_saved() {
        let mut limit = RateLimit::new(3, 5, 10);
        let mut taken = |now| (0..100).filter(|_| limit.take(now)).count();
        assert_eq!(taken(10), 5);
        assert_eq!(taken(11), 3);
        assert_eq!(taken(9), 0, "time does not run backwards");
        assert_eq!(taken(12), 3);
        assert_eq!(taken(u64::MAX), 5);
    }
}
