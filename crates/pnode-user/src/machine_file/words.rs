//! Lines of words, each of which knows where it stands.

use super::error::{MachineFileError, Problem};

/// A word of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'t> {
    pub(super) text: &'t str,
    line: u32,
    column: u32,
}

impl Word<'_> {
    /// What is wrong with this word.
    pub(super) fn wrong(&self, problem: Problem) -> MachineFileError {
        let width = number(self.text.chars().count()).max(1);
        MachineFileError { line: self.line, column: self.column, width, problem }
    }

    pub(super) const fn line(&self) -> u32 {
        self.line
    }
}

/// The words of one line that has some; there is always a next one to ask for, which may be missing.
#[derive(Clone, Debug)]
pub(super) struct Line<'t> {
    first: Word<'t>,
    rest: Vec<Word<'t>>,
    next: usize,
}

impl<'t> Line<'t> {
    /// The first word, which says what the line is about.
    pub(super) const fn keyword(&self) -> Word<'t> {
        self.first
    }

    /// The next word, if there is one.
    pub(super) fn take(&mut self) -> Option<Word<'t>> {
        let word = self.rest.get(self.next).copied();
        self.next += usize::from(word.is_some());
        word
    }

    /// The next word, which is `what`.
    pub(super) fn expect(&mut self, what: &'static str) -> Result<Word<'t>, MachineFileError> {
        let before = self.last_taken();
        self.take().ok_or_else(|| before.wrong(Problem::Missing { what }))
    }

    /// The next word if it is `text`.
    pub(super) fn take_if(&mut self, text: &str) -> Option<Word<'t>> {
        self.rest.get(self.next).filter(|word| word.text == text)?;
        self.take()
    }

    /// Nothing may be left.
    pub(super) fn end(mut self) -> Result<(), MachineFileError> {
        self.take().map_or(Ok(()), |word| Err(word.wrong(Problem::Extra)))
    }

    fn last_taken(&self) -> Word<'t> {
        let taken = self.next.checked_sub(1).and_then(|last| self.rest.get(last));
        taken.copied().unwrap_or(self.first)
    }
}

/// The lines of `text` that have words.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let code = line.split('#').next().unwrap_or("");
        let mut words = code.split_ascii_whitespace().map(|word| {
            // The word is a part of the line, so the difference of their addresses is its offset.
            let offset = word.as_ptr() as usize - line.as_ptr() as usize;
            let column = number(line[..offset].chars().count() + 1);
            Word { text: word, line: number(index + 1), column }
        });
        Some(Line { first: words.next()?, rest: words.collect(), next: 0 })
    })
}

/// A place in the file; one beyond four thousand million stays there.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
