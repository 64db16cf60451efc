//! The working memory of the codecs.

/// Working memory of an encoder or a decoder: one a worker, 16 KiB, reused from call to call.
///
/// No call reads what an earlier one left here, so the result of a call depends on its arguments alone.
#[repr(C, align(64))]
pub struct Scratch {
    /// Positions by hash, or decoding tables.
    pub(crate) table: [u16; 4096],
    /// Sequences waiting for their codes (entropy).
    pub(crate) links: [u16; 2048],
    /// Positions by a second hash (dense), the transformed part of a page, or the lengths of codes.
    pub(crate) bytes: [u8; 4096],
}

impl Scratch {
    /// The size of a scratch in bytes.
    pub const BYTES: usize = 16 << 10;

    /// A scratch for any codec and any page size.
    pub const fn new() -> Self {
        Self { table: [0; 4096], links: [0; 2048], bytes: [0; 4096] }
    }
}

const _: () = assert!(size_of::<Scratch>() == Scratch::BYTES);

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Scratch(16 KiB)")
    }
}
