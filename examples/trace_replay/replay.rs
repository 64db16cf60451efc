//! Replaying a trace on a source, with an oracle that owns a bit for each frame.

use std::time::{Duration, Instant};

use pnode::core::{FrameSource, Order, Pfn};

use crate::trace::{Event, Trace};

/// How the memory looked after some of the events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) event: usize,
    pub(crate) used: u64,
    /// The share of the free memory that no huge page (order 9) fits into.
    pub(crate) broken: f64,
    /// Huge pages that were refused so far.
    pub(crate) refused_huge: u64,
}

/// What came of a replay.
pub(crate) struct Outcome {
    pub(crate) samples: Vec<Sample>,
    /// Refused blocks, by order.
    pub(crate) refused: [u64; Order::COUNT],
    /// Refused although an aligned run of free frames was there.
    pub(crate) needless: u64,
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// The mean share of free memory that is broken up.
    pub(crate) fn mean_broken(&self) -> f64 {
        self.samples.iter().map(|sample| sample.broken).sum::<f64>() / self.samples.len().max(1) as f64
    }
}

/// So many samples a replay takes.
const SAMPLES: usize = 200;

/// Every frame, and whether somebody has it: the naive model of a source.
struct Oracle {
    words: Vec<u64>,
    frames: u64,
    used: u64,
}

impl Oracle {
    fn new(frames: u64) -> Self {
        let mut words = vec![0; frames.div_ceil(64) as usize];
        if frames % 64 != 0 {
            // What is beyond the end is nobody's to take.
            *words.last_mut().expect("a trace has a frame") = u64::MAX << (frames % 64);
        }
        Self { words, frames, used: 0 }
    }

    fn has(&self, frame: u64) -> bool {
        self.words[(frame / 64) as usize] & 1 << (frame % 64) != 0
    }

    fn take(&mut self, pfn: Pfn, order: Order) -> Result<(), String> {
        let (start, frames) = (pfn.get(), order.frames());
        if !pfn.is_aligned(order) || start.checked_add(frames).is_none_or(|end| end > self.frames) {
            return Err(format!("the block of order {order:?} at {pfn:?} is misaligned or outside"));
        }
        for frame in start..start + frames {
            if self.has(frame) {
                return Err(format!("frame {frame:#x} was handed out twice"));
            }
            self.words[(frame / 64) as usize] |= 1 << (frame % 64);
        }
        self.used += frames;
        Ok(())
    }

    fn give(&mut self, pfn: Pfn, order: Order) {
        for frame in pfn.get()..pfn.get() + order.frames() {
            self.words[(frame / 64) as usize] &= !(1 << (frame % 64));
        }
        self.used -= order.frames();
    }

    /// Aligned runs of `order` that are free as a whole.
    fn free_blocks(&self, order: Order) -> u64 {
        let frames = order.frames();
        if frames < 64 {
            let starts = (0..self.frames / frames).map(|block| block * frames);
            return starts.filter(|start| (*start..start + frames).all(|frame| !self.has(frame))).count()
                as u64;
        }
        self.words
            .chunks_exact((frames / 64) as usize)
            .filter(|words| words.iter().all(|word| *word == 0))
            .count() as u64
    }

    fn broken(&self) -> f64 {
        let free = self.frames - self.used;
        if free == 0 {
            0.0
        } else {
            1.0 - (self.free_blocks(Order::HUGE) * Order::HUGE.frames()) as f64 / free as f64
        }
    }
}

/// Replays `trace` on `source`.
///
/// # Errors
///
/// A sentence, if the source hands out what is not free, or does not take back what it handed out.
pub(crate) fn replay(trace: &Trace, source: &dyn FrameSource) -> Result<Outcome, String> {
    let mut oracle = Oracle::new(trace.frames);
    let mut outcome =
        Outcome { samples: Vec::new(), refused: [0; Order::COUNT], needless: 0, took: Duration::ZERO };
    // By number: where the block is, unless the source refused it.
    let mut blocks: Vec<Option<(Pfn, Order)>> = Vec::new();
    let every = (trace.events.len() / SAMPLES).max(1);
    for (index, event) in trace.events.iter().enumerate() {
        let about = |what: String| format!("event {}: {what}", index + 1);
        let clock = Instant::now();
        match *event {
            Event::Taken { order, migrate } | Event::Refused { order, migrate } => {
                let taken = source.alloc(order, migrate);
                outcome.took += clock.elapsed();
                match taken {
                    Ok(pfn) => oracle.take(pfn, order).map_err(about)?,
                    Err(_) => {
                        outcome.refused[usize::from(order.get())] += 1;
                        outcome.needless += u64::from(oracle.free_blocks(order) > 0);
                    }
                }
                let block = taken.ok().map(|pfn| (pfn, order));
                match (event, block) {
                    (Event::Taken { .. }, block) => blocks.push(block),
                    // The program that was recorded had to go on without it.
                    (_, Some((pfn, order))) => {
                        source.free(pfn, order).map_err(|error| about(error.to_string()))?;
                        oracle.give(pfn, order);
                    }
                    (_, None) => {}
                }
            }
            Event::Given { block } => {
                if let Some((pfn, order)) = blocks[block as usize].take() {
                    let freed = source.free(pfn, order);
                    outcome.took += clock.elapsed();
                    freed.map_err(|error| about(error.to_string()))?;
                    oracle.give(pfn, order);
                }
            }
        }
        if index % every == 0 {
            outcome.samples.push(Sample {
                event: index,
                used: oracle.used,
                broken: oracle.broken(),
                refused_huge: outcome.refused[usize::from(Order::HUGE.get())],
            });
        }
    }
    // A trace may end with blocks taken.
    for (pfn, order) in blocks.into_iter().flatten() {
        source.free(pfn, order).map_err(|error| error.to_string())?;
    }
    Ok(outcome)
}
