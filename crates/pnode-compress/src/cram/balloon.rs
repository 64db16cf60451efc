//! The balloon: frames that a node advertises and must not use, because its data compresses less well than was hoped.
//!
//! A frame in the balloon is taken like a page's, and scrubbed, so it costs nothing. [`Balloon::next`] is a pure
//! function of what is and what should be; the host does what it says and asks again, so the latest target always wins.
//! The rungs are those of the Linux series' later revision: take what is free; move occupants away; reclaim them; and
//! only when nothing has helped for some rounds, kill.

use core::fmt;

use pnode_core::sync::Ordering;

use super::Cram;
use super::frames::State;
use super::stats::Event;

/// How far a balloon is from where it should be, and what has been tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Balloon {
    /// Rounds in a row that gained nothing.
    stuck: u32,
    /// What the last step was to reach.
    target: Option<u32>,
}

/// What the host is to do for the balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalloonStep {
    /// Nothing: it has its size.
    Rest,
    /// [`super::Cram::inflate`] by this many frames.
    Inflate {
        /// How many.
        frames: u32,
    },
    /// [`super::Cram::deflate`] by this many frames.
    Deflate {
        /// How many.
        frames: u32,
    },
    /// Make this many frames free first.
    MakeRoom {
        /// By what means.
        rung: Rung,
        /// How many.
        frames: u32,
    },
}

/// By what means frames are made free, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Promote pages to ordinary memory.
    Migrate,
    /// Reclaim pages, to swap if need be.
    Reclaim,
    /// Kill a user of the node: for three rounds nothing has helped.
    OutOfMemory,
}

impl Balloon {
    /// Frames that a step takes or gives at a time: 8 MiB of 4 KiB pages.
    pub const STEP: u32 = 2048;
    /// Rounds without a gain before the last rung.
    const PATIENCE: u32 = 3;

    /// A balloon that nothing was tried for.
    pub const fn new() -> Self {
        Self { stuck: 0, target: None }
    }

    /// How many of `advertised` frames have to be in the balloon if contents that were to compress by
    /// `configured` thousandths achieve `achieved`.
    ///
    /// 2,000 configured and 1,000 achieved put half of the node into the balloon.
    pub const fn target(advertised: u32, configured: u32, achieved: u32) -> u32 {
        if achieved >= configured || configured == 0 {
            return 0;
        }
        // The quotient is at most `advertised`.
        (advertised as u64 * (configured - achieved) as u64 / configured as u64) as u32
    }

    /// Whether `target` takes the place of another one that a balloon of `size` frames has not come to yet.
    pub fn supersedes(&self, target: u32, size: u32) -> bool {
        self.target.is_some_and(|last| last != target && last != size)
    }

    /// The next step for a balloon of `size` frames that should have `target`, while `free` frames are free.
    pub fn next(&mut self, target: u32, size: u32, free: u32) -> BalloonStep {
        self.target = Some(target);
        if size >= target {
            self.stuck = 0;
            let frames = (size - target).min(Self::STEP);
            return if frames == 0 { BalloonStep::Rest } else { BalloonStep::Deflate { frames } };
        }
        let frames = (target - size).min(Self::STEP);
        if free > 0 {
            self.stuck = 0;
            return BalloonStep::Inflate { frames: frames.min(free) };
        }
        let rung = match self.stuck {
            0 => Rung::Migrate,
            rounds if rounds < Self::PATIENCE => Rung::Reclaim,
            _ => Rung::OutOfMemory,
        };
        self.stuck = self.stuck.saturating_add(1);
        BalloonStep::MakeRoom { rung, frames }
    }
}

impl Cram<'_> {
    /// The next step for `balloon` to have `target` frames, from what the service counts now: [`Balloon::next`], counted
    /// in [`super::CramStats`] by its rung. One caller at a time asks for a node.
    ///
    /// A frame whose page was freed and waits to be trimmed is not free yet: flush the handlers first.
    pub fn balloon_step(&self, balloon: &mut Balloon, target: u32) -> BalloonStep {
        // Relaxed: frames come and go meanwhile, and what the step gains is seen by the next call.
        let size = self.ballooned.load(Ordering::Relaxed);
        let taken = self.occupied.load(Ordering::Relaxed).saturating_add(size);
        let free = u64::from(self.frames.count()).saturating_sub(taken);
        // The balloon and what is free are parts of the node, but for pages that are just being turned away.
        let (size, free) = (size as u32, free as u32);
        if balloon.supersedes(target, size) {
            self.note(Event::Superseded);
        }
        let step = balloon.next(target, size, free);
        if let BalloonStep::MakeRoom { rung, .. } = step {
            self.note(match rung {
                Rung::Migrate => Event::Migrate,
                Rung::Reclaim => Event::Reclaim,
                Rung::OutOfMemory => Event::OutOfMemory,
            });
        }
        step
    }

    /// Puts up to `frames` free frames into the balloon, where no page uses them. Returns how many it put.
    pub fn inflate(&self, frames: u32) -> u32 {
        let put = (0..frames).take_while(|_| {
            let Some(frame) = self.frames.begin_fill() else { return false };
            // Counted before it can be taken out again, so that the count is never below the truth, nor below nothing.
            self.ballooned.fetch_add(1, Ordering::Relaxed);
            // The frame is ours while it is being filled, so the turn does not fail.
            let turned = self.frames.turn(frame, State::Filling, State::Ballooned).is_ok();
            if turned {
                self.note(Event::Inflated);
            } else {
                self.ballooned.fetch_sub(1, Ordering::Relaxed);
            }
            turned
        });
        put.count() as u32
    }

    /// Takes up to `frames` frames out of the balloon. Returns how many it took.
    pub fn deflate(&self, frames: u32) -> u32 {
        let (mut taken, mut from) = (0, 0);
        while taken < frames {
            let Some(frame) = self.frames.ballooned_from(from) else { break };
            from = frame.frame() + 1;
            // Another caller may take the same frame out; one of them does.
            if self.frames.turn(frame, State::Ballooned, State::Freeing).is_ok() {
                self.frames.freed(frame);
                self.ballooned.fetch_sub(1, Ordering::Relaxed);
                self.note(Event::Deflated);
                taken += 1;
            }
        }
        taken
    }
}

impl fmt::Display for BalloonStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rest => f.write_str("rest"),
            Self::Inflate { frames } => write!(f, "inflate by {frames}"),
            Self::Deflate { frames } => write!(f, "deflate by {frames}"),
            Self::MakeRoom { rung, frames } => write!(f, "make room for {frames}: {rung:?}"),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use pnode_core::sync::AtomicU64;

    use super::*;
    use crate::cram::{CramStats, Curve, Usage};

    #[test]
    fn the_target_follows_the_ratio() {
        for (configured, achieved, target) in [
            (2000, 1000, 500),
            (2000, 2000, 0),
            (2000, 3000, 0),
            (2000, 0, 1000),
            (0, 0, 0),
            (4000, 3000, 250),
        ] {
            assert_eq!(Balloon::target(1000, configured, achieved), target, "{configured} {achieved}");
        }
        assert_eq!(Balloon::target(u32::MAX, u32::MAX, 0), u32::MAX);
    }

    #[test]
    fn rungs_rise_only_while_nothing_helps() {
        let mut balloon = Balloon::new();
        assert_eq!(balloon.next(5000, 0, 9000), BalloonStep::Inflate { frames: 2048 });
        assert_eq!(balloon.next(5000, 4096, 3), BalloonStep::Inflate { frames: 3 });
        let rungs: [_; 4] = core::array::from_fn(|_| match balloon.next(5000, 4099, 0) {
            BalloonStep::MakeRoom { rung, frames: 901 } => rung,
            step => panic!("{step:?}"),
        });
        assert_eq!(rungs, [Rung::Migrate, Rung::Reclaim, Rung::Reclaim, Rung::OutOfMemory]);
        assert_eq!(balloon.next(5000, 4099, 1), BalloonStep::Inflate { frames: 1 });
        assert_eq!(balloon.next(5000, 4100, 0), BalloonStep::MakeRoom { rung: Rung::Migrate, frames: 900 });
        // The latest target wins, at once.
        assert_eq!(balloon.next(100, 4100, 0), BalloonStep::Deflate { frames: 2048 });
        assert_eq!(balloon.next(4100, 4100, 0), BalloonStep::Rest);
    }

    #[test]
    fn a_target_is_superseded_by_another_one_that_comes_before_its_size() {
        let mut balloon = Balloon::new();
        assert!(!balloon.supersedes(5, 0), "the first one");
        assert_eq!(balloon.next(5, 0, 9), BalloonStep::Inflate { frames: 5 });
        assert!(!balloon.supersedes(5, 3), "the same one");
        assert!(!balloon.supersedes(7, 5), "it was reached");
        assert!(balloon.supersedes(7, 4));
        assert_eq!(balloon.next(7, 4, 9), BalloonStep::Inflate { frames: 3 });
        assert!(!balloon.supersedes(5, 7), "the latest is what counts");
    }

    #[test]
    fn each_step_is_counted_by_its_rung_and_each_frame_by_its_way() {
        let mut words: [AtomicU64; 32] = core::array::from_fn(|_| AtomicU64::new(0));
        let cram = Cram::new(6, Curve::DEFAULT, &mut words).unwrap();
        let mut balloon = Balloon::new();
        assert_eq!(cram.balloon_step(&mut balloon, 0), BalloonStep::Rest);
        assert_eq!(cram.balloon_step(&mut balloon, 4), BalloonStep::Inflate { frames: 4 });
        assert_eq!(cram.stats(), CramStats::default(), "0 was reached, and nothing was done yet");
        assert_eq!(cram.inflate(4), 4);
        let pages: [_; 2] = core::array::from_fn(|_| cram.admit(Usage { used: 0, physical: 1 }).unwrap());
        for rung in [Rung::Migrate, Rung::Reclaim, Rung::Reclaim, Rung::OutOfMemory, Rung::OutOfMemory] {
            let step = cram.balloon_step(&mut balloon, 6);
            assert_eq!(step, BalloonStep::MakeRoom { rung, frames: 2 });
        }
        cram.vacate(pages[0]);
        assert_eq!(cram.balloon_step(&mut balloon, 6), BalloonStep::Inflate { frames: 1 });
        assert_eq!(cram.inflate(9), 1, "no more than is free");
        assert_eq!(cram.balloon_step(&mut balloon, 3), BalloonStep::Deflate { frames: 2 });
        assert_eq!(cram.deflate(2), 2);
        let expected = CramStats {
            inflated: 5,
            deflated: 2,
            balloon_migrate: 1,
            balloon_reclaim: 2,
            balloon_oom: 2,
            balloon_superseded: 1,
            ..CramStats::default()
        };
        assert_eq!(cram.stats(), expected);
        assert_eq!(cram.balloon_step(&mut balloon, 3), BalloonStep::Rest);
        assert_eq!(cram.balloon_step(&mut balloon, 4), BalloonStep::Inflate { frames: 1 }, "3 was reached");
        assert_eq!(cram.stats(), expected);
    }
}
