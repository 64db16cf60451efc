//! What the host in small does besides serving its load: promote what is hot at the rate it may, and climb the balloon's
//! rungs one by one. It reckons for itself what the service should say each time, and counts it.

use pnode_compress::cram::{Balloon, BalloonStep, CramStats, NotPromoted, Rung};

use super::{Host, Place};

/// Hot pages that are promoted in a unit of time, how many units' worth is saved up, and the events of a unit.
pub(super) const PER_UNIT: u32 = 1;
pub(super) const SAVED: u32 = 8;
pub(super) const UNIT: u64 = 256;
/// Of so many programs that share the load's pages one is killed when nothing else helps.
const PROGRAMS: usize = 8;

/// Frames that the device named as hot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hot {
    pub(crate) accepted: u64,
    pub(crate) limited: u64,
    pub(crate) stale: u64,
}

impl Hot {
    /// The service's count.
    pub(crate) fn of(stats: &CramStats) -> Self {
        Self { accepted: stats.hot_accepted, limited: stats.hot_limited, stale: stats.hot_stale }
    }
}

/// What was done for the balloon: frames, rounds on each rung, and targets that gave way to the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ballooning {
    pub(crate) inflated: u64,
    pub(crate) deflated: u64,
    pub(crate) migrate: u64,
    pub(crate) reclaim: u64,
    pub(crate) oom: u64,
    pub(crate) superseded: u64,
}

impl Ballooning {
    /// The service's count.
    pub(crate) fn of(stats: &CramStats) -> Self {
        Self {
            inflated: stats.inflated,
            deflated: stats.deflated,
            migrate: stats.balloon_migrate,
            reclaim: stats.balloon_reclaim,
            oom: stats.balloon_oom,
            superseded: stats.balloon_superseded,
        }
    }
}

impl Host<'_> {
    /// Promotes what the device names as hot, if the service lets it; and reckons for itself whether it should have.
    pub(super) fn promote_if_hot(&mut self, frame: u32, now: u64) {
        let here = |place: &Place| matches!(place, Place::Compressed(at) if at.frame() == frame);
        let page = self.pages.iter().position(here);
        // The rate is kept if of all spans of time between two accepted pages none has more than it gives and was saved.
        let gone = self.outcome.hot.accepted as i64 - (now * u64::from(PER_UNIT)) as i64;
        let slack = self.slack.min(gone);
        let within = gone - slack < i64::from(SAVED);
        let nominated = self.handler.shared().nominate(frame, &mut self.limit, now);
        match (page, nominated) {
            (Some(page), Ok(resident)) if within => {
                self.slack = slack;
                self.outcome.hot.accepted += 1;
                self.promote(page, resident);
            }
            (Some(_), Err(NotPromoted::Limited { page })) if !within && page.frame() == frame => {
                self.outcome.hot.limited += 1;
            }
            (None, Err(NotPromoted::Stale { frame: named })) if named == frame => self.outcome.hot.stale += 1,
            _ => {
                self.wrong(format_args!("hot frame {frame}, page {page:?}, in time {within}: {nominated:?}"))
            }
        }
    }

    /// Takes one page out of the device into ordinary memory, if there is any.
    fn migrate(&mut self) {
        let Some(page) = self.some_page_in_the_device() else { return };
        if let Place::Open(resident) = self.pages[page] {
            self.close(resident);
        }
        if let Place::Compressed(resident) = self.pages[page] {
            self.promote(page, resident);
        }
    }

    /// Ends the program that has most pages in the device, and frees all its pages.
    fn kill(&mut self) {
        let has = |program: &usize| {
            let in_device = |place: &&Place| matches!(place, Place::Compressed(_) | Place::Open(_));
            self.pages.iter().skip(*program).step_by(PROGRAMS).filter(in_device).count()
        };
        let victim = (0..PROGRAMS).max_by_key(has).expect("there are programs");
        (victim..self.plan.pages).step_by(PROGRAMS).for_each(|page| self.free(page));
    }

    fn ballooned(&self) -> u32 {
        (self.outcome.balloon.inflated - self.outcome.balloon.deflated) as u32
    }

    pub(super) fn mind_the_balloon(&mut self, event: u64) {
        let mut target = self.target.unwrap_or(0);
        // The provider changes its mind now and then; in every other pair of runs with faults it wants next to everything
        // back, often. The latest word counts.
        let badly = self.plan.faults > 0 && self.plan.seed % 4 >= 2 && self.chance.below(3) == 0;
        if event % 20_000 == 0 || badly {
            let achieved = if badly { self.chance.below(2200) } else { 1000 + self.chance.below(1200) };
            target = Balloon::target(self.plan.advertised, 2000, achieved as u32);
        }
        let reached = self.target.is_none_or(|last| last == target || last == self.ballooned());
        self.outcome.balloon.superseded += u64::from(!reached);
        self.target = Some(target);
        // Now and then the disk with the swap does not answer for a while.
        let swap = self.plan.faults == 0 || self.chance.below(2) == 0;
        // Until there is nothing to do; the rest some other time, but never between making room and using it.
        let mut steps = 0;
        while steps < 4 {
            steps += 1;
            self.handler.flush();
            let cram = self.handler.shared();
            let capacity = cram.capacity(self.handler.medium());
            let size = capacity.ballooned_frames as u32;
            let free = (capacity.advertised_frames - capacity.occupied_frames) as u32 - size;
            if size != self.ballooned() {
                let put = self.ballooned();
                self.wrong(format_args!("{size} frames are in the balloon, {put} were put"));
            }
            match cram.balloon_step(&mut self.balloon, target) {
                BalloonStep::Rest if size == target => return self.in_vain = 0,
                BalloonStep::Inflate { frames } if size + frames <= target && frames <= free => {
                    self.outcome.balloon.inflated += u64::from(cram.inflate(frames));
                    self.in_vain = 0;
                }
                BalloonStep::Deflate { frames } if size - frames >= target => {
                    self.outcome.balloon.deflated += u64::from(cram.deflate(frames));
                    self.in_vain = 0;
                }
                BalloonStep::MakeRoom { rung, frames } if free == 0 && frames <= target - size => {
                    steps -= u32::from(self.climb(rung, frames, swap));
                }
                step => self.wrong(format_args!("{step} at {size} of {target}, {free} free")),
            }
        }
    }

    /// Makes room by the means of one rung, which has to be the next one above what was tried in vain. Tells whether
    /// that has helped.
    fn climb(&mut self, rung: Rung, frames: u32, swap: bool) -> bool {
        let due = match self.in_vain {
            0 => Rung::Migrate,
            1 | 2 => Rung::Reclaim,
            _ => Rung::OutOfMemory,
        };
        if rung != due {
            let in_vain = self.in_vain;
            self.wrong(format_args!("{rung:?} after {in_vain} rounds in vain"));
        }
        let before = self.handler.shared().capacity(self.handler.medium()).occupied_frames;
        let pages = frames.min(16);
        match rung {
            Rung::Migrate => {
                self.outcome.balloon.migrate += 1;
                (0..pages).for_each(|_| self.migrate());
            }
            Rung::Reclaim => {
                self.outcome.balloon.reclaim += 1;
                (0..if swap { pages } else { 0 }).for_each(|_| self.evict());
            }
            Rung::OutOfMemory => {
                self.outcome.balloon.oom += 1;
                self.kill();
            }
        }
        self.handler.flush();
        let after = self.handler.shared().capacity(self.handler.medium()).occupied_frames;
        // What helped is followed by inflating, which begins the rungs anew.
        self.in_vain = if after < before { 0 } else { self.in_vain + 1 };
        if rung == Rung::OutOfMemory && after == before {
            self.wrong("a program was killed and nothing was gained");
        }
        after < before
    }
}
