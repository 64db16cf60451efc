//! Bit streams, least significant bit first.

/// Writes bits to a slice; a stream that does not fit is noticed at its end.
pub(super) struct BitWriter<'o> {
    out: &'o mut [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'o> BitWriter<'o> {
    pub(super) fn new(out: &'o mut [u8], at: usize) -> Self {
        Self { out, at, held: 0, count: 0 }
    }

    /// Appends the low `count` bits of `value`, at most 28, of which the others are 0.
    #[inline(always)]
    pub(super) fn put(&mut self, value: u32, count: u32) {
        self.held |= u64::from(value) << self.count;
        self.count += count;
        if self.count >= 32 {
            if let Some(room) = self.out.get_mut(self.at..self.at + 4) {
                room.copy_from_slice(&(self.held as u32).to_le_bytes());
            }
            self.at += 4;
            self.held >>= 32;
            self.count -= 32;
        }
    }

    /// Fills the last byte with zero bits; returns where the stream ends, or `None` if it passed its room.
    pub(super) fn finish(mut self) -> Option<usize> {
        while self.count > 0 {
            *self.out.get_mut(self.at)? = self.held as u8;
            self.at += 1;
            self.held >>= 8;
            self.count = self.count.saturating_sub(8);
        }
        (self.at <= self.out.len()).then_some(self.at)
    }
}

/// Reads bits from a slice; past the end come zero bits, which [`BitReader::is_past_end`] tells.
#[derive(Clone, Copy)]
pub(super) struct BitReader<'b> {
    bytes: &'b [u8],
    /// In bits.
    at: usize,
}

impl<'b> BitReader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits, 57 of them valid.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or(&[]);
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_le_bytes(*word),
            None => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        word >> (self.at % 8)
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    /// The next `count` bits, at most 32.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let value = self.peek() & ((1 << count) - 1);
        self.skip(count);
        value as u32
    }

    pub(super) fn is_past_end(&self) -> bool {
        self.at > self.bytes.len() * 8
    }

    /// The bytes of the stream.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where the next whole byte starts.
    pub(super) fn next_byte(&self) -> usize {
        self.at.div_ceil(8)
    }
}
