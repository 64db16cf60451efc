//! The frame allocator beside its peers and the two floors.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::svg::Bars;

type Rows<'v> = Vec<(&'v str, &'v Map<String, Value>)>;

fn rows(frames: &Value) -> Result<Rows<'_>, String> {
    let table = frames["ns"].as_object().ok_or("the frames file has no table called ns")?;
    let rows = table.iter().map(|(name, row)| Some((name.as_str(), row.as_object()?)));
    rows.collect::<Option<_>>().ok_or_else(|| "a row of the frames file is no table".into())
}

/// Nanoseconds an operation, and the share of operations that failed, in percent.
fn cell(row: &Map<String, Value>, work: &str) -> Option<(f64, f64)> {
    let cell = row.get(work)?;
    Some((cell[0].as_f64()?, cell[1].as_f64()?))
}

fn works<'v>(rows: &Rows<'v>) -> Vec<&'v str> {
    let mut works: Vec<&str> = Vec::new();
    for work in rows.iter().flat_map(|(_, row)| row.keys()) {
        if !works.contains(&work.as_str()) {
            works.push(work);
        }
    }
    works
}

fn is_ours(name: &str) -> bool {
    name.starts_with("pnode")
}

fn is_floor(name: &str) -> bool {
    name.contains("floor") || name.contains("harness")
}

pub(crate) fn report(frames: &Value, text: &mut String) -> Result<(), String> {
    let rows = rows(frames)?;
    let works = works(&rows);
    let _ =
        writeln!(text, "## Page frames\n\n![Nanoseconds an operation, by work and allocator](frames.svg)\n");
    let _ = writeln!(
        text,
        "Nanoseconds an operation, the best of several rounds, single thread, 1 GiB; in brackets the share of operations that \
         found nothing. A *floor* is not an allocator: it is the least that any could do. **Bold**: the best that is no floor.\n"
    );
    let _ = writeln!(text, "| | {} |\n| --- |{}", works.join(" | "), " ---: |".repeat(works.len()));
    for (name, row) in &rows {
        let _ = write!(text, "| {name} |");
        for work in &works {
            let best = rows.iter().filter(|(name, _)| !is_floor(name)).filter_map(|(_, row)| cell(row, work));
            let best = best.map(|(nanos, _)| nanos).fold(f64::INFINITY, f64::min);
            match cell(row, work) {
                Some((nanos, failed)) => {
                    let mark = if nanos <= best && !is_floor(name) { "**" } else { "" };
                    let failed = if failed >= 0.05 { format!(" ({failed:.1} %)") } else { String::new() };
                    let _ = write!(text, " {mark}{nanos:.1}{mark}{failed} |");
                }
                None => text.push_str(" |"),
            }
        }
        text.push('\n');
    }
    let _ = writeln!(text, "\nWhere we lose:\n");
    let mut lost = 0;
    for work in &works {
        let best = |ours: bool| {
            let of = rows.iter().filter(|(name, _)| is_ours(name) == ours && !is_floor(name));
            of.filter_map(|(name, row)| Some((cell(row, work)?, *name)))
                .min_by(|a, b| a.0.0.total_cmp(&b.0.0))
        };
        let (Some((ours, _)), Some((theirs, peer))) = (best(true), best(false)) else { continue };
        if theirs.0 >= ours.0 {
            continue;
        }
        lost += 1;
        let failures = if theirs.1 > ours.1 + 0.05 {
            format!(" (it found nothing in {:.1} % of its operations, we in {:.1} %)", theirs.1, ours.1)
        } else {
            String::new()
        };
        let _ = writeln!(text, "- {work}: {peer} takes {:.2} of our time{failures}", theirs.0 / ours.0);
    }
    if lost == 0 {
        let _ = writeln!(text, "- in no row of this table");
    }
    if let Some(table) = frames["fragmentation"].as_object() {
        let _ = writeln!(
            text,
            "\nFragmentation, which is the same on every machine. *Replacement*: whole areas of 2 MiB that are free after half of \
             the frames were freed and replaced at random. *Mixed*: huge blocks got, of those that an ideal allocator would get, \
             at half full after mixed churn.\n\n| | replacement | mixed |\n| --- | ---: | ---: |"
        );
        for (name, row) in table {
            let pair = |key: &str| match (row[key][0].as_f64(), row[key][1].as_f64()) {
                (Some(got), Some(of)) => format!("{got} of {of}"),
                _ => "cannot".into(),
            };
            let _ = writeln!(text, "| {name} | {} | {} |", pair("replacement"), pair("mixed_f50"));
        }
    }
    if let Some(nanos) = frames["init_1tib_ns"].as_f64() {
        let _ = writeln!(text, "\nA zone of 1 TiB on zeroed metadata is made in {:.0} us.", nanos / 1000.0);
    }
    text.push('\n');
    Ok(())
}

pub(crate) fn picture(frames: &Value) -> Result<String, String> {
    let rows = rows(frames)?;
    let mut bars = Bars::new("Nanoseconds an operation (logarithmic; shorter is better)");
    for work in works(&rows) {
        let of = |(name, row): &(&'_ str, &Map<String, Value>)| {
            let kind = if is_floor(name) { 2 } else { usize::from(!is_ours(name)) };
            cell(row, work).map(|(nanos, _)| (name.to_string(), nanos, kind))
        };
        bars.group(work, rows.iter().filter_map(of).collect());
    }
    Ok(bars.draw())
}
