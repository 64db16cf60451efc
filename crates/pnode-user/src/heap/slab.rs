//! What the heap keeps of each frame: which object may begin there, and which objects of a slab are in use.

use pnode_core::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::class::Class;

/// What the heap keeps of one frame, all zero for a frame that it does not have: [`super::NodeHeap::with_slabs`] takes
/// one for each.
///
/// It stands apart from the frames, so a program that writes past its object cannot change it, and a device's memory is
/// not touched to manage it.
///
/// # Invariants
///
/// - **SL1** All but `tag` of a slab's first frame change only under the lock of the bin that its tag names.
/// - **SL2** The tag of a slab's frames changes only under that lock, before its first object is handed out and after
///   its last one came back; that of a block by who takes it and, by compare-and-swap, by who gives it back.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Slab {
    tag: AtomicU64,
    /// One bit an object: in use, or beyond the slab's end.
    used: [AtomicU64; Slab::WORDS],
    /// The neighbours in the bin's list, each its frame and one more; 0 is none.
    next: AtomicU32,
    previous: AtomicU32,
    objects: AtomicU16,
    in_use: AtomicU16,
}

/// What begins or goes on in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// Nothing of the heap's.
    None,
    /// A slab of the bin of `class` in `shard`.
    Slab { class: Class, shard: u8, order: u8, head: u32 },
    /// An object with a block of its own, which starts at frame `head`, begins in this frame.
    Block { order: u8, head: u32 },
}

impl Tag {
    const fn word(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Slab { class, shard, order, head } => {
                1 | (class.index() as u64) << 8
                    | (shard as u64) << 16
                    | (order as u64) << 24
                    | (head as u64) << 32
            }
            Self::Block { order, head } => 2 | (order as u64) << 24 | (head as u64) << 32,
        }
    }

    #[inline]
    pub(super) const fn of(word: u64) -> Self {
        let (order, head) = ((word >> 24) as u8, (word >> 32) as u32);
        match word & 0xff {
            1 => {
                let class = Class::from_index((word >> 8) as usize & 0xff);
                Self::Slab { class, shard: (word >> 16) as u8, order, head }
            }
            2 => Self::Block { order, head },
            _ => Self::None,
        }
    }
}

impl Slab {
    const WORDS: usize = 4;
    /// The most objects of a slab.
    pub(super) const MOST: usize = 64 * Self::WORDS;

    /// Reading the tag orders nothing: who may free an object got its address from the thread that allocated it, and
    /// with it all that this thread did; and what is read is compared once more under the lock.
    #[inline]
    pub(super) fn tag(&self) -> Tag {
        Tag::of(self.tag_word())
    }

    /// The tag as it is stored, for comparing.
    #[inline]
    pub(super) fn tag_word(&self) -> u64 {
        self.tag.load(Relaxed)
    }

    pub(super) fn set_tag(&self, tag: Tag) {
        self.tag.store(tag.word(), Relaxed);
    }

    /// Takes a block's tag away; one caller wins.
    pub(super) fn end_block(&self, tag: Tag) -> bool {
        self.tag.compare_exchange(tag.word(), Tag::None.word(), Relaxed, Relaxed).is_ok()
    }

    /// Begins a slab of `objects` objects, all free, in no list.
    pub(super) fn begin(&self, objects: usize) {
        let objects = objects.min(Self::MOST);
        for (index, word) in self.used.iter().enumerate() {
            let here = objects.saturating_sub(64 * index).min(64);
            let beyond = if here == 64 { 0 } else { u64::MAX << here };
            word.store(beyond, Relaxed);
        }
        self.objects.store(objects as u16, Relaxed);
        self.in_use.store(0, Relaxed);
        self.next.store(0, Relaxed);
        self.previous.store(0, Relaxed);
    }

    /// Takes a free object, if there is one.
    pub(super) fn claim(&self) -> Option<usize> {
        let (index, word) = self.used.iter().enumerate().find(|(_, word)| word.load(Relaxed) != u64::MAX)?;
        let used = word.load(Relaxed);
        let bit = used.trailing_ones();
        word.store(used | 1 << bit, Relaxed);
        self.in_use.store(self.in_use.load(Relaxed) + 1, Relaxed);
        Some(64 * index + bit as usize)
    }

    /// Gives an object back. Says whether it was in use; nothing has changed if not.
    pub(super) fn release(&self, object: usize) -> bool {
        let Some(word) = self.used.get(object / 64) else { return false };
        let (used, bit) = (word.load(Relaxed), 1 << (object % 64));
        if object >= usize::from(self.objects.load(Relaxed)) || used & bit == 0 {
            return false;
        }
        word.store(used & !bit, Relaxed);
        self.in_use.store(self.in_use.load(Relaxed) - 1, Relaxed);
        true
    }

    /// Whether `object` is in use.
    pub(super) fn is_used(&self, object: usize) -> bool {
        object < usize::from(self.objects.load(Relaxed))
            && self.used[object / 64].load(Relaxed) & 1 << (object % 64) != 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_use.load(Relaxed) == self.objects.load(Relaxed)
    }

    pub(super) fn in_use(&self) -> u16 {
        self.in_use.load(Relaxed)
    }
}

/// A list of slabs by their first frames.
#[derive(Debug, Default)]
pub(super) struct List {
    /// The first slab's frame and one more; 0 is none.
    first: u32,
}

impl List {
    pub(super) fn first(&self) -> Option<u32> {
        self.first.checked_sub(1)
    }

    pub(super) fn push(&mut self, slabs: &[Slab], head: u32) {
        let slab = &slabs[head as usize];
        slab.next.store(self.first, Relaxed);
        slab.previous.store(0, Relaxed);
        if let Some(first) = self.first() {
            slabs[first as usize].previous.store(head + 1, Relaxed);
        }
        self.first = head + 1;
    }

    pub(super) fn remove(&mut self, slabs: &[Slab], head: u32) {
        let slab = &slabs[head as usize];
        let (next, previous) = (slab.next.load(Relaxed), slab.previous.load(Relaxed));
        match previous.checked_sub(1) {
            Some(before) => slabs[before as usize].next.store(next, Relaxed),
            None => self.first = next,
        }
        if let Some(after) = next.checked_sub(1) {
            slabs[after as usize].previous.store(previous, Relaxed);
        }
    }

    /// The first slab of the list for which `wanted` holds.
    pub(super) fn find(&self, slabs: &[Slab], wanted: impl Fn(&Slab) -> bool) -> Option<u32> {
        let mut at = self.first();
        while let Some(head) = at {
            let slab = &slabs[head as usize];
            if wanted(slab) {
                return Some(head);
            }
            at = slab.next.load(Relaxed).checked_sub(1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_what_was_written() {
        let slab = Slab::default();
        assert_eq!(slab.tag(), Tag::None);
        for class in (0..Class::COUNT).map(Class::from_index) {
            for (shard, order, head) in [(0, 0, 0), (7, 18, u32::MAX), (3, 4, 1 << 23)] {
                for tag in [Tag::Slab { class, shard, order, head }, Tag::Block { order, head }] {
                    slab.set_tag(tag);
                    assert_eq!(slab.tag(), tag);
                }
            }
        }
    }

    #[test]
    fn each_object_is_handed_out_once_and_taken_back_once() {
        for objects in [1, 4, 63, 64, 65, 128, 255, 256] {
            let slab = Slab::default();
            slab.begin(objects);
            let taken: Vec<_> = std::iter::from_fn(|| slab.claim()).collect();
            assert_eq!(taken, (0..objects).collect::<Vec<_>>());
            assert!(slab.is_full() && !slab.release(objects));
            for object in taken {
                assert!(slab.is_used(object) && slab.release(object) && !slab.release(object), "{object}");
            }
            assert_eq!(slab.in_use(), 0);
        }
    }
}
