//! The plot: how full the memory is, how broken up, and what is refused, for each source; one SVG, nothing to load.

use std::fmt::Write;

use crate::replay::{Outcome, Sample};
use crate::trace::Trace;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 170.0;
const GAP: f64 = 46.0;
const TOP: f64 = 104.0;
const COLORS: [&str; 6] = ["#0072b2", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7"];

struct Panel<'a> {
    name: &'a str,
    most: f64,
    label: String,
    value: &'a dyn Fn(&Sample) -> f64,
    /// Whether the sources differ in it.
    each: bool,
}

pub(crate) fn svg(title: &str, trace: &Trace, outcomes: &[(String, Outcome)]) -> String {
    let refused =
        outcomes.iter().flat_map(|(_, outcome)| &outcome.samples).map(|sample| sample.refused_huge).max();
    let refused = refused.unwrap_or(0).max(1) as f64;
    let panels = [
        Panel {
            name: "memory in use",
            most: 1.0,
            label: "100 %".into(),
            value: &|sample| sample.used as f64 / trace.frames as f64,
            each: false,
        },
        Panel {
            name: "free memory that no huge page fits into",
            most: 1.0,
            label: "100 %".into(),
            value: &|sample| sample.broken,
            each: true,
        },
        Panel {
            name: "huge pages refused so far",
            most: refused * 1.05,
            label: format!("{refused:.0}"),
            value: &|sample| sample.refused_huge as f64,
            each: true,
        },
    ];
    let height = TOP + panels.len() as f64 * (PANEL + GAP);
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='{WIDTH}' height='{height}' fill='white'/>\n\
         <text x='{LEFT}' y='28' font-size='18'>{title}</text>\n"
    );
    for (index, (name, _)) in outcomes.iter().enumerate() {
        let (x, y) = (LEFT + (index % 3) as f64 * 290.0, 42.0 + (index / 3) as f64 * 18.0);
        let color = COLORS[index % COLORS.len()];
        let _ = writeln!(
            out,
            "<rect x='{x}' y='{y}' width='14' height='10' fill='{color}'/><text x='{}' y='{}'>{name}</text>",
            x + 20.0,
            y + 9.0
        );
    }
    for (row, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, TOP + row as f64 * (PANEL + GAP), trace, outcomes);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel<'_>, top: f64, trace: &Trace, outcomes: &[(String, Outcome)]) {
    let width = WIDTH - LEFT - RIGHT;
    let _ = writeln!(
        out,
        "<rect x='{LEFT}' y='{top}' width='{width}' height='{PANEL}' fill='#fafafa' stroke='#ccc'/>\n\
         <text x='{LEFT}' y='{}' fill='#333'>{}</text>\n\
         <text x='{}' y='{}' text-anchor='end' fill='#777'>{}</text>\n\
         <text x='{}' y='{}' text-anchor='end' fill='#777'>0</text>",
        top - 6.0,
        panel.name,
        LEFT - 6.0,
        top + 10.0,
        panel.label,
        LEFT - 6.0,
        top + PANEL,
    );
    let shown = if panel.each { outcomes.len() } else { 1 };
    for (index, (_, outcome)) in outcomes.iter().enumerate().take(shown) {
        let mut points = String::new();
        for sample in &outcome.samples {
            let x = LEFT + width * sample.event as f64 / trace.events.len() as f64;
            let y = top + PANEL * (1.0 - ((panel.value)(sample) / panel.most).min(1.0));
            let _ = write!(points, "{x:.1},{y:.1} ");
        }
        // Lines that fall together stay visible: every second one has gaps.
        let dash = if index % 2 == 1 { " stroke-dasharray='6 4'" } else { "" };
        let color = if panel.each { COLORS[index % COLORS.len()] } else { "#555" };
        let _ = writeln!(
            out,
            "<polyline points='{points}' fill='none' stroke='{color}' stroke-width='1.6'{dash}/>"
        );
    }
}
