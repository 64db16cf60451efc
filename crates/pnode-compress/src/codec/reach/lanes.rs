//! Streams of codes, decoded side by side.

use super::access::{load, store};

/// How many codes are read from one load: each has 11 bits or fewer.
const BATCH: usize = 5;
/// As many streams as registers hold; a processor overlaps the work on several such groups.
const GROUP: usize = 4;

/// Decodes `STREAMS` streams of codes, highest bit first, each of which gives a share of `out`, one after the other, and
/// the last one what is left besides. `at` says where each stream goes on in `bytes`, in bits.
///
/// By the next bits, a table has the symbol in its upper 8 bits and the length of the code in the lower 8. Stops before a
/// share ends or a stream comes near the end of `bytes`; returns how many codes of each stream are decoded.
#[inline(always)]
pub(in crate::codec) fn read_lanes<const STREAMS: usize, const ENTRIES: usize>(
    bytes: &[u8],
    at: &mut [usize; STREAMS],
    table: &[u16; ENTRIES],
    out: &mut [u8],
) -> usize {
    const { assert!(STREAMS % GROUP == 0 && ENTRIES.is_power_of_two() && ENTRIES <= 1 << 11) };
    let share = out.len() / STREAMS;
    let Some(limit) = bytes.len().checked_sub(8).map(|last| 8 * last + 7) else { return 0 };
    let mut done = 0;
    while done + BATCH <= share && at.iter().fold(true, |all, &at| all & (at <= limit)) {
        for (group, at) in at.chunks_exact_mut(GROUP).enumerate() {
            // REACH: `at / 8 <= bytes.len() - 8`, just tested.
            let word = |lane: usize| load!(u64, bytes, at[lane] / 8).swap_bytes() << (at[lane] % 8);
            let mut words = [word(0), word(1), word(2), word(3)];
            let mut used = [0u32; GROUP];
            for i in done..done + BATCH {
                for lane in 0..GROUP {
                    let entry = table[(words[lane] >> (64 - ENTRIES.ilog2())) as usize % ENTRIES];
                    words[lane] <<= entry & 63;
                    used[lane] += u32::from(entry);
                    // REACH: `i < share`, and there is a share for each stream.
                    store!(u8, out, (group * GROUP + lane) * share + i, (entry >> 8) as u8);
                }
            }
            for (at, used) in at.iter_mut().zip(used) {
                // The lengths in the low bits of the entries add up to 55 at the most.
                *at += used as usize & 0xFF;
            }
        }
        done += BATCH;
    }
    done
}
