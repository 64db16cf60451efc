//! The entropy codec: LZ sequences under prefix codes, for pages that have gone cold.
//!
//! LZ4 spends whole bytes on literals, lengths and distances. In memory pages all three are very uneven: half of the
//! literals are a dozen values, lengths and gaps follow the records, and distances are multiples of 8 or repeat. One
//! prefix code each for literals, for the two lengths of a sequence together, and for distances takes a third off.
//!
//! A page is cut in parts of 4 KiB with their own codes, so every structure fits the scratch. `FORMATS.md` has the
//! format byte by byte.

mod bits;
mod huffman;
mod parse;
mod part;

use super::{DecodeError, Fault, Scratch, Transform};

/// The bytes of a part.
pub(super) const PART: usize = 4096;

/// Encodes `page` at the start of `out`; `None` if it would pass `out.len()`.
pub(super) fn encode(
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
        let Scratch { table, links, bytes } = scratch;
        let source = match transform {
            Transform::None => part,
            _ => {
                transform.apply(part, bytes);
                &*bytes
            }
        };
        let len = match out.get_mut(start..room).and_then(|out| part::encode(source, out, table, links)) {
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
            part::decode(coded, page, scratch).map_err(|e| DecodeError::new(e.fault(), at + e.at()))?;
            if transform != Transform::None {
                scratch.bytes.copy_from_slice(page);
                transform.undo(&scratch.bytes, page);
            }
        }
        at += len;
    }
    Ok(())
}
