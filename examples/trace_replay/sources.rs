//! The sources of frames that a trace is replayed on.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use pnode::buddy::{Cpu, Keep, Zone};
use pnode::core::{FrameError, FrameSource, FreeError, MigrateType, Order, Pfn};

/// A buddy allocator as a textbook has it: the free blocks of each order, of which one is picked. It knows nothing of
/// migrate types.
pub(crate) struct Textbook {
    state: RefCell<State>,
}

/// Which free block of an order is handed out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// The one at the lowest address: slow to find, and keeps memory together.
    Lowest,
    /// The one that came back last, as from the head of a list: what most kernels do.
    Last,
}

struct State {
    pick: Pick,
    /// By order: the free blocks, by first frame.
    free: [Blocks; Order::COUNT],
    taken: HashMap<u64, Order>,
}

#[derive(Default)]
struct Blocks {
    free: BTreeSet<u64>,
    /// In the order in which they came; also some that are gone.
    came: Vec<u64>,
}

impl Blocks {
    fn insert(&mut self, start: u64) {
        self.free.insert(start);
        self.came.push(start);
    }

    fn take(&mut self, pick: Pick) -> Option<u64> {
        if pick == Pick::Lowest {
            self.came.clear();
            return self.free.pop_first();
        }
        loop {
            let last = self.came.pop()?;
            if self.free.remove(&last) {
                return Some(last);
            }
        }
    }
}

impl Textbook {
    pub(crate) fn new(frames: u64, pick: Pick) -> Self {
        let mut free: [Blocks; Order::COUNT] = std::array::from_fn(|_| Blocks::default());
        let mut start = 0;
        while start < frames {
            let fits = |order: &Order| start % order.frames() == 0 && start + order.frames() <= frames;
            // Order 0 always fits.
            let order = Order::all().rev().find(fits).unwrap_or(Order::ZERO);
            free[usize::from(order.get())].insert(start);
            start += order.frames();
        }
        Self { state: RefCell::new(State { pick, free, taken: HashMap::new() }) }
    }
}

impl FrameSource for Textbook {
    fn alloc(&self, order: Order, _migrate: MigrateType) -> Result<Pfn, FrameError> {
        let state = &mut *self.state.borrow_mut();
        let mut level = usize::from(order.get());
        let found = (level..Order::COUNT).find(|level| !state.free[*level].free.is_empty());
        let found = found.ok_or(FrameError::Exhausted { order })?;
        let start = state.free[found].take(state.pick).ok_or(FrameError::Exhausted { order })?;
        // The upper halves of what is larger than asked for stay free.
        while level < found {
            state.free[level].insert(start + (1 << level));
            level += 1;
        }
        state.taken.insert(start, order);
        Ok(Pfn::new(start))
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        let state = &mut *self.state.borrow_mut();
        let mut start = pfn.get();
        match state.taken.get(&start) {
            None => return Err(FreeError::NotAllocated { pfn }),
            Some(taken) if *taken != order => return Err(FreeError::WrongOrder { pfn, order }),
            Some(_) => state.taken.remove(&start),
        };
        let mut level = usize::from(order.get());
        while level + 1 < Order::COUNT && state.free[level].free.remove(&(start ^ 1 << level)) {
            start &= !(1 << level);
            level += 1;
        }
        state.free[level].insert(start);
        Ok(())
    }
}

/// A zone through the cache of one CPU.
pub(crate) struct Cached<'z, 'm> {
    cpu: RefCell<Cpu<'z, 'm>>,
}

impl<'z, 'm> Cached<'z, 'm> {
    pub(crate) fn new(zone: &'z Zone<'m>) -> Self {
        Self { cpu: RefCell::new(Cpu::new(zone, Keep::Frames)) }
    }
}

impl FrameSource for Cached<'_, '_> {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        let mut cpu = self.cpu.borrow_mut();
        cpu.alloc(order, migrate).or_else(|_| {
            // What a CPU keeps to itself is given back before anybody goes without, as a kernel drains its lists.
            cpu.drain();
            cpu.alloc(order, migrate)
        })
    }

    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.cpu.borrow_mut().free(pfn, order)
    }
}
