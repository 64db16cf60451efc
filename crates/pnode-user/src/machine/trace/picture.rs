//! A trace as a picture: a lane for each node, time from left to right.

use core::fmt::Write;

use super::{Trace, What};
use crate::machine::picture::{document, escape};

/// What each colour stands for. Blocks that come and go are the background of everything else and stand last.
const LOOKS: [(&str, &str, &[What]); 7] = [
    ("faults", "#2f6fb5", &[What::Fault]),
    ("moved or promoted", "#2f9e6e", &[What::Migrate, What::Promote]),
    ("demoted, swapped, filed", "#d9822b", &[What::Demote, What::Swap, What::File]),
    ("fenced", "#8e5bb5", &[What::Fence]),
    ("came or left", "#c9a400", &[What::Plug, What::Unplug]),
    ("denied, no memory", "#c23b3b", &[What::Denied, What::NoMemory, What::Injected]),
    ("blocks taken and given back", "#c3ccd6", &[What::Alloc, What::Free]),
];

impl Trace {
    /// The events by node over time: an SVG document of its own, with `title` above it. Time is the number of the event; each
    /// column has so many of them, and is as high as the share of them that the node had.
    pub fn to_svg(&self, title: &str) -> String {
        const COLUMNS: usize = 216;
        const WIDTH: usize = 4;
        const LANE: usize = 64;
        let width = COLUMNS * WIDTH + 40;
        let per_column = self.events.len().div_ceil(COLUMNS).max(1);
        let mut body = String::new();
        let mut y = 56;
        for node in 0..self.nodes {
            let on_node = |what: &[What], events: &[super::Event]| {
                let is_it = |event: &&super::Event| event.node.is_some_and(|on| on.index() == node);
                events.iter().filter(is_it).filter(|event| what.contains(&event.what)).count()
            };
            let total = LOOKS.iter().map(|(.., what)| on_node(what, &self.events)).sum::<usize>();
            let _ = writeln!(body, r##"<text x="20" y="{y}" class="n">node {node}: {total} events</text>"##);
            y += 8;
            let _ = writeln!(
                body,
                r##"<rect x="20" y="{y}" width="{}" height="{LANE}" fill="#f5f7fa"/>"##,
                COLUMNS * WIDTH
            );
            for (column, events) in self.events.chunks(per_column).enumerate() {
                let (x, mut bottom) = (20 + column * WIDTH, y + LANE);
                for (name, colour, what) in LOOKS {
                    let count = on_node(what, events);
                    let high = (count * LANE).div_ceil(per_column).min(bottom - y);
                    if high > 0 {
                        bottom -= high;
                        let (first, width) = (events[0].number, WIDTH - 1);
                        let _ = writeln!(
                            body,
                            r##"<rect x="{x}" y="{bottom}" width="{width}" height="{high}" fill="{colour}"><title>from event {first} on: {count} {name}</title></rect>"##,
                        );
                    }
                }
            }
            y += LANE + 28;
        }
        let mut x = 20;
        for (name, colour, _) in LOOKS {
            let _ =
                writeln!(body, r##"<rect x="{x}" y="{}" width="11" height="11" fill="{colour}"/>"##, y - 10);
            let _ = writeln!(body, r##"<text x="{}" y="{y}" class="l">{name}</text>"##, x + 16);
            x += 30 + 6 * name.len();
        }
        let lost = match self.lost {
            0 => String::new(),
            lost => format!(", {lost} older ones lost"),
        };
        let _ = writeln!(
            body,
            r##"<text x="20" y="{}" class="l">{} events, {per_column} a column{lost}</text>"##,
            y + 20,
            self.events.len(),
        );
        document(width, y + 32, &escape(title), &body)
    }
}
