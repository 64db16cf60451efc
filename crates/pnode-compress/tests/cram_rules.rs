//! The rules of compressed RAM over the packed store: admission, read-only residents, one winner, no silent success.

#[path = "support/lent.rs"]
mod lent;
#[path = "support/synth.rs"]
mod synth;

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use lent::{Lent, words};
use pnode_compress::codec::Scratch;
use pnode_compress::cram::{
    Cram, Curve, DemoteError, FaultError, LifeError, Phase, Pressure, Resident, Retry, Stale,
};
use pnode_compress::store::Config;
use pnode_core::PageOrigin;

/// What every page of these tests is for, where nothing else is said.
const ANONYMOUS: PageOrigin = PageOrigin::PrivateAnonymous;
const PAGE: usize = 4096;
const CONFIG: Config = Config::new(256, 16);

fn pages() -> Vec<Vec<u8>> {
    synth::corpus("slab", 64).chunks_exact(PAGE).map(<[u8]>::to_vec).collect()
}

/// Runs `test` with a service of 256 advertised frames over a store of 64.
macro_rules! with_cram {
    ($cram:ident, $handler:ident, $test:block) => { with_cram!($cram, $handler, Curve::DEFAULT, $test) };
    ($cram:ident, $handler:ident, $curve:expr, $test:block) => {{
        let mut lent = Lent::new(CONFIG, 64, 1);
        let store = lent.store(CONFIG);
        let mut cram_words = words(Cram::words(256));
        let $cram = Cram::new(256, $curve, &mut cram_words).unwrap();
        let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
        #[allow(unused_mut)]
        let mut $handler = $cram.handler(store.worker(0, &mut scratch, &mut buffer).unwrap());
        $test
        store.audit().unwrap();
    }};
}

#[test]
fn a_page_comes_in_is_read_and_leaves_by_being_written() {
    with_cram!(cram, handler, {
        let pages = pages();
        let residents: Vec<_> = pages.iter().map(|page| handler.demote(ANONYMOUS, page).unwrap()).collect();
        let mut frame = [0; PAGE];
        for (page, resident) in pages.iter().zip(&residents) {
            for _ in 0..2 {
                handler.read(*resident, &mut frame).unwrap();
                assert_eq!(page[..], frame);
            }
            assert_eq!(Resident::from_bits(resident.to_bits()), *resident);
        }
        let medium_capacity = cram.capacity(handler.medium());
        assert_eq!((medium_capacity.advertised_frames, medium_capacity.occupied_frames), (256, 64));
        assert_eq!(medium_capacity.physical_bytes, 16 * 16384);
        for (page, &resident) in pages.iter().zip(&residents) {
            frame = [0; PAGE];
            handler.write_fault(resident).unwrap().copy_to(&mut frame).unwrap().finish();
            assert_eq!(page[..], frame);
            let gone = Err(FaultError::Stale(Stale { page: resident }));
            assert_eq!(handler.read(resident, &mut frame), gone);
            assert_eq!(handler.free(resident), gone);
            assert_eq!(handler.write_fault(resident).map(drop), gone);
        }
        assert_eq!(cram.residents().count(), 0);
        let stats = cram.stats();
        assert_eq!((stats.demoted, stats.promoted, stats.freed, stats.poisoned), (64, 64, 0, 0));
    });
}

#[test]
fn a_promotion_without_memory_is_a_retry_and_changes_nothing() {
    with_cram!(cram, handler, {
        let page = &pages()[0];
        let resident = handler.demote(ANONYMOUS, page).unwrap();
        assert_eq!(handler.write_fault(resident).unwrap().no_memory(), FaultError::Retry(Retry::NoMemory));
        // Dropped at each step on the way; meanwhile the page is neither resident nor gone.
        let promotion = handler.write_fault(resident).unwrap();
        assert!(!cram.is_resident(resident) && cram.residents().count() == 0);
        drop(promotion);
        assert!(cram.is_resident(resident));
        let mut frame = [0; PAGE];
        drop(handler.write_fault(resident).unwrap().copy_to(&mut frame).unwrap());
        let short = handler.write_fault(resident).unwrap().copy_to(&mut frame[1..]).map(drop);
        assert!(matches!(short, Err(FaultError::PageLength { bytes: 4095, .. })));
        frame = [0; PAGE];
        handler.read(resident, &mut frame).unwrap();
        assert_eq!(page[..], frame);
        assert!(cram.is_resident(resident));
        assert_eq!((cram.stats().promoted, cram.stats().retried), (0, 1));
        handler.free(resident).unwrap();
    });
}

#[test]
fn pressure_999_admits_and_1000_does_not() {
    with_cram!(cram, handler, {
        let page = &pages()[0];
        cram.set_pressure(Pressure::new(999));
        let resident = handler.demote(ANONYMOUS, page).unwrap();
        for shut in [1000, 1500] {
            cram.set_pressure(Pressure::new(shut));
            assert_eq!(
                handler.demote(ANONYMOUS, page),
                Err(DemoteError::Pressure { pressure: Pressure::FULL })
            );
        }
        // What is inside can be read and written at any pressure.
        handler.read(resident, &mut [0; PAGE]).unwrap();
        handler.write_fault(resident).unwrap().copy_to(&mut [0; PAGE]).unwrap().finish();
        assert_eq!(cram.capacity(handler.medium()).occupied_frames, 0);
        cram.set_pressure(Pressure::IDLE);
        let resident = handler.demote(ANONYMOUS, page).unwrap();
        handler.free(resident).unwrap();
    });
}

#[test]
fn use_of_physical_memory_shuts_the_door_in_the_middle_of_a_batch() {
    with_cram!(cram, handler, Curve::new(300, 500, 700).unwrap(), {
        let noise = synth::corpus("random", 64);
        let results: Vec<_> = noise.chunks_exact(PAGE).map(|page| handler.demote(ANONYMOUS, page)).collect();
        let first_refused =
            results.iter().position(Result::is_err).expect("64 raw pages do not fit 64 frames");
        assert_eq!(results[first_refused], Err(DemoteError::Pressure { pressure: Pressure::FULL }));
        assert_eq!(
            first_refused,
            (16 * 16384 * 7 / 10usize).div_ceil(PAGE + 35),
            "at 70 % of the physical memory"
        );
        assert!(results[first_refused..].iter().all(Result::is_err), "the door has a gap");
        let mut frame = [0; PAGE];
        for (page, resident) in noise.chunks_exact(PAGE).zip(&results[..first_refused]) {
            handler.read(resident.unwrap(), &mut frame).unwrap();
            assert_eq!(page, frame, "an accepted page was lost");
        }
        for (freed, resident) in results.into_iter().flatten().enumerate() {
            // Between the marks the door stays shut.
            let left = (first_refused - freed) * (PAGE + 35);
            match handler.demote(ANONYMOUS, &pages()[0]) {
                Ok(page) => {
                    assert!(left < 16 * 16384 / 2, "{left} bytes are left");
                    handler.free(page).unwrap();
                }
                Err(DemoteError::Pressure { .. }) => {
                    assert!(left >= 16 * 16384 / 2 - PAGE, "{left} bytes are left")
                }
                Err(error) => panic!("{error}"),
            }
            handler.free(resident).unwrap();
        }
    });
}

#[test]
fn a_node_goes_only_when_its_pages_have_gone() {
    with_cram!(cram, handler, {
        let pages = pages();
        assert_eq!(cram.finish(), Err(LifeError::OutOfOrder { phase: Phase::Open }));
        assert_eq!(cram.reopen(), Err(LifeError::OutOfOrder { phase: Phase::Open }));
        for page in &pages[..10] {
            handler.demote(ANONYMOUS, page).unwrap();
        }
        cram.close().unwrap();
        assert_eq!(
            handler.demote(ANONYMOUS, &pages[0]),
            Err(DemoteError::NotOpen { phase: Phase::Draining })
        );
        assert_eq!(cram.finish(), Err(LifeError::Occupied { pages: 10 }));
        cram.reopen().unwrap();
        handler.demote(ANONYMOUS, &pages[10]).unwrap();
        cram.close().unwrap();
        let mut evacuated = Vec::new();
        for resident in cram.residents() {
            let mut frame = vec![0; PAGE];
            handler.write_fault(resident).unwrap().copy_to(&mut frame).unwrap().finish();
            evacuated.push(frame);
        }
        assert_eq!(evacuated, pages[..11]);
        cram.finish().unwrap();
        assert_eq!(handler.demote(ANONYMOUS, &pages[0]), Err(DemoteError::NotOpen { phase: Phase::Closed }));
        assert_eq!(cram.reopen(), Err(LifeError::OutOfOrder { phase: Phase::Closed }));
    });
}

#[test]
fn a_name_that_was_kept_too_long_never_names_another_page() {
    with_cram!(cram, handler, {
        let pages = pages();
        let first = handler.demote(ANONYMOUS, &pages[0]).unwrap();
        handler.free(first).unwrap();
        let second = handler.demote(ANONYMOUS, &pages[1]).unwrap();
        assert_eq!(first.frame(), second.frame(), "the frame was to be used again");
        let stale = FaultError::Stale(Stale { page: first });
        assert_eq!(handler.read(first, &mut [0; PAGE]), Err(stale));
        assert_eq!(handler.free(first), Err(stale));
        for bits in [0, 255, 256, u64::MAX, 1 << 32 | 9] {
            let made_up = Resident::from_bits(bits);
            assert!(matches!(handler.free(made_up), Err(FaultError::Stale(_))), "{made_up:?}");
        }
        assert!(cram.is_resident(second));
        handler.free(second).unwrap();
    });
}

#[test]
fn of_racing_writers_one_wins_and_no_page_is_lost() {
    const THREADS: usize = 3;
    let config = Config::new(256, 16);
    let mut lent = Lent::new(config, 64, THREADS);
    let store = lent.store(config);
    let mut cram_words = words(Cram::words(256));
    let cram = Cram::new(256, Curve::DEFAULT, &mut cram_words).unwrap();
    let pages = pages();
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut handler = cram.handler(store.worker(0, &mut scratch, &mut buffer).unwrap());
    for _ in 0..40 {
        let residents: Vec<_> = pages.iter().map(|page| handler.demote(ANONYMOUS, page).unwrap()).collect();
        let wins: Vec<_> = pages.iter().map(|_| AtomicU32::new(0)).collect();
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (residents, wins, start, pages, cram, store) =
                    (&residents, &wins, &start, &pages, &cram, &store);
                scope.spawn(move || {
                    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
                    let mut handler = cram.handler(store.worker(thread, &mut scratch, &mut buffer).unwrap());
                    start.wait();
                    for (i, &resident) in residents.iter().enumerate() {
                        let mut frame = [0; PAGE];
                        loop {
                            match handler.write_fault(resident) {
                                Ok(promotion) => {
                                    promotion.copy_to(&mut frame).unwrap().finish();
                                    assert_eq!(pages[i][..], frame);
                                    wins[i].fetch_add(1, Ordering::Relaxed);
                                    break;
                                }
                                Err(FaultError::Retry(_)) => std::thread::yield_now(),
                                Err(FaultError::Stale(_)) => break,
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                });
            }
        });
        assert!(wins.iter().all(|wins| wins.load(Ordering::Relaxed) == 1), "{wins:?}");
    }
    assert_eq!(cram.stats().promoted, 40 * 64);
    store.audit().unwrap();
}

/// A page that somebody can write past the fence is refused by name, and is no burden to the node.
#[test]
fn only_private_anonymous_pages_come_in() {
    with_cram!(cram, handler, {
        let page = &pages()[0];
        for origin in [PageOrigin::SharedAnonymous, PageOrigin::PageCache, PageOrigin::Unmovable] {
            assert_eq!(handler.demote(origin, page), Err(DemoteError::Origin { origin }));
        }
        assert_eq!((cram.stats().refused, cram.capacity(handler.medium()).occupied_frames), (3, 0));
        handler.demote(PageOrigin::PrivateAnonymous, page).unwrap();
    });
}
