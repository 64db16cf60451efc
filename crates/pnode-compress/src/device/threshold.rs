//! Thresholds of free memory, and the interrupts that they raise.

/// How many thresholds a device has.
pub const LEVELS: usize = 4;

/// A mark of free memory with two edges, so that use which hovers about it does not raise an interrupt each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// With fewer free bytes than this, [`Edge::Falling`] is raised.
    pub below: u64,
    /// With more free bytes than this, [`Edge::Rising`] is raised after a falling one. No less than `below`.
    pub above: u64,
}

/// Which way a threshold was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Memory runs low.
    Falling,
    /// There is memory again.
    Rising,
}

/// A message of the device: free memory has passed a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Which threshold, 0 to one below [`LEVELS`].
    pub level: usize,
    /// Which way.
    pub edge: Edge,
}

/// The state of the thresholds, and the interrupts on their way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alarms {
    low: [bool; LEVELS],
    /// The edge on its way and when it arrives. A threshold has one line: a later edge takes the place of one that has not
    /// arrived.
    pending: [Option<(Edge, u64)>; LEVELS],
}

impl Alarms {
    /// Raises what `free` bytes raise at time `now`; `latency` says how long each takes.
    pub(super) fn watch(
        &mut self,
        thresholds: &[Option<Threshold>; LEVELS],
        free: u64,
        now: u64,
        mut latency: impl FnMut() -> u64,
    ) {
        for (level, threshold) in thresholds.iter().enumerate() {
            let Some(Threshold { below, above }) = *threshold else { continue };
            let edge = match self.low[level] {
                false if free < below => Edge::Falling,
                true if free > above => Edge::Rising,
                _ => continue,
            };
            self.low[level] = edge == Edge::Falling;
            self.pending[level] = Some((edge, now.saturating_add(latency())));
        }
    }

    /// The interrupt that has arrived first by `now`.
    pub(super) fn arrived(&mut self, now: u64) -> Option<Interrupt> {
        let due = self.pending.iter().enumerate().filter_map(|(level, pending)| {
            let (edge, due) = (*pending)?;
            (due <= now).then_some((due, Interrupt { level, edge }))
        });
        let (_, first) = due.min_by_key(|(due, _)| *due)?;
        self.pending[first.level] = None;
        Some(first)
    }
}
