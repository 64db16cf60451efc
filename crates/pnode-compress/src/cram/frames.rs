//! The state of each advertised frame: one word, changed by compare-and-swap only, so that of all racers one wins.
//!
//! ```text
//!            begin_fill            filled                begin_promote
//!   free ----------------> filling ------> resident <------------------> promoting
//!    ^                        |               |             abort             |
//!    |        abandon         |               | begin_free                    | promoted
//!    +------------------------+               v                               |
//!    +------------------------------------ freeing <--------------------------+
//!                   freed
//! ```
//!
//! A free frame may also be put into the balloon, and come back from there; a resident page may be opened for writing where
//! it is, and closed again, or freed while it is open.
//!
//! A word also counts how often its frame was filled, so a [`Resident`] that was kept too long is noticed.

use core::fmt;

use pnode_core::sync::{AtomicU64, Ordering};

/// A page that is resident in a compressed node: what the host keeps instead of the page, in a page-table entry say.
///
/// Names the advertised frame and the filling of it. A value that outlived its page is [`Stale`], never another page.
/// Fillings are counted modulo 2^28.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resident {
    frame: u32,
    filling: u32,
}

impl Resident {
    /// A name that no page has: to fill lists with.
    pub const NOBODY: Self = Self { frame: u32::MAX, filling: 0 };

    /// The number of the advertised frame.
    pub const fn frame(self) -> u32 {
        self.frame
    }

    /// The page as one word of 60 bits, for a page-table entry.
    pub const fn to_bits(self) -> u64 {
        (self.filling as u64) << 32 | self.frame as u64
    }

    /// The page with these bits, the low 60. Bits that no page had are [`Stale`] when they are used.
    pub const fn from_bits(bits: u64) -> Self {
        Self { frame: bits as u32, filling: (bits >> 32) as u32 & FILLING_MASK }
    }
}

impl fmt::Debug for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "resident {}.{}", self.frame, self.filling)
    }
}

/// The page is not resident any more, or never was: whoever asks should look at his page-table entry again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// What was asked for.
    pub page: Resident,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is gone; look at the page-table entry again", self.page)
    }
}

impl core::error::Error for Stale {}

const FILLING_MASK: u32 = (1 << 28) - 1;
const STATE_MASK: u64 = 0xf;
const FILLING_SHIFT: u32 = 4;

/// What a frame is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Free = 0,
    Filling = 1,
    Resident = 2,
    Promoting = 3,
    Freeing = 4,
    Ballooned = 5,
    Writable = 6,
}

impl State {
    const fn of(word: u64) -> Self {
        match word & STATE_MASK {
            0 => Self::Free,
            1 => Self::Filling,
            2 => Self::Resident,
            3 => Self::Promoting,
            4 => Self::Freeing,
            5 => Self::Ballooned,
            _ => Self::Writable,
        }
    }
}

const fn word(state: State, filling: u32) -> u64 {
    (filling as u64) << FILLING_SHIFT | state as u64
}

const fn filling(word: u64) -> u32 {
    (word >> FILLING_SHIFT) as u32 & FILLING_MASK
}

/// The states of all advertised frames.
pub(crate) struct Frames<'m> {
    states: &'m [AtomicU64],
    /// A bit a frame that somebody has taken: a page's, or nobody's past the end.
    taken: &'m [AtomicU64],
    /// The word of `taken` where the last free frame was found.
    hint: AtomicU64,
}

impl<'m> Frames<'m> {
    pub(crate) const fn words(frames: u32) -> usize {
        frames as usize + (frames as usize).div_ceil(64)
    }

    /// `frames` free frames; `words` has [`Self::words`] words.
    pub(crate) fn new(frames: u32, words: &'m [AtomicU64]) -> Self {
        let (states, taken) = words.split_at(frames as usize);
        for state in states {
            state.store(word(State::Free, 0), Ordering::Relaxed);
        }
        for (i, word) in taken.iter().enumerate() {
            let there = frames as usize - i * 64;
            word.store(if there >= 64 { 0 } else { u64::MAX << there }, Ordering::Relaxed);
        }
        Self { states, taken, hint: AtomicU64::new(0) }
    }

    pub(crate) fn count(&self) -> u32 {
        self.states.len() as u32
    }

    /// Takes a free frame and begins to fill it.
    pub(crate) fn begin_fill(&self) -> Option<Resident> {
        let words = self.taken.len();
        let hint = self.hint.load(Ordering::Relaxed) as usize;
        for i in (hint..words).chain(0..hint.min(words)) {
            let mut seen = self.taken[i].load(Ordering::Relaxed);
            while seen != u64::MAX {
                let bit = seen.trailing_ones();
                // Acquire pairs with the Release in `freed`: the frame's last page is gone.
                match self.taken[i].compare_exchange_weak(
                    seen,
                    seen | 1 << bit,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        self.hint.store(i as u64, Ordering::Relaxed);
                        let frame = i as u32 * 64 + bit;
                        let state = &self.states[frame as usize];
                        // The bit makes the frame ours, so nobody else changes its word now.
                        let filling = filling(state.load(Ordering::Relaxed)).wrapping_add(1) & FILLING_MASK;
                        state.store(word(State::Filling, filling), Ordering::Relaxed);
                        return Some(Resident { frame, filling });
                    }
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    /// Turns the frame of `page` from one state into another, if it is in that state.
    ///
    /// # Errors
    ///
    /// The state that it is in, or [`Stale`] if it is another filling.
    pub(crate) fn turn(&self, page: Resident, from: State, to: State) -> Result<(), Turned> {
        let state = self.states.get(page.frame as usize).ok_or(Turned::Stale)?;
        // AcqRel: who takes a page over sees all that was done with it by those who had it before.
        let turned = state.compare_exchange(
            word(from, page.filling),
            word(to, page.filling),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        match turned {
            Ok(_) => Ok(()),
            Err(now) if filling(now) != page.filling || State::of(now) == State::Free => Err(Turned::Stale),
            Err(now) => Err(Turned::Is(State::of(now))),
        }
    }

    /// What the frame of `page` is doing; `None` if the page is gone.
    pub(crate) fn state(&self, page: Resident) -> Option<State> {
        // Acquire pairs with the AcqRel in `turn`.
        let now = self.states.get(page.frame as usize)?.load(Ordering::Acquire);
        (filling(now) == page.filling && State::of(now) != State::Free).then_some(State::of(now))
    }

    /// Gives back a frame that is being filled or freed by the caller.
    pub(crate) fn freed(&self, page: Resident) {
        let Some(state) = self.states.get(page.frame as usize) else { return };
        state.store(word(State::Free, page.filling), Ordering::Relaxed);
        // Release pairs with the Acquire in `begin_fill`.
        self.taken[page.frame as usize / 64].fetch_and(!(1 << (page.frame % 64)), Ordering::Release);
    }

    /// The first frame in the balloon, from frame `from` on.
    pub(crate) fn ballooned_from(&self, from: u32) -> Option<Resident> {
        (from..self.count()).find_map(|frame| {
            let now = self.states[frame as usize].load(Ordering::Relaxed);
            (State::of(now) == State::Ballooned).then_some(Resident { frame, filling: filling(now) })
        })
    }

    /// The page that is resident in a frame.
    pub(crate) fn resident_at(&self, frame: u32) -> Option<Resident> {
        // Relaxed: whoever uses the page asks for its state again.
        let now = self.states.get(frame as usize)?.load(Ordering::Relaxed);
        matches!(State::of(now), State::Resident | State::Writable)
            .then_some(Resident { frame, filling: filling(now) })
    }

    /// The page in a frame that is open for writing.
    pub(crate) fn writable_at(&self, frame: u32) -> Option<Resident> {
        // Relaxed, as above.
        let now = self.states.get(frame as usize)?.load(Ordering::Relaxed);
        (State::of(now) == State::Writable).then_some(Resident { frame, filling: filling(now) })
    }

    /// The first page that is resident in frame `from` or a later one.
    pub(crate) fn resident_from(&self, from: u32) -> Option<Resident> {
        (from..self.count()).find_map(|frame| self.resident_at(frame))
    }
}

/// Why a frame was not turned.
pub(crate) enum Turned {
    /// It holds another page, or none.
    Stale,
    /// It is doing this.
    Is(State),
}
