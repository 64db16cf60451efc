//! The decoder of a part: all literals and all tokens first, several streams side by side, then the sequences.

use super::bits::{PEEK, peek};
use super::lengths::{LITERAL_TABLE, MAX_BITS, read_table};
use super::token::{self, SHAPES, TOKEN_BITS, TOKEN_TABLE};
use super::{Code, Head, PART, STREAMS, known};
use crate::codec::reach::{read_lanes, replay};
use crate::codec::{DecodeError, Fault, Scratch};

/// How many codes one peek covers.
const BATCH: usize = (PEEK / if MAX_BITS > TOKEN_BITS { MAX_BITS } else { TOKEN_BITS }) as usize;
/// By how much a sequence of ordinary length may write past its end.
const OVERSHOOT: usize = 32;

/// Decodes a part.
pub(super) fn decode(object: &[u8], page: &mut [u8], scratch: &mut Scratch) -> Result<(), DecodeError> {
    let truncated = |at: usize| DecodeError::new(Fault::Truncated, at);
    let Some(head) = object.first_chunk() else { return Err(truncated(object.len())) };
    let head = Head::read(head);
    let Some(page) = page.first_chunk_mut::<PART>() else { return Err(DecodeError::new(Fault::Overrun, 0)) };
    if head.spare != 0 {
        return Err(DecodeError::new(Fault::Codes, 3));
    }
    // A sequence fills 3 bytes or more, so that tokens fit behind the literals.
    if head.literals + 3 * head.sequences > PART || head.raw > head.literals {
        return Err(DecodeError::new(Fault::Overrun, 0));
    }
    let Scratch { table, links, bytes } = scratch;
    let mut at = Head::BYTES;
    if head.code != Code::Raw {
        let Some(raw) = object.get(at..at + head.raw) else { return Err(truncated(at)) };
        at += head.raw;
        let table = match head.code {
            Code::Known(set) => &known::TABLES[set % known::SETS],
            Code::Described(set) => {
                let no_code = DecodeError::new(Fault::Codes, at);
                let table = table.first_chunk_mut().ok_or(no_code)?;
                let sorted = links.first_chunk_mut().ok_or(no_code)?;
                let lengths = bytes.first_chunk_mut().ok_or(no_code)?;
                let end = read_table(object, 8 * at, set, lengths, sorted, table).ok_or(no_code)?;
                at = end.div_ceil(8);
                table
            }
            Code::Raw => return Err(truncated(at)),
        };
        let mut bounds = [at; STREAMS + 1];
        for (stream, size) in head.sizes[..STREAMS].iter().enumerate() {
            at += size;
            bounds[stream + 1] = at;
        }
        if at > object.len() {
            return Err(truncated(Head::BYTES));
        }
        bytes[..raw.len()].copy_from_slice(raw);
        read_literals(object, &bounds, &mut bytes[raw.len()..head.literals], table)?;
    } else if head.raw > 0 {
        return Err(DecodeError::new(Fault::Codes, 3));
    } else {
        let Some(literals) = object.get(at..at + head.literals) else { return Err(truncated(at)) };
        bytes[..head.literals].copy_from_slice(literals);
        at += head.literals;
    }
    let middle = at + head.sizes[STREAMS];
    let end = middle + head.sizes[STREAMS + 1];
    if end > object.len() {
        return Err(truncated(at.min(object.len())));
    }
    let tokens_end = head.literals + head.sequences;
    let tokens = &mut bytes[head.literals..tokens_end];
    read_tokens(object, [(at, middle), (middle, end)], tokens, &token::TABLES[head.token_set & 3])?;
    // What a copy of literals may read too much is of this object.
    bytes.iter_mut().skip(tokens_end).take(OVERSHOOT).for_each(|byte| *byte = 0);
    let tokens = &bytes[head.literals..tokens_end];
    let count = tokens.len();
    let sequences = &mut table[..4 * count];
    read_sequences(object, end, tokens, head.literals, sequences)?;
    replay(sequences, &*bytes, page).map_err(|fault| DecodeError::new(fault, end))
}

/// Holds a stream of bits to its bytes: it ends in the last one.
fn ends(at: usize, (start, end): (usize, usize)) -> Result<(), DecodeError> {
    if at > 8 * end {
        return Err(DecodeError::new(Fault::Truncated, start));
    }
    if at + 8 <= 8 * end {
        return Err(DecodeError::new(Fault::Trailing, start));
    }
    Ok(())
}

/// Decodes the streams of literals side by side, each between two of the bounds.
#[inline(never)]
fn read_literals(
    object: &[u8],
    bounds: &[usize; STREAMS + 1],
    literals: &mut [u8],
    table: &[u16; LITERAL_TABLE],
) -> Result<(), DecodeError> {
    let share = literals.len() / STREAMS;
    let mut at = [0; STREAMS];
    for (at, start) in at.iter_mut().zip(bounds) {
        *at = 8 * start;
    }
    let done = read_lanes(object, &mut at, table, literals);
    for (stream, &at) in at.iter().enumerate() {
        let end = if stream + 1 < STREAMS { (stream + 1) * share } else { literals.len() };
        let mut at = at;
        for five in literals[stream * share + done..end].chunks_mut(BATCH) {
            let (mut word, mut used) = (peek(object, at), 0);
            for literal in five {
                let entry = table[(word >> (64 - MAX_BITS)) as usize];
                word <<= entry & 63;
                *literal = (entry >> 8) as u8;
                used += u32::from(entry);
            }
            at += used as usize & 0xFF;
        }
        ends(at, (bounds[stream], bounds[stream + 1]))?;
    }
    Ok(())
}

/// Decodes the two streams of tokens side by side.
#[inline(never)]
fn read_tokens(
    object: &[u8],
    streams: [(usize, usize); 2],
    tokens: &mut [u8],
    table: &[u16; TOKEN_TABLE],
) -> Result<(), DecodeError> {
    let half = tokens.len() / 2;
    let (first, second) = tokens.split_at_mut(half);
    let mut at = streams.map(|(start, _)| 8 * start);
    let next = |word: &mut u64| {
        let entry = table[(*word >> (64 - TOKEN_BITS)) as usize];
        *word <<= entry & 63;
        entry
    };
    let (mut firsts, mut seconds) = (first.chunks_exact_mut(BATCH), second.chunks_exact_mut(BATCH));
    for (x, y) in firsts.by_ref().zip(seconds.by_ref()) {
        let mut words = at.map(|at| peek(object, at));
        let mut used = [0u32; 2];
        for (x, y) in x[..BATCH].iter_mut().zip(&mut y[..BATCH]) {
            let entries = [next(&mut words[0]), next(&mut words[1])];
            (*x, *y) = ((entries[0] >> 8) as u8, (entries[1] >> 8) as u8);
            used = [used[0] + u32::from(entries[0]), used[1] + u32::from(entries[1])];
        }
        at = [at[0] + (used[0] as usize & 0xFF), at[1] + (used[1] as usize & 0xFF)];
    }
    let done = half / BATCH * BATCH;
    for (stream, rest) in [&mut first[done..], &mut second[done..]].into_iter().enumerate() {
        let mut at = at[stream];
        for token in rest {
            let entry = table[(peek(object, at) >> (64 - TOKEN_BITS)) as usize];
            *token = (entry >> 8) as u8;
            at += usize::from(entry & 0xFF);
        }
        ends(at, streams[stream])?;
    }
    Ok(())
}

/// Reads the extra bits of the sequences, from byte `start` of the object on, and writes the sequences: their literals,
/// the length and the distance of their match, and nothing.
///
/// All together they use no more than the literals there are, and fill the part with what is left of those.
fn read_sequences(
    object: &[u8],
    start: usize,
    tokens: &[u8],
    literals: usize,
    sequences: &mut [u16],
) -> Result<(), DecodeError> {
    // The literals of all sequences are added up in the lower half of `sum`, the lengths in the upper one.
    let (mut at, mut sum, mut last) = (8 * start, 0u64, 1);
    for (&token, words) in tokens.iter().zip(sequences.chunks_exact_mut(4)) {
        let shape = &SHAPES[usize::from(token)];
        let word = peek(object, at);
        at += usize::from(shape.bits);
        // In two steps, since there may be no bits.
        let extra = (word >> 1) >> (!shape.bits & 63);
        let length = u64::from(shape.least_length) + (extra & u64::from(shape.length_mask));
        let run =
            u64::from(shape.least_run) + (extra >> (shape.length_bits & 63) & u64::from(shape.run_mask));
        let coded = u64::from(shape.least_distance) + (extra >> (shape.tail_bits & 63) << (shape.shift & 63));
        last = coded | last & shape.repeats as u64;
        sum += run | length << 32;
        words.copy_from_slice(&[run as u16, length as u16, last as u16, 0]);
    }
    ends(at, (start, object.len()))?;
    let (taken, matched) = (sum as u32 as usize, (sum >> 32) as usize);
    if taken > literals || literals + matched > PART {
        return Err(DecodeError::new(Fault::Overrun, start));
    }
    if literals + matched < PART {
        return Err(DecodeError::new(Fault::Short, start));
    }
    Ok(())
}
