//! [`DeviceMedium`]: a compressing device as the medium of a service, and the safeguards around it.

use core::fmt;

use pnode_core::PageSize;
use pnode_core::sync::{AtomicU64, Lock, Ordering, RawLock, SpinLock};

use super::Device;
use crate::cram::{Bound, Medium, ReadError, Resident, TrimFailed, Usage, WriteError};

/// What keeps a device from being overrun. With any one left out, it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Safeguard {
    /// A page comes in only if the device has room for its worst case.
    Admission = 1,
    /// A resident page is not written.
    Fence = 2,
    /// A page that has left costs nothing any more.
    Scrub = 4,
    /// What was written since the last reading counts.
    Bound = 8,
}

impl Safeguard {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admission, Self::Fence, Self::Scrub, Self::Bound];
}

/// A set of [`Safeguard`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Safeguards(u8);

impl Safeguards {
    /// Every safeguard: the device cannot be overrun.
    pub const ALL: Self = Self(15);

    /// The same without one.
    pub const fn without(self, safeguard: Safeguard) -> Self {
        Self(self.0 & !(safeguard as u8))
    }

    /// Whether the safeguard is among them.
    pub const fn has(self, safeguard: Safeguard) -> bool {
        self.0 & safeguard as u8 != 0
    }
}

/// One thread's way to a device that it shares with others.
///
/// The clock is the caller's: a number that he raises. A reading of the device is taken with each trim, whose answer
/// carries it, and whenever the caller asks for one with [`DeviceMedium::poll`].
pub struct DeviceMedium<'d, 'm, L: RawLock = SpinLock> {
    device: &'d Lock<Device<'m>, L>,
    bound: &'d Bound,
    clock: &'d AtomicU64,
    safeguards: Safeguards,
    page: PageSize,
    physical: u64,
    payload: usize,
    /// The last reading, which is all that is known without the bound.
    reading: u64,
    /// When it was taken.
    read_at: u64,
    /// Bytes of pages that have left and were not scrubbed, though somebody says so.
    dead: u64,
}

impl<'d, 'm, L: RawLock> DeviceMedium<'d, 'm, L> {
    /// A way to `device`, whose use `bound` bounds for all who write to it.
    pub fn new(
        device: &'d Lock<Device<'m>, L>,
        bound: &'d Bound,
        clock: &'d AtomicU64,
        safeguards: Safeguards,
    ) -> Self {
        let (config, reading) = {
            let device = device.lock();
            (*device.config(), device.used())
        };
        let (page, physical, payload) = (config.page, config.physical, config.payload.max(1));
        Self {
            device,
            bound,
            clock,
            safeguards,
            page,
            physical,
            payload,
            reading,
            read_at: clock.load(Ordering::Relaxed),
            dead: 0,
        }
    }

    /// Takes a reading.
    pub fn poll(&mut self) {
        let mut reading = 0;
        self.bound.refresh(|| {
            reading = self.device.lock().used();
            reading
        });
        (self.reading, self.read_at) = (reading, self.now());
    }

    /// How long ago the device last told its use, by a poll or with the answer to a trim.
    pub fn reading_age(&self) -> u64 {
        self.now().saturating_sub(self.read_at)
    }

    /// Writes to a resident page where it is, which the fence is there to prevent: for experiments without it.
    pub fn write_in_place(&mut self, page: Resident, contents: &[u8]) {
        self.device.lock().write(page.frame(), contents, self.now());
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Answers as if `pages` had been scrubbed: what a driver does that says so and does not.
    fn pretend(&mut self, pages: &[Resident]) {
        let device = self.device.lock();
        self.dead += pages.iter().map(|page| u64::from(device.size(page.frame()))).sum::<u64>();
        let pretended = device.used().saturating_sub(self.dead);
        drop(device);
        self.bound.refresh(|| pretended);
        (self.reading, self.read_at) = (pretended, self.now());
    }

    /// One trim command. Tells whether it was carried out.
    fn command(&mut self, pages: &[Resident]) -> bool {
        let now = self.now();
        let mut answer = None;
        self.bound.refresh(|| {
            let mut device = self.device.lock();
            answer = device.trim(pages.iter().map(|page| page.frame()), now);
            answer.unwrap_or(device.used())
        });
        if let Some(used) = answer {
            (self.reading, self.read_at) = (used, now);
        }
        answer.is_some()
    }
}

impl<L: RawLock> Medium for DeviceMedium<'_, '_, L> {
    fn page_size(&self) -> PageSize {
        self.page
    }

    fn write(&mut self, frame: u32, page: &[u8]) -> Result<(), WriteError> {
        let now = self.now();
        let limit = if self.safeguards.has(Safeguard::Admission) && self.safeguards.has(Safeguard::Bound) {
            self.physical
        } else {
            u64::MAX
        };
        // The worst case: how well the page compresses is known only afterwards, and then only to the device.
        let announced = self.bound.announce(self.page.bytes() as u64, limit).ok_or(WriteError::Full)?;
        let mut device = self.device.lock();
        if !self.safeguards.has(Safeguard::Scrub) {
            // What was dead here is overwritten.
            self.dead = self.dead.saturating_sub(device.size(frame).into());
        }
        device.write(frame, page, now);
        drop(device);
        announced.landed();
        Ok(())
    }

    fn read(&mut self, frame: u32, page: &mut [u8]) -> Result<(), ReadError> {
        self.device.lock().read(frame, page).map_err(|_| ReadError::Poisoned)
    }

    fn discard(&mut self, frame: u32) {
        if self.safeguards.has(Safeguard::Scrub) {
            let now = self.now();
            self.device.lock().zero(frame, now);
        }
    }

    fn trim(&mut self, pages: &[Resident]) -> Result<(), TrimFailed> {
        if !self.safeguards.has(Safeguard::Scrub) {
            self.pretend(pages);
            return Ok(());
        }
        let payload = self.payload;
        // All commands are sent, so that a failure leaves as little as possible to be zeroed.
        let failed = pages.chunks(payload).filter(|pages| !self.command(pages)).count();
        if failed == 0 { Ok(()) } else { Err(TrimFailed) }
    }

    fn usage(&self) -> Usage {
        let used = match (self.safeguards.has(Safeguard::Admission), self.safeguards.has(Safeguard::Bound)) {
            (false, _) => 0,
            (true, true) => self.bound.bytes(),
            (true, false) => self.reading,
        };
        Usage { used, physical: self.physical }
    }
}

impl<L: RawLock> fmt::Debug for DeviceMedium<'_, '_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceMedium({:?}, {:?})", self.bound, self.safeguards)
    }
}
