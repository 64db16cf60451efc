//! Pages for targets that take their contents from the input.

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// A page made of two bytes of input: how much of it is noise, and which.
pub fn page(noise: u8, seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed) | 1;
    let mut page = vec![seed; PAGE];
    page[..usize::from(noise) * 16].fill_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    page
}
