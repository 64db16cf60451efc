//! The balloon: frames that a node advertises and must not use, because its data compresses less well than was hoped.
//!
//! A frame in the balloon is taken like a page's, and scrubbed, so it costs nothing. [`Balloon::next`] is a pure
//! function of what is and what should be; the host does what it says and asks again, so the latest target always wins.
//! The rungs are those of the Linux series' later revision: take what is free; move occupants away; reclaim them; and
//! only when nothing has helped for some rounds, kill.

use core::fmt;

/// How far a balloon is from where it should be, and what has been tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Balloon {
    /// Rounds in a row that gained nothing.
    stuck: u32,
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
        Self { stuck: 0 }
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

    /// The next step for a balloon of `size` frames that should have `target`, while `free` frames are free.
    pub fn next(&mut self, target: u32, size: u32, free: u32) -> BalloonStep {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
