//! Deduplication against a naive model: what is shared is equal, all that is equal is found, every counter is exact, and
//! whatever else is done to pages and objects leaves sharing right.

#[path = "support/lent.rs"]
mod lent;
#[path = "support/synth.rs"]
mod synth;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lent::Lent;
use pnode_compress::codec::{Codec, Ladder, Scratch, Tag, Temperature, decode};
use pnode_compress::memory::FrameMemory;
use pnode_compress::store::{
    Checksums, Compaction, Config, ConfigError, Damage, Deduplicated, Deduplication, LoadError,
    Recompression, Slot, Store, StoreError, WriteBack,
};
use synth::Mix;

const PAGE: usize = 4096;

/// Pages that differ, and each of which compresses.
fn contents(count: usize) -> Vec<Vec<u8>> {
    let kinds = ["slab", "json", "ptrs", "sparse"];
    let pages = kinds.map(|kind| synth::corpus(kind, count.div_ceil(4))).concat();
    pages.chunks_exact(PAGE).take(count).map(<[u8]>::to_vec).collect()
}

/// What a call does is bounded by its budget: a look costs an entry and a line of the pool, a comparison both objects.
#[test]
fn a_call_does_what_its_budget_pays_for() {
    for (checksums, first) in [(Checksums::On, 4 + 64), (Checksums::Off, 4 + 1024)] {
        let config = Config::new(16, 8).checksums(checksums).shared(8);
        let mut lent = Lent::new(config, 32, 1);
        let store = lent.store(config);
        let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        for slot in 0..16 {
            // Eight pairs.
            let object = [slot as u8 % 8 + 1; 1024];
            worker.store_encoded(Slot::new(slot), Tag::plain(Codec::Fast), &object).unwrap();
        }
        let mut index = [0; 64];
        let mut pass = Deduplication::new(&mut index);
        // The index is cleared first.
        assert_eq!(store.deduplicate(&mut pass, 64 * 8).looked_at, 0);
        assert_eq!(store.deduplicate(&mut pass, first).looked_at, 1);
        assert_eq!(store.deduplicate(&mut pass, 7 * first).looked_at, 8);
        let found = store.deduplicate(&mut pass, 3 * (first + 2 * 1024));
        assert_eq!((found.looked_at, found.merged), (11, 3), "{checksums:?}");
        store.audit().unwrap();
    }
}

/// The page that the index knew goes before its twin is found; a third one is found to be the twin's.
#[test]
fn the_index_goes_over_to_a_page_that_is_there() {
    let config = Config::new(4, 4).shared(2);
    let mut lent = Lent::new(config, 16, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let page = synth::corpus("json", 1);
    for slot in 0..3 {
        worker.store(Slot::new(slot), &page).unwrap();
    }
    let mut index = [0; 8];
    let mut pass = Deduplication::new(&mut index);
    // Clears the index, and looks at the first page.
    assert_eq!(store.deduplicate(&mut pass, 64 + 1).looked_at, 1);
    store.remove(Slot::new(0)).unwrap();
    assert_eq!(store.deduplicate(&mut pass, usize::MAX).merged, 1);
    assert_eq!((store.stats().shared_pages, store.stats().shared_objects), (2, 1));
    store.audit().unwrap();
}

/// One whole pass with an index of `words`, in steps of `budget`.
fn pass<P: FrameMemory>(store: &Store<'_, P>, words: usize, budget: usize) -> Deduplicated {
    let mut index = vec![u64::MAX; words];
    let mut pass = Deduplication::new(&mut index);
    loop {
        let so_far = store.deduplicate(&mut pass, budget);
        if so_far.done {
            return so_far;
        }
    }
}

#[test]
fn every_equal_page_is_found_and_costs_nothing_more() {
    for checksums in [Checksums::On, Checksums::Off] {
        let config = Config::new(600, 64).checksums(checksums).shared(300);
        let mut lent = Lent::new(config, 256, 2);
        let store = lent.store(config);
        let (mut scratch, mut buffer, mut back) = (Scratch::new(), [0; PAGE], [0; PAGE]);
        let mut worker = store.worker(1, &mut scratch, &mut buffer).unwrap();
        let contents = contents(80);
        let mut mix = Mix::new(5);
        let mut sizes = HashMap::new();
        let mut users: HashMap<usize, u64> = HashMap::new();
        let held: Vec<usize> = (0..600).map(|_| mix.below(80) as usize).collect();
        for (slot, &which) in held.iter().enumerate() {
            let stored = worker.store(Slot::new(slot as u32), &contents[which]).unwrap();
            sizes.insert(which, stored.bytes() as u64);
            *users.entry(which).or_default() += 1;
        }
        let before = store.stats();
        let found = pass(&store, 1200, 10_000);
        store.audit().unwrap();
        let twins: u64 = users.values().map(|users| users - 1).sum();
        assert_eq!((found.looked_at, found.merged, found.unequal, found.no_number), (600, twins, 0, 0));
        let after = store.stats();
        let shared = users.values().filter(|&&users| users > 1).count() as u64;
        assert_eq!((after.pages, after.original_bytes), (before.pages, before.original_bytes));
        assert_eq!((after.shared_objects, after.shared_pages), (shared, twins + shared));
        assert_eq!(after.compressed_bytes, sizes.values().sum::<u64>(), "each object is there once");
        assert!(found.saved_bytes >= before.compressed_bytes - after.compressed_bytes);
        assert_eq!(pass(&store, 1200, 1 << 20).merged, 0, "what is shared is not shared again");
        assert!(store.used_bytes() < before.compressed_bytes);

        for (slot, &which) in held.iter().enumerate() {
            worker.load(Slot::new(slot as u32), &mut back).unwrap();
            assert!(back[..] == contents[which], "slot {slot}");
            assert!(store.contains(Slot::new(slot as u32)));
        }
        // An object goes with the last of its pages.
        for (slot, which) in held.iter().enumerate() {
            store.remove(Slot::new(slot as u32)).unwrap();
            let left = users.get_mut(which).unwrap();
            *left -= 1;
            if *left == 0 {
                sizes.remove(which);
            }
            assert_eq!(store.stats().compressed_bytes, sizes.values().sum::<u64>(), "slot {slot}");
        }
        store.audit().unwrap();
        assert_eq!((store.stats().shared_objects, store.stats().shared_pages), (0, 0));
        let memory = store.dismantle();
        assert_eq!(memory.free_frames(), memory.frames());
    }
}

#[test]
fn a_small_index_and_few_numbers_find_less_and_break_nothing() {
    for (words, shared) in [(0, 100), (1, 100), (7, 100), (64, 100), (1024, 0), (1024, 1), (1024, 3)] {
        let config = Config::new(200, 64).shared(shared);
        let mut lent = Lent::new(config, 256, 1);
        let store = lent.store(config);
        let (mut scratch, mut buffer, mut back) = (Scratch::new(), [0; PAGE], [0; PAGE]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        let contents = contents(50);
        for slot in 0..200 {
            worker.store(Slot::new(slot), &contents[slot as usize / 2 % 50]).unwrap();
        }
        let found = pass(&store, words, 5000);
        store.audit().unwrap();
        assert_eq!(found.merged == 0, words == 0 || shared == 0, "{words} {shared}: {found:?}");
        assert_eq!(found.no_number > 0, words == 1024, "{words} {shared}: {found:?}");
        assert!(store.stats().shared_objects <= u64::from(shared));
        if shared == 3 {
            assert_eq!((store.stats().shared_pages, store.stats().shared_objects), (12, 3));
        }
        for slot in 0..200 {
            worker.load(Slot::new(slot), &mut back).unwrap();
            assert!(back[..] == contents[slot as usize / 2 % 50]);
        }
    }
    assert_eq!(
        Config::new(10, 4).shared(11).words(),
        Err(ConfigError::TooManyShared { shared: 11, slots: 10 })
    );
    assert_eq!(Config::new(10, 4).shared(5).words().unwrap(), Config::new(10, 4).words().unwrap() + 10);
}

/// Two objects whose checksums, lengths and tags agree, and whose bytes do not: only a store that compares tells them apart.
#[test]
fn what_only_seems_equal_is_not_shared() {
    let config = Config::new(4, 4).shared(2);
    let mut lent = Lent::new(config, 16, 1);
    let (store, base) = lent.damageable(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let tag = Tag::plain(Codec::Fast);
    for slot in 0..2 {
        worker.store_encoded(Slot::new(slot), tag, &[7; 200]).unwrap();
    }
    // The second object lies behind the seven granules of the first. Its checksum stays.
    lent::flip(base, 7 * 32, 1);
    let found = pass(&store, 64, 1000);
    assert_eq!((found.merged, found.unequal), (0, 1));
    lent::flip(base, 0, 1);
    let found = pass(&store, 64, 1000);
    assert_eq!((found.merged, found.damaged), (0, 1), "equally damaged is not shared either");
    store.audit().unwrap();
    lent::flip(base, 0, 1);
    lent::flip(base, 7 * 32, 1);
    assert_eq!(pass(&store, 64, 1000).merged, 1);
    // Damage of a shared object is an error of each of its pages, and of no other.
    lent::flip(base, 0, 1);
    for slot in 0..2 {
        let loaded = worker.load(Slot::new(slot), &mut [0; PAGE]);
        assert!(matches!(loaded, Err(LoadError::Damaged { damage: Damage::Checksum, .. })), "{loaded:?}");
    }
    store.audit().unwrap();
}

#[test]
fn a_shared_object_ages_is_written_back_and_encoded_anew_as_one() {
    let config = Config::new(16, 8).shared(8);
    let mut lent = Lent::new(config, 32, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer, mut room) = (Scratch::new(), [0; PAGE], [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let page = &contents(1)[0];
    for slot in 0..5 {
        worker.store(Slot::new(slot), page).unwrap();
    }
    assert_eq!(pass(&store, 64, 1000).merged, 4);
    store.grow_older(0..16);
    store.grow_older(0..16);
    assert!((0..5).all(|slot| store.age(Slot::new(slot)) == Some(2)));
    pass(&store, 64, 1000);
    assert_eq!(store.age(Slot::new(3)), Some(2), "to be looked at is no use");
    let how = Recompression { ladder: Ladder::STANDARD, temperature: Temperature::Cold, min_age: 2 };
    let before = store.stats().compressed_bytes;
    let swept = worker.recompress(0..16, how, &mut room).unwrap();
    assert_eq!(swept.done, 1, "once for all of its pages");
    assert!(store.stats().compressed_bytes < before);
    worker.load(Slot::new(4), &mut room).unwrap();
    assert_eq!((&room[..], store.age(Slot::new(0))), (&page[..], Some(0)));
    let mut written = Vec::new();
    let mut decoder = Scratch::new();
    let swept = worker.write_back(1..16, 0, |slot, tag, bytes| {
        let mut back = [0; PAGE];
        decode(tag, bytes, &mut back, &mut decoder).unwrap();
        assert!(back[..] == page[..]);
        written.push(slot.get());
        if slot.get() == 2 { WriteBack::Keep } else { WriteBack::Written }
    });
    assert_eq!((written, swept.done, swept.saved_bytes), (vec![1, 2, 3, 4], 3, 0));
    store.audit().unwrap();
    let swept = worker.write_back(0..16, 0, |_, _, _| WriteBack::Written);
    assert_eq!((swept.done, swept.saved_bytes > 0), (2, true), "the last page takes the object with it");
    assert_eq!(store.stats().pages, 0);
    store.audit().unwrap();
}

/// All that a store can do, in random order, with few contents for many slots.
#[test]
fn sharing_agrees_with_the_model_whatever_else_is_done() {
    for seed in 1..=4 {
        println!("seed {seed}");
        let config = Config::new(120, 24).shared(20);
        let mut lent = Lent::new(config, 96, 2);
        let store = lent.store(config);
        let (mut scratch, mut buffer, mut room) = (Scratch::new(), [0; PAGE], [0; PAGE]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        let contents = contents(40);
        let mut mix = Mix::new(seed);
        let mut model: Vec<Option<usize>> = vec![None; 120];
        let mut index = vec![0; 256];
        let (mut dedup, mut compaction) = (Deduplication::new(&mut index), Compaction::new());
        let (mut merged, mut elsewhere) = (0, HashMap::new());
        let steps = if cfg!(debug_assertions) { 3_000 } else { 20_000 };
        for step in 0..steps {
            let number = mix.below(120) as usize;
            let slot = Slot::new(number as u32);
            match mix.below(16) {
                0..5 => {
                    let most = mix.below(40) + 1;
                    let which = mix.below(most) as usize;
                    match worker.store(slot, &contents[which]) {
                        Ok(_) => model[number] = Some(which),
                        Err(StoreError::Full { .. }) => {}
                        Err(error) => panic!("step {step}: {error}"),
                    }
                }
                5..7 => {
                    assert_eq!(worker.remove(slot).is_ok(), model[number].take().is_some(), "step {step}")
                }
                7..11 => {
                    let so_far = store.deduplicate(&mut dedup, 3_000);
                    if so_far.done {
                        merged += so_far.merged;
                        assert_eq!(so_far.damaged + so_far.unequal, 0);
                        // The old index may be used again as it is.
                        dedup = Deduplication::new(&mut index);
                    }
                }
                11 => {
                    if worker.compact(&mut compaction, 20_000).done {
                        compaction = Compaction::new();
                    }
                }
                12 => {
                    let temperature = if step % 2 == 0 { Temperature::Warm } else { Temperature::Cold };
                    let how = Recompression { ladder: Ladder::STANDARD, temperature, min_age: 3 };
                    worker.recompress(slot.get()..slot.get() + 8, how, &mut room).unwrap();
                }
                13 => {
                    let range = slot.get()..slot.get() + 2;
                    worker.write_back(range, 5, |slot, tag, bytes| {
                        elsewhere.insert(slot.get(), (tag, bytes.to_vec()));
                        WriteBack::Written
                    });
                    let gone = elsewhere.drain().filter(|(slot, _)| !store.contains(Slot::new(*slot)));
                    for (slot, (tag, bytes)) in gone.collect::<Vec<_>>() {
                        let which = model[slot as usize].take().expect("what is written back was there");
                        decode(tag, &bytes, &mut room, &mut Scratch::new()).unwrap();
                        assert!(
                            room[..] == contents[which],
                            "step {step}: slot {slot} was written back wrong"
                        );
                    }
                }
                14 => store.grow_older(0..120),
                _ => drop(store.trim(4)),
            }
            match (worker.load(slot, &mut room), model[number]) {
                (Ok(()), Some(which)) => assert!(room[..] == contents[which], "step {step}: {slot:?}"),
                (Err(LoadError::NotStored { .. }), None) => {}
                (got, _) => panic!("step {step}: {got:?}"),
            }
            if step % 50 == 0 {
                store.audit().unwrap_or_else(|error| panic!("step {step}: {error}"));
            }
        }
        assert!(merged > 100, "{merged}");
        store.audit().unwrap();
        let memory = store.dismantle();
        assert_eq!(memory.free_frames(), memory.frames(), "frames were lost");
    }
}

/// Threads that share, replace, remove, load and move the same pages. Each slot's contents say which slots may hold them.
#[test]
fn threads_that_share_and_leave_see_whole_pages_of_their_slots() {
    const SLOTS: u32 = 24;
    let config = Config::new(SLOTS, 24).shared(6);
    let mut lent = Lent::new(config, 96, 2);
    let store = lent.store(config);
    let contents = contents(6);
    let (stop, merged) = (AtomicBool::new(false), AtomicU64::new(0));
    let rounds = match (cfg!(miri), cfg!(debug_assertions)) {
        (true, _) => 60,
        (_, true) => 4_000,
        (_, false) => 40_000,
    };
    std::thread::scope(|scope| {
        let (store, contents, stop, merged) = (&store, &contents, &stop, &merged);
        scope.spawn(move || {
            let mut index = vec![0; 64];
            let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
            let mut worker = store.worker(1, &mut scratch, &mut buffer).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let mut pass = Deduplication::new(&mut index);
                while !store.deduplicate(&mut pass, 5_000).done {}
                merged.fetch_add(store.deduplicate(&mut pass, 1).merged, Ordering::Relaxed);
                let mut pass = Compaction::new();
                while !worker.compact(&mut pass, 50_000).done {}
            }
        });
        let changers: Vec<_> = (0..2)
            .map(|thread| {
                scope.spawn(move || {
                    let mut mix = Mix::new(thread + 1);
                    let (mut scratch, mut buffer, mut back) = (Scratch::new(), [0; PAGE], [0; PAGE]);
                    let mut worker = store.worker(thread as usize, &mut scratch, &mut buffer).unwrap();
                    for round in 0..rounds {
                        let slot = Slot::new(mix.below(u64::from(SLOTS)) as u32);
                        // A slot holds one of two contents, which other slots hold, too.
                        let which = |odd: u64| (slot.get() % 3) as usize * 2 + odd as usize;
                        match mix.below(4) {
                            0 => match worker.store(slot, &contents[which(mix.below(2))]) {
                                Ok(_) | Err(StoreError::Busy { .. }) => {}
                                Err(error) => panic!("round {round}: {error}"),
                            },
                            1 => drop(store.remove(slot)),
                            _ => match worker.load(slot, &mut back) {
                                Ok(()) => {
                                    let right = (0..2).any(|odd| back[..] == contents[which(odd)]);
                                    assert!(right, "round {round}: {slot:?} held a page of another");
                                }
                                Err(LoadError::NotStored { .. } | LoadError::Busy { .. }) => {}
                                Err(error) => panic!("round {round}: {error}"),
                            },
                        }
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = changers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    store.audit().unwrap();
    println!("{} pages were merged", merged.load(Ordering::Relaxed));
    // Once nobody interferes, a pass finds what is left, whatever the threads came to.
    pass(&store, 64, 1 << 20);
    store.audit().unwrap();
    let memory = store.dismantle();
    assert_eq!(memory.free_frames(), memory.frames(), "frames were lost");
}
