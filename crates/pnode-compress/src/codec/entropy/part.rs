//! One part: its head, its codes, its literals in two streams, and its sequences in a third.
#![cfg_attr(feature = "raw", allow(unsafe_code))]

use super::PART;
use super::bits::{BitReader, BitWriter};
use super::huffman::{MAX_BITS, SYMBOLS, make_codes, put_gamma, read_table, take_gamma, write_lengths};
use super::parse::{MAX_SEQUENCES, MIN_MATCH, Sequence, parse};
use crate::codec::lz4::reach::{load, store};
use crate::codec::{DecodeError, Fault, Scratch};

/// Token symbols: 3 bits for the literals of a sequence, 4 for its length.
const TOKENS: usize = 128;
const MANY_LITERALS: usize = 7;
const LONG_MATCH: usize = 15;
/// Distance symbols: 0 repeats the last distance; 1 to 12 are the powers of two up to it, 13 to 24 the same of
/// distances that are multiples of 8, in units of 8.
const DISTANCES: usize = 25;
const UNITS: usize = 13;
/// The longest codes of tokens and of distances.
const TOKEN_BITS: u32 = 8;
const DISTANCE_BITS: u32 = 7;
/// The entries of the decoding tables.
const LITERAL_TABLE: usize = 1 << MAX_BITS;
const TOKEN_TABLE: usize = 1 << TOKEN_BITS;
const DISTANCE_TABLE: usize = 1 << DISTANCE_BITS;

/// The symbol of a distance that is not the last one, the value of its extra bits, and their number.
#[inline(always)]
fn split_distance(distance: u32) -> (usize, u32, u32) {
    let (first, value) = if distance % 8 == 0 { (UNITS, distance / 8) } else { (1, distance) };
    let bits = value.ilog2();
    (first + bits as usize, value - (1 << bits), bits)
}

/// The token of a sequence.
#[inline(always)]
fn token(sequence: Sequence) -> usize {
    let literals = usize::from(sequence.literals).min(MANY_LITERALS);
    let length = (usize::from(sequence.length) - MIN_MATCH).min(LONG_MATCH);
    literals << 4 | length
}

/// Encodes a part into less than `out.len()` bytes, or returns `None`.
pub(super) fn encode(
    part: &[u8; PART],
    out: &mut [u8],
    table: &mut [u16; 4096],
    links: &mut [u16; 2048],
) -> Option<usize> {
    let sequences = parse(part, table, links);

    // The table of positions has done its work; codes live there from here on.
    let (literals, rest) = table.split_at_mut(SYMBOLS);
    let (tokens, rest) = rest.split_at_mut(TOKENS);
    let (distances, rest) = rest.split_at_mut(DISTANCES);
    let work: &mut [u16; 2 * SYMBOLS] = rest.first_chunk_mut()?;
    literals.fill(0);
    tokens.fill(0);
    distances.fill(0);
    let (mut at, mut last, mut total) = (0, 0, 0);
    for s in sequences.iter() {
        let run = usize::from(s.literals);
        for &byte in &part[at..at + run] {
            literals[usize::from(byte)] += 1;
        }
        total += run;
        tokens[token(s)] += 1;
        distances[if s.distance == last { 0 } else { split_distance(u32::from(s.distance)).0 }] += 1;
        (at, last) = (at + run + usize::from(s.length), s.distance);
    }
    for &byte in &part[at..] {
        literals[usize::from(byte)] += 1;
    }
    total += PART - at;
    make_codes(literals, MAX_BITS, work);
    make_codes(tokens, TOKEN_BITS, work);
    make_codes(distances, DISTANCE_BITS, work);

    let mut head = BitWriter::new(out, 0);
    head.put(total as u32, 13);
    head.put(sequences.len() as u32, 10);
    if total > 0 {
        write_lengths(literals, &mut head);
    }
    if sequences.len() > 0 {
        write_lengths(tokens, &mut head);
        write_lengths(distances, &mut head);
    }
    let head_end = head.finish()?;

    // Literals: the first half in one stream, the second in another, both behind their sizes.
    let start = head_end + 4;
    if start > out.len() {
        return None;
    }
    let half = total / 2;
    let (mut done, mut at) = (0, 0);
    let mut stream = BitWriter::new(out, start);
    let mut first_end = start;
    let put_run = |run: &[u8], stream: &mut BitWriter<'_>| {
        for &byte in run {
            let code = literals[usize::from(byte)];
            stream.put(u32::from(code & 0xFFF), u32::from(code >> 12));
        }
    };
    let tail = Sequence { literals: 0, length: 0, distance: 0 };
    let mut split = false;
    for s in sequences.iter().chain([tail]) {
        let run = if s.length == 0 { &part[at..] } else { &part[at..at + usize::from(s.literals)] };
        if !split && done + run.len() >= half {
            let (front, back) = run.split_at(half - done);
            put_run(front, &mut stream);
            first_end = stream.finish()?;
            stream = BitWriter::new(out, first_end);
            put_run(back, &mut stream);
            split = true;
        } else {
            put_run(run, &mut stream);
        }
        done += run.len();
        at += run.len() + usize::from(s.length);
    }
    let second_end = stream.finish()?;
    out[head_end..head_end + 2].copy_from_slice(&((first_end - start) as u16).to_le_bytes());
    out[head_end + 2..start].copy_from_slice(&((second_end - first_end) as u16).to_le_bytes());

    let mut stream = BitWriter::new(out, second_end);
    let mut last = 0;
    for s in sequences.iter() {
        let code = tokens[token(s)];
        stream.put(u32::from(code & 0xFFF), u32::from(code >> 12));
        if s.distance == last {
            stream.put(u32::from(distances[0] & 0xFFF), u32::from(distances[0] >> 12));
        } else {
            let (symbol, extra, bits) = split_distance(u32::from(s.distance));
            let code = distances[symbol];
            let length = u32::from(code >> 12);
            stream.put(u32::from(code & 0xFFF) | extra << length, length + bits);
        }
        if usize::from(s.literals) >= MANY_LITERALS {
            put_gamma(u32::from(s.literals) - MANY_LITERALS as u32, &mut stream);
        }
        if usize::from(s.length) - MIN_MATCH >= LONG_MATCH {
            put_gamma(u32::from(s.length) - (MIN_MATCH + LONG_MATCH) as u32, &mut stream);
        }
        last = s.distance;
    }
    stream.finish()
}

/// Decodes a part.
pub(super) fn decode(object: &[u8], page: &mut [u8], scratch: &mut Scratch) -> Result<(), DecodeError> {
    let Scratch { table, links, bytes } = scratch;
    let truncated = |at: usize| DecodeError::new(Fault::Truncated, at);
    let codes_fault =
        |bits: &BitReader<'_>| DecodeError::new(Fault::Codes, bits.next_byte().min(object.len()));
    let whole = truncated(0);
    let (literal_table, rest) = table.split_first_chunk_mut::<LITERAL_TABLE>().ok_or(whole)?;
    let (token_table, rest) = rest.split_first_chunk_mut::<TOKEN_TABLE>().ok_or(whole)?;
    let distance_table = rest.first_chunk_mut::<DISTANCE_TABLE>().ok_or(whole)?;
    let present = links.first_chunk_mut::<SYMBOLS>().ok_or(whole)?;

    let mut head = BitReader::new(object);
    let total = head.take(13) as usize;
    let count = head.take(10) as usize;
    if total > PART || count > MAX_SEQUENCES {
        return Err(DecodeError::new(Fault::Overrun, 0));
    }
    if total > 0 {
        read_table(SYMBOLS, present, literal_table, &mut head).ok_or(codes_fault(&head))?;
    }
    if count > 0 {
        read_table(TOKENS, present, token_table, &mut head).ok_or(codes_fault(&head))?;
        read_table(DISTANCES, present, distance_table, &mut head).ok_or(codes_fault(&head))?;
    }
    let head_end = head.next_byte();
    let Some(sizes) = object.get(head_end..head_end + 4) else {
        return Err(truncated(object.len()));
    };
    let start = head_end + 4;
    let first_end = start + usize::from(u16::from_le_bytes([sizes[0], sizes[1]]));
    let second_end = first_end + usize::from(u16::from_le_bytes([sizes[2], sizes[3]]));
    if second_end > object.len() {
        return Err(truncated(head_end));
    }
    let (front, back) = bytes[..total].split_at_mut(total / 2);
    read_literals(&object[start..first_end], front, &object[first_end..second_end], back, literal_table)
        .map_err(|fault| DecodeError::new(fault, start))?;
    let stream = BitReader::new(&object[second_end..]);
    read_sequences(stream, count, token_table, distance_table, &bytes[..], total, page)
        .map_err(|(fault, at)| DecodeError::new(fault, (second_end + at).min(object.len())))
}

/// Decodes the two streams of literals side by side.
fn read_literals(
    first: &[u8],
    front: &mut [u8],
    second: &[u8],
    back: &mut [u8],
    table: &[u16; LITERAL_TABLE],
) -> Result<(), Fault> {
    let (mut a, mut b) = (BitReader::new(first), BitReader::new(second));
    const BATCH: usize = 5;
    let mut fronts = front.chunks_exact_mut(BATCH);
    let mut backs = back.chunks_exact_mut(BATCH);
    // Five codes of 10 bits fit what one peek gives. A code that does not exist has length 0 and is caught by `invalid`.
    let mut valid = u16::MAX;
    let mut read = |bits: &mut BitReader<'_>, out: &mut [u8]| {
        let mut word = bits.peek();
        let mut used = 0;
        for byte in out {
            let entry = table[word as usize & (LITERAL_TABLE - 1)];
            let length = u32::from(entry >> 8);
            *byte = entry as u8;
            word >>= length;
            used += length;
            valid = valid.min(entry >> 8);
        }
        bits.skip(used);
    };
    // The halves differ by one literal, so the second has as many whole batches or one more.
    for y in backs.by_ref() {
        if let Some(x) = fronts.next() {
            // Both lengths are known here, so that neither loop is one.
            read(&mut a, &mut x[..BATCH]);
        }
        read(&mut b, &mut y[..BATCH]);
    }
    read(&mut a, fronts.into_remainder());
    read(&mut b, backs.into_remainder());
    if valid == 0 {
        return Err(Fault::Codes);
    }
    for (bits, stream) in [(a, first), (b, second)] {
        if bits.is_past_end() {
            return Err(Fault::Truncated);
        }
        if bits.next_byte() != stream.len() {
            return Err(Fault::Trailing);
        }
    }
    Ok(())
}

/// Decodes the sequences and executes each; the fault comes with its place in the stream.
fn read_sequences(
    mut bits: BitReader<'_>,
    count: usize,
    tokens: &[u16; TOKEN_TABLE],
    distances: &[u16; DISTANCE_TABLE],
    literals: &[u8],
    total: usize,
    page: &mut [u8],
) -> Result<(), (Fault, usize)> {
    let (mut taken, mut end, mut last) = (0, 0, 0usize);
    for _ in 0..count {
        let place = bits.next_byte();
        let mut word = bits.peek();
        let token = tokens[word as usize & (TOKEN_TABLE - 1)];
        let token_bits = u32::from(token >> 8);
        word >>= token_bits;
        let symbol = distances[word as usize & (DISTANCE_TABLE - 1)];
        let symbol_bits = u32::from(symbol >> 8);
        if token_bits == 0 || symbol_bits == 0 {
            return Err((Fault::Codes, place));
        }
        word >>= symbol_bits;
        let symbol = usize::from(symbol & 0xFF);
        // Symbol 0 has no extra bits and keeps the distance.
        let (extra_bits, shift) = if symbol >= UNITS { (symbol - UNITS, 3) } else { (symbol.max(1) - 1, 0) };
        let coded = ((1 << extra_bits) | (word as usize & ((1 << extra_bits) - 1))) << shift;
        let distance = if symbol == 0 { last } else { coded };
        bits.skip(token_bits + symbol_bits + extra_bits as u32);
        let mut run = usize::from(token >> 4 & 7);
        let mut length = usize::from(token & 15) + MIN_MATCH;
        if run == MANY_LITERALS {
            run += take_gamma(&mut bits) as usize;
        }
        if length == MIN_MATCH + LONG_MATCH {
            length += take_gamma(&mut bits) as usize;
        }
        let begin = end + run;
        let stop = begin + length;
        if taken + run > total || stop > page.len() {
            return Err((Fault::Overrun, place));
        }
        if distance.wrapping_sub(1) >= begin {
            return Err((Fault::Distance { distance }, place));
        }
        if run <= 16 && taken + 16 <= literals.len() && stop + 32 <= page.len() {
            // REACH: both just tested, as `end <= stop`.
            store!(u128, page, end, load!(u128, literals, taken));
        } else {
            page[end..begin].copy_from_slice(&literals[taken..taken + run]);
        }
        crate::codec::reach::copy_match(page, begin, distance, stop);
        (taken, end, last) = (taken + run, stop, distance);
    }
    let place = bits.next_byte();
    if bits.is_past_end() {
        return Err((Fault::Truncated, place));
    }
    if place != bits.len() {
        return Err((Fault::Trailing, place));
    }
    let rest = &literals[taken..total];
    let Some(room) = page.get_mut(end..).filter(|room| room.len() >= rest.len()) else {
        return Err((Fault::Overrun, place));
    };
    if room.len() > rest.len() {
        return Err((Fault::Short, place));
    }
    room.copy_from_slice(rest);
    Ok(())
}

const _: () = assert!(MAX_BITS <= 10 && SYMBOLS == 256);
