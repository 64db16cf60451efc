//! The encoder of a part: its literals under one code, its tokens under one of those that come with the format.

use super::bits::BitWriter;
use super::lengths::{self, SYMBOLS};
use super::parse::{Sequence, Sequences};
use super::token::{self, SHAPES};
use super::{Code, Effort, Head, PART, STREAMS, known};
use crate::codec::reach::{load, store};

/// Where the literals of a part are, and the memory that they are gathered in.
pub(super) enum Source<'l> {
    /// In the part.
    Part(&'l [u8; PART], &'l mut [u8; PART]),
    /// In the memory itself, which holds the part.
    Memory(&'l mut [u8; PART]),
}

/// Encodes a part into less than `out.len()` bytes, or returns `None`.
///
/// The literals of a part may be in planes of so many bytes (0: in none), of which the lowest may be noise. `work` is
/// working memory.
pub(super) fn encode(
    sequences: Sequences<'_>,
    source: Source<'_>,
    effort: Effort,
    plane: usize,
    out: &mut [u8],
    work: &mut [u16; 4096],
) -> Option<usize> {
    let words = sequences.words.get_mut(..3 * sequences.count)?;
    let before_matches = words.first().map_or(PART, |&run| usize::from(run));
    let (literals, gathered) = match source {
        Source::Part(part, memory) => {
            let gathered = gather(words, |to, from, run| copy_run(part, memory, to, from, run));
            (memory, gathered)
        }
        Source::Memory(memory) => {
            let gathered = gather(words, |to, from, run| memory.copy_within(from..from + run, to));
            (memory, gathered)
        }
    };
    let literals = literals.get(..gathered.literals)?;
    let (token_set, token_bits) = lengths::cheapest(gathered.costs);
    let mut head =
        Head { literals: literals.len(), sequences: sequences.count, token_set, ..Head::default() };

    let (codes, rest) = work.split_first_chunk_mut()?;
    let literal_bits = if literals.is_empty() {
        0
    } else {
        let (counts, rest) = rest.split_first_chunk_mut()?;
        let (ideals, rest) = rest.split_first_chunk_mut()?;
        head.raw = noise(literals, plane, before_matches, rest.first_chunk_mut()?, counts);
        let literals = &literals[head.raw..];
        count(literals, rest.first_chunk_mut()?, counts);
        let (set, bits) = known::nearest(counts);
        let own = lengths::estimate(counts, literals.len());
        let (code, coded) = if bits <= own + own / effort.patience() {
            (Code::Known(set), bits)
        } else {
            let bits = lengths::assign(counts, literals.len(), codes, ideals, rest.first_chunk_mut()?);
            let (set, description) = lengths::description_cost(codes);
            (Code::Described(set), description + bits)
        };
        // Codes that hardly gain would cost a decoder all the same.
        if coded < 8 * (literals.len() - literals.len() / 32) {
            head.code = code;
            8 * head.raw + coded
        } else {
            8 * core::mem::take(&mut head.raw) + 8 * literals.len()
        }
    };
    if Head::BYTES + (literal_bits + token_bits + gathered.extra_bits) / 8 > out.len() {
        return None;
    }

    let mut at = Head::BYTES;
    if head.code != Code::Raw {
        let (raw, literals) = literals.split_at(head.raw);
        out.get_mut(at..at + raw.len())?.copy_from_slice(raw);
        at += raw.len();
        let codes = match head.code {
            Code::Known(set) => &known::CODES[set % known::SETS],
            Code::Described(set) => {
                let mut description = BitWriter::new(out, at);
                lengths::describe(codes, set, &mut description);
                at = description.finish()?;
                &*codes
            }
            Code::Raw => return None,
        };
        let mut rest = literals;
        for stream in 0..STREAMS {
            let share = if stream + 1 < STREAMS { literals.len() / STREAMS } else { rest.len() };
            let (share, after) = rest.split_at(share);
            let end = put_literals(share, codes, out, at)?;
            head.sizes[stream] = end - at;
            (at, rest) = (end, after);
        }
    } else {
        out.get_mut(at..at + literals.len())?.copy_from_slice(literals);
        at += literals.len();
    }
    let (first, second) = words.split_at(3 * (sequences.count / 2));
    for (half, size) in [first, second].into_iter().zip(&mut head.sizes[STREAMS..]) {
        let end = put_tokens(half, &token::CODES[token_set & 3], out, at)?;
        *size = end - at;
        at = end;
    }
    let mut stream = BitWriter::new(out, at);
    for words in words.chunks_exact(3) {
        let extra = u64::from(words[0] >> 8) | u64::from(words[1]) << 8 | u64::from(words[2]) << 24;
        stream.put(extra, u32::from(SHAPES[usize::from(words[0] & 0xFF)].bits));
        stream.flush();
    }
    let end = stream.finish()?;
    head.write(out.first_chunk_mut()?);
    Some(end)
}

/// What [`gather`] found.
struct Gathered {
    literals: usize,
    extra_bits: usize,
    /// The bits of all tokens in each of the four sets, 16 bits each.
    costs: u64,
}

/// Replaces each sequence by its token (the lowest 8 bits of its three words) and the value of its extra bits (the
/// others), and calls `copy` with each run of literals: where it goes, where it is, and how long it is.
#[inline(always)]
fn gather(words: &mut [u16], mut copy: impl FnMut(usize, usize, usize)) -> Gathered {
    let mut all = Gathered { literals: 0, extra_bits: 0, costs: 0 };
    // The format starts with a last distance of 1.
    let (mut at, mut last) = (0, 1);
    for words in words.chunks_exact_mut(3) {
        let sequence = Sequence { literals: words[0], length: words[1], distance: words[2] };
        let run = usize::from(sequence.literals);
        copy(all.literals, at, run);
        all.literals += run;
        at += run + usize::from(sequence.length);
        let token::Split { token, extra, bits } = token::split(sequence, last);
        last = sequence.distance;
        all.costs += token::COSTS[token];
        all.extra_bits += bits;
        words.copy_from_slice(&[
            token as u16 | (extra << 8) as u16,
            (extra >> 8) as u16,
            (extra >> 24) as u16,
        ]);
    }
    copy(all.literals, at, PART - at);
    all.literals += PART - at;
    all
}

/// Copies `part[from..from + run]` to `memory[to..]`, where `to <= from`; bytes after them may change.
#[inline(always)]
fn copy_run(part: &[u8; PART], memory: &mut [u8; PART], to: usize, from: usize, run: usize) {
    if from + run.max(16) + 16 > PART {
        memory[to..to + run].copy_from_slice(&part[from..from + run]);
        return;
    }
    store!(u128, memory, to, load!(u128, part, from));
    let mut done = 16;
    while done < run {
        store!(u128, memory, to + done, load!(u128, part, from + done));
        done += 16;
    }
}

/// How many literals lie in planes of noise, which no code makes shorter: whole planes from the first one on, none with a
/// match in it, and not the last one.
#[inline(never)]
fn noise(
    literals: &[u8],
    plane: usize,
    before_matches: usize,
    histograms: &mut [u16; 4 * SYMBOLS],
    counts: &mut [u16; SYMBOLS],
) -> usize {
    let mut end = 0;
    while plane > 0 && end + plane < literals.len() && end + plane <= before_matches {
        count(&literals[end..end + plane], histograms, counts);
        // How often two bytes of the plane are the same: of noise, once in 256 pairs, and each with itself.
        let same: u32 = counts.iter().map(|&count| u32::from(count) * u32::from(count)).sum();
        let expected = plane * plane / SYMBOLS + plane;
        if same as usize > expected + expected / 4 {
            break;
        }
        end += plane;
    }
    end
}

/// Counts literals, in four histograms so that equal neighbours do not wait for each other.
#[inline(never)]
fn count(literals: &[u8], histograms: &mut [u16; 4 * SYMBOLS], counts: &mut [u16; SYMBOLS]) {
    histograms.fill(0);
    let groups = literals.chunks_exact(4);
    for &byte in groups.remainder() {
        histograms[usize::from(byte)] += 1;
    }
    for group in groups {
        for (lane, &byte) in group.iter().enumerate() {
            histograms[lane * SYMBOLS + usize::from(byte)] += 1;
        }
    }
    for (symbol, count) in counts.iter_mut().enumerate() {
        let lane = |lane: usize| histograms[lane * SYMBOLS + symbol];
        *count = lane(0) + lane(1) + lane(2) + lane(3);
    }
}

/// Writes a stream of literals at `out[at]`; returns where it ends.
#[inline(never)]
fn put_literals(literals: &[u8], codes: &[u16; SYMBOLS], out: &mut [u8], at: usize) -> Option<usize> {
    let mut stream = BitWriter::new(out, at);
    let mut put = |literals: &[u8]| {
        // Five codes of 10 bits fit what may wait.
        for &byte in literals {
            let code = codes[usize::from(byte)];
            stream.put(u64::from(code >> 4), u32::from(code & 15));
        }
        stream.flush();
    };
    let fives = literals.chunks_exact(5);
    let rest = fives.remainder();
    for five in fives {
        put(&five[..5]);
    }
    put(rest);
    stream.finish()
}

/// Writes a stream of tokens at `out[at]`; returns where it ends.
#[inline(never)]
fn put_tokens(words: &[u16], codes: &[u16; 256], out: &mut [u8], at: usize) -> Option<usize> {
    let mut stream = BitWriter::new(out, at);
    for five in words.chunks(15) {
        for words in five.chunks_exact(3) {
            let code = codes[usize::from(words[0] & 0xFF)];
            stream.put(u64::from(code >> 4), u32::from(code & 15));
        }
        stream.flush();
    }
    stream.finish()
}
