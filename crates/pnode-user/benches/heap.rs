//! What an object of a `NodeHeap` costs beside one of the system's allocator.
//!
//! `cargo bench -p pnode-user --bench heap`. Each figure is the median over rounds of one run, by turns with the system's;
//! only the ratios mean something on a shared machine. Without `--bench` one short round checks that everything works.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::thread;
use std::time::Instant;

use pnode_buddy::Zone;
use pnode_compress::memory::Mapped;
use pnode_core::{FrameRange, PageSize, Pfn};
use pnode_user::NodeHeap;
use pnode_user::backing::Backing;

/// Sizes as programs have them: most are small.
fn layout(random: &mut u64) -> Layout {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let bits = (*random >> 60) % 8 + 4;
    let size = (*random >> 33) as usize % (1 << bits) + 8;
    Layout::from_size_align(size, 8).unwrap()
}

/// Allocates an object, writes to it, and says where it is.
fn take(heap: &dyn GlobalAlloc, layout: Layout) -> usize {
    // SAFETY: no layout here is empty.
    let start = unsafe { heap.alloc(layout) };
    assert!(!start.is_null());
    // SAFETY: the object has a byte.
    unsafe { start.write(1) };
    black_box(start) as usize
}

fn give(heap: &dyn GlobalAlloc, start: usize, layout: Layout) {
    // SAFETY: the callers give back each object once, with its layout.
    unsafe { heap.dealloc(start as *mut u8, layout) }
}

/// One object at a time: allocate, free.
fn pairs(heap: &dyn GlobalAlloc, operations: usize) {
    let layout = Layout::from_size_align(64, 8).unwrap();
    for _ in 0..operations {
        let start = take(heap, layout);
        give(heap, start, layout);
    }
}

/// A thousand objects of 64 bytes, freed in the order of their allocation.
fn rounds(heap: &dyn GlobalAlloc, operations: usize) {
    let layout = Layout::from_size_align(64, 8).unwrap();
    for _ in 0..operations.div_ceil(1000) {
        let objects: [usize; 1000] = std::array::from_fn(|_| take(heap, layout));
        objects.into_iter().for_each(|start| give(heap, start, layout));
    }
}

/// Four thousand objects of many sizes, of which a random one is replaced each time.
fn churn(heap: &dyn GlobalAlloc, operations: usize) {
    let mut random = 1;
    let mut objects: Vec<(usize, Layout)> = (0..4096)
        .map(|_| {
            let layout = layout(&mut random);
            (take(heap, layout), layout)
        })
        .collect();
    for _ in 0..operations {
        let layout = layout(&mut random);
        let at = (random >> 40) as usize % objects.len();
        let (start, old) = std::mem::replace(&mut objects[at], (take(heap, layout), layout));
        give(heap, start, old);
    }
    objects.into_iter().for_each(|(start, layout)| give(heap, start, layout));
}

/// The same by two threads at once.
fn churn_by_two(heap: &(dyn GlobalAlloc + Sync), operations: usize) {
    thread::scope(|scope| {
        scope.spawn(|| churn(heap, operations / 2));
        churn(heap, operations / 2);
    });
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    type Work = fn(&(dyn GlobalAlloc + Sync), usize);
    let timed = std::env::args().any(|argument| argument == "--bench");
    let (operations, turns) = if timed { (1_000_000, 9) } else { (2_000, 1) };
    let frames = 16_384;
    let backing = Backing::new(frames, PageSize::KIB4).unwrap();
    let range = FrameRange::new(Pfn::new(0), frames).unwrap();
    // SAFETY: the direct map has these frames and outlives the heap; only the zone hands them out.
    let memory =
        unsafe { Mapped::new(Zone::boxed(range, &[]).unwrap(), backing.direct_map(), range, PageSize::KIB4) };
    let heap = NodeHeap::new(memory, range).unwrap();
    let works: [(&str, Work); 4] = [
        ("one 64-byte object at a time", |heap, count| pairs(heap, count)),
        ("a thousand of them, first in first out", |heap, count| rounds(heap, count)),
        ("4,096 of 8 to 2,055 bytes, random", |heap, count| churn(heap, count)),
        ("the same by two threads", churn_by_two),
    ];
    println!("{operations} objects allocated and freed, median of {turns} turns\n");
    println!("{:<42} {:>10} {:>10}", "", "heap", "system");
    for (name, work) in works {
        let time = |heap: &(dyn GlobalAlloc + Sync)| {
            let clock = Instant::now();
            work(heap, operations);
            clock.elapsed().as_nanos() as f64 / operations as f64
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            ours.push(time(&heap));
            theirs.push(time(&System));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{name:<42} {ours:>7.1} ns {theirs:>7.1} ns  {:.2}x", ours / theirs);
    }
    heap.trim();
    assert_eq!(heap.stats().frames, 0, "everything went back");
}
