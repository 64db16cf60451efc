//! The mailbox: trim commands, carried out one after the other, some time after they were sent.
//!
//! After the driver of the compressed RAM series (mail *cxl: flush pipeline*, February 2026): a command has room for so many
//! ranges, an answer carries the bytes in use, and the host zeroes what was not trimmed. What the model adds is what can go
//! wrong on the way. A command may fail after a part of it was carried out; its answer may be lost; and it may hang, and
//! with it all that wait behind it, until the host aborts it. A host that does not wait for an answer and does not abort
//! either must not use the frames again: the device may zero them at any time.

use core::fmt;

use super::Device;

/// The most commands that a mailbox can hold.
pub const MAILBOX_DEPTH: usize = 8;

/// How the mailbox behaves. Times are in the units of the caller's time, chances in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxConfig {
    /// Frames that one command names.
    pub payload: usize,
    /// Commands that may wait, up to [`MAILBOX_DEPTH`].
    pub depth: usize,
    /// How long a command takes.
    pub command_time: u64,
    /// How long each frame of a command takes on top.
    pub frame_time: u64,
    /// Commands that fail, some of them after a part was carried out.
    pub failing: u32,
    /// Commands that are carried out, and whose answer is lost.
    pub silent: u32,
    /// Commands that hang until they are aborted.
    pub hanging: u32,
}

impl MailboxConfig {
    /// Commands of 64 frames, four at a time, that take one unit of time, and never fail.
    pub const DEFAULT: Self =
        Self { payload: 64, depth: 4, command_time: 1, frame_time: 0, failing: 0, silent: 0, hanging: 0 };

    /// The words of [`super::DeviceStorage::mailbox`] that this takes.
    pub const fn words(&self) -> usize {
        let depth = if self.depth < MAILBOX_DEPTH { self.depth } else { MAILBOX_DEPTH };
        depth.saturating_mul(self.payload)
    }
}

impl Default for MailboxConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The name of a command that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// It names more frames than a command may.
    TooLong {
        /// How many it names.
        frames: usize,
        /// How many it may.
        payload: usize,
    },
    /// As many commands wait as the mailbox holds: ask for an answer first.
    Full {
        /// How many.
        depth: usize,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { frames, payload } => {
                write!(f, "a command names up to {payload} frames, not {frames}: send several")
            }
            Self::Full { depth } => {
                write!(f, "{depth} commands wait in the mailbox: ask for an answer first")
            }
        }
    }
}

impl core::error::Error for SendError {}

/// What the device says of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out.
    Trimmed {
        /// Bytes in use afterwards.
        used: u64,
    },
    /// It failed; a part of it may have been carried out.
    Failed,
}

/// What a command is going to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    /// After so many frames.
    Fails(usize),
    Silent,
    Hangs,
}

#[derive(Clone, Copy, Debug)]
struct Command {
    ticket: Ticket,
    fate: Fate,
    /// Where in the mailbox its frames are.
    place: usize,
    frames: usize,
    sent: u64,
    answer: Option<Answer>,
    over: bool,
}

/// The commands of a device, oldest first.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    commands: [Option<Command>; MAILBOX_DEPTH],
    sent: u64,
    /// When the last command was over.
    idle_since: u64,
}

impl Device<'_> {
    /// Sends a command to trim `frames`: each of them becomes zeroes some time from `now` on.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent.
    pub fn send(
        &mut self,
        frames: impl ExactSizeIterator<Item = u32>,
        now: u64,
    ) -> Result<Ticket, SendError> {
        self.run(now);
        let MailboxConfig { payload, depth, failing, silent, hanging, .. } = self.config.mailbox;
        let (count, depth) = (frames.len(), depth.min(MAILBOX_DEPTH));
        if count > payload {
            return Err(SendError::TooLong { frames: count, payload });
        }
        let free = self.mailbox.commands[..depth].iter().position(Option::is_none);
        let place = free.ok_or(SendError::Full { depth })?;
        let words = self.storage.mailbox.iter_mut().skip(place * payload);
        let written = words.zip(frames.take(count)).map(|(word, frame)| *word = frame).count();
        let draw = (self.draw() % 1000) as u32;
        let fate = match draw {
            _ if draw < failing => Fate::Fails((self.draw() % (written as u64 + 1)) as usize),
            _ if draw < failing.saturating_add(silent) => Fate::Silent,
            _ if draw < failing.saturating_add(silent).saturating_add(hanging) => Fate::Hangs,
            _ => Fate::Done,
        };
        self.mailbox.sent += 1;
        let ticket = Ticket(self.mailbox.sent);
        self.mailbox.commands[place] =
            Some(Command { ticket, fate, place, frames: written, sent: now, answer: None, over: false });
        Ok(ticket)
    }

    /// The answer to a command, if it has come by `now`. It is given once.
    pub fn answer(&mut self, ticket: Ticket, now: u64) -> Option<Answer> {
        self.run(now);
        let place = self.place_of(ticket)?;
        let answer = self.mailbox.commands[place]?.answer?;
        self.mailbox.commands[place] = None;
        Some(answer)
    }

    /// Aborts a command at time `now`: if it was not carried out by then, it never is. Its answer is not given any more.
    pub fn abort(&mut self, ticket: Ticket, now: u64) {
        self.run(now);
        if let Some(place) = self.place_of(ticket) {
            self.mailbox.commands[place] = None;
            self.mailbox.idle_since = self.mailbox.idle_since.max(now);
        }
    }

    fn place_of(&self, ticket: Ticket) -> Option<usize> {
        self.mailbox.commands.iter().position(|command| command.is_some_and(|it| it.ticket == ticket))
    }

    /// Carries out the commands that are due by `now`, oldest first.
    pub(super) fn run(&mut self, now: u64) {
        let MailboxConfig { command_time, frame_time, .. } = self.config.mailbox;
        loop {
            let waiting = self.mailbox.commands.iter().flatten().filter(|command| !command.over);
            let Some(command) = waiting.min_by_key(|command| command.ticket.0).copied() else { return };
            let takes = command_time.saturating_add(frame_time.saturating_mul(command.frames as u64));
            let due = command.sent.max(self.mailbox.idle_since).saturating_add(takes);
            if due > now || command.fate == Fate::Hangs {
                return;
            }
            let frames = match command.fate {
                Fate::Fails(frames) => frames,
                _ => command.frames,
            };
            for i in 0..frames {
                let word = command.place * self.config.mailbox.payload + i;
                let frame = self.storage.mailbox.get(word).copied();
                frame.into_iter().for_each(|frame| self.clear(frame, due));
            }
            self.mailbox.idle_since = due;
            let answer = match command.fate {
                Fate::Fails(_) => Some(Answer::Failed),
                Fate::Silent => None,
                _ => Some(Answer::Trimmed { used: self.used }),
            };
            self.mailbox.commands[command.place] = Some(Command { answer, over: true, ..command });
        }
    }
}
