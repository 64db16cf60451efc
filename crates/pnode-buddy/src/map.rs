//! A picture of occupancy, in text or as SVG.

use core::fmt;

use crate::walk::Use;
use crate::zone::Zone;

/// Pixels from one cell of an [`Svg`] to the next.
const CELL: u64 = 12;

/// Shows how full each part of a zone is. See [`Zone::occupancy`].
pub struct Occupancy<'z, 'm> {
    zone: &'z Zone<'m>,
    columns: u64,
    rows: u64,
}

/// An [`Occupancy`] as an SVG document. See [`Occupancy::svg`].
pub struct Svg<'o, 'z, 'm>(&'o Occupancy<'z, 'm>);

impl<'m> Zone<'m> {
    /// A map of the zone in `columns` by `rows` characters (at least one of each): each stands for an equal share of the
    /// frames, from ` ` (free) over `.:-=+*%` to `#` (all allocated); `x` is all absent.
    pub fn occupancy(&self, columns: usize, rows: usize) -> Occupancy<'_, 'm> {
        Occupancy { zone: self, columns: columns.max(1) as u64, rows: rows.max(1) as u64 }
    }
}

impl<'z, 'm> Occupancy<'z, 'm> {
    /// The same map as a whole SVG document: a square a cell, from white (free) to dark blue (all allocated), grey where
    /// all is absent; its tool tip names the first frame and the numbers. Written without a buffer.
    pub fn svg(&self) -> Svg<'_, 'z, 'm> {
        Svg(self)
    }

    /// Draws the cells one by one.
    fn draw(&self, out: &mut fmt::Formatter<'_>, draw: DrawCell) -> fmt::Result {
        let span = self.zone.span();
        let cells = self.columns.saturating_mul(self.rows);
        let share = span.frames().div_ceil(cells);
        let mut picture =
            Picture { map: self, out, draw, cells, share, cell: 0, taken: 0, absent: 0, result: Ok(()) };
        self.zone.walk(&mut |piece| {
            // A piece at the top of the number space may end past its last number.
            let at = piece.pfn.max(span.start().get()) - span.start().get();
            let last = piece.last().min(span.end().get() - 1);
            if let Some(last) = last.checked_sub(span.start().get()) {
                picture.add(at, last, piece.what);
            }
        });
        picture.finish()
    }
}

impl fmt::Display for Occupancy<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draw(f, |map, out, cell| {
            if cell.number % map.columns == 0 && cell.number != 0 {
                out.write_str("\n")?;
            }
            out.write_str(shade(cell.frames, cell.taken, cell.absent))
        })
    }
}

impl fmt::Display for Svg<'_, '_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map = self.0;
        let (width, height) = (map.columns.saturating_mul(CELL), map.rows.saturating_mul(CELL));
        writeln!(f, r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">"#)?;
        let (free, managed) = (map.zone.free_frames(), map.zone.managed_frames());
        writeln!(f, "<title>{:?}: {free} of {managed} frames free</title>", map.zone.span())?;
        map.draw(f, |map, out, cell| {
            let (x, y) = (cell.number % map.columns * CELL, cell.number / map.columns * CELL);
            let side = CELL - 1;
            write!(out, r#"<rect x="{x}" y="{y}" width="{side}" height="{side}" fill=""#)?;
            match cell.frames - cell.absent {
                0 => out.write_str("#bbbbbb")?,
                present => {
                    // From white to #1e3a8a.
                    let mix = |full: u64| 255 - (255 - full) * cell.taken / present;
                    write!(out, "#{:02x}{:02x}{:02x}", mix(0x1e), mix(0x3a), mix(0x8a))?;
                }
            }
            let start = map.zone.span().start().get().saturating_add(cell.start);
            let Cell { frames, taken, absent, .. } = cell;
            let free = frames - taken - absent;
            writeln!(
                out,
                r#""><title>{start:#x}: {free} free, {taken} taken, {absent} absent</title></rect>"#
            )
        })?;
        f.write_str("</svg>\n")
    }
}

/// A finished cell.
struct Cell {
    number: u64,
    /// Its first frame, from the start of the zone.
    start: u64,
    frames: u64,
    taken: u64,
    absent: u64,
}

/// Writes one cell.
type DrawCell = fn(&Occupancy<'_, '_>, &mut fmt::Formatter<'_>, Cell) -> fmt::Result;

/// A picture in the making: the walk comes by in order of address, so one cell at a time is enough.
struct Picture<'p, 'f, 'z, 'm> {
    map: &'p Occupancy<'z, 'm>,
    out: &'p mut fmt::Formatter<'f>,
    draw: DrawCell,
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
                self.finish_cell();
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
    fn finish_cell(&mut self) {
        let start = self.cell.saturating_mul(self.share);
        let frames = self.map.zone.span().frames().saturating_sub(start).min(self.share);
        let cell = Cell { number: self.cell, start, frames, taken: self.taken, absent: self.absent };
        if self.result.is_ok() {
            self.result = (self.draw)(self.map, self.out, cell);
        }
        (self.cell, self.taken, self.absent) = (self.cell + 1, 0, 0);
    }

    fn finish(mut self) -> fmt::Result {
        while self.cell < self.cells {
            self.finish_cell();
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

    #[test]
    fn an_image_has_the_same_cells() {
        let range = FrameRange::new(Pfn::new(30), 100).unwrap();
        let hole = FrameRange::new(Pfn::new(40), 20).unwrap();
        let mut lines = alloc::vec![Line::ZERO; Geometry::new(range).unwrap().lines()];
        let zone = crate::Zone::with_holes(range, &[hole], Metadata::assume_zeroed(&mut lines)).unwrap();
        zone.alloc_at(Pfn::new(64), Order::new(4).unwrap(), MigrateType::Movable).unwrap();
        let svg = format!("{}", zone.occupancy(5, 2).svg());
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("64 of 80 frames free"));
        let cells: alloc::vec::Vec<_> = svg.lines().filter(|line| line.starts_with("<rect")).collect();
        assert_eq!(cells.len(), 10);
        assert!(
            cells[8].starts_with(r##"<rect x="36" y="12" width="11" height="11" fill="#ffffff"##),
            "{}",
            cells[8]
        );
        assert!(cells[1].contains("#bbbbbb") && cells[4].contains("#1e3a8a"));
        assert!(cells[3].contains("0x3c: 4 free, 6 taken, 0 absent"), "{}", cells[3]);
        assert!(cells[1].contains("0x28: 0 free, 0 taken, 10 absent"), "{}", cells[1]);
    }
}
