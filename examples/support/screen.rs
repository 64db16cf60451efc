//! What the examples print with: phases, progress, and numbers for people.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A number with thousands apart.
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// A number of bytes, in the unit that suits it.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} bytes", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

/// Prints the number and name of a phase.
pub(crate) fn phase(number: u32, name: &str, what: &str) {
    println!("\n{number}. {name:<9} {what}");
}

/// A bar that fills while a phase works; only where somebody looks.
pub(crate) struct Progress {
    label: &'static str,
    total: u64,
    shown: Option<Instant>,
    start: Instant,
    terminal: bool,
}

impl Progress {
    const WIDTH: u64 = 32;
    const EVERY: Duration = Duration::from_millis(60);

    pub(crate) fn new(label: &'static str, total: u64) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { label, total, shown: None, start: Instant::now(), terminal }
    }

    /// Shows how far it came, now and then.
    pub(crate) fn at(&mut self, done: u64) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() > Self::EVERY);
        if self.terminal && due {
            self.shown = Some(Instant::now());
            self.bar(done);
            let _ = std::io::stdout().flush();
        }
    }

    fn bar(&self, done: u64) {
        let full = (done * Self::WIDTH).checked_div(self.total).unwrap_or(Self::WIDTH) as usize;
        let (full, rest) =
            ("█".repeat(full), "·".repeat(Self::WIDTH as usize - full.min(Self::WIDTH as usize)));
        print!("\r   {:<12}[{full}{rest}] {} / {}", self.label, Count(done), Count(self.total));
    }

    /// Shows the whole, and how long it took.
    pub(crate) fn done(self) -> Duration {
        let took = self.start.elapsed();
        self.bar(self.total);
        println!(" in {:.2} s", took.as_secs_f64());
        took
    }
}
