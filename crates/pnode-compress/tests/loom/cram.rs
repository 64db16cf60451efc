//! Models of compressed RAM: frames, the writable budget, the bound.

use loom::sync::Arc;
use loom::thread;
use pnode_compress::cram::{Bound, Cram, Curve, FaultError, Medium, ReadError, Resident, Usage, WriteError};
use pnode_compress::memory::{BufferFrames, PageBytes};
use pnode_core::sync::{AtomicU64, Ordering, UnsafeCell, explore};
use pnode_core::{FrameSource, MigrateType, Order, PageOrigin, PageSize};

use crate::{A, B, PAGE, page};

/// What every page of these tests is for, where nothing else is said.
const ANONYMOUS: PageOrigin = PageOrigin::PrivateAnonymous;
/// A medium of one frame that notices when two threads use it without an order between them.
struct Frame {
    cell: Arc<Contents>,
}

/// The frame's word, and how many pages it is open for.
struct Contents(UnsafeCell<u64>, AtomicU64);

// SAFETY: loom checks the accesses.
unsafe impl Sync for Contents {}
// SAFETY: as above.
unsafe impl Send for Contents {}

impl Medium for Frame {
    fn page_size(&self) -> PageSize {
        PageSize::KIB4
    }

    fn write(&mut self, _: u32, page: &[u8]) -> Result<(), WriteError> {
        let word = u64::from_ne_bytes(page[..8].try_into().unwrap());
        self.cell.0.with_mut(|cell| {
            // SAFETY: loom checks that nobody else accesses the cell.
            unsafe { *cell = word }
        });
        Ok(())
    }

    fn read(&mut self, _: u32, page: &mut [u8]) -> Result<(), ReadError> {
        let word = self.cell.0.with(|cell| {
            // SAFETY: loom checks that nobody writes the cell meanwhile.
            unsafe { *cell }
        });
        page[..8].copy_from_slice(&word.to_ne_bytes());
        Ok(())
    }

    fn discard(&mut self, _: u32) {
        self.cell.0.with_mut(|cell| {
            // SAFETY: loom checks that nobody else accesses the cell.
            unsafe { *cell = 0 }
        });
    }

    fn open(&mut self, _: u32) -> Result<(), WriteError> {
        self.cell.1.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn close(&mut self, _: u32) {
        self.cell.1.fetch_sub(1, Ordering::Relaxed);
    }

    fn usage(&self) -> Usage {
        Usage { used: 0, physical: 1 }
    }
}

fn cram() -> (&'static Cram<'static>, impl Fn() -> Frame + Clone + Send + 'static) {
    let words: Vec<AtomicU64> = (0..Cram::words(1)).map(|_| AtomicU64::new(0)).collect();
    let cram = Box::leak(Box::new(Cram::new(1, Curve::DEFAULT, words.leak()).unwrap()));
    let cell = Arc::new(Contents(UnsafeCell::new(0), AtomicU64::new(0)));
    (cram, move || Frame { cell: cell.clone() })
}

/// Tries once to promote the page; the word it held.
fn promote(cram: &'static Cram<'static>, frame: Frame, page: Resident) -> Option<u64> {
    let mut handler = cram.handler(frame);
    let mut out = vec![0; PAGE];
    match handler.write_fault(page) {
        Ok(promotion) => {
            promotion.copy_to(&mut out).unwrap().finish();
            Some(u64::from_ne_bytes(out[..8].try_into().unwrap()))
        }
        Err(FaultError::Retry(_) | FaultError::Stale(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn of_racing_writers_one_wins_and_the_frame_can_be_filled_again() {
    explore(3, || {
        let (cram, frame) = cram();
        let resident = cram.handler(frame()).demote(ANONYMOUS, &page(A)).unwrap();
        let there = {
            let frame = frame();
            thread::spawn(move || promote(cram, frame, resident))
        };
        let here = promote(cram, frame(), resident);
        // The next page may come in as soon as the frame is free, while the loser still looks at it.
        let mut handler = cram.handler(frame());
        let next = handler.demote(ANONYMOUS, &page(B)).ok();
        let there = there.join().unwrap();
        assert!(matches!((here, there), (Some(A), None) | (None, Some(A))), "{here:?} {there:?}");
        if let Some(next) = next {
            let mut out = vec![0; PAGE];
            handler.read(next, &mut out).unwrap();
            assert_eq!(out[..8], B.to_ne_bytes());
        }
    });
}

#[test]
fn a_page_is_freed_only_after_who_gave_up_promoting_it_is_done_reading() {
    explore(3, || {
        let (cram, frame) = cram();
        let resident = cram.handler(frame()).demote(ANONYMOUS, &page(A)).unwrap();
        let writer = {
            let frame = frame();
            thread::spawn(move || {
                let (mut handler, mut out) = (cram.handler(frame), vec![0; PAGE]);
                // Copied, and then dropped before it is finished.
                let copied = handler.write_fault(resident).and_then(|promotion| promotion.copy_to(&mut out));
                copied.map(drop).is_ok()
            })
        };
        let mut handler = cram.handler(frame());
        let freed = handler.free(resident).is_ok();
        let copied = writer.join().unwrap();
        assert!(freed || copied, "one of them was first");
        assert_eq!(handler.free(resident).is_ok(), !freed);
    });
}

#[test]
fn a_page_that_two_open_is_counted_once() {
    explore(3, || {
        let (cram, frame) = cram();
        cram.set_writable_budget(2);
        let resident = cram.handler(frame()).demote(ANONYMOUS, &page(A)).unwrap();
        let other = {
            let frame = frame();
            thread::spawn(move || cram.handler(frame).open(resident).unwrap())
        };
        cram.handler(frame()).open(resident).unwrap();
        other.join().unwrap();
        assert_eq!(frame().cell.1.load(Ordering::Relaxed), 1);
        assert_eq!(cram.capacity(&frame()).writable_frames, 1);
        cram.handler(frame()).fence(resident).unwrap();
        assert_eq!(cram.capacity(&frame()).writable_frames, 0);
    });
}

#[test]
fn a_page_that_is_opened_while_it_is_freed_leaves_nothing_open() {
    explore(3, || {
        let (cram, frame) = cram();
        cram.set_writable_budget(1);
        let resident = cram.handler(frame()).demote(ANONYMOUS, &page(A)).unwrap();
        let other = {
            let frame = frame();
            thread::spawn(move || {
                let mut handler = cram.handler(frame);
                if handler.open(resident).is_ok() {
                    // The page may be gone by now, and with it what was open.
                    let _ = handler.fence(resident);
                }
            })
        };
        cram.handler(frame()).free(resident).unwrap();
        other.join().unwrap();
        assert_eq!(frame().cell.1.load(Ordering::Relaxed), 0);
        assert_eq!(cram.capacity(&frame()).writable_frames, 0);
        assert_eq!(cram.capacity(&frame()).occupied_frames, 0);
    });
}

#[test]
fn a_node_is_not_finished_while_a_page_comes_in() {
    explore(3, || {
        let (cram, frame) = cram();
        let demoter = {
            let frame = frame();
            thread::spawn(move || cram.handler(frame).demote(ANONYMOUS, &page(A)).is_ok())
        };
        cram.close().unwrap();
        let finished = cram.finish().is_ok();
        let came_in = demoter.join().unwrap();
        assert!(!(finished && came_in), "a page is in a node that is gone");
        assert_eq!(cram.finish().is_ok(), !finished && !came_in);
    });
}

/// Whoever ends the service may take the medium away: the last page's handler is done with it.
#[test]
fn who_finishes_a_node_sees_what_its_last_page_did() {
    explore(3, || {
        let (cram, frame) = cram();
        let resident = cram.handler(frame()).demote(ANONYMOUS, &page(A)).unwrap();
        let freer = {
            let frame = frame();
            thread::spawn(move || cram.handler(frame).free(resident).unwrap())
        };
        cram.close().unwrap();
        if cram.finish().is_ok() {
            frame().cell.0.with_mut(|_| ());
        }
        freer.join().unwrap();
    });
}

/// A page's name may travel without any order, as in a page-table entry: whoever has it is told that the page is not there,
/// or gets its bytes.
#[test]
fn who_has_a_pages_name_gets_its_bytes_or_none() {
    for by_survey in [false, true] {
        explore(3, move || {
            let (cram, frame) = cram();
            let entry = Arc::new(AtomicU64::new(u64::MAX));
            let reader = {
                let (entry, frame) = (entry.clone(), frame());
                thread::spawn(move || {
                    let resident = match by_survey {
                        true => cram.residents().next(),
                        false => Some(entry.load(Ordering::Relaxed))
                            .filter(|bits| *bits != u64::MAX)
                            .map(Resident::from_bits),
                    };
                    let mut out = vec![0; PAGE];
                    if resident.is_some_and(|resident| cram.handler(frame).read(resident, &mut out).is_ok()) {
                        assert_eq!(out[..8], A.to_ne_bytes());
                    }
                })
            };
            let resident = cram.handler(frame()).demote(ANONYMOUS, &page(A)).unwrap();
            entry.store(resident.to_bits(), Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}

#[test]
fn a_frame_of_a_buffer_has_one_holder() {
    explore(3, || {
        let taken: &'static mut [AtomicU64] = vec![AtomicU64::new(0)].leak();
        let frames: &'static _ =
            Box::leak(Box::new(BufferFrames::new(vec![PageBytes::ZEROED].leak(), taken).unwrap()));
        let cell = Arc::new(Contents(UnsafeCell::new(0), AtomicU64::new(0)));
        let hold = move |cell: &Contents| {
            if let Ok(pfn) = frames.alloc(Order::ZERO, MigrateType::Movable) {
                cell.0.with_mut(|_| ());
                frames.free(pfn, Order::ZERO).unwrap();
            }
        };
        let other = {
            let cell = cell.clone();
            thread::spawn(move || hold(&cell))
        };
        hold(&cell);
        other.join().unwrap();
    });
}

#[test]
fn the_bound_is_never_below_what_the_device_uses() {
    explore(3, || {
        let device = Arc::new(AtomicU64::new(0));
        let bound = Arc::new(Bound::new(0));
        let writer = {
            let (device, bound) = (device.clone(), bound.clone());
            thread::spawn(move || {
                let announced = bound.announce(10, 100).unwrap();
                // The write turned out to take less than was announced.
                device.fetch_add(7, Ordering::AcqRel);
                announced.landed();
            })
        };
        let reader = {
            let (device, bound) = (device.clone(), bound.clone());
            thread::spawn(move || bound.refresh(|| device.load(Ordering::Acquire)))
        };
        // Nothing is freed, so what was true before the bound is read must be within it.
        let truth = device.load(Ordering::Acquire);
        let said = bound.bytes();
        // At most it counts the write twice, as read and as announced; more would be a difference that wrapped.
        assert!((truth..=17).contains(&said), "{said} is not from {truth} to 17");
        writer.join().unwrap();
        reader.join().unwrap();
        assert!(bound.bytes() >= device.load(Ordering::Acquire));
        // A free makes itself felt with the next reading.
        device.fetch_sub(2, Ordering::AcqRel);
        assert!(bound.bytes() >= 5);
        bound.refresh(|| device.load(Ordering::Acquire));
        assert_eq!(bound.bytes(), 5);
    });
}

#[test]
fn two_who_announce_do_not_pass_the_limit_together() {
    explore(3, || {
        let bound = Arc::new(Bound::new(0));
        let other = {
            let bound = bound.clone();
            thread::spawn(move || bound.announce(6, 10).map(|announced| announced.landed()).is_some())
        };
        let here = bound.announce(6, 10).map(|announced| announced.landed()).is_some();
        let there = other.join().unwrap();
        assert!(here != there);
        assert_eq!(bound.bytes(), 6);
    });
}
