//! Frames come and go: every order, all of them, and none twice.

use pnode_core::{Features, FrameRange, FrameSource, FrameZone, FreeError, MigrateType, Order, Pfn, Request};

use super::{Machine, Must, check};
use crate::cpus::CpuZone;
use crate::kernel::Kernel;
use crate::own::Own;
use crate::report::Failure;

/// Who holds which frame: the oracle that says whether two blocks overlap.
struct Held<K: Kernel> {
    range: FrameRange,
    bits: Own<[u64], K>,
}

impl<K: Kernel> Held<K> {
    fn new(kernel: K, range: FrameRange) -> Result<Self, Failure> {
        let words =
            usize::try_from(range.frames().div_ceil(64)).must("a range that fits the address space")?;
        Ok(Self { range, bits: Own::slice(kernel, words, |_| 0).must("memory for the oracle")? })
    }

    /// Marks the frames of a block; fails if it lies outside, is misaligned, or if somebody holds one of them.
    fn take(&mut self, pfn: Pfn, order: Order) -> Result<(), Failure> {
        let block = FrameRange::block(pfn, order).must("a block that exists")?;
        check!(self.range.contains_range(block), "a block of the device", pfn.get());
        check!(pfn.is_aligned(order), "an aligned block", pfn.get());
        for frame in block.iter() {
            let (word, bit) = self.slot(frame)?;
            check!(*word & bit == 0, "a frame that nobody holds", frame.get());
            *word |= bit;
        }
        Ok(())
    }

    fn give(&mut self, pfn: Pfn, order: Order) -> Result<(), Failure> {
        for frame in FrameRange::block(pfn, order).must("a block that exists")?.iter() {
            let (word, bit) = self.slot(frame)?;
            *word &= !bit;
        }
        Ok(())
    }

    fn slot(&mut self, frame: Pfn) -> Result<(&mut u64, u64), Failure> {
        let index = frame.checked_sub(self.range.start()).must("a frame of the device")?;
        let word = self.bits.get_mut((index / 64) as usize).must("a frame of the device")?;
        Ok((word, 1 << (index % 64)))
    }
}

/// How many aligned blocks of `order` a range has.
fn blocks_in(range: FrameRange, order: Order) -> u64 {
    let first = range.start().align_up(order).and_then(|pfn| range.end().checked_sub(pfn));
    first.map_or(0, |frames| frames / order.frames())
}

pub(super) fn every_order<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    let device = machine.device(Features::NONE)?;
    let grant = device.grant().must("a grant for the owner")?;
    let range = machine.mapping.range();
    let mut blocks = machine.list_of_device_frames(u64::MAX)?;
    for order in Order::all() {
        let mut held = Held::new(machine.kernel, range)?;
        let mut count = 0;
        while let Ok(frame) = grant.alloc(Request::order(order).migrate(MigrateType::Unmovable)) {
            held.take(frame.pfn(), order)?;
            *blocks.get_mut(count).must("no more blocks than frames")? = frame.into_raw().0.get();
            count += 1;
        }
        check!(count as u64 == blocks_in(range, order), "every block of the order", count);
        for pfn in blocks.iter().take(count) {
            let frame = machine.nodes.adopt(Pfn::new(*pfn), order).must("a token for a block")?;
            machine.nodes.free(frame).must("the block to be taken back")?;
        }
        machine.zone.drain();
        check!(
            machine.zone.free_frames() == range.frames(),
            "every frame to be free",
            machine.zone.free_frames()
        );
        machine.kernel.relax();
    }
    drop(grant);
    machine.take_down(&device)
}

/// A small generator of numbers (xorshift64, Marsaglia 2003), so that a failure can be had again.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

pub(super) fn mixed_orders<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    const LIVE: usize = 256;
    /// On a small device, four for each frame.
    const ROUNDS: u64 = 20_000;
    let rounds = ROUNDS.min(machine.mapping.range().frames().saturating_mul(4)) as usize;
    let device = machine.device(Features::NONE)?;
    let grant = device.grant().must("a grant for the owner")?;
    let mut held = Held::new(machine.kernel, machine.mapping.range())?;
    // A block in each slot, or none: the frame number and the order.
    let mut live =
        Own::slice(machine.kernel, LIVE, |_| None::<(Pfn, Order)>).must("memory for a list of blocks")?;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds + LIVE {
        // The last rounds give everything back.
        let slot = if round < rounds { numbers.next() as usize % LIVE } else { round - rounds };
        let slot = live.get_mut(slot).must("a slot")?;
        if let Some((pfn, order)) = slot.take() {
            let frame = machine.nodes.adopt(pfn, order).must("a token for a block")?;
            machine.nodes.free(frame).must("the block to be taken back")?;
            held.give(pfn, order)?;
        } else if round < rounds {
            let order = Order::new((numbers.next() % 11) as u8).must("a small order")?;
            let migrate = MigrateType::ALL[numbers.next() as usize % 3];
            if let Ok(frame) = grant.alloc(Request::order(order).migrate(migrate)) {
                held.take(frame.pfn(), order)?;
                *slot = Some(frame.into_raw());
            }
        }
    }
    drop(grant);
    machine.take_down(&device)
}

pub(super) fn bad_frees<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    let device = machine.device(Features::NONE)?;
    let grant = device.grant().must("a grant for the owner")?;
    let order = Order::new(2).must("order 2")?;
    let (pfn, _) = grant.alloc(Request::order(order)).must("a block of four frames")?.into_raw();
    let used = machine.zone.used_frames();
    let free = |pfn: Pfn, order: Order| machine.zone.free(pfn, order);
    let inside = pfn.checked_add(1).must("the next frame")?;
    check!(
        matches!(free(inside, Order::ZERO), Err(FreeError::WrongOrder { .. })),
        "WrongOrder inside",
        inside.get()
    );
    check!(matches!(free(inside, order), Err(FreeError::Misaligned { .. })), "Misaligned", inside.get());
    check!(matches!(free(pfn, Order::ZERO), Err(FreeError::WrongOrder { .. })), "WrongOrder", pfn.get());
    let end = machine.mapping.range().end();
    check!(matches!(free(end, Order::ZERO), Err(FreeError::OutOfZone { .. })), "OutOfZone", end.get());
    check!(machine.zone.used_frames() == used, "nothing to have changed", machine.zone.used_frames());
    free(pfn, order).must("the block to be taken back")?;
    let again = free(pfn, order);
    check!(
        matches!(again, Err(FreeError::NotAllocated { .. } | FreeError::Cached { .. })),
        "NotAllocated, or Cached by this CPU",
        pfn.get()
    );
    let token = machine.nodes.adopt(pfn, order).must("a token for a frame of the device")?;
    check!(machine.nodes.free(token).is_err(), "the registry to refuse a double free", pfn.get());
    check!(machine.zone.used_frames() + order.frames() == used, "one block less", machine.zone.used_frames());
    drop(grant);
    machine.take_down(&device)
}

pub(super) fn audit<K: Kernel>(machine: &Machine<'_, '_, K>) -> Result<(), Failure> {
    machine.zone.audit().must("a consistent zone")
}

/// Nothing is left of a case: every frame of both zones is free, and both are consistent.
pub(super) fn nothing_left<'m, K: Kernel>(
    device: &CpuZone<'m, K>,
    dram: &CpuZone<'m, K>,
) -> Result<(), Failure> {
    for zone in [device, dram] {
        check!(zone.used_frames() == 0, "every frame to have come back", zone.used_frames());
        zone.audit().must("a consistent zone")?;
    }
    Ok(())
}
