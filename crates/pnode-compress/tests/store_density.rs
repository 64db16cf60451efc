//! How well the store packs, on sizes of real page contents, beside a model of zsmalloc on the very same sizes.
//!
//! Everything here is deterministic, so the bounds are asserted as they are. `--nocapture` prints the table.

#[path = "support/lent.rs"]
mod lent;
#[path = "support/sizes.rs"]
mod sizes;
#[path = "support/synth.rs"]
mod synth;
#[path = "support/zsmalloc.rs"]
mod zsmalloc;

use lent::Lent;
use pnode_compress::codec::{Codec, Scratch, Tag};
use pnode_compress::memory::BufferFrames;
use pnode_compress::store::{BlockSize, Compaction, Config, Slot, Store, Worker};
use sizes::{ALL, HEAP, Quantiles, TEXT, draw};
use synth::Mix;
use zsmalloc::Zsmalloc;

const TAG: Tag = Tag::plain(Codec::Fast);
const BYTES: [u8; 4096] = [0x5a; 4096];

/// Replacements of each page: ten as the figures say; two in a debug build, which shows the same and is quicker.
const REPLACEMENTS: usize = if cfg!(debug_assertions) { 2 } else { 10 };

/// A store and the model, fed the same sizes.
struct Pair<'s, 'm> {
    worker: Worker<'s, 'm, BufferFrames<'m>>,
    model: Zsmalloc,
    mix: Mix,
}

impl<'s, 'm> Pair<'s, 'm> {
    fn store(&mut self, slot: u32, quantiles: &Quantiles) {
        let size = draw(&mut self.mix, quantiles);
        self.worker.store_encoded(Slot::new(slot), TAG, &BYTES[..size]).unwrap();
        self.model.store(slot, size);
    }

    fn remove(&mut self, slot: u32) {
        self.worker.remove(Slot::new(slot)).unwrap();
        self.model.remove(slot);
    }

    fn shared(&self) -> &'s Store<'m, BufferFrames<'m>> {
        self.worker.shared()
    }

    fn ratio(&self) -> f64 {
        self.shared().trim(usize::MAX);
        let stats = self.shared().stats();
        stats.pool_bytes as f64 / stats.compressed_bytes as f64
    }

    #[track_caller]
    fn check(&self, what: &str, bound: f64) {
        let ratio = self.ratio();
        println!("  {what:44} {ratio:.4} (bound {bound}), zsmalloc {:.4}", self.model.ratio());
        assert!(ratio <= bound, "{what}: {ratio} pool bytes for a payload byte, more than {bound}");
    }

    /// One pass of compaction in small steps. Returns the share of the live bytes that it moved.
    fn compact(&mut self) -> f64 {
        let live = self.shared().stats().compressed_bytes;
        let mut pass = Compaction::new();
        let moved = loop {
            let progress = self.worker.compact(&mut pass, 10_000);
            if progress.done {
                break progress.moved_bytes;
            }
        };
        self.shared().audit().unwrap();
        moved as f64 / live as f64
    }
}

fn with_pair(config: Config, shards: usize, test: impl FnOnce(&mut Pair<'_, '_>)) {
    println!("{config:?}, {shards} shard(s)");
    let mut lent = Lent::new(config, 9216, shards);
    let store = lent.store(config);
    let (mut scratch, mut buffer) = (Scratch::new(), [0; 4096]);
    let worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    test(&mut Pair { worker, model: Zsmalloc::new(), mix: Mix::new(3) });
    store.audit().unwrap();
}

const KIB16: Config = Config::new(12_000, 2304);

#[test]
fn fresh_and_under_replacement() {
    for config in [KIB16, Config::new(12_000, 576).block(BlockSize::KIB64)] {
        with_pair(config, 1, |pair| {
            (0..2000).for_each(|slot| pair.store(slot, &ALL));
            pair.check("2,000 objects, fresh", 1.04);
            (2000..12_000).for_each(|slot| pair.store(slot, &ALL));
            pair.check("12,000 objects, fresh", 1.02);
            for _ in 0..12_000 * REPLACEMENTS {
                let slot = pair.mix.below(12_000) as u32;
                pair.store(slot, &ALL);
            }
            pair.check(&format!("after {REPLACEMENTS} replacements of each, nothing moved"), 1.05);
        });
    }
}

#[test]
fn half_freed_and_compacted() {
    with_pair(KIB16, 1, |pair| {
        (0..12_000).for_each(|slot| pair.store(slot, &ALL));
        // Replacement leaves slivers between the objects, which make it harder.
        for _ in 0..6_000 * REPLACEMENTS {
            let slot = pair.mix.below(12_000) as u32;
            pair.store(slot, &ALL);
        }
        for slot in 0..12_000 {
            if pair.mix.below(2) == 0 {
                pair.remove(slot);
            }
        }
        pair.check("half freed", 2.2);
        let moved = pair.compact();
        println!("  moved {moved:.3} of the live bytes");
        pair.check("half freed, then compacted", 1.03);
        assert!(moved <= 0.5, "{moved} of the live bytes were moved");
        // There is nothing left to win, and the store knows.
        let again = pair.compact();
        assert!(again < 0.05, "a second pass moved {again} of the live bytes");
    });
}

#[test]
fn another_phase_with_other_sizes() {
    with_pair(KIB16, 1, |pair| {
        (0..6000).for_each(|slot| pair.store(slot, &TEXT));
        let freed: Vec<u32> = (0..6000).filter(|_| pair.mix.below(2) == 0).collect();
        freed.iter().for_each(|&slot| pair.remove(slot));
        let live = 6000 - freed.len() as u32;
        (6000..6000 + live).for_each(|slot| pair.store(slot, &HEAP));
        pair.check("text half freed, then a heap", 1.40);
        let moved = pair.compact();
        pair.check("the same, compacted", 1.05);
        println!("  moved {moved:.3} of the live bytes");
    });
}

#[test]
fn metadata_counts_too() {
    // As many blocks as the pages need, and two more.
    let mut bytes = 0;
    let mut mix = Mix::new(3);
    (0..12_000).for_each(|_| bytes += draw(&mut mix, &ALL) + 20);
    let config = Config::new(12_000, (bytes / 16_384 + bytes / 16_384 / 20) as u32);
    with_pair(config, 1, |pair| {
        (0..12_000).for_each(|slot| pair.store(slot, &ALL));
        for _ in 0..6_000 * REPLACEMENTS {
            let slot = pair.mix.below(12_000) as u32;
            pair.store(slot, &ALL);
        }
        let ratio = pair.ratio();
        let stats = pair.shared().stats();
        let a_page = stats.metadata_bytes as f64 / stats.pages as f64;
        let all_in = (stats.pool_bytes + stats.metadata_bytes) as f64 / stats.compressed_bytes as f64;
        println!("  pool {ratio:.4}, metadata {a_page:.2} bytes a page, all in {all_in:.4}");
        assert!(a_page <= 20.0, "{a_page} bytes of metadata a page");
        assert!(all_in <= 1.06, "{all_in} bytes in all for a payload byte");
    });
}

#[test]
fn four_shards_pack_a_little_worse() {
    with_pair(KIB16, 4, |pair| {
        (0..12_000).for_each(|slot| pair.store(slot, &ALL));
        for _ in 0..6_000 * REPLACEMENTS {
            let slot = pair.mix.below(12_000) as u32;
            pair.store(slot, &ALL);
        }
        pair.check("one worker of four shards", 1.10);
    });
}
