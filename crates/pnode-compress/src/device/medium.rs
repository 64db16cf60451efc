//! [`DeviceMedium`]: a compressing device as the medium of a service, and the safeguards around it.

use core::fmt;

use pnode_core::PageSize;
use pnode_core::sync::{AtomicU64, Lock, Ordering, RawLock, SpinLock};

use super::{Answer, Device, MAILBOX_DEPTH, Ticket};
use crate::cram::{Announced, Bound, Medium, ReadError, Resident, TrimFailed, Usage, WriteError};

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
///
/// Frames are trimmed in commands of as many as the mailbox takes, as many at a time as it holds. A command that has not
/// been answered in time is aborted, so that it cannot be carried out when its frames hold other pages already.
pub struct DeviceMedium<'d, 'm, L: RawLock = SpinLock> {
    device: &'d Lock<Device<'m>, L>,
    bound: &'d Bound,
    clock: &'d AtomicU64,
    safeguards: Safeguards,
    page: PageSize,
    physical: u64,
    payload: usize,
    depth: usize,
    /// How long an answer is waited for.
    patience: u64,
    /// Commands that were aborted because no answer came.
    timed_out: u64,
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
        let (page, physical) = (config.page, config.physical);
        let (payload, depth) = (config.mailbox.payload.max(1), config.mailbox.depth.clamp(1, MAILBOX_DEPTH));
        Self {
            device,
            bound,
            clock,
            safeguards,
            page,
            physical,
            payload,
            depth,
            patience: Self::PATIENCE,
            timed_out: 0,
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

    /// How long the answer to a command is waited for, unless [`DeviceMedium::waiting`] says otherwise.
    pub const PATIENCE: u64 = 1000;

    /// The same, waiting up to `units` of time for the answer to a command.
    pub fn waiting(self, units: u64) -> Self {
        Self { patience: units, ..self }
    }

    /// Commands that were aborted because their answer did not come in time.
    pub fn timed_out(&self) -> u64 {
        self.timed_out
    }

    /// A processor's store to a page where it is: to one that is open for writing, or, for experiments without the fence,
    /// to one that is not.
    pub fn write_in_place(&mut self, page: Resident, contents: &[u8]) {
        self.device.lock().write(page.frame(), contents, self.now());
    }

    /// Announces the worst case of a page: how well it compresses is known only afterwards, and then only to the device.
    fn announce(&self) -> Result<Announced<'d>, WriteError> {
        let bounded = self.safeguards.has(Safeguard::Admission) && self.safeguards.has(Safeguard::Bound);
        let limit = if bounded { self.physical } else { u64::MAX };
        self.bound.announce(self.page.bytes() as u64, limit).ok_or(WriteError::Full)
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

    /// Sends as many commands as the mailbox holds, and waits for their answers. Tells whether all were carried out.
    fn command(&mut self, pages: &[Resident]) -> bool {
        let (device, start, limit) = (self.device, self.now(), self.now().saturating_add(self.patience));
        let mut sent = [const { None::<Ticket> }; MAILBOX_DEPTH];
        let (mut reading, mut failed, mut late) = (None, false, 0);
        self.bound.refresh(|| {
            for (ticket, pages) in sent.iter_mut().zip(pages.chunks(self.payload)) {
                *ticket = device.lock().send(pages.iter().map(|page| page.frame()), start).ok();
                failed |= ticket.is_none();
            }
            for ticket in sent.into_iter().flatten() {
                // Not in the head of the match, which would hold the lock through it.
                let answer = device.lock().answer(ticket, limit);
                match answer {
                    Some(Answer::Trimmed { used }) => reading = Some(used),
                    Some(Answer::Failed) => failed = true,
                    None => {
                        device.lock().abort(ticket, limit);
                        late += 1;
                    }
                }
            }
            reading.unwrap_or_else(|| device.lock().used())
        });
        self.timed_out += late;
        if let Some(used) = reading {
            (self.reading, self.read_at) = (used, start);
        }
        !failed && late == 0
    }
}

impl<L: RawLock> Medium for DeviceMedium<'_, '_, L> {
    fn page_size(&self) -> PageSize {
        self.page
    }

    fn write(&mut self, frame: u32, page: &[u8]) -> Result<(), WriteError> {
        let now = self.now();
        let announced = self.announce()?;
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

    fn open(&mut self, _: u32) -> Result<(), WriteError> {
        // Whatever is written while the page is open comes to no more than a page.
        self.announce().map(Announced::keep)
    }

    fn close(&mut self, _: u32) {
        self.bound.land(self.page.bytes() as u64);
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
        let most = self.payload.saturating_mul(self.depth);
        // All commands are sent, so that a failure leaves as little as possible to be zeroed.
        let failed = pages.chunks(most).filter(|pages| !self.command(pages)).count();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safeguard_is_left_out_once_and_no_other_with_it() {
        for out in Safeguard::ALL {
            let left = Safeguards::ALL.without(out);
            assert_eq!(left.without(out), left);
            assert!(Safeguard::ALL.iter().all(|&safeguard| left.has(safeguard) == (safeguard != out)));
        }
    }
}
