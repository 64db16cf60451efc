//! Views take real faults on both backends: a naive pager hands out frames in a scattered order, and every byte is
//! compared with what was written.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use pnode_core::{AllocError, Order, PageSize};
use pnode_user::backing::Backing;
use pnode_user::fault::{
    Access, Backend, BackendKind, Choice, FaultError, Pager, Protection, View, attach, read, write,
};

const PAGE: usize = 4096;

/// Serves each page from a frame of its own, in an order that is far from the pages' order.
struct Scattered {
    view: View,
    memory: Backing,
    /// The frame of each page, and whether writes are fenced.
    table: Vec<Mutex<Option<(u64, Protection)>>>,
    free: Mutex<Vec<u64>>,
    faults: AtomicUsize,
    promotions: AtomicUsize,
}

impl Scattered {
    fn new(backend: &Arc<Backend>, pages: usize, frames: u64) -> Arc<Self> {
        let step = 37;
        let mut free: Vec<u64> = (0..frames).map(|frame| frame * step % frames).collect();
        free.sort_unstable();
        free.dedup();
        assert_eq!(free.len() as u64, frames, "the number of frames must not share a factor with {step}");
        let free = (0..frames).map(|frame| frame * step % frames).collect();
        let this = Arc::new(Self {
            view: View::new(backend, pages, PageSize::KIB4).unwrap(),
            memory: Backing::new(frames, PageSize::KIB4).unwrap(),
            table: (0..pages).map(|_| Mutex::new(None)).collect(),
            free: Mutex::new(free),
            faults: AtomicUsize::new(0),
            promotions: AtomicUsize::new(0),
        });
        attach(&this);
        this
    }

    fn take_frame(&self) -> Result<u64, FaultError> {
        self.free
            .lock()
            .unwrap()
            .pop()
            .ok_or(FaultError::NoFrame(AllocError::NoMemory { order: Order::ZERO }))
    }

    /// Moves a page to another frame, as migration does.
    fn migrate(&self, page: usize) {
        let mut entry = self.table[page].lock().unwrap();
        let Some((old, protection)) = *entry else { return };
        let Ok(new) = self.take_frame() else { return };
        self.view.write_protect(page).unwrap();
        assert!(self.memory.copy_frame(new, &self.memory, old));
        self.view.map(page, 1, &self.memory, new, protection).unwrap();
        *entry = Some((new, protection));
        // The old frame is poisoned: whoever still saw it would see this.
        assert!(self.memory.write(old, 0, &[0xee; PAGE]));
        self.free.lock().unwrap().insert(0, old);
    }

    fn fence(&self, page: usize) {
        let mut entry = self.table[page].lock().unwrap();
        let Some((frame, _)) = *entry else { return };
        self.view.map(page, 1, &self.memory, frame, Protection::ReadOnly).unwrap();
        *entry = Some((frame, Protection::ReadOnly));
    }
}

impl Pager for Scattered {
    fn view(&self) -> &View {
        &self.view
    }

    fn fault(&self, page: usize, access: Access) -> Result<(), FaultError> {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let mut entry = self.table[page].lock().unwrap();
        let (frame, protection) = match *entry {
            None => {
                let frame = self.take_frame()?;
                assert!(self.memory.zero(frame));
                (frame, Protection::ReadWrite)
            }
            Some((frame, Protection::ReadOnly)) if access != Access::Read => {
                let new = self.take_frame()?;
                assert!(self.memory.copy_frame(new, &self.memory, frame));
                self.free.lock().unwrap().insert(0, frame);
                self.promotions.fetch_add(1, Ordering::Relaxed);
                (new, Protection::ReadWrite)
            }
            Some(present) => present,
        };
        *entry = Some((frame, protection));
        self.view.map(page, 1, &self.memory, frame, protection).map_err(FaultError::Kernel)
    }
}

fn on_all(test: impl Fn(&Arc<Backend>)) {
    let signal = Backend::start(Choice::Signal).unwrap();
    assert_eq!(signal.kind(), BackendKind::Signal);
    test(&signal);
    for choice in [Choice::Userfaultfd, Choice::UserfaultfdEvents] {
        match Backend::start(choice) {
            Ok(userfaultfd) => test(&userfaultfd),
            Err(error) => println!("SKIPPED on {choice:?}: {error}"),
        }
    }
}

fn store(pager: &Scattered, page: usize, word: u64) {
    let address = (pager.view.start() + page * PAGE) as *const AtomicU64;
    // SAFETY: the address belongs to the view, which the pager keeps, and is aligned.
    unsafe { &*address }.store(word, Ordering::Relaxed);
}

fn load(pager: &Scattered, page: usize) -> u64 {
    let address = (pager.view.start() + page * PAGE) as *const AtomicU64;
    // SAFETY: as in `store`.
    unsafe { &*address }.load(Ordering::Relaxed)
}

/// How many mappings the kernel shows inside the view.
fn kernel_mappings(view: &View) -> usize {
    let (start, end) = (view.start(), view.start() + view.pages() * PAGE);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let inside = |line: &&str| {
        let (low, high) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let (low, high) = (usize::from_str_radix(low, 16).unwrap(), usize::from_str_radix(high, 16).unwrap());
        low < end && high > start
    };
    maps.lines().filter(inside).count()
}

#[test]
fn each_first_touch_takes_one_frame_and_keeps_its_bytes() {
    on_all(|backend| {
        let pager = Scattered::new(backend, 500, 1000);
        for page in 0..500 {
            assert_eq!(pager.view.mapped(page), None);
            store(&pager, page, page as u64 * 3);
        }
        // A sleeper that is woken for another reason faults again, so calls of the pager may be more.
        assert!(pager.faults.load(Ordering::Relaxed) >= 500);
        assert_eq!(pager.free.lock().unwrap().len(), 500, "each page has taken one frame");
        for page in 0..500 {
            assert_eq!(load(&pager, page), page as u64 * 3, "page {page} on {backend}");
            let (frame, _) = pager.view.mapped(page).unwrap();
            let mut word = [0; 8];
            assert!(pager.memory.read(frame, 0, &mut word));
            assert_eq!(u64::from_ne_bytes(word), page as u64 * 3, "the frame itself, page {page}");
        }
        assert_eq!(pager.free.lock().unwrap().len(), 500);
    });
}

#[test]
fn the_count_of_mappings_is_the_kernels() {
    on_all(|backend| {
        let pager = Scattered::new(backend, 300, 1000);
        assert_eq!(pager.view.mappings(), kernel_mappings(&pager.view), "fresh, {backend}");
        for page in (0..300).step_by(2) {
            store(&pager, page, 1);
        }
        assert_eq!(pager.view.mappings(), kernel_mappings(&pager.view), "every second page, {backend}");
        for page in (0..300).step_by(6) {
            pager.fence(page);
        }
        assert_eq!(pager.view.mappings(), kernel_mappings(&pager.view), "some fenced, {backend}");
        pager.view.unmap(10, 280).unwrap();
        assert_eq!(pager.view.mappings(), kernel_mappings(&pager.view), "unmapped, {backend}");
        pager.view.map(20, 100, &pager.memory, 500, Protection::ReadWrite).unwrap();
        assert_eq!(pager.view.mappings(), kernel_mappings(&pager.view), "a run, {backend}");
        assert_eq!(backend.mappings(), pager.view.mappings());
        drop(pager);
        assert_eq!(backend.mappings(), 0);
    });
}

#[test]
fn more_scattered_pages_than_mappings_are_no_problem() {
    for choice in [Choice::Signal, Choice::Best] {
        let backend = Backend::start_with_budget(choice, 100).unwrap();
        let pager = Scattered::new(&backend, 2000, 2500);
        for round in 0..3u64 {
            for page in 0..2000 {
                if round > 0 {
                    assert_eq!(load(&pager, page), round - 1 + page as u64, "round {round} page {page}");
                }
                store(&pager, page, round + page as u64);
            }
            assert!(backend.mappings() <= 100, "{} mappings", backend.mappings());
        }
    }
}

#[test]
fn a_write_to_a_fenced_page_changes_the_frame_once() {
    on_all(|backend| {
        let pager = Scattered::new(backend, 64, 1000);
        for page in 0..64 {
            store(&pager, page, page as u64);
            pager.fence(page);
        }
        let frames: Vec<_> = (0..64).map(|page| pager.view.mapped(page).unwrap().0).collect();
        for page in 0..64 {
            assert_eq!(load(&pager, page), page as u64, "reads pass the fence");
        }
        assert_eq!(pager.promotions.load(Ordering::Relaxed), 0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..64).for_each(|page| store(&pager, page, 1000 + page as u64)));
            }
        });
        assert_eq!(pager.promotions.load(Ordering::Relaxed), 64, "one writer wins each page, {backend}");
        for (page, fenced) in frames.iter().enumerate() {
            assert_ne!(pager.view.mapped(page).unwrap().0, *fenced, "page {page}");
            assert_eq!(load(&pager, page), 1000 + page as u64);
        }
    });
}

#[test]
fn migration_under_writers_loses_nothing() {
    on_all(|backend| {
        const PAGES: usize = 48;
        let pager = Scattered::new(backend, PAGES, 101);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..2 {
                let (pager, stop) = (&pager, &stop);
                scope.spawn(move || {
                    // Each writer owns every second page, and finds there what it wrote last.
                    let mut last = [0u64; PAGES];
                    for round in 1..3000u64 {
                        let page = writer + 2 * (round as usize * 7 % (PAGES / 2));
                        assert_eq!(load(pager, page), last[page], "page {page} round {round}");
                        store(pager, page, round);
                        last[page] = round;
                    }
                    stop.store(true, Ordering::Relaxed);
                });
            }
            let (pager, stop) = (&pager, &stop);
            scope.spawn(move || {
                let mut seed = 1u64;
                while !stop.load(Ordering::Relaxed) {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let page = (seed >> 33) as usize % PAGES;
                    match seed >> 62 {
                        0 => pager.view.unmap(page, 1).unwrap(),
                        1 => pager.fence(page),
                        _ => pager.migrate(page),
                    }
                }
            });
        });
        assert_eq!(pager.view.mappings(), kernel_mappings(&pager.view));
    });
}

#[test]
fn a_fault_that_cannot_be_served_is_an_error_of_the_copy() {
    on_all(|backend| {
        let pager = Scattered::new(backend, 64, 20);
        let bytes = vec![7u8; 30 * PAGE];
        let exhausted = FaultError::NoFrame(AllocError::NoMemory { order: Order::ZERO });
        assert_eq!(write(&*pager, 100, &bytes), Err(exhausted), "{backend}");
        let mut back = vec![0u8; 20 * PAGE - 100];
        read(&*pager, 100, &mut back).unwrap();
        assert_eq!(back, bytes[..back.len()]);
        // With frames to give, the same page is served.
        let (frame, _) = pager.table[0].lock().unwrap().take().unwrap();
        pager.free.lock().unwrap().push(frame);
        pager.view.unmap(0, 1).unwrap();
        write(&*pager, 20 * PAGE, &[1]).unwrap();
        assert_eq!(write(&*pager, 64 * PAGE - 1, &[1, 2]), Err(FaultError::NotMapped));
    });
}

#[test]
fn system_calls_wait_for_pages_where_the_kernel_allows_it() {
    let Ok(backend) = Backend::start(Choice::UserfaultfdEvents) else {
        return println!("SKIPPED: no userfaultfd");
    };
    if !backend.to_string().contains("(privileged") {
        return println!("SKIPPED: {backend}");
    }
    let pager = Scattered::new(&backend, 8, 1000);
    let start = pager.view.start() as *mut u8;
    let mut zeroes = std::fs::File::open("/dev/zero").unwrap();
    for page in 0..4 {
        if page > 1 {
            store(&pager, page, u64::MAX);
            pager.fence(page);
        }
        // SAFETY: one page of the view, which nobody else uses now.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.wrapping_add(page * PAGE), 100) };
        std::io::Read::read_exact(&mut zeroes, bytes).unwrap();
        assert_eq!(load(&pager, page), 0, "page {page}");
    }
    assert_eq!(
        pager.promotions.load(Ordering::Relaxed),
        2,
        "a system call's write is a write to a fence too"
    );
}

#[test]
fn refusals_are_named() {
    assert!(Backend::start(Choice::Best).unwrap().to_string().contains('('));
    let backend = Backend::start(Choice::Signal).unwrap();
    assert!(backend.to_string().contains("asked for"));
    assert!(View::new(&backend, usize::MAX / PAGE / 4, PageSize::KIB4).unwrap_err().is_no_memory());
    assert!(View::new(&backend, usize::MAX, PageSize::KIB4).unwrap_err().is_no_memory());
}

/// Serves nothing: what is not mapped is an error, so that one sees exactly what is.
struct Bare {
    view: View,
    memory: Backing,
}

impl Pager for Bare {
    fn view(&self) -> &View {
        &self.view
    }

    fn fault(&self, _page: usize, _access: Access) -> Result<(), FaultError> {
        Err(FaultError::NotMapped)
    }
}

/// Seeded steps on a view whose runs are laid, compared with a table of what each page should show.
#[test]
fn a_laid_run_shows_what_was_mapped_and_nothing_else() {
    const PAGES: usize = 40;
    on_all(|backend| {
        let pager = Arc::new(Bare {
            view: View::new(backend, PAGES, PageSize::KIB4).unwrap(),
            memory: Backing::new(100, PageSize::KIB4).unwrap(),
        });
        attach(&pager);
        let (view, memory) = (&pager.view, &pager.memory);
        let mut model: [Option<(u64, Protection)>; PAGES] = [None; PAGES];
        // The byte that each frame begins with.
        let mut bytes = [0u8; 100];
        let mut seed = 0x5eed_u64;
        println!("seed {seed:#x} on {backend}");
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        for step in 0..4000u32 {
            let page = random(PAGES as u64) as usize;
            let count = 1 + random((PAGES - page).min(8) as u64) as usize;
            // Mostly where it would be laid, sometimes elsewhere.
            let frame = if random(4) > 0 { page as u64 + 17 } else { random(100 - 8) };
            let pages = page..page + count;
            match random(8) {
                0 => view.lay(page, count, memory, frame).unwrap(),
                1 | 2 => {
                    let protection =
                        if random(2) == 0 { Protection::ReadOnly } else { Protection::ReadWrite };
                    view.map(page, count, memory, frame, protection).unwrap();
                    pages.zip(frame..).for_each(|(page, frame)| model[page] = Some((frame, protection)));
                }
                3 => {
                    let is_shown = |frame: u64| model.iter().flatten().any(|(shown, _)| *shown == frame);
                    if (frame..frame + count as u64).any(is_shown) {
                        continue;
                    }
                    view.map_zeroed(page, count, memory, frame).unwrap();
                    for (page, frame) in pages.zip(frame..) {
                        model[page] = Some((frame, Protection::ReadWrite));
                        bytes[frame as usize] = 0;
                    }
                }
                4 => {
                    view.unmap(page, count).unwrap();
                    model[pages].fill(None);
                }
                5 => {
                    view.write_protect(page).unwrap();
                    model[page] = model[page].map(|(frame, _)| (frame, Protection::ReadOnly));
                }
                6 => {
                    bytes[frame as usize] = step as u8;
                    assert!(memory.write(frame, 0, &[step as u8]));
                }
                _ => {
                    let written = write(&*pager, page * PAGE, &[step as u8]);
                    match model[page] {
                        Some((frame, Protection::ReadWrite)) => {
                            written.unwrap();
                            bytes[frame as usize] = step as u8;
                        }
                        _ => assert_eq!(written, Err(FaultError::NotMapped), "step {step} page {page}"),
                    }
                }
            }
            for (page, should) in model.iter().enumerate() {
                assert_eq!(view.mapped(page), *should, "step {step} page {page} on {backend}");
            }
            let page = random(PAGES as u64) as usize;
            let mut byte = [0xff];
            let seen = read(&*pager, page * PAGE, &mut byte).map(|()| byte[0]);
            let should = model[page].map(|(frame, _)| bytes[frame as usize]).ok_or(FaultError::NotMapped);
            assert_eq!(seen, should, "step {step} page {page} on {backend}");
            if step % 64 == 0 {
                assert_eq!(view.mappings(), kernel_mappings(view), "step {step} on {backend}");
            }
        }
        let pages = 0..PAGES;
        for page in pages {
            let mut byte = [0xff];
            let seen = read(&*pager, page * PAGE, &mut byte).map(|()| byte[0]);
            let should = model[page].map(|(frame, _)| bytes[frame as usize]).ok_or(FaultError::NotMapped);
            assert_eq!(seen, should, "page {page} on {backend}");
        }
    });
}
