//! A line of text in a fixed buffer, so that logging allocates nothing and works in a panic.

use core::fmt;

/// A line under construction; what does not fit is cut off at the end of a whole character.
pub(crate) struct Line {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Line {
    /// A line of KTAP or a panic message; it lies on a stack of 16 KiB.
    const CAPACITY: usize = 240;

    pub(crate) fn of(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self { bytes: [0; Self::CAPACITY], len: 0 };
        // The only error there can be says that the rest did not fit.
        let _ = fmt::Write::write_fmt(&mut line, text);
        line
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let mut utf8 = [0; 4];
            let encoded = character.encode_utf8(&mut utf8).as_bytes();
            let end = self.len + encoded.len();
            let Some(free) = self.bytes.get_mut(self.len..end) else {
                return Err(fmt::Error);
            };
            free.copy_from_slice(encoded);
            self.len = end;
        }
        Ok(())
    }
}
