//! Simulated latency: what accesses to the memory of each node would take, counted, or waited for.
//!
//! All nodes of a machine are ordinary memory of the computer that it runs on, so a far tier is as near as DRAM. Where that
//! hides what is to be seen, the machine *charges* each access: the latency of the node's class, and the time that the bytes take
//! at its bandwidth. Two levels of the same idea are known from Quartz (H. Volos and others, 2015), which delays epochs of a
//! program, and from gem5, which counts.

use core::ops::Range;
use std::time::{Duration, Instant};

use pnode_core::sync::{AtomicU64, Ordering};
use pnode_core::{MemoryClass, NodeId};

use super::region::{Region, State};
use super::spec::MAX_NODES;
use super::watch::On;
use super::{Machine, Shared};

/// What becomes of the time that is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delays {
    /// It is counted only: one thread's steps take the same time in every run.
    Counted,
    /// It is counted, and the thread waits for as long.
    Waited,
}

/// The time that was charged, by node, in nanoseconds. Relaxed throughout: sums that order nothing.
pub(super) struct Clock {
    charged: [AtomicU64; MAX_NODES],
}

impl Default for Clock {
    fn default() -> Self {
        Self { charged: [const { AtomicU64::new(0) }; MAX_NODES] }
    }
}

impl Clock {
    /// All that was charged.
    pub(super) fn now(&self) -> u64 {
        self.charged.iter().map(|charged| charged.load(Ordering::Relaxed)).sum()
    }
}

impl Machine {
    /// The simulated time that accesses took since the machine was built, of all threads together; 0 without
    /// [`Builder::delays`](super::Builder::delays).
    ///
    /// Charged are faults (the latency of the node that the page is on then), copies of pages (both nodes' latencies, and the
    /// bytes at the lower of both bandwidths), and what is read and written by [`Machine::read`], by
    /// [`Mapping::read`](super::Mapping::read) and by [`Process::read`](super::Process::read), and their counterparts: for each
    /// page a latency and the bytes. What a program touches through a pointer is charged for its faults only.
    pub fn simulated_time(&self) -> Duration {
        Duration::from_nanos(self.shared.watch.clock.now())
    }

    /// The part of [`Machine::simulated_time`] that memory of `node` took.
    pub fn simulated_time_on(&self, node: NodeId) -> Duration {
        let charged = self.shared.watch.clock.charged.get(node.index());
        Duration::from_nanos(charged.map_or(0, |charged| charged.load(Ordering::Relaxed)))
    }
}

/// What `bytes` bytes take at the bandwidth of a class, in nanoseconds, rounded up.
fn transfer(bytes: usize, class: MemoryClass) -> u64 {
    let per_second = u128::from(class.bandwidth_mib_s().max(1)) << 20;
    (bytes as u128 * 1_000_000_000).div_ceil(per_second) as u64
}

impl Shared {
    fn class(&self, node: NodeId) -> Option<MemoryClass> {
        Some(self.site(node)?.class)
    }

    fn charge(&self, node: NodeId, nanoseconds: u64) {
        if let Some(charged) = self.watch.clock.charged.get(node.index()) {
            charged.fetch_add(nanoseconds, Ordering::Relaxed);
        }
        if self.watch.is_on(On::Delays) {
            wait(Duration::from_nanos(nanoseconds));
        }
    }

    /// Charges an access to `bytes` bytes of one page, if time is simulated.
    pub(super) fn charge_access(&self, node: NodeId, bytes: usize) {
        if !self.watch.is_on(On::Clock) {
            return;
        }
        if let Some(class) = self.class(node) {
            self.charge(node, u64::from(class.latency_ns()) + transfer(bytes, class));
        }
    }

    /// Charges the copy of a page from a node to another one, to both, if time is simulated.
    pub(super) fn charge_copy(&self, to: NodeId, from: NodeId) {
        if !self.watch.is_on(On::Clock) {
            return;
        }
        if let (Some(target), Some(source)) = (self.class(to), self.class(from)) {
            let slower = if source.bandwidth_mib_s() < target.bandwidth_mib_s() { source } else { target };
            self.charge(from, u64::from(source.latency_ns()));
            self.charge(to, u64::from(target.latency_ns()) + transfer(self.page.bytes(), slower));
        }
    }
}

/// Waits without giving the processor away, as an access does, unless it is for long.
fn wait(time: Duration) {
    const LONG: Duration = Duration::from_micros(200);
    if time >= LONG {
        std::thread::sleep(time);
        return;
    }
    let start = Instant::now();
    while start.elapsed() < time {
        core::hint::spin_loop();
    }
}

impl Region {
    /// Charges an access to bytes of the region, page by page.
    pub(super) fn charge(&self, bytes: Range<usize>) {
        if !self.shared.watch.is_on(On::Clock) {
            return;
        }
        let size = self.shared.page.bytes();
        for page in bytes.start / size..bytes.end.div_ceil(size) {
            let part = bytes.end.min((page + 1) * size) - bytes.start.max(page * size);
            if let Some(node) = self.place(page).node() {
                self.shared.charge_access(node, part);
            }
        }
    }

    /// Charges a fault that was served.
    pub(super) fn charge_fault(&self, state: &State) {
        if !self.shared.watch.is_on(On::Clock) {
            return;
        }
        let node = match state {
            State::Resident(frame) => Some(frame.node()),
            State::Stored { node, .. } => Some(*node),
            State::Common(common) => common.lock().node(),
            State::Untouched | State::Swapped(_) => None,
        };
        node.into_iter().for_each(|node| self.shared.charge_access(node, 0));
    }
}
