//! Why a page was not taken in, read, promoted or freed.

use core::fmt;

use pnode_core::{PageOrigin, PageSize};

use super::{Phase, Pressure, Stale};

/// Why a page was not taken in. It stays with the host; nothing is left of it in the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DemoteError {
    /// The node is pressed too hard to take a page.
    Pressure {
        /// How hard.
        pressure: Pressure,
    },
    /// The node is going away or has gone.
    NotOpen {
        /// Where it is in its life.
        phase: Phase,
    },
    /// Every advertised frame holds a page.
    NoFrame,
    /// The medium has no room for this page.
    Full,
    /// The page does not have the size of the node's pages.
    PageLength {
        /// The length that was given, in bytes.
        bytes: usize,
        /// The size of the node's pages.
        page: PageSize,
    },
    /// The page may be written past the fence of a page table.
    Origin {
        /// What it is for.
        origin: PageOrigin,
    },
    /// The frame was in use for a moment; try again.
    Busy,
}

impl fmt::Display for DemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pressure { pressure } => {
                write!(
                    f,
                    "the node is pressed too hard ({pressure} of 1000) to take a page; use the next tier or swap"
                )
            }
            Self::NotOpen { phase } => {
                write!(f, "the node takes no pages, it is {phase:?}; use the next tier or swap")
            }
            Self::NoFrame => f.write_str("every advertised frame holds a page; use the next tier or swap"),
            Self::Full => f.write_str("the node has no room for this page; use the next tier or swap"),
            Self::PageLength { bytes, page } => {
                write!(f, "{bytes} bytes are no page of this node, whose pages have {page:?}")
            }
            Self::Origin { origin } => {
                write!(
                    f,
                    "only private anonymous pages come in, this one is {origin:?}; use the next tier or swap"
                )
            }
            Self::Busy => f.write_str("the frame was in use for a moment; try again"),
        }
    }
}

impl core::error::Error for DemoteError {}

/// Why an access to a resident page was not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultError {
    /// The page is gone: look at the page-table entry again.
    Stale(Stale),
    /// Somebody else is promoting or freeing the page, or there was no memory: make the access again later.
    Retry(Retry),
    /// The contents are lost: tell the process (a bus error), and free the page.
    Poisoned,
    /// The buffer does not have the size of the node's pages.
    PageLength {
        /// The length that was given, in bytes.
        bytes: usize,
        /// The size of the node's pages.
        page: PageSize,
    },
}

/// Why an access has to be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// Another CPU is promoting the page.
    Promoting,
    /// Another CPU is freeing the page.
    Freeing,
    /// There was no memory to promote to.
    NoMemory,
    /// The medium was busy for a moment.
    Busy,
    /// The page is open for writing where it is.
    Writable,
}

impl From<Stale> for FaultError {
    fn from(stale: Stale) -> Self {
        Self::Stale(stale)
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(stale) => stale.fmt(f),
            Self::Retry(Retry::Promoting) => {
                f.write_str("another CPU promotes the page; make the access again")
            }
            Self::Retry(Retry::Freeing) => f.write_str("another CPU frees the page; make the access again"),
            Self::Retry(Retry::NoMemory) => {
                f.write_str("no memory to promote to; reclaim some and make the access again")
            }
            Self::Retry(Retry::Writable) => {
                f.write_str("the page is open for writing: map it writable, or close it first")
            }
            Self::Retry(Retry::Busy) => f.write_str("the medium is busy; make the access again"),
            Self::Poisoned => f.write_str("the page's contents are lost; tell its reader, and free it"),
            Self::PageLength { bytes, page } => {
                write!(f, "{bytes} bytes are no page of this node, whose pages have {page:?}")
            }
        }
    }
}

impl core::error::Error for FaultError {}

/// Why a page was not opened for writing where it is. It is what it was; promote it, or close another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// As many pages are open as may be.
    OverBudget {
        /// How many may be.
        budget: u64,
    },
    /// The node is pressed too hard.
    Pressure {
        /// How hard.
        pressure: Pressure,
    },
    /// The medium cannot set the worst case of a page aside.
    Full,
    /// The medium's pages cannot be written where they are.
    Fixed,
    /// The node is going away or has gone.
    NotOpen {
        /// Where it is in its life.
        phase: Phase,
    },
    /// The page is being promoted or freed at this moment.
    Busy,
    /// The page is gone.
    Stale(Stale),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverBudget { budget } => {
                write!(
                    f,
                    "{budget} pages are open, as many as may be; close the coldest, or promote this one"
                )
            }
            Self::Pressure { pressure } => {
                write!(f, "the node is pressed too hard ({pressure} of 1000) to open a page; promote it")
            }
            Self::Full => f.write_str("the medium cannot set the worst case of a page aside; promote it"),
            Self::Fixed => f.write_str("the medium's pages cannot be written where they are; promote it"),
            Self::NotOpen { phase } => write!(f, "the node opens no pages, it is {phase:?}; promote it"),
            Self::Busy => f.write_str("the page is being promoted or freed; make the access again"),
            Self::Stale(stale) => stale.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {}

/// Why a node was not torn down, or its life not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LifeError {
    /// Pages are still there: promote or free each of them first.
    Occupied {
        /// How many frames are not free.
        pages: u64,
    },
    /// The step does not follow from where the node is.
    OutOfOrder {
        /// Where the node is.
        phase: Phase,
    },
}

impl fmt::Display for LifeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied { pages } => {
                write!(f, "{pages} pages are still in the node; promote or free each of them first")
            }
            Self::OutOfOrder { phase } => write!(f, "the node is {phase:?}; that step does not follow"),
        }
    }
}

impl core::error::Error for LifeError {}
