//! The slabs of one size class that one group of threads fills.

use pnode_compress::memory::FrameMemory;
use pnode_core::sync::{Guard, Lock};
use pnode_core::{FrameError, MigrateType, Order};

use super::NodeHeap;
use super::class::Class;
use super::raw::YieldLock;
use super::slab::{List, Slab, Tag};

/// One class in one shard. On a cache line of its own.
#[repr(align(64))]
pub(super) struct Bin(Lock<State, YieldLock>);

/// What a bin's lock guards, with the slabs whose tag names the bin.
#[derive(Default)]
pub(super) struct State {
    /// The slabs that have a free object.
    open: List,
    /// How many of them have no other.
    spare: u32,
    /// Objects in use.
    pub(super) objects: u64,
}

/// So many empty slabs a bin keeps: one that empties and fills by turns does not take and give frames each time.
const KEPT: u32 = 1;

impl Bin {
    pub(super) fn new() -> Self {
        Self(Lock::new(State::default()))
    }

    pub(super) fn lock(&self) -> Guard<'_, State, YieldLock> {
        self.0.lock()
    }
}

/// Which bin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) shard: u8,
    pub(super) class: Class,
}

impl<M: FrameMemory> NodeHeap<M> {
    /// Takes an object of a slab that the bin has; says how many bytes after the first one it begins.
    pub(super) fn take_open(&self, bin: &mut State, class: Class) -> Option<usize> {
        let head = bin.open.first()?;
        let slab = &self.slabs()[head as usize];
        if slab.in_use() == 0 {
            bin.spare -= 1;
        }
        let object = slab.claim()?;
        if slab.is_full() {
            bin.open.remove(self.slabs(), head);
        }
        bin.objects += 1;
        Some(self.offset(head) + object * class.size())
    }

    /// Takes an object, of a new slab if the bin has none.
    pub(super) fn take_new(&self, bin: &mut State, at: Address) -> Result<usize, FrameError> {
        if let Some(offset) = self.take_open(bin, at.class) {
            return Ok(offset);
        }
        let head = self.grow(at)?;
        bin.open.push(self.slabs(), head);
        bin.spare += 1;
        // A slab has at least one object.
        self.take_open(bin, at.class).ok_or(FrameError::Exhausted { order: Order::ZERO })
    }

    /// A new slab, smaller than it should be if there is no room.
    fn grow(&self, at: Address) -> Result<u32, FrameError> {
        let page = self.page.bytes();
        let mut bytes = at.class.slab_bytes(page);
        loop {
            let order = Order::for_frames((bytes / page) as u64).unwrap_or(Order::MAX);
            match self.take_frames(order, MigrateType::Unmovable) {
                Ok(head) => {
                    self.slabs()[head as usize].begin(bytes / at.class.size());
                    let tag = Tag::Slab { class: at.class, shard: at.shard, order: order.get(), head };
                    self.tag_all(head, order, tag);
                    return Ok(head);
                }
                Err(FrameError::Exhausted { .. }) if bytes / 2 >= page && bytes / 2 >= at.class.size() => {
                    bytes /= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn tag_all(&self, head: u32, order: Order, tag: Tag) {
        let head = head as usize;
        let frames = self.slabs().get(head..head + order.frames() as usize);
        frames.into_iter().flatten().for_each(|slab| slab.set_tag(tag));
    }

    /// Takes back object number `object` of the slab at `head`. Says whether it was in use.
    pub(super) fn put(&self, bin: &mut State, head: u32, order: Order, object: usize) -> bool {
        let slab = &self.slabs()[head as usize];
        let was_full = slab.is_full();
        if !slab.release(object) {
            return false;
        }
        bin.objects -= 1;
        if was_full {
            bin.open.push(self.slabs(), head);
        }
        if slab.in_use() == 0 {
            if bin.spare >= KEPT {
                self.shrink(bin, head, order);
            } else {
                bin.spare += 1;
            }
        }
        true
    }

    /// Gives the frames of an empty slab back.
    fn shrink(&self, bin: &mut State, head: u32, order: Order) {
        bin.open.remove(self.slabs(), head);
        self.tag_all(head, order, Tag::None);
        self.give_frames(head, order);
    }

    /// Gives the frames of all empty slabs of a bin back; says how many.
    pub(super) fn trim_bin(&self, bin: &mut State) -> u64 {
        let mut frames = 0;
        while bin.spare > 0 {
            let Some(head) = bin.open.find(self.slabs(), |slab| slab.in_use() == 0) else { break };
            let Tag::Slab { order, .. } = self.slabs()[head as usize].tag() else { break };
            let Ok(order) = Order::new(order) else { break };
            self.shrink(bin, head, order);
            bin.spare -= 1;
            frames += order.frames();
        }
        frames
    }
}

/// A slab's objects are numbered in 16 bits, and an empty one has room for what [`Slab`] counts.
const _: () = assert!(Slab::MOST <= 1 << 16);
