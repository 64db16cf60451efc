//! SHA-256 (FIPS 180-4), so that corpora and golden files are pinned by a digest that any tool can recompute.
#![allow(dead_code, reason = "each test uses a part of the support code")]

/// The first `n` primes.
fn primes(n: usize) -> Vec<u64> {
    (2u64..).filter(|&p| (2..p).take_while(|d| d * d <= p).all(|d| p % d != 0)).take(n).collect()
}

/// The first 32 bits of the fraction of the `root`-th root of `p`, found by bisection in integers.
fn fraction(p: u64, root: u32) -> u32 {
    let (mut low, mut high) = (0u128, 1u128 << 40);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if middle.checked_pow(root).is_some_and(|power| power <= u128::from(p) << (32 * root)) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low as u32
}

/// The digest of `data` in lower-case hex.
pub(crate) fn hex(data: &[u8]) -> String {
    let k: Vec<u32> = primes(64).into_iter().map(|p| fraction(p, 3)).collect();
    let mut state: Vec<u32> = primes(8).into_iter().map(|p| fraction(p, 2)).collect();
    let mut message = data.to_vec();
    message.push(0x80);
    message.resize((message.len() + 8).next_multiple_of(64) - 8, 0);
    message.extend((data.len() as u64 * 8).to_be_bytes());
    for block in message.chunks_exact(64) {
        let mut w: Vec<u32> =
            block.chunks_exact(4).map(|b| u32::from_be_bytes(b.try_into().unwrap())).collect();
        for t in 16..64 {
            let a = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ w[t - 15] >> 3;
            let b = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ w[t - 2] >> 10;
            w.push(w[t - 16].wrapping_add(a).wrapping_add(w[t - 7]).wrapping_add(b));
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] =
            <[u32; 8]>::try_from(&state[..]).unwrap();
        for t in 0..64 {
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let choice = (e & f) ^ (!e & g);
            let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(k[t]).wrapping_add(w[t]);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let t2 = s0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
        }
        for (s, v) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *s = s.wrapping_add(v);
        }
    }
    state.iter().map(|s| format!("{s:08x}")).collect()
}
