//! A picture of occupancy in text.

use core::fmt;

use crate::walk::Use;
use crate::zone::Zone;

/// Cells of a map at most.
const CELLS: usize = 512;

/// Shows how full each part of a zone is. See [`Zone::occupancy`].
pub struct Occupancy<'z, 'm> {
    zone: &'z Zone<'m>,
    columns: usize,
    rows: usize,
}

impl<'m> Zone<'m> {
    /// A map of the zone in `columns` by `rows` characters (together at most 512 cells, at least one): each stands for
    /// an equal share of the frames, from ` ` (free) over `.:-=+*%` to `#` (all allocated); `x` is all absent.
    pub fn occupancy(&self, columns: usize, rows: usize) -> Occupancy<'_, 'm> {
        let columns = columns.clamp(1, CELLS);
        Occupancy { zone: self, columns, rows: rows.clamp(1, CELLS / columns) }
    }
}

impl fmt::Display for Occupancy<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.zone.span();
        let cells = (self.columns * self.rows) as u64;
        let share = span.frames().div_ceil(cells);
        let mut taken = [0u64; CELLS];
        let mut absent = [0u64; CELLS];
        self.zone.walk(&mut |piece| {
            let counts = match piece.what {
                Use::Free => return,
                Use::Block | Use::Cached => &mut taken,
                Use::Absent => &mut absent,
            };
            // A piece at the top of the number space may end past its last number.
            let mut at = piece.pfn.max(span.start().get()) - span.start().get();
            let last = (piece.pfn + (piece.frames() - 1)).min(span.end().get() - 1);
            let Some(last) = last.checked_sub(span.start().get()) else { return };
            while at <= last {
                let cell = at / share;
                let next = ((cell + 1) * share).min(last + 1);
                counts[cell as usize] += next - at;
                at = next;
            }
        });
        for (cell, (taken, absent)) in taken.into_iter().zip(absent).take(cells as usize).enumerate() {
            if cell % self.columns == 0 && cell != 0 {
                f.write_str("\n")?;
            }
            let start = cell as u64 * share;
            let frames = span.frames().saturating_sub(start).min(share);
            f.write_str(shade(frames, taken, absent))?;
        }
        Ok(())
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
