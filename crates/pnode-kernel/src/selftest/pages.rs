//! The bytes behind the frames.
#![allow(unsafe_code)]

use pnode_compress::codec::Scratch;
use pnode_compress::store::{Config, Shard, Slot, Store};
use pnode_core::sync::AtomicU64;
use pnode_core::{Features, Order, Pfn, Request};

use super::frames::Numbers;
use super::{Machine, Must, check};
use crate::kernel::Kernel;
use crate::own::Own;
use crate::report::Failure;

/// At most this many frames are filled, so that a device of any size is tested in seconds.
const FRAMES: u64 = 4096;

/// Writes a pattern of its own to each frame, then reads all of them.
pub(super) fn patterns<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    let device = machine.device(Features::NONE)?;
    let grant = device.grant().must("a grant for the owner")?;
    let mut frames = machine.list_of_device_frames(FRAMES)?;
    let (mut page, mut back) = (machine.page()?, machine.page()?);
    for slot in frames.iter_mut() {
        let frame = grant.alloc(Request::page()).must("a frame")?;
        pattern(&mut page, frame.pfn());
        check!(machine.mapping.write(frame.pfn(), &page), "a frame of the device", frame.pfn().get());
        *slot = frame.into_raw().0.get();
    }
    machine.kernel.relax();
    for pfn in frames.iter().map(|pfn| Pfn::new(*pfn)) {
        pattern(&mut page, pfn);
        check!(machine.mapping.read(pfn, &mut back), "a frame of the device", pfn.get());
        check!(*page == *back, "what was written", pfn.get());
        let frame = machine.nodes.adopt(pfn, Order::ZERO).must("a token for a frame")?;
        machine.nodes.free(frame).must("the frame to be taken back")?;
    }
    let outside = machine.mapping.range().end();
    check!(!machine.mapping.write(outside, &page), "no mapping past the end", outside.get());
    drop(grant);
    machine.take_down(&device)
}

/// Every word of a frame says whose it is and where.
fn pattern(page: &mut [u8], pfn: Pfn) {
    for (index, word) in page.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(pfn.get() << 16 ^ index as u64).to_le_bytes());
    }
}

/// At most this many pages are stored; on a small device, half as many as it has frames.
const STORED: u32 = 256;

/// Pages through the store of compressed pages, with the objects in frames of the node.
pub(super) fn compressed<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    let device = machine.device(Features::NONE)?;
    let grant = device.grant().must("a grant for the owner")?;
    let no_memory = "memory for a store";
    let frames = u32::try_from(machine.mapping.range().frames()).unwrap_or(u32::MAX);
    let stored = STORED.min(frames / 2);
    let config = Config::new(stored, stored).page(K::PAGE);
    let words = config.words().must("a store of this size")?;
    let mut words = Own::slice(machine.kernel, words, |_| AtomicU64::new(0)).must(no_memory)?;
    let mut shards = Own::slice(machine.kernel, 1, |_| Shard::<K::Lock>::new()).must(no_memory)?;
    let mut scratch = Own::slice(machine.kernel, 1, |_| Scratch::new()).must(no_memory)?;
    let mut buffer = machine.page()?;
    let (mut page, mut back) = (machine.page()?, machine.page()?);

    // SAFETY: the store is gone before this function returns, nobody else has a grant of this machine's node, and this
    // function names no frame of the mapping.
    let memory = unsafe { machine.mapping.frames_of(grant) };
    let store = Store::new(config, memory, &mut words, &mut shards).must("a store on the node")?;
    let scratch = scratch.first_mut().must(no_memory)?;
    let mut worker = store.worker(0, scratch, &mut buffer).must("a worker")?;
    for number in 0..stored {
        contents(&mut page, number);
        worker.store(Slot::new(number), &page).must("a page to be stored")?;
    }
    let stats = store.stats();
    check!(
        stats.original_bytes == u64::from(stored) * K::PAGE.bytes() as u64,
        "every page",
        stats.original_bytes
    );
    check!(stats.compressed_bytes < stats.original_bytes / 2, "pages that compress", stats.compressed_bytes);
    check!(stats.pool_bytes < stats.original_bytes, "fewer frames than pages", stats.pool_bytes);
    let used = device.used_frames() * K::PAGE.bytes() as u64;
    check!(used == stats.pool_bytes, "the pool to be frames of the node", used);
    for number in (0..stored).rev() {
        contents(&mut page, number);
        back.fill(0xa5);
        worker.load(Slot::new(number), &mut back).must("a page to be loaded")?;
        check!(*page == *back, "the page that was stored", number);
    }
    store.audit().must("a consistent store")?;
    drop(store.dismantle());
    machine.take_down(&device)
}

/// Pages of three kinds: one word repeated, pointers with little in them, and numbers that do not compress.
fn contents(page: &mut [u8], number: u32) {
    let mut numbers = Numbers(u64::from(number) << 8 | 1);
    for (index, word) in page.chunks_exact_mut(8).enumerate() {
        let value = match number % 8 {
            0 => numbers.next(),
            1 | 2 => u64::from(number),
            _ => 0xffff_8880_0000_0000 | u64::from(number) << 12 | (index as u64 & 0x38),
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
}
