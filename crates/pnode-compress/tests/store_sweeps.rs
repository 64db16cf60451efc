//! Sweeps: ages, recompression, writing back; and all of it at once from several threads.

#[path = "support/lent.rs"]
mod lent;
#[path = "support/synth.rs"]
mod synth;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lent::Lent;
use pnode_compress::codec::{Codec, Ladder, Scratch, Tag, Temperature};
use pnode_compress::store::{
    Compaction, Config, LoadError, Recompression, RemoveError, Slot, StoreError, WriteBack,
};
use synth::Mix;

const PAGE: usize = 4096;

#[test]
fn ages_count_sweeps_since_the_last_use() {
    let config = Config::new(16, 8);
    let mut lent = Lent::new(config, 32, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let pages = synth::corpus("slab", 3);
    for (slot, page) in pages.chunks_exact(PAGE).enumerate() {
        worker.store(Slot::new(slot as u32), page).unwrap();
    }
    worker.store(Slot::new(3), &[0; PAGE]).unwrap();
    for sweep in 1..10 {
        store.grow_older(0..u32::MAX);
        worker.load(Slot::new(1), &mut [0; PAGE]).unwrap();
        assert_eq!(store.age(Slot::new(0)), Some(sweep.min(6)));
        assert_eq!(store.age(Slot::new(1)), Some(0));
        assert_eq!((store.age(Slot::new(3)), store.age(Slot::new(4))), (None, None));
    }
    worker.store(Slot::new(0), &pages[..PAGE]).unwrap();
    assert_eq!(store.age(Slot::new(0)), Some(0));
    assert_eq!(store.remove_range(1..u32::MAX), 3);
    assert_eq!(store.stats().pages, 1);
    store.audit().unwrap();
}

#[test]
fn recompression_frees_memory_or_changes_nothing() {
    let config = Config::new(64, 32);
    let mut lent = Lent::new(config, 128, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let mut pages: Vec<Vec<u8>> = Vec::new();
    for kind in ["slab", "random", "json", "zero"] {
        pages.extend(synth::corpus(kind, 16).chunks_exact(PAGE).map(<[u8]>::to_vec));
    }
    // Stored raw, so that there is something to win.
    for (slot, page) in pages.iter().enumerate() {
        worker.store_encoded(Slot::new(slot as u32), Tag::plain(Codec::Raw), page).unwrap();
    }
    let before = store.stats();
    assert_eq!(before.compressed_bytes, 64 * PAGE as u64);
    let how = Recompression { ladder: Ladder::STANDARD, temperature: Temperature::Hot, min_age: 1 };
    let mut page = [0; PAGE];
    assert_eq!(worker.recompress(0..64, how, &mut page).unwrap().tried, 0, "all of them are young");
    store.grow_older(0..64);
    let swept = worker.recompress(0..64, how, &mut page).unwrap();
    assert_eq!((swept.tried, swept.done, swept.damaged), (64, 48, 0));
    store.audit().unwrap();
    let after = store.stats();
    assert!(after.compressed_bytes * 2 < before.compressed_bytes);
    assert!(swept.saved_bytes > 0 && swept.saved_bytes < before.compressed_bytes);
    // The random pages were tried once, and are not tried again until they are used.
    assert_eq!(worker.recompress(0..64, how, &mut page).unwrap().tried, 0);
    for (slot, expected) in pages.iter().enumerate() {
        worker.load(Slot::new(slot as u32), &mut page).unwrap();
        assert_eq!(expected[..], page);
    }
    let again = worker.recompress(0..64, Recompression { min_age: 0, ..how }, &mut page).unwrap();
    assert_eq!((again.tried, again.done), (16, 0));
    assert!(worker.recompress(0..64, how, &mut [0; 8]).is_err());
}

#[test]
fn what_the_hot_codec_left_raw_is_tried_once_with_a_colder_one() {
    let config = Config::new(32, 16);
    let mut lent = Lent::new(config, 64, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer, mut page) = (Scratch::new(), [0; PAGE], [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let pages = [synth::corpus("ints", 16), synth::corpus("random", 16)].concat();
    for (slot, page) in pages.chunks_exact(PAGE).enumerate() {
        assert_eq!(worker.store(Slot::new(slot as u32), page).unwrap().tag().codec(), Codec::Raw);
    }
    let how = |temperature| Recompression { ladder: Ladder::STANDARD, temperature, min_age: 0 };
    let swept = worker.recompress(0..32, how(Temperature::Cold), &mut page).unwrap();
    assert_eq!((swept.tried, swept.done, swept.damaged), (32, 16, 0));
    assert_eq!(worker.recompress(0..32, how(Temperature::Cold), &mut page).unwrap().tried, 0);
    for (slot, expected) in pages.chunks_exact(PAGE).enumerate() {
        worker.load(Slot::new(slot as u32), &mut page).unwrap();
        assert_eq!(expected, page);
    }
    // Used again, but of a colder codec already: a warmer one does not touch them.
    assert_eq!(worker.recompress(0..16, how(Temperature::Warm), &mut page).unwrap().tried, 0);
    store.audit().unwrap();
}

/// Raw pages fill their blocks, so that there is no hole to begin with.
#[test]
fn recompression_takes_one_block_at_most_and_gives_up_no_page_for_want_of_it() {
    let config = Config::new(32, 16);
    let mut lent = Lent::new(config, 64, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer, mut page) = (Scratch::new(), [0; PAGE], [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let pages = synth::corpus("json", 32);
    for (slot, page) in pages.chunks_exact(PAGE).enumerate() {
        worker.store_encoded(Slot::new(slot as u32), Tag::plain(Codec::Raw), page).unwrap();
    }
    assert_eq!(store.blocks(), 8);
    let how = Recompression { ladder: Ladder::STANDARD, temperature: Temperature::Hot, min_age: 0 };
    store.set_limit(8);
    let swept = worker.recompress(0..32, how, &mut page).unwrap();
    assert_eq!((swept.tried, swept.done, store.blocks()), (32, 0, 8));
    store.set_limit(16);
    // One page a call, as a host with a budget does it.
    for slot in 0..32 {
        let swept = worker.recompress(slot..slot + 1, how, &mut page).unwrap();
        assert_eq!((swept.tried, swept.done), (1, 1), "{slot}");
        assert!(store.blocks() <= 9, "{} blocks", store.blocks());
    }
    for (slot, expected) in pages.chunks_exact(PAGE).enumerate() {
        worker.load(Slot::new(slot as u32), &mut page).unwrap();
        assert_eq!(expected, page);
    }
    store.audit().unwrap();
}

/// The sink has the page pinned: a store to its slot waits a moment and says so, and a removal does not wait.
#[test]
fn a_store_to_a_slot_that_is_read_says_that_it_is_busy() {
    let config = Config::new(4, 4);
    let mut lent = Lent::new(config, 16, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let pages = synth::corpus("json", 2);
    let (slot, (first, second)) = (Slot::new(1), pages.split_at(PAGE));
    worker.store(slot, first).unwrap();
    let swept = worker.write_back(0..4, 0, |_, _, _| {
        let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
        let mut other = store.worker(0, &mut scratch, &mut buffer).unwrap();
        assert_eq!(other.store(slot, second), Err(StoreError::Busy { slot }));
        let mut back = [0; PAGE];
        other.load(slot, &mut back).unwrap();
        assert!(back == first);
        other.remove(slot).unwrap();
        assert_eq!(other.load(slot, &mut back), Err(LoadError::NotStored { slot }));
        WriteBack::Keep
    });
    assert_eq!((swept.tried, swept.done, store.stats().pages), (1, 0, 0));
    store.audit().unwrap();
}

#[test]
fn pages_that_were_written_back_come_again() {
    let config = Config::new(64, 16);
    let mut lent = Lent::new(config, 64, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let pages = synth::corpus("ptrs", 32);
    let pages: Vec<_> = pages.chunks_exact(PAGE).collect();
    for (slot, page) in pages.iter().enumerate() {
        worker.store(Slot::new(slot as u32), page).unwrap();
    }
    store.grow_older(0..64);
    worker.load(Slot::new(5), &mut [0; PAGE]).unwrap();
    let mut swap = HashMap::new();
    let swept = worker.write_back(0..64, 1, |slot, tag, bytes| {
        if slot.get() % 2 == 0 {
            return WriteBack::Keep;
        }
        swap.insert(slot, (tag, bytes.to_vec()));
        WriteBack::Written
    });
    assert_eq!((swept.tried, swept.done, swept.damaged), (31, 15, 0));
    assert_eq!(swap.len(), 15, "slot 5 was used, so it is not old");
    assert_eq!(store.stats().pages, 17);
    store.audit().unwrap();
    for (slot, (tag, bytes)) in &swap {
        assert_eq!(worker.load(*slot, &mut [0; PAGE]), Err(LoadError::NotStored { slot: *slot }));
        worker.store_encoded(*slot, *tag, bytes).unwrap();
    }
    let mut page = [0; PAGE];
    for (slot, expected) in pages.iter().enumerate() {
        worker.load(Slot::new(slot as u32), &mut page).unwrap();
        assert_eq!(**expected, page);
    }
}

/// A page that says what it is, in a form that compresses to a length of its own.
fn stamped(slot: u32, version: u64) -> Vec<u8> {
    let mut mix = Mix::new(u64::from(slot) << 32 | version);
    let noise = 16 + 8 * mix.below(300) as usize;
    let mut page = vec![slot as u8; PAGE];
    page[..4].copy_from_slice(&slot.to_le_bytes());
    page[8..16].copy_from_slice(&version.to_le_bytes());
    page[16..noise].chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&mix.next().to_le_bytes()));
    page
}

fn check_stamp(page: &[u8], slot: u32) -> u64 {
    let version = u64::from_le_bytes(page[8..16].try_into().unwrap());
    assert_eq!(page, stamped(slot, version), "slot {slot} holds a page that was never stored there");
    version
}

#[test]
fn threads_that_store_load_remove_move_and_sweep_never_see_another_page() {
    const SLOTS: u32 = 64;
    const THREADS: usize = 4;
    let config = Config::new(SLOTS, 16);
    let mut lent = Lent::new(config, 64, THREADS);
    let store = lent.store(config);
    let stop = AtomicBool::new(false);
    let (loads, moves) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (store, stop, loads, moves) = (&store, &stop, &loads, &moves);
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
                    let mut worker = store.worker(thread, &mut scratch, &mut buffer).unwrap();
                    let mut mix = Mix::new(thread as u64);
                    let mut page = [0; PAGE];
                    for step in 0..4000 {
                        let slot = mix.below(SLOTS.into()) as u32;
                        match mix.below(8) {
                            0..3 => match worker
                                .store(Slot::new(slot), &stamped(slot, step << 8 | thread as u64))
                            {
                                Ok(_) | Err(StoreError::Full { .. } | StoreError::Busy { .. }) => {}
                                Err(error) => panic!("{error}"),
                            },
                            3 => match worker.remove(Slot::new(slot)) {
                                Ok(()) | Err(RemoveError::NotStored { .. }) => {}
                                Err(error) => panic!("{error}"),
                            },
                            _ => match worker.load(Slot::new(slot), &mut page) {
                                Ok(()) => {
                                    check_stamp(&page, slot);
                                    loads.fetch_add(1, Ordering::Relaxed);
                                }
                                Err(LoadError::NotStored { .. }) => {}
                                Err(error) => panic!("{error}"),
                            },
                        }
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
            let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
            let mut pass = Compaction::new();
            let mut page = [0; PAGE];
            while !stop.load(Ordering::Relaxed) {
                let progress = worker.compact(&mut pass, 20_000);
                if progress.done {
                    moves.fetch_add(progress.moved_bytes, Ordering::Relaxed);
                    pass = Compaction::new();
                }
                store.grow_older(0..SLOTS);
                let how =
                    Recompression { ladder: Ladder::STANDARD, temperature: Temperature::Warm, min_age: 1 };
                worker.recompress(0..SLOTS, how, &mut page).unwrap();
                worker.write_back(0..SLOTS, 5, |slot, _, _| {
                    if slot.get() % 16 == 0 { WriteBack::Written } else { WriteBack::Keep }
                });
                std::thread::yield_now();
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} loads, {} bytes moved", loads.load(Ordering::Relaxed), moves.load(Ordering::Relaxed));
    assert!(loads.load(Ordering::Relaxed) > 1000);
    store.audit().unwrap();
    let memory = store.dismantle();
    assert_eq!(memory.free_frames(), memory.frames());
}

#[test]
fn a_pass_that_is_dropped_keeps_no_empty_block() {
    const CONFIG: Config = Config::new(16, 4);
    for budget in 1..60 {
        let mut lent = Lent::new(CONFIG, 16, 1);
        let store = lent.store(CONFIG);
        let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        let mut noise = 1u64;
        for slot in 0..8 {
            let word = |_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (noise >> 56) as u8
            };
            let page: Vec<u8> = (0..PAGE).map(word).collect();
            worker.store(Slot::new(slot), &page).unwrap();
        }
        // Four such pages fill a block, so the second one is kept empty, for the next page.
        (4..8).for_each(|slot| worker.remove(Slot::new(slot)).unwrap());
        store.audit().unwrap();
        assert_eq!(store.blocks(), 2);
        worker.compact(&mut Compaction::new(), budget * 10);
        store.audit().unwrap();
        let memory = store.dismantle();
        assert_eq!(memory.free_frames(), memory.frames(), "after a budget of {}", budget * 10);
    }
}

/// Raw pages fill blocks of four, and compaction takes the sparsest wherever it is.
#[test]
fn compaction_empties_the_sparsest_blocks() {
    const CONFIG: Config = Config::new(64, 16);
    let mut lent = Lent::new(CONFIG, 64, 1);
    let store = lent.store(CONFIG);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    for slot in 0..32 {
        worker.store_encoded(Slot::new(slot), Tag::plain(Codec::Raw), &[slot as u8; PAGE]).unwrap();
    }
    // Three pages are left in each of seven blocks, and one in the last that was filled.
    (0..7)
        .map(|block| 4 * block)
        .chain([28, 29, 30])
        .for_each(|slot| worker.remove(Slot::new(slot)).unwrap());
    let mut pass = Compaction::new();
    let progress = worker.compact(&mut pass, usize::MAX);
    assert!(progress.done);
    assert_eq!((progress.moved_bytes, store.blocks()), (3 * PAGE as u64 + PAGE as u64, 6));
    store.audit().unwrap();
}
