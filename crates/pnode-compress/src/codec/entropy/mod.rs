//! The entropy codec: LZ sequences under prefix codes, for pages that have gone cold.
//!
//! LZ4 spends whole bytes on literals, lengths and distances. In memory pages all three are very uneven: half of the
//! literals are a dozen values, lengths and gaps follow the records, and distances are multiples of 8 or repeat. A prefix
//! code for literals, another for tokens (a kind of distance and classes of both lengths), and a few extra bits take a
//! quarter off, a thorough search a third.
//!
//! A page is small, so what counts besides is what a code costs before its first symbol:
//! - tokens have codes that come with the format (`trained`), whose tables are constants;
//! - so do the literals of most pages (`known`); others have one code of their own, whose lengths are found without sorting or
//!   a tree, are described under codes that come with the format too, and fill a decoding table from one end to the other
//!   (`lengths`);
//! - literals and tokens lie in several streams, which a decoder reads side by side: one alone would wait for its table;
//! - extra bits have a fixed number for each token, so that a decoder splits sequences without a branch (`token`).
//!
//! A page is cut in parts of 4 KiB with their own codes, so every structure fits the scratch. `FORMATS.md` has the
//! format byte by byte.

mod bits;
mod decode;
mod deep;
mod encode;
mod known;
mod lengths;
mod parse;
mod token;
mod trained;

use super::{DecodeError, Fault, Scratch, Transform};
use encode::Source;

/// The bytes of a part.
pub(super) const PART: usize = 4096;

/// The streams of literals. With fewer a decoder would wait for the table more than it works.
const STREAMS: usize = 8;

/// How hard an encoder searches for repeats. A decoder is the same for all.
#[derive(Clone, Copy)]
pub(super) enum Effort {
    /// One probe a position.
    Quick,
    /// Three probes a position, and a look at the next one.
    Thorough,
}

impl Effort {
    /// A code that comes with the format is taken if it costs no more than one part in so many more: it costs no time, and
    /// is a table less to make for each decoder.
    fn patience(self) -> usize {
        match self {
            Self::Quick => 16,
            Self::Thorough => 64,
        }
    }
}

/// What the code of literals is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Code {
    /// There is none.
    #[default]
    Raw,
    /// One that is described, under this set of codes of marks.
    Described(usize),
    /// That of a set that comes with the format.
    Known(usize),
}

/// The head of a coded part.
#[derive(Default)]
struct Head {
    /// How many literals there are.
    literals: usize,
    /// How many sequences there are.
    sequences: usize,
    /// The set of the codes of tokens.
    token_set: usize,
    /// What the code of literals is.
    code: Code,
    /// How many literals are not coded, in front of those that are; a multiple of [`RAW_UNIT`](Self::RAW_UNIT).
    raw: usize,
    /// The bytes of the streams of literals, then of the two of tokens.
    sizes: [usize; STREAMS + 2],
    /// Bits without a meaning, all 0.
    spare: usize,
}

impl Head {
    /// The length of a head in bytes.
    const BYTES: usize = 4 + 13;
    /// The bits of each of the sizes.
    const SIZE_BITS: u32 = 10;
    /// What the number of literals that are not coded is counted in.
    const RAW_UNIT: usize = 256;

    fn read(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, rest @ ..] = *bytes;
        let word = u32::from_le_bytes([a, b, c, d]) as usize;
        let mut all = [0; 16];
        all[..rest.len()].copy_from_slice(&rest);
        let mut rest = u128::from_le_bytes(all);
        let sizes = [(); STREAMS + 2].map(|()| {
            let size = rest as usize & ((1 << Self::SIZE_BITS) - 1);
            rest >>= Self::SIZE_BITS;
            size
        });
        // Bit 27, the set of marks, and the set that comes with the format.
        let (code, spare) = match (word >> 27 & 1, word >> 25 & 3, rest as usize) {
            (1, set, 0) => (Code::Described(set), 0),
            (1, 0, known @ 1..=known::SETS) => (Code::Known(known - 1), 0),
            (_, _, spare) => (Code::Raw, spare),
        };
        Self {
            literals: word & 0x1FFF,
            sequences: word >> 13 & 0x3FF,
            token_set: word >> 23 & 3,
            code,
            raw: (word >> 28) * Self::RAW_UNIT,
            sizes,
            spare,
        }
    }

    fn write(&self, bytes: &mut [u8; Self::BYTES]) {
        let (description, known) = match self.code {
            Code::Raw => (0, 0),
            Code::Described(set) => (4 | set, 0),
            Code::Known(set) => (4, set + 1),
        };
        let description = description << 25;
        let raw = (self.raw / Self::RAW_UNIT) << 28;
        let word = self.literals | self.sequences << 13 | self.token_set << 23 | description | raw;
        let sizes = self
            .sizes
            .iter()
            .rev()
            .fold(known as u128, |sizes, &size| sizes << Self::SIZE_BITS | size as u128);
        let (first, rest) = bytes.split_at_mut(4);
        first.copy_from_slice(&(word as u32).to_le_bytes());
        rest.copy_from_slice(&sizes.to_le_bytes()[..rest.len()]);
    }
}

/// Encodes `page` at the start of `out`; `None` if it would pass `out.len()`.
pub(super) fn encode(
    effort: Effort,
    transform: Transform,
    page: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Option<usize> {
    let mut end = 0;
    let parts = page.len() / PART;
    for (index, part) in page.chunks_exact(PART).enumerate() {
        // The last part ends where the object does, so only the others say how long they are.
        let start = end + if index + 1 < parts { 2 } else { 0 };
        let room = out.len().min(start + PART - 1);
        let part: &[u8; PART] = part.try_into().ok()?;
        let coded =
            out.get_mut(start..room).and_then(|out| encode_part(effort, transform, part, out, scratch));
        let len = match coded {
            Some(len) => len,
            None => {
                out.get_mut(start..start + PART)?.copy_from_slice(part);
                PART
            }
        };
        if index + 1 < parts {
            out[end..start].copy_from_slice(&(len as u16).to_le_bytes());
        }
        end = start + len;
    }
    Some(end)
}

#[inline(never)]
fn encode_part(
    effort: Effort,
    transform: Transform,
    part: &[u8; PART],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Option<usize> {
    let Scratch { table, links, bytes } = scratch;
    let plain = transform == Transform::None;
    if !plain {
        transform.apply(part, bytes);
    }
    let source = if plain { part } else { &*bytes };
    let sequences = match effort {
        // The thorough search finds short repeats, in planes of noise by accident.
        Effort::Thorough if transform.is_planes() => parse::quick(source, table, links),
        Effort::Quick => parse::quick(source, table, links),
        Effort::Thorough => deep::thorough(source, table, links),
    };
    let source = if plain { Source::Part(part, bytes) } else { Source::Memory(bytes) };
    encode::encode(sequences, source, effort, transform.plane(), out, table)
}

/// Decodes an object of [`encode`].
pub(super) fn decode(
    transform: Transform,
    object: &[u8],
    page: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), DecodeError> {
    let mut at = 0;
    let parts = page.len() / PART;
    for (index, page) in page.chunks_exact_mut(PART).enumerate() {
        let mut len = object.len() - at;
        if index + 1 < parts {
            let Some(head) = object[at..].first_chunk::<2>() else {
                return Err(DecodeError::new(Fault::Truncated, at));
            };
            (len, at) = (usize::from(u16::from_le_bytes(*head)), at + 2);
        }
        let Some(coded) = object.get(at..at + len) else {
            return Err(DecodeError::new(Fault::Truncated, at));
        };
        if len == PART {
            page.copy_from_slice(coded);
        } else {
            decode::decode(coded, page, scratch).map_err(|e| DecodeError::new(e.fault(), at + e.at()))?;
            if transform != Transform::None {
                scratch.bytes.copy_from_slice(page);
                transform.undo(&scratch.bytes, page);
            }
        }
        at += len;
    }
    Ok(())
}
