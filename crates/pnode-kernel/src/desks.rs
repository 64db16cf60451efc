//! Working memory for those who compress pages, one for each CPU: [`Desks`].

use core::fmt;

use pnode_compress::codec::Scratch;
use pnode_core::sync::{Lock, SpinLock};

use crate::kernel::{Kernel, NoMemory};
use crate::own::Own;

/// The largest page that a desk has room for.
const PAGE: usize = 4096;

/// What a worker of a store needs.
struct Papers {
    scratch: Scratch,
    buffer: [u8; PAGE],
}

/// A desk for each CPU, which whoever works on that CPU sits down at if it is free.
///
/// Nobody is kept from being moved to another CPU while he sits there, so a desk has a lock; as its CPU is as a rule
/// the only one to take it, nobody waits for it as a rule.
pub struct Desks<K: Kernel> {
    desks: Own<[Lock<Papers, SpinLock>], K>,
    kernel: K,
}

impl<K: Kernel> Desks<K> {
    /// A desk for each CPU of the kernel.
    ///
    /// # Errors
    ///
    /// [`NoMemory`].
    pub fn new(kernel: K) -> Result<Self, NoMemory> {
        const { assert!(K::PAGE.bytes() <= PAGE, "a desk has room for a page of the kernel") };
        let papers = |_| Lock::new(const { Papers { scratch: Scratch::new(), buffer: [0; PAGE] } });
        Ok(Self { desks: Own::slice(kernel, kernel.cpus().max(1), papers)?, kernel })
    }

    /// How many desks there are.
    pub fn count(&self) -> usize {
        self.desks.len()
    }

    /// Calls `work` with the number of a desk and what lies on it: the desk of this CPU, or any that is free. Waits
    /// until one is, so it is called where the caller may sleep.
    pub fn with<R>(&self, work: impl FnOnce(usize, &mut Scratch, &mut [u8]) -> R) -> R {
        let first = self.kernel.cpu() % self.desks.len();
        loop {
            let (before, from_first) = self.desks.split_at(first);
            let in_turn = (first..).zip(from_first).chain((0..).zip(before));
            let free = in_turn.filter_map(|(number, desk)| Some((number, desk.try_lock()?))).next();
            if let Some((number, mut papers)) = free {
                let Papers { scratch, buffer } = &mut *papers;
                return work(number, scratch, &mut buffer[..K::PAGE.bytes()]);
            }
            self.kernel.relax();
        }
    }
}

impl<K: Kernel> fmt::Debug for Desks<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desks({})", self.count())
    }
}
