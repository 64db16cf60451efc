//! The device model, part by part: thresholds and their interrupts, the mailbox and what can go wrong in it; and pages that
//! are open for writing where they are.

#[path = "support/synth.rs"]
mod synth;

use pnode_compress::codec::Scratch;
use pnode_compress::cram::{
    Bound, Cram, Curve, FaultError, Handler, LifeError, Medium, NotPromoted, OpenError, Phase, Pressure,
    RateLimit, Resident, Retry, TrimFailed,
};
use pnode_compress::device::{
    Answer, Cell, Device, DeviceConfig, DeviceMedium, DeviceStorage, Edge, Interrupt, LEVELS, MailboxConfig,
    Safeguards, SendError, Threshold,
};
use pnode_core::PageOrigin;
use pnode_core::sync::{AtomicU64, Lock, Ordering, SpinLock};

/// What every page of these tests is for, where nothing else is said.
const ANONYMOUS: PageOrigin = PageOrigin::PrivateAnonymous;
const PAGE: usize = 4096;
const FRAMES: usize = 32;

/// A device of `FRAMES` frames on leaked memory.
fn device(config: DeviceConfig) -> Device<'static> {
    let storage = DeviceStorage {
        contents: vec![0xaa; FRAMES * PAGE].leak(),
        cells: vec![Cell::default(); FRAMES].leak(),
        ring: vec![0; 4].leak(),
        mailbox: vec![u32::MAX; config.mailbox.words()].leak(),
        scratch: Box::leak(Box::new(Scratch::new())),
        buffer: vec![0; PAGE].leak(),
    };
    Device::new(config, storage).unwrap()
}

fn noise(pages: usize) -> Vec<Vec<u8>> {
    synth::corpus("random", pages).chunks_exact(PAGE).map(<[u8]>::to_vec).collect()
}

fn pages(bytes: u64) -> u64 {
    bytes * PAGE as u64
}

#[test]
fn each_threshold_tells_of_both_edges_once_and_late() {
    let threshold = |below, above| Some(Threshold { below: pages(below), above: pages(above) });
    let config = DeviceConfig {
        thresholds: [threshold(6, 8), None, threshold(3, 5), threshold(1, 2)],
        latency: 10,
        jitter: 5,
        ..DeviceConfig::new(pages(10))
    };
    for seed in 1..20 {
        let mut device = device(DeviceConfig { seed, ..config });
        let noise = noise(1);
        let mut now = 0;
        // What the device should have said, by a second reckoning: each threshold by itself.
        let (mut low, mut expected, mut heard) = ([false; LEVELS], Vec::new(), Vec::new());
        for used in [5, 4, 6, 10, 8, 9, 2, 3, 0, 10, 0] {
            now += 1000;
            for frame in 0..10 {
                if frame < used {
                    device.write(frame, &noise[0], now);
                } else {
                    device.zero(frame, now);
                }
            }
            assert_eq!(device.used(), pages(u64::from(used)));
            let free = 10 - u64::from(used);
            for (level, below, above) in [(0, 6, 8), (2, 3, 5), (3, 1, 2)] {
                if !low[level] && free < below || low[level] && free > above {
                    low[level] = !low[level];
                    let edge = if low[level] { Edge::Falling } else { Edge::Rising };
                    expected.push((now, Interrupt { level, edge }));
                }
            }
            let first = (now..now + 9).find_map(|now| device.interrupt(now));
            assert_eq!(first, None, "seed {seed}: an interrupt takes ten units at least");
            for later in now + 10..=now + 15 {
                while let Some(interrupt) = device.interrupt(later) {
                    heard.push((now, interrupt));
                }
            }
            assert_eq!(device.interrupt(now + 900), None, "seed {seed}: and fifteen at most");
        }
        let sort = |list: &mut Vec<(u64, Interrupt)>| list.sort_by_key(|(at, it)| (*at, it.level));
        sort(&mut expected);
        sort(&mut heard);
        assert_eq!(heard, expected, "seed {seed}");
        assert!(heard.len() >= 10);
    }
}

/// Memory that ran low and recovered before anybody heard of it is reported as recovered, once.
#[test]
fn an_edge_takes_the_place_of_the_one_that_has_not_arrived() {
    let mut device = device(DeviceConfig { latency: 100, ..DeviceConfig::new(pages(16)) });
    let noise = noise(16);
    noise.iter().enumerate().for_each(|(frame, page)| device.write(frame as u32, page, 0));
    (0..16).for_each(|frame| device.zero(frame, 50));
    assert_eq!(device.interrupt(100), None);
    assert_eq!(device.interrupt(150), Some(Interrupt { level: 0, edge: Edge::Rising }));
    assert_eq!(device.interrupt(1000), None);
}

#[test]
fn a_command_takes_its_time_and_its_turn() {
    let mailbox =
        MailboxConfig { payload: 4, depth: 2, command_time: 10, frame_time: 2, ..MailboxConfig::DEFAULT };
    let mut device = device(DeviceConfig { mailbox, ..DeviceConfig::new(pages(16)) });
    let noise = noise(8);
    noise.iter().enumerate().for_each(|(frame, page)| device.write(frame as u32, page, 0));
    assert_eq!(device.send([0; 5].into_iter(), 100), Err(SendError::TooLong { frames: 5, payload: 4 }));
    let first = device.send([0, 1, 2, 3].into_iter(), 100).unwrap();
    let second = device.send([4].into_iter(), 100).unwrap();
    assert_eq!(device.send([5].into_iter(), 100), Err(SendError::Full { depth: 2 }));
    assert_eq!((device.answer(first, 117), device.used()), (None, pages(8)));
    // A frame that is written while its command waits is trimmed all the same.
    device.write(0, &noise[7], 117);
    // The second waits for the first: 100 + 18 + 12.
    assert_eq!(device.answer(second, 129), None);
    assert_eq!(device.used(), pages(4));
    assert_eq!(device.answer(second, 130), Some(Answer::Trimmed { used: pages(3) }));
    assert_eq!(device.answer(second, 130), None, "an answer is given once");
    assert_eq!(device.answer(first, 130), Some(Answer::Trimmed { used: pages(4) }));
    let mut back = vec![1; PAGE];
    device.read(0, &mut back).unwrap();
    assert!(back.iter().all(|&byte| byte == 0));
    device.read(5, &mut back).unwrap();
    assert_eq!(back, noise[5]);
    let idle = device.send([5].into_iter(), 1000).unwrap();
    assert_eq!((device.answer(idle, 1011), device.answer(idle, 1012).is_some()), (None, true));
}

#[test]
fn what_fails_hangs_or_is_not_answered_is_not_counted_as_trimmed() {
    for (failing, silent, hanging) in [(1000, 0, 0), (0, 1000, 0), (0, 0, 1000)] {
        let mailbox =
            MailboxConfig { payload: 8, depth: 2, failing, silent, hanging, ..MailboxConfig::DEFAULT };
        let mut partly = 0;
        for seed in 1..30 {
            let mut device = device(DeviceConfig { mailbox, seed, ..DeviceConfig::new(pages(16)) });
            let noise = noise(8);
            noise.iter().enumerate().for_each(|(frame, page)| device.write(frame as u32, page, 0));
            let ticket = device.send(0..8, 10).unwrap();
            let answer = device.answer(ticket, 1_000_000);
            partly += u32::from((1..8).contains(&(device.used() / PAGE as u64)));
            match (silent, hanging) {
                (1000, _) => {
                    assert_eq!((answer, device.used()), (None, 0), "carried out, and nobody says so")
                }
                (_, 1000) => {
                    assert_eq!((answer, device.used()), (None, pages(8)));
                    // It blocks the next until it is aborted, and is never carried out then.
                    let next = device.send([7].into_iter(), 1_000_000).unwrap();
                    assert_eq!(device.answer(next, 2_000_000), None);
                    device.abort(ticket, 2_000_000);
                    device.abort(next, 2_000_000);
                    device.write(8, &noise[0], 9_000_000);
                    assert_eq!(device.used(), pages(9));
                }
                _ => assert_eq!(answer, Some(Answer::Failed)),
            }
        }
        assert_eq!(partly > 0, failing > 0, "a failed command may be carried out in part");
    }
}

#[test]
fn what_a_device_is_lent_has_to_fit() {
    let config = DeviceConfig::new(pages(4));
    let words = config.mailbox.words();
    assert_eq!(words, 256);
    for (contents, cells, buffer, mailbox) in [
        (2 * PAGE, 2, PAGE, words - 1),
        (2 * PAGE, 2, PAGE - 1, words),
        (2 * PAGE, 3, PAGE, words),
        (PAGE, 2, PAGE, words),
        (0, 0, PAGE, words),
    ] {
        let storage = DeviceStorage {
            contents: vec![0; contents].leak(),
            cells: vec![Cell::default(); cells].leak(),
            ring: &mut [],
            mailbox: vec![0; mailbox].leak(),
            scratch: Box::leak(Box::new(Scratch::new())),
            buffer: vec![0; buffer].leak(),
        };
        let error = Device::new(config, storage).map(drop).unwrap_err();
        assert_eq!(
            (error.contents, error.cells, error.buffer, error.mailbox),
            (contents, cells, buffer, mailbox)
        );
    }
}

/// A device with a service on it.
struct World {
    device: Lock<Device<'static>, SpinLock>,
    bound: Bound,
    clock: AtomicU64,
    cram: Cram<'static>,
}

impl World {
    fn new(config: DeviceConfig) -> Self {
        let words: Vec<_> = (0..Cram::words(FRAMES as u32)).map(|_| AtomicU64::new(0)).collect();
        let cram = Cram::new(FRAMES as u32, Curve::new(998, 999, 1000).unwrap(), words.leak()).unwrap();
        let device = Lock::new(device(config));
        Self { device, bound: Bound::new(0), clock: AtomicU64::new(0), cram }
    }

    fn medium(&self) -> DeviceMedium<'_, 'static> {
        DeviceMedium::new(&self.device, &self.bound, &self.clock, Safeguards::ALL)
    }

    fn handler(&self) -> Handler<'_, 'static, DeviceMedium<'_, 'static>> {
        self.cram.handler(self.medium())
    }
}

#[test]
fn a_trim_goes_in_commands_that_the_mailbox_takes_and_never_comes_late() {
    for (hanging, silent) in [(0, 0), (1000, 0), (0, 1000)] {
        let mailbox = MailboxConfig {
            payload: 3,
            depth: 2,
            command_time: 5,
            hanging,
            silent,
            ..MailboxConfig::DEFAULT
        };
        let world = World::new(DeviceConfig { mailbox, ..DeviceConfig::new(pages(30)) });
        let mut deferred = [Resident::NOBODY; 10];
        let mut handler = world.cram.deferring(world.medium().waiting(100), &mut deferred);
        let noise = noise(20);
        let residents: Vec<_> =
            noise[..10].iter().map(|page| handler.demote(ANONYMOUS, page).unwrap()).collect();
        residents.iter().for_each(|&page| handler.free(page).unwrap());
        assert_eq!(world.device.lock().used(), pages(10), "freed and not scrubbed yet");
        assert_eq!(handler.flush(), 10);
        let works = hanging + silent == 0;
        assert_eq!(world.device.lock().used(), 0);
        let stats = world.cram.stats();
        assert_eq!((stats.trimmed, stats.zeroed), if works { (10, 0) } else { (0, 10) });
        // Ten frames are four commands, two at a time.
        assert_eq!(handler.medium().timed_out(), if works { 0 } else { 4 });
        // The frames are used again, and no command that was given up touches them.
        let residents: Vec<_> =
            noise[10..].iter().map(|page| handler.demote(ANONYMOUS, page).unwrap()).collect();
        world.clock.store(1_000_000, Ordering::Relaxed);
        handler.medium().poll();
        let mut back = vec![0; PAGE];
        for (page, resident) in noise[10..].iter().zip(residents) {
            handler.read(resident, &mut back).unwrap();
            assert_eq!(back, *page);
        }
    }
    let mailbox = MailboxConfig { failing: 1000, ..MailboxConfig::DEFAULT };
    let world = World::new(DeviceConfig { mailbox, ..DeviceConfig::new(pages(30)) });
    assert_eq!(world.medium().trim(&[Resident::from_bits(3)]), Err(TrimFailed));
}

#[test]
fn without_a_budget_no_page_is_ever_open() {
    let world = World::new(DeviceConfig::new(pages(30)));
    let mut handler = world.handler();
    let page = handler.demote(ANONYMOUS, &noise(1)[0]).unwrap();
    assert_eq!(handler.open(page), Err(OpenError::OverBudget { budget: 0 }));
    assert_eq!((world.cram.stats().over_budget, world.cram.stats().opened), (1, 0));
    assert_eq!(world.cram.coldest_writable(|_| false), None);
    handler.fence(page).unwrap();
    assert_eq!((world.cram.stats().fenced, world.bound.bytes()), (0, pages(1)));
}

#[test]
fn an_open_page_counts_in_the_budget_and_at_its_worst_until_it_is_closed_or_freed() {
    let world = World::new(DeviceConfig::new(pages(30)));
    let mut handler = world.handler();
    let zeroes = vec![0; PAGE];
    let residents: Vec<_> = (0..4).map(|_| handler.demote(ANONYMOUS, &zeroes).unwrap()).collect();
    world.cram.set_writable_budget(2);
    handler.medium().poll();
    assert_eq!(world.bound.bytes(), 0);
    for &page in &residents[..2] {
        handler.open(page).unwrap();
        handler.open(page).expect("open it stays");
    }
    assert_eq!(handler.open(residents[2]), Err(OpenError::OverBudget { budget: 2 }));
    assert_eq!(world.bound.bytes(), pages(2));
    handler.medium().poll();
    assert_eq!(world.bound.bytes(), pages(2), "a reading does not change what may yet be written");
    assert_eq!(world.cram.writables().collect::<Vec<_>>(), residents[..2]);
    assert_eq!(world.cram.residents().count(), 4);
    assert_eq!(world.cram.capacity(handler.medium()).writable_frames, 2);
    assert!(world.cram.is_resident(residents[0]));

    let noise = noise(1);
    handler.medium().write_in_place(residents[0], &noise[0]);
    let mut back = vec![0; PAGE];
    handler.read(residents[0], &mut back).unwrap();
    assert_eq!(back, noise[0]);
    assert_eq!(
        handler.write_fault(residents[0]).map(drop),
        Err(FaultError::Retry(Retry::Writable)),
        "what can change is not copied away"
    );
    handler.fence(residents[0]).unwrap();
    handler.fence(residents[0]).expect("closed it stays");
    assert_eq!(world.bound.bytes(), pages(2), "until a reading tells how it compresses");
    handler.medium().poll();
    assert_eq!(world.bound.bytes(), pages(2), "one is noise now, the other is open");
    handler.free(residents[1]).unwrap();
    handler.medium().poll();
    assert_eq!(world.bound.bytes(), pages(1));
    handler.write_fault(residents[0]).unwrap().copy_to(&mut back).unwrap().finish();
    assert_eq!(back, noise[0]);
    let stats = world.cram.stats();
    assert_eq!((stats.opened, stats.fenced, stats.over_budget), (2, 1, 1));
    assert_eq!(world.cram.capacity(handler.medium()).writable_frames, 0);
    assert_eq!(handler.open(residents[0]).map_err(|error| matches!(error, OpenError::Stale(_))), Err(true));
    assert!(matches!(handler.fence(residents[0]), Err(FaultError::Stale(_))));
    assert_eq!(world.cram.capacity(handler.medium()).writable_frames, 0, "a failed call takes nothing");
}

/// However many pages the budget allows, open pages that turn into noise do not overrun the device.
#[test]
fn open_pages_cannot_overrun_the_device() {
    let world = World::new(DeviceConfig::new(pages(5)));
    world.cram.set_writable_budget(u64::MAX);
    let mut handler = world.handler();
    let zeroes = vec![0; PAGE];
    let residents: Vec<_> = (0..20)
        .map(|_| {
            handler.medium().poll();
            handler.demote(ANONYMOUS, &zeroes).unwrap()
        })
        .collect();
    handler.medium().poll();
    let noise = noise(20);
    let mut open = 0;
    for (page, resident) in noise.iter().zip(&residents) {
        match handler.open(*resident) {
            Ok(()) => {
                open += 1;
                handler.medium().write_in_place(*resident, page);
                handler.medium().poll();
            }
            Err(OpenError::Full | OpenError::Pressure { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    // A page that has become noise is paid for twice while it is open: as read, and as what it may yet become.
    assert!((2..=5).contains(&open), "{open}");
    assert_eq!(world.device.lock().overruns(), 0);
}

#[test]
fn the_coldest_open_page_is_the_one_that_the_hand_finds_unused() {
    let world = World::new(DeviceConfig::new(pages(30)));
    let mut handler = world.handler();
    world.cram.set_writable_budget(4);
    let residents: Vec<_> = (0..6).map(|_| handler.demote(ANONYMOUS, &[0; PAGE]).unwrap()).collect();
    residents[1..5].iter().for_each(|&page| handler.open(page).unwrap());
    let mut used = [true; 6];
    used[3] = false;
    // Each page's bit is forgotten when it is asked for.
    let mut ask = |page: Resident| std::mem::replace(&mut used[page.frame() as usize], false);
    let found: Vec<_> = (0..6).map(|_| world.cram.coldest_writable(&mut ask).unwrap()).collect();
    assert_eq!(
        found,
        [3, 1, 2, 3, 4, 1].map(|frame: usize| residents[frame]),
        "4 was used, and its turn came later"
    );
    assert_eq!(world.cram.coldest_writable(|_| true), Some(residents[2]), "if all are used, the first");
    world.cram.set_writable_budget(1);
    assert_eq!(world.cram.over_budget(), 3);
    while world.cram.over_budget() > 0 {
        let page = world.cram.coldest_writable(|_| false).unwrap();
        handler.fence(page).unwrap();
    }
    assert_eq!(world.cram.writables().count(), 1);
}

#[test]
fn a_node_that_is_pressed_or_goes_opens_nothing_and_closes_what_is_open() {
    let world = World::new(DeviceConfig::new(pages(30)));
    let mut handler = world.handler();
    world.cram.set_writable_budget(4);
    let residents: Vec<_> = (0..2).map(|_| handler.demote(ANONYMOUS, &[0; PAGE]).unwrap()).collect();
    handler.open(residents[0]).unwrap();
    world.cram.set_pressure(Pressure::FULL);
    assert_eq!(handler.open(residents[1]), Err(OpenError::Pressure { pressure: Pressure::FULL }));
    world.cram.set_pressure(Pressure::IDLE);
    world.cram.close().unwrap();
    assert_eq!(handler.open(residents[1]), Err(OpenError::NotOpen { phase: Phase::Draining }));
    assert_eq!(world.cram.finish(), Err(LifeError::Occupied { pages: 2 }));
    let mut left = Vec::new();
    for page in world.cram.residents() {
        handler.fence(page).unwrap();
        handler.write_fault(page).unwrap().copy_to(&mut [0; PAGE]).unwrap().finish();
        left.push(page);
    }
    assert_eq!(left, residents);
    world.cram.finish().unwrap();
}

/// From the device's ring to the page's new frame: what leaves meanwhile is stale, what comes too fast waits.
#[test]
fn hot_pages_that_the_device_names_are_promoted_at_a_limited_rate() {
    let world = World::new(DeviceConfig { hot_after: 2, ..DeviceConfig::new(pages(30)) });
    let mut handler = world.handler();
    let noise = noise(4);
    let residents: Vec<_> = noise.iter().map(|page| handler.demote(ANONYMOUS, page).unwrap()).collect();
    let mut back = vec![0; PAGE];
    for _ in 0..2 {
        residents.iter().for_each(|&page| handler.read(page, &mut back).unwrap());
    }
    handler.free(residents[3]).unwrap();
    let mut limit = RateLimit::new(1, 2, 0);
    // The last that was named is heard first.
    let named: Vec<_> = std::iter::from_fn(|| world.device.lock().hot()).collect();
    assert_eq!(named, [3, 2, 1, 0]);
    let mut promoted = Vec::new();
    let mut promote = |frame, now| {
        let page = world.cram.nominate(frame, &mut limit, now)?;
        handler.write_fault(page).unwrap().copy_to(&mut back).unwrap().finish();
        assert_eq!(back, noise[frame as usize]);
        promoted.push(frame);
        Ok(())
    };
    assert_eq!(promote(3, 0), Err(NotPromoted::Stale { frame: 3 }));
    assert_eq!((promote(2, 0), promote(1, 0)), (Ok(()), Ok(())));
    assert_eq!(promote(0, 0), Err(NotPromoted::Limited { page: residents[0] }));
    assert_eq!(promote(2, 1), Err(NotPromoted::Stale { frame: 2 }));
    assert_eq!(promote(0, 1), Ok(()));
    assert_eq!(promoted, [2, 1, 0]);
    let stats = world.cram.stats();
    assert_eq!((stats.hot_accepted, stats.hot_limited, stats.hot_stale, stats.promoted), (3, 1, 2, 3));
}
