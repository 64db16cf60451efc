//! Working memory for those who compress pages, one for each CPU: [`Desks`].

use core::fmt;

use pnode_compress::codec::Scratch;
use pnode_core::sync::{Lock, SpinLock};

use crate::kernel::{Kernel, NoMemory};
use crate::own::Own;

/// The largest page that a desk has room for.
const PAGE: usize = 4096;

/// What lies on a desk: what a worker of a store needs.
struct Papers {
    scratch: Scratch,
    buffer: [u8; PAGE],
    page: [u8; PAGE],
}

/// A desk that somebody sits at.
#[derive(Debug)]
pub struct Desk<'d> {
    /// Its number, below [`Desks::count`].
    pub number: usize,
    /// Working memory of the codecs.
    pub scratch: &'d mut Scratch,
    /// Room for an object: as long as a page of the kernel.
    pub buffer: &'d mut [u8],
    /// Room for a page that is decoded in order to be encoded again.
    pub page: &'d mut [u8],
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
        let papers =
            |_| Lock::new(const { Papers { scratch: Scratch::new(), buffer: [0; PAGE], page: [0; PAGE] } });
        Ok(Self { desks: Own::slice(kernel, kernel.cpus().max(1), papers)?, kernel })
    }

    /// How many desks there are.
    pub fn count(&self) -> usize {
        self.desks.len()
    }

    /// Lets others run. Nobody sits at a desk meanwhile.
    pub fn relax(&self) {
        self.kernel.relax();
    }

    /// Calls `work` with a desk: that of this CPU, or any that is free. Waits until one is, so it is called where the
    /// caller may sleep.
    pub fn with<R>(&self, work: impl FnOnce(Desk<'_>) -> R) -> R {
        let first = self.kernel.cpu() % self.desks.len();
        loop {
            let (before, from_first) = self.desks.split_at(first);
            let in_turn = (first..).zip(from_first).chain((0..).zip(before));
            let free = in_turn.filter_map(|(number, desk)| Some((number, desk.try_lock()?))).next();
            if let Some((number, mut papers)) = free {
                let Papers { scratch, buffer, page } = &mut *papers;
                let (buffer, page) = (&mut buffer[..K::PAGE.bytes()], &mut page[..K::PAGE.bytes()]);
                return work(Desk { number, scratch, buffer, page });
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
