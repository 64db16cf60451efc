//! A model of a device that compresses what is written to it: to test a service against what it must never let happen.
//!
//! The device seems to have many frames and has memory for some of their contents. It takes every write, for a copy gives
//! no feedback; a write that it has no memory for is dropped and the frame *poisoned*, and who reads it next takes the
//! error. That is what devices of this kind do (OCP hyperscale tiered memory expander). A freed page costs memory until
//! it is overwritten, zeroed or trimmed. There are totals to be asked for, no sizes of single pages; an interrupt when
//! memory runs low, some time later; a mailbox for trims that takes so many ranges and may fail; and a ring that names
//! frames which are read often.
//!
//! Sizes are real: the contents are compressed with this crate's fast codec, in units of cache lines or larger. The
//! model is deterministic, takes its chances from a seed, and gets the time as a value.
//!
//! [`DeviceMedium`] is the medium over it, with the safeguards that keep it from being overrun, each of which can be
//! left out to see it overrun.

mod medium;

pub use medium::{DeviceMedium, Safeguard, Safeguards};

use core::fmt;

use pnode_core::PageSize;

use crate::codec::{self, Codec, Scratch};

/// What a device is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Bytes of memory for compressed contents.
    pub physical: u64,
    /// The size of a page.
    pub page: PageSize,
    /// Compressed contents take whole units of this many bytes: 64 for a cache line.
    pub unit: u32,
    /// With fewer free bytes than this, the interrupt [`Interrupt::Low`] is raised.
    pub low: u64,
    /// With more free bytes than this, [`Interrupt::Recovered`] is raised after a `Low`.
    pub recovered: u64,
    /// How long an interrupt takes to arrive, in the units of the caller's time.
    pub latency: u64,
    /// Ranges that one trim command takes.
    pub payload: usize,
    /// Trim commands that fail, in thousandths.
    pub failing: u32,
    /// Reads of a frame after which it is named as hot.
    pub hot_after: u32,
    /// What chances are taken from.
    pub seed: u64,
}

impl DeviceConfig {
    /// A device of 4 KiB pages with `physical` bytes, units of 64 bytes, an interrupt at one sixteenth, and no failures.
    pub const fn new(physical: u64) -> Self {
        Self {
            physical,
            page: PageSize::KIB4,
            unit: 64,
            low: physical / 16,
            recovered: physical / 8,
            latency: 4,
            payload: 64,
            failing: 0,
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
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contents, cells, buffer } = self;
        write!(
            f,
            "{contents} bytes of contents, {cells} cells, a buffer of {buffer} bytes: lend a page and a cell for each frame, and a page"
        )
    }
}

impl core::error::Error for DeviceError {}

/// A message of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Memory runs low.
    Low,
    /// There is memory again.
    Recovered,
}

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
    alarmed: bool,
    pending: Option<(Interrupt, u64)>,
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
        let page = config.page.bytes();
        if cells == 0
            || cells > u32::MAX as usize
            || cells.checked_mul(page) != Some(contents)
            || buffer < page
        {
            return Err(DeviceError { contents, cells, buffer });
        }
        storage.contents.fill(0);
        storage.cells.fill(Cell::default());
        Ok(Self {
            config,
            storage,
            used: 0,
            overruns: 0,
            chance: config.seed,
            alarmed: false,
            pending: None,
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

    /// Reads a frame.
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
        let bytes = self.config.page.bytes();
        let Some(cell) = self.storage.cells.get_mut(frame as usize) else { return };
        self.used -= u64::from(cell.size);
        *cell = Cell::default();
        let start = frame as usize * bytes;
        self.storage.contents[start..start + bytes].fill(0);
        self.watch(now);
    }

    /// Carries out a trim command: each of `frames` becomes zeroes. Returns the bytes in use afterwards, which the device
    /// sends with its answer; `None` if the command failed, and then nothing was trimmed.
    pub fn trim(&mut self, frames: impl ExactSizeIterator<Item = u32>, now: u64) -> Option<u64> {
        if frames.len() > self.config.payload || self.draw() % 1000 < self.config.failing.into() {
            return None;
        }
        frames.for_each(|frame| self.zero(frame, now));
        Some(self.used)
    }

    /// The interrupt that has arrived by `now`, if there is one.
    pub fn interrupt(&mut self, now: u64) -> Option<Interrupt> {
        let (interrupt, due) = self.pending?;
        if due > now {
            return None;
        }
        self.pending = None;
        Some(interrupt)
    }

    /// A frame that is read often, if one was named since the last call.
    pub fn hot(&mut self) -> Option<u32> {
        self.hot = self.hot.checked_sub(1)?;
        self.storage.ring.get(self.hot).copied()
    }

    fn watch(&mut self, now: u64) {
        let free = self.config.physical - self.used;
        let raised = match self.alarmed {
            false if free < self.config.low => Interrupt::Low,
            true if free > self.config.recovered => Interrupt::Recovered,
            _ => return,
        };
        self.alarmed = raised == Interrupt::Low;
        self.pending = Some((raised, now.saturating_add(self.config.latency)));
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
