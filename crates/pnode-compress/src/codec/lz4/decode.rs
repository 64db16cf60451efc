//! The decoder of LZ4 blocks.
//!
//! Two loops share the state of a decode. The quick one runs while a sequence of ordinary length cannot reach the end
//! of either slice, so that it copies fixed amounts and tests little; the careful one takes what is left: long runs,
//! and the last sequences. Both hold every field to the same limits.

use super::{LAST_LITERALS, MATCH_LIMIT, MIN_MATCH};
use crate::codec::reach::{copy_match, decode_quickly, length};
use crate::codec::{DecodeError, Fault};

/// Decodes an LZ4 block that fills `page` exactly.
///
/// # Errors
///
/// [`DecodeError`] if the block breaks a rule of the format or does not fill the page.
pub fn decode(block: &[u8], page: &mut [u8]) -> Result<(), DecodeError> {
    let (mut at, mut end) = (0, 0);
    loop {
        (at, end) = decode_quickly(block, page, at, end)?;
        // One sequence that the quick loop does not reach.
        let token_at = at;
        let Some(&token) = block.get(at) else {
            return Err(DecodeError::new(Fault::Truncated, at));
        };
        at += 1;
        let literals = length(block, &mut at, usize::from(token >> 4), page.len())?;
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
            let fault = if end == page.len() { Fault::Trailing } else { Fault::Overrun };
            return Err(DecodeError::new(fault, at));
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
        let stop = end + length(block, &mut at, usize::from(token & 15), page.len())? + MIN_MATCH;
        if stop + LAST_LITERALS > page.len() {
            return Err(DecodeError::new(Fault::Overrun, distance_at));
        }
        copy_match(page, end, distance, stop);
        end = stop;
    }
}
