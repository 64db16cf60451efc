//! Length-limited prefix codes: lengths from counts, their short description, and the tables of both directions.
//!
//! Codes are canonical and written least significant bit first, so that a decoder indexes its table with the next bits
//! as they come. No code is longer than [`MAX_BITS`].

use super::bits::{BitReader, BitWriter};

/// The longest code. A part has at most 4,096 symbols, so longer codes would hardly gain.
pub(super) const MAX_BITS: u32 = 10;
/// The entries of a decoding table.
pub(super) const TABLE: usize = 1 << MAX_BITS;
/// The largest alphabet.
pub(super) const SYMBOLS: usize = 256;

/// Replaces the counts of an alphabet by its codes: each entry is the code's bits, reversed, and its length in the top
/// 4 bits; 0 for a symbol that does not occur.
///
/// Optimal lengths by the in-place method of Moffat and Katajainen (1995), then cut to [`MAX_BITS`].
pub(super) fn make_codes(counts: &mut [u16], work: &mut [u16; 2 * SYMBOLS]) {
    let (sorted, weights) = work.split_at_mut(SYMBOLS);
    let n = sort_by_count(counts, sorted);
    if n == 0 {
        return;
    }
    for i in 0..n {
        weights[i] = counts[usize::from(sorted[i])];
    }
    let mut population = [0u16; MAX_BITS as usize + 2];
    if n == 1 {
        population[1] = 1;
    } else {
        code_depths(&mut weights[..n]);
        for &depth in &weights[..n] {
            population[usize::from(depth).min(MAX_BITS as usize)] += 1;
        }
        limit(&mut population);
    }
    // The rarest symbols come first in `sorted`, so they get the longest codes.
    let mut next = 0;
    for bits in (1..=MAX_BITS as usize).rev() {
        for _ in 0..population[bits] {
            counts[usize::from(sorted[next])] = (bits as u16) << 12;
            next += 1;
        }
    }
    assign(counts);
}

/// Lists the symbols that occur by rising count, equal counts by symbol; returns how many there are.
fn sort_by_count(counts: &[u16], sorted: &mut [u16]) -> usize {
    let mut n = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        if count > 0 {
            // Rare symbols are by far the most, so insertion moves little.
            sorted[n] = symbol as u16;
            n += 1;
        }
    }
    sorted[..n]
        .sort_unstable_by_key(|&symbol| (u32::from(counts[usize::from(symbol)]) << 16) | u32::from(symbol));
    n
}

/// Replaces rising weights (two or more) by the depths of their leaves in an optimal tree.
fn code_depths(a: &mut [u16]) {
    let n = a.len();
    // First pass: a[i] becomes the parent of inner node i.
    let (mut leaf, mut root) = (2, 0);
    a[0] += a[1];
    for next in 1..n - 1 {
        let mut sum = 0;
        for half in 0..2 {
            let weight = if leaf >= n || (root < next && a[root] < a[leaf]) {
                let weight = a[root];
                a[root] = next as u16;
                root += 1;
                weight
            } else {
                leaf += 1;
                a[leaf - 1]
            };
            sum += weight;
            let _ = half;
        }
        a[next] = sum;
    }
    // Second pass: depths of inner nodes.
    a[n - 2] = 0;
    for i in (0..n - 2).rev() {
        a[i] = a[usize::from(a[i])] + 1;
    }
    // Third pass: depths of leaves.
    let (mut available, mut depth, mut inner, mut next) = (1usize, 0u16, n - 1, n);
    while available > 0 {
        let mut used = 0;
        while inner > 0 && a[inner - 1] == depth {
            used += 1;
            inner -= 1;
        }
        while available > used {
            next -= 1;
            a[next] = depth;
            available -= 1;
        }
        available = 2 * used;
        depth += 1;
    }
}

/// Makes a population of lengths, those too long counted as the longest, a complete prefix code again.
fn limit(population: &mut [u16; MAX_BITS as usize + 2]) {
    let max = MAX_BITS as usize;
    let mut space: i32 = (1..=max).map(|bits| i32::from(population[bits]) << (max - bits)).sum();
    // Each step lengthens one shorter code and so frees room for the codes that were cut.
    while space > 1 << max {
        let Some(bits) = (1..max).rev().find(|&bits| population[bits] > 0) else { break };
        population[bits] -= 1;
        population[bits + 1] += 1;
        space -= 1 << (max - bits - 1);
    }
    while space < 1 << max {
        // The room that is left is shorter than any move, but for codes of the longest length.
        let Some(bits) =
            (2..=max).find(|&bits| population[bits] > 0 && space + (1 << (max - bits)) <= 1 << max)
        else {
            break;
        };
        population[bits] -= 1;
        population[bits - 1] += 1;
        space += 1 << (max - bits);
    }
}

/// Gives canonical codes to entries that hold a length in their top 4 bits.
fn assign(codes: &mut [u16]) {
    let mut code = 0u32;
    for bits in 1..=MAX_BITS {
        for entry in codes.iter_mut().filter(|entry| **entry >> 12 == bits as u16 && **entry & 0xFFF == 0) {
            *entry |= ((code << (32 - bits)).reverse_bits()) as u16;
            code += 1;
        }
        code <<= 1;
    }
}

/// Writes the lengths of an alphabet: runs of symbols that occur and that do not in turn, each length as its
/// difference from the one before it.
pub(super) fn write_lengths(codes: &[u16], out: &mut BitWriter<'_>) {
    let mut symbol = 0;
    let mut before = 6;
    let mut present = false;
    while symbol < codes.len() {
        let run = codes[symbol..].iter().take_while(|&&code| (code != 0) == present).count();
        put_gamma(run as u32, out);
        if present {
            for &code in &codes[symbol..symbol + run] {
                let length = i32::from(code >> 12);
                let step = length - before;
                let zigzag = if step > 0 { 2 * step - 1 } else { -2 * step } as u32;
                // 0 is one bit; then pairs of signs under one more bit each.
                let ones = zigzag.div_ceil(2);
                out.put((1 << ones) - 1, ones + 1);
                if zigzag > 0 {
                    out.put(zigzag & 1, 1);
                }
                before = length;
            }
        }
        symbol += run;
        present = !present;
    }
}

/// Reads what [`write_lengths`] wrote, into the top 4 bits of `codes`, and gives codes; `None` if it is no prefix code
/// of the alphabet.
pub(super) fn read_codes(codes: &mut [u16], bits: &mut BitReader<'_>) -> Option<()> {
    codes.fill(0);
    let (mut symbol, mut before, mut present) = (0, 6i32, false);
    let mut space = 0u32;
    while symbol < codes.len() {
        let run = take_gamma(bits) as usize;
        let end = symbol.checked_add(run).filter(|&end| end <= codes.len())?;
        // Only the first run may be empty, so this ends.
        if run == 0 && symbol > 0 {
            return None;
        }
        if run == 0 && present {
            return None;
        }
        if present {
            for code in &mut codes[symbol..end] {
                let ones = (!bits.peek()).trailing_zeros().min(20);
                bits.skip(ones + 1);
                let step = match ones {
                    0 => 0,
                    _ if bits.take(1) == 1 => ones as i32,
                    _ => -(ones as i32),
                };
                before += step;
                if !(1..=MAX_BITS as i32).contains(&before) {
                    return None;
                }
                *code = (before as u16) << 12;
                space += 1 << (MAX_BITS as i32 - before);
            }
        }
        symbol = end;
        present = !present;
    }
    if space > 1 << MAX_BITS {
        return None;
    }
    assign(codes);
    Some(())
}

/// Fills a decoding table: by the next [`MAX_BITS`] bits, the symbol in the low 8 bits and its length above; 0 where no
/// code fits.
pub(super) fn make_table(codes: &[u16], table: &mut [u16; TABLE]) {
    table.fill(0);
    for (symbol, &code) in codes.iter().enumerate().filter(|(_, code)| **code != 0) {
        let length = code >> 12;
        let entry = symbol as u16 | length << 8;
        let (mut at, step) = (usize::from(code & 0xFFF), 1 << length);
        while at < TABLE {
            table[at] = entry;
            at += step;
        }
    }
}

/// A number in Elias' gamma code of `value + 1`: as many ones as it has bits after the first, a zero, those bits.
pub(super) fn put_gamma(value: u32, out: &mut BitWriter<'_>) {
    let bits = (value + 1).ilog2();
    out.put((1 << bits) - 1, bits + 1);
    out.put((value + 1) & !(1 << bits), bits);
}

/// Reads a number that [`put_gamma`] wrote; at most 16 bits.
pub(super) fn take_gamma(bits: &mut BitReader<'_>) -> u32 {
    let ones = (!bits.peek()).trailing_zeros().min(16);
    bits.skip(ones + 1);
    (1 << ones | bits.take(ones)) - 1
}
