//! The plot: usage, bound, pressure, ratio and poison over the run, as one SVG without anything to load.

use std::fmt::Write;

use pnode::compress::device::Safeguard;

use crate::host::{Load, Outcome, Plan, Sample};
use crate::screen::Count;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 150.0;
const GAP: f64 = 46.0;
const TOP: f64 = 60.0;

/// One line of a panel.
struct Line<'a> {
    name: &'a str,
    color: &'a str,
    width: f64,
    value: &'a dyn Fn(&Sample) -> f64,
}

/// One of the plots that lie below each other, over the same accesses.
struct Panel<'a> {
    name: &'a str,
    /// The value that has a dashed line.
    mark: f64,
    /// How far above the mark it goes, of the mark.
    room: f64,
    lines: &'a [Line<'a>],
}

pub(crate) fn svg(plan: &Plan, missing: &[Safeguard], outcome: &Outcome) -> String {
    // Nothing is as good as its plain size.
    let ratio =
        |sample: &Sample| if sample.used == 0 { 1.0 } else { sample.original as f64 / sample.used as f64 };
    let most_ratio = outcome.samples.iter().map(ratio).fold(1.0, f64::max).min(8.0);
    let most_poison = outcome.samples.iter().map(|sample| sample.poisoned as f64).fold(0.0, f64::max);
    let height = TOP + 4.0 * (PANEL + GAP);
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='{WIDTH}' height='{height}' fill='white'/>\n"
    );
    let what = match missing {
        [] => "with all safeguards".to_string(),
        _ => format!("without {}", crate::names(missing)),
    };
    let load = format!("{:?}", plan.load).to_lowercase();
    let _ = writeln!(
        out,
        "<text x='{LEFT}' y='28' font-size='18'>Compressed RAM under a {load} load, {what}</text>"
    );
    let line = |name, color, value| Line { name, color, width: 1.6, value };
    let panels: [Panel<'_>; 4] = [
        Panel {
            name: "bytes in use, and the bound that the service goes by; dashed: what the device has",
            mark: plan.physical as f64,
            room: 0.1,
            lines: &[
                // Wide and below the other: where they are one, both are seen.
                Line { name: "bound", color: "#f5c65d", width: 6.0, value: &|sample| sample.bound as f64 },
                line("used", "#0072b2", &|sample| sample.used as f64),
            ],
        },
        Panel {
            name: "pressure; dashed: the door is shut",
            mark: 1000.0,
            room: 0.05,
            lines: &[line("pressure", "#d55e00", &|sample| sample.pressure.into())],
        },
        Panel {
            name: "original bytes for a byte in use; dashed: as they are",
            mark: 1.0,
            room: most_ratio * 1.05 - 1.0,
            lines: &[line("ratio", "#009e73", &ratio)],
        },
        Panel {
            name: "pages lost to poison",
            mark: most_poison,
            room: 0.1,
            lines: &[line("poisoned", "#cc0000", &|sample| sample.poisoned as f64)],
        },
    ];
    for (row, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, TOP + row as f64 * (PANEL + GAP), plan, outcome);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel<'_>, top: f64, plan: &Plan, outcome: &Outcome) {
    let (width, right, bottom) = (WIDTH - LEFT - RIGHT, WIDTH - RIGHT, top + PANEL);
    // A panel of nothing but zeroes has a height too.
    let most = (panel.mark * (1.0 + panel.room)).max(1.0);
    let across = |event: f64| LEFT + width * event / plan.events as f64;
    // A bound that was broken shows as one that leaves its panel.
    let up = |value: f64| bottom - PANEL * (value / most).min(1.0);
    let _ = writeln!(
        out,
        "<rect x='{LEFT}' y='{top}' width='{width}' height='{PANEL}' fill='#fafafa' stroke='#ccc'/>\n\
         <text x='{LEFT}' y='{}' fill='#333'>{}</text>\n\
         <text x='{}' y='{bottom}' text-anchor='end' fill='#777'>0</text>\n\
         <text x='{right}' y='{}' text-anchor='end' fill='#777'>{} accesses</text>",
        top - 6.0,
        panel.name,
        LEFT - 6.0,
        bottom + 14.0,
        Count(plan.events),
    );
    if plan.load == Load::Storm {
        let x = across(plan.events as f64 / 5.0);
        let _ = writeln!(
            out,
            "<line x1='{x:.1}' x2='{x:.1}' y1='{top}' y2='{bottom}' stroke='#999' stroke-dasharray='1 4'/>\n\
             <text x='{x:.1}' y='{}' text-anchor='middle' fill='#777'>what is written no longer compresses</text>",
            bottom + 14.0,
        );
    }
    for (i, Line { name, color, width, value }) in panel.lines.iter().enumerate() {
        let mut points = String::new();
        for sample in &outcome.samples {
            let _ = write!(points, "{:.1},{:.1} ", across(sample.event as f64), up(value(sample)));
        }
        let _ = writeln!(
            out,
            "<polyline points='{points}' fill='none' stroke='{color}' stroke-width='{width}' stroke-linejoin='round'/>\n\
             <text x='{}' y='{}' text-anchor='end' fill='{color}'>{name}</text>",
            right - 60.0 * i as f64,
            top - 6.0,
        );
    }
    if panel.mark > 0.0 {
        let y = up(panel.mark);
        let _ = writeln!(
            out,
            "<line x1='{LEFT}' x2='{right}' y1='{y:.1}' y2='{y:.1}' stroke='#555' stroke-dasharray='5 4'/>\n\
             <text x='{}' y='{:.1}' text-anchor='end' fill='#777'>{}</text>",
            LEFT - 6.0,
            y + 4.0,
            label(panel.mark),
        );
    }
}

fn label(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.1} MiB", value / 1048576.0)
    } else if value >= 20.0 {
        Count(value as u64).to_string()
    } else {
        format!("{value:.1}")
    }
}
