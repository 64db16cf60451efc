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
    // The differences of a stride are gathered without a branch, so that the compiler reads it with wide loads.
    let clean = |stride: &[u8]| {
        let differ = |bytes: &[u8]| match bytes.first_chunk() {
            Some(bytes) => word ^ u64::from_ne_bytes(*bytes),
            None => 0,
        };
        stride.chunks_exact(8).fold(0, |all, bytes| all | differ(bytes)) == 0
    };
    let (mut strides, rest) = (page.chunks_exact(512), page.len() % 512);
    strides.all(clean) && clean(&page[page.len() - rest..]) && page.len() % 8 == 0
}

/// Fills the page with the word whose bytes are `word`.
pub(super) fn fill(word: [u8; 8], page: &mut [u8]) {
    for bytes in page.chunks_exact_mut(8) {
        bytes.copy_from_slice(&word);
    }
}
