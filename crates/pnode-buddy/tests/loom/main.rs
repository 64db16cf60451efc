//! Loom models of everything that two CPUs can do to one another in a zone.
//!
//! Each model is the smallest world that still has the race: two words, or one area. Each ends with an audit, which
//! refutes a lost frame, a broken word, and any hint that promises less than is free (so a weakened fence shows up as
//! "more is free than the hints say"). `LOOM_MAX_PREEMPTIONS` (default 2) explores further.
#![cfg(loom)]

mod cpu;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use pnode_buddy::{Cpu, Geometry, Keep, Line, Metadata, Zone};
use pnode_core::sync::{explore, explore_hand_over};
use pnode_core::{FrameError, FrameRange, MigrateType, Order, Pfn};

const MOVABLE: MigrateType = MigrateType::Movable;

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

fn zone(start: u64, frames: u64) -> Arc<Zone<'static>> {
    let range = FrameRange::new(Pfn::new(start), frames).unwrap();
    let lines = Geometry::new(range).unwrap().lines();
    // A model keeps copies of the words; the lines are leaked because the borrow has to be static.
    let metadata = Metadata::assume_zeroed(vec![Line::ZERO; lines].leak());
    Arc::new(Zone::new(range, metadata).unwrap())
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    explore(2, check);
}

/// The block, or `None` if it was exhausted; a peer that loom holds back makes it contended, and we look again later.
fn alloc(zone: &Zone<'_>, size: u8) -> Option<Pfn> {
    loop {
        match zone.alloc(order(size), MOVABLE) {
            Ok(pfn) => return Some(pfn),
            Err(FrameError::Contended { .. }) => thread::yield_now(),
            Err(_) => return None,
        }
    }
}

fn fill(zone: &Zone<'_>, size: u8) -> Vec<Pfn> {
    std::iter::from_fn(|| alloc(zone, size)).collect()
}

/// Two CPUs take the last two frames; each gets one.
#[test]
fn two_frames_for_two() {
    model(|| {
        let zone = zone(64, 2);
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || alloc(&other, 0));
        let mine = alloc(&zone, 0).unwrap();
        let theirs = peer.join().unwrap().unwrap();
        assert_ne!(mine, theirs);
        zone.audit().unwrap();
        assert_eq!(zone.free_frames(), 0);
    });
}

/// A free into a full word races with a search that finds it full and lowers the hint: the frame is found later.
#[test]
fn a_free_is_not_lost_to_a_disappointed_search() {
    model(|| {
        let zone = zone(64, 2);
        let frames = fill(&zone, 0);
        let other = Arc::clone(&zone);
        let frame = frames[0];
        let peer = thread::spawn(move || other.free(frame, Order::ZERO).unwrap());
        let found = alloc(&zone, 0);
        peer.join().unwrap();
        zone.audit().unwrap();
        let again = alloc(&zone, 0);
        assert!(found.is_some() ^ again.is_some());
    });
}

/// A free that completes a pair races with a search for that pair.
#[test]
fn a_completed_pair_is_not_lost() {
    model(|| {
        let zone = zone(64, 2);
        let frames = fill(&zone, 0);
        zone.free(frames[0], Order::ZERO).unwrap();
        let other = Arc::clone(&zone);
        let frame = frames[1];
        let peer = thread::spawn(move || other.free(frame, Order::ZERO).unwrap());
        let found = alloc(&zone, 1);
        peer.join().unwrap();
        zone.audit().unwrap();
        assert!(found.is_some() || alloc(&zone, 1).is_some());
    });
}

/// As above, but the area still advertises a pair: the free need not raise that, and the search lowers it.
#[test]
fn a_lowered_advert_is_looked_at_again() {
    model(|| {
        let zone = zone(64, 2);
        let frames = fill(&zone, 0);
        zone.free(frames[0], Order::ZERO).unwrap();
        zone.free(frames[1], Order::ZERO).unwrap();
        let frame = alloc(&zone, 0).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || other.free(frame, Order::ZERO).unwrap());
        let found = alloc(&zone, 1);
        peer.join().unwrap();
        zone.audit().unwrap();
        assert!(found.is_some() || alloc(&zone, 1).is_some());
    });
}

/// A word that empties races with the collection that a larger block needs, and with a small allocation in it.
#[test]
fn a_word_moves_up_or_is_used_never_both() {
    model(|| {
        let zone = zone(64, 32);
        let frame = alloc(&zone, 0).unwrap();
        zone.free(frame, Order::ZERO).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || alloc(&other, 0));
        let word = alloc(&zone, 5);
        let small = peer.join().unwrap();
        // One of the two was first; the other finds nothing or, for the small one, nothing but nothing.
        assert!(word.is_some() ^ small.is_some());
        zone.audit().unwrap();
    });
}

/// A search that is disappointed by a word lowers its hint; a search for what the word does have still finds it.
#[test]
fn a_word_stays_found_while_its_hint_settles() {
    model(|| {
        let zone = zone(64, 32);
        // The hint says "wholly free" because it was, and one frame of it is taken.
        let frame = alloc(&zone, 0).unwrap();
        zone.free(frame, Order::ZERO).unwrap();
        alloc(&zone, 0).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || assert_eq!(alloc(&other, 5), None));
        assert!(alloc(&zone, 0).is_some(), "30 frames were free all the time");
        peer.join().unwrap();
        zone.audit().unwrap();
    });
}

/// While one CPU moves an area up in vain, another that needs a frame of it is never told "exhausted".
#[test]
fn an_area_in_motion_is_waited_for() {
    explore(1, || {
        let zone = zone(1024, 1024);
        for start in [1536, 1792] {
            zone.alloc_at(Pfn::new(start), order(8), MOVABLE).unwrap();
        }
        let block = alloc(&zone, 8).unwrap();
        zone.free(block, order(8)).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || assert_eq!(alloc(&other, 10), None));
        assert!(alloc(&zone, 8).is_some(), "an area was free all the time");
        peer.join().unwrap();
        zone.audit().unwrap();
    });
}

/// What the last owner of a frame wrote is seen by the next, on every way that a frame can take.
#[test]
fn frames_hand_over_what_was_written() {
    for (start, frames, big) in [(64, 2, 1), (64, 32, 5), (512, 512, 9)] {
        explore_hand_over(2, move || {
            let zone = zone(start, frames);
            let cells: Arc<Vec<UnsafeCell<u32>>> = Arc::new((0..2).map(|_| UnsafeCell::new(0)).collect());
            let write = move |cells: &Vec<UnsafeCell<u32>>, pfn: Pfn, size: u8| {
                let first = (pfn.get() - start) as usize;
                let last = first + (1 << size) - 1;
                cells.iter().take(last + 1).skip(first).for_each(|cell| {
                    // SAFETY: the frame is ours; loom reports the race if it is not.
                    cell.with_mut(|value| unsafe { *value += 1 });
                });
            };
            let block = alloc(&zone, big).unwrap();
            let (other, theirs) = (Arc::clone(&zone), Arc::clone(&cells));
            let peer = thread::spawn(move || {
                write(&theirs, block, big);
                other.free(block, order(big)).unwrap();
            });
            if let Ok(pfn) = zone.alloc(Order::ZERO, MOVABLE) {
                write(&cells, pfn, 0);
            }
            peer.join().unwrap();
        });
    }
}

/// Two CPUs need a new area at the same time: the zone has two, each may get its own or share one.
#[test]
fn an_area_comes_down_once() {
    model(|| {
        let zone = zone(512, 512);
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || alloc(&other, 4));
        let mine = alloc(&zone, 0).unwrap();
        let theirs = peer.join().unwrap().unwrap();
        assert!(mine < theirs || mine >= theirs.checked_add(16).unwrap());
        zone.audit().unwrap();
        assert_eq!(zone.free_frames(), 512 - 17);
    });
}

/// The last block of an area is freed while another CPU wants the whole area.
#[test]
fn an_area_goes_up_or_is_found_later() {
    model(|| {
        let zone = zone(512, 512);
        let block = alloc(&zone, 8).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || other.free(block, order(8)).unwrap());
        let area = alloc(&zone, 9);
        peer.join().unwrap();
        zone.audit().unwrap();
        assert!(area.is_some() || alloc(&zone, 9).is_some());
    });
}

/// As above, but the area still advertises all of itself: the free need not tell the node above, and the search lowers
/// what that says.
#[test]
fn an_area_that_tells_nobody_is_found_later() {
    model(|| {
        let zone = zone(512, 512);
        let block = alloc(&zone, 8).unwrap();
        zone.free(block, order(8)).unwrap();
        let block = alloc(&zone, 8).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || other.free(block, order(8)).unwrap());
        let area = alloc(&zone, 9);
        peer.join().unwrap();
        zone.audit().unwrap();
        assert!(area.is_some() || alloc(&zone, 9).is_some());
    });
}

/// Of two frees of one block exactly one succeeds.
#[test]
fn a_double_free_has_one_winner() {
    model(|| {
        let zone = zone(64, 4);
        let block = alloc(&zone, 1).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || other.free(block, order(1)).is_ok());
        let mine = zone.free(block, order(1)).is_ok();
        assert!(mine ^ peer.join().unwrap());
        zone.audit().unwrap();
        assert_eq!(zone.free_frames(), 4);
    });
}

/// After an isolation returned, no allocation succeeds, and every one that did is in the books.
#[test]
fn isolation_is_a_line_in_time() {
    model(|| {
        let zone = zone(64, 2);
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || alloc(&other, 0));
        zone.isolate();
        let used = zone.used_frames();
        let got = peer.join().unwrap();
        assert!(got.is_none() || used == 1, "a frame was handed out behind a finished isolation");
        assert!(alloc(&zone, 0).is_none());
        zone.audit().unwrap();
    });
}

/// Once an isolation of a range returned, a frame of it that somebody holds is one that it reported.
#[test]
fn an_isolated_range_serves_nothing_that_was_not_reported() {
    explore(1, || {
        let zone = zone(64, 1);
        // The area is live; what races is a claim in its word.
        let frame = alloc(&zone, 0).unwrap();
        zone.free(frame, Order::ZERO).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || other.alloc_at(frame, Order::ZERO, MOVABLE).is_ok());
        let range = zone.span();
        let found = zone.isolate_range(range).unwrap();
        let got = peer.join().unwrap();
        assert!(!got || found.used == 1, "a frame was handed out behind a finished isolation");
        assert!(zone.alloc_at(frame, Order::ZERO, MOVABLE).is_err());
        zone.audit().unwrap();
        assert_eq!(zone.offline_range(range).is_ok(), !got);
    });
}

/// A free lands in a range that is being isolated: it does not come back into service.
#[test]
fn a_free_into_a_range_being_isolated_stays_there() {
    for (start, frames, size) in [(64, 2, 0), (64, 64, 5), (1024, 1024, 9)] {
        explore(1, move || {
            let zone = zone(start, frames);
            let block = alloc(&zone, size).unwrap();
            let other = Arc::clone(&zone);
            let peer = thread::spawn(move || other.free(block, order(size)).unwrap());
            let range = zone.span();
            zone.isolate_range(range).unwrap();
            peer.join().unwrap();
            assert_eq!(zone.alloc(order(size), MOVABLE), Err(FrameError::Exhausted { order: order(size) }));
            zone.audit().unwrap();
            zone.offline_range(range).unwrap();
            assert_eq!((zone.managed_frames(), zone.free_frames()), (0, 0));
        });
    }
}

/// A block that is free above the areas of an isolated range is taken by somebody who then withholds it, while the range
/// returns: nothing stays absent.
#[test]
fn a_returned_range_is_whole() {
    explore(1, || {
        let zone = zone(1024, 1024);
        let block = alloc(&zone, 10).unwrap();
        let range = zone.span();
        zone.isolate_range(range).unwrap();
        zone.free(block, order(10)).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || other.alloc(order(10), MOVABLE).ok());
        while zone.reopen_range(range).is_err() {
            thread::yield_now();
        }
        let got = peer.join().unwrap();
        zone.audit().unwrap();
        assert_eq!(zone.free_frames(), if got.is_some() { 0 } else { 1024 });
        assert!(got.is_some() || alloc(&zone, 10).is_some());
    });
}

/// A range returns while a frame of it is freed and a search looks: the frame is found then or later.
#[test]
fn a_returned_frame_is_not_lost_to_a_disappointed_search() {
    model(|| {
        let zone = zone(64, 2);
        let range = zone.span();
        let frames = fill(&zone, 0);
        zone.isolate_range(range).unwrap();
        let other = Arc::clone(&zone);
        let frame = frames[0];
        let peer = thread::spawn(move || other.free(frame, Order::ZERO).unwrap());
        zone.reopen_range(range).unwrap();
        let found = alloc(&zone, 0);
        peer.join().unwrap();
        zone.audit().unwrap();
        assert!(found.is_some() ^ alloc(&zone, 0).is_some());
    });
}

/// A bulk free into a full word races with a search that lowers its hint; a bulk allocation takes what is left, once.
#[test]
fn bulk_calls_neither_lose_nor_double_a_frame() {
    model(|| {
        let zone = zone(64, 2);
        let frames = fill(&zone, 0);
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || other.free_bulk(&frames).unwrap());
        let found = alloc(&zone, 0);
        peer.join().unwrap();
        zone.audit().unwrap();
        let mut rest = [Pfn::new(0); 2];
        let filled = zone.alloc_bulk(&mut rest, MOVABLE).map_or_else(|error| error.filled, |()| 2);
        assert_eq!(filled, 2 - usize::from(found.is_some()));
        assert!(rest[..filled].iter().all(|pfn| Some(*pfn) != found));
    });
}

/// The contents of four blocks of a zone: loom reports who touches one without an order to its last owner.
struct Contents(Vec<UnsafeCell<u32>>, u64);

impl Contents {
    fn of(blocks: usize, frames: u64) -> Self {
        Self((0..blocks).map(|_| UnsafeCell::new(0)).collect(), frames)
    }

    fn touch(&self, zone: &Zone<'_>, pfn: Pfn) {
        // SAFETY: the block is ours; loom reports the race if it is not.
        let cell = &self.0[((pfn.get() - zone.span().start().get()) / self.1) as usize];
        cell.with_mut(|value| unsafe { *value += 1 });
    }
}

/// Ways to take a block and ways to give one back, each beside each, at each level of the tree, while other blocks are free
/// all the time, so that no hint and no count has to say anything: what the last owner wrote is seen by the next.
#[test]
fn blocks_hand_over_what_was_written_whichever_way_they_go() {
    type Take = fn(&Zone<'_>, Pfn, u8) -> Option<Pfn>;
    type Give = fn(&Zone<'_>, Pfn, u8);
    let takes: [Take; 5] = [
        |zone, _, size| zone.alloc(order(size), MOVABLE).ok(),
        |zone, pfn, size| zone.alloc_at(pfn, order(size), MOVABLE).is_ok().then_some(pfn),
        |zone, pfn, size| {
            let range = FrameRange::block(pfn, order(size)).unwrap();
            zone.alloc_range(range, MOVABLE).is_ok().then_some(pfn)
        },
        |zone, _, size| {
            let mut frames = [Pfn::new(0)];
            (size == 0 && zone.alloc_bulk(&mut frames, MOVABLE).is_ok()).then_some(frames[0])
        },
        |zone, _, size| {
            let mut cpu = Cpu::new(zone, Keep::Frames);
            let taken = cpu.alloc(order(size), MOVABLE).ok();
            cpu.drain();
            taken
        },
    ];
    let gives: [Give; 4] = [
        |zone, pfn, size| zone.free(pfn, order(size)).unwrap(),
        |zone, pfn, size| zone.free_range(FrameRange::block(pfn, order(size)).unwrap()).unwrap(),
        |zone, pfn, size| match size {
            0 => zone.free_bulk(&[pfn]).unwrap(),
            _ => zone.free(pfn, order(size)).unwrap(),
        },
        |zone, pfn, size| {
            let mut cpu = Cpu::new(zone, Keep::Frames);
            cpu.free(pfn, order(size)).unwrap();
            cpu.drain();
        },
    ];
    for (size, take, give) in [0, 1, 5, 6, 9].into_iter().flat_map(|size| {
        takes.into_iter().flat_map(move |take| gives.into_iter().map(move |give| (size, take, give)))
    }) {
        explore_hand_over(2, move || {
            let zone = zone(4 << size, 4 << size);
            let contents = Arc::new(Contents::of(4, 1 << size));
            let taken = [(); 3].map(|()| alloc(&zone, size).unwrap());
            let (other, theirs) = (Arc::clone(&zone), Arc::clone(&contents));
            let peer = thread::spawn(move || {
                theirs.touch(&other, taken[0]);
                give(&other, taken[0], size);
            });
            if let Some(pfn) = take(&zone, taken[0], size) {
                contents.touch(&zone, pfn);
            }
            peer.join().unwrap();
        });
    }
}

/// Two CPUs free in neighbouring areas that share a summary of the index: each finds what it freed, wherever the other is.
#[test]
fn who_freed_finds_it_though_a_neighbour_is_still_telling() {
    model(|| {
        let zone = zone(2048, 2048);
        let blocks = [2048, 2560].map(Pfn::new);
        zone.alloc_at(Pfn::new(3072), order(10), MOVABLE).unwrap();
        for block in blocks {
            zone.alloc_at(block, order(8), MOVABLE).unwrap();
            zone.alloc_at(Pfn::new(block.get() + 256), order(8), MOVABLE).unwrap();
        }
        assert_eq!(zone.free_frames(), 0);
        assert_eq!(alloc(&zone, 8), None);
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || other.free(blocks[0], order(8)).unwrap());
        zone.free(blocks[1], order(8)).unwrap();
        assert!(
            alloc(&zone, 8).is_some(),
            "what this CPU freed was there all the time, or what the other did"
        );
        peer.join().unwrap();
        assert!(alloc(&zone, 8).is_some());
        zone.audit().unwrap();
    });
}

/// A search has looked at an area; that goes up and comes down for another class before the search claims: the counts say
/// of which class the frame is.
#[test]
fn a_count_follows_an_area_that_changes_its_class() {
    explore(1, || {
        let zone = zone(512, 512);
        let frame = alloc(&zone, 0).unwrap();
        zone.free(frame, Order::ZERO).unwrap();
        let other = Arc::clone(&zone);
        let theirs = Pfn::new(frame.get() + 1);
        let peer = thread::spawn(move || other.alloc_at(theirs, Order::ZERO, MOVABLE).is_ok());
        if zone.alloc_at(frame, order(9), MOVABLE).is_ok() {
            zone.free(frame, order(9)).unwrap();
            let _ = zone.alloc(Order::ZERO, MigrateType::Unmovable);
        }
        peer.join().unwrap();
        zone.audit().unwrap();
    });
}
