//! Models of objects that several pages share.

use loom::thread;
use pnode_compress::codec::{Codec, Ladder, Scratch, Tag, Temperature};
use pnode_compress::store::{Deduplication, LoadError, Recompression, Slot, Store};
use pnode_core::sync::explore;

use crate::{A, B, Block, CONFIG, PAGE, World, get, put, try_get};

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

/// As above, with the last two pages that named it taken out by two threads: the one that is last knows what the other did.
#[test]
fn who_leaves_a_number_last_has_seen_all_others_leave() {
    explore(3, || {
        let World { store } = World::with(CONFIG.shared(1), 4);
        (0..2).for_each(|slot| put(store, slot, A));
        assert_eq!(deduplicate(store), 1);
        (2..4).for_each(|slot| put(store, slot, B));
        let reader = thread::spawn(move || get(store, 0));
        let other = thread::spawn(move || store.remove(Slot::new(0)).unwrap());
        store.remove(Slot::new(1)).unwrap();
        deduplicate(store);
        let seen = reader.join().unwrap();
        assert!(matches!(seen, None | Some(A)), "{seen:?}");
        other.join().unwrap();
        store.audit().unwrap();
    });
}

/// As above, with a page that leaves while its object is on the way to the number, which the sweep gives to others then.
#[test]
fn who_makes_a_number_has_seen_its_page_leave() {
    explore(2, || {
        let World { store } = World::with(CONFIG.shared(1), 4);
        (0..2).for_each(|slot| put(store, slot, A));
        (2..4).for_each(|slot| put(store, slot, B));
        let reader = thread::spawn(move || try_get(store, 0));
        let other = thread::spawn(move || store.remove(Slot::new(0)).unwrap());
        deduplicate(store);
        let seen = reader.join().unwrap();
        // With so many at work, a reader's patience of two looks may end.
        assert!(
            matches!(seen, Ok(A) | Err(LoadError::NotStored { .. } | LoadError::Busy { .. })),
            "{seen:?}"
        );
        other.join().unwrap();
        store.audit().unwrap();
    });
}

/// Nothing but the number's entry tells the reader of the bytes.
#[test]
fn who_finds_a_shared_object_finds_its_bytes() {
    explore(3, || {
        let World { store } = World::with(CONFIG.shared(1), 4);
        let reader = thread::spawn(move || get(store, 0));
        put(store, 0, A);
        put(store, 1, A);
        deduplicate(store);
        let seen = reader.join().unwrap();
        assert!(matches!(seen, None | Some(A)), "{seen:?}");
        store.audit().unwrap();
    });
}

/// The reader has the object by the page's entry; then it is encoded anew in the number's entry, without the page's.
#[test]
fn a_shared_object_is_moved_after_those_who_read_it_before_it_was_shared() {
    explore(2, || {
        let World { store } = World::with(CONFIG.shared(1), 2);
        let words: Vec<u8> = (0..PAGE as u32 / 4).flat_map(|i| (i % 7 * 0x0101).to_le_bytes()).collect();
        let (mut scratch, mut buffer, mut room) = (Box::new(Scratch::new()), vec![0; PAGE], vec![0; PAGE]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        for slot in 0..2 {
            worker.store_encoded(Slot::new(slot), Tag::plain(Codec::Raw), &words).unwrap();
        }
        let reader = thread::spawn(move || try_get(store, 0));
        deduplicate(store);
        let how = Recompression { ladder: Ladder::STANDARD, temperature: Temperature::Hot, min_age: 0 };
        worker.recompress(0..1, how, &mut room).unwrap();
        // Where the object was, if it was moved.
        put(store, 2, B);
        let seen = reader.join().unwrap();
        assert!(matches!(seen, Ok(0x0000_0101_0000_0000) | Err(LoadError::Busy { .. })), "{seen:?}");
        assert_eq!(get(store, 2), Some(B));
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
