//! Stores of compressed pages through the C interface, on a fake kernel.

mod fake;

use core::ptr;

use fake::{CPUS, Device, Fake};
use pnode_kernel::Errno;

pnode_kernel::export_c_interface!(Fake);

const EBUSY: i32 = Errno::EBUSY.to_return();
const EFAULT: i32 = Errno::EFAULT.to_return();
const EINVAL: i32 = Errno::EINVAL.to_return();
const ENODATA: i32 = Errno::ENODATA.to_return();
const ENOMEM: i32 = Errno::ENOMEM.to_return();
const ENOSPC: i32 = Errno::ENOSPC.to_return();
const EUCLEAN: i32 = Errno::EUCLEAN.to_return();

/// A call whose arguments are what the header asks for, or null.
macro_rules! c {
    ($function:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: the handles are live and the pointers valid or null, as the test that makes the call arranges.
        unsafe { $function($($argument),*) }
    };
}

/// A space with one node on a device.
fn node(device: &Device) -> (*mut Space, *mut Node) {
    let (mut space, mut node) = (ptr::null_mut(), ptr::null_mut());
    let frames = device.range();
    let range = Range {
        first_pfn: frames.start().get(),
        frames: frames.frames(),
        mapping: device.base().as_ptr().cast::<c_void>(),
    };
    assert_eq!(c!(pnode_space_create(2, &mut space)), 0);
    assert_eq!(c!(pnode_node_register(space, 1, 0, 0, &range, &mut node)), 0);
    (space, node)
}

fn take_down(space: *mut Space, node: *mut Node) {
    assert_eq!(c!(pnode_audit(node)), 0);
    assert_eq!(c!(pnode_node_unregister(node)), 0);
    assert_eq!(c!(pnode_space_destroy(space)), 0);
    assert_eq!(Fake::live(), 0, "memory was left");
}

fn store(node: *mut Node, pages: u32, frames: u64, checksums: u32) -> Result<*mut PageStore, i32> {
    let mut store = ptr::null_mut();
    match c!(pnode_store_create(node, pages, frames, checksums, &mut store)) {
        0 => Ok(store),
        error => {
            assert!(store.is_null(), "a failed call wrote a result");
            Err(error)
        }
    }
}

fn stats(store: *mut PageStore) -> StoreStats {
    let mut stats = StoreStats::default();
    assert_eq!(c!(pnode_store_stats(store, &mut stats)), 0);
    stats
}

/// A page of numbers of which about `entropy` in 256 are random; none for a page of one word.
fn page(seed: u64, entropy: u64) -> [u8; 4096] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut page = [0; 4096];
    for word in page.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let value = if state >> 40 & 0xff < entropy { state } else { seed };
        word.copy_from_slice(&value.to_le_bytes());
    }
    page
}

fn load(store: *mut PageStore, slot: u32) -> Result<[u8; 4096], i32> {
    let mut back = [0xa5; 4096];
    match c!(pnode_store_load(store, slot, back.as_mut_ptr())) {
        0 => Ok(back),
        error => Err(error),
    }
}

#[test]
fn pages_come_back_from_every_cpu() {
    let device = Device::new(0x10_0000, 1024);
    let (space, node) = node(&device);
    let store = store(node, 300, 512, 1).unwrap();
    for round in 0..3 {
        for slot in 0..300 {
            Fake::run_on(slot as usize % (CPUS + 1));
            let page = page(u64::from(slot + 1000 * round), u64::from(slot % 4 * 60));
            assert_eq!(c!(pnode_store_save(store, slot, page.as_ptr())), 0);
        }
        for slot in 0..300 {
            Fake::run_on((slot as usize + 1) % CPUS);
            let page = page(u64::from(slot + 1000 * round), u64::from(slot % 4 * 60));
            assert!(load(store, slot) == Ok(page), "slot {slot}");
        }
    }
    let now = stats(store);
    assert_eq!((now.pages, now.same_pages, now.original_bytes), (300, 75, 300 * 4096));
    assert!(now.compressed_bytes > 0 && now.compressed_bytes < now.pool_bytes);
    let mut of_node = Stats::default();
    assert_eq!(c!(pnode_stats(node, &mut of_node)), 0);
    assert_eq!(of_node.used_frames * 4096, now.pool_bytes, "the pool is frames of the node");

    // Half of the pages leave holes, which compaction turns into frames for others.
    for slot in (0..300).step_by(2) {
        assert_eq!(c!(pnode_store_remove(store, slot)), 0);
        assert_eq!(c!(pnode_store_remove(store, slot)), ENODATA);
        assert_eq!(load(store, slot), Err(ENODATA));
    }
    let mut freed = 0;
    for _ in 0..100 {
        let mut more = 0;
        assert_eq!(c!(pnode_store_compact(store, 100_000, &mut more)), 0);
        freed += more;
    }
    assert!(freed > 0 && stats(store).pool_bytes < now.pool_bytes);
    for slot in (1..300).step_by(2) {
        assert!(
            load(store, slot) == Ok(page(u64::from(slot + 2000), u64::from(slot % 4 * 60))),
            "slot {slot}"
        );
    }
    assert_eq!(c!(pnode_node_unregister(node)), EBUSY, "a store keeps the node");
    c!(pnode_store_destroy(store));
    take_down(space, node);
}

#[test]
fn a_full_store_says_so_and_loses_nothing() {
    let device = Device::new(0x10_0000, 256);
    let (space, node) = node(&device);
    // Full of its own limit, then full because the node is.
    for frames in [64, 4096] {
        let store = store(node, 1000, frames, 0).unwrap();
        let mut held = 0;
        while c!(pnode_store_save(store, held, page(u64::from(held), 256).as_ptr())) == 0 {
            held += 1;
        }
        assert_eq!(u64::from(held), frames.min(256), "pages that do not compress fill the frames");
        let last = page(u64::from(held), 256);
        assert_eq!(c!(pnode_store_save(store, held, last.as_ptr())), ENOSPC);
        assert_eq!(c!(pnode_store_save(store, 0, last.as_ptr())), ENOSPC, "and the old page stays");
        for slot in 0..held {
            assert!(load(store, slot) == Ok(page(u64::from(slot), 256)), "slot {slot}");
        }
        assert_eq!(load(store, held), Err(ENODATA));
        assert_eq!(c!(pnode_store_remove(store, 3)), 0);
        assert_eq!(c!(pnode_store_save(store, held, last.as_ptr())), 0, "room was made");
        c!(pnode_store_destroy(store));
    }
    take_down(space, node);
}

#[test]
fn damage_is_noticed_where_checksums_are_kept() {
    let device = Device::new(0x10_0000, 256);
    let (space, node) = node(&device);
    for (checksums, noticed) in [(1, true), (0, false)] {
        let store = store(node, 8, 64, checksums).unwrap();
        let page = page(1, 256);
        assert_eq!(c!(pnode_store_save(store, 0, page.as_ptr())), 0);
        let bytes = device.range().frames() as usize * 4096;
        // SAFETY: the device's pages are this many bytes, and no store is working on them.
        let memory = unsafe { core::slice::from_raw_parts_mut(device.base().as_ptr(), bytes) };
        let at = memory
            .windows(64)
            .position(|bytes| *bytes == page[2000..2064])
            .expect("a raw page in the device");
        memory[at] ^= 4;
        assert_eq!(load(store, 0).err(), noticed.then_some(EUCLEAN));
        c!(pnode_store_destroy(store));
    }
    take_down(space, node);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let device = Device::new(0x10_0000, 256);
    let (space, node) = node(&device);
    for (pages, frames, checksums) in [(0, 64, 0), (8, 0, 0), (8, 3, 0), (8, 64, 2), (8, u64::MAX, 0)] {
        assert_eq!(store(node, pages, frames, checksums), Err(EINVAL), "{pages} {frames} {checksums}");
    }
    assert_eq!(c!(pnode_store_create(node, 8, 64, 0, ptr::null_mut())), EFAULT);
    assert_eq!(store(ptr::null_mut(), 8, 64, 0), Err(EFAULT));
    let store = store(node, 8, 64, 0).unwrap();
    let mut page = page(1, 9);
    for slot in [8, u32::MAX] {
        assert_eq!(c!(pnode_store_save(store, slot, page.as_ptr())), EINVAL);
        assert_eq!(c!(pnode_store_load(store, slot, page.as_mut_ptr())), EINVAL);
        assert_eq!(c!(pnode_store_remove(store, slot)), EINVAL);
    }
    assert_eq!(c!(pnode_store_save(store, 0, ptr::null())), EFAULT);
    assert_eq!(c!(pnode_store_load(store, 0, ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_store_save(ptr::null_mut(), 0, page.as_ptr())), EFAULT);
    assert_eq!(c!(pnode_store_stats(store, ptr::null_mut())), EFAULT);
    assert_eq!(c!(pnode_store_compact(store, 1, ptr::null_mut())), EFAULT);
    c!(pnode_store_destroy(store));
    c!(pnode_store_destroy(ptr::null_mut()));
    take_down(space, node);
}

#[test]
fn each_failed_allocation_is_survived() {
    let device = Device::new(0x10_0000, 256);
    let (space, node) = node(&device);
    let live = Fake::live();
    for nth in 0.. {
        Fake::fail_at(Some(nth));
        let made = store(node, 8, 64, 1);
        let failed = Fake::has_failed();
        Fake::fail_at(None);
        match made {
            Ok(store) => {
                assert!(!failed);
                c!(pnode_store_destroy(store));
                break;
            }
            Err(error) => assert_eq!((error, failed), (ENOMEM, true)),
        }
        assert_eq!(Fake::live(), live, "memory was left when allocation {nth} failed");
    }
    take_down(space, node);
}

/// A page of text of its own, which the entropy codec makes a good deal smaller than the fast one does.
fn text(seed: u64) -> [u8; 4096] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut page = [0; 4096];
    for byte in &mut page {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Eight letters, some more often than others.
        *byte = b"eeeettao"[(state >> 33) as usize % 8] + (state >> 50 & 1) as u8;
    }
    page
}

#[test]
fn a_store_that_fills_up_compresses_again_and_holds_more() {
    let device = Device::new(0x10_0000, 1024);
    let (space, node) = node(&device);
    let (roomy, tight) = (store(node, 2000, 768, 1).unwrap(), store(node, 2000, 128, 1).unwrap());
    for slot in 0..128 {
        assert_eq!(c!(pnode_store_save(roomy, slot, text(u64::from(slot)).as_ptr())), 0);
    }
    let fast = stats(roomy);
    assert_eq!(fast.recompressed_pages, 0, "a store with room does nothing of the kind");

    let mut held = 0;
    while held < 2000 && c!(pnode_store_save(tight, held, text(u64::from(held)).as_ptr())) == 0 {
        held += 1;
    }
    let full = stats(tight);
    let fit = 128 * 4096 * fast.pages / fast.compressed_bytes;
    assert!(full.recompressed_pages > 0 && full.recompressed_pages <= full.pages, "{full:?}");
    assert!(u64::from(held) > fit * 6 / 5, "{held} pages are held, {fit} would be as they come");
    // It is full, and says so again without another look at every page.
    for _ in 0..3 {
        assert_eq!(c!(pnode_store_save(tight, held, text(u64::from(held)).as_ptr())), ENOSPC);
    }
    for slot in 0..held {
        assert!(load(tight, slot) == Ok(text(u64::from(slot))), "slot {slot}");
    }
    c!(pnode_store_destroy(roomy));
    c!(pnode_store_destroy(tight));
    take_down(space, node);
}

#[test]
fn holes_that_nothing_fits_are_closed_as_a_store_grows() {
    const SMALL: u32 = 4000;
    const LARGE: u32 = 1500;
    let device = Device::new(0x10_0000, 8192);
    let (space, node) = node(&device);
    let save = |store, slot: u32, entropy| {
        assert_eq!(c!(pnode_store_save(store, slot, page(u64::from(slot), entropy).as_ptr())), 0);
    };
    let (churned, fresh) =
        (store(node, SMALL + LARGE, 4096, 0).unwrap(), store(node, SMALL + LARGE, 4096, 0).unwrap());
    (0..SMALL).for_each(|slot| save(churned, slot, 48));
    for slot in (0..SMALL).filter(|slot| slot % 2 != 0) {
        assert_eq!(c!(pnode_store_remove(churned, slot)), 0);
    }
    (0..SMALL).step_by(2).for_each(|slot| save(fresh, slot, 48));
    for slot in SMALL..SMALL + LARGE {
        save(churned, slot, 200);
        save(fresh, slot, 200);
    }
    let (pool, least) = (stats(churned).pool_bytes, stats(fresh).pool_bytes);
    assert!(pool < least * 9 / 8, "{pool} bytes, {least} when nothing was ever removed");
    for slot in (0..SMALL).step_by(2).chain(SMALL..SMALL + LARGE) {
        let entropy = if slot < SMALL { 48 } else { 200 };
        assert!(load(churned, slot) == Ok(page(u64::from(slot), entropy)), "slot {slot}");
    }
    c!(pnode_store_destroy(churned));
    c!(pnode_store_destroy(fresh));
    take_down(space, node);
}
