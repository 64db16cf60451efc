//! A trace: what a program asked a source of frames for, in order. Its text form is described in [`GRAMMAR`].

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};

use pnode::core::{FrameError, FrameSource, FreeError, MigrateType, Order, Pfn};

/// The text form of a trace, for people.
pub(crate) const GRAMMAR: &str = "\
A trace is text, one event a line; # starts a comment. Its first line says how many frames there are.

  pnode-trace 1 FRAMES
  +ORDER TYPE     a block of 2^ORDER frames was taken; TYPE is u, m or h (unmovable, movable, huge).
                  Blocks are numbered from 0 in the order of these lines
  -NUMBER         the block of that number was given back
  ?ORDER TYPE     a block was asked for and refused";

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Taken { order: Order, migrate: MigrateType },
    Given { block: u32 },
    Refused { order: Order, migrate: MigrateType },
}

/// A whole trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// How many frames the source had.
    pub(crate) frames: u64,
    pub(crate) events: Vec<Event>,
}

const TYPES: [(MigrateType, char); 3] =
    [(MigrateType::Unmovable, 'u'), (MigrateType::Movable, 'm'), (MigrateType::Huge, 'h')];

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |migrate| {
            TYPES.into_iter().find(|(other, _)| *other == migrate).map_or('m', |(_, letter)| letter)
        };
        let mut text = format!("pnode-trace 1 {}\n", self.frames);
        for event in &self.events {
            match *event {
                Event::Taken { order, migrate } => writeln!(text, "+{} {}", order.get(), letter(migrate))?,
                Event::Given { block } => writeln!(text, "-{block}")?,
                Event::Refused { order, migrate } => writeln!(text, "?{} {}", order.get(), letter(migrate))?,
            }
        }
        f.write_str(&text)
    }
}

impl Trace {
    /// The most frames of a trace: 64 GiB at 4 KiB.
    const MOST_FRAMES: u64 = 1 << 24;

    /// Reads a trace; an error names the line and what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().zip(1..).filter_map(|(line, number): (&str, u32)| {
            let code = line.split('#').next().unwrap_or("").trim();
            (!code.is_empty()).then_some((code, number))
        });
        let (first, number) = lines.next().ok_or("the trace is empty")?;
        let frames = first.strip_prefix("pnode-trace 1 ").and_then(|frames| frames.trim().parse().ok());
        let frames = frames.filter(|frames| (1..=Self::MOST_FRAMES).contains(frames)).ok_or(format!(
            "line {number}: a trace begins with: pnode-trace 1 FRAMES (1 to {} of them)",
            Self::MOST_FRAMES
        ))?;
        let mut events = Vec::new();
        // Whether each block is still taken.
        let mut blocks = Vec::new();
        for (line, number) in lines {
            let about = |what: &str| format!("line {number}: {what}");
            let (mark, rest) = line.split_at_checked(1).ok_or_else(|| about("begin with +, - or ?"))?;
            match mark {
                "-" => {
                    let block: u32 =
                        rest.trim().parse().map_err(|_| about("after - comes the number of a block"))?;
                    match blocks.get_mut(block as usize) {
                        None => return Err(about("no block of this number was taken before")),
                        Some(false) => return Err(about("this block was given back before")),
                        Some(taken) => *taken = false,
                    }
                    events.push(Event::Given { block });
                }
                "+" | "?" => {
                    let (order, migrate) = parse_request(rest)
                        .ok_or_else(|| about("write an order from 0 to 18 and u, m or h, as +0 m"))?;
                    if mark == "+" {
                        blocks.push(true);
                        events.push(Event::Taken { order, migrate });
                    } else {
                        events.push(Event::Refused { order, migrate });
                    }
                }
                _ => return Err(about("an event begins with +, - or ?")),
            }
        }
        Ok(Self { frames, events })
    }
}

fn parse_request(text: &str) -> Option<(Order, MigrateType)> {
    let mut words = text.split_ascii_whitespace();
    let order = Order::new(words.next()?.parse().ok()?).ok()?;
    let letter = words.next()?;
    let (migrate, _) = TYPES.into_iter().find(|(_, other)| letter.chars().eq([*other]))?;
    words.next().is_none().then_some((order, migrate))
}

/// A source of frames that writes down what is asked of it.
pub(crate) struct Recorder<S> {
    source: S,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    blocks: u32,
    numbers: HashMap<Pfn, u32>,
}

impl<S: FrameSource> Recorder<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, state: Mutex::default() }
    }

    pub(crate) fn finish(self, frames: u64) -> Trace {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Trace { frames, events: state.events }
    }
}

impl<S: FrameSource> FrameSource for Recorder<S> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        let taken = self.source.alloc(order, migrate);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match taken {
            Ok(pfn) => {
                let number = state.blocks;
                state.blocks += 1;
                state.numbers.insert(pfn, number);
                state.events.push(Event::Taken { order, migrate });
            }
            Err(_) => state.events.push(Event::Refused { order, migrate }),
        }
        taken
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        // First: once it is free, another thread may take it, and be written down before us.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.source.free(pfn, order)?;
        if let Some(block) = state.numbers.remove(&pfn) {
            state.events.push(Event::Given { block });
        }
        Ok(())
    }
}
