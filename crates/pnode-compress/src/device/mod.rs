//! A model of a device that compresses what is written to it: to test a service against what it must never let happen.
//!
//! The device seems to have many frames and has memory for some of their contents. It takes every write, for a copy gives
//! no feedback; a write that it has no memory for is dropped and the frame *poisoned*, and who reads it next takes the
//! error. That is what devices of this kind do (OCP hyperscale tiered memory expander). A freed page costs memory until
//! it is overwritten, zeroed or trimmed. There are totals to be asked for, no sizes of single pages; interrupts when
//! memory passes thresholds, some time later; a mailbox for trims with a queue, in which commands take time, fail, hang,
//! or are carried out without an answer; and a ring that names frames which are read often.
//!
//! Sizes are real: the contents are compressed with this crate's fast codec, in units of cache lines or larger. The
//! model is deterministic, takes its chances from a seed, and gets the time as a value.
//!
//! [`DeviceMedium`] is the medium over it, with the safeguards that keep it from being overrun, each of which can be
//! left out to see it overrun.

mod mailbox;
mod medium;
mod threshold;

pub use mailbox::{Answer, MAILBOX_DEPTH, MailboxConfig, SendError, Ticket};
pub use medium::{DeviceMedium, Safeguard, Safeguards};
pub use threshold::{Edge, Interrupt, LEVELS, Threshold};

use core::fmt;

use pnode_core::PageSize;

use crate::codec::{self, Codec, Scratch};
use mailbox::Mailbox;
use threshold::Alarms;

/// What a device is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Bytes of memory for compressed contents.
    pub physical: u64,
    /// The size of a page.
    pub page: PageSize,
    /// Compressed contents take whole units of this many bytes: 64 for a cache line.
    pub unit: u32,
    /// The thresholds of free memory at which interrupts are raised, by convention the mildest first.
    pub thresholds: [Option<Threshold>; LEVELS],
    /// How long an interrupt takes to arrive, in the units of the caller's time.
    pub latency: u64,
    /// How much longer it may take, by chance.
    pub jitter: u64,
    /// How trim commands fare.
    pub mailbox: MailboxConfig,
    /// Reads of a frame after which it is named as hot.
    pub hot_after: u32,
    /// What chances are taken from.
    pub seed: u64,
}

impl DeviceConfig {
    /// A device of 4 KiB pages with `physical` bytes, units of 64 bytes, one threshold at a sixteenth, and no failures.
    pub const fn new(physical: u64) -> Self {
        Self {
            physical,
            page: PageSize::KIB4,
            unit: 64,
            thresholds: [Some(Threshold { below: physical / 16, above: physical / 8 }), None, None, None],
            latency: 4,
            jitter: 0,
            mailbox: MailboxConfig::DEFAULT,
            hot_after: 16,
            seed: 1,
        }
    }
}

/// What the device keeps of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cell {
    size: u32,
    reads: u32,
    poisoned: bool,
}

/// What a device is lent.
#[derive(Debug)]
pub struct DeviceStorage<'m> {
    /// The contents of all frames: the number of frames times the page size.
    pub contents: &'m mut [u8],
    /// One for each frame.
    pub cells: &'m mut [Cell],
    /// Room for the frames that are named as hot.
    pub ring: &'m mut [u32],
    /// Room for the frames of waiting commands: [`MailboxConfig::words`].
    pub mailbox: &'m mut [u32],
    /// Working memory of the codec.
    pub scratch: &'m mut Scratch,
    /// Room for one page.
    pub buffer: &'m mut [u8],
}

/// The storage does not fit the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceError {
    /// Bytes of contents that were lent.
    pub contents: usize,
    /// Frames that were lent cells for.
    pub cells: usize,
    /// The length of the page buffer that was lent.
    pub buffer: usize,
    /// The words of mailbox that were lent.
    pub mailbox: usize,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contents, cells, buffer, mailbox } = self;
        write!(
            f,
            "{contents} bytes of contents, {cells} cells, a buffer of {buffer} bytes, {mailbox} words of mailbox: lend a page and a cell for each frame, a page, and what the mailbox asks for"
        )
    }
}

impl core::error::Error for DeviceError {}

/// A read that found a frame poisoned: what was written to it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poison {
    /// The frame.
    pub frame: u32,
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {} is poisoned: what was written to it was lost", self.frame)
    }
}

impl core::error::Error for Poison {}

/// The device; see the [module](self).
pub struct Device<'m> {
    config: DeviceConfig,
    storage: DeviceStorage<'m>,
    used: u64,
    overruns: u64,
    chance: u64,
    alarms: Alarms,
    mailbox: Mailbox,
    hot: usize,
}

impl<'m> Device<'m> {
    /// A device whose frames all hold zeroes.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if the storage does not fit.
    pub fn new(config: DeviceConfig, storage: DeviceStorage<'m>) -> Result<Self, DeviceError> {
        let (contents, cells, buffer) = (storage.contents.len(), storage.cells.len(), storage.buffer.len());
        let mailbox = storage.mailbox.len();
        let page = config.page.bytes();
        if cells == 0
            || cells > u32::MAX as usize
            || cells.checked_mul(page) != Some(contents)
            || buffer < page
            || mailbox < config.mailbox.words()
        {
            return Err(DeviceError { contents, cells, buffer, mailbox });
        }
        storage.contents.fill(0);
        storage.cells.fill(Cell::default());
        Ok(Self {
            config,
            storage,
            used: 0,
            overruns: 0,
            chance: config.seed,
            alarms: Alarms::default(),
            mailbox: Mailbox::default(),
            hot: 0,
        })
    }

    /// What the device is like.
    pub fn config(&self) -> &DeviceConfig {
        &self.config
    }

    /// Bytes in use: what the device answers when it is asked.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Writes that were dropped for want of memory.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// The compressed size of a frame's contents. Real devices do not tell; for tests.
    pub fn size(&self, frame: u32) -> u32 {
        self.storage.cells.get(frame as usize).map_or(0, |cell| cell.size)
    }

    /// Writes a page at time `now`. There is no answer: if there is no memory, the next reader hears of it. Frames that
    /// the device does not have take writes and keep nothing.
    pub fn write(&mut self, frame: u32, page: &[u8], now: u64) {
        self.run(now);
        let bytes = self.config.page.bytes();
        let Some(cell) = self.storage.cells.get_mut(frame as usize) else { return };
        let Some(page) = page.get(..bytes) else { return };
        let encoded = codec::encode(page, &mut self.storage.buffer[..bytes], self.storage.scratch);
        let size = match encoded {
            Ok(object) if object.tag().codec() == Codec::Same => 0,
            Ok(object) => (object.len() as u32).next_multiple_of(self.config.unit.max(1)).min(bytes as u32),
            Err(_) => bytes as u32,
        };
        let others = self.used - u64::from(cell.size);
        if others + u64::from(size) > self.config.physical {
            *cell = Cell { poisoned: true, ..Cell::default() };
            self.used = others;
            self.overruns += 1;
        } else {
            *cell = Cell { size, ..Cell::default() };
            self.used = others + u64::from(size);
            let start = frame as usize * bytes;
            self.storage.contents[start..start + bytes].copy_from_slice(page);
        }
        self.watch(now);
    }

    /// Reads a frame, as it is after the last call that told the time.
    ///
    /// # Errors
    ///
    /// [`Poison`] if what was written last was lost, or there is no such frame.
    pub fn read(&mut self, frame: u32, page: &mut [u8]) -> Result<(), Poison> {
        let bytes = self.config.page.bytes();
        let cell = self
            .storage
            .cells
            .get_mut(frame as usize)
            .filter(|cell| !cell.poisoned)
            .ok_or(Poison { frame })?;
        let start = frame as usize * bytes;
        page.get_mut(..bytes)
            .ok_or(Poison { frame })?
            .copy_from_slice(&self.storage.contents[start..start + bytes]);
        cell.reads = cell.reads.saturating_add(1);
        if cell.reads == self.config.hot_after {
            // A full ring drops what comes.
            if let Some(place) = self.storage.ring.get_mut(self.hot) {
                *place = frame;
                self.hot += 1;
            }
        }
        Ok(())
    }

    /// Overwrites a frame with zeroes.
    pub fn zero(&mut self, frame: u32, now: u64) {
        self.run(now);
        self.clear(frame, now);
    }

    fn clear(&mut self, frame: u32, now: u64) {
        let bytes = self.config.page.bytes();
        let Some(cell) = self.storage.cells.get_mut(frame as usize) else { return };
        self.used -= u64::from(cell.size);
        *cell = Cell::default();
        let start = frame as usize * bytes;
        self.storage.contents[start..start + bytes].fill(0);
        self.watch(now);
    }

    /// The interrupt that has arrived by `now`, if there is one: of several the one that arrived first.
    pub fn interrupt(&mut self, now: u64) -> Option<Interrupt> {
        self.run(now);
        self.alarms.arrived(now)
    }

    /// A frame that is read often, if one was named since the last call.
    pub fn hot(&mut self) -> Option<u32> {
        self.hot = self.hot.checked_sub(1)?;
        self.storage.ring.get(self.hot).copied()
    }

    fn watch(&mut self, now: u64) {
        let DeviceConfig { physical, thresholds, latency, jitter, .. } = self.config;
        let mut alarms = self.alarms;
        alarms.watch(&thresholds, physical - self.used, now, || {
            latency.saturating_add(self.draw() % jitter.saturating_add(1))
        });
        self.alarms = alarms;
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.chance ^ self.chance >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

impl fmt::Debug for Device<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({} of {} bytes used, {} overruns)", self.used, self.config.physical, self.overruns)
    }
}
