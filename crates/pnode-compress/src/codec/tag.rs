//! The one byte that says how an object is encoded.

use core::fmt;

use super::Transform;

/// How an object is encoded: a byte kept beside the object, never inside it.
///
/// Bits 0 to 2 are the [`Codec`], bits 3 to 5 the transform, bits 6 and 7 the version of the formats (1). So 0 is no
/// tag, and a table of zeroes holds none. `FORMATS.md` describes what each tag's bytes mean.
///
/// # Invariants
///
/// - **T1** The byte is one that [`Tag::from_byte`] accepts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(u8);

/// The family of an object's encoding, without its transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// One 8-byte word repeated; the object is that word.
    Same = 1,
    /// An LZ4 block from the quick encoder.
    Fast = 2,
    /// An LZ4 block from the thorough encoder; same format as [`Fast`](Self::Fast).
    Dense = 3,
    /// LZ sequences under prefix codes, from the quick encoder.
    Entropy = 4,
    /// LZ sequences under prefix codes, from the thorough encoder; same format as [`Entropy`](Self::Entropy).
    Deep = 5,
    /// The page itself.
    Raw = 7,
}

impl Codec {
    /// All codecs, by the byte they are tagged with.
    pub const ALL: [Self; 6] = [Self::Same, Self::Fast, Self::Dense, Self::Entropy, Self::Deep, Self::Raw];
}

/// A byte that is no tag, or one of another version of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownTag {
    /// The byte.
    pub byte: u8,
}

impl fmt::Display for UnknownTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:#04x} is no tag of format version {}: the table is damaged or newer",
            self.byte,
            Tag::VERSION
        )
    }
}

impl core::error::Error for UnknownTag {}

impl Tag {
    /// The version of the formats that this crate writes and reads.
    pub const VERSION: u8 = 1;

    /// The tag of a codec without a transform.
    pub const fn plain(codec: Codec) -> Self {
        // INVARIANT: T1: version, no transform and a codec.
        Self(Self::VERSION << 6 | codec as u8)
    }

    /// The tag of a codec over a transform; `None` if it is one that does not code transformed pages.
    pub const fn transformed(codec: Codec, transform: Transform) -> Option<Self> {
        match (codec, transform) {
            // INVARIANT: T1: version, transform and a codec that has any.
            (Codec::Entropy | Codec::Deep, _) => {
                Some(Self(Self::VERSION << 6 | (transform as u8) << 3 | codec as u8))
            }
            (_, Transform::None) => Some(Self::plain(codec)),
            _ => None,
        }
    }

    /// The tag with this byte.
    ///
    /// # Errors
    ///
    /// [`UnknownTag`] if no encoder of this version writes it.
    pub const fn from_byte(byte: u8) -> Result<Self, UnknownTag> {
        let mut i = 0;
        while i < Codec::ALL.len() * Transform::ALL.len() {
            let (codec, transform) = (Codec::ALL[i % Codec::ALL.len()], Transform::ALL[i / Codec::ALL.len()]);
            match Self::transformed(codec, transform) {
                Some(tag) if tag.0 == byte => return Ok(tag),
                _ => i += 1,
            }
        }
        Err(UnknownTag { byte })
    }

    /// The byte of this tag.
    #[inline]
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// The family of the encoding.
    #[inline]
    pub const fn codec(self) -> Codec {
        match self.0 & 7 {
            1 => Codec::Same,
            2 => Codec::Fast,
            3 => Codec::Dense,
            4 => Codec::Entropy,
            5 => Codec::Deep,
            // By T1 no other value is left.
            _ => Codec::Raw,
        }
    }

    /// What was done to the page before it was coded.
    #[inline]
    pub const fn transform(self) -> Transform {
        match self.0 >> 3 & 7 {
            1 => Transform::Delta,
            2 => Transform::Planes2,
            3 => Transform::Planes4,
            4 => Transform::Planes8,
            // By T1 no other value is left.
            _ => Transform::None,
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transform() {
            Transform::None => write!(f, "{:?}", self.codec()),
            transform => write!(f, "{:?}({transform:?})", self.codec()),
        }
    }
}
