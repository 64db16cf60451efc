//! Object sizes as they come from real page contents, as summaries: 33 quantiles of the lengths that LZ4 gives to the
//! pages of nine live programs (18,057 pages), and of two of them.
#![allow(dead_code, reason = "each test uses a part of the support code")]

use crate::synth::Mix;

/// Quantiles 0/32, 1/32 .. 32/32, in bytes; in between, sizes are taken as evenly spread.
pub(crate) type Quantiles = [u16; 33];

/// All nine programs together; the mean is 1,757.
pub(crate) const ALL: Quantiles = [
    30, 457, 682, 809, 933, 1074, 1154, 1267, 1355, 1398, 1435, 1480, 1560, 1612, 1646, 1691, 1753, 1817,
    1865, 1967, 2022, 2058, 2112, 2147, 2166, 2185, 2212, 2360, 2488, 2591, 2978, 3223, 4096,
];

/// Program text: large objects.
pub(crate) const TEXT: Quantiles = [
    116, 370, 558, 947, 1400, 1687, 2055, 2261, 2436, 2543, 2637, 2721, 2789, 2864, 2931, 2986, 3023, 3054,
    3086, 3110, 3136, 3168, 3188, 3213, 3233, 3261, 3292, 3321, 3347, 3381, 3437, 3506, 4096,
];

/// The heap of a compiler: small objects.
pub(crate) const HEAP: Quantiles = [
    47, 405, 477, 495, 575, 603, 676, 693, 763, 893, 918, 987, 1116, 1295, 1335, 1348, 1359, 1370, 1384,
    1399, 1413, 1425, 1441, 1453, 1460, 1475, 1532, 1639, 1777, 2006, 2028, 2039, 2983,
];

/// A size drawn from a distribution.
pub(crate) fn draw(mix: &mut Mix, quantiles: &Quantiles) -> usize {
    let at = mix.below(32) as usize;
    let (low, high) = (u64::from(quantiles[at]), u64::from(quantiles[at + 1]));
    (low + mix.below(high - low + 1)) as usize
}
