//! Pages that move from slot to slot: nothing is copied, nothing is lost, and a move that fails changes nothing.

#[path = "support/lent.rs"]
mod lent;
#[path = "support/synth.rs"]
mod synth;

use lent::Lent;
use pnode_compress::codec::Scratch;
use pnode_compress::store::{Config, Deduplication, LoadError, MoveError, Slot, WriteBack};
use synth::Mix;

const PAGE: usize = 4096;

/// A page of each kind that an entry can be: a word, a word that needs an object, an object, a raw page, a shared object.
fn kinds() -> Vec<Vec<u8>> {
    let word = 0x8123_4567_89ab_cdef_u64.to_ne_bytes().repeat(PAGE / 8);
    let shared = synth::corpus("ptrs", 1);
    vec![vec![7; PAGE], word, synth::corpus("json", 1), synth::corpus("random", 1), shared.clone(), shared]
}

#[test]
fn a_page_of_any_kind_goes_where_there_is_none() {
    let config = Config::new(8, 4).shared(2);
    let mut lent = Lent::new(config, 16, 1);
    let store = lent.store(config);
    let (mut scratch, mut buffer, mut back) = (Scratch::new(), [0; PAGE], [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    let pages = kinds();
    for (slot, page) in pages.iter().enumerate() {
        worker.store(Slot::new(slot as u32), page).unwrap();
    }
    let mut index = [0; 32];
    assert_eq!(store.deduplicate(&mut Deduplication::new(&mut index), usize::MAX).merged, 1);
    let before = store.stats();
    let (free, last, beyond) = (Slot::new(6), Slot::new(7), Slot::new(8));
    for (from, page) in pages.iter().enumerate() {
        let from = Slot::new(from as u32);
        store.move_page(from, free).unwrap();
        store.audit().unwrap();
        assert_eq!(store.stats(), before, "a move is nothing to count");
        assert_eq!(worker.load(from, &mut back), Err(LoadError::NotStored { slot: from }));
        worker.load(free, &mut back).unwrap();
        assert!(*page == back, "{from:?}");
        assert_eq!(store.move_page(from, last), Err(MoveError::NotStored { slot: from }));
        store.move_page(free, free).unwrap();
        store.move_page(free, from).unwrap();
        let other = Slot::new((from.get() + 1) % 6);
        assert_eq!(store.move_page(from, other), Err(MoveError::Occupied { slot: other }));
        assert_eq!(store.move_page(from, beyond), Err(MoveError::NoSlot { slot: beyond }));
        assert_eq!(store.move_page(beyond, from), Err(MoveError::NoSlot { slot: beyond }));
    }
    assert_eq!(store.move_page(free, free), Err(MoveError::NotStored { slot: free }));
    // A page that is being read stays.
    let swept = worker.write_back(2..3, 0, |slot, _, _| {
        assert_eq!(store.move_page(slot, free), Err(MoveError::Busy { slot }));
        WriteBack::Keep
    });
    assert_eq!(swept.tried, 1);
    for (slot, page) in pages.iter().enumerate() {
        worker.load(Slot::new(slot as u32), &mut back).unwrap();
        assert!(*page == back, "{slot}");
    }
    store.audit().unwrap();
    let memory = store.dismantle();
    assert_eq!(memory.free_frames(), memory.frames());
}

/// Threads that move pages about, more pages than slots are free, while others read: each page is there in the end, once.
#[test]
fn threads_that_move_pages_lose_none() {
    const SLOTS: u32 = 12;
    const PAGES: u32 = 9;
    let config = Config::new(SLOTS, 8).shared(4);
    let mut lent = Lent::new(config, 32, 1);
    let store = lent.store(config);
    let stamped = |stamp: u32| -> Vec<u8> {
        // A word, an object, a raw page.
        let mut page =
            [vec![0; PAGE], synth::corpus("slab", 1), synth::corpus("random", 1)][stamp as usize % 3].clone();
        page.chunks_exact_mut(8).for_each(|word| word[0] = stamp as u8);
        page
    };
    let pages: Vec<_> = (0..PAGES).map(stamped).collect();
    let (mut scratch, mut buffer) = (Scratch::new(), [0; PAGE]);
    let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
    for (slot, page) in pages.iter().enumerate() {
        worker.store(Slot::new(slot as u32), page).unwrap();
    }
    let rounds = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (store, pages) = (&store, &pages);
            scope.spawn(move || {
                let mut mix = Mix::new(seed + 1);
                let (mut scratch, mut buffer, mut back) = (Box::new(Scratch::new()), [0; PAGE], [0; PAGE]);
                let mut worker = store.worker(0, &mut scratch, &mut buffer).unwrap();
                for _ in 0..rounds {
                    let mut any = || Slot::new(mix.below(SLOTS.into()) as u32);
                    let (from, to, read) = (any(), any(), any());
                    let moved = store.move_page(from, to);
                    assert!(!matches!(moved, Err(MoveError::NoSlot { .. })), "{moved:?}");
                    if worker.load(read, &mut back).is_ok() {
                        assert!(
                            pages[usize::from(back[0])] == back,
                            "{read:?} holds another page, seed {seed}"
                        );
                    }
                }
            });
        }
    });
    store.audit().unwrap();
    let mut back = [0; PAGE];
    let mut found: Vec<u8> = (0..SLOTS)
        .filter_map(|slot| worker.load(Slot::new(slot), &mut back).ok().map(|()| back[0]))
        .collect();
    found.sort_unstable();
    assert_eq!(found, (0..PAGES as u8).collect::<Vec<_>>());
}
