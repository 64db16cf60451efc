//! Sequences of a part, and the quick search for them, which is that of the fast codec.

use super::PART;
use crate::codec::reach::{Cursor, match_end};

/// The most sequences that an encoder makes of a part.
pub(super) const MAX_SEQUENCES: usize = 2048 / 3;
/// The shortest match.
pub(super) const MIN_MATCH: usize = 3;
/// How many bytes are hashed: literals are cheap here, and a shorter match saves little.
const HASHED: usize = 6;

/// So many literals, then so many bytes from so far back.
#[derive(Clone, Copy)]
pub(super) struct Sequence {
    pub(super) literals: u16,
    pub(super) length: u16,
    pub(super) distance: u16,
}

/// The sequences of a part, three words each.
pub(super) struct Sequences<'s> {
    pub(super) words: &'s mut [u16; 2048],
    pub(super) count: usize,
}

impl Sequences<'_> {
    /// Whether there is no room for another one.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.count >= MAX_SEQUENCES
    }

    /// Appends a sequence; nothing if there is no room.
    #[inline(always)]
    pub(super) fn push(&mut self, literals: usize, length: usize, distance: usize) {
        if let Some(room) = self.words.get_mut(3 * self.count..3 * self.count + 3) {
            room.copy_from_slice(&[literals as u16, length as u16, distance as u16]);
            self.count += 1;
        }
    }
}

/// Finds the sequences of a part by the search of the fast codec; what follows the last one is literals.
pub(super) fn quick<'s>(
    part: &[u8; PART],
    table: &mut [u16; 4096],
    words: &'s mut [u16; 2048],
) -> Sequences<'s> {
    let mut found = Sequences { words, count: 0 };
    let Some(mut cursor) = Cursor::<HASHED>::new(part, table) else { return found };
    let mut taken = 0;
    while let Ok(next) = cursor.search() {
        let behind = cursor.behind(&next).min(next.at - taken);
        let start = next.at - behind;
        let stop = if let Some((longer, word)) = next.short() {
            let stop = next.at + 4 + longer;
            cursor.go_onto(stop, word);
            stop
        } else {
            let stop = match_end(part, next.at + 4 + 8, next.distance, PART);
            cursor.go(stop);
            stop
        };
        found.push(start - taken, stop - start, next.distance);
        taken = stop;
        if found.is_full() {
            break;
        }
    }
    found
}
