//! Models of every protocol of the store and of compressed RAM, at the smallest size that still has the race.
//!
//! loom cannot see the pool's plain bytes, so the memory of these models has a cell for each granule, which each access
//! touches: two accesses without an order between them are reported.
#![cfg(loom)]

mod cram;
mod shared;

use std::ptr::NonNull;

use loom::thread;
use pnode_compress::codec::{Codec, Ladder, Scratch, Tag, Temperature};
use pnode_compress::memory::{FrameMemory, PageBytes};
use pnode_compress::store::{
    Config, LoadError, MoveError, Recompression, RemoveError, Shard, Slot, Store, StoreError, WriteBack,
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
    match try_get(store, slot) {
        Ok(word) => Some(word),
        Err(LoadError::NotStored { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn try_get(store: &Store<'_, Block>, slot: u32) -> Result<u64, LoadError> {
    let (mut scratch, mut buffer, mut out) = (Box::new(Scratch::new()), vec![0; PAGE], vec![0; PAGE]);
    store.worker(0, &mut scratch, &mut buffer).unwrap().load(Slot::new(slot), &mut out)?;
    Ok(u64::from_ne_bytes(out[..8].try_into().unwrap()))
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
        // Encoded anew it lies behind the 128 granules that it had.
        let World { store } = World::with(CONFIG, 130);
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
        // Of 512 granules two are taken; three raw pages take 128 each, and 126 are left.
        for (slot, len) in [(2, PAGE), (3, PAGE), (4, PAGE), (5, 126 * 32 - 4)] {
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

#[test]
fn a_page_that_is_moved_is_in_one_slot_or_on_its_way() {
    explore(3, || {
        let World { store } = World::new();
        put(store, 0, A);
        let reader = thread::spawn(move || (get(store, 0), get(store, 1)));
        let moved = store.move_page(Slot::new(0), Slot::new(1));
        assert!(matches!(moved, Ok(()) | Err(MoveError::Busy { .. })), "{moved:?}");
        let slot = u32::from(moved.is_ok());
        store.remove(Slot::new(slot)).unwrap();
        // Its granule may be free by now.
        put(store, 2, B);
        let (there, here) = reader.join().unwrap();
        assert!(matches!((there, here), (None | Some(A), None | Some(A))), "{there:?} {here:?}");
        assert_eq!((get(store, 0), get(store, 1), get(store, 2)), (None, None, Some(B)));
        store.audit().unwrap();
    });
}

#[test]
fn who_finds_a_page_where_it_was_moved_to_finds_its_bytes() {
    explore(3, || {
        let World { store } = World::new();
        let reader = thread::spawn(move || get(store, 1));
        put(store, 0, A);
        store.move_page(Slot::new(0), Slot::new(1)).unwrap();
        assert!(matches!(reader.join().unwrap(), None | Some(A)));
        store.audit().unwrap();
    });
}

#[test]
fn of_two_pages_that_go_to_one_slot_one_stays_where_it_was() {
    explore(3, || {
        let World { store } = World::new();
        put(store, 0, A);
        put(store, 1, B);
        let other = thread::spawn(move || store.move_page(Slot::new(0), Slot::new(2)).is_ok());
        let here = store.move_page(Slot::new(1), Slot::new(2)).is_ok();
        let there = other.join().unwrap();
        assert!(here != there);
        let found = (get(store, 0), get(store, 1), get(store, 2));
        assert_eq!(found, if here { (Some(A), None, Some(B)) } else { (None, Some(B), Some(A)) });
        store.audit().unwrap();
    });
}
