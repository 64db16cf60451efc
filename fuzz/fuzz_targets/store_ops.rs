//! Any sequence of store operations agrees with a map, and leaves a clean audit.
#![no_main]

#[path = "../pages.rs"]
mod pages;

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use pages::{PAGE, page};
use pnode_compress::codec::{Codec, Ladder, Scratch, Tag, Temperature};
use pnode_compress::memory::{BufferFrames, PageBytes};
use pnode_compress::store::{
    Compaction, Config, LoadError, Recompression, RemoveError, Shard, Slot, Store, StoreError, WriteBack,
};
use pnode_core::sync::AtomicU64;

const SLOTS: u32 = 48;

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(u64::MAX)).collect()
}

fuzz_target!(|input: &[u8]| {
    let config = Config::new(SLOTS, 8);
    let (mut pages, mut taken) = (vec![PageBytes::ZEROED; 30], words(1));
    let (mut metadata, mut shards) =
        (words(config.words().unwrap()), [Shard::<pnode_core::sync::SpinLock>::new(), Shard::new()]);
    let memory = BufferFrames::new(&mut pages, &mut taken).unwrap();
    let store = Store::new(config, memory, &mut metadata, &mut shards).unwrap();
    let mut model: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut pass = Compaction::new();
    let mut spare = vec![0; PAGE];
    for op in input.chunks_exact(4) {
        let (mut scratch, mut buffer) = (Box::new(Scratch::new()), vec![0; PAGE]);
        let mut worker = store.worker(usize::from(op[0] >> 7), &mut scratch, &mut buffer).unwrap();
        let slot = u32::from(op[1]) % (SLOTS + 1);
        let id = Slot::new(slot);
        match op[0] & 0x7f {
            0..60 => {
                let page = page(op[2], op[3]);
                match worker.store(id, &page) {
                    Ok(_) => drop(model.insert(slot, page)),
                    Err(StoreError::Full { .. }) => {}
                    Err(StoreError::NoSlot { .. }) => assert_eq!(slot, SLOTS),
                    Err(error) => panic!("{error}"),
                }
            }
            60..90 => match worker.remove(id) {
                Ok(()) => assert!(model.remove(&slot).is_some()),
                Err(RemoveError::NotStored { .. }) => assert!(!model.contains_key(&slot)),
                Err(_) => assert_eq!(slot, SLOTS),
            },
            90..100 => {
                if worker.compact(&mut pass, usize::from(op[2]) * 100).done {
                    pass = Compaction::new();
                }
            }
            100..106 => store.grow_older(0..slot),
            106..112 => {
                let how = Recompression {
                    ladder: Ladder::STANDARD,
                    temperature: [Temperature::Warm, Temperature::Cold][usize::from(op[2] >> 7)],
                    min_age: op[2] & 7,
                };
                worker.recompress(0..slot, how, &mut spare).unwrap();
            }
            112..116 => {
                worker.write_back(slot..slot + 4, op[2] & 7, |slot, _, _| {
                    model.remove(&slot.get());
                    WriteBack::Written
                });
            }
            116..120 => store.set_limit(u32::from(op[2]) % 10),
            120..124 => drop(store.trim(op[2].into())),
            _ => {
                // Whatever is stored as an object comes back as an error or a page.
                let _ = worker.store_encoded(id, Tag::plain(Codec::Fast), &input[..input.len().min(PAGE)]);
                let _ = worker.load(id, &mut spare);
                let _ = worker.remove(id);
                model.remove(&slot);
            }
        }
        match worker.load(id, &mut spare) {
            Ok(()) => assert!(model.get(&slot).is_some_and(|page| *page == spare)),
            Err(LoadError::NotStored { .. }) => assert!(!model.contains_key(&slot)),
            Err(LoadError::NoSlot { .. }) => assert_eq!(slot, SLOTS),
            Err(error) => panic!("{error}"),
        }
    }
    store.audit().unwrap();
    assert_eq!(store.stats().pages, model.len() as u64);
    let memory = store.dismantle();
    assert_eq!(memory.free_frames(), memory.frames());
});
