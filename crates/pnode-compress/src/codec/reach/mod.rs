//! The unsafe room of the codecs: every memory access without a bounds check is in this directory.
//!
//! What goes out of here is safe: each type states what holds between two of its calls (`# Invariants`), tests once
//! what a step of a codec needs, and makes the accesses of that step without another test. A wrong argument can spoil
//! an object, never memory.
//!
//! - [`Cursor`]: a place in a page that is being searched, and the positions that the quick encoder remembers.
//! - [`Recent`]: the positions that the thorough encoder remembers.
//! - [`decode_quickly`] and [`copy_match`]: sequences and matches written to a page, within tested limits.
//! - [`read_lanes`] and [`replay`]: the loops of the entropy decoder over literals and over sequences.
//! - [`load`] and [`store`]: single accesses that test their range, for everything else.
//! - [`Block`]: what an encoder has written, and the room that is left.
//!
//! The accesses themselves are the two macros of `access`. Without the feature `raw` they are checked slices and the codecs
//! hold no unsafe code at all; a broken invariant is then a panic. Debug builds check in both.
#![cfg_attr(feature = "raw", allow(unsafe_code))]

mod access;
mod block;
mod cursor;
mod fill;
mod hash;
mod lanes;
mod recent;
mod replay;
mod tested;

pub(in crate::codec) use block::Block;
pub(in crate::codec) use cursor::{Cursor, match_end, match_length};
pub(in crate::codec) use fill::{copy_match, decode_quickly, length};
pub(in crate::codec) use hash::hash;
pub(in crate::codec) use lanes::read_lanes;
pub(in crate::codec) use recent::Recent;
pub(in crate::codec) use replay::replay;
pub(in crate::codec) use tested::{bytes_at, load, put_at, store};
