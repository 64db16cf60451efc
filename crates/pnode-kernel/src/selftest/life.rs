//! A node's life: what keeps it, how it is evacuated, and that its id can live again.

use pnode_core::{AllocError, Denied, Features, OfflineError, Order, Pfn, Private, Request, UnregisterError};

use super::frames::Numbers;
use super::{Machine, Must, check};
use crate::kernel::Kernel;
use crate::own::Own;
use crate::report::Failure;

pub(super) fn holders_keep_the_node<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    let device = machine.device(Features::NONE)?;
    let grant = device.grant().must("a grant for the owner")?;
    let frame = grant.alloc(Request::page()).must("a frame")?;
    check!(matches!(device.unregister(), Err(UnregisterError::HasMemory { .. })), "HasMemory", 0);
    device.drain().must("the device to drain")?;
    check!(matches!(grant.alloc(Request::page()), Err(AllocError::Draining { .. })), "Draining", 0);
    check!(matches!(device.grant(), Err(Denied::Draining { .. })), "no grants of a draining node", 0);
    let range = machine.mapping.range();
    check!(matches!(device.offline(range), Err(OfflineError::StillUsed { frames: 1, .. })), "StillUsed", 1);
    machine.nodes.free(frame).must("the frame to be taken back")?;
    device.offline(range).must("the memory to go offline")?;
    check!(
        matches!(device.unregister(), Err(UnregisterError::Referenced { references: 1, .. })),
        "Referenced",
        1
    );
    drop(grant);
    device.unregister().must("the device to be given up")
}

/// Fills frames, closes the node, moves every byte to ordinary memory of the kernel, and gives the node up.
pub(super) fn evacuation<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    const PAGES: u64 = 64;
    let device = machine.device(Features::NONE)?;
    let grant = device.grant().must("a grant for the owner")?;
    let mut frames = machine.list_of_device_frames(PAGES)?;
    let bytes = K::PAGE.bytes();
    let mut page = machine.page()?;
    let mut refuge =
        Own::slice(machine.kernel, bytes * frames.len(), |_| 0u8).must("memory to evacuate to")?;
    for (index, slot) in frames.iter_mut().enumerate() {
        let frame = grant.alloc(Request::page()).must("a frame")?;
        scribble(&mut page, index as u64);
        check!(machine.mapping.write(frame.pfn(), &page), "a frame of the device", frame.pfn().get());
        *slot = frame.into_raw().0.get();
    }
    drop(grant);

    device.drain().must("the device to drain")?;
    for (refuge, pfn) in refuge.chunks_exact_mut(bytes).zip(frames.iter().map(|pfn| Pfn::new(*pfn))) {
        check!(machine.mapping.read(pfn, refuge), "a frame of the device", pfn.get());
        let frame = machine.nodes.adopt(pfn, Order::ZERO).must("a token for a frame")?;
        machine.nodes.free(frame).must("an evacuated frame to be taken back")?;
        // What comes after the owner must not matter to what was moved away.
        check!(machine.mapping.fill(pfn, 0xa5), "a frame of the device", pfn.get());
    }
    device.offline(machine.mapping.range()).must("the memory to go offline")?;
    device.unregister().must("the device to be given up")?;

    for (index, refuge) in refuge.chunks_exact(bytes).enumerate() {
        scribble(&mut page, index as u64);
        check!(*refuge == *page, "every byte of an evacuated page", index);
    }
    Ok(())
}

/// Bytes that differ from page to page.
fn scribble(page: &mut [u8], seed: u64) {
    let mut numbers = Numbers(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for word in page.chunks_exact_mut(8) {
        word.copy_from_slice(&numbers.next().to_le_bytes());
    }
}

pub(super) fn another_life<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    let first = machine.device(Features::NONE)?;
    machine.take_down(&first)?;
    let second = machine.device(Features::RECLAIM)?;
    check!(first.id() == second.id(), "the same id", second.id().get());
    check!(matches!(first.grant(), Err(Denied::Stale { .. })), "a stale owner without a grant", 0);
    check!(first.online(machine.zone).is_err(), "a stale owner without memory", 0);
    check!(first.drain().is_err(), "a stale owner that drains nothing", 0);
    check!(matches!(first.unregister(), Err(UnregisterError::Stale(_))), "a stale owner", 0);
    let claim = Private::class(pnode_core::MemoryClass::DEVICE_BUFFER);
    check!(second.join(claim, Features::RECLAIM).is_ok(), "the owner to join with the same claim", 0);
    check!(second.join(claim, Features::NONE).is_err(), "another claim to be refused", 0);
    machine.take_down(&second)
}
