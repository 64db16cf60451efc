//! The heap against an oracle, on its node to the last byte, with many threads, and at its limits.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use pnode_buddy::Zone;
use pnode_compress::memory::Mapped;
use pnode_core::{FrameRange, MemoryClass, NodeId, PageSize, Pfn};
use pnode_user::backing::Backing;
use pnode_user::heap::{HeapAllocError, HeapError, HeapFreeError, Slab};
use pnode_user::machine::UnplugError;
use pnode_user::{Machine, NodeHeap, NodeSpec};

mod heap_oracle;
#[path = "support/random.rs"]
mod random;

use heap_oracle::{Oracle, Step};
use random::Random;

fn machine(private: u64) -> (Machine, NodeId, NodeId) {
    let machine = Machine::builder()
        .node(NodeSpec::ordinary(512))
        .node(NodeSpec::private(MemoryClass::ACCELERATOR, private))
        .build()
        .unwrap();
    let [dram, gpu] = [machine.node(0).unwrap(), machine.node(1).unwrap()];
    (machine, dram, gpu)
}

/// A heap of memory whose frames can be read from the side.
fn beside(frames: u64, first: u64) -> (Arc<Backing>, NodeHeap<Mapped<Zone<'static>>>) {
    let backing = Arc::new(Backing::new(frames, PageSize::KIB4).unwrap());
    let range = FrameRange::new(Pfn::new(first), frames).unwrap();
    let zone = Zone::boxed(range, &[]).unwrap();
    // SAFETY: the direct map has these frames; the backing is dropped after the heap in every test here; only the zone
    // hands frames out, and reading through the backing is a byte copy.
    let memory = unsafe { Mapped::new(zone, backing.direct_map(), range, PageSize::KIB4) };
    (backing, NodeHeap::new(memory, range).unwrap())
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

fn chance(random: &mut Random) -> Step {
    Step::decode((random.next() as u32).to_le_bytes())
}

#[test]
fn a_heap_keeps_what_an_oracle_keeps() {
    for seed in 1..=3 {
        for (frames, first) in [(4096, 0), (700, 1), (40, 0x1003)] {
            println!("seed {seed}, {frames} frames from {first}");
            let (backing, heap) = beside(frames, first);
            let mut oracle = Oracle::new(&heap);
            let mut random = Random(seed * 0x9e37_79b9);
            for step in 0..6000 {
                oracle.step(chance(&mut random));
                if step % 500 == 0 {
                    oracle.compare();
                }
            }
            assert!(frames > 1000 || oracle.failed > 0, "a small heap must have been full");
            oracle.finish();
            drop(heap);
            drop(backing);
        }
    }
}

#[test]
fn every_byte_is_in_the_frame_that_the_heap_names() {
    let (backing, heap) = beside(2048, 5);
    let mut objects = Vec::new();
    for (number, size) in
        (1..=300).chain([1000, 4095, 4096, 4097, 10_000, 16_384, 16_385, 70_000]).enumerate()
    {
        let align = 1 << (number % 14);
        let mut bytes = heap.allocate(layout(size, align)).unwrap();
        let mark = number as u8 ^ 0x5a;
        // SAFETY: the object has the bytes and is ours.
        unsafe { bytes.as_ptr().write_bytes(mark, size) };
        for byte in 0..size {
            // SAFETY: inside the object.
            bytes = unsafe { bytes.add(usize::from(byte > 0)) };
            let pfn = heap.pfn_of(bytes.as_ptr()).unwrap();
            // Read from the side, by the frame's number and the offset in its page.
            let mut seen = [0];
            let offset = bytes.as_ptr() as usize % 4096;
            assert!(backing.read(pfn.get() - 5, offset, &mut seen));
            assert_eq!(seen, [mark], "byte {byte} of {size}");
        }
        objects.push(size);
    }
    assert_eq!(heap.stats().objects, objects.len() as u64);
}

#[test]
fn a_heap_on_a_private_node_touches_no_other_node() {
    let (machine, dram, gpu) = machine(512);
    assert_eq!(machine.heap(gpu).unwrap_err(), HeapError::Private { node: gpu });
    let heap = machine.owner_grant(gpu).unwrap().into_heap().unwrap();
    let mut random = Random(77);
    let mut oracle = Oracle::new(&heap);
    let range = FrameRange::new(Pfn::new(1 << 24), 512).unwrap();
    for _ in 0..4000 {
        oracle.step(chance(&mut random));
        assert_eq!(machine.free_frames(dram), 512);
        assert_eq!(machine.free_frames(gpu), 512 - heap.stats().frames);
    }
    let object = heap.allocate(layout(100, 8)).unwrap();
    assert!(range.contains(heap.pfn_of(object.as_ptr()).unwrap()));
    // SAFETY: nobody else has the object.
    unsafe { heap.free(object, layout(100, 8)) }.unwrap();
    oracle.finish();
    drop(heap);
    machine.audit().unwrap();
}

#[test]
fn an_ordinary_node_needs_no_grant_and_does_not_spill() {
    let (machine, dram, gpu) = machine(64);
    let heap = machine.heap(dram).unwrap();
    let mut objects = Vec::new();
    let error = loop {
        match heap.boxed([7u8; 4096]) {
            Ok(object) => objects.push(object),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(error.error, HeapAllocError::NoFrames { bytes: 4096, .. }));
    assert_eq!(error.value, [7; 4096], "a value that finds no room comes back");
    assert_eq!((machine.free_frames(dram), machine.free_frames(gpu)), (0, 64));
    assert_eq!(objects.len(), 512, "every frame holds one");
    // One that goes makes room for one.
    objects.pop();
    objects.push(heap.boxed([8; 4096]).unwrap());
    drop(objects);
    drop(heap);
    machine.audit().unwrap();
}

#[test]
fn a_node_waits_for_its_heap() {
    let (machine, _, gpu) = machine(64);
    let heap = machine.owner_grant(gpu).unwrap().into_heap().unwrap();
    let object = heap.boxed(1u64).unwrap();
    assert!(matches!(machine.unplug(gpu), Err(UnplugError::Offline(_))));
    drop(object);
    drop(heap);
    machine.unplug(gpu).unwrap();
}

#[test]
fn what_was_not_handed_out_is_not_taken_back() {
    let (_backing, heap) = beside(64, 0);
    let (_other, stranger) = beside(64, 0);
    let small = layout(100, 8);
    let object = heap.allocate(small).unwrap();
    let address = object.as_ptr() as usize;
    // SAFETY: in this test nobody uses what is freed; most of it is refused.
    let free = |heap: &NodeHeap<_>, start: NonNull<u8>, layout| unsafe { heap.free(start, layout) };
    assert_eq!(free(&stranger, object, small), Err(HeapFreeError::NotOurs { address }));
    assert_eq!(free(&heap, object, layout(200, 8)), Err(HeapFreeError::WrongLayout { address, size: 112 }));
    let next = object.as_ptr() as usize + 8;
    let inside = NonNull::new(next as *mut u8).unwrap();
    assert_eq!(free(&heap, inside, small), Err(HeapFreeError::NoObject { address: next }));
    assert!(heap.is_object(object.as_ptr()));
    assert_eq!(free(&heap, object, small), Ok(()));
    assert_eq!(free(&heap, object, small), Err(HeapFreeError::DoubleFree { address }));
    assert!(!heap.is_object(object.as_ptr()));

    let large = layout(40_000, 1 << 13);
    let block = heap.allocate(large).unwrap();
    let address = block.as_ptr() as usize;
    assert!(matches!(free(&heap, block, layout(90_000, 1 << 13)), Err(HeapFreeError::WrongLayout { .. })));
    assert_eq!(free(&heap, block, large), Ok(()));
    assert_eq!(free(&heap, block, large), Err(HeapFreeError::NoObject { address }));
    assert_eq!(heap.stats().refused, 5);
    assert_eq!(stranger.stats().refused, 1);
    // SAFETY: there is no such object, which the heap finds out.
    let resized = unsafe { heap.resize(block, large, 10) };
    assert_eq!(resized, Err(HeapAllocError::NoObject(HeapFreeError::NoObject { address })));
    assert!(
        matches!(heap.allocate(layout(1 << 40, 8)), Err(HeapAllocError::TooLarge { bytes }) if bytes == 1 << 40)
    );
}

#[test]
fn objects_have_values_that_end_once() {
    static ENDED: AtomicU64 = AtomicU64::new(0);
    #[derive(Debug)]
    struct Counted(u64);
    impl Drop for Counted {
        fn drop(&mut self) {
            ENDED.fetch_add(self.0, Ordering::Relaxed);
        }
    }
    let (_backing, heap) = beside(64, 0);
    let mut values = heap.vec();
    for number in 1..=1000 {
        values.push(Counted(number)).unwrap();
    }
    assert_eq!(values.iter().map(|value| value.0).sum::<u64>(), 500_500);
    assert_eq!(values.pop().unwrap().0, 1000);
    assert_eq!(ENDED.load(Ordering::Relaxed), 1000);
    let kept = heap.boxed(Counted(5)).unwrap().into_inner();
    assert_eq!((heap.stats().objects, ENDED.load(Ordering::Relaxed)), (1, 1000));
    drop((values, kept));
    assert_eq!(ENDED.load(Ordering::Relaxed), 500_505);
    let mut nothings = heap.vec();
    (0..100).for_each(|_| nothings.push(()).unwrap());
    assert_eq!((nothings.len(), heap.boxed(()).is_ok(), heap.stats().objects), (100, true, 0));
}

#[test]
fn slabs_are_asked_for_once_and_must_be_empty() {
    let (backing, heap) = beside(8, 0);
    drop(heap);
    let range = FrameRange::new(Pfn::new(0), 8).unwrap();
    let again = |slabs: Vec<Slab>| {
        let zone = Zone::boxed(range, &[]).unwrap();
        // SAFETY: as in `beside`; the heap before is gone.
        let memory = unsafe { Mapped::new(zone, backing.direct_map(), range, PageSize::KIB4) };
        NodeHeap::with_slabs(memory, range, slabs.leak())
    };
    let slabs = |count| (0..count).map(|_| Slab::default()).collect::<Vec<_>>();
    assert!(matches!(again(slabs(7)), Err(HeapError::Slabs { wanted: 8 })));
    let heap = again(slabs(8)).unwrap();
    drop(heap.boxed(3u8).unwrap());
}

/// Threads allocate, hand objects to one another, and free what they were given; nothing is lost, no byte changes.
#[test]
fn threads_free_what_others_allocated() {
    const THREADS: usize = 8;
    const OBJECTS: u64 = 6_000;
    let (machine, _, gpu) = machine(2048);
    let heap = machine.owner_grant(gpu).unwrap().into_heap().unwrap();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| mpsc::channel::<(usize, Layout, u8)>()).unzip();
    thread::scope(|scope| {
        for (number, receiver) in receivers.into_iter().enumerate() {
            let (heap, senders) = (&heap, senders.clone());
            scope.spawn(move || {
                let mut random = Random(number as u64 + 1);
                let take = |(start, layout, mark): (usize, Layout, u8)| {
                    let start = NonNull::new(start as *mut u8).unwrap();
                    // SAFETY: the sender gave the object away.
                    let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), layout.size()) };
                    assert!(bytes.iter().all(|byte| *byte == mark), "an object has lost its bytes");
                    // SAFETY: as above.
                    unsafe { heap.free(start, layout) }.unwrap();
                };
                for _ in 0..OBJECTS {
                    let size = 1 + (random.next() % (1 << (random.next() % 13))) as usize;
                    let layout = layout(size, 1 << (random.next() % 6));
                    match heap.allocate(layout) {
                        Ok(start) => {
                            let mark = random.next() as u8;
                            // SAFETY: the object is ours.
                            unsafe { start.as_ptr().write_bytes(mark, size) };
                            let to = random.next() as usize % THREADS;
                            senders[to].send((start.as_ptr() as usize, layout, mark)).unwrap();
                        }
                        Err(HeapAllocError::NoFrames { .. }) => thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                    receiver.try_iter().take(3).for_each(take);
                }
                drop(senders);
                receiver.iter().for_each(take);
            });
        }
        drop(senders);
    });
    heap.trim();
    let stats = heap.stats();
    assert_eq!((stats.objects, stats.bytes, stats.frames, stats.refused), (0, 0, 0, 0));
    drop(heap);
    machine.audit().unwrap();
}
