//! What happened on a machine, event by event, in a bounded ring.
//!
//! Off unless somebody starts it, and then every event of the harness has a number: two machines that did the same have the same
//! trace to the byte. After the kernel's own trace buffer (`Documentation/trace/ftrace.rst`), which overwrites its oldest events
//! too and counts what it lost.

mod picture;
mod text;

use core::num::NonZeroUsize;
use std::collections::VecDeque;

use pnode_core::{Denied, Frame, NodeId, Pfn};

use super::inject::Point;
use super::region::{Page, Region, State};
use super::watch::On;
use super::{Machine, Shared};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum What {
    /// A touch trapped and was served, or was not.
    Fault,
    /// A zone handed out a block.
    Alloc,
    /// A zone took a block back.
    Free,
    /// A page moved to another node because somebody asked, or its node left.
    Migrate,
    /// A page moved to a private node of a lower tier, or was refused there.
    Demote,
    /// A page moved from a private node to ordinary memory.
    Promote,
    /// A page lost the right to be written to.
    Fence,
    /// A search for cold pages ended; `count` pages moved.
    Reclaim,
    /// A page went to the swap file, or came from it.
    Swap,
    /// A page came from the file that it belongs to, or went there.
    File,
    /// A node came.
    Plug,
    /// A node left; `count` pages moved off it.
    Unplug,
    /// A request found no memory.
    NoMemory,
    /// The gate said no.
    Denied,
    /// A call failed because [`Machine::inject`] wants it to.
    Injected,
}

impl What {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 15] = [
        Self::Fault,
        Self::Alloc,
        Self::Free,
        Self::Migrate,
        Self::Demote,
        Self::Promote,
        Self::Fence,
        Self::Reclaim,
        Self::Swap,
        Self::File,
        Self::Plug,
        Self::Unplug,
        Self::NoMemory,
        Self::Denied,
        Self::Injected,
    ];

    /// A word for it, the same in every version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Alloc => "alloc",
            Self::Free => "free",
            Self::Migrate => "migrate",
            Self::Demote => "demote",
            Self::Promote => "promote",
            Self::Fence => "fence",
            Self::Reclaim => "reclaim",
            Self::Swap => "swap",
            Self::File => "file",
            Self::Plug => "plug",
            Self::Unplug => "unplug",
            Self::NoMemory => "no-memory",
            Self::Denied => "denied",
            Self::Injected => "injected",
        }
    }
}

/// Why it happened, or how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Somebody asked for it.
    Asked,
    /// Nobody had touched the page before.
    FirstTouch,
    /// The page was there, and was mapped again.
    Present,
    /// The page was there, and mapped: another thread was quicker.
    Settled,
    /// A read of a page that its node keeps compressed.
    Stored,
    /// A write to a page that others have, too: it was copied.
    Copied,
    /// A write to a page that others had: the last one took it over.
    TakenOver,
    /// A write to a page on a fenced or compressed node.
    Write,
    /// Others have the page, too: a fork shares it.
    Shared,
    /// The page's node admits no writes.
    FencedNode,
    /// Nobody touched the page lately.
    Cold,
    /// The program did not want the bytes any more.
    GivenUp,
    /// Somebody touched the page lately.
    Hot,
    /// The page's node is leaving.
    Leaving,
    /// The bytes were written there.
    Out,
    /// The bytes were read from there.
    In,
    /// There was no memory.
    Shortage,
    /// The other side did not take it, or could not be served.
    Refused,
    /// The gate said so.
    Gate(Denied),
    /// The call that failed was one of these.
    At(Point),
}

impl Why {
    /// A word for it, the same in every version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::FirstTouch => "first-touch",
            Self::Present => "present",
            Self::Settled => "settled",
            Self::Stored => "stored",
            Self::Copied => "copied",
            Self::TakenOver => "taken-over",
            Self::Write => "write",
            Self::Shared => "shared",
            Self::FencedNode => "fenced-node",
            Self::Cold => "cold",
            Self::GivenUp => "given-up",
            Self::Hot => "hot",
            Self::Leaving => "leaving",
            Self::Out => "out",
            Self::In => "in",
            Self::Shortage => "shortage",
            Self::Refused => "refused",
            Self::Gate(Denied::NotOpened { .. }) => "not-opened",
            Self::Gate(Denied::Draining { .. }) => "draining",
            Self::Gate(Denied::Stale { .. }) => "stale",
            Self::Gate(Denied::NotPrivate { .. }) => "not-private",
            Self::Gate(_) => "gate",
            Self::At(point) => point.name(),
        }
    }
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Its number: the first event of a machine is 0, and none is left out.
    pub number: u64,
    /// What happened.
    pub what: What,
    /// Why.
    pub why: Why,
    /// The node on which it happened: where a page is now, for one that moved.
    pub node: Option<NodeId>,
    /// The first frame, if there is one.
    pub pfn: Option<Pfn>,
    /// Frames or pages that it was about.
    pub count: u64,
    /// The machine's [simulated time](Machine::simulated_time) then, in nanoseconds.
    pub time: u64,
}

/// An event that has no number yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note(Event);

impl Note {
    pub(super) const fn new(what: What, why: Why) -> Self {
        Self(Event { number: 0, what, why, node: None, pfn: None, count: 1, time: 0 })
    }

    pub(super) const fn on(mut self, node: NodeId) -> Self {
        self.0.node = Some(node);
        self
    }

    pub(super) const fn at(mut self, node: NodeId, pfn: Pfn) -> Self {
        self.0.pfn = Some(pfn);
        self.on(node)
    }

    pub(super) const fn frame(self, frame: &Frame) -> Self {
        self.at(frame.node(), frame.pfn())
    }

    pub(super) const fn count(mut self, count: u64) -> Self {
        self.0.count = count;
        self
    }
}

/// The last events of a machine.
#[derive(Default)]
pub(super) struct Ring {
    events: VecDeque<Event>,
    /// How many it keeps.
    room: usize,
    /// The number of the next event.
    next: u64,
    /// The number of the first event since the ring was made: those before it were not wanted, and are not lost.
    first: u64,
}

impl Ring {
    pub(super) fn push(&mut self, Note(event): Note, time: u64) {
        if self.events.len() >= self.room {
            self.events.pop_front();
        }
        if self.room > 0 {
            self.events.push_back(Event { number: self.next, time, ..event });
        }
        self.next += 1;
    }

    fn restart(&mut self, room: usize) {
        // All of it now: an event may come from a signal handler.
        *self = Self { events: VecDeque::with_capacity(room), room, next: self.next, first: self.next };
    }
}

/// The last events of a machine, oldest first. Prints one line an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The events.
    pub events: Vec<Event>,
    /// How many older ones the ring had no room for.
    pub lost: u64,
    /// How many nodes the machine has, which a picture of it shows.
    nodes: usize,
}

impl Machine {
    /// Records events from now on, and keeps the last `events` of them; forgets those that were recorded before. The memory is
    /// taken now.
    ///
    /// ```
    /// use core::num::NonZeroUsize;
    /// use pnode_user::machine::{What, Why};
    /// use pnode_user::{Machine, NodeSpec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let machine = Machine::builder().node(NodeSpec::ordinary(64)).build()?;
    /// let memory = machine.map(8, machine.node(0)?)?;
    /// machine.start_trace(NonZeroUsize::new(1000).ok_or("none")?);
    /// memory.write(0, b"a touch")?;
    /// let trace = machine.trace();
    /// let faults: Vec<_> = trace.events.iter().filter(|event| event.what == What::Fault).collect();
    /// assert_eq!((faults.len(), faults[0].why, trace.lost), (1, Why::FirstTouch, 0));
    /// print!("{trace}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_trace(&self, events: NonZeroUsize) {
        self.shared.watch.ring().restart(events.get());
        self.shared.watch.start(On::Trace);
    }

    /// Records no event from now on. What was recorded can still be read.
    pub fn stop_trace(&self) {
        self.shared.watch.stop(On::Trace);
    }

    /// What was recorded since [`Machine::start_trace`].
    pub fn trace(&self) -> Trace {
        let ring = self.shared.watch.ring();
        let events: Vec<Event> = ring.events.iter().copied().collect();
        let lost = ring.next - ring.first - events.len() as u64;
        Trace { events, lost, nodes: self.shared.sites.len() }
    }
}

impl Shared {
    /// Records an event, if events are recorded now.
    #[inline(always)]
    pub(super) fn note(&self, what: impl FnOnce() -> Note) {
        self.watch.note(what);
    }

    /// Passes an answer of the gate on, and records a refusal.
    pub(super) fn gate<T>(&self, node: NodeId, answer: Result<T, Denied>) -> Result<T, Denied> {
        answer.inspect_err(|denied| self.note(|| Note::new(What::Denied, Why::Gate(*denied)).on(node)))
    }
}

impl Region {
    /// Records what happened to a page, with the place where it is now.
    pub(super) fn note(&self, what: What, why: Why, cell: &Page) {
        self.shared.note(|| {
            let note = Note::new(what, why);
            match &cell.state {
                State::Resident(frame) => note.frame(frame),
                State::Stored { node, .. } => note.on(*node),
                State::Common(common) => common.lock().frame().map_or(note, |frame| note.frame(frame)),
                State::Untouched | State::Swapped(_) => note,
            }
        });
    }

    /// Records how a fault was served.
    pub(super) fn fault_was(&self, why: Why, frame: Option<&Frame>) {
        self.shared.note(|| {
            let note = Note::new(What::Fault, why);
            frame.map_or(note, |frame| note.frame(frame))
        });
    }

    /// Counts and records that a page moved to another node because somebody asked.
    pub(super) fn migrated(&self, cell: &Page) {
        self.shared.counters.migrated.add(1);
        self.note(What::Migrate, Why::Asked, cell);
    }
}
