//! Occupancy as a slice of bits, for people and tests.

use bitvec::order::Lsb0;
use bitvec::slice::BitSlice;

use crate::walk::Use;
use crate::zone::Zone;

impl Zone<'_> {
    /// Sets bit `i` if frame `i` of the span is not free (allocated, cached or absent), and clears it if it is. Bits
    /// past the span are cleared, frames past the bits left out. A snapshot: the zone's own words are atomics, which a
    /// bit slice cannot look into.
    pub fn occupied_bits(&self, bits: &mut BitSlice<u64, Lsb0>) {
        bits.fill(false);
        let span = self.span();
        self.walk(&mut |piece| {
            if piece.what == Use::Free {
                return;
            }
            let first = piece.pfn.max(span.start().get());
            let last = (piece.pfn + (piece.frames() - 1)).min(span.end().get() - 1);
            if first > last {
                return;
            }
            let place = |pfn: u64| (pfn - span.start().get()).min(bits.len() as u64) as usize;
            let occupied = place(first)..(place(last) + 1).min(bits.len());
            if let Some(frames) = bits.get_mut(occupied) {
                frames.fill(true);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use bitvec::prelude::*;
    use pnode_core::{FrameRange, MigrateType, Order, Pfn};

    use crate::{Geometry, Line, Metadata, Zone};

    #[test]
    fn bits_are_the_frames_that_are_not_free() {
        let range = |start, frames| FrameRange::new(Pfn::new(start), frames).unwrap();
        let span = range(100, 500);
        let mut lines = alloc::vec![Line::ZERO; Geometry::new(span).unwrap().lines()];
        let hole = range(200, 7);
        let zone = Zone::with_holes(span, &[hole], Metadata::assume_zeroed(&mut lines)).unwrap();
        let order = Order::new(4).unwrap();
        let block = zone.alloc(order, MigrateType::Movable).unwrap();
        let block = FrameRange::block(block, order).unwrap();
        // Fewer bits than frames, all frames, more bits than frames.
        for count in [3, 150, 500, 640] {
            let mut words = [!0u64; 10];
            let bits = &mut words.view_bits_mut::<Lsb0>()[..count];
            zone.occupied_bits(bits);
            for (bit, occupied) in bits.iter().enumerate() {
                let pfn = Pfn::new(100 + bit as u64);
                let expected = hole.contains(pfn) || block.contains(pfn);
                assert_eq!(*occupied, expected, "{pfn:?} of {count}");
            }
        }
    }
}
