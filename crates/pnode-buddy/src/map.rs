//! A picture of occupancy in text.

use core::fmt;

use crate::walk::Use;
use crate::zone::Zone;

/// Shows how full each part of a zone is. See [`Zone::occupancy`].
pub struct Occupancy<'z, 'm> {
    zone: &'z Zone<'m>,
    columns: u64,
    rows: u64,
}

impl<'m> Zone<'m> {
    /// A map of the zone in `columns` by `rows` characters (at least one of each): each stands for an equal share of the
    /// frames, from ` ` (free) over `.:-=+*%` to `#` (all allocated); `x` is all absent.
    pub fn occupancy(&self, columns: usize, rows: usize) -> Occupancy<'_, 'm> {
        Occupancy { zone: self, columns: columns.max(1) as u64, rows: rows.max(1) as u64 }
    }
}

impl fmt::Display for Occupancy<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.zone.span();
        let cells = self.columns.saturating_mul(self.rows);
        let share = span.frames().div_ceil(cells);
        let mut picture =
            Picture { map: self, f, cells, share, cell: 0, taken: 0, absent: 0, result: Ok(()) };
        self.zone.walk(&mut |piece| {
            // A piece at the top of the number space may end past its last number.
            let at = piece.pfn.max(span.start().get()) - span.start().get();
            let last = (piece.pfn + (piece.frames() - 1)).min(span.end().get() - 1);
            if let Some(last) = last.checked_sub(span.start().get()) {
                picture.add(at, last, piece.what);
            }
        });
        picture.finish()
    }
}

/// A picture in the making: the walk comes by in order of address, so one cell at a time is enough.
struct Picture<'p, 'f, 'z, 'm> {
    map: &'p Occupancy<'z, 'm>,
    f: &'p mut fmt::Formatter<'f>,
    cells: u64,
    /// Frames per cell.
    share: u64,
    cell: u64,
    taken: u64,
    absent: u64,
    result: fmt::Result,
}

impl Picture<'_, '_, '_, '_> {
    /// Counts the frames `at..=last` of the span.
    fn add(&mut self, mut at: u64, last: u64, what: Use) {
        while at <= last {
            let cell = at / self.share;
            while self.cell < cell {
                self.shade();
            }
            let next = ((cell + 1) * self.share).min(last + 1);
            match what {
                Use::Free => {}
                Use::Block | Use::Cached => self.taken += next - at,
                Use::Absent => self.absent += next - at,
            }
            at = next;
        }
    }

    /// Writes the cell and goes on to the next.
    fn shade(&mut self) {
        if self.cell % self.map.columns == 0 && self.cell != 0 {
            self.write("\n");
        }
        let start = self.cell.saturating_mul(self.share);
        let frames = self.map.zone.span().frames().saturating_sub(start).min(self.share);
        self.write(shade(frames, self.taken, self.absent));
        (self.cell, self.taken, self.absent) = (self.cell + 1, 0, 0);
    }

    fn write(&mut self, text: &str) {
        self.result = self.result.and_then(|()| self.f.write_str(text));
    }

    fn finish(mut self) -> fmt::Result {
        while self.cell < self.cells {
            self.shade();
        }
        self.result
    }
}

fn shade(frames: u64, taken: u64, absent: u64) -> &'static str {
    if frames == absent {
        return "x";
    }
    let frames = frames - absent;
    match taken {
        0 => " ",
        _ if taken == frames => "#",
        _ => [".", ":", "-", "=", "+", "*", "%"][(taken * 7 / frames).min(6) as usize],
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::format;

    use pnode_core::{FrameRange, MigrateType, Order, Pfn};

    use crate::{Geometry, Line, Metadata};

    #[test]
    fn cells_show_their_share() {
        let range = FrameRange::new(Pfn::new(30), 100).unwrap();
        let hole = FrameRange::new(Pfn::new(40), 20).unwrap();
        let mut lines = alloc::vec![Line::ZERO; Geometry::new(range).unwrap().lines()];
        let zone = crate::Zone::with_holes(range, &[hole], Metadata::assume_zeroed(&mut lines)).unwrap();
        zone.alloc_at(Pfn::new(64), Order::new(4).unwrap(), MigrateType::Movable).unwrap();
        // Ten frames a cell: 30, 40 and 50 (absent), 60 (6 of 10), 70 (all), 80 to 120.
        assert_eq!(format!("{}", zone.occupancy(5, 2)), " xx+#\n     ");
        // More cells than frames: what is past the end shows as absent.
        let fine = format!("{}", zone.occupancy(64, 2));
        assert_eq!(fine.matches('#').count(), 16);
        assert_eq!(fine.matches('x').count(), 20 + 28);
        assert_eq!(format!("{}", zone.occupancy(0, 0)), ":");
    }
}
