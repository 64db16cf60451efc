//! A heap as the global allocator of a program: this test's own vectors, strings and threads live on it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::OnceLock;

use pnode_buddy::{Geometry, Line, Metadata, Zone};
use pnode_compress::memory::Mapped;
use pnode_core::{FrameRange, PageSize, Pfn};
use pnode_user::NodeHeap;
use pnode_user::heap::Slab;

const FRAMES: usize = 8192;
const PAGE: PageSize = PageSize::KIB4;

type Heap = NodeHeap<Mapped<Zone<'static>>>;

/// The heap once it is there; before that, and for a child of `OnceLock`, nothing needs memory.
struct OnNode;

static HEAP: OnceLock<Heap> = OnceLock::new();

/// Memory of the kernel's, `bytes` long and all zero; a program would map its device here.
fn map(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, PAGE.bytes()).unwrap();
    // SAFETY: the layout has a size.
    NonNull::new(unsafe { System.alloc_zeroed(layout) }).unwrap()
}

fn slice<T>(count: usize) -> &'static mut [T] {
    let start = map(count * size_of::<T>()).cast::<T>();
    // SAFETY: the memory is as long, page-aligned, all zero (which is a value of both types used here), and never freed.
    unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), count) }
}

fn heap() -> &'static Heap {
    HEAP.get_or_init(|| {
        let range = FrameRange::new(Pfn::new(0), FRAMES as u64).unwrap();
        let lines = slice::<Line>(Geometry::new(range).unwrap().lines());
        let zone = Zone::new(range, Metadata::zeroed(lines)).unwrap();
        // SAFETY: the memory is mapped for ever, all zero, and only the zone hands its frames out.
        let memory = unsafe { Mapped::new(zone, map(FRAMES * PAGE.bytes()), range, PAGE) };
        NodeHeap::with_slabs(memory, range, slice::<Slab>(FRAMES)).unwrap()
    })
}

// SAFETY: the heap is a global allocator, and it is always the same one.
unsafe impl GlobalAlloc for OnNode {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: handed on.
        unsafe { heap().alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: handed on.
        unsafe { heap().dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: handed on.
        unsafe { heap().realloc(start, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: OnNode = OnNode;

#[test]
fn containers_of_the_standard_library_live_on_the_heap() {
    let before = heap().stats();
    let mut words: HashMap<String, Vec<usize>> = HashMap::new();
    for number in 0..20_000usize {
        words.entry(format!("word {}", number % 997)).or_default().push(number);
    }
    assert!(words.values().all(|numbers| heap().pfn_of(numbers.as_ptr().cast()).is_some()));
    assert!(heap().stats().objects > before.objects + 2 * 997);
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            std::thread::spawn(move || {
                (0..5000).map(|number| format!("{thread} {number}")).collect::<Vec<_>>()
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let texts = thread.join().unwrap();
        assert!(texts.iter().enumerate().all(|(at, text)| *text == format!("{number} {at}")));
    }
    let sum: usize = words.values().flatten().sum();
    assert_eq!(sum, 19_999 * 20_000 / 2);
    drop(words);
    assert_eq!(heap().stats().refused, 0);
}
