//! What 64 CPUs would cost one another: a simulation of who writes which cache line.
//!
//! 64 [`Cpu`]s work in turn, one operation each, on one thread. After each operation all of the zone's memory is compared
//! with what it was: a line that changed was written by that CPU, and if another CPU was the last to write it, it had to
//! be fetched from there. On real hardware that fetch is what stops an allocator from scaling; everything else is a
//! CPU's own work. (A write that an operation undoes itself is not seen; an inbox that is filled and emptied takes two.)

extern crate std;

use alloc::vec;
use alloc::vec::Vec;
use std::println;

use pnode_core::sync::Ordering::Relaxed;
use pnode_core::{FrameRange, MigrateType, Order, Pfn};

use crate::cpu::{Cpu, Keep};
use crate::geometry::Geometry;
use crate::metadata::{Line, Metadata};
use crate::zone::Zone;

const CPUS: usize = 64;

/// Who wrote which line last.
struct Watch<'z, 'm> {
    zone: &'z Zone<'m>,
    seen: Vec<u64>,
    writer: Vec<Option<usize>>,
    /// Lines fetched, by what they hold: words, areas, nodes above, inboxes, index, counts, and the rest.
    fetched: [u64; 7],
}

impl<'z, 'm> Watch<'z, 'm> {
    fn new(zone: &'z Zone<'m>) -> Self {
        let words = zone.geometry.lines() * Line::WORDS;
        // The words of the zone that are not in the metadata lie in one further line.
        let mut watch = Self {
            zone,
            seen: vec![0; words + 8],
            writer: vec![None; words / Line::WORDS + 1],
            fetched: [0; 7],
        };
        watch.look(CPUS);
        watch.writer.fill(None);
        watch.fetched = [0; 7];
        watch
    }

    /// Counts the lines that `cpu` wrote since the last call and that another CPU had written last.
    fn look(&mut self, cpu: usize) {
        let words = self.seen.len() - 8;
        let zone = self.zone;
        let own =
            [&zone.managed, &zone.closed, &zone.withheld, &zone.range_lock].map(|word| word.load(Relaxed));
        let own = own.into_iter().chain([zone.gate.look().raw()]);
        let now = (0..words).map(|at| zone.words.at(at).load(Relaxed)).chain(own);
        let geometry = &zone.geometry;
        let starts = [
            geometry.level(1).nodes,
            geometry.level(2).nodes,
            geometry.inboxes,
            geometry.map(1, 0, 1),
            geometry.counts,
            geometry.table,
        ];
        let mut last = usize::MAX;
        for (at, value) in now.enumerate() {
            if self.seen[at] != value {
                self.seen[at] = value;
                let line = at / Line::WORDS;
                let others = self.writer[line].replace(cpu).is_some_and(|writer| writer != cpu);
                let part = starts.iter().filter(|start| **start <= at).count();
                self.fetched[part] += u64::from(others && line != last);
                last = line;
            }
        }
    }
}

/// Runs `warm` and then `count` rounds of one operation a CPU; lines fetched from other CPUs in these, per operation.
fn simulate(warm: usize, count: usize, mut work: impl FnMut(usize, &mut Cpu<'_, '_>)) -> f64 {
    let range = FrameRange::new(Pfn::new(0), 1 << 16).unwrap();
    let mut lines = vec![Line::ZERO; Geometry::new(range).unwrap().lines()];
    let zone = Zone::new(range, Metadata::assume_zeroed(&mut lines)).unwrap();
    let mut cpus: Vec<_> = (0..CPUS).map(|_| Cpu::new(&zone, Keep::Frames)).collect();
    for _ in 0..warm {
        cpus.iter_mut().enumerate().for_each(|(number, cpu)| work(number, cpu));
    }
    let mut watch = Watch::new(&zone);
    for _ in 0..count {
        for (number, cpu) in cpus.iter_mut().enumerate() {
            work(number, cpu);
            watch.look(number);
        }
    }
    println!("words, areas, nodes, inboxes, index, counts, rest: {:?}", watch.fetched);
    watch.fetched.iter().sum::<u64>() as f64 / (count * CPUS) as f64
}

const MOVABLE: MigrateType = MigrateType::Movable;

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// Each CPU allocates and frees at once.
fn pairs(size: u8) -> f64 {
    simulate(40, 8, |_, cpu| {
        let pfn = cpu.alloc(order(size), MOVABLE).unwrap();
        cpu.free(pfn, order(size)).unwrap();
    })
}

/// Each CPU keeps `depth` blocks, frees the oldest and allocates one.
fn queues(size: u8, depth: usize) -> f64 {
    let mut queues = vec![std::collections::VecDeque::new(); CPUS];
    simulate(2 * depth + 100, 24, |number, cpu| {
        if queues[number].len() == depth {
            cpu.free(queues[number].pop_front().unwrap(), order(size)).unwrap();
        }
        queues[number].push_back(cpu.alloc(order(size), MOVABLE).unwrap());
    })
}

#[test]
fn in_the_steady_state_cpus_write_no_line_in_common() {
    for size in 0..5 {
        let pairs = pairs(size);
        println!("order {size}: pairs {pairs:.4}");
        assert_eq!(pairs, 0.0, "order {size}");
    }
    // A queue that is longer than a word makes a CPU go from word to word, and so to write its area's node and inbox
    // now and then: eight areas share such a line with their neighbours.
    for (size, depth) in [(0, 16), (3, 8), (0, 200)] {
        let queues = queues(size, depth);
        println!("order {size}, {depth} deep: queues {queues:.4}");
        let most = if depth > 32 { 0.2 } else { 0.0 };
        assert!(queues <= most, "order {size}, {depth} deep: {queues}");
    }
}
