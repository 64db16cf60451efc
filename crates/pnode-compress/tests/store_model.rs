//! The store against a naive model: same answers, same pages, exact counters, and a clean audit.

#[path = "support/lent.rs"]
mod lent;
#[path = "support/synth.rs"]
mod synth;

use lent::Lent;
use pnode_compress::codec::{Codec, Scratch, Tag};
use pnode_compress::store::{
    AuditError, BlockSize, Checksums, Compaction, Config, ConfigError, Damage, LoadError, RemoveError, Shard,
    Slot, StoreError, WorkerError,
};
use pnode_core::PageSize;
use synth::Mix;

const PAGE: usize = 4096;

/// Pages of every sort: same-filled, well and badly compressible, random, nearly empty.
fn page(mix: &mut Mix) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    match mix.below(6) {
        0 => page.fill(mix.next() as u8),
        1 => {
            let word = mix.next().to_ne_bytes();
            page.chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&word));
        }
        2 => page.iter_mut().for_each(|byte| *byte = mix.next() as u8),
        3 => page[mix.below(PAGE as u64) as usize] = 1,
        _ => {
            let noise = mix.below(PAGE as u64) as usize;
            page[..noise].iter_mut().for_each(|byte| *byte = mix.next() as u8);
            page[noise..].iter_mut().enumerate().for_each(|(i, byte)| *byte = (i / 7) as u8);
        }
    }
    page
}

/// Stores, loads and removals in random order, with the pool full some of the time.
fn run(config: Config, frames: usize, shards: usize, steps: usize, seed: u64) {
    println!("seed {seed}, {config:?}");
    let size = config_page(config);
    let mut lent = Lent::new(config, frames, shards);
    let store = lent.store(config);
    let (mut scratches, mut buffers) =
        ((0..shards).map(|_| Scratch::new()).collect::<Vec<_>>(), vec![vec![0; size]; shards]);
    let mut workers: Vec<_> = scratches
        .iter_mut()
        .zip(&mut buffers)
        .enumerate()
        .map(|(i, (scratch, buffer))| store.worker(i, scratch, buffer).unwrap())
        .collect();

    let mut mix = Mix::new(seed);
    let mut model: Vec<Option<Vec<u8>>> = vec![None; store.slots() as usize];
    let (mut full, mut back) = (0, vec![0; size]);
    for step in 0..steps {
        let slot = mix.below(u64::from(store.slots())) as usize;
        let id = Slot::new(slot as u32);
        let worker = &mut workers[mix.below(shards as u64) as usize];
        match mix.below(10) {
            0..5 => {
                let page: Vec<u8> = (0..size / PAGE).flat_map(|_| page(&mut mix)).collect();
                match worker.store(id, &page) {
                    Ok(stored) => {
                        assert!(stored.bytes() <= size);
                        model[slot] = Some(page);
                    }
                    Err(StoreError::Full { .. }) => full += 1,
                    Err(error) => panic!("step {step}: {error}"),
                }
            }
            5..7 => {
                let expected = if model[slot].take().is_some() {
                    Ok(())
                } else {
                    Err(RemoveError::NotStored { slot: id })
                };
                assert_eq!(worker.remove(id), expected, "step {step}");
            }
            _ => {}
        }
        let expected = model[slot].as_ref();
        assert_eq!(store.contains(id), expected.is_some(), "step {step}");
        match (worker.load(id, &mut back), expected) {
            (Ok(()), Some(page)) => assert!(*page == back, "step {step}: {id:?} holds another page"),
            (Err(LoadError::NotStored { slot }), None) if slot == id => {}
            (got, _) => panic!("step {step}: {got:?}"),
        }
        if step % 97 == 0 {
            store.audit().unwrap_or_else(|error| panic!("step {step}: {error}"));
        }
    }
    drop(workers);
    let stored = model.iter().flatten().count() as u64;
    assert_eq!(store.stats().pages, stored);
    assert_eq!(store.stats().original_bytes, stored * size as u64);
    assert!(full > 0, "the pool was never full, so nothing was refused");
    let memory = store.dismantle();
    assert_eq!(memory.free_frames(), memory.frames(), "frames were lost");
}

fn config_page(config: Config) -> usize {
    // A config does not tell; these are the ones of the tests.
    if format!("{config:?}").contains("page: 64 KiB") { 65536 } else { PAGE }
}

#[test]
fn one_worker_agrees_with_the_model() {
    run(Config::new(300, 16), 4 * 16, 1, 4_000, 1);
}

#[test]
fn several_shards_and_no_checksums_agree_with_the_model() {
    run(Config::new(300, 16).checksums(Checksums::Off), 4 * 16, 3, 3_000, 2);
}

#[test]
fn large_pages_in_large_blocks_agree_with_the_model() {
    run(Config::new(60, 4).page(PageSize::KIB64).block(BlockSize::KIB128), 32 * 4, 2, 400, 3);
    run(Config::new(300, 4).block(BlockSize::KIB64), 16 * 4, 1, 2_000, 4);
}

#[test]
fn frames_that_run_out_before_blocks_are_refused_cleanly() {
    run(Config::new(300, 40), 4 * 14 + 3, 2, 2_000, 5);
}

#[test]
fn a_lower_limit_refuses_growth_and_takes_nothing_away() {
    let config = Config::new(64, 16);
    let mut lent = Lent::new(config, 64, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let pages = synth::corpus("random", 64);
    let mut pages = pages.chunks_exact(PAGE);
    // Four raw pages a block: their checksums do not lie behind them.
    for slot in 0..8 {
        worker.store(Slot::new(slot), pages.next().unwrap()).unwrap();
    }
    assert_eq!(store.stats().pool_bytes, 2 * 16384);
    store.set_limit(1);
    let page = pages.next().unwrap();
    assert_eq!(worker.store(Slot::new(8), page), Err(StoreError::Full { bytes: PAGE }));
    assert_eq!(store.stats().pages, 8);
    worker.remove(Slot::new(0)).unwrap();
    worker.store(Slot::new(8), page).expect("a hole is not growth");
    store.set_limit(16);
    worker.store(Slot::new(9), page).expect("the limit was raised");
    store.audit().unwrap();
}

#[test]
fn every_flipped_byte_is_noticed_and_hurts_no_other_page() {
    let config = Config::new(32, 8);
    let mut lent = Lent::new(config, 32, 1);
    let (store, base) = lent.damageable(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    // The raw ones begin between the granules of frames, and so have their checksums at any place.
    let pages = [synth::corpus("slab", 5), synth::corpus("random", 5)].concat();
    let pages: Vec<_> = pages.chunks_exact(PAGE).collect();
    for (slot, page) in pages.iter().enumerate() {
        worker.store(Slot::new(slot as u32), page).unwrap();
    }
    let mut back = vec![0; PAGE];
    let (mut noticed, mut spared) = (0, 0);
    for offset in (0..store.stats().pool_bytes as usize).step_by(7) {
        lent::flip(base, offset, 0x10);
        let mut damaged = 0;
        for (slot, page) in pages.iter().enumerate() {
            match worker.load(Slot::new(slot as u32), &mut back) {
                Ok(()) => assert_eq!(*page, back, "a changed byte went unnoticed"),
                Err(LoadError::Damaged { damage: Damage::Checksum, .. }) => damaged += 1,
                Err(error) => panic!("{error}"),
            }
        }
        lent::flip(base, offset, 0x10);
        assert!(damaged <= 1, "one byte hurt {damaged} pages");
        if damaged == 1 { noticed += 1 } else { spared += 1 }
    }
    assert!(noticed > 1000, "{noticed} of {} flips hit an object", noticed + spared);
    // The damage can be removed like any page.
    for slot in 0..pages.len() {
        worker.remove(Slot::new(slot as u32)).unwrap();
    }
    store.audit().unwrap();
}

#[test]
fn without_checksums_damage_is_an_error_or_a_page_but_nothing_worse() {
    let config = Config::new(32, 8).checksums(Checksums::Off);
    let mut lent = Lent::new(config, 32, 1);
    let (store, base) = lent.damageable(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    worker.store(Slot::new(0), &synth::corpus("json", 1)).unwrap();
    let mut back = vec![0; PAGE];
    let mut refused = 0;
    for offset in 0..1500 {
        for bits in [0xff, 0x80, 0x0f] {
            lent::flip(base, offset, bits);
            match worker.load(Slot::new(0), &mut back) {
                Ok(()) => {}
                Err(LoadError::Damaged { damage: Damage::Encoding(_), .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            lent::flip(base, offset, bits);
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn what_cannot_be_is_refused() {
    assert!(matches!(Config::new(0, 1).words(), Err(ConfigError::Empty { .. })));
    assert!(matches!(Config::new(1, 0).words(), Err(ConfigError::Empty { .. })));
    assert!(matches!(
        Config::new(1, 1).page(PageSize::KIB16).words(),
        Err(ConfigError::BlockTooSmall { .. })
    ));
    assert!(matches!(Config::new(1, 1 << 26).words(), Err(ConfigError::TooManyBlocks { .. })));
    let sizes = [1 << 13, 1 << 14, (1 << 14) + 32, 1 << 16, 1 << 17, 1 << 18].map(BlockSize::from_bytes);
    let (small, medium, large) = (BlockSize::KIB16, BlockSize::KIB64, BlockSize::KIB128);
    assert_eq!(sizes, [None, Some(small), None, Some(medium), Some(large), None]);

    let config = Config::new(8, 2);
    let mut lent = Lent::new(config, 8, 1);
    lent.words.pop();
    let memory = pnode_compress::memory::BufferFrames::new(&mut lent.pages, &mut lent.taken).unwrap();
    let refused = pnode_compress::store::Store::new(config, memory, &mut lent.words, &mut lent.shards);
    assert!(matches!(refused, Err(ConfigError::TooFewWords { words: 31, needed: 32 })));

    let mut lent = Lent::new(config, 8, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    assert_eq!(
        store.worker(1, &mut scratch, &mut buffer).err(),
        Some(WorkerError::NoShard { shard: 1, shards: 1 })
    );
    assert!(matches!(
        store.worker(0, &mut scratch, &mut buffer[1..]).err(),
        Some(WorkerError::BufferTooShort { bytes: 4095, needed: 4096 })
    ));
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let (beyond, page) = (Slot::new(8), [7; PAGE]);
    assert_eq!(worker.store(beyond, &page), Err(StoreError::NoSlot { slot: beyond }));
    assert_eq!(worker.load(beyond, &mut [0; PAGE]), Err(LoadError::NoSlot { slot: beyond }));
    assert_eq!(store.remove(beyond), Err(RemoveError::NoSlot { slot: beyond }));
    for bytes in [0, 8, 4095, 8192] {
        let wrong = vec![1; bytes];
        assert!(matches!(worker.store(Slot::new(0), &wrong), Err(StoreError::PageLength { .. })), "{bytes}");
        let wrong = &mut vec![1; bytes];
        assert!(matches!(worker.load(Slot::new(0), wrong), Err(LoadError::PageLength { .. })), "{bytes}");
    }
    for bytes in [0, 1, 4092, 4095, 4097] {
        let wrong = worker.store_encoded(Slot::new(0), Tag::plain(Codec::Raw), &vec![1; bytes]);
        assert!(matches!(wrong, Err(StoreError::PageLength { .. })), "{bytes}");
    }
    assert_eq!(store.audit(), Ok::<(), AuditError>(()));
}

/// A store looks at a few of the blocks in which something was freed, and at all of them before it takes a new one.
#[test]
fn a_hole_is_found_however_many_blocks_have_changed_since_it_came_to_be() {
    let config = Config::new(200, 12);
    let mut lent = Lent::new(config, 48, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let mut put = |slot, codec, len: usize| {
        worker.store_encoded(Slot::new(slot), Tag::plain(codec), &vec![1; len]).map(|_| ())
    };
    // Three raw pages and four quarters of one in each block.
    for block in 0..12 {
        (0..3).for_each(|i| put(block * 8 + i, Codec::Raw, PAGE).unwrap());
        (3..7).for_each(|i| put(block * 8 + i, Codec::Fast, 32 * 32 - 4).unwrap());
    }
    assert!(put(100, Codec::Fast, 8).is_err(), "the pool is full");
    // Looked at last: what was freed first.
    store.remove(Slot::new(0)).unwrap();
    (1..12).for_each(|block| store.remove(Slot::new(block * 8 + 3)).unwrap());
    put(100, Codec::Raw, PAGE).expect("the hole is there");
    store.audit().unwrap();
}

#[test]
fn an_empty_block_is_kept_until_it_is_asked_for() {
    let config = Config::new(8, 2);
    let mut lent = Lent::new(config, 8, 1);
    let store = lent.store(config);
    let metadata = config.words().unwrap() * 8 + size_of::<Shard>();
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    worker.store(Slot::new(0), &synth::corpus("json", 1)).unwrap();
    worker.remove(Slot::new(0)).unwrap();
    assert_eq!((store.blocks(), store.trim(0), store.blocks()), (1, 0, 1));
    assert_eq!((store.trim(9), store.blocks(), store.trim(9)), (1, 0, 0));
    assert_eq!(store.stats().metadata_bytes, metadata as u64);
}

/// A page that is kept as it is covers its own bytes and no more, whatever else the block holds, and its checksum goes
/// where it goes.
#[test]
fn raw_pages_fill_their_blocks_and_take_their_checksums_along() {
    for (page, block) in [(PageSize::KIB4, BlockSize::KIB16), (PageSize::KIB16, BlockSize::KIB128)] {
        let (size, frames) = (page.bytes(), 8 * block.bytes() / PAGE);
        let room = block.bytes() / size;
        let config = Config::new(8 * room as u32, 8).page(page).block(block);
        let mut lent = Lent::new(config, frames, 1);
        let (store, base) = lent.damageable(config);
        let (mut scratch, mut buffer, mut back) = (Scratch::new(), vec![0; size], vec![0; size]);
        let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
        let bytes = synth::corpus("random", 8 * room * size / PAGE);
        for (slot, page) in bytes.chunks_exact(size).enumerate() {
            assert_eq!(worker.store(Slot::new(slot as u32), page).unwrap().tag().codec(), Codec::Raw);
        }
        let stats = store.stats();
        assert_eq!((stats.pages as usize, stats.pool_bytes), (8 * room, stats.original_bytes));
        // One damaged byte in a page that is going to be moved, and one in a page that is not.
        let damaged = [1, 4 * room];
        damaged.iter().for_each(|slot| lent::flip(base, slot * size + size - 1, 4));
        // Of all blocks but the last four, one page is left.
        let left: Vec<usize> = (0..8 * room).filter(|slot| *slot >= 4 * room || slot % room == 1).collect();
        (0..8 * room)
            .filter(|slot| !left.contains(slot))
            .for_each(|slot| worker.remove(Slot::new(slot as u32)).unwrap());
        let mut pass = Compaction::new();
        while !worker.compact(&mut pass, 1 << 16).done {}
        assert!(store.blocks() < 8, "nothing was moved");
        for slot in left {
            let loaded = worker.load(Slot::new(slot as u32), &mut back);
            match loaded {
                Ok(()) => assert!(back == bytes[slot * size..][..size] && !damaged.contains(&slot), "{slot}"),
                Err(LoadError::Damaged { damage: Damage::Checksum, .. }) => {
                    assert!(damaged.contains(&slot), "{slot}")
                }
                Err(error) => panic!("{slot}: {error}"),
            }
        }
        store.audit().unwrap();
    }
}
