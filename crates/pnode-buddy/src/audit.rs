//! Checking a whole zone against its invariants.

use core::fmt;

use pnode_core::Pfn;
use pnode_core::sync::Ordering::Acquire;

use crate::count::UNCLAIMED;
use crate::geometry::{Geometry, TOP};
use crate::node::{self, CHILDREN, Child, advert};
use crate::stats::Stats;
use crate::walk::Use;
use crate::word::{self, Frame};
use crate::zone::Zone;

/// What is wrong with the books of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditError {
    /// A word or node claims frames that are its parent's (invariant B2).
    Undead {
        /// The first frame.
        pfn: Pfn,
    },
    /// A word or node is dead, but its parent calls it split (B2).
    InMotion {
        /// The first frame.
        pfn: Pfn,
    },
    /// Allocated children or frames that are no block of a power of two.
    BrokenBlock {
        /// The first frame.
        pfn: Pfn,
    },
    /// More is free here than the hint, the advert or the index say (B3): a search could miss it.
    Understated {
        /// The first frame.
        pfn: Pfn,
    },
    /// The books say that somebody is still at work here.
    Unsettled {
        /// The first frame.
        pfn: Pfn,
    },
    /// A count of free frames is off.
    Miscounted {
        /// The migrate type's number, or 3 for unclaimed frames.
        class: u8,
        /// What the count says.
        counted: u64,
        /// What the tree says.
        found: u64,
    },
    /// The free, allocated and absent frames do not add up to the zone.
    Lost {
        /// What should be there.
        expected: u64,
        /// What is.
        found: u64,
    },
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undead { pfn } => write!(f, "the books at {pfn:?} speak of frames that are decided above"),
            Self::InMotion { pfn } => write!(f, "the frames at {pfn:?} are between two levels"),
            Self::BrokenBlock { pfn } => write!(f, "the block at {pfn:?} has an impossible size"),
            Self::Understated { pfn } => write!(f, "more is free at {pfn:?} than the hints say"),
            Self::Unsettled { pfn } => write!(f, "somebody left work undone at {pfn:?}"),
            Self::Miscounted { class, counted, found } => {
                write!(f, "class {class} counts {counted} free frames, the tree has {found}")
            }
            Self::Lost { expected, found } => write!(f, "{found} frames are accounted for, not {expected}"),
        }
    }
}

impl core::error::Error for AuditError {}

impl Zone<'_> {
    /// Checks every invariant that can be seen from outside: `O(zone)`, and only meaningful while no operation is in
    /// flight and no CPU cache holds counts.
    ///
    /// # Errors
    ///
    /// The first [`AuditError`] found.
    pub fn audit(&self) -> Result<Stats, AuditError> {
        for index in 0..self.geometry.level(TOP).count {
            self.audit_node(TOP, index)?;
        }
        let mut free = [0u64; UNCLAIMED as usize + 1];
        self.walk(&mut |piece| {
            if piece.what == Use::Free {
                free[piece.class as usize] += piece.frames();
            }
        });
        for (class, found) in (0..).zip(free) {
            let counted = self.counts().class(class);
            if counted != found {
                return Err(AuditError::Miscounted { class, counted, found });
            }
        }
        let stats = self.stats();
        let allocated: u64 =
            stats.allocated_blocks.iter().zip(0..).map(|(count, order)| count << order).sum();
        let in_service = allocated + stats.free_frames + stats.cached_frames;
        let (expected, found) = (self.managed_frames(), in_service + self.withheld.load(Acquire));
        if expected != found {
            return Err(AuditError::Lost { expected, found });
        }
        let expected = self.span().frames();
        let found = in_service + stats.absent_frames;
        if expected != found {
            return Err(AuditError::Lost { expected, found });
        }
        Ok(stats)
    }

    fn audit_node(&self, level: usize, index: usize) -> Result<(), AuditError> {
        let value = self.node(level, index).load(Acquire);
        let here = Pfn::new(self.child_pfn(level, index, 0));
        if value & node::SETTLING != 0 {
            return Err(AuditError::Unsettled { pfn: here });
        }
        for (child, run) in node::heads(value) {
            if child & ((1 << run) - 1) != 0 || !node::holds(value, child, run) {
                return Err(AuditError::BrokenBlock { pfn: Pfn::new(self.child_pfn(level, index, child)) });
            }
        }
        for child in 0..CHILDREN {
            let pfn = Pfn::new(self.child_pfn(level, index, child));
            let state = node::child(value, child);
            if state == Child::Absent && !self.has_children(level, index, child) {
                continue;
            }
            let below = self.child_index(level, index, child);
            let dead = match level {
                1 => self.word(below).load(Acquire) == word::DEAD,
                _ => self.node(level - 1, below).load(Acquire) == node::DEAD,
            };
            match state {
                Child::Split(_) if dead => return Err(AuditError::InMotion { pfn }),
                Child::Split(hint) if level == 1 => self.audit_word(below, hint, value & node::HOLED, pfn)?,
                Child::Split(hint) => {
                    self.audit_node(level - 1, below)?;
                    let child = self.node(level - 1, below).load(Acquire);
                    let whole = node::whole(child) == 0xffff || node::advertised(child) == advert::EMPTY;
                    let whole = whole && child & node::ISOLATED == 0;
                    if whole && hint != word::level::EMPTY {
                        return Err(AuditError::Understated { pfn });
                    }
                }
                _ if !dead => return Err(AuditError::Undead { pfn }),
                _ => {}
            }
        }
        if value & node::ISOLATED != 0 {
            return Ok(());
        }
        let serves = self.audited_service(level, index, value);
        if serves > node::advertised(value) {
            return Err(AuditError::Understated { pfn: here });
        }
        for advert in Geometry::first_advert(level)..=serves.min(advert::HALF) {
            if !self.map(level, node::group(value), advert).listed(index) {
                return Err(AuditError::Understated { pfn: here });
            }
        }
        Ok(())
    }

    /// What a node really serves.
    fn audited_service(&self, level: usize, index: usize, value: u64) -> u8 {
        let whole = node::serves(node::with_absent(value, !node::whole(value) & 0xffff));
        if level > 1 {
            return whole;
        }
        (0..CHILDREN).filter(|child| node::split(value) >> child & 1 == 1).fold(whole, |largest, child| {
            largest.max(word::largest(self.word(self.child_index(1, index, child)).load(Acquire)))
        })
    }

    /// Whether the tree has books for a child at all: those outside the zone have none.
    pub(crate) fn has_children(&self, level: usize, index: usize, child: u32) -> bool {
        let below = self.child_pfn(level, index, child);
        level == 1 || {
            let layout = self.geometry.level(level - 1);
            let number = below >> crate::geometry::node_order(level - 1);
            number >= layout.first && number - layout.first < layout.count as u64
        }
    }

    fn audit_word(&self, index: usize, hint: u8, holed: u64, pfn: Pfn) -> Result<(), AuditError> {
        let value = self.word(index).load(Acquire);
        if word::is_owned(value) {
            return Ok(());
        }
        let shelved = word::heads(value, Frame::Absent).filter(|_| holed == 0);
        let shelved = shelved.map(|(offset, order)| (offset, order, value ^ word::away(offset)));
        let heads = word::heads(value, Frame::Head).map(|(offset, order)| (offset, order, value));
        for (offset, order, value) in heads.chain(shelved) {
            let aligned = order < word::ORDER && offset & ((1 << order) - 1) == 0;
            if !aligned || !word::holds(value, offset, order) {
                return Err(AuditError::BrokenBlock { pfn });
            }
        }
        if word::serves(value) > hint { Err(AuditError::Understated { pfn }) } else { Ok(()) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use pnode_core::sync::Ordering::Relaxed;
    use pnode_core::{FrameRange, MigrateType, Order};

    use super::*;
    use crate::metadata::{Line, Metadata};

    /// What an audit says after `damage` to the books of a zone with one allocated frame.
    fn audited(damage: impl Fn(&Zone<'_>)) -> Result<Stats, AuditError> {
        let range = FrameRange::new(Pfn::new(0), 1 << 14).unwrap();
        let mut lines: Vec<Line> = vec![Line::ZERO; Geometry::new(range).unwrap().lines()];
        let zone = Zone::new(range, Metadata::assume_zeroed(&mut lines)).unwrap();
        assert_eq!(zone.alloc(Order::ZERO, MigrateType::Movable), Ok(Pfn::new(0)));
        damage(&zone);
        zone.audit()
    }

    #[test]
    fn an_audit_refutes_books_that_are_decided_above() {
        assert!(audited(|_| {}).is_ok());
        let word = audited(|zone| zone.word(3).store(word::EMPTY, Relaxed));
        assert_eq!(word, Err(AuditError::Undead { pfn: Pfn::new(96) }));
        let area = audited(|zone| zone.node(1, 2).store(node::empty(0), Relaxed));
        assert_eq!(area, Err(AuditError::Undead { pfn: Pfn::new(1024) }));
    }

    #[test]
    fn an_audit_refutes_an_area_that_offers_all_while_its_node_does_not_know() {
        let area = audited(|zone| {
            let at = zone.node(1, 0);
            at.store(node::with_advert(at.load(Relaxed), advert::EMPTY), Relaxed);
        });
        assert_eq!(area, Err(AuditError::Understated { pfn: Pfn::new(0) }));
    }

    #[test]
    fn an_audit_refutes_an_area_that_hides_what_a_word_has() {
        let area = audited(|zone| {
            let block = Order::new(word::ORDER).unwrap();
            (1..16).for_each(|at| zone.alloc_at(Pfn::new(at * 32), block, MigrateType::Movable).unwrap());
            let at = zone.node(1, 0);
            at.store(node::with_advert(at.load(Relaxed), advert::NONE), Relaxed);
        });
        assert_eq!(area, Err(AuditError::Understated { pfn: Pfn::new(0) }));
    }
}
