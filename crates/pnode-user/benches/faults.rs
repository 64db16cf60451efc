//! What a fault costs: the first touch of a page through a view, beside the kernel's own anonymous fault.
//!
//! `cargo bench -p pnode-user --bench faults`. Each figure is the median over rounds of one run; only the ratios in
//! the last column mean something on a shared machine. Without `--bench` (as `cargo test --benches` runs it) one
//! short round checks that everything works.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pnode_core::PageSize;
use pnode_user::backing::Backing;
use pnode_user::fault::{Access, Backend, Choice, FaultError, Pager, Protection, View, attach};

const PAGE: usize = 4096;

/// Serves page `p` from frame `p * stride mod frames`, so that no two pages share a mapping if the stride is not 1.
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

/// Nanoseconds for each first touch of `pages` pages at `start`.
fn touch_all(start: usize, pages: usize) -> f64 {
    let clock = Instant::now();
    for page in 0..pages {
        let word = (start + page * PAGE) as *const AtomicU64;
        // SAFETY: the caller's mapping has the pages.
        unsafe { &*word }.store(black_box(page as u64), Ordering::Relaxed);
    }
    clock.elapsed().as_nanos() as f64 / pages as f64
}

fn kernel_round(pages: usize) -> f64 {
    let memory: Vec<u8> = Vec::with_capacity(pages * PAGE + PAGE);
    let start = (memory.as_ptr() as usize).next_multiple_of(PAGE);
    touch_all(start, pages)
}

fn view_round(backend: &Arc<Backend>, memory: &Arc<Backing>, pages: usize, stride: u64) -> f64 {
    let view = View::new(backend, pages, PageSize::KIB4).unwrap();
    let pager = Arc::new(Linear { view, memory: Arc::clone(memory), stride });
    attach(&pager);
    let cost = touch_all(pager.view.start(), pages);
    assert!((0..pages).all(|page| pager.view.mapped(page).is_some()));
    cost
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    let timed = std::env::args().any(|argument| argument == "--bench");
    let (pages, rounds) = if timed { (16_384, 9) } else { (64, 1) };
    // A prime number of frames, so that every stride visits all of them.
    let memory = Arc::new(Backing::new(if timed { 16_411 } else { 67 }, PageSize::KIB4).unwrap());
    for frame in 0..memory.frames() {
        assert!(memory.zero(frame));
    }
    let mut backends = vec![Backend::start(Choice::Signal).unwrap()];
    match Backend::start(Choice::Userfaultfd) {
        Ok(backend) => backends.push(backend),
        Err(error) => println!("userfaultfd: SKIPPED, {error}"),
    }
    let kernel = median((0..rounds).map(|_| kernel_round(pages)).collect());
    println!("first touch of a page, {pages} pages, median of {rounds}");
    println!("{:<44} {kernel:>8.0} ns  1.00x", "the kernel's anonymous memory");
    for backend in &backends {
        for (order, stride) in [("frames in order", 1), ("frames scattered", 37)] {
            let cost = median((0..rounds).map(|_| view_round(backend, &memory, pages, stride)).collect());
            let name = format!("{:?}, {order}", backend.kind());
            println!("{name:<44} {cost:>8.0} ns  {:.2}x", cost / kernel);
        }
    }
}
