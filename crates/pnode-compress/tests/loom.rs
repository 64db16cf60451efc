//! Models of every protocol of the store and of compressed RAM, at the smallest size that still has the race.
//!
//! loom cannot see the pool's plain bytes, so the memory of these models has a cell for each granule, which each access
//! touches: two accesses without an order between them are reported.
#![cfg(loom)]

use std::ptr::NonNull;

use loom::sync::Arc;
use loom::thread;
use pnode_compress::codec::{Codec, Ladder, Scratch, Tag, Temperature};
use pnode_compress::cram::{Bound, Cram, Curve, FaultError, Medium, ReadError, Resident, Usage, WriteError};
use pnode_compress::memory::{BufferFrames, FrameMemory, PageBytes};
use pnode_compress::store::{
    Config, Deduplication, LoadError, Recompression, RemoveError, Shard, Slot, Store, StoreError, WriteBack,
};
use pnode_core::sync::{AtomicBool, AtomicU64, Ordering, UnsafeCell, explore};
use pnode_core::{FrameError, FrameRange, FrameSource, FreeError, MigrateType, Order, PageSize, Pfn};

const PAGE: usize = 4096;

/// Words that no entry holds, so that their pages are objects of eight bytes: one granule each.
const A: u64 = 0x8123_4567_89ab_cdef;
const B: u64 = 0x8fed_cba9_8765_4321;

fn page(word: u64) -> Vec<u8> {
    word.to_ne_bytes().repeat(PAGE / 8)
}

/// One block of memory, and a cell for each of its first granules.
struct Block {
    base: NonNull<PageBytes>,
    taken: AtomicBool,
    cells: Vec<UnsafeCell<()>>,
}

// SAFETY: the pages are leaked and not touched but through the store.
unsafe impl Send for Block {}
// SAFETY: as above; loom checks the cells.
unsafe impl Sync for Block {}

impl Block {
    fn new(cells: usize) -> Self {
        thread_local!(static PAGES: NonNull<PageBytes> = NonNull::from(vec![PageBytes::ZEROED; 4].leak()).cast());
        let cells = (0..cells).map(|_| UnsafeCell::new(())).collect();
        Self { base: PAGES.with(|pages| *pages), taken: AtomicBool::new(false), cells }
    }
}

impl FrameSource for Block {
    fn alloc(&self, order: Order, _: MigrateType) -> Result<Pfn, FrameError> {
        let free = !self.taken.swap(true, Ordering::Acquire);
        if free { Ok(Pfn::new(0)) } else { Err(FrameError::Exhausted { order }) }
    }

    fn free(&self, _: Pfn, _: Order) -> Result<(), FreeError> {
        self.taken.store(false, Ordering::Release);
        Ok(())
    }
}

// SAFETY: the pages stay where they are for ever, and one holder at a time has them; models run one after the other in a
// thread of their own.
unsafe impl FrameMemory for Block {
    fn page_size(&self) -> PageSize {
        PageSize::KIB4
    }

    fn address(&self, frames: FrameRange) -> Option<NonNull<u8>> {
        (frames.end().get() <= 4).then_some(self.base.cast())
    }

    fn watch(&self, _: FrameRange, offset: usize) -> Option<&UnsafeCell<()>> {
        self.cells.get(offset / 32)
    }
}

/// A store of one block and four slots, which lives until the model ends.
struct World {
    store: &'static Store<'static, Block>,
}

const CONFIG: Config = Config::new(4, 1);

impl World {
    fn new() -> Self {
        Self::with(CONFIG, 4)
    }

    /// The first `cells` granules are watched.
    fn with(config: Config, cells: usize) -> Self {
        let words: Vec<AtomicU64> = (0..config.words().unwrap()).map(|_| AtomicU64::new(0)).collect();
        let shards = Box::leak(Box::new([Shard::new()]));
        let store = Store::new(config, Block::new(cells), words.leak(), shards).unwrap();
        Self { store: Box::leak(Box::new(store)) }
    }
}

fn put(store: &Store<'_, Block>, slot: u32, word: u64) {
    let (mut scratch, mut buffer) = (Box::new(Scratch::new()), vec![0; PAGE]);
    store.worker(0, &mut scratch, &mut buffer).unwrap().store(Slot::new(slot), &page(word)).unwrap();
}

/// The word in a slot.
fn get(store: &Store<'_, Block>, slot: u32) -> Option<u64> {
    let (mut scratch, mut buffer, mut out) = (Box::new(Scratch::new()), vec![0; PAGE], vec![0; PAGE]);
    match store.worker(0, &mut scratch, &mut buffer).unwrap().load(Slot::new(slot), &mut out) {
        Ok(()) => Some(u64::from_ne_bytes(out[..8].try_into().unwrap())),
        Err(LoadError::NotStored { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_load_sees_the_page_or_none_while_its_granule_is_freed_and_used_again() {
    explore(3, || {
        let World { store } = World::new();
        put(store, 0, A);
        let reader = thread::spawn(move || get(store, 0));
        store.remove(Slot::new(0)).unwrap();
        put(store, 1, B);
        assert!(matches!(reader.join().unwrap(), None | Some(A)));
        assert_eq!((get(store, 0), get(store, 1)), (None, Some(B)));
        store.audit().unwrap();
    });
}

#[test]
fn the_last_of_two_readers_frees_for_both() {
    explore(3, || {
        let World { store } = World::new();
        put(store, 0, A);
        let readers = [(); 2].map(|()| thread::spawn(move || get(store, 0)));
        store.remove(Slot::new(0)).unwrap();
        // The granule may be free by now, by the hand of either reader.
        put(store, 1, B);
        for reader in readers {
            assert!(matches!(reader.join().unwrap(), None | Some(A)));
        }
        assert_eq!(get(store, 1), Some(B));
        store.audit().unwrap();
    });
}

#[test]
fn a_load_sees_the_old_page_or_the_new_while_it_is_replaced() {
    explore(2, || {
        let World { store } = World::new();
        put(store, 0, A);
        let reader = thread::spawn(move || (get(store, 0), get(store, 0)));
        let (mut scratch, mut buffer) = (Box::new(Scratch::new()), vec![0; PAGE]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        let replaced = worker.store(Slot::new(0), &page(B)).is_ok();
        let seen = reader.join().unwrap();
        assert!(matches!(seen, (Some(A), Some(A | B)) | (Some(B), Some(B))), "{seen:?}");
        assert_eq!(get(store, 0), Some(if replaced { B } else { A }));
        store.audit().unwrap();
    });
}

/// As the first, with objects that each cover a whole word of the block's bitmap, and nothing else.
#[test]
fn a_load_sees_the_object_or_none_while_its_word_of_granules_is_freed_and_used_again() {
    explore(3, || {
        let World { store } = World::new();
        let put = |slot| {
            let (mut scratch, mut buffer) = (Box::new(Scratch::new()), vec![0; PAGE]);
            let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
            worker.store_encoded(Slot::new(slot), Tag::plain(Codec::Fast), &[0; 64 * 32 - 4]).unwrap();
        };
        put(0);
        // No object that decodes is so long; what counts is who touches its bytes when.
        let reader = thread::spawn(move || {
            let (mut scratch, mut buffer, mut out) = (Box::new(Scratch::new()), vec![0; PAGE], vec![0; PAGE]);
            store.worker(0, &mut scratch, &mut buffer).unwrap().load(Slot::new(0), &mut out)
        });
        store.remove(Slot::new(0)).unwrap();
        put(1);
        assert!(reader.join().unwrap().is_err());
        store.audit().unwrap();
    });
}

/// A page that is encoded anew while others read it: they see it at its old place or at its new one, whole.
#[test]
fn a_page_that_is_encoded_anew_is_read_whole() {
    explore(3, || {
        // Encoded anew it lies behind the 129 granules that it had.
        let World { store } = World::with(CONFIG, 131);
        let words: Vec<u8> = (0..PAGE as u32 / 4).flat_map(|i| (i % 7 * 0x0101).to_le_bytes()).collect();
        let (mut scratch, mut buffer) = (Box::new(Scratch::new()), vec![0; PAGE]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        worker.store_encoded(Slot::new(0), Tag::plain(Codec::Raw), &words).unwrap();
        let expected = words.clone();
        let reader = thread::spawn(move || {
            for _ in 0..2 {
                let (mut scratch, mut buffer, mut out) =
                    (Box::new(Scratch::new()), vec![0; PAGE], vec![0; PAGE]);
                store.worker(0, &mut scratch, &mut buffer).unwrap().load(Slot::new(0), &mut out).unwrap();
                assert!(out == expected);
            }
        });
        let how = Recompression { ladder: Ladder::STANDARD, temperature: Temperature::Hot, min_age: 0 };
        let mut room = vec![0; PAGE];
        worker.recompress(0..1, how, &mut room).unwrap();
        reader.join().unwrap();
        store.audit().unwrap();
    });
}

#[test]
fn what_is_freed_from_elsewhere_is_never_lost_to_the_shard() {
    explore(2, || {
        let World { store } = World::new();
        put(store, 0, A);
        put(store, 1, A);
        let other = thread::spawn(move || store.remove(Slot::new(0)).unwrap());
        store.remove(Slot::new(1)).unwrap();
        put(store, 2, B);
        other.join().unwrap();
        store.audit().unwrap();
        assert_eq!(get(store, 2), Some(B));
        store.remove(Slot::new(2)).unwrap();
        assert_eq!(store.trim(1), 1, "the block is empty, and the shard must know");
        store.audit().unwrap();
    });
}

#[test]
fn what_two_free_in_one_block_is_seen_by_a_third() {
    explore(3, || {
        let World { store } = World::new();
        put(store, 0, A);
        put(store, 1, A);
        let others = [0, 1].map(|slot| thread::spawn(move || store.remove(Slot::new(slot)).unwrap()));
        // Looks at the block while one of them has queued it and the other relies on that.
        put(store, 2, B);
        for other in others {
            other.join().unwrap();
        }
        store.audit().unwrap();
    });
}

/// In a full block every granule changes the bin that the block belongs in, so that one which the shard misses shows: it
/// would be in no list, and of no use to the stores below. Notices a block that is not queued again, or not looked at. A
/// weaker ordering of the mark in `Shard::freed` it does not: loom shows no stale bitmap there.
#[test]
fn of_a_full_block_the_shard_sees_what_was_freed_before_it_looked() {
    explore(3, || {
        let World { store } = World::with(Config::new(8, 1), 4);
        put(store, 0, A);
        put(store, 1, A);
        let (mut scratch, mut buffer) = (Box::new(Scratch::new()), vec![0; PAGE]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        // Of 512 granules two are taken; three raw pages take 129 each, and 123 are left.
        for (slot, len) in [(2, PAGE), (3, PAGE), (4, PAGE), (5, 123 * 32 - 4)] {
            let codec = if len == PAGE { Codec::Raw } else { Codec::Fast };
            worker.store_encoded(Slot::new(slot), Tag::plain(codec), &vec![0; len]).unwrap();
        }
        let others = [0, 1].map(|slot| thread::spawn(move || store.remove(Slot::new(slot)).unwrap()));
        let stored = worker.store(Slot::new(6), &page(B));
        assert!(matches!(stored, Ok(_) | Err(StoreError::Full { .. })), "{stored:?}");
        for other in others {
            other.join().unwrap();
        }
        store.audit().unwrap();
        // Both granules are free, or one of them is.
        let left = 2 - u32::from(stored.is_ok());
        for slot in 0..left {
            put(store, slot, A);
        }
        assert!(worker.store(Slot::new(7), &page(B)).is_err());
        store.audit().unwrap();
    });
}

#[test]
fn of_two_removals_one_succeeds_even_while_the_page_is_read() {
    explore(2, || {
        let World { store } = World::new();
        put(store, 0, A);
        let reader = thread::spawn(move || get(store, 0));
        let other = thread::spawn(move || store.remove(Slot::new(0)));
        let here = store.remove(Slot::new(0));
        let there = other.join().unwrap();
        assert!(matches!(reader.join().unwrap(), None | Some(A)));
        assert!(here.is_ok() != there.is_ok(), "{here:?} {there:?}");
        assert!(matches!(here.and(there), Err(RemoveError::NotStored { .. })));
        store.audit().unwrap();
    });
}

#[test]
fn a_page_that_is_written_back_is_removed_only_if_nobody_uses_it() {
    explore(2, || {
        let World { store } = World::new();
        put(store, 0, A);
        let reader = thread::spawn(move || get(store, 0));
        let (mut scratch, mut buffer) = (Box::new(Scratch::new()), vec![0; PAGE]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        let swept = worker.write_back(0..1, 0, |_, _, bytes| {
            assert_eq!(bytes, A.to_ne_bytes());
            WriteBack::Written
        });
        put(store, 1, B);
        let seen = reader.join().unwrap();
        let left = get(store, 0);
        assert_eq!(left.is_none(), swept.done == 1);
        assert!(seen == Some(A) || left.is_none(), "{seen:?} {left:?}");
        store.audit().unwrap();
    });
}

/// A whole pass of deduplication; how many pages were merged.
fn deduplicate(store: &Store<'_, Block>) -> u64 {
    let mut index = [0; 16];
    store.deduplicate(&mut Deduplication::new(&mut index), usize::MAX).merged
}

/// Slots 0 and 1 hold the same, in one object, and slot 2 something else.
fn shared() -> &'static Store<'static, Block> {
    let World { store } = World::with(CONFIG.shared(1), 4);
    put(store, 0, A);
    put(store, 1, A);
    put(store, 2, B);
    assert_eq!(deduplicate(store), 1);
    store
}

#[test]
fn a_load_sees_the_page_while_it_comes_to_be_shared() {
    explore(2, || {
        let World { store } = World::with(CONFIG.shared(1), 4);
        put(store, 0, A);
        put(store, 1, A);
        let reader = thread::spawn(move || get(store, 0));
        deduplicate(store);
        assert_eq!(reader.join().unwrap(), Some(A));
        assert_eq!((get(store, 0), get(store, 1)), (Some(A), Some(A)));
        store.audit().unwrap();
    });
}

#[test]
fn a_page_that_is_removed_while_it_comes_to_be_shared_leaves_nothing() {
    explore(3, || {
        let World { store } = World::with(CONFIG.shared(1), 4);
        put(store, 0, A);
        put(store, 1, A);
        let other = thread::spawn(move || store.remove(Slot::new(0)).unwrap());
        deduplicate(store);
        other.join().unwrap();
        assert_eq!((get(store, 0), get(store, 1)), (None, Some(A)));
        store.audit().unwrap();
        store.remove(Slot::new(1)).unwrap();
        assert_eq!(store.stats().compressed_bytes, 0);
        store.audit().unwrap();
    });
}

#[test]
fn of_two_that_leave_a_shared_object_the_last_takes_it_out() {
    explore(3, || {
        let store = shared();
        let other = thread::spawn(move || store.remove(Slot::new(0)).unwrap());
        store.remove(Slot::new(1)).unwrap();
        // Its granule may be free by now.
        put(store, 3, B);
        other.join().unwrap();
        assert_eq!((get(store, 2), get(store, 3)), (Some(B), Some(B)));
        assert_eq!(store.stats().shared_objects, 0);
        store.audit().unwrap();
    });
}

/// The number that a reader was sent to may stand for another object when he gets there: then it is not his page's.
#[test]
fn a_load_never_sees_what_its_number_came_to_stand_for() {
    explore(3, || {
        let World { store } = World::with(CONFIG.shared(1), 4);
        (0..2).for_each(|slot| put(store, slot, A));
        assert_eq!(deduplicate(store), 1);
        (2..4).for_each(|slot| put(store, slot, B));
        let reader = thread::spawn(move || get(store, 0));
        store.remove(Slot::new(1)).unwrap();
        store.remove(Slot::new(0)).unwrap();
        deduplicate(store);
        let seen = reader.join().unwrap();
        assert!(matches!(seen, None | Some(A)), "{seen:?}");
        assert_eq!((get(store, 2), get(store, 3)), (Some(B), Some(B)));
        store.audit().unwrap();
    });
}

#[test]
fn a_page_joins_or_finds_that_the_last_has_left() {
    explore(3, || {
        let store = shared();
        store.remove(Slot::new(1)).unwrap();
        put(store, 3, A);
        let other = thread::spawn(move || store.remove(Slot::new(0)).unwrap());
        deduplicate(store);
        other.join().unwrap();
        assert_eq!((get(store, 0), get(store, 3)), (None, Some(A)));
        store.audit().unwrap();
        store.remove(Slot::new(3)).unwrap();
        assert_eq!((store.stats().shared_objects, store.stats().shared_pages), (0, 0));
        store.audit().unwrap();
    });
}

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
        let resident = cram.handler(frame()).demote(&page(A)).unwrap();
        let there = {
            let frame = frame();
            thread::spawn(move || promote(cram, frame, resident))
        };
        let here = promote(cram, frame(), resident);
        // The next page may come in as soon as the frame is free, while the loser still looks at it.
        let mut handler = cram.handler(frame());
        let next = handler.demote(&page(B)).ok();
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
        let resident = cram.handler(frame()).demote(&page(A)).unwrap();
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
        let resident = cram.handler(frame()).demote(&page(A)).unwrap();
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
        let resident = cram.handler(frame()).demote(&page(A)).unwrap();
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
            thread::spawn(move || cram.handler(frame).demote(&page(A)).is_ok())
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
        let resident = cram.handler(frame()).demote(&page(A)).unwrap();
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
            let resident = cram.handler(frame()).demote(&page(A)).unwrap();
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
