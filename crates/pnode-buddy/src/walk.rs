//! Reading the whole tree: what every frame is, piece by piece.

use core::ops::ControlFlow;

use pnode_core::sync::AtomicU64;
use pnode_core::sync::Ordering::{AcqRel, Acquire};
use pnode_core::{FrameRange, Order, Pfn};

use crate::count::UNCLAIMED;
use crate::geometry::{TOP, child_order};
use crate::node::{self, CHILDREN, Child};
use crate::word::{self, Frame};
use crate::zone::Zone;

/// What a piece of the zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Free,
    /// An allocated block.
    Block,
    /// In the cache of a CPU.
    Cached,
    Absent,
}

/// How a walk reads the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// By loads: a snapshot. Frames in motion count as free.
    Glance,
    /// By compare-and-swaps that change nothing. Whoever takes a piece that was free claims it in the same word, or in one
    /// that it was moved to from there, by read-modify-writes that are later in the order of that word: so whoever it is
    /// sees what the walker did before. What is in somebody's hands counts as allocated.
    Certain,
}

impl Look {
    /// The value of a node, or of a word.
    fn at(self, books: &AtomicU64) -> u64 {
        // Acquire pairs with the Release of the frees: who finds everything free may take the memory away.
        let mut value = books.load(Acquire);
        // By B2 and W1, dead and owned ones are for one thread to write.
        while self == Self::Certain && value != node::DEAD && !word::is_owned(value) {
            // Release pairs with the Acquire of every claim, see above; Acquire as before.
            match books.compare_exchange_weak(value, value, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => value = now,
            }
        }
        value
    }

    const fn in_motion(self) -> Use {
        match self {
            Self::Glance => Use::Free,
            Self::Certain => Use::Block,
        }
    }
}

const _: () = assert!(node::DEAD == word::DEAD);

/// An aligned piece of one use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) pfn: u64,
    pub(crate) order: u8,
    pub(crate) class: u8,
    pub(crate) what: Use,
}

impl Piece {
    pub(crate) fn frames(&self) -> u64 {
        1 << self.order
    }

    /// The last frame; a piece may end with the number space.
    pub(crate) fn last(&self) -> u64 {
        self.pfn + (self.frames() - 1)
    }
}

impl Zone<'_> {
    /// Visits all pieces in order of address, at a glance. Free pieces are as the tree has them, not merged.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(Piece)) {
        for index in 0..self.geometry.level(TOP).count {
            let value = Look::Glance.at(self.node(TOP, index));
            let _ = self.walk_node((TOP, index, value), (0, u64::MAX), Look::Glance, &mut |piece| {
                visit(piece);
                ControlFlow::Continue(())
            });
        }
    }

    /// Visits the pieces that have frames in `range`, which lies in the span, in order of address, until `visit` says
    /// stop. Pieces may reach out of the range.
    pub(crate) fn walk_range(
        &self,
        range: FrameRange,
        look: Look,
        visit: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (first, last) = (range.start().get(), range.end().get() - 1);
        for index in self.index(TOP, first)..=self.index(TOP, last) {
            let value = look.at(self.node(TOP, index));
            self.walk_node((TOP, index, value), (first, last), look, visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Visits every allocated block in order of address, as the pictures and audits of a host need it: `O(zone)`, a
    /// snapshot if others work on the zone meanwhile. What lies in a CPU cache counts as allocated.
    pub fn each_block(&self, visit: &mut dyn FnMut(Pfn, Order)) {
        self.walk(&mut |piece| {
            if let (Use::Block, Ok(order)) = (piece.what, Order::new(piece.order)) {
                visit(Pfn::new(piece.pfn), order);
            }
        });
    }

    fn walk_node(
        &self,
        (level, index, value): (usize, usize, u64),
        (first, last): (u64, u64),
        look: Look,
        visit: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let class = if level == 1 { node::class(value) } else { UNCLAIMED };
        let mut next = 0;
        while next < CHILDREN {
            let child = next;
            let pfn = self.child_pfn(level, index, child);
            let mut piece = Piece { pfn, order: child_order(level), class, what: Use::Free };
            next += 1;
            if let Child::Head | Child::Tail = node::child(value, child) {
                while next < CHILDREN && node::child(value, next) == Child::Tail {
                    next += 1;
                }
                piece.order += (next - child).next_power_of_two().trailing_zeros() as u8;
                piece.what = Use::Block;
            }
            if piece.last() < first {
                continue;
            }
            if pfn > last {
                break;
            }
            match node::child(value, child) {
                Child::Free | Child::Head | Child::Tail => visit(piece)?,
                Child::Absent => visit(Piece { what: Use::Absent, ..piece })?,
                Child::Split(_) => {
                    let below = self.child_index(level, index, child);
                    let books = if level == 1 { self.word(below) } else { self.node(level - 1, below) };
                    match (look.at(books), level) {
                        (node::DEAD, _) => visit(Piece { what: look.in_motion(), ..piece })?,
                        (word, 1) => self.walk_word(word, value, piece, (first, last), visit)?,
                        (node, _) => self.walk_node((level - 1, below, node), (first, last), look, visit)?,
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The pieces of a live word of an area, which is itself one `whole` piece.
    fn walk_word(
        &self,
        value: u64,
        area: u64,
        whole: Piece,
        (first, last): (u64, u64),
        visit: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let owned = word::is_owned(value);
        let mut offset = 0;
        while offset < word::FRAMES {
            let what = match word::frame(value, offset) {
                _ if owned && value >> offset & 1 == 0 => Use::Cached,
                _ if owned => Use::Block,
                Frame::Free => Use::Free,
                Frame::Absent if area & node::HOLED == 0 => Use::Cached,
                Frame::Absent => Use::Absent,
                Frame::Head | Frame::Tail => Use::Block,
            };
            let mut order = 0;
            match what {
                _ if owned => {}
                Use::Block | Use::Cached => order = word::order_of(value, offset),
                Use::Free => {
                    while order < word::ORDER - 1 && word::blocks(value, order + 1) >> offset & 1 == 1 {
                        order += 1;
                    }
                }
                Use::Absent => {}
            }
            let piece = Piece { pfn: whole.pfn + u64::from(offset), order, what, ..whole };
            if piece.pfn > last {
                break;
            }
            if piece.last() >= first {
                visit(piece)?;
            }
            offset += 1 << order;
        }
        ControlFlow::Continue(())
    }

    /// Visits the free blocks of the zone as a buddy allocator would list them: merged as far as alignment allows.
    pub(crate) fn each_free_block(&self, visit: &mut dyn FnMut(Pfn, Order)) {
        let mut run = 0..0;
        self.walk(&mut |piece| {
            if piece.what != Use::Free {
                return;
            }
            if piece.pfn != run.end {
                split_into_blocks(run.clone(), visit);
                run.start = piece.pfn;
            }
            run.end = piece.pfn + piece.frames();
        });
        split_into_blocks(run, visit);
    }
}

/// Cuts a run of frames into aligned blocks, each as large as can be.
pub(crate) fn split_into_blocks(run: core::ops::Range<u64>, visit: &mut dyn FnMut(Pfn, Order)) {
    let mut at = run.start;
    while at < run.end {
        let fits = 63 - (run.end - at).leading_zeros();
        let order = at.trailing_zeros().min(fits).min(u32::from(Order::MAX.get())) as u8;
        if let Ok(order) = Order::new(order) {
            visit(Pfn::new(at), order);
        }
        at += 1 << order;
    }
}
