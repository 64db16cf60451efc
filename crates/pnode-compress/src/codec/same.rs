//! Pages that repeat one 8-byte word: a tenth to a fifth of all pages that get reclaimed.

/// The 8-byte word that the page repeats, in native byte order, or `None` if it does not (or is shorter than a word).
///
/// A page that differs shows it in its first and last word nearly always, as zram's check relies on; only a page that
/// passes those is read in full.
#[inline]
pub fn same_filled(page: &[u8]) -> Option<u64> {
    let (first, _) = page.split_first_chunk::<8>()?;
    let (_, last) = page.split_last_chunk::<8>()?;
    if first != last {
        return None;
    }
    let word = u64::from_ne_bytes(*first);
    repeats(page, word).then_some(word)
}

/// Whether `page` is `word` over and over.
fn repeats(page: &[u8], word: u64) -> bool {
    let mut strides = page.chunks_exact(128);
    // The differences of a stride are gathered without a branch, so that the compiler reads it with wide loads.
    let clean = strides.all(|stride| {
        let mut differ = 0;
        for bytes in stride.chunks_exact(8) {
            differ |= word
                ^ u64::from_ne_bytes([
                    bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
                ]);
        }
        differ == 0
    });
    clean && page.len() % 128 == 0
}

/// Fills the page with the word whose bytes are `word`.
pub(super) fn fill(word: [u8; 8], page: &mut [u8]) {
    for bytes in page.chunks_exact_mut(8) {
        bytes.copy_from_slice(&word);
    }
}
