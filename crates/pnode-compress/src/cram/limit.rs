//! Hot pages: a device names the frames that are read often, and a [`RateLimit`] says how many of their pages are promoted.

use core::fmt;

use super::Cram;
use super::frames::{Resident, State};
use super::stats::Event;

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

/// Why a page that its device named is not promoted. It stays what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotPromoted {
    /// As many were promoted as may be, by now. If the page stays hot, the device names it again.
    Limited {
        /// The page.
        page: Resident,
    },
    /// There is no page to promote in the frame: it has left since, is leaving, or is open for writing.
    Stale {
        /// The frame.
        frame: u32,
    },
}

impl fmt::Display for NotPromoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limited { page } => {
                write!(
                    f,
                    "{page:?} is hot, but no more pages may be promoted now; wait until it is named again"
                )
            }
            Self::Stale { frame } => {
                write!(f, "no page is to be promoted from frame {frame}; drop the nomination")
            }
        }
    }
}

impl core::error::Error for NotPromoted {}

impl Cram<'_> {
    /// The page that is to be promoted because the device has named its frame as hot at time `now`, in the units of
    /// `limit`. The host promotes it as it does for a write. All that comes of a nomination is counted in
    /// [`super::CramStats`], and one that names no page takes nothing from `limit`.
    ///
    /// # Errors
    ///
    /// [`NotPromoted`].
    pub fn nominate(&self, frame: u32, limit: &mut RateLimit, now: u64) -> Result<Resident, NotPromoted> {
        let resident = |page: &Resident| self.frames.state(*page) == Some(State::Resident);
        let Some(page) = self.frames.resident_at(frame).filter(resident) else {
            self.note(Event::HotStale);
            return Err(NotPromoted::Stale { frame });
        };
        if !limit.take(now) {
            self.note(Event::HotLimited);
            return Err(NotPromoted::Limited { page });
        }
        self.note(Event::HotAccepted);
        Ok(page)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use pnode_core::sync::AtomicU64;

    use super::*;
    use crate::cram::{CramStats, Curve, Usage};

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

    #[test]
    fn a_nomination_is_accepted_limited_or_stale_and_only_a_page_takes_a_token() {
        let mut words: [AtomicU64; 32] = core::array::from_fn(|_| AtomicU64::new(0));
        let cram = Cram::new(3, Curve::DEFAULT, &mut words).unwrap();
        let pages: [_; 3] = core::array::from_fn(|_| {
            let page = cram.admit(Usage { used: 0, physical: 1 }).unwrap();
            cram.frames.turn(page, State::Filling, State::Resident).map_err(drop).unwrap();
            page
        });
        let [first, second, open] = pages;
        cram.frames.turn(open, State::Resident, State::Writable).map_err(drop).unwrap();
        let mut limit = RateLimit::new(1, 2, 0);
        for frame in [3, u32::MAX, open.frame()] {
            assert_eq!(cram.nominate(frame, &mut limit, 0), Err(NotPromoted::Stale { frame }));
        }
        assert_eq!(cram.nominate(first.frame(), &mut limit, 0), Ok(first));
        assert_eq!(cram.nominate(second.frame(), &mut limit, 0), Ok(second));
        assert_eq!(cram.nominate(first.frame(), &mut limit, 0), Err(NotPromoted::Limited { page: first }));
        assert_eq!(cram.nominate(first.frame(), &mut limit, 1), Ok(first));
        let expected = CramStats { hot_accepted: 3, hot_limited: 1, hot_stale: 3, ..CramStats::default() };
        assert_eq!(cram.stats(), expected);
    }
}
