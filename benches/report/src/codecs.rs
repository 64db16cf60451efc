//! The page codecs beside C lz4 and C zstd.

use std::fmt::Write as _;

use serde_json::Value;

use crate::svg::Points;

/// One codec over the kinds of pages of a group.
struct Mean {
    codec: String,
    group: &'static str,
    encode: f64,
    decode: f64,
    ratio: f64,
    slowest: (f64, String),
}

fn means(codecs: &Value) -> Result<Vec<Mean>, String> {
    let results = codecs["results"].as_array().ok_or("the codecs file has no results")?;
    let of = |row: &Value, key: &str| row[key].as_f64().ok_or(format!("a result without {key}"));
    let mut names: Vec<&str> = Vec::new();
    for name in results.iter().filter_map(|row| row["codec"].as_str()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut means = Vec::new();
    for (group, live) in [("synthetic", false), ("live", true)] {
        // A kind that nobody compresses says nothing about compressing.
        let raw = |row: &Value| row["codec"] == *names[0] && row["raw_pages"] == row["pages"];
        let skip: Vec<&Value> = results.iter().filter(|row| raw(row)).map(|row| &row["kind"]).collect();
        let in_group = |row: &&Value| {
            row["kind"].as_str().is_some_and(|kind| kind.starts_with("synth_") != live)
                && !skip.contains(&&row["kind"])
        };
        let rows: Vec<&Value> = results.iter().filter(in_group).collect();
        for name in &names {
            let mine: Vec<&&Value> = rows.iter().filter(|row| row["codec"] == **name).collect();
            if mine.is_empty() {
                continue;
            }
            let mean = |key: &str| -> Result<f64, String> {
                let logs = mine.iter().map(|row| of(row, key).map(f64::ln)).collect::<Result<Vec<_>, _>>()?;
                Ok((logs.iter().sum::<f64>() / logs.len() as f64).exp())
            };
            let bytes =
                |rows: &[&&Value]| -> Result<f64, String> { rows.iter().map(|row| of(row, "bytes")).sum() };
            let yardstick: Vec<&&Value> = rows.iter().filter(|row| row["codec"] == *names[0]).collect();
            let slowest = mine
                .iter()
                .map(|row| Ok((of(row, "encode_vs_c_lz4")?, row["kind"].as_str().unwrap_or("?").to_string())))
                .collect::<Result<Vec<_>, String>>()?;
            means.push(Mean {
                codec: name.to_string(),
                group,
                encode: mean("encode_vs_c_lz4")?,
                decode: mean("decode_vs_c_lz4")?,
                ratio: bytes(&yardstick)? / bytes(&mine)?,
                slowest: slowest.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).ok_or("no kinds")?,
            });
        }
    }
    Ok(means)
}

pub(crate) fn report(codecs: &Value, text: &mut String) -> Result<(), String> {
    let _ = writeln!(
        text,
        "## Page codecs\n\n![Compressing: speed and ratio beside C lz4](codecs-in.svg)\n\n![Decompressing: speed and ratio beside C lz4](codecs-out.svg)\n"
    );
    let _ = writeln!(
        text,
        "Beside C lz4 {} on the same pages of {} bytes, thread CPU time, C zstd {} for comparison. Speeds are geometric means \
         over the kinds of pages, larger is faster; the ratio is of all bytes together, larger is denser. *Synthetic* pages are \
         reproducible, *live* ones are of processes of the machine and are not kept.\n",
        codecs["c_lz4"].as_str().unwrap_or("?"),
        codecs["page"],
        codecs["c_zstd"].as_str().unwrap_or("?"),
    );
    let _ = writeln!(
        text,
        "| codec | pages | in | slowest kind | out | ratio |\n| --- | --- | ---: | --- | ---: | ---: |"
    );
    for mean in means(codecs)? {
        let Mean { codec, group, encode, decode, ratio, slowest: (speed, kind) } = mean;
        let _ = writeln!(
            text,
            "| {codec} | {group} | {encode:.3} | {speed:.3} {kind} | {decode:.3} | {ratio:.3} |"
        );
    }
    text.push('\n');
    Ok(())
}

/// How dense and how fast each codec is, in one direction.
pub(crate) fn picture(codecs: &Value, direction: Direction) -> Result<String, String> {
    let title = match direction {
        Direction::In => "Compressing beside C lz4: how dense, and how fast (up and right is better)",
        Direction::Out => "Decompressing beside C lz4: how dense, and how fast (up and right is better)",
    };
    let mut points = Points::new(title);
    let means = means(codecs)?;
    let live = means.iter().any(|mean| mean.group == "live");
    for mean in means.iter().filter(|mean| (mean.group == "live") == live) {
        let speed = match direction {
            Direction::In => mean.encode,
            Direction::Out => mean.decode,
        };
        points.point(&mean.codec, mean.ratio, speed, !mean.codec.starts_with("c "));
    }
    Ok(points.draw())
}

#[derive(Clone, Copy)]
pub(crate) enum Direction {
    In,
    Out,
}
