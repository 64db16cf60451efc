//! The plot: usage, bound, pressure, ratio and poison over the run, as one SVG without anything to load.

use std::fmt::Write;

use pnode::compress::device::Safeguard;

use crate::host::{Outcome, Plan, Sample};

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
    value: &'a dyn Fn(&Sample) -> f64,
}

pub(crate) fn svg(plan: &Plan, missing: &[Safeguard], outcome: &Outcome) -> String {
    let physical = plan.physical as f64;
    let ratio =
        |sample: &Sample| if sample.used == 0 { 0.0 } else { sample.original as f64 / sample.used as f64 };
    let most_ratio = outcome.samples.iter().map(ratio).fold(1.0, f64::max).min(8.0);
    let most_poison = outcome.samples.iter().map(|sample| sample.poisoned as f64).fold(1.0, f64::max);
    let height = TOP + 4.0 * (PANEL + GAP);
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='{WIDTH}' height='{height}' fill='white'/>\n"
    );
    let what = match missing {
        [] => "all safeguards".to_string(),
        _ => format!("without {missing:?}").to_lowercase(),
    };
    let title = format!("Compressed RAM: {:?} load, {} events, {what}", plan.load, plan.events);
    let _ = writeln!(out, "<text x='{LEFT}' y='28' font-size='18'>{title}</text>");
    let panels: [(&str, f64, &[Line<'_>]); 4] = [
        (
            "bytes, of the physical memory (dashed)",
            physical * 1.1,
            &[
                Line { name: "bound", color: "#e69f00", value: &|sample| sample.bound as f64 },
                Line { name: "used", color: "#0072b2", value: &|sample| sample.used as f64 },
            ],
        ),
        (
            "pressure, of 1000",
            1050.0,
            &[Line { name: "pressure", color: "#d55e00", value: &|sample| sample.pressure.into() }],
        ),
        (
            "original bytes for a used byte",
            most_ratio * 1.1,
            &[Line { name: "ratio", color: "#009e73", value: &ratio }],
        ),
        (
            "pages lost to poison",
            most_poison * 1.1,
            &[Line { name: "poisoned", color: "#cc0000", value: &|sample| sample.poisoned as f64 }],
        ),
    ];
    for (row, (name, most, lines)) in panels.iter().enumerate() {
        let top = TOP + row as f64 * (PANEL + GAP);
        panel(&mut out, name, *most, top, lines, plan, outcome);
        if row == 0 {
            let y = top + PANEL * (1.0 - physical / most);
            let _ = writeln!(
                out,
                "<line x1='{LEFT}' x2='{}' y1='{y:.1}' y2='{y:.1}' stroke='#555' stroke-dasharray='5 4'/>",
                WIDTH - RIGHT
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn panel(
    out: &mut String,
    name: &str,
    most: f64,
    top: f64,
    lines: &[Line<'_>],
    plan: &Plan,
    outcome: &Outcome,
) {
    let width = WIDTH - LEFT - RIGHT;
    let _ = writeln!(
        out,
        "<rect x='{LEFT}' y='{top}' width='{width}' height='{PANEL}' fill='#fafafa' stroke='#ccc'/>\n\
         <text x='{LEFT}' y='{}' fill='#333'>{name}</text>\n\
         <text x='{}' y='{}' text-anchor='end' fill='#777'>{}</text>\n\
         <text x='{}' y='{}' text-anchor='end' fill='#777'>0</text>",
        top - 6.0,
        LEFT - 6.0,
        top + 10.0,
        label(most),
        LEFT - 6.0,
        top + PANEL,
    );
    for (i, line) in lines.iter().enumerate() {
        let mut points = String::new();
        for sample in &outcome.samples {
            let x = LEFT + width * sample.event as f64 / plan.events as f64;
            // A bound that was broken shows as one that leaves its panel.
            let y = top + PANEL * (1.0 - ((line.value)(sample) / most).min(1.0));
            let _ = write!(points, "{x:.1},{y:.1} ");
        }
        let _ = writeln!(
            out,
            "<polyline points='{points}' fill='none' stroke='{}' stroke-width='1.6'/>\n\
             <text x='{}' y='{}' text-anchor='end' fill='{}'>{}</text>",
            line.color,
            WIDTH - RIGHT - 90.0 * i as f64,
            top - 6.0,
            line.color,
            line.name,
        );
    }
}

fn label(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.1} MiB", value / 1048576.0)
    } else if value >= 20.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}
