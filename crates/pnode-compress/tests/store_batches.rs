//! A batch does to each page what the call for one page does, and says so in order.

#[path = "support/lent.rs"]
mod lent;
#[path = "support/synth.rs"]
mod synth;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lent::Lent;
use pnode_compress::codec::{Codec, Scratch, Tag, encode};
use pnode_compress::store::{
    Checksums, Config, Incoming, LoadError, RemoveError, Slot, Store, StoreError, Stored, Worker,
};

const PAGE: usize = 4096;

fn pages(count: usize) -> Vec<u8> {
    ["slab", "random", "zero", "json"]
        .iter()
        .flat_map(|kind| synth::corpus(kind, count.div_ceil(4)))
        .take(count * PAGE)
        .collect()
}

/// Runs `test` with a worker of a store of `config` over `frames` frames.
fn with_worker<R>(
    config: Config,
    frames: usize,
    test: impl FnOnce(&mut Worker<'_, '_, pnode_compress::memory::BufferFrames<'_>>) -> R,
) -> R {
    let mut lent = Lent::new(config, frames, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let result = test(&mut store.worker(0, &mut scratch, &mut buffer).unwrap());
    store.audit().unwrap();
    let memory = store.dismantle();
    assert_eq!(memory.free_frames(), memory.frames(), "frames were lost");
    result
}

/// A store that is called in batches, and a map of what it should hold, under a random load.
#[test]
fn batches_agree_with_a_map() {
    for checksums in [Checksums::On, Checksums::Off] {
        // Short of memory, so that pages are refused now and then.
        let config = Config::new(40, 4).checksums(checksums);
        let pages = pages(64);
        let (mut full, mut model) = (0, HashMap::<u32, &[u8]>::new());
        with_worker(config, 16, |worker| {
            let mut mix = synth::Mix::new(5);
            for round in 0..400 {
                // One slot past the end, slots twice, and pages that are too short.
                let mut any_slot = || Slot::new(mix.below(41) as u32);
                let slots: [Slot; 8] = core::array::from_fn(|_| any_slot());
                let load: Vec<(Slot, &[u8])> = (0..mix.below(9))
                    .map(|_| {
                        let page = mix.below(64) as usize * PAGE;
                        let short = usize::from(mix.below(20) == 0);
                        (Slot::new(mix.below(41) as u32), &pages[page..page + PAGE - short])
                    })
                    .collect();
                let mut outcomes = Vec::new();
                worker.store_batch(load.iter().copied(), |slot, stored| outcomes.push((slot, stored)));
                assert_eq!(outcomes.len(), load.len(), "round {round}");
                for (&(slot, page), (told, outcome)) in load.iter().zip(outcomes) {
                    assert_eq!(slot, told, "round {round}");
                    match outcome {
                        Ok(_) => drop(model.insert(slot.get(), page)),
                        Err(StoreError::Full { .. }) => full += 1,
                        Err(StoreError::NoSlot { .. }) => assert_eq!(slot.get(), 40, "round {round}"),
                        Err(error) => assert_eq!(page.len(), PAGE - 1, "round {round}: {error}"),
                    }
                }
                let mut loaded = vec![[0x77; PAGE]; slots.len()];
                let places = loaded.iter_mut().map(|page| &mut page[..]);
                let mut outcomes = Vec::new();
                worker
                    .load_batch(slots.into_iter().zip(places), |slot, loaded| outcomes.push((slot, loaded)));
                for ((slot, page), outcome) in slots.into_iter().zip(&loaded).zip(outcomes) {
                    let held = model.get(&slot.get()).ok_or(match slot.get() {
                        40 => LoadError::NoSlot { slot },
                        _ => LoadError::NotStored { slot },
                    });
                    assert_eq!(outcome, (slot, held.map(|_| ())), "round {round}");
                    assert!(*page == *held.copied().unwrap_or(&[0x77; PAGE]), "round {round}: {slot:?}");
                }
                if round % 3 == 0 {
                    worker.shared().remove_batch(slots, |slot, removed| {
                        let held = model.remove(&slot.get()).ok_or(match slot.get() {
                            40 => RemoveError::NoSlot { slot },
                            _ => RemoveError::NotStored { slot },
                        });
                        assert_eq!(removed, held.map(|_| ()), "round {round}");
                    });
                }
                assert_eq!(worker.shared().stats().pages, model.len() as u64, "round {round}");
            }
        });
        assert!(full > 10, "the store was never full");
    }
}

#[test]
fn a_batch_takes_pages_that_were_encoded_elsewhere() {
    let pages = pages(8);
    with_worker(Config::new(16, 4), 16, |worker| {
        let (mut scratch, mut out) = (Scratch::new(), [0; PAGE]);
        let object = encode(&pages[..PAGE], &mut out, &mut scratch).unwrap();
        let encoded = Incoming::Encoded(object.tag(), &out[..object.len()]);
        let raw = Incoming::Encoded(Tag::plain(Codec::Raw), &pages[PAGE..2 * PAGE]);
        let batch = [
            (Slot::new(0), encoded),
            (Slot::new(1), raw),
            (Slot::new(2), Incoming::Page(&pages[2 * PAGE..3 * PAGE])),
            (Slot::new(3), Incoming::Encoded(Tag::plain(Codec::Fast), &[])),
        ];
        let mut stored = Vec::new();
        worker.store_batch(batch, |_, outcome| stored.push(outcome.map(Stored::bytes)));
        assert_eq!(stored[..2], [Ok(object.len()), Ok(PAGE)]);
        assert!(matches!(stored[3], Err(StoreError::PageLength { bytes: 0, .. })));
        for (slot, page) in pages.chunks_exact(PAGE).take(3).enumerate() {
            worker.load(Slot::new(slot as u32), &mut out).unwrap();
            assert!(page == out, "slot {slot}");
        }
    });
}

#[test]
fn a_page_finds_the_room_of_the_one_that_was_replaced_before_it() {
    // Three raw pages fill the only block.
    let pages = synth::corpus("random", 6);
    with_worker(Config::new(8, 1), 4, |worker| {
        let raw = |slot: u32| (Slot::new(slot), &pages[slot as usize * PAGE..][..PAGE]);
        worker.store_batch((0..3).map(raw), |_, stored| assert!(stored.is_ok()));
        let small = &[7u8, 9].repeat(PAGE / 2)[..];
        let text = b"a line in a log\n".repeat(PAGE / 16);
        let mut outcomes = Vec::new();
        // The first makes room that only the second needs.
        let batch = [(Slot::new(0), &text[..]), raw(3), raw(4), (Slot::new(5), small)];
        worker.store_batch(batch, |slot, stored| outcomes.push((slot.get(), stored.is_ok())));
        assert_eq!(outcomes, [(0, true), (3, true), (4, false), (5, true)]);
    });
}

#[test]
fn a_closure_that_panics_loses_no_room() {
    let pages = pages(8);
    let batch = || (0..).map(Slot::new).zip(pages.chunks_exact(PAGE));
    with_worker(Config::new(16, 4), 16, |worker| {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            worker.store_batch(batch(), |slot, _| assert!(slot.get() < 3, "told to"));
        }));
        assert!(panicked.is_err());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let slots = batch().inspect(|(slot, _)| assert!(slot.get() < 6, "told to"));
            worker.store_batch(slots, |_, _| {});
        }));
        assert!(panicked.is_err());
        worker.shared().audit().unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            worker.shared().remove_batch((0..4).map(Slot::new), |slot, _| assert!(slot.get() < 2, "told to"));
        }));
        assert!(panicked.is_err());
        // What was removed before is counted, too.
        worker.shared().audit().unwrap();
    });
}

#[test]
fn a_batch_of_nothing_is_nothing() {
    with_worker(Config::new(16, 4), 16, |worker| {
        worker.store_batch(core::iter::empty::<(Slot, &[u8])>(), |_, _| panic!("nothing was stored"));
        worker.load_batch(core::iter::empty(), |_, _: Result<(), LoadError>| panic!("nothing was loaded"));
        let store: &Store<'_, _> = worker.shared();
        store.remove_batch([], |_, _: Result<(), RemoveError>| panic!("nothing was removed"));
    });
}
