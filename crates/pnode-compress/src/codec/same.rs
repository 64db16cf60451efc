//! Pages that repeat one 8-byte word: a tenth to a fifth of all pages that get reclaimed.

/// The 8-byte word that the page repeats, in native byte order, or `None` if it does not (or is shorter than a word).
///
/// A page that differs shows it in its first and last word nearly always, as zram's check relies on, and if not there,
/// in the line after the first word; only a page that passes those is read in full.
#[inline]
pub fn same_filled(page: &[u8]) -> Option<u64> {
    let (first, _) = page.split_first_chunk::<8>()?;
    let (_, last) = page.split_last_chunk::<8>()?;
    if first != last || page.len() % 8 != 0 {
        return None;
    }
    let word = u64::from_ne_bytes(*first);
    let start = &page[..page.len().min(LINE)];
    (differences(start, word) == 0 && page.chunks(4096).all(|part| differences(part, word) == 0))
        .then_some(word)
}

/// How many bytes are looked at in a step.
const LINE: usize = 128;

/// The bits in which any word of `part` differs from `word`.
///
/// They are gathered without a branch, in as many sums as keep the loads of a core busy and over a part too long to be
/// unrolled: so the compiler makes wide loads of them, not a test a word, and memory sets the pace.
#[inline]
fn differences(part: &[u8], word: u64) -> u64 {
    let differ = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| word ^ u64::from_ne_bytes(*bytes));
    let mut sums = [0; LINE / 8];
    let lines = part.chunks_exact(LINE);
    let rest = lines.remainder().chunks_exact(8).fold(0, |all, bytes| all | differ(bytes));
    for line in lines {
        for (i, bytes) in line.chunks_exact(8).enumerate() {
            sums[i] |= differ(bytes);
        }
    }
    sums.iter().fold(rest, |all, sum| all | sum)
}

/// Fills the page with the word whose bytes are `word`.
pub(super) fn fill(word: [u8; 8], page: &mut [u8]) {
    for bytes in page.chunks_exact_mut(8) {
        bytes.copy_from_slice(&word);
    }
}
