//! Test results as KTAP, the kernel's test protocol (`Documentation/dev-tools/ktap.rst`), into the kernel's log.

use core::fmt;

use crate::kernel::{Kernel, Level};

/// Why a case failed: what was expected, and the number that was found instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What should have been so.
    pub expected: &'static str,
    /// What was found; its meaning is the case's own.
    pub found: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {:#x}", self.expected, self.found)
    }
}

/// A report under way.
#[derive(Debug)]
pub struct Report<K> {
    kernel: K,
    planned: usize,
    done: usize,
    failed: usize,
}

impl<K: Kernel> Report<K> {
    /// Begins a report of `planned` cases.
    pub fn begin(kernel: K, planned: usize) -> Self {
        kernel.log(Level::Report, format_args!("KTAP version 1"));
        kernel.log(Level::Report, format_args!("1..{planned}"));
        Self { kernel, planned, done: 0, failed: 0 }
    }

    /// A remark between results.
    pub fn remark(&self, text: fmt::Arguments<'_>) {
        self.kernel.log(Level::Report, format_args!("# {text}"));
    }

    /// The result of the next case.
    pub fn case(&mut self, name: &str, result: Result<(), Failure>) {
        self.done += 1;
        let number = self.done;
        match result {
            Ok(()) => self.kernel.log(Level::Report, format_args!("ok {number} {name}")),
            Err(failure) => {
                self.failed += 1;
                self.remark(format_args!("{failure}"));
                self.kernel.log(Level::Report, format_args!("not ok {number} {name}"));
            }
        }
    }

    /// Whether all planned cases ran and passed.
    pub fn passed(&self) -> bool {
        self.failed == 0 && self.done == self.planned
    }
}
