//! The decoder of LZ4 blocks, in safe code.

use super::{LAST_LITERALS, MATCH_LIMIT, MIN_MATCH};
use crate::codec::{DecodeError, Fault};

/// Decodes an LZ4 block that fills `page` exactly.
///
/// # Errors
///
/// [`DecodeError`] if the block breaks a rule of the format or does not fill the page.
pub fn decode(block: &[u8], page: &mut [u8]) -> Result<(), DecodeError> {
    let (mut at, mut end) = (0, 0);
    loop {
        let token_at = at;
        let Some(&token) = block.get(at) else {
            return Err(DecodeError::new(Fault::Truncated, at));
        };
        at += 1;
        let literals = length(block, &mut at, usize::from(token >> 4))?;
        let (after, filled) = (at + literals, end + literals);
        let Some(run) = block.get(at..after) else {
            return Err(DecodeError::new(Fault::Truncated, token_at));
        };
        let Some(room) = page.get_mut(end..filled) else {
            return Err(DecodeError::new(Fault::Overrun, token_at));
        };
        room.copy_from_slice(run);
        (at, end) = (after, filled);
        if at == block.len() {
            return if end == page.len() { Ok(()) } else { Err(DecodeError::new(Fault::Short, at)) };
        }
        if end + MATCH_LIMIT > page.len() {
            return Err(DecodeError::new(
                if end == page.len() { Fault::Trailing } else { Fault::Overrun },
                at,
            ));
        }
        // After a match come a token and the last literals, so this many bytes are left in a whole block.
        if at + 2 + 1 + LAST_LITERALS > block.len() {
            return Err(DecodeError::new(Fault::Truncated, at));
        }
        let distance_at = at;
        let distance = usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
        at += 2;
        if distance == 0 || distance > end {
            return Err(DecodeError::new(Fault::Distance { distance }, distance_at));
        }
        let stop = end + length(block, &mut at, usize::from(token & 15))? + MIN_MATCH;
        if stop + LAST_LITERALS > page.len() {
            return Err(DecodeError::new(Fault::Overrun, distance_at));
        }
        copy_match(page, end, distance, stop);
        end = stop;
    }
}

/// The length that starts with the four bits `low` of a token and goes on at `at` if they are all set.
fn length(block: &[u8], at: &mut usize, low: usize) -> Result<usize, DecodeError> {
    let mut length = low;
    if low == 15 {
        loop {
            let Some(&more) = block.get(*at) else {
                return Err(DecodeError::new(Fault::Truncated, *at));
            };
            *at += 1;
            // At most 255 for each byte of a slice, so this cannot overflow.
            length += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    Ok(length)
}

/// Fills `page[end..stop]` with what lies `distance` bytes before, which may be bytes just written.
fn copy_match(page: &mut [u8], end: usize, distance: usize, stop: usize) {
    let (from, mut at) = (end - distance, end);
    while at < stop {
        // Everything from `from` to `at` repeats with the period `distance`, so each copy can double it.
        let step = (at - from).min(stop - at);
        page.copy_within(from..from + step, at);
        at += step;
    }
}
