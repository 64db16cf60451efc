//! The work that is measured, the same for everybody.

use std::hint::black_box;
use std::time::Instant;

use crate::peers::{Frames, Peer};

/// splitmix64.
pub struct Random(pub u64);
impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[inline(never)]
fn alloc<F: Frames>(cpu: &mut F, order: u8) -> Option<u64> {
    cpu.alloc(order)
}

#[inline(never)]
fn free<F: Frames>(cpu: &mut F, pfn: u64, order: u8) {
    cpu.free(pfn, order);
}

/// What is measured, in nanoseconds an operation (a pair counts as one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Alloc0,
    FreeRandom0,
    Pair0,
    Alloc0Half,
    Pair3,
    Pair9,
    Pair10,
    Geometric90,
    Uniform99,
    Refused0,
    Refused1,
}

impl Work {
    pub const ALL: [Self; 11] = [
        Self::Alloc0,
        Self::FreeRandom0,
        Self::Pair0,
        Self::Alloc0Half,
        Self::Pair3,
        Self::Pair9,
        Self::Pair10,
        Self::Geometric90,
        Self::Uniform99,
        Self::Refused0,
        Self::Refused1,
    ];
    /// What is measured in a zone of 64 GiB.
    pub const LARGE: [Self; 4] = [Self::FreeRandom0, Self::Alloc0Half, Self::Refused0, Self::Refused1];

    pub fn name(self) -> &'static str {
        match self {
            Self::Alloc0 => "o0 alloc",
            Self::FreeRandom0 => "o0 free rnd",
            Self::Pair0 => "o0 pair",
            Self::Alloc0Half => "o0 alloc half",
            Self::Pair3 => "o3 pair",
            Self::Pair9 => "o9 pair",
            Self::Pair10 => "o10 pair",
            Self::Geometric90 => "mix geo 90%",
            Self::Uniform99 => "mix uni 99%",
            Self::Refused0 => "o0 refused",
            Self::Refused1 => "o1 refused",
        }
    }

    fn most(self) -> u8 {
        match self {
            Self::Refused1 => 1,
            Self::Pair3 => 3,
            Self::Pair9 => 9,
            Self::Pair10 | Self::Geometric90 | Self::Uniform99 => 10,
            _ => 0,
        }
    }

    pub fn suits<P: Peer>(self) -> bool {
        let refusal = matches!(self, Self::Refused0 | Self::Refused1);
        self.most() <= P::MOST && (P::REFUSES || !refusal)
    }

    /// Prepares, then runs `ops` operations; (nanoseconds, operations, failures).
    pub fn run<P: Peer>(self, frames: u64, ops: u64, seed: u64) -> (f64, u64, u64) {
        let peer = P::new(frames);
        let mut cpu = peer.cpu();
        let mut random = Random(seed);
        match self {
            Self::Alloc0 => {
                let count = ops.min(frames * 31 / 32);
                let began = Instant::now();
                let failed = (0..count).filter(|_| black_box(alloc(&mut cpu, 0)).is_none()).count();
                (began.elapsed().as_nanos() as f64, count, failed as u64)
            }
            Self::FreeRandom0 => {
                let mut held: Vec<u64> = (0..frames * 31 / 32).filter_map(|_| alloc(&mut cpu, 0)).collect();
                random.shuffle(&mut held);
                held.truncate(ops as usize);
                let began = Instant::now();
                held.iter().for_each(|pfn| free(&mut cpu, *pfn, 0));
                (began.elapsed().as_nanos() as f64, held.len() as u64, 0)
            }
            Self::Alloc0Half => {
                let mut held: Vec<u64> = (0..frames * 31 / 32).filter_map(|_| alloc(&mut cpu, 0)).collect();
                random.shuffle(&mut held);
                let half = held.len() / 2;
                held[..half].iter().for_each(|pfn| free(&mut cpu, *pfn, 0));
                let count = ops.min(half as u64 * 7 / 8);
                let began = Instant::now();
                let failed = (0..count).filter(|_| black_box(alloc(&mut cpu, 0)).is_none()).count();
                (began.elapsed().as_nanos() as f64, count, failed as u64)
            }
            // Nothing is free, or every second frame.
            Self::Refused0 | Self::Refused1 => {
                let held: Vec<u64> = (0..frames).map_while(|_| alloc(&mut cpu, 0)).collect();
                if self == Self::Refused1 {
                    held.iter().filter(|pfn| *pfn % 2 == 1).for_each(|pfn| free(&mut cpu, *pfn, 0));
                }
                let order = self.most();
                while alloc(&mut cpu, order).is_some() {}
                let began = Instant::now();
                let got = (0..ops).filter(|_| black_box(alloc(&mut cpu, order)).is_some()).count();
                assert_eq!(got, 0, "{}: an allocation that was refused succeeds", P::NAME);
                (began.elapsed().as_nanos() as f64, ops, 0)
            }
            Self::Pair0 | Self::Pair3 | Self::Pair9 | Self::Pair10 => {
                let order = self.most();
                let mut failed = 0;
                let began = Instant::now();
                for _ in 0..ops {
                    match alloc(&mut cpu, order) {
                        Some(pfn) => free(&mut cpu, black_box(pfn), order),
                        None => failed += 1,
                    }
                }
                (began.elapsed().as_nanos() as f64, ops, failed)
            }
            Self::Geometric90 | Self::Uniform99 => {
                let percent = if self == Self::Geometric90 { 90 } else { 99 };
                let goal = frames * percent / 100;
                let orders: Vec<u8> = (0..1 << 16)
                    .map(|_| match self {
                        Self::Geometric90 => (random.next().trailing_zeros() as u8).min(10),
                        _ => random.below(11) as u8,
                    })
                    .collect();
                let mut held: Vec<(u64, u8)> = Vec::with_capacity(frames as usize);
                let (mut used, mut step) = (0, 0);
                // One operation is an alloc or a free; a block that does not fit under the goal waits for frees.
                let mut churn = |count: u64, held: &mut Vec<(u64, u8)>, random: &mut Random| {
                    let mut failed = 0;
                    for _ in 0..count {
                        let order = orders[step & 0xffff];
                        if used + (1 << order) > goal {
                            let (pfn, order) = held.swap_remove(random.below(held.len() as u64) as usize);
                            used -= 1 << order;
                            free(&mut cpu, pfn, order);
                            continue;
                        }
                        step += 1;
                        match alloc(&mut cpu, order) {
                            Some(pfn) => {
                                used += 1 << order;
                                held.push((pfn, order));
                            }
                            None => failed += 1,
                        }
                    }
                    failed
                };
                churn(frames / 4, &mut held, &mut random);
                let began = Instant::now();
                let failed = churn(ops, &mut held, &mut random);
                (began.elapsed().as_nanos() as f64, ops, failed)
            }
        }
    }
}

/// Runs random operations against an ownership map: no overlap, nothing lost.
pub fn check<P: Peer>(frames: u64) {
    let peer = P::new(frames);
    let mut cpu = peer.cpu();
    let mut owned = vec![false; frames as usize];
    let mut held: Vec<(u64, u8)> = Vec::new();
    let mut random = Random(1);
    for _ in 0..300_000 {
        if random.below(100) < 55 {
            let order = (random.next().trailing_zeros() as u8).min(P::MOST);
            if let Some(pfn) = alloc(&mut cpu, order) {
                assert!(pfn % (1 << order) == 0, "{}: {pfn} is not aligned to order {order}", P::NAME);
                for frame in &mut owned[pfn as usize..(pfn + (1 << order)) as usize] {
                    assert!(!std::mem::replace(frame, true), "{}: {pfn} was handed out twice", P::NAME);
                }
                held.push((pfn, order));
            }
        } else if !held.is_empty() {
            let (pfn, order) = held.swap_remove(random.below(held.len() as u64) as usize);
            owned[pfn as usize..(pfn + (1 << order)) as usize].fill(false);
            free(&mut cpu, pfn, order);
        }
    }
    for (pfn, order) in held.drain(..) {
        free(&mut cpu, pfn, order);
    }
    cpu.drain();
    let again = (0..frames).filter(|_| alloc(&mut cpu, 0).is_some()).count() as u64;
    // A peer may keep its books in the pool.
    assert!(again >= frames - frames / 256, "{}: only {again} of {frames} frames came back", P::NAME);
}

/// Fill with single frames, free half at random, then 40 rounds of replacing a random tenth of the memory; how many
/// areas of 512 frames are empty, of how many the free frames would make.
pub fn replacement<P: Peer>(frames: u64) -> (u64, u64) {
    let peer = P::new(frames);
    let mut cpu = peer.cpu();
    let mut random = Random(40);
    let mut held: Vec<u64> = std::iter::from_fn(|| alloc(&mut cpu, 0)).collect();
    random.shuffle(&mut held);
    let half = held.len() / 2;
    held.drain(..half).for_each(|pfn| free(&mut cpu, pfn, 0));
    for _ in 0..40 {
        let tenth = frames as usize / 10;
        random.shuffle(&mut held);
        held.drain(..tenth).for_each(|pfn| free(&mut cpu, pfn, 0));
        held.extend(std::iter::from_fn(|| alloc(&mut cpu, 0)).take(tenth));
    }
    cpu.drain();
    let mut used = vec![false; frames as usize / 512];
    held.iter().for_each(|pfn| used[*pfn as usize / 512] = true);
    (used.iter().filter(|used| !**used).count() as u64, (frames - held.len() as u64) / 512)
}

/// Mixed churn at 95 %, 80 % single frames and the rest up to order 10, then half of the single frames freed: how many
/// blocks of order 9 can be had, of how many the free frames would make, and the share of memory in single frames after
/// the churn in thousandths.
pub fn mixed_half<P: Peer>(frames: u64, seed: u64) -> (u64, u64, u64) {
    let peer = P::new(frames);
    let mut cpu = peer.cpu();
    let mut random = Random(seed);
    let mut held: Vec<(u64, u8)> = Vec::new();
    let mut used = 0;
    let goal = frames * 95 / 100;
    for _ in 0..1 << 20 {
        let order = if random.below(10) < 8 { 0 } else { random.below(11) as u8 };
        while used + (1 << order) > goal {
            let (pfn, order) = held.swap_remove(random.below(held.len() as u64) as usize);
            used -= 1 << order;
            free(&mut cpu, pfn, order);
        }
        if let Some(pfn) = alloc(&mut cpu, order) {
            used += 1 << order;
            held.push((pfn, order));
        }
    }
    let singles = held.iter().filter(|(_, order)| *order == 0).count() as u64;
    let share = singles * 1000 / used;
    let mut left = singles / 2;
    random.shuffle(&mut held);
    for (pfn, order) in held {
        if order == 0 && left > 0 {
            left -= 1;
            used -= 1;
            free(&mut cpu, pfn, 0);
        }
    }
    cpu.drain();
    let got = std::iter::from_fn(|| alloc(&mut cpu, 9)).count() as u64;
    (got, (frames - used) / 512, share)
}

/// [`mixed_half`] summed over many seeds, the share averaged: what one seed gets differs by half from what the next does, and
/// eight of them still by a tenth from the next eight.
pub fn mixed_half_of_many<P: Peer>(frames: u64, seeds: u64) -> (u64, u64, u64) {
    let (got, ideal, share) = (1..=seeds)
        .map(|seed| mixed_half::<P>(frames, seed))
        .fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
    (got, ideal, share / seeds)
}

/// Two threads with work of their own; nanoseconds an operation of the slower thread.
pub fn two_threads<P: Peer>(frames: u64, order: u8, ops: u64) -> f64 {
    let peer = P::new(frames);
    let times: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut cpu = peer.cpu();
                    let began = Instant::now();
                    for _ in 0..ops {
                        if let Some(pfn) = alloc(&mut cpu, order) {
                            free(&mut cpu, black_box(pfn), order);
                        }
                    }
                    began.elapsed().as_nanos() as f64 / ops as f64
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    times.into_iter().fold(0.0, f64::max)
}
