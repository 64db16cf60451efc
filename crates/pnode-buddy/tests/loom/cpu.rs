//! Models of what a CPU keeps: words that it owns, its shelf, and the large block that it remembers.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use pnode_buddy::{Cpu, Keep, Zone};
use pnode_core::Order;
use pnode_core::sync::explore_hand_over;

use crate::{Contents, MOVABLE, alloc, fill, model, order, zone};

/// A free of a frame in an owned word races with the owner giving the word up.
#[test]
fn a_remote_free_reaches_the_owner_or_the_word() {
    model(|| {
        let zone = zone(64, 32);
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        let frames = [(); 2].map(|()| cpu.alloc(Order::ZERO, MOVABLE).unwrap());
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || {
            other.free(frames[0], Order::ZERO).unwrap();
            other.free(frames[0], Order::ZERO).unwrap_err();
        });
        cpu.free(frames[1], Order::ZERO).unwrap();
        cpu.drain();
        drop(cpu);
        peer.join().unwrap();
        let stats = zone.audit().unwrap();
        assert_eq!(stats.free_frames, 32);
    });
}

/// Two CPUs own words at the same time: never the same one, and a free in between lands once.
#[test]
fn a_word_has_one_owner() {
    model(|| {
        let zone = zone(64, 32);
        let frame = alloc(&zone, 0).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || {
            let mut cpu = Cpu::new(&other, Keep::Frames);
            let got = cpu.alloc(Order::ZERO, MOVABLE).unwrap();
            cpu.drain();
            got
        });
        zone.free(frame, Order::ZERO).unwrap();
        let got = peer.join().unwrap();
        zone.free(got, Order::ZERO).unwrap();
        let stats = zone.audit().unwrap();
        assert_eq!(stats.free_frames, 32);
    });
}

/// The same for a CPU that takes a word of its own: what it keeps is in the books, too, or given back.
#[test]
fn isolation_is_a_line_in_time_for_owners() {
    model(|| {
        let zone = zone(64, 32);
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || {
            let mut cpu = Cpu::new(&other, Keep::Frames);
            let got = cpu.alloc(Order::ZERO, MOVABLE).is_ok();
            cpu.drain();
            got
        });
        zone.isolate();
        let used = zone.used_frames();
        let got = peer.join().unwrap();
        assert!(!got || used > 0, "a frame was handed out behind a finished isolation");
        assert_eq!(zone.used_frames(), u64::from(got));
        zone.audit().unwrap();
    });
}

/// A zone that is large enough for shelves, with one word of free frames, of which all but `left` are taken.
fn nearly_full(left: u32) -> Arc<Zone<'static>> {
    let zone = zone(1024, 1024);
    for size in [9, 8, 7, 6, 5] {
        alloc(&zone, size).unwrap();
    }
    for _ in left..32 {
        alloc(&zone, 0).unwrap();
    }
    zone
}

/// A block goes onto a shelf, or another CPU frees it: one of the two is refused, and nothing is lost.
#[test]
fn a_block_goes_onto_one_shelf_or_back() {
    model(|| {
        let zone = nearly_full(2);
        let block = alloc(&zone, 0).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || {
            let mut cpu = Cpu::new(&other, Keep::Frames);
            cpu.free(block, Order::ZERO).is_ok()
        });
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        let mine = cpu.free(block, Order::ZERO).is_ok();
        let theirs = peer.join().unwrap();
        assert!(mine ^ theirs);
        drop(cpu);
        assert_eq!(zone.audit().unwrap().free_frames, 2);
    });
}

/// What leaves a shelf for the zone is found by a search that was disappointed meanwhile, or by the next.
#[test]
fn a_cleared_shelf_is_not_lost_to_a_disappointed_search() {
    model(|| {
        let zone = nearly_full(1);
        let block = alloc(&zone, 0).unwrap();
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        cpu.free(block, Order::ZERO).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || alloc(&other, 0));
        cpu.drain();
        drop(cpu);
        let found = peer.join().unwrap();
        zone.audit().unwrap();
        let again = alloc(&zone, 0);
        assert!(found.is_some() ^ again.is_some());
    });
}

/// A block is taken from a shelf while its neighbour in the word is freed and taken; who gets it after a drain sees what
/// its last user wrote.
#[test]
fn a_shelf_hands_over_what_was_written() {
    explore_hand_over(2, || {
        let zone = nearly_full(2);
        let frames = fill(&zone, 0);
        let cell = Arc::new(UnsafeCell::new(0));
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        cpu.free(frames[0], Order::ZERO).unwrap();
        let (other, theirs, shelved) = (Arc::clone(&zone), Arc::clone(&cell), frames[0]);
        let neighbour = frames[1];
        let peer = thread::spawn(move || {
            other.free(neighbour, Order::ZERO).unwrap();
            while let Ok(pfn) = other.alloc(Order::ZERO, MOVABLE) {
                if pfn == shelved {
                    // SAFETY: the frame is ours; loom reports the race if it is not.
                    theirs.with_mut(|value| unsafe { *value += 1 });
                }
            }
        });
        let again = cpu.alloc(Order::ZERO, MOVABLE).unwrap();
        if again == shelved {
            // SAFETY: as above.
            cell.with_mut(|value| unsafe { *value += 1 });
        }
        cpu.free(again, Order::ZERO).unwrap();
        cpu.drain();
        drop(cpu);
        peer.join().unwrap();
    });
}

/// An owner goes on to its spare word while another CPU frees a frame of the one that it gives up: once, and for good.
#[test]
fn a_remote_free_is_not_lost_when_the_owner_goes_on() {
    model(|| {
        let zone = zone(64, 64);
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        let frames = [(); 32].map(|()| cpu.alloc(Order::ZERO, MOVABLE).unwrap());
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || {
            other.free(frames[0], Order::ZERO).unwrap();
            other.free(frames[0], Order::ZERO).is_err()
        });
        let next = cpu.alloc(Order::ZERO, MOVABLE).unwrap();
        let refused = peer.join().unwrap();
        // The owner may have handed the frame out again between the two.
        assert!(refused || next == frames[0]);
        cpu.drain();
        drop(cpu);
        let stats = zone.audit().unwrap();
        assert_eq!(stats.free_frames, if refused { 32 } else { 33 });
    });
}

/// A spare word is given back while another CPU looks for a whole one.
#[test]
fn a_spare_word_is_given_back_whole() {
    model(|| {
        let zone = zone(64, 64);
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        cpu.alloc(Order::ZERO, MOVABLE).unwrap();
        assert_eq!(cpu.cached_frames(), 63);
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || alloc(&other, 5));
        cpu.drain();
        drop(cpu);
        let found = peer.join().unwrap();
        let stats = zone.audit().unwrap();
        assert_eq!(stats.free_frames, if found.is_some() { 31 } else { 63 });
        assert!(found.is_some() ^ alloc(&zone, 5).is_some());
    });
}

/// A CPU takes and frees one block by the values that it remembers, while another takes blocks and gives them back: who has
/// the block sees what its last user wrote.
#[test]
fn a_remembered_block_hands_over_what_was_written() {
    for size in [5, 6, 9] {
        explore_hand_over(2, move || {
            let zone = zone(4 << size, 4 << size);
            let contents = Arc::new(Contents::of(4, 1 << size));
            let last = [(); 4].map(|()| alloc(&zone, size).unwrap())[3];
            let mut cpu = Cpu::new(&zone, Keep::Counts);
            cpu.free(last, order(size)).unwrap();
            let (other, theirs) = (Arc::clone(&zone), Arc::clone(&contents));
            let peer = thread::spawn(move || {
                if let Ok(pfn) = other.alloc(order(size), MOVABLE) {
                    theirs.touch(&other, pfn);
                    other.free(pfn, order(size)).unwrap();
                }
            });
            for _ in 0..2 {
                if let Ok(pfn) = cpu.alloc(order(size), MOVABLE) {
                    contents.touch(&zone, pfn);
                    cpu.free(pfn, order(size)).unwrap();
                }
            }
            peer.join().unwrap();
        });
    }
}

/// The same while a search is disappointed and lowers what the node says of the block: the next search finds it.
#[test]
fn a_remembered_block_is_not_lost_to_a_disappointed_search() {
    for (size, wanted) in [(5, 5), (6, 6), (9, 9), (8, 9)] {
        model(move || {
            let zone = zone(2 << size, 2 << size);
            let mut cpu = Cpu::new(&zone, Keep::Counts);
            let first = alloc(&zone, size).unwrap();
            let block = alloc(&zone, size).unwrap();
            if wanted != size {
                zone.free(first, order(size)).unwrap();
            }
            cpu.free(block, order(size)).unwrap();
            let again = cpu.alloc(order(size), MOVABLE).unwrap();
            let other = Arc::clone(&zone);
            let peer = thread::spawn(move || other.alloc(order(wanted), MOVABLE).is_ok());
            cpu.free(again, order(size)).unwrap();
            cpu.drain();
            drop(cpu);
            let got = peer.join().unwrap();
            zone.audit().unwrap();
            assert!(got ^ alloc(&zone, wanted).is_some());
        });
    }
}

/// Two frees of one frame of an owned word overlap: at least one succeeds, and the books are right whether both did.
#[test]
fn two_frees_of_an_owned_frame_that_overlap_leave_the_books_right() {
    model(|| {
        let zone = zone(64, 32);
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        let frame = cpu.alloc(Order::ZERO, MOVABLE).unwrap();
        let other = Arc::clone(&zone);
        let peer = thread::spawn(move || other.free(frame, Order::ZERO).is_ok());
        let mine = cpu.free(frame, Order::ZERO).is_ok();
        let theirs = peer.join().unwrap();
        assert!(mine || theirs);
        // Once they are over, a third is refused, whoever makes it.
        assert!(zone.free(frame, Order::ZERO).is_err() && cpu.free(frame, Order::ZERO).is_err());
        cpu.drain();
        drop(cpu);
        assert_eq!(zone.audit().unwrap().free_frames, 32);
    });
}

/// An owner goes on to its spare word while another CPU frees a frame of the one that it gives up: who takes that frame then
/// sees what its last user wrote, and the frames of the spare word can be freed from elsewhere.
#[test]
fn going_on_to_a_spare_word_hands_over_what_was_written() {
    explore_hand_over(2, || {
        let zone = zone(64, 64);
        let contents = Arc::new(Contents::of(64, 1));
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        let frames = [(); 32].map(|()| cpu.alloc(Order::ZERO, MOVABLE).unwrap());
        let (other, theirs) = (Arc::clone(&zone), Arc::clone(&contents));
        let peer = thread::spawn(move || {
            theirs.touch(&other, frames[0]);
            other.free(frames[0], Order::ZERO).unwrap();
        });
        let next = cpu.alloc(Order::ZERO, MOVABLE).unwrap();
        contents.touch(&zone, next);
        zone.free(next, Order::ZERO).unwrap();
        // What the owner has is not to be had, so this is what was given up.
        if let Some(pfn) = alloc(&zone, 0) {
            contents.touch(&zone, pfn);
        }
        peer.join().unwrap();
    });
}

/// A frame that another CPU freed comes back to its owner out of the inbox: the next user sees what the last one wrote.
#[test]
fn the_inbox_hands_over_what_was_written() {
    explore_hand_over(2, || {
        let zone = zone(64, 32);
        let contents = Arc::new(Contents::of(32, 1));
        let mut cpu = Cpu::new(&zone, Keep::Frames);
        let frames = [(); 32].map(|()| cpu.alloc(Order::ZERO, MOVABLE).unwrap());
        let (other, theirs) = (Arc::clone(&zone), Arc::clone(&contents));
        let peer = thread::spawn(move || {
            theirs.touch(&other, frames[0]);
            other.free(frames[0], Order::ZERO).unwrap();
        });
        if let Ok(pfn) = cpu.alloc(Order::ZERO, MOVABLE) {
            assert_eq!(pfn, frames[0]);
            contents.touch(&zone, pfn);
        }
        peer.join().unwrap();
    });
}
