//! Length-limited prefix codes: lengths from counts, their short description, and the tables of both directions.
//!
//! Codes are canonical and written least significant bit first, so that a decoder indexes its table with the next bits
//! as they come. No code is longer than [`MAX_BITS`].

use super::bits::{BitReader, BitWriter};

/// The longest code. A part has at most 4,096 symbols, so longer codes would hardly gain.
pub(super) const MAX_BITS: u32 = 10;
/// The largest alphabet.
pub(super) const SYMBOLS: usize = 256;

/// Replaces the counts of an alphabet by its codes: each entry is the code's bits, reversed, and its length in the top
/// 4 bits; 0 for a symbol that does not occur.
///
/// No code is longer than `longest` bits, which leaves a code for each symbol of the alphabet. Optimal lengths by the
/// in-place method of Moffat and Katajainen (1995), then cut.
pub(super) fn make_codes(counts: &mut [u16], longest: u32, work: &mut [u16; 2 * SYMBOLS]) {
    let longest = longest as usize;
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
            population[usize::from(depth).min(longest)] += 1;
        }
        limit(&mut population, longest);
    }
    // The rarest symbols come first in `sorted`, so they get the longest codes.
    let mut next = 0;
    for bits in (1..=longest).rev() {
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
        for _ in 0..2 {
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
fn limit(population: &mut [u16; MAX_BITS as usize + 2], max: usize) {
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
    let mut population = [0; 16];
    for &code in &*codes {
        population[usize::from(code >> 12)] += 1;
    }
    let mut next = first_codes(population);
    for entry in codes.iter_mut().filter(|entry| **entry != 0) {
        *entry |= turned(&mut next, *entry >> 12);
    }
}

/// The first canonical code of each length, from how many codes each length has.
fn first_codes(population: [u16; 16]) -> [u16; 16] {
    let (mut next, mut code) = ([0; 16], 0);
    for length in 1..=MAX_BITS as usize {
        next[length] = code;
        code = (code + population[length]) << 1;
    }
    next
}

/// The next code of a length (1 to [`MAX_BITS`]), first bit lowest.
#[inline(always)]
fn turned(next: &mut [u16; 16], length: u16) -> u16 {
    let code = &mut next[usize::from(length & 15)];
    let bits = (u32::from(*code) << (32 - u32::from(length))).reverse_bits() as u16;
    *code += 1;
    bits
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

/// Reads what [`write_lengths`] wrote for an alphabet of `symbols`, and fills a decoding table: by the next bits, the
/// symbol in the low 8 bits and the length of its code above; 0 where no code fits. `None` if it is no prefix code.
///
/// The table has an entry for each value of its longest code. `present` is working memory for a word a symbol.
pub(super) fn read_table(
    symbols: usize,
    present: &mut [u16; SYMBOLS],
    table: &mut [u16],
    bits: &mut BitReader<'_>,
) -> Option<()> {
    let longest = table.len().ilog2() as u16;
    let (mut symbol, mut length, mut count) = (0, 6u16, 0);
    let mut population = [0; 16];
    while symbol < symbols {
        // A run of symbols without a code, then one of those with; only the first may be empty.
        let absent = take_gamma(bits) as usize;
        if absent == 0 && symbol > 0 {
            return None;
        }
        symbol += absent;
        if symbol == symbols {
            break;
        }
        let run = take_gamma(bits) as usize;
        if run == 0 || symbol + run > symbols {
            return None;
        }
        for _ in 0..run {
            let word = bits.peek();
            let ones = (!word).trailing_zeros().min(15) as u16;
            bits.skip(u32::from(ones + 1 + u16::from(ones > 0)));
            let up = word >> (ones + 1) & 1 == 1;
            length = if up { length + ones } else { length.wrapping_sub(ones) };
            if length.wrapping_sub(1) >= longest {
                return None;
            }
            population[usize::from(length & 15)] += 1;
            *present.get_mut(count)? = symbol as u16 | length << 8;
            (symbol, count) = (symbol + 1, count + 1);
        }
    }
    let space: u32 =
        (1..=longest).map(|length| u32::from(population[usize::from(length)]) << (longest - length)).sum();
    if space > 1 << longest {
        return None;
    }
    if space < 1 << longest {
        table.fill(0);
    }
    let mut next = first_codes(population);
    for &entry in &present[..count] {
        let length = entry >> 8;
        let (mut at, step) = (usize::from(turned(&mut next, length)), 1 << length);
        while at < table.len() {
            table[at] = entry;
            at += step;
        }
    }
    Some(())
}

/// A number in Elias' gamma code of `value + 1`: as many ones as it has bits after the first, a zero, those bits.
pub(super) fn put_gamma(value: u32, out: &mut BitWriter<'_>) {
    let bits = (value + 1).ilog2();
    out.put((1 << bits) - 1, bits + 1);
    out.put((value + 1) & !(1 << bits), bits);
}

/// Reads a number that [`put_gamma`] wrote; at most 16 bits.
pub(super) fn take_gamma(bits: &mut BitReader<'_>) -> u32 {
    let word = bits.peek();
    let ones = (!word).trailing_zeros().min(16);
    bits.skip(2 * ones + 1);
    (1 << ones | (word >> (ones + 1)) as u32 & ((1 << ones) - 1)) - 1
}
