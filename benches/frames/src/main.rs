//! One command, one table: `cargo run --release [-- --quick] [--json FILE]` in `benches/frames`. With `--large`, a zone of
//! 64 GiB, half of it freed at random, instead of the tables of 1 GiB.
//!
//! Times are the best of several interleaved rounds; compare rows of one run, never runs. `--count PEER WORK OPS` does
//! one piece of work and nothing else, for callgrind; `counts.sh` prints instructions and locked operations from two
//! such runs. Every peer first runs against an ownership oracle.

mod peers;
mod work;

use std::fmt::Write as _;
use std::time::Instant;

use peers::*;
use work::Work;

struct Row {
    name: &'static str,
    cells: Vec<Option<(f64, f64)>>,
}

fn round<P: Peer>(rows: &mut Vec<Row>, works: &[Work], frames: u64, quick: bool) {
    if !rows.iter().any(|row| row.name == P::NAME) {
        rows.push(Row { name: P::NAME, cells: vec![None; works.len()] });
    }
    let Some(row) = rows.iter_mut().find(|row| row.name == P::NAME) else { return };
    for (cell, work) in row.cells.iter_mut().zip(works).filter(|(_, work)| work.suits::<P>()) {
        let ops = match (quick, frames) {
            (true, _) => 20_000,
            (false, ..0x100_0000) => 250_000,
            // Half of what there is, so that the pool is as full as a pool in use.
            (false, _) if matches!(work, Work::FreeRandom0 | Work::Alloc0Half) => frames / 2,
            (false, _) => 250_000,
        };
        let (nanos, ops, failed) = work.run::<P>(frames, ops, 7);
        let now = (nanos / ops as f64, failed as f64 * 100.0 / ops as f64);
        *cell = Some(cell.map_or(now, |best| if now.0 < best.0 { now } else { best }));
    }
}

fn each(rows: &mut Vec<Row>, works: &[Work], frames: u64, quick: bool) {
    round::<Nothing>(rows, works, frames, quick);
    round::<OwnedFloor>(rows, works, frames, quick);
    round::<SharedFloor>(rows, works, frames, quick);
    round::<Caching>(rows, works, frames, quick);
    round::<Counting>(rows, works, frames, quick);
    round::<Shared>(rows, works, frames, quick);
    round::<SummaryPeer>(rows, works, frames, quick);
    round::<DepotPeer>(rows, works, frames, quick);
    round::<BuddySystem>(rows, works, frames, quick);
    round::<Bitmap>(rows, works, frames, quick);
}

/// A zone of 64 GiB; without those that take minutes for it.
fn large() {
    let mut rows = Vec::new();
    let frames = 1 << 24;
    for _ in 0..2 {
        round::<SharedFloor>(&mut rows, &[Work::FreeRandom0, Work::Alloc0Half], frames, false);
        round::<Caching>(&mut rows, &Work::LARGE, frames, false);
        round::<Counting>(&mut rows, &Work::LARGE, frames, false);
        round::<SummaryPeer>(&mut rows, &Work::LARGE, frames, false);
        round::<DepotPeer>(&mut rows, &Work::LARGE, frames, false);
    }
    print_times(&rows, &Work::LARGE);
}

fn print_times(rows: &[Row], works: &[Work]) {
    print!("\n{:26}", "ns an operation (best)");
    works.iter().for_each(|work| print!("{:>14}", work.name()));
    println!();
    for row in rows {
        print!("{:26}", row.name);
        for cell in &row.cells {
            match cell {
                Some((nanos, failed)) if *failed >= 0.05 => {
                    print!("{:>14}", format!("{nanos:.1} ({failed:.1}%)"))
                }
                Some((nanos, _)) => print!("{nanos:>14.1}"),
                None => print!("{:>14}", "-"),
            }
        }
        println!();
    }
}

fn count<P: Peer>(name: &str, work: &str, ops: u64) {
    if name == P::NAME {
        let work = Work::ALL.into_iter().find(|known| known.name() == work).expect("a known work");
        println!("{:?}", work.run::<P>(1 << 18, ops, 7));
    }
}

fn fragmentation<P: Peer>(lines: &mut String, json: &mut String, frames: u64, seeds: u64) {
    let (empty, of) = work::replacement::<P>(frames);
    let mut line = format!("  {:26} replacement r40 {empty:>4} of {of:<4}", P::NAME);
    let _ = write!(json, "    {:?}: {{\"replacement\": [{empty}, {of}]", P::NAME);
    if P::MOST >= 10 {
        let (got, ideal, share) = work::mixed_half_of_many::<P>(frames, seeds);
        let _ = write!(line, " mixed f50 {got:>4} of {ideal:<4} order-0 share {:.1} %", share as f64 / 10.0);
        let _ = write!(json, ", \"mixed_f50\": [{got}, {ideal}, {share}]");
    }
    let _ = writeln!(lines, "{line}");
    let _ = writeln!(json, "}},");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, peer, work, ops] = arguments.as_slice() {
        if flag == "--count" {
            let ops = ops.parse().expect("a number of operations");
            count::<Nothing>(peer, work, ops);
            count::<OwnedFloor>(peer, work, ops);
            count::<SharedFloor>(peer, work, ops);
            count::<Caching>(peer, work, ops);
            count::<Counting>(peer, work, ops);
            count::<Shared>(peer, work, ops);
            count::<SummaryPeer>(peer, work, ops);
            count::<DepotPeer>(peer, work, ops);
            return;
        }
    }
    if arguments.iter().any(|argument| argument == "--large") {
        return large();
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let json_path =
        arguments.iter().position(|argument| argument == "--json").map(|at| arguments[at + 1].clone());
    let frames: u64 = if quick { 1 << 16 } else { 1 << 18 };

    work::check::<Caching>(1 << 15);
    work::check::<Counting>(1 << 15);
    work::check::<Shared>(1 << 15);
    work::check::<SummaryPeer>(1 << 15);
    work::check::<DepotPeer>(1 << 15);
    work::check::<BuddySystem>(1 << 15);
    work::check::<Bitmap>(1 << 15);
    work::check::<SharedFloor>(1 << 15);
    work::check::<OwnedFloor>(1 << 15);
    println!("oracle: all allocators handed out every frame once and took it back");

    let mut rows = Vec::new();
    for _ in 0..if quick { 2 } else { 7 } {
        each(&mut rows, &Work::ALL, frames, quick);
    }
    print_times(&rows, &Work::ALL);
    let mut json = String::from("{\n  \"ns\": {\n");
    for row in &rows {
        let _ = write!(json, "    {:?}: {{", row.name);
        for (cell, work) in row.cells.iter().zip(Work::ALL) {
            if let Some((nanos, failed)) = cell {
                let _ = write!(json, "{:?}: [{nanos:.2}, {failed:.2}], ", work.name());
            }
        }
        json.truncate(json.trim_end_matches([',', ' ']).len());
        json.push_str("},\n");
    }
    json.truncate(json.trim_end_matches([',', '\n']).len());
    json.push_str("\n  },\n  \"fragmentation\": {\n");

    let mut lines = String::new();
    let seeds = if quick { 4 } else { 64 };
    fragmentation::<Caching>(&mut lines, &mut json, frames, seeds);
    fragmentation::<Counting>(&mut lines, &mut json, frames, seeds);
    fragmentation::<Shared>(&mut lines, &mut json, frames, seeds);
    fragmentation::<SummaryPeer>(&mut lines, &mut json, frames, seeds);
    fragmentation::<DepotPeer>(&mut lines, &mut json, frames, seeds);
    fragmentation::<BuddySystem>(&mut lines, &mut json, frames, seeds);
    fragmentation::<Bitmap>(&mut lines, &mut json, frames, seeds);
    json.truncate(json.trim_end_matches([',', '\n']).len());
    print!("\nfragmentation (deterministic):\n{lines}");

    println!("\ntwo threads, work of their own, ns a pair (order 0, order 9):");
    let ops = if quick { 50_000 } else { 1_000_000 };
    for (name, zero, nine) in [
        (
            Caching::NAME,
            work::two_threads::<Caching>(frames, 0, ops),
            work::two_threads::<Caching>(frames, 9, ops),
        ),
        (
            Counting::NAME,
            work::two_threads::<Counting>(frames, 0, ops),
            work::two_threads::<Counting>(frames, 9, ops),
        ),
        (
            SummaryPeer::NAME,
            work::two_threads::<SummaryPeer>(frames, 0, ops),
            work::two_threads::<SummaryPeer>(frames, 9, ops),
        ),
    ] {
        println!("  {name:26} {zero:>8.1} {nine:>8.1}");
    }

    let range = pnode_core::FrameRange::new(pnode_core::Pfn::new(0), 1 << 28).expect("1 TiB");
    let lines = pnode_buddy::Geometry::new(range).expect("a geometry").lines();
    let metadata = vec![pnode_buddy::Line::ZERO; lines].leak();
    let began = Instant::now();
    let zone = pnode_buddy::Zone::new(range, pnode_buddy::Metadata::assume_zeroed(metadata)).expect("a zone");
    let init = began.elapsed();
    println!(
        "\ninit of 1 TiB on zeroed metadata: {init:?}; metadata {:.1} KiB a GiB; {} frames free",
        (lines * 64) as f64 / 1024.0 / 1024.0,
        zone.free_frames()
    );
    let _ = write!(json, "\n  }},\n  \"init_1tib_ns\": {}\n}}\n", init.as_nanos());
    if let Some(path) = json_path {
        std::fs::write(&path, json).expect("the JSON file can be written");
    }
}
