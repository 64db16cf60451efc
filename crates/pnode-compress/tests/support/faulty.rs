//! A medium that fails by chance, and the chance.

use pnode_compress::cram::{Medium, ReadError, Resident, TrimFailed, Usage, WriteError};
use pnode_core::PageSize;

/// SplitMix64.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

/// A medium whose calls fail now and then.
pub(crate) struct Faulty<M> {
    pub(crate) inner: M,
    pub(crate) chance: Chance,
    /// Of a thousand calls so many fail.
    pub(crate) permille: u32,
    pub(crate) failed: u64,
}

impl<M> Faulty<M> {
    fn fails(&mut self) -> bool {
        let fails = self.chance.below(1000) < self.permille.into();
        self.failed += u64::from(fails);
        fails
    }
}

impl<M: Medium> Medium for Faulty<M> {
    fn page_size(&self) -> PageSize {
        self.inner.page_size()
    }

    fn write(&mut self, frame: u32, page: &[u8]) -> Result<(), WriteError> {
        if self.fails() {
            return Err(WriteError::Busy);
        }
        self.inner.write(frame, page)?;
        // Too late: what was written is there, and has to be scrubbed.
        if self.fails() { Err(WriteError::Full) } else { Ok(()) }
    }

    fn read(&mut self, frame: u32, page: &mut [u8]) -> Result<(), ReadError> {
        if self.fails() { Err(ReadError::Busy) } else { self.inner.read(frame, page) }
    }

    fn discard(&mut self, frame: u32) {
        self.inner.discard(frame);
    }

    fn open(&mut self, frame: u32) -> Result<(), WriteError> {
        if self.fails() { Err(WriteError::Full) } else { self.inner.open(frame) }
    }

    fn close(&mut self, frame: u32) {
        self.inner.close(frame);
    }

    fn trim(&mut self, pages: &[Resident]) -> Result<(), TrimFailed> {
        self.inner.trim(pages)?;
        // Carried out, and the answer was lost.
        if self.fails() { Err(TrimFailed) } else { Ok(()) }
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}
