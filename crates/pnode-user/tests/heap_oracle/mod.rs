//! What a heap must do, kept in the plainest way: every object with its bytes.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;

use pnode_compress::memory::FrameMemory;
use pnode_user::NodeHeap;
use pnode_user::heap::{HeapAllocError, HeapFreeError};

/// One step of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Allocate {
        size: usize,
        align: usize,
    },
    Zeroed {
        size: usize,
        align: usize,
    },
    /// Frees the object of this number, counted around.
    Free(usize),
    Resize {
        object: usize,
        size: usize,
    },
    /// Frees the object of this number, and tries to free it once more.
    FreeTwice(usize),
    /// Tries to free an address inside an object, and the object with another layout.
    FreeWrongly(usize),
    Trim,
}

impl Step {
    /// The step that four bytes stand for.
    pub(crate) fn decode([what, one, two, three]: [u8; 4]) -> Self {
        // Sizes of every magnitude to 128 KiB are as likely as one another.
        let bits = u32::from(one % 18);
        let size = (usize::from(u16::from_le_bytes([two, three])) | 1 << 16) >> (17 - bits.min(17));
        let align = 1 << (three % 14).min(if what & 8 == 0 { 4 } else { 13 });
        let object = usize::from(u16::from_le_bytes([one, two]));
        match what % 8 {
            0..=2 => Self::Allocate { size, align },
            3 => Self::Zeroed { size, align },
            4 => Self::Free(object),
            5 => Self::Resize { object: usize::from(one), size: size.max(1) },
            6 if what & 16 == 0 => Self::Free(object),
            6 => Self::FreeTwice(object),
            _ if what & 48 == 0 => Self::Trim,
            _ => Self::FreeWrongly(object),
        }
    }
}

struct Object {
    layout: Layout,
    mark: u8,
}

/// A heap and the objects that it must have.
pub(crate) struct Oracle<'h, M: FrameMemory> {
    heap: &'h NodeHeap<M>,
    objects: BTreeMap<usize, Object>,
    marks: u8,
    pub(crate) refused: u64,
    /// Steps for which there was no memory.
    pub(crate) failed: u64,
}

impl<'h, M: FrameMemory> Oracle<'h, M> {
    pub(crate) fn new(heap: &'h NodeHeap<M>) -> Self {
        Self { heap, objects: BTreeMap::new(), marks: 0, refused: heap.stats().refused, failed: 0 }
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Allocate { size, align } | Step::Zeroed { size, align } => {
                let layout = Layout::from_size_align(size, align).unwrap();
                let zeroed = matches!(step, Step::Zeroed { .. });
                let taken =
                    if zeroed { self.heap.allocate_zeroed(layout) } else { self.heap.allocate(layout) };
                match taken {
                    Ok(start) => {
                        if zeroed {
                            assert!(bytes(start, size).iter().all(|byte| *byte == 0), "{step:?}");
                        }
                        self.insert(start, layout);
                    }
                    Err(error) => self.no_memory(error, size),
                }
            }
            Step::Free(number) => {
                if let Some((start, object)) = self.remove(number) {
                    // SAFETY: the object was the oracle's alone.
                    assert_eq!(unsafe { self.heap.free(start, object.layout) }, Ok(()), "{step:?}");
                }
            }
            Step::FreeTwice(number) => {
                let Some((start, object)) = self.remove(number) else { return };
                // SAFETY: the object was the oracle's alone.
                assert_eq!(unsafe { self.heap.free(start, object.layout) }, Ok(()));
                // SAFETY: nobody has the object now, and the second attempt changes nothing.
                let again = unsafe { self.heap.free(start, object.layout) };
                // A slab or block that has gone back leaves nothing to recognise.
                let noticed =
                    matches!(again, Err(HeapFreeError::DoubleFree { .. } | HeapFreeError::NoObject { .. }));
                assert!(noticed, "{again:?}");
                self.refused += 1;
            }
            Step::FreeWrongly(number) => {
                let Some((start, layout)) = self.nth(number) else { return };
                let inside = NonNull::new(start.as_ptr().wrapping_add(1)).unwrap();
                let other =
                    Layout::from_size_align(layout.size() * 3 + 2 * layout.align() + 200, layout.align())
                        .unwrap();
                // SAFETY: no object begins there.
                let first = unsafe { self.heap.free(inside, layout) };
                // SAFETY: the heap refuses, which is what is looked at: the object is as it was.
                let second = unsafe { self.heap.free(start, other) };
                assert!(matches!(first, Err(HeapFreeError::NoObject { .. })), "{first:?}");
                assert!(matches!(second, Err(HeapFreeError::WrongLayout { .. })), "{second:?} {layout:?}");
                self.refused += 2;
            }
            Step::Resize { object, size } => {
                let Some((start, layout)) = self.nth(object) else { return };
                // SAFETY: the object is the oracle's alone, and its old address is forgotten on success.
                match unsafe { self.heap.resize(start, layout, size) } {
                    Ok(moved) => {
                        let old = self.objects.remove(&(start.as_ptr() as usize)).unwrap();
                        let kept = layout.size().min(size);
                        assert!(bytes(moved, kept).iter().all(|byte| *byte == old.mark), "{step:?}");
                        self.insert(moved, Layout::from_size_align(size, layout.align()).unwrap());
                    }
                    Err(error) => self.no_memory(error, size),
                }
            }
            Step::Trim => {
                self.heap.trim();
            }
        }
    }

    fn no_memory(&mut self, error: HeapAllocError, size: usize) {
        assert!(matches!(error, HeapAllocError::NoFrames { bytes, .. } if bytes == size), "{error:?}");
        self.failed += 1;
    }

    fn nth(&self, number: usize) -> Option<(NonNull<u8>, Layout)> {
        let (start, object) = self.objects.iter().nth(number % self.objects.len().max(1))?;
        Some((NonNull::new(*start as *mut u8).unwrap(), object.layout))
    }

    fn insert(&mut self, start: NonNull<u8>, layout: Layout) {
        let address = start.as_ptr() as usize;
        assert_eq!(address % layout.align(), 0, "{layout:?} at {address:#x}");
        let size = layout.size().max(1);
        if let Some((before, object)) = self.objects.range(..=address).next_back() {
            assert!(before + object.layout.size().max(1) <= address, "an object lies inside another one");
        }
        if let Some((after, _)) = self.objects.range(address..).next() {
            assert!(address + size <= *after, "an object lies inside another one");
        }
        for byte in [0, size - 1] {
            assert!(self.heap.pfn_of(start.as_ptr().wrapping_add(byte)).is_some(), "outside the heap");
        }
        self.marks = self.marks.wrapping_add(1).max(1);
        // SAFETY: the object has these bytes and is the oracle's alone.
        unsafe { start.as_ptr().write_bytes(self.marks, layout.size()) };
        self.objects.insert(address, Object { layout, mark: self.marks });
    }

    fn remove(&mut self, number: usize) -> Option<(NonNull<u8>, Object)> {
        let (start, layout) = self.nth(number)?;
        let object = self.objects.remove(&(start.as_ptr() as usize)).unwrap();
        let kept = bytes(start, layout.size()).iter().all(|byte| *byte == object.mark);
        assert!(kept, "an object of {layout:?} has lost its bytes");
        Some((start, object))
    }

    /// Compares the heap with what it must have.
    pub(crate) fn compare(&self) {
        let stats = self.heap.stats();
        assert_eq!((stats.objects, stats.refused), (self.objects.len() as u64, self.refused));
        let asked: usize = self.objects.values().map(|object| object.layout.size()).sum();
        assert!(stats.bytes >= asked as u64);
        assert!(self.objects.keys().all(|start| self.heap.is_object(*start as *const u8)));
    }

    /// Frees everything and expects every frame to go back.
    pub(crate) fn finish(mut self) {
        self.compare();
        while !self.objects.is_empty() {
            self.step(Step::Free(7));
        }
        self.compare();
        self.heap.trim();
        let stats = self.heap.stats();
        assert_eq!((stats.objects, stats.bytes, stats.frames), (0, 0, 0));
    }
}

fn bytes<'b>(start: NonNull<u8>, count: usize) -> &'b [u8] {
    // SAFETY: the callers have an object of at least so many bytes, which the heap has initialised frames for, and let go
    // of the slice before they write to it.
    unsafe { std::slice::from_raw_parts(start.as_ptr(), count) }
}
