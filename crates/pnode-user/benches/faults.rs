//! What a fault costs and what populating in bulk costs. What a machine adds to an allocator: `benches/harness.rs` of the
//! workspace.
//!
//! `cargo bench -p pnode-user --bench faults`. Each figure is the median over rounds of one run, in processor time of
//! the thread where one thread does all the work and in wall time for the backend with a thread of its own; only the
//! ratios in the last column mean something on a shared machine. Without `--bench` (as `cargo test --benches` runs it)
//! one short round checks that everything works.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pnode_core::PageSize;
use pnode_user::backing::Backing;
use pnode_user::fault::{Access, Backend, BackendKind, Choice, FaultError, Pager, Protection, View, attach};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;

/// Serves page `p` from frame `p * stride mod frames`. In order they are laid; otherwise no two pages share a mapping.
struct Linear {
    view: View,
    memory: Arc<Backing>,
    stride: u64,
}

impl Pager for Linear {
    fn view(&self) -> &View {
        &self.view
    }

    fn fault(&self, page: usize, _access: Access) -> Result<(), FaultError> {
        let frame = page as u64 * self.stride % self.memory.frames();
        assert!(self.memory.zero(frame));
        self.view.map(page, 1, &self.memory, frame, Protection::ReadWrite).map_err(FaultError::Kernel)
    }
}

/// Processor time of this thread, or wall time where another thread serves the faults, in nanoseconds.
#[derive(Clone, Copy, PartialEq)]
enum Clock {
    Thread,
    Wall,
}

impl Clock {
    fn of(kind: BackendKind) -> Self {
        match kind {
            BackendKind::UserfaultfdEvents => Self::Wall,
            _ => Self::Thread,
        }
    }

    fn time(self, work: impl FnOnce()) -> f64 {
        let wall = Instant::now();
        let thread = thread_time();
        work();
        match self {
            Self::Thread => thread_time() - thread,
            Self::Wall => wall.elapsed().as_nanos() as f64,
        }
    }
}

/// Nanoseconds that this thread was on a processor.
fn thread_time() -> f64 {
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = [0; 2];
    // SAFETY: `time` has the size and the shape of a `struct timespec` of a 64-bit machine.
    assert_eq!(unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    time[0] as f64 * 1e9 + time[1] as f64
}

/// The pages in the order in which they are touched.
#[derive(Clone, Copy)]
enum Touch {
    InOrder,
    Scattered,
}

/// Touches each of `pages` pages at `start` once.
fn touch_all(start: usize, pages: usize, order: Touch) {
    let step = match order {
        Touch::InOrder => 1,
        // Odd, so that it visits every page of a power of two.
        Touch::Scattered => 4_099,
    };
    for index in 0..pages {
        let word = (start + index * step % pages * PAGE) as *const AtomicU64;
        // SAFETY: the caller's mapping has the pages.
        unsafe { &*word }.store(black_box(index as u64), Ordering::Relaxed);
    }
}

fn kernel_round(clock: Clock, pages: usize, order: Touch) -> f64 {
    let memory: Vec<u8> = Vec::with_capacity(pages * PAGE + PAGE);
    let start = (memory.as_ptr() as usize).next_multiple_of(PAGE);
    clock.time(|| touch_all(start, pages, order))
}

fn view_round(backend: &Arc<Backend>, memory: &Arc<Backing>, pages: usize, stride: u64) -> f64 {
    let view = View::new(backend, pages, PageSize::KIB4).unwrap();
    if stride == 1 {
        view.lay(0, pages, memory, 0).unwrap();
    }
    let pager = Arc::new(Linear { view, memory: Arc::clone(memory), stride });
    attach(&pager);
    let clock = Clock::of(backend.kind());
    let cost = clock.time(|| touch_all(pager.view.start(), pages, Touch::InOrder));
    assert!((0..pages).all(|page| pager.view.mapped(page).is_some()));
    cost
}

/// First touches of a mapping of a machine whose node was used before, so that its memory is there; policy, allocator and
/// counters included.
fn machine_round(machine: &Machine, pages: usize, order: Touch) -> f64 {
    let dram = machine.node(0).unwrap();
    let memory = machine.map(pages, dram).unwrap();
    let clock = Clock::of(machine.faults().kind());
    let cost = clock.time(|| touch_all(memory.as_ptr() as usize, pages, order));
    assert_eq!(machine.free_frames(dram), machine.frames(dram) - pages as u64);
    cost
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

#[derive(Clone, Copy)]
enum FaultAround {
    None = 1,
    Pages16 = 16,
}

struct Sheet {
    pages: usize,
    rounds: usize,
}

impl Sheet {
    /// Prints the median of `round`, beside that of the kernel's own faults in the same rounds.
    fn line(&self, name: &str, clock: Clock, order: Touch, round: impl FnMut() -> f64) {
        self.beside(name, || kernel_round(clock, self.pages, order), round);
    }

    fn beside(&self, name: &str, mut base: impl FnMut() -> f64, mut round: impl FnMut() -> f64) {
        let (mut ours, mut kernels) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            kernels.push(base());
            ours.push(round());
        }
        let (ours, kernel) = (median(ours), median(kernels));
        let each = |time: f64| time / self.pages as f64;
        println!("{name:<58} {:>7.0} ns {:>7.0} ns {:>7.2}x", each(ours), each(kernel), ours / kernel);
    }
}

fn main() {
    let timed = std::env::args().any(|argument| argument == "--bench");
    let sheet = Sheet { pages: if timed { 16_384 } else { 64 }, rounds: if timed { 9 } else { 1 } };
    let pages = sheet.pages;
    // A prime number of frames, so that every stride visits all of them.
    let memory = Arc::new(Backing::new(if timed { 16_411 } else { 67 }, PageSize::KIB4).unwrap());
    for frame in 0..memory.frames() {
        assert!(memory.zero(frame));
    }
    println!("first touch of a page, {pages} pages, median of {}", sheet.rounds);
    println!("{:<58} {:>10} {:>10} {:>8}", "", "a page", "kernel's", "ratio");
    for choice in [Choice::Userfaultfd, Choice::Signal, Choice::UserfaultfdEvents] {
        let backend = match Backend::start(choice) {
            Ok(backend) => backend,
            Err(error) => {
                println!("{choice:?}: SKIPPED, {error}");
                continue;
            }
        };
        let clock = Clock::of(backend.kind());
        for (name, stride) in [("a pager, frames in order", 1), ("a pager, frames scattered", 37)] {
            let name = format!("{choice:?}, {name}");
            sheet.line(&name, clock, Touch::InOrder, || view_round(&backend, &memory, pages, stride));
        }
        let machine = |around: FaultAround| {
            let node = NodeSpec::ordinary(pages as u64 + 64);
            Machine::builder().node(node).faults(choice).fault_around(around as usize).build().unwrap()
        };
        let used = machine(FaultAround::None);
        machine_round(&used, pages, Touch::InOrder);
        for (name, order) in [
            ("a machine, touched in order", Touch::InOrder),
            ("a machine, touched all over", Touch::Scattered),
        ] {
            let name = format!("{choice:?}, {name}");
            sheet.line(&name, clock, order, || machine_round(&used, pages, order));
        }
        let name = format!("{choice:?}, a machine, memory never used before");
        sheet.line(&name, clock, Touch::InOrder, || {
            machine_round(&machine(FaultAround::None), pages, Touch::InOrder)
        });
        let around = machine(FaultAround::Pages16);
        machine_round(&around, pages, Touch::InOrder);
        let name = format!("{choice:?}, a machine, 16 pages a fault");
        sheet.line(&name, clock, Touch::InOrder, || machine_round(&around, pages, Touch::InOrder));
    }
    populate(timed);
}

/// Bulk populate beside writing to as much fresh anonymous memory: 1 GiB, or a little to see that it works.
fn populate(timed: bool) {
    let (pages, rounds) = if timed { ((1 << 30) / PAGE, 3) } else { (600, 1) };
    println!("\npopulating {pages} pages by one call, median of {rounds}");
    println!("{:<58} {:>10} {:>10} {:>8}", "", "a page", "memset's", "ratio");
    let sheet = Sheet { pages, rounds };
    for choice in [Choice::Userfaultfd, Choice::Signal] {
        let machine = || Machine::builder().node(NodeSpec::ordinary(pages as u64)).faults(choice).build();
        let Ok(used) = machine() else { continue };
        let round = |machine: &Machine| {
            let memory = machine.map(pages, machine.node(0).unwrap()).unwrap();
            Clock::Thread.time(|| assert_eq!(memory.populate(0..pages), Ok(pages)))
        };
        round(&used);
        sheet.beside(
            &format!("{choice:?}, memory that was used before"),
            || memset_round(pages),
            || round(&used),
        );
        let fresh = || round(&machine().unwrap());
        sheet.beside(&format!("{choice:?}, memory never used before"), || memset_round(pages), fresh);
    }
}

fn memset_round(pages: usize) -> f64 {
    let mut memory: Vec<u8> = Vec::with_capacity(pages * PAGE);
    // Written by `memset`, for the value is not zero.
    let cost = Clock::Thread.time(|| memory.resize(pages * PAGE, 1));
    assert_eq!(black_box(memory).last(), Some(&1));
    cost
}
