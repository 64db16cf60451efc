//! What the owner of a block wrote is over before the next one has it: threads keep plain memory in the blocks that they own.
//!
//! The words are no atomics and nothing else orders the threads, so ThreadSanitizer reports each hand-over that an order is missing
//! from (`./ci.sh tsan`); without it, a word that is not its owner's shows a block with two owners.

mod common;

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Random, times, zone};
use pnode_buddy::{Cpu, Keep, Zone};
use pnode_core::{MigrateType, Order, Pfn};

/// A word for each frame of a zone that starts at frame 0.
struct Words(Vec<UnsafeCell<u64>>);

// SAFETY: a word is used by the thread that owns its frame alone, which is what is tested.
#[allow(unsafe_code, reason = "plain memory that changes owners is what the test is about")]
unsafe impl Sync for Words {}

impl Words {
    fn of(&self, pfn: Pfn, order: Order) -> impl Iterator<Item = &UnsafeCell<u64>> {
        let start = pfn.get() as usize;
        self.0[start..start + order.frames() as usize].iter()
    }

    #[allow(unsafe_code, reason = "plain memory that changes owners is what the test is about")]
    fn write(&self, pfn: Pfn, order: Order, value: u64) {
        for word in self.of(pfn, order) {
            // SAFETY: the caller owns the block.
            unsafe { word.get().write(value) };
        }
    }

    #[allow(unsafe_code, reason = "plain memory that changes owners is what the test is about")]
    fn check(&self, pfn: Pfn, order: Order, value: u64) {
        for word in self.of(pfn, order) {
            // SAFETY: the caller owns the block.
            let found = unsafe { word.get().read() };
            assert_eq!(found, value, "a word of the block at {pfn:?}, {order:?}");
        }
    }
}

/// A block that any thread may take, in one word: 0 for none.
#[derive(Default)]
struct Parcel(AtomicU64);

impl Parcel {
    /// Leaves a block, or none, and takes what was there.
    fn swap(&self, block: Option<(Pfn, Order)>) -> Option<(Pfn, Order)> {
        let word = block.map_or(0, |(pfn, order)| (pfn.get() + 1) << 8 | u64::from(order.get()));
        // What the giver wrote is seen by the taker.
        let old = self.0.swap(word, Ordering::AcqRel);
        (old != 0).then(|| (Pfn::new((old >> 8) - 1), Order::new(old as u8).unwrap()))
    }
}

fn work(zone: &Zone<'_>, words: &Words, parcel: &Parcel, thread: u64, ops: u64, most: u8, seed: u64) {
    let mut random = Random(seed ^ thread << 32);
    let mut cpu = Cpu::new(zone, if thread % 2 == 0 { Keep::Counts } else { Keep::Frames });
    let mut mine: Vec<(Pfn, Order)> = Vec::new();
    for _ in 0..ops {
        match random.below(16) {
            0..8 => {
                let order = random.below(u64::from(most) + 1).min(random.below(u64::from(most) + 1));
                let order = Order::new(order as u8).unwrap();
                let migrate = MigrateType::ALL[random.below(3) as usize];
                let block =
                    if random.below(4) == 0 { zone.alloc(order, migrate) } else { cpu.alloc(order, migrate) };
                if let Ok(pfn) = block {
                    words.write(pfn, order, thread);
                    mine.push((pfn, order));
                }
            }
            8..15 if !mine.is_empty() => {
                let (pfn, order) = mine.swap_remove(random.below(mine.len() as u64) as usize);
                words.check(pfn, order, thread);
                words.write(pfn, order, 0);
                if random.below(4) == 0 { zone.free(pfn, order) } else { cpu.free(pfn, order) }.unwrap();
            }
            _ => {
                let given = mine.pop();
                if let Some((pfn, order)) = given {
                    words.check(pfn, order, thread);
                }
                if let Some((pfn, order)) = parcel.swap(given) {
                    words.write(pfn, order, thread);
                    mine.push((pfn, order));
                }
            }
        }
    }
    for (pfn, order) in mine {
        words.check(pfn, order, thread);
        cpu.free(pfn, order).unwrap();
    }
}

fn threads_hand_over(frames: u64, most: u8, ops: u64) {
    let seed = std::env::var("PNODE_STRESS_SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    println!("3 threads of {ops} operations on {frames} frames, seed {seed:#x}");
    let (zone, _) = zone(0, frames, &[]);
    let words = Words((0..frames).map(|_| UnsafeCell::new(0)).collect());
    let parcel = Parcel::default();
    std::thread::scope(|scope| {
        let work = |thread| {
            let (zone, words, parcel) = (&zone, &words, &parcel);
            scope.spawn(move || work(zone, words, parcel, thread, ops, most, seed))
        };
        // Joined by name: the end of a scope is in the standard library, where ThreadSanitizer does not look.
        for thread in [1, 2, 3].map(work) {
            thread.join().unwrap();
        }
    });
    if let Some((pfn, order)) = parcel.swap(None) {
        zone.free(pfn, order).unwrap();
    }
    assert_eq!(zone.audit().unwrap().free_frames, frames);
}

#[test]
fn in_one_area() {
    threads_hand_over(512, 9, times(20_000));
}

#[test]
fn in_a_few_areas_of_large_blocks() {
    threads_hand_over(4096, 11, times(10_000));
}
