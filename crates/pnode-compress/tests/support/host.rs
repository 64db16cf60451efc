//! A host in small: pages in ordinary memory, in a compressed device, and in swap; a load that reads, writes and frees
//! them; and a check of every byte that comes back. Driven by a seed, so a run can be repeated.
#![allow(dead_code, reason = "each user needs a part of it")]

#[path = "faulty.rs"]
mod faulty;
#[path = "upkeep.rs"]
mod upkeep;

use faulty::{Chance, Faulty};
use pnode_compress::codec::Scratch;
use pnode_compress::cram::{
    Balloon, Bound, Copied, Cram, Curve, DemoteError, FaultError, Handler, OpenError, Phase, Pressure,
    RateLimit, Resident, Retry,
};
use pnode_compress::device::{
    Cell, Device, DeviceConfig, DeviceMedium, DeviceStorage, Edge, Interrupt, LEVELS, MailboxConfig,
    Safeguard, Safeguards, Threshold,
};
use pnode_core::PageOrigin;
use pnode_core::sync::{AtomicU64, Lock, Ordering, SpinLock};

pub(crate) use upkeep::{Ballooning, Hot};
use upkeep::{PER_UNIT, SAVED, UNIT};

pub(crate) const PAGE: usize = 4096;

/// What every page of these tests is for, where nothing else is said.
const ANONYMOUS: PageOrigin = PageOrigin::PrivateAnonymous;
/// What the load writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Mostly what compresses, as before.
    Steady,
    /// What does not compress at all, after the first fifth of the events.
    Storm,
}

/// What is to be simulated.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Pages that the load uses.
    pub(crate) pages: usize,
    /// Frames that the node advertises.
    pub(crate) advertised: u32,
    /// The device's memory in bytes.
    pub(crate) physical: u64,
    /// Pages that ordinary memory holds.
    pub(crate) ordinary: usize,
    pub(crate) events: u64,
    pub(crate) load: Load,
    pub(crate) safeguards: Safeguards,
    /// Resident pages that may be open for writing where they are.
    pub(crate) writable: u64,
    /// Of each step that can fail, how many do, in thousandths: writes to the device, before and after they were made,
    /// reads, trims, and promotions that find no memory.
    pub(crate) faults: u32,
    pub(crate) seed: u64,
}

/// Everything that a run is lent.
pub(crate) struct Memory {
    contents: Vec<u8>,
    cells: Vec<Cell>,
    ring: Vec<u32>,
    mailbox: Vec<u32>,
    scratch: Box<Scratch>,
    buffer: Vec<u8>,
    words: Vec<AtomicU64>,
    deferred: Vec<Resident>,
}

impl Memory {
    pub(crate) fn new(plan: &Plan) -> Self {
        let frames = plan.advertised as usize;
        Self {
            contents: vec![0; frames * PAGE],
            cells: vec![Cell::default(); frames],
            ring: vec![0; 64],
            mailbox: vec![0; mailbox(plan.faults).words()],
            scratch: Box::new(Scratch::new()),
            buffer: vec![0; PAGE],
            words: (0..Cram::words(plan.advertised)).map(|_| AtomicU64::new(0)).collect(),
            deferred: vec![Resident::NOBODY; 32],
        }
    }
}

/// Batches of 16, of which the queue holds three; of each kind of failure there is a third of the faults.
fn mailbox(faults: u32) -> MailboxConfig {
    MailboxConfig {
        payload: 16,
        depth: 3,
        command_time: 5,
        frame_time: 1,
        failing: faults / 3,
        silent: faults / 3,
        hanging: faults / 3,
    }
}

/// Where a page of the load is.
enum Place {
    /// Never written, or freed.
    Nowhere,
    Ordinary(Vec<u8>),
    Compressed(Resident),
    /// In the device, and mapped writable.
    Open(Resident),
    Swap(Vec<u8>),
    /// The device has lost it.
    Lost,
}

/// What there is to see at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) event: u64,
    pub(crate) used: u64,
    pub(crate) bound: u64,
    pub(crate) original: u64,
    pub(crate) residents: u64,
    pub(crate) ballooned: u64,
    pub(crate) pressure: u16,
    pub(crate) poisoned: u64,
    pub(crate) swapped: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) samples: Vec<Sample>,
    pub(crate) demoted: u64,
    pub(crate) refused: u64,
    pub(crate) promoted: u64,
    pub(crate) freed: u64,
    pub(crate) retried: u64,
    pub(crate) trimmed: u64,
    pub(crate) zeroed: u64,
    /// Pages that were opened, written where they are, and closed; and those for which there was no budget.
    pub(crate) opened: u64,
    pub(crate) in_place: u64,
    pub(crate) fenced: u64,
    pub(crate) over_budget: u64,
    /// What became of the hot pages that the device named, and of the balloon, as the host counts it.
    pub(crate) hot: Hot,
    pub(crate) balloon: Ballooning,
    /// Trim commands that were aborted because no answer came.
    pub(crate) timed_out: u64,
    pub(crate) interrupts: u64,
    pub(crate) poisoned: u64,
    pub(crate) overruns: u64,
    pub(crate) verified: u64,
    /// Calls of the device that were made to fail.
    pub(crate) injected: u64,
    /// The bound was seen below what the device used.
    pub(crate) bound_broken: u64,
    /// Frames whose scrubbing does not add up: 0 if each was scrubbed once.
    pub(crate) unscrubbed: i64,
    /// Bytes that the device used after the last page had left.
    pub(crate) left_over: u64,
    /// What went wrong in the service itself; empty if nothing did.
    pub(crate) wrong: Vec<String>,
}

/// One run. `first` has the contents that the load writes while it is steady, page by page, over and over; `each` sees a
/// sample now and then.
pub(crate) fn run(plan: &Plan, memory: &mut Memory, first: &[u8], each: &mut dyn FnMut(&Sample)) -> Outcome {
    let config = DeviceConfig {
        thresholds: [8, 16, 32, 64]
            .map(|part| Some(Threshold { below: plan.physical / part, above: plan.physical / part * 3 / 2 })),
        // A control path so slow that nobody should rely on it.
        latency: 300,
        jitter: 600,
        mailbox: mailbox(plan.faults),
        // Pages come and go so fast that few are read more often.
        hot_after: 3,
        seed: plan.seed,
        ..DeviceConfig::new(plan.physical)
    };
    let storage = DeviceStorage {
        contents: &mut memory.contents,
        cells: &mut memory.cells,
        ring: &mut memory.ring,
        mailbox: &mut memory.mailbox,
        scratch: &mut memory.scratch,
        buffer: &mut memory.buffer,
    };
    let device: Lock<_, SpinLock> = Lock::new(Device::new(config, storage).expect("the storage fits"));
    let (bound, clock) = (Bound::new(0), AtomicU64::new(0));
    let curve = if plan.safeguards.has(Safeguard::Admission) {
        Curve::new(800, 960, 985).expect("rising marks")
    } else {
        Curve::new(999, 1000, 1000).expect("rising marks")
    };
    let cram = Cram::new(plan.advertised, curve, &mut memory.words).expect("there are words for each frame");
    cram.set_writable_budget(plan.writable);
    let medium = DeviceMedium::new(&device, &bound, &clock, plan.safeguards).waiting(100);
    let medium =
        Faulty { inner: medium, chance: Chance(plan.seed ^ 0xfa17), permille: plan.faults, failed: 0 };
    let handler = cram.deferring(medium, &mut memory.deferred);
    let mut host = Host {
        plan,
        first,
        chance: Chance(plan.seed),
        pages: (0..plan.pages).map(|_| Place::Nowhere).collect(),
        truth: vec![Vec::new(); plan.pages],
        ordinary: 0,
        cold: 0,
        unused: 0,
        low: [false; LEVELS],
        frame: vec![0; PAGE],
        handler,
        outcome: Outcome::default(),
        balloon: Balloon::new(),
        target: None,
        in_vain: 0,
        limit: RateLimit::new(PER_UNIT, SAVED, 0),
        slack: i64::MAX,
    };
    let every = (plan.events / 200).max(1);
    for event in 0..plan.events {
        clock.store(event, Ordering::Relaxed);
        host.event(event);
        host.react(&device, event);
        let used = device.lock().used();
        if bound.bytes() < used {
            host.outcome.bound_broken += 1;
        }
        if event % every == 0 || event + 1 == plan.events {
            let sample = host.sample(event, used, bound.bytes());
            host.outcome.samples.push(sample);
            each(&sample);
        }
    }
    host.tear_down();
    let stats = cram.stats();
    let mut outcome = std::mem::take(&mut host.outcome);
    outcome.unscrubbed =
        (stats.promoted + stats.freed + host.unused) as i64 - (stats.trimmed + stats.zeroed) as i64;
    outcome.injected = host.handler.medium().failed + host.handler.medium().inner.timed_out();
    outcome.timed_out = host.handler.medium().inner.timed_out();
    if cram.writables().count() > 0 || cram.capacity(host.handler.medium()).writable_frames > 0 {
        outcome.wrong.push("a fence was left open".into());
    }
    let (hot, balloon) = (outcome.hot, outcome.balloon);
    if (Hot::of(&stats), Ballooning::of(&stats)) != (hot, balloon) {
        outcome.wrong.push(format!("the host counts {hot:?} and {balloon:?}, the service {stats:?}"));
    }
    drop(host);
    outcome.left_over = device.lock().used();
    outcome.overruns = device.lock().overruns();
    outcome.demoted = stats.demoted;
    outcome.refused = stats.refused;
    outcome.promoted = stats.promoted;
    outcome.freed = stats.freed;
    outcome.retried = stats.retried;
    outcome.trimmed = stats.trimmed;
    outcome.zeroed = stats.zeroed;
    outcome.opened = stats.opened;
    outcome.fenced = stats.fenced;
    outcome.over_budget = stats.over_budget;
    outcome
}

type DeviceHandler<'h> = Handler<'h, 'h, Faulty<DeviceMedium<'h, 'h>>>;

struct Host<'h> {
    plan: &'h Plan,
    first: &'h [u8],
    chance: Chance,
    pages: Vec<Place>,
    /// What each page should hold.
    truth: Vec<Vec<u8>>,
    ordinary: usize,
    /// Where the search for a cold page goes on.
    cold: usize,
    /// Frames that were taken for a page that the device then had no room for.
    unused: u64,
    /// The thresholds that the device was last heard to be below.
    low: [bool; LEVELS],
    frame: Vec<u8>,
    handler: DeviceHandler<'h>,
    outcome: Outcome,
    balloon: Balloon,
    target: Option<u32>,
    /// Rounds in a row in which room was to be made and none was.
    in_vain: u32,
    limit: RateLimit,
    /// The least, over all hot pages that were accepted, of those before one less what the rate gives until then.
    slack: i64,
}

impl Host<'_> {
    fn event(&mut self, event: u64) {
        let page = self.chance.below(self.plan.pages as u64) as usize;
        match self.chance.below(100) {
            0..35 => self.read(page),
            35..70 => self.write(page, event),
            70..73 => self.free(page),
            _ => self.demote_a_cold_page(),
        }
    }

    /// New contents for a page.
    fn contents(&mut self, event: u64) -> Vec<u8> {
        let storm = self.plan.load == Load::Storm && event > self.plan.events / 5;
        let noisy = if storm { 95 } else { 5 };
        if self.chance.below(100) < noisy {
            return (0..PAGE / 8).flat_map(|_| self.chance.next().to_le_bytes()).collect();
        }
        let pages = self.first.len() / PAGE;
        let start = self.chance.below(pages as u64) as usize * PAGE;
        let mut page = self.first[start..start + PAGE].to_vec();
        page[..8].copy_from_slice(&self.chance.next().to_le_bytes());
        page
    }

    fn wrong(&mut self, what: impl std::fmt::Display) {
        if self.outcome.wrong.len() < 10 {
            self.outcome.wrong.push(what.to_string());
        }
    }

    fn check(&mut self, page: usize) {
        self.outcome.verified += 1;
        if self.frame != self.truth[page] {
            self.wrong(format_args!("page {page} came back with other contents"));
        }
    }

    fn lose(&mut self, page: usize) {
        self.outcome.poisoned += 1;
        let was = std::mem::replace(&mut self.pages[page], Place::Lost);
        if let Place::Compressed(resident) | Place::Open(resident) = was {
            // The process is told, and its page freed.
            if let Err(error) = self.handler.free(resident) {
                self.wrong(format_args!("freeing a lost page: {error}"));
            }
        }
    }

    fn read(&mut self, page: usize) {
        match &self.pages[page] {
            Place::Compressed(resident) | Place::Open(resident) => {
                match self.handler.read(*resident, &mut self.frame) {
                    Ok(()) => self.check(page),
                    Err(FaultError::Poisoned) => self.lose(page),
                    // The access is made again some time.
                    Err(FaultError::Retry(Retry::Busy)) if self.plan.faults > 0 => {}
                    Err(error) => self.wrong(error),
                }
            }
            Place::Swap(_) => self.swap_in(page),
            Place::Ordinary(bytes) => {
                if *bytes != self.truth[page] {
                    self.wrong(format_args!("page {page} changed in ordinary memory"));
                }
            }
            Place::Nowhere | Place::Lost => {}
        }
    }

    fn write(&mut self, page: usize, event: u64) {
        let contents = self.contents(event);
        if let Place::Compressed(resident) = self.pages[page] {
            if !self.plan.safeguards.has(Safeguard::Fence) {
                self.handler.medium().inner.write_in_place(resident, &contents);
                self.truth[page] = contents;
                return;
            }
            if self.plan.writable == 0 || !self.open(page, resident) {
                self.promote(page, resident);
            }
        }
        if let Place::Open(resident) = self.pages[page] {
            self.handler.medium().inner.write_in_place(resident, &contents);
            self.outcome.in_place += 1;
            self.truth[page] = contents;
            return;
        }
        if matches!(self.pages[page], Place::Swap(_)) {
            self.swap_in(page);
        }
        match &mut self.pages[page] {
            Place::Ordinary(bytes) => bytes.clone_from(&contents),
            Place::Nowhere | Place::Lost if self.ordinary < self.plan.ordinary => {
                self.ordinary += 1;
                self.pages[page] = Place::Ordinary(contents.clone());
            }
            // No memory for the write: the access is made again some time.
            _ => return,
        }
        self.truth[page] = contents;
    }

    /// Opens a resident page for writing, at the cost of the coldest open one if the budget is used up. Tells whether it is.
    fn open(&mut self, page: usize, resident: Resident) -> bool {
        let mut opened = self.handler.open(resident);
        if matches!(opened, Err(OpenError::OverBudget { .. })) && self.chance.below(2) == 0 {
            let chance = &mut self.chance;
            if let Some(coldest) = self.handler.shared().coldest_writable(|_| chance.below(3) == 0) {
                self.close(coldest);
            }
            opened = self.handler.open(resident);
        }
        match opened {
            Ok(()) => self.pages[page] = Place::Open(resident),
            Err(OpenError::OverBudget { .. } | OpenError::Pressure { .. } | OpenError::Full) => {}
            Err(OpenError::NotOpen { .. }) if self.plan.faults > 0 => {}
            Err(error) => self.wrong(error),
        }
        opened.is_ok()
    }

    /// Maps an open page read-only.
    fn close(&mut self, resident: Resident) {
        let page = self.pages.iter().position(|place| matches!(place, Place::Open(at) if *at == resident));
        let Some(page) = page else { return self.wrong("a page is open that nobody has opened") };
        self.pages[page] = Place::Compressed(resident);
        if let Err(error) = self.handler.fence(resident) {
            self.wrong(error);
        }
    }

    /// Promotes a resident page, if there is memory.
    fn promote(&mut self, page: usize, resident: Resident) {
        let starved =
            self.chance.below(1000) < self.plan.faults.into() || self.ordinary >= self.plan.ordinary;
        let promoted = self.handler.write_fault(resident).and_then(|promotion| match starved {
            true => Err(promotion.no_memory()),
            false => promotion.copy_to(&mut self.frame).map(Copied::finish),
        });
        match promoted {
            Ok(()) => {
                self.check(page);
                self.ordinary += 1;
                self.pages[page] = Place::Ordinary(self.frame.clone());
            }
            Err(FaultError::Retry(Retry::NoMemory)) if starved => {}
            Err(FaultError::Retry(Retry::Busy)) if self.plan.faults > 0 => {}
            Err(FaultError::Poisoned) => self.lose(page),
            Err(error) => self.wrong(error),
        }
    }

    fn free(&mut self, page: usize) {
        match std::mem::replace(&mut self.pages[page], Place::Nowhere) {
            Place::Ordinary(_) => self.ordinary -= 1,
            Place::Compressed(resident) | Place::Open(resident) => {
                if let Err(error) = self.handler.free(resident) {
                    self.wrong(error);
                }
            }
            _ => {}
        }
    }

    fn swap_in(&mut self, page: usize) {
        if self.ordinary < self.plan.ordinary {
            if let Place::Swap(bytes) = std::mem::replace(&mut self.pages[page], Place::Nowhere) {
                self.frame.clone_from(&bytes);
                self.check(page);
                self.ordinary += 1;
                self.pages[page] = Place::Ordinary(bytes);
            }
        }
    }

    /// Takes the next page of ordinary memory, round and round, into the node; what it turns away goes to swap while
    /// memory is short.
    fn demote_a_cold_page(&mut self) {
        let pages = self.plan.pages;
        let found = (0..pages)
            .map(|i| (self.cold + i) % pages)
            .find(|&i| matches!(self.pages[i], Place::Ordinary(_)));
        let Some(page) = found else { return };
        self.cold = page + 1;
        let Place::Ordinary(bytes) = &self.pages[page] else { return };
        match self.handler.demote(ANONYMOUS, bytes) {
            Ok(resident) => {
                self.pages[page] = Place::Compressed(resident);
                self.ordinary -= 1;
            }
            Err(error) => {
                self.unused += u64::from(matches!(error, DemoteError::Full | DemoteError::Busy));
                // The node seems full; it may only be long ago that the device told its use.
                if self.handler.medium().inner.reading_age() > 1000 {
                    self.handler.medium().inner.poll();
                }
                if self.ordinary * 10 > self.plan.ordinary * 9 {
                    self.ordinary -= 1;
                    if let Place::Ordinary(bytes) = std::mem::replace(&mut self.pages[page], Place::Nowhere) {
                        self.pages[page] = Place::Swap(bytes);
                    }
                }
            }
        }
    }

    /// What a host does besides serving its load: listen to the device, evict, promote what is hot, mind the balloon.
    fn react(&mut self, device: &Lock<Device<'_>, SpinLock>, event: u64) {
        let (interrupt, hot) = {
            let mut device = device.lock();
            (device.interrupt(event), if event % 16 == 0 { device.hot() } else { None })
        };
        if let Some(Interrupt { level, edge }) = interrupt {
            // The lower the threshold that was passed, the harder the node is pressed.
            self.low[level] = edge == Edge::Falling;
            let pressures = [200, 500, 999, 1000];
            let pressure = pressures.iter().zip(self.low).filter(|(_, low)| *low).map(|(p, _)| *p).max();
            self.handler.shared().set_pressure(Pressure::new(pressure.unwrap_or(0)));
            self.outcome.interrupts += 1;
        }
        if event % 500 == 0 && self.handler.shared().pressure().permille() > 500 {
            (0..4).for_each(|_| self.evict());
        }
        if let Some(frame) = hot {
            self.promote_if_hot(frame, event / UNIT);
        }
        if event % 128 == 0 {
            self.handler.flush();
        }
        if self.plan.faults > 0 && self.chance.below(400) == 0 {
            // Somebody begins to unplug the node, and thinks better of it.
            let cram = self.handler.shared();
            let changed = if cram.phase() == Phase::Open { cram.close() } else { cram.reopen() };
            if let Err(error) = changed {
                self.wrong(error);
            }
        }
        if event % 100 == 0 {
            self.mind_the_balloon(event);
        }
        if self.plan.writable > 0 && event % 3000 == 0 {
            // The administrator turns the dial; what is open beyond it is closed.
            let budget = self.chance.below(self.plan.writable + 1);
            self.handler.shared().set_writable_budget(budget);
            while self.handler.shared().over_budget() > 0 {
                let Some(page) = self.handler.shared().coldest_writable(|_| false) else {
                    return self.wrong("more pages are open than there are");
                };
                self.close(page);
            }
        }
    }

    /// A page that is in the device, from some place on.
    fn some_page_in_the_device(&mut self) -> Option<usize> {
        let start = self.chance.below(self.plan.pages as u64) as usize;
        let pages = self.plan.pages;
        (0..pages)
            .map(|i| (start + i) % pages)
            .find(|&i| matches!(self.pages[i], Place::Compressed(_) | Place::Open(_)))
    }

    /// Takes one page out of the device into swap.
    fn evict(&mut self) {
        if let Some(page) = self.some_page_in_the_device() {
            self.take_out(page);
        }
    }

    fn take_out(&mut self, page: usize) {
        if let Place::Open(resident) = self.pages[page] {
            if self.handler.write_fault(resident).is_ok() {
                self.wrong("an open page was promoted");
            }
            self.close(resident);
        }
        let Place::Compressed(resident) = self.pages[page] else { return };
        let taken = self.handler.write_fault(resident);
        let taken = taken.and_then(|promotion| promotion.copy_to(&mut self.frame)).map(Copied::finish);
        match taken {
            Ok(()) => {
                self.check(page);
                self.pages[page] = Place::Swap(self.frame.clone());
            }
            Err(FaultError::Poisoned) => self.lose(page),
            Err(FaultError::Retry(Retry::Busy)) if self.plan.faults > 0 => {}
            Err(error) => self.wrong(error),
        }
    }

    fn sample(&mut self, event: u64, used: u64, bound: u64) -> Sample {
        let swapped = self.pages.iter().filter(|place| matches!(place, Place::Swap(_))).count() as u64;
        let cram = self.handler.shared();
        let capacity = cram.capacity(self.handler.medium());
        let residents = cram.residents().count() as u64;
        Sample {
            event,
            used,
            bound,
            original: residents * PAGE as u64,
            residents,
            ballooned: capacity.ballooned_frames,
            pressure: cram.pressure().permille(),
            poisoned: self.outcome.poisoned,
            swapped,
        }
    }

    /// Unplugs the node: every page is taken out, and every byte of the load is checked.
    fn tear_down(&mut self) {
        let cram = self.handler.shared();
        if cram.phase() == Phase::Open {
            if let Err(error) = cram.close() {
                self.wrong(error);
            }
        }
        for page in 0..self.plan.pages {
            // A page that could not be read just now is asked for again, as a host does.
            for _ in 0..100 {
                self.take_out(page);
                if !matches!(self.pages[page], Place::Compressed(_)) {
                    break;
                }
            }
            let (Place::Swap(bytes) | Place::Ordinary(bytes)) = &self.pages[page] else { continue };
            if *bytes != self.truth[page] {
                self.wrong(format_args!("page {page} is not what it should be at the end"));
            }
        }
        self.handler.flush();
        self.outcome.balloon.deflated += u64::from(cram.deflate(u32::MAX));
        if let Err(error) = cram.finish() {
            self.wrong(error);
        }
        if cram.residents().count() > 0 {
            self.wrong("pages are resident in a node that has gone");
        }
    }
}
