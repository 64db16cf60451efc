//! The caller's memory as atomic words. This is the only module with unsafe code.
#![allow(unsafe_code)]

use core::fmt;

use pnode_core::sync::AtomicU64;

use crate::error::ZoneError;

/// A cache line of metadata: eight words, aligned to 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line([u64; Line::WORDS]);

impl Line {
    /// Words in a line.
    pub const WORDS: usize = 8;
    /// A line of zeros: all free.
    pub const ZERO: Self = Self([0; Self::WORDS]);

    #[cfg(all(test, not(loom)))]
    pub(crate) fn words_mut(&mut self) -> &mut [u64; Self::WORDS] {
        &mut self.0
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::ZERO
    }
}

/// The memory that a zone keeps its books in: borrowed from the caller for `'m`.
///
/// All-zero lines describe a zone that is free from end to end, so memory that is known to be zero (fresh from an
/// operating system, a `static`) needs no pass over it.
pub struct Metadata<'m> {
    words: Words<'m>,
}

impl<'m> Metadata<'m> {
    /// Metadata in `lines`, which are set to zero: `O(lines)`.
    pub fn zeroed(lines: &'m mut [Line]) -> Self {
        lines.fill(Line::ZERO);
        Self::assume_zeroed(lines)
    }

    /// Metadata in `lines` that are zero already.
    ///
    /// Nothing unsafe happens if they are not, but the zone will start with frames allocated that nobody holds, or
    /// with books that [`Zone::audit`](crate::Zone::audit) refutes.
    pub fn assume_zeroed(lines: &'m mut [Line]) -> Self {
        Self { words: Words::borrowed(lines) }
    }

    /// Metadata in which a zone kept its books, for [`Zone::recover`](crate::Zone::recover).
    pub fn kept(lines: &'m mut [Line]) -> Self {
        Self { words: Words::borrowed(lines) }
    }

    /// Metadata in raw bytes, for a caller that has an address and a length: they are set to zero.
    ///
    /// # Errors
    ///
    /// [`ZoneError::Misaligned`] unless the bytes start at a multiple of 64.
    pub fn from_bytes(bytes: &'m mut [u8]) -> Result<Self, ZoneError> {
        bytes.fill(0);
        // SAFETY: every bit pattern is a valid `Line`.
        let (before, lines, _) = unsafe { bytes.align_to_mut::<Line>() };
        if before.is_empty() {
            Ok(Self::assume_zeroed(lines))
        } else {
            Err(ZoneError::Misaligned { bytes: align_of::<Line>() - before.len() })
        }
    }

    pub(crate) fn into_words(self, lines: usize) -> Result<Words<'m>, ZoneError> {
        let given = self.words.len() / Line::WORDS;
        if given < lines {
            return Err(ZoneError::MetadataTooSmall { needed: lines, given });
        }
        Ok(self.words)
    }
}

#[cfg(all(feature = "alloc", not(loom)))]
impl Metadata<'static> {
    /// Metadata of `lines` lines on the heap, zeroed; freed with the zone.
    pub fn boxed(lines: usize) -> Self {
        Self { words: Words::owned(lines) }
    }
}

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({} words)", self.words.len())
    }
}

#[cfg(not(loom))]
pub(crate) use core_words::Words;
#[cfg(loom)]
pub(crate) use loom_words::Words;

#[cfg(not(loom))]
mod core_words {
    use core::marker::PhantomData;
    use core::ptr::NonNull;

    use super::{AtomicU64, Line};

    /// Atomic words over the metadata.
    ///
    /// # Invariants
    ///
    /// - **M1** `base` points to `len` initialised words that for `'m` are accessed through this value only.
    /// - **M2** if `owned`, the words are those of a leaked `Box<[Line]>` of `len / Line::WORDS` lines.
    pub(crate) struct Words<'m> {
        base: NonNull<AtomicU64>,
        len: usize,
        #[cfg(feature = "alloc")]
        owned: bool,
        _lines: PhantomData<&'m [AtomicU64]>,
    }

    // SAFETY: by M1 the value is a `&'m [AtomicU64]`, which may be sent.
    unsafe impl Send for Words<'_> {}
    // SAFETY: as above; atomics may be shared.
    unsafe impl Sync for Words<'_> {}

    impl<'m> Words<'m> {
        pub(crate) fn borrowed(lines: &'m mut [Line]) -> Self {
            let len = lines.len() * Line::WORDS;
            // INVARIANT: M1 holds because the lines are borrowed mutably for `'m`, a line is eight words, and an
            // `AtomicU64` is laid out as a `u64`; M2 does not apply.
            Self {
                base: NonNull::from(lines).cast(),
                len,
                #[cfg(feature = "alloc")]
                owned: false,
                _lines: PhantomData,
            }
        }

        #[cfg(feature = "alloc")]
        pub(crate) fn owned(lines: usize) -> Self {
            let lines = alloc::boxed::Box::leak(alloc::vec![Line::ZERO; lines].into_boxed_slice());
            // INVARIANT: M1 as for borrowed lines, M2 because they were just leaked from a box.
            Self { owned: true, ..Self::borrowed(lines) }
        }

        #[inline]
        pub(crate) const fn len(&self) -> usize {
            self.len
        }

        /// The word at `index`.
        #[inline(always)]
        pub(crate) fn at(&self, index: usize) -> &AtomicU64 {
            #[cfg(test)]
            crate::recover::crash::tick();
            assert!(index < self.len, "metadata index inside the geometry");
            // SAFETY: `index` is below `len`, so by M1 the address is inside the words.
            let word = unsafe { self.base.add(index) };
            // SAFETY: by M1 the word is initialised and valid for as long as `self`.
            unsafe { word.as_ref() }
        }
    }

    #[cfg(feature = "alloc")]
    impl Drop for Words<'_> {
        fn drop(&mut self) {
            if self.owned {
                let lines = core::ptr::slice_from_raw_parts_mut(
                    self.base.as_ptr().cast::<Line>(),
                    self.len / Line::WORDS,
                );
                // SAFETY: by M2 the words came from a box of this length, and nobody uses them after the drop.
                drop(unsafe { alloc::boxed::Box::from_raw(lines) });
            }
        }
    }
}

#[cfg(loom)]
mod loom_words {
    extern crate std;

    use core::marker::PhantomData;

    use super::{AtomicU64, Line};

    /// loom's atomics are larger than words, so a model keeps its own copies.
    pub(crate) struct Words<'m> {
        words: std::vec::Vec<AtomicU64>,
        _lines: PhantomData<&'m ()>,
    }

    impl<'m> Words<'m> {
        pub(crate) fn borrowed(lines: &'m mut [Line]) -> Self {
            let words = lines.iter().flat_map(|line| line.0).map(AtomicU64::new).collect();
            Self { words, _lines: PhantomData }
        }

        pub(crate) fn len(&self) -> usize {
            self.words.len()
        }

        pub(crate) fn at(&self, index: usize) -> &AtomicU64 {
            &self.words[index]
        }
    }
}
