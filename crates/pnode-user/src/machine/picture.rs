//! What every frame of a machine is used for, as text and as a picture.

use core::fmt::{self, Write};

use pnode_core::{Features, FrameRange, MemoryClass, NodeId, PageSize};

use super::compressed::CompressedUse;
use super::site::Site;
use super::{Machine, Shared};

/// What a frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Nothing.
    Free,
    /// A page of a mapping.
    Page,
    /// Compressed pages.
    Store,
    /// A window through which compressed pages are read.
    Window,
    /// Something of whoever called [`Machine::alloc`] or a grant.
    Held,
    /// There is no memory there.
    Hole,
}

impl Use {
    /// All uses, with the name and the colour of each.
    const LOOKS: [(Self, &'static str, &'static str); 6] = [
        (Self::Free, "free", "#e8edf2"),
        (Self::Page, "pages", "#2f6fb5"),
        (Self::Store, "compressed pages", "#d9822b"),
        (Self::Window, "read window", "#c9a400"),
        (Self::Held, "held by others", "#8a94a3"),
        (Self::Hole, "no memory", "#ffffff"),
    ];

    const fn index(self) -> usize {
        self as usize
    }
}

/// What the frames of one node are used for.
#[derive(Clone, Debug)]
pub struct NodeOccupancy {
    /// The node.
    pub node: NodeId,
    /// Its class.
    pub class: MemoryClass,
    /// Its open doors, `None` for an ordinary node.
    pub features: Option<Features>,
    /// Whether it is there: an unplugged node has no frames.
    pub online: bool,
    /// Each frame's use, in the order of their numbers.
    pub frames: Vec<Use>,
    /// Where each zone but the first begins.
    pub borders: Vec<usize>,
    /// How full it is, for a compressed node.
    pub compressed: Option<CompressedUse>,
}

/// What all frames of a machine are used for; prints as a map of characters, darker where more frames are used.
#[derive(Clone, Debug)]
pub struct Occupancy {
    /// One for each node.
    pub nodes: Vec<NodeOccupancy>,
    /// The size of a frame.
    pub page: PageSize,
}

impl Machine {
    /// What every frame is used for. Each frame is looked at once, not all at the same moment.
    pub fn occupancy(&self) -> Occupancy {
        let shared = &*self.shared;
        let mut nodes: Vec<_> = shared.sites.iter().map(|site| shared.look_at(site)).collect();
        shared.each_frame(|node, frames| mark(&mut nodes, node, frames, Use::Page));
        for site in &shared.sites {
            if let Some(compressed) = site.compressed() {
                compressed.each_window(|pfn| {
                    if let Some(frames) = FrameRange::block(pfn, pnode_core::Order::ZERO) {
                        mark(&mut nodes, site.node, frames, Use::Window);
                    }
                });
            }
        }
        Occupancy { nodes, page: shared.page }
    }
}

impl Shared {
    fn look_at(&self, site: &Site) -> NodeOccupancy {
        let online = !site.is_unplugged();
        let in_use = if site.compressed().is_some() { Use::Store } else { Use::Held };
        let mut frames = vec![Use::Free; site.frames.frames() as usize];
        for hole in &site.holes {
            frames[hole.start as usize..hole.end as usize].fill(Use::Hole);
        }
        for zone in site.zones.iter().filter(|_| online) {
            zone.each_block(&mut |pfn, order| {
                let start = pfn.get() as usize & INDEX;
                if let Some(block) = frames.get_mut(start..start + order.frames() as usize) {
                    block.fill(in_use);
                }
            });
        }
        let starts = site.zones.iter().map(|zone| zone.span().start().get() as usize & INDEX);
        NodeOccupancy {
            node: site.node,
            class: site.class,
            features: site.is_private().then_some(site.features),
            online,
            frames,
            borders: starts.skip(1).collect(),
            compressed: site.compressed().and_then(|compressed| compressed.usage()),
        }
    }
}

/// Node numbers stand in the high bits of frame numbers; the low bits are the index of the frame in its node.
const INDEX: usize = (1 << super::spec::STRIDE_SHIFT) - 1;

fn mark(nodes: &mut [NodeOccupancy], node: NodeId, frames: FrameRange, mark: Use) {
    let Some(seen) = nodes.get_mut(node.index()) else { return };
    let start = frames.start().get() as usize & INDEX;
    let end = start + frames.frames() as usize;
    if let Some(frames) = seen.frames.get_mut(start..end) {
        frames.fill(mark);
    }
}

/// How the edge of a hole is drawn, which has no colour.
const HOLE_EDGE: &str = r##" stroke="#b8c2cc" stroke-dasharray="2 2""##;

/// The colour of the marks between zones.
const BORDER: &str = "#c0392b";

/// A part of a node in a picture.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cell {
    /// What most of its used frames are used for.
    most: Use,
    /// How many quarters of its frames are used, rounded up: 0 is wholly free.
    quarters: usize,
}

impl Cell {
    fn of(frames: &[Use]) -> Self {
        let mut counts = [0usize; Use::LOOKS.len()];
        frames.iter().for_each(|used| counts[used.index()] += 1);
        let holes = core::mem::take(&mut counts[Use::Hole.index()]);
        let there = frames.len() - holes;
        if there == 0 {
            return Self { most: Use::Hole, quarters: 0 };
        }
        let used = there - core::mem::take(&mut counts[Use::Free.index()]);
        let most = Use::LOOKS.iter().map(|(used, ..)| *used).max_by_key(|used| counts[used.index()]);
        Self { most: most.filter(|_| used > 0).unwrap_or(Use::Free), quarters: (used * 4).div_ceil(there) }
    }
}

impl NodeOccupancy {
    /// The node cut into `cells` parts of equal size.
    fn cells(&self, cells: usize) -> Vec<Cell> {
        let frames = self.frames.len();
        let cells = cells.min(frames);
        let part = |cell: usize| &self.frames[cell * frames / cells..(cell + 1) * frames / cells];
        (0..cells).map(|cell| Cell::of(part(cell))).collect()
    }

    fn count(&self, counts: impl Fn(Use) -> bool) -> usize {
        self.frames.iter().filter(|used| counts(**used)).count()
    }

    fn title(&self, page: PageSize) -> String {
        let kind = if self.features.is_some() { "private" } else { "ordinary" };
        let mib = |frames: usize| (frames * page.bytes()) as f64 / f64::from(1 << 20);
        let mut title = format!("node {} {kind} {}", self.node.get(), self.class.name());
        if !self.online {
            title.push_str(": unplugged");
            return title;
        }
        let used = self.count(|used| !matches!(used, Use::Free | Use::Hole));
        let there = self.count(|used| used != Use::Hole);
        let _ = write!(title, ": {:.1} of {:.1} MiB used", mib(used), mib(there));
        if !self.borders.is_empty() {
            let _ = write!(title, " in {} zones", self.borders.len() + 1);
        }
        if let Some(usage) = self.compressed.filter(|usage| usage.stats.pages > 0) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let _ = write!(
                title,
                ", holds {:.1} MiB of pages, advertises {:.1} MiB",
                mib(usage.stats.original_bytes),
                mib(usage.advertised)
            );
        }
        title
    }
}

impl fmt::Display for Occupancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const COLUMNS: usize = 64;
        for node in &self.nodes {
            writeln!(f, "  {}", node.title(self.page))?;
            if node.online {
                let shade = |cell: Cell| match cell.most {
                    Use::Hole => ' ',
                    _ => ['·', '░', '▒', '▓', '█'][cell.quarters],
                };
                let cells: String = node.cells(COLUMNS).into_iter().map(shade).collect();
                writeln!(f, "  [{cells}]")?;
            }
        }
        Ok(())
    }
}

impl Occupancy {
    /// The same as a picture: an SVG document of its own, with `title` above it.
    pub fn to_svg(&self, title: &str) -> String {
        const COLUMNS: usize = 96;
        const ROWS: usize = 8;
        const CELL: usize = 9;
        let width = COLUMNS * CELL + 40;
        let mut body = String::new();
        let mut y = 56;
        for node in &self.nodes {
            let _ = writeln!(
                body,
                r##"<text x="20" y="{y}" class="n">{}</text>"##,
                escape(&node.title(self.page))
            );
            y += 8;
            let cells = if node.online { node.cells(COLUMNS * ROWS) } else { Vec::new() };
            // One rectangle for each run of equal cells in a row.
            for (row, cells) in cells.chunks(COLUMNS).enumerate() {
                let mut column = 0;
                for run in cells.chunk_by(|a, b| a == b) {
                    let Cell { most, quarters } = run[0];
                    let (_, name, colour) = Use::LOOKS[most.index()];
                    let shade = if quarters == 0 { 1.0 } else { quarters as f64 / 4.0 };
                    let (x, top, run_width) = (20 + column * CELL, y + row * CELL, run.len() * CELL);
                    let edge = if most == Use::Hole { HOLE_EDGE } else { "" };
                    let _ = writeln!(
                        body,
                        r##"<rect x="{x}" y="{top}" width="{run_width}" height="{}" fill="{colour}" fill-opacity="{shade}"{edge}><title>{name}</title></rect>"##,
                        CELL - 1
                    );
                    column += run.len();
                }
            }
            for border in node.borders.iter().filter(|_| node.online) {
                let cell = border * cells.len() / node.frames.len().max(1);
                let (x, top) = (20 + cell % COLUMNS * CELL, y + cell / COLUMNS * CELL);
                let _ = writeln!(
                    body,
                    r##"<path d="M{x} {}v{}" stroke="{BORDER}" stroke-width="3"><title>a zone begins</title></path>"##,
                    top - 2,
                    CELL + 3
                );
            }
            y += cells.len().div_ceil(COLUMNS) * CELL;
            if let Some(usage) = node.compressed {
                y += 6;
                y = bars(&mut body, y, COLUMNS * CELL, usage);
            }
            y += 30;
        }
        let mut x = 20;
        let has_holes = self.nodes.iter().any(|node| node.frames.contains(&Use::Hole));
        for (used, name, colour) in Use::LOOKS {
            if used == Use::Hole && !has_holes {
                continue;
            }
            let edge = if used == Use::Hole { HOLE_EDGE } else { "" };
            let _ = writeln!(
                body,
                r##"<rect x="{x}" y="{}" width="11" height="11" fill="{colour}"{edge}/>"##,
                y - 10
            );
            let _ = writeln!(body, r##"<text x="{}" y="{y}" class="l">{name}</text>"##, x + 16);
            x += 40 + 7 * name.len();
        }
        if self.nodes.iter().any(|node| node.online && !node.borders.is_empty()) {
            let _ = writeln!(
                body,
                r##"<path d="M{} {}v13" stroke="{BORDER}" stroke-width="3"/>"##,
                x + 2,
                y - 11
            );
            let _ = writeln!(body, r##"<text x="{}" y="{y}" class="l">a zone begins</text>"##, x + 10);
        }
        document(width, y + 20, &escape(title), &body)
    }
}

/// An SVG document of this size around `body`, with `title` above it.
pub(super) fn document(width: usize, height: usize, title: &str, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\">\n<style>.t{{font-size:18px;font-weight:bold}}.n{{font-size:13px}}.l{{font-size:11px;fill:#444}}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n<text x=\"20\" y=\"30\" class=\"t\">{title}</text>\n{body}</svg>\n"
    )
}

/// Three bars to one scale: what a compressed node advertises, what its pages would take, what it has and uses.
fn bars(body: &mut String, mut y: usize, width: usize, usage: CompressedUse) -> usize {
    let most = usage.advertised.max(usage.stats.original_bytes).max(usage.physical).max(1);
    let pool = usage.stats.pool_bytes + usage.window;
    let rows = [
        ("advertised", usage.advertised, "#f6ddc4"),
        ("pages held", usage.stats.original_bytes, "#2f6fb5"),
        ("memory it has", usage.physical, "#e8edf2"),
        ("memory it uses", pool, "#d9822b"),
    ];
    for (name, bytes, colour) in rows {
        let long = (u128::from(bytes) * (width as u128 - 190) / u128::from(most)) as usize;
        let mib = bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(body, r##"<text x="20" y="{}" class="l">{name}</text>"##, y + 10);
        let _ = writeln!(body, r##"<rect x="112" y="{y}" width="{long}" height="11" fill="{colour}"/>"##);
        let _ = writeln!(body, r##"<text x="{}" y="{}" class="l">{mib:.1} MiB</text>"##, 118 + long, y + 10);
        y += 14;
    }
    y
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeSpec;
    use crate::fault::Choice;
    use pnode_core::Request;

    #[test]
    fn every_frame_shows_its_use() {
        let machine = Machine::builder()
            .node(NodeSpec::ordinary(64))
            .node(NodeSpec::compressed(32, 64))
            .faults(Choice::Signal)
            .build()
            .unwrap();
        let [dram, compressed] = [0, 1].map(|number| machine.node(number).unwrap());
        let memory = machine.map(10, dram).unwrap();
        for page in 0..10 {
            memory.write(page * machine.page().bytes() + page, &[page as u8; 2000]).unwrap();
        }
        assert_eq!(memory.demote(0..4, compressed).unwrap().pages, 4);
        let held = machine.alloc(Request::page()).unwrap();
        let seen = machine.occupancy();
        let count = |node: usize, of: Use| seen.nodes[node].frames.iter().filter(|used| **used == of).count();
        assert_eq!([Use::Page, Use::Held, Use::Free].map(|of| count(0, of)), [6, 1, 57]);
        assert_eq!([Use::Window, Use::Store, Use::Page].map(|of| count(1, of)), [2, 4, 0]);
        assert!(seen.to_string().contains("node 1 private compressed"), "{seen}");
        let svg = seen.to_svg("a < b");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("a &lt; b"));
        machine.free(held).unwrap();
        assert!(machine.audit().is_ok());
    }
}
