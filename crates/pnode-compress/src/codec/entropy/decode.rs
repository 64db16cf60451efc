//! The decoder of a part: all literals and all tokens first, several streams side by side, then the sequences.

use super::bits::{PEEK, peek};
use super::lengths::{LITERAL_TABLE, MAX_BITS, read_table};
use super::token::{self, SHAPES, TOKEN_BITS, TOKEN_TABLE};
use super::{Head, PART};
use crate::codec::lz4::reach::{load, store};
use crate::codec::reach::copy_match;
use crate::codec::{DecodeError, Fault, Scratch};

/// How many codes one peek covers.
const BATCH: usize = 5;
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
    if head.literals + 3 * head.sequences > PART {
        return Err(DecodeError::new(Fault::Overrun, 0));
    }
    let Scratch { table, links, bytes } = scratch;
    let mut at = Head::BYTES;
    if let Some(set) = head.description {
        let no_code = DecodeError::new(Fault::Codes, at);
        let table = table.first_chunk_mut().ok_or(no_code)?;
        let sorted = links.first_chunk_mut().ok_or(no_code)?;
        let lengths = bytes.first_chunk_mut().ok_or(no_code)?;
        let end = read_table(object, 8 * at, set, lengths, sorted, table).ok_or(no_code)?;
        at = end.div_ceil(8);
        let streams = [0, 1, 2, 3].map(|stream| {
            let start = at;
            at += head.sizes[stream];
            (start, at)
        });
        if at > object.len() {
            return Err(truncated(Head::BYTES));
        }
        read_literals(object, streams, &mut bytes[..head.literals], table)?;
    } else {
        let Some(literals) = object.get(at..at + head.literals) else { return Err(truncated(at)) };
        bytes[..head.literals].copy_from_slice(literals);
        at += head.literals;
    }
    let middle = at + head.sizes[4];
    let end = middle + head.sizes[5];
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
    execute(sequences, &*bytes, page);
    Ok(())
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

/// Decodes the four streams of literals side by side.
fn read_literals(
    object: &[u8],
    streams: [(usize, usize); 4],
    literals: &mut [u8],
    table: &[u16; LITERAL_TABLE],
) -> Result<(), DecodeError> {
    let quarter = literals.len() / 4;
    let mut at = streams.map(|(start, _)| 8 * start);
    let next = |word: &mut u64| {
        let entry = table[(*word >> (64 - MAX_BITS)) as usize];
        *word <<= entry & 63;
        entry
    };
    // While no stream is near the end of the object, one load gives the bits of a batch.
    let limit = 8 * (object.len() - 8);
    let mut done = 0;
    while done + BATCH <= quarter && at.iter().all(|&at| at <= limit) {
        // REACH: `at <= limit`, just tested.
        let mut words = at.map(|at| load!(u64, object, at / 8).swap_bytes() << (at % 8));
        let mut used = [0u32; 4];
        for i in done..done + BATCH {
            for stream in 0..4 {
                let entry = next(&mut words[stream]);
                // REACH: `i < quarter`, and four quarters lie in the literals.
                store!(u8, literals, stream * quarter + i, (entry >> 8) as u8);
                used[stream] += u32::from(entry);
            }
        }
        for (at, used) in at.iter_mut().zip(used) {
            // The lengths in the lowest bits of each entry add up to 50 at the most.
            *at += used as usize & 0xFF;
        }
        done += BATCH;
    }
    for stream in 0..4 {
        let end = if stream < 3 { (stream + 1) * quarter } else { literals.len() };
        let mut at = at[stream];
        for five in literals[stream * quarter + done..end].chunks_mut(BATCH) {
            let (mut word, mut used) = (peek(object, at), 0);
            for literal in five {
                let entry = next(&mut word);
                *literal = (entry >> 8) as u8;
                used += u32::from(entry);
            }
            at += used as usize & 0xFF;
        }
        ends(at, streams[stream])?;
    }
    Ok(())
}

/// Decodes the two streams of tokens side by side.
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
/// the length and the distance of their match, and nothing. A last one without a match takes the literals that are left.
///
/// What it writes is checked: distances lie in the part, and all together the literals are used up and the part full.
fn read_sequences(
    object: &[u8],
    start: usize,
    tokens: &[u8],
    literals: usize,
    sequences: &mut [u16],
) -> Result<(), DecodeError> {
    let (mut at, mut taken, mut end, mut last, mut far) = (8 * start, 0, 0, 1, 0);
    for (&token, words) in tokens.iter().zip(sequences.chunks_exact_mut(4)) {
        let shape = &SHAPES[usize::from(token)];
        let word = peek(object, at);
        at += usize::from(shape.bits);
        // In two steps, since there may be no bits.
        let extra = ((word >> 1) >> (!shape.bits & 63)) as usize;
        let length = usize::from(shape.least_length) + (extra & usize::from(shape.length_mask));
        let run =
            usize::from(shape.least_run) + (extra >> (shape.length_bits & 63) & usize::from(shape.run_mask));
        let coded = ((extra >> (shape.tail_bits & 63)) + 1) << (shape.shift & 63);
        let repeats = shape.repeats as usize;
        last = last & repeats | coded & !repeats;
        taken += run;
        end += run;
        // Negative if the distance does not lie in the part.
        far |= end.wrapping_sub(last) as isize;
        end += length;
        let packed = run | length << 16 | last << 32;
        words.copy_from_slice(&[0, 16, 32, 48].map(|shift| (packed >> shift) as u16));
    }
    ends(at, (start, object.len()))?;
    let full = end.wrapping_add(literals).wrapping_sub(taken);
    if far >= 0 && taken <= literals && full == PART {
        return Ok(());
    }
    Err(DecodeError::new(fault_of(sequences, literals), start))
}

/// What is wrong with sequences of which something is.
#[cold]
fn fault_of(sequences: &[u16], literals: usize) -> Fault {
    let (mut taken, mut end) = (0, 0);
    for words in sequences.chunks_exact(4) {
        let [run, length, distance] = [words[0], words[1], words[2]].map(usize::from);
        (taken, end) = (taken + run, end + run);
        if distance > end {
            return Fault::Distance { distance };
        }
        end += length;
        if taken > literals || end > PART {
            return Fault::Overrun;
        }
    }
    if end + literals - taken > PART { Fault::Overrun } else { Fault::Short }
}

/// Executes sequences that [`read_sequences`] has checked, with the literals at the start of `bytes`.
#[inline(never)]
fn execute(sequences: &[u16], bytes: &[u8; PART], page: &mut [u8; PART]) {
    // X1: `taken <= end`, as each sequence adds as much to both and its match to `end`.
    let (mut taken, mut end) = (0, 0);
    for words in sequences.chunks_exact(4) {
        let [run, length, distance] = [words[0], words[1], words[2]].map(usize::from);
        let begin = end + run;
        let stop = begin + length;
        if stop + OVERSHOOT <= PART {
            // REACH: by X1 both end by `begin + 16`, and so does each later step.
            store!(u128, page, end, load!(u128, bytes, taken));
            if run > 16 {
                let mut done = 16;
                while done < run {
                    // REACH: as above.
                    store!(u128, page, end + done, load!(u128, bytes, taken + done));
                    done += 16;
                }
            }
            if (distance >= 8) & (length <= 16) & (distance <= begin) {
                let from = begin - distance;
                // REACH: these end by `begin + 16`, and the loads lie before their stores.
                store!(u64, page, begin, load!(u64, page, from));
                store!(u64, page, begin + 8, load!(u64, page, from + 8));
            } else {
                copy_match(page, begin, distance, stop);
            }
        } else {
            let (Some(room), Some(run)) = (page.get_mut(end..begin), bytes.get(taken..taken + run)) else {
                return;
            };
            room.copy_from_slice(run);
            copy_match(page, begin, distance, stop);
        }
        (taken, end) = (taken + run, stop);
    }
    let rest = PART.saturating_sub(end);
    if let Some(literals) = bytes.get(taken..taken + rest) {
        page[PART - rest..].copy_from_slice(literals);
    }
}

const _: () = assert!(BATCH as u32 * MAX_BITS <= PEEK && BATCH as u32 * TOKEN_BITS <= PEEK);
