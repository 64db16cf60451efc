//! Sequences of a part, executed.

use super::access::{load, store};
use super::copy_match;
use crate::codec::Fault;

/// By how much a sequence of ordinary length may write past its end.
const OVERSHOOT: usize = 32;

/// Executes sequences, four words each: as many bytes of `literals` as the first, one after the other, and then as many
/// bytes as the second from as far back as the third. What they leave of the page is filled with further literals.
///
/// # Errors
///
/// [`Fault::Distance`] if a match starts before the page, [`Fault::Overrun`] if the sequences pass its end.
#[inline(never)]
pub(in crate::codec) fn replay<const PAGE: usize>(
    sequences: &[u16],
    literals: &[u8; PAGE],
    page: &mut [u8; PAGE],
) -> Result<(), Fault> {
    // R1: `taken <= end`, as each sequence adds as much to both and its match to `end`.
    let (mut taken, mut end) = (0, 0);
    for words in sequences.chunks_exact(4) {
        let [run, length, distance] = [words[0], words[1], words[2]].map(usize::from);
        let begin = end + run;
        let stop = begin + length;
        let Some(from) = begin.checked_sub(distance) else { return Err(Fault::Distance { distance }) };
        if stop + OVERSHOOT <= PAGE {
            // REACH: by R1 both end by `begin + 16`, and so does each later step.
            store!(u128, page, end, load!(u128, literals, taken));
            if run > 16 {
                let mut done = 16;
                while done < run {
                    // REACH: as above.
                    store!(u128, page, end + done, load!(u128, literals, taken + done));
                    done += 16;
                }
            }
            if (distance >= 8) & (length <= 16) {
                // REACH: these end by `begin + 16`, and the loads lie before their stores.
                store!(u64, page, begin, load!(u64, page, from));
                // REACH: as above.
                store!(u64, page, begin + 8, load!(u64, page, from + 8));
            } else {
                copy_match(page, begin, distance, stop);
            }
        } else {
            let (Some(room), Some(run)) = (page.get_mut(end..begin), literals.get(taken..taken + run)) else {
                return Err(Fault::Overrun);
            };
            room.copy_from_slice(run);
            if stop > PAGE {
                return Err(Fault::Overrun);
            }
            copy_match(page, begin, distance, stop);
        }
        (taken, end) = (taken + run, stop);
    }
    let room = &mut page[end..];
    room.copy_from_slice(&literals[taken..taken + room.len()]);
    Ok(())
}
