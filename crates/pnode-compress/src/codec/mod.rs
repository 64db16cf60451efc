//! Page codecs: a page in, an object of as few bytes as its temperature is worth out, and back.
//!
//! An object is a run of bytes and a [`Tag`] kept beside it. [`encode`] tries the codecs that cost a hot path nothing:
//! *same-filled* (one word repeated), *fast* (an LZ4 block), and *raw* when neither gains. [`encode_as`] asks for one
//! codec. [`decode`] reads every object. A [`Ladder`] picks the codec by the temperature of the page, and
//! encodes an object again when it has cooled.
//!
//! Each call works on memory that the caller owns: the page, the output and a [`Scratch`] of 16 KiB. The room given for
//! output is the budget: an encoder stops as soon as the object would pass it.
//!
//! [`decode`] is total. Whatever the bytes, it fills the page or says what is wrong and where, in time linear in the
//! page, and reads and writes nothing but the slices it was given. A *wrong* object may still decode: to notice that
//! bytes were changed is the work of a checksum, which the store keeps.
//!
//! The formats are described byte by byte in `FORMATS.md` beside this crate's manifest.

mod entropy;
mod error;
mod ladder;
pub mod lz4;
mod reach;
mod same;
mod scratch;
mod tag;
mod transform;

pub use error::{DecodeError, EncodeError, Fault};
pub use ladder::{Ladder, ReencodeError, Temperature};
pub use same::same_filled;
pub use scratch::Scratch;
pub use tag::{Codec, Tag, UnknownTag};
pub use transform::Transform;

use entropy::Effort;
use pnode_core::PageSize;

/// An object that an encoder wrote to the start of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    tag: Tag,
    len: usize,
}

impl Encoded {
    /// How the object is encoded; [`decode`] needs it.
    #[inline]
    pub const fn tag(self) -> Tag {
        self.tag
    }

    /// The length of the object in bytes; never more than the page, nor 0.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "an object is never empty")]
    pub const fn len(self) -> usize {
        self.len
    }
}

/// Encodes a page for memory that is written and read often: same-filled, fast, or raw.
///
/// `page` is 4 to 64 KiB, a power of two. `out.len()` is the budget. With room for the whole page the call cannot fail,
/// as the page is kept raw when the fast codec does not gain; with less room the caller says what an object may cost.
///
/// ```
/// use pnode_compress::codec::{Scratch, decode, encode};
///
/// let page = [*b"a line in a log\n"; 256].concat();
/// let (mut out, mut scratch) = ([0; 4096], Scratch::new());
/// let object = encode(&page, &mut out, &mut scratch)?;
/// assert!(object.len() < 100);
///
/// let mut back = [0; 4096];
/// decode(object.tag(), &out[..object.len()], &mut back, &mut scratch)?;
/// assert_eq!(page, back);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`EncodeError::PageSize`], or [`EncodeError::TooLarge`] if no object fits `out`.
pub fn encode(page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Result<Encoded, EncodeError> {
    match encode_as(Codec::Same, page, out, scratch) {
        Err(EncodeError::NotSame) => {}
        done => return done,
    }
    // An object as long as the page would gain nothing and cost a decode.
    let room = out.len().min(page.len() - 1);
    match encode_as(Codec::Fast, page, &mut out[..room], scratch) {
        Err(EncodeError::TooLarge { .. }) => encode_as(Codec::Raw, page, out, scratch),
        done => done,
    }
}

/// Encodes a page with one codec, or says that it does not fit.
///
/// # Errors
///
/// [`EncodeError::PageSize`]; [`EncodeError::TooLarge`] if the object would pass `out.len()`; and
/// [`EncodeError::NotSame`] if [`Codec::Same`] was asked for a page that is not same-filled.
pub fn encode_as(
    codec: Codec,
    page: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<Encoded, EncodeError> {
    if PageSize::from_bytes(page.len()).is_none() {
        return Err(EncodeError::PageSize { bytes: page.len() });
    }
    let too_large = EncodeError::TooLarge { room: out.len() };
    let len = match codec {
        Codec::Same => {
            let word = same_filled(page).ok_or(EncodeError::NotSame)?;
            out.first_chunk_mut::<8>().ok_or(too_large)?.copy_from_slice(&word.to_ne_bytes());
            8
        }
        Codec::Fast => lz4::encode_fast(page, out, scratch).ok_or(too_large)?,
        Codec::Dense => lz4::encode_dense(page, out, scratch).ok_or(too_large)?,
        Codec::Entropy | Codec::Deep => {
            return encode_entropy(codec, page, out, scratch).ok_or(too_large);
        }
        Codec::Raw => {
            out.get_mut(..page.len()).ok_or(too_large)?.copy_from_slice(page);
            page.len()
        }
    };
    Ok(Encoded { tag: Tag::plain(codec), len })
}

/// Out of line, so that its frame is not on the stack of every codec.
#[inline(never)]
fn encode_entropy(codec: Codec, page: &[u8], out: &mut [u8], scratch: &mut Scratch) -> Option<Encoded> {
    let transform = Transform::choose(page);
    let effort = if codec == Codec::Deep { Effort::Thorough } else { Effort::Quick };
    let len = entropy::encode(effort, transform, page, out, scratch)?;
    let tag = Tag::transformed(codec, transform).unwrap_or(Tag::plain(codec));
    Some(Encoded { tag, len })
}

/// Decodes an object into the page that it was made from.
///
/// `page` has the length that was encoded. Only [`Codec::Entropy`] uses `scratch`; it is an argument of every call so
/// that a worker need not look at the tag.
///
/// # Errors
///
/// [`DecodeError`] if the object is not one that an encoder writes for such a page.
#[inline]
pub fn decode(tag: Tag, bytes: &[u8], page: &mut [u8], scratch: &mut Scratch) -> Result<(), DecodeError> {
    if PageSize::from_bytes(page.len()).is_none() {
        return Err(DecodeError::new(Fault::PageSize { bytes: page.len() }, 0));
    }
    let wrong_length = DecodeError::new(Fault::Length { bytes: bytes.len() }, 0);
    match tag.codec() {
        Codec::Same => same::fill(bytes.try_into().map_err(|_| wrong_length)?, page),
        Codec::Fast | Codec::Dense => lz4::decode(bytes, page)?,
        Codec::Entropy | Codec::Deep => entropy::decode(tag.transform(), bytes, page, scratch)?,
        Codec::Raw if bytes.len() == page.len() => page.copy_from_slice(bytes),
        Codec::Raw => return Err(wrong_length),
    }
    Ok(())
}
