//! Numbers about a zone, for people and policies.

use pnode_core::{MigrateType, Order};

use crate::count::UNCLAIMED;
use crate::walk::Use;
use crate::zone::Zone;

/// Free frames by who may use them first; each count is `O(1)` to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeCounts {
    /// Free frames in areas of each migrate type, in the order of [`MigrateType::ALL`].
    pub by_type: [u64; 3],
    /// Free frames in areas (and larger) that no type has claimed.
    pub unclaimed: u64,
}

/// What is free and what is allocated, by order. See [`Zone::stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Free blocks of each order, merged as far as alignment allows.
    pub free_blocks: [u64; Order::COUNT],
    /// Allocated blocks of each order.
    pub allocated_blocks: [u64; Order::COUNT],
    /// Free frames.
    pub free_frames: u64,
    /// Frames in the caches of CPUs: neither free nor allocated.
    pub cached_frames: u64,
    /// Absent frames inside the span: holes and offline ranges.
    pub absent_frames: u64,
}

impl Stats {
    /// The largest order of which a block is free.
    pub fn largest_free(&self) -> Option<Order> {
        Order::all().rev().find(|order| self.free_blocks[order.get() as usize] != 0)
    }

    /// How much of the free memory is of no use for a block of `order`, in thousandths: 0 if all of it lies in blocks
    /// that large, 1000 if none does.
    ///
    /// The index of Gorman and Healy ("Supporting superpage allocation without additional hardware support", ISMM
    /// 2008) is its complement for requests that fail; this form is defined for all requests.
    pub fn unusable_for(&self, order: Order) -> u64 {
        if self.free_frames == 0 {
            return 1000;
        }
        let usable: u64 = Order::all()
            .filter(|larger| *larger >= order)
            .map(|larger| self.free_blocks[larger.get() as usize] << larger.get())
            .sum();
        1000 - (u128::from(usable) * 1000 / u128::from(self.free_frames)) as u64
    }

    /// Why a request of `order` fails, in thousandths: towards 0 because too little is free, towards 1000 because what is
    /// free lies in too many pieces; `None` if it need not fail, because a block that large is free.
    ///
    /// The fragmentation index of Linux (`mm/vmstat.c`): compaction helps the latter, not the former.
    pub fn fragmentation_index(&self, order: Order) -> Option<u64> {
        if self.largest_free().is_some_and(|largest| largest >= order) {
            return None;
        }
        let blocks: u64 = self.free_blocks.iter().sum();
        if blocks == 0 {
            return Some(0);
        }
        let wanted = self.free_frames.saturating_mul(1000) / order.frames();
        Some(1000u64.saturating_sub((1000 + wanted) / blocks))
    }
}

impl Zone<'_> {
    /// Free frames by migrate type, `O(1)`; exact when no operation is in flight.
    pub fn free_counts(&self) -> FreeCounts {
        FreeCounts {
            by_type: MigrateType::ALL.map(|migrate| self.counts().class(migrate as u8)),
            unclaimed: self.counts().class(UNCLAIMED),
        }
    }

    /// Counts everything by reading the whole tree, `O(zone)`; a snapshot if others work on the zone meanwhile.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            free_blocks: [0; Order::COUNT],
            allocated_blocks: [0; Order::COUNT],
            free_frames: 0,
            cached_frames: 0,
            absent_frames: 0,
        };
        let span = self.span();
        self.walk(&mut |piece| match piece.what {
            Use::Free => stats.free_frames += piece.frames(),
            Use::Cached => stats.cached_frames += piece.frames(),
            Use::Block => {
                if let Some(count) = stats.allocated_blocks.get_mut(piece.order as usize) {
                    *count += 1;
                }
            }
            Use::Absent => {
                let inside = piece.pfn.max(span.start().get())
                    ..piece.pfn.saturating_add(piece.frames()).min(span.end().get());
                stats.absent_frames += inside.end.saturating_sub(inside.start);
            }
        });
        self.each_free_block(&mut |_, order| stats.free_blocks[order.get() as usize] += 1);
        stats
    }

    /// Sets the counts from the tree.
    pub(crate) fn recount(&self) {
        let mut free = [0; UNCLAIMED as usize + 1];
        self.walk(&mut |piece| {
            if piece.what == Use::Free {
                free[piece.class as usize] += piece.frames();
            }
        });
        for (class, frames) in (0..).zip(free) {
            self.counts().set(class, frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(order: u8) -> Order {
        Order::new(order).unwrap()
    }

    /// What is free is so many pieces of one size.
    fn free(pieces: u64, size: u8) -> Stats {
        let mut free_blocks = [0; Order::COUNT];
        free_blocks[size as usize] = pieces;
        let free_frames = pieces << size;
        Stats {
            free_blocks,
            allocated_blocks: [0; Order::COUNT],
            free_frames,
            cached_frames: 0,
            absent_frames: 0,
        }
    }

    #[test]
    fn the_index_tells_pieces_from_shortage() {
        let none = free(0, 0);
        assert_eq!(none.fragmentation_index(order(3)), Some(0));
        assert_eq!(free(1, 0).fragmentation_index(order(9)), Some(0), "one frame: a shortage");
        assert_eq!(free(2, 9).fragmentation_index(order(9)), None);
        // Frames enough for 64 blocks of order 9, all of them single.
        let pieces = free(1 << 15, 0);
        assert_eq!(pieces.fragmentation_index(order(9)), Some(1000 - 65_000 / (1 << 15)));
        assert_eq!((pieces.unusable_for(order(9)), pieces.unusable_for(order(0))), (1000, 0));
        assert_eq!((none.unusable_for(order(0)), pieces.largest_free()), (1000, Some(order(0))));
    }
}
