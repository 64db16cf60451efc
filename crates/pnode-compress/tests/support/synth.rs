//! Synthetic page corpora, bit for bit the same on every machine.
//!
//! The kinds imitate what fills real pages: pointer arrays, records of a slab, sorted row numbers, time series, model
//! weights, text, and almost empty pages. `codec_corpus.rs` pins their digests, so figures of different machines and
//! of other implementations of this generator are about the same bytes.
#![allow(dead_code, reason = "each test uses a part of the support code")]

/// The size of every page here, in bytes.
pub(crate) const PAGE: usize = 4096;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(crate) struct Mix(u64);

impl Mix {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

/// All kinds, in the order that seeds them.
pub(crate) const KINDS: [&str; 10] =
    ["zero", "same", "random", "ptrs", "slab", "ints", "f64", "bf16", "json", "sparse"];

/// Kinds besides, whose bytes no figure of another machine is about: numbers with a full fraction.
pub(crate) const FRACTIONS: [&str; 2] = ["f32", "measured"];

/// `pages` pages of a kind, one after the other.
pub(crate) fn corpus(kind: &str, pages: usize) -> Vec<u8> {
    seeded(kind, pages, 1)
}

/// Like [`corpus`], from another seed.
pub(crate) fn seeded(kind: &str, pages: usize, seed: u64) -> Vec<u8> {
    let index = KINDS.iter().chain(&FRACTIONS).position(|&k| k == kind).expect("a kind");
    let mut m = Mix::new(seed * 1_000_003 + index as u64);
    let mut b = Vec::with_capacity(pages * PAGE + 256);
    if kind == "json" {
        json(&mut m, pages * PAGE, &mut b);
        b.truncate(pages * PAGE);
        return b;
    }
    for page in 1..=pages {
        match kind {
            "zero" => b.resize(page * PAGE, 0),
            "same" => b.extend(m.next().to_le_bytes().repeat(PAGE / 8)),
            "random" => (0..PAGE / 8).for_each(|_| b.extend(m.next().to_le_bytes())),
            "ptrs" => pointers(&mut m, &mut b),
            "slab" => slab(&mut m, &mut b),
            "ints" => integers(&mut m, &mut b),
            "f64" => doubles(&mut m, &mut b),
            "bf16" => weights(&mut m, &mut b),
            "f32" => floats(&mut m, &mut b),
            "measured" => measured(&mut m, &mut b),
            _ => sparse(&mut m, &mut b),
        }
        assert_eq!(b.len(), page * PAGE);
    }
    b
}

/// Arrays of heap pointers, a third null: the upper 36 bits shared.
fn pointers(m: &mut Mix, b: &mut Vec<u8>) {
    let base = 0x7F00_0000_0000 + (m.below(1 << 12) << 28);
    for _ in 0..PAGE / 8 {
        let pointer = if m.below(3) == 0 { 0 } else { base + (m.below(1 << 22) << 4) };
        b.extend(pointer.to_le_bytes());
    }
}

/// 64-byte records: a pair of pointers, counters, flags, a short name, zero padding.
fn slab(m: &mut Mix, b: &mut Vec<u8>) {
    let base = 0x5555_0000_0000 + (m.below(1 << 20) << 12);
    let first = m.below(1 << 20) as u32;
    for i in 0..PAGE as u64 / 64 {
        b.extend((base + m.below(1 << 12) * 64).to_le_bytes());
        b.extend((base + ((i + 1) % 64) * 64).to_le_bytes());
        b.extend((first + i as u32).to_le_bytes());
        b.extend((m.below(100) as u32).to_le_bytes());
        b.extend((m.below(16) as u16).to_le_bytes());
        b.extend(1u16.to_le_bytes());
        let hash = if m.below(4) == 0 { m.below(1 << 32) } else { 0 };
        b.extend((hash as u32).to_le_bytes());
        let mut name = format!("obj-{:05}", m.below(100_000)).into_bytes();
        name.resize(32, 0);
        b.extend(name);
    }
}

/// Sorted row numbers with small gaps, as in a column store or an index page.
fn integers(m: &mut Mix, b: &mut Vec<u8>) {
    let mut row = m.below(1 << 28) as u32;
    for _ in 0..PAGE / 4 {
        row += 1 + m.below(64) as u32;
        b.extend(row.to_le_bytes());
    }
}

/// Doubles of a random walk rounded to two decimals, as in a time series.
fn doubles(m: &mut Mix, b: &mut Vec<u8>) {
    let mut value = m.below(100_000) as i64;
    for _ in 0..PAGE / 8 {
        value += m.below(201) as i64 - 100;
        b.extend((value as f64 / 100.0).to_le_bytes());
    }
}

/// Doubles of a random walk that nobody rounded.
fn measured(m: &mut Mix, b: &mut Vec<u8>) {
    let mut value = 20.0;
    for _ in 0..PAGE / 8 {
        value += m.next() as f64 / u64::MAX as f64 - 0.5;
        b.extend(value.to_le_bytes());
    }
}

/// Floats around 0, as in the weights of a model.
fn floats(m: &mut Mix, b: &mut Vec<u8>) {
    let mut unit = || m.next() as f64 / u64::MAX as f64;
    for _ in 0..PAGE / 4 {
        b.extend(((unit() + unit() + unit() - 1.5) as f32 * 0.03).to_le_bytes());
    }
}

/// bfloat16 values around 0 (the sum of four uniform numbers), as in the weights of a model.
fn weights(m: &mut Mix, b: &mut Vec<u8>) {
    for _ in 0..PAGE / 2 {
        let x = m.next();
        let sum: u64 = [0, 16, 32, 48].iter().map(|s| (x >> s) & 0xFFFF).sum();
        let value = (sum as f64 / 65536.0 - 2.0) * 0.03;
        b.extend(&(value as f32).to_le_bytes()[2..]);
    }
}

/// Lines of JSON from a small vocabulary.
fn json(m: &mut Mix, bytes: usize, b: &mut Vec<u8>) {
    let words: Vec<String> = (0..800)
        .map(|_| {
            let letters = 3 + m.below(7);
            (0..letters).map(|_| char::from(97 + m.below(26) as u8)).collect()
        })
        .collect();
    let mut id = 0;
    while b.len() < bytes {
        let word = |m: &mut Mix| words[m.below(800) as usize].as_str();
        let (first, last) = (word(m), word(m));
        let active = if m.below(2) == 1 { "true" } else { "false" };
        let (whole, cents) = (m.below(100_000), m.below(100));
        let (tag, other) = (word(m), word(m));
        let (month, day, hour, minute) = (1 + m.below(12), 1 + m.below(28), m.below(24), m.below(60));
        let line = format!(
            "{{\"id\":{id},\"user\":\"{first}_{last}\",\"active\":{active},\"balance\":{whole}.{cents:02},\
             \"tags\":[\"{tag}\",\"{other}\"],\"ts\":\"2025-{month:02}-{day:02}T{hour:02}:{minute:02}:00Z\"}},\n"
        );
        b.extend(line.into_bytes());
        id += 1;
    }
}

/// Mostly zero with a few words here and there: page tables, fresh slabs, bitmaps.
fn sparse(m: &mut Mix, b: &mut Vec<u8>) {
    let start = b.len();
    b.resize(start + PAGE, 0);
    for _ in 0..1 + m.below(48) {
        let at = start + m.below(PAGE as u64 / 8) as usize * 8;
        let word = m.next();
        let shift = m.below(56);
        b[at..at + 8].copy_from_slice(&(word >> shift).to_le_bytes());
    }
}
