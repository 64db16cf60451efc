//! Which codec a page gets: a rule from its temperature and a budget, and moving an object down the ladder.

use super::{Codec, DecodeError, EncodeError, Encoded, Scratch, Tag, decode, encode_as};

/// How soon a page is expected to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Temperature {
    /// Soon: what counts is the time to encode and decode. [`Codec::Fast`].
    Hot,
    /// Perhaps: encoding may take longer, decoding may not. [`Codec::Dense`].
    Warm,
    /// Hardly: what counts is the size, and a little the time. [`Codec::Entropy`].
    Cold,
    /// Most likely not: what counts is the size. [`Codec::Deep`].
    Frozen,
}

impl Temperature {
    /// The codec that suits.
    pub const fn codec(self) -> Codec {
        match self {
            Self::Hot => Codec::Fast,
            Self::Warm => Codec::Dense,
            Self::Cold => Codec::Entropy,
            Self::Frozen => Codec::Deep,
        }
    }
}

/// The rule by which a page gets its codec.
///
/// 1. A page of one repeated word is *same-filled*, whatever its temperature.
/// 2. Else it gets the codec of its temperature, if the object is at least the least gain smaller than the page.
/// 3. Else it stays *raw*: an object that saves next to nothing costs a decode all the same.
///
/// An object is encoded again only for a colder codec than the one it has, and is kept if that does not save the least
/// gain once more. So an object moves three times at the most, and a raw or same-filled one never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// In 256ths of the page.
    least_gain: u8,
}

/// Why an object was not encoded again. It is as good as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReencodeError {
    /// The object does not decode.
    Decode(DecodeError),
    /// The page it decodes to was not taken.
    Encode(EncodeError),
}

impl core::fmt::Display for ReencodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Decode(error) => error.fmt(f),
            Self::Encode(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ReencodeError {}

impl Ladder {
    /// The ladder that asks for a gain of 12/256 of a page: 3,904 bytes at the most of 4,096.
    pub const STANDARD: Self = Self::with_least_gain(12);

    /// A ladder whose least gain is so many 256ths of a page.
    pub const fn with_least_gain(per_256: u8) -> Self {
        Self { least_gain: per_256 }
    }

    /// The most bytes that a compressed object of a page of `page` bytes may have.
    pub const fn budget(self, page: usize) -> usize {
        page - page / 256 * self.least_gain as usize
    }

    /// Encodes a page for its temperature, by the rule of the type.
    ///
    /// # Errors
    ///
    /// [`EncodeError::PageSize`], or [`EncodeError::TooLarge`] if `out` has no room for what the rule chose.
    pub fn encode(
        self,
        temperature: Temperature,
        page: &[u8],
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<Encoded, EncodeError> {
        match encode_as(Codec::Same, page, out, scratch) {
            Err(EncodeError::NotSame) => {}
            done => return done,
        }
        let room = out.len().min(self.budget(page.len()));
        match encode_as(temperature.codec(), page, &mut out[..room], scratch) {
            Err(EncodeError::TooLarge { .. }) => encode_as(Codec::Raw, page, out, scratch),
            done => done,
        }
    }

    /// Encodes an object again for a colder temperature, into `out`; `None` if the rule keeps it as it is.
    ///
    /// `page` is working memory of the length of the page.
    ///
    /// # Errors
    ///
    /// [`ReencodeError`]; the object is untouched.
    pub fn reencode(
        self,
        tag: Tag,
        object: &[u8],
        temperature: Temperature,
        page: &mut [u8],
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<Option<Encoded>, ReencodeError> {
        let codec = temperature.codec();
        if matches!(tag.codec(), Codec::Same | Codec::Raw) || codec <= tag.codec() {
            return Ok(None);
        }
        decode(tag, object, page, scratch).map_err(ReencodeError::Decode)?;
        let gain = page.len() / 256 * usize::from(self.least_gain);
        let room = out.len().min(object.len().saturating_sub(gain));
        match encode_as(codec, page, &mut out[..room], scratch) {
            Ok(object) => Ok(Some(object)),
            Err(EncodeError::TooLarge { .. }) => Ok(None),
            Err(error) => Err(ReencodeError::Encode(error)),
        }
    }
}

impl Default for Ladder {
    fn default() -> Self {
        Self::STANDARD
    }
}
