//! A program to record: it lives on a source of frames as a machine does, with every chance taken from a seed.

use pnode::core::{FrameSource, MigrateType, Order, Pfn};

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

/// The blocks that the program has.
#[derive(Default)]
struct Blocks {
    pages: Vec<(Pfn, Order)>,
    kernel: Vec<(Pfn, Order)>,
    huge: Vec<(Pfn, Order)>,
    frames: u64,
}

/// Fills the memory with pages and the kernel's own small blocks, lets them come and go, then asks for huge pages
/// beside them, drops most of the pages as a closed program does, and asks again. At the end everything is given back.
pub(crate) fn run(source: &impl FrameSource, frames: u64, steps: usize, seed: u64) -> Result<(), String> {
    let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
    let mut blocks = Blocks::default();
    for step in 0..steps {
        let phase = step * 10 / steps.max(1);
        // How full the memory is to be, in percent, phase by phase.
        let target = [35, 70, 90, 92, 92, 88, 55, 60, 85, 90][phase];
        let wants_more = blocks.frames * 100 < frames * target;
        match random.below(100) {
            // Long-lived blocks of the kernel's among short-lived pages are what breaks memory up.
            0..=5 => blocks.take(source, MigrateType::Unmovable, &[0, 0, 0, 1, 1, 2, 3], &mut random)?,
            6..=8 if phase >= 3 => blocks.take(source, MigrateType::Huge, &[9], &mut random)?,
            9..=10 => blocks.give(source, MigrateType::Huge, &mut random)?,
            11..=14 if !wants_more => blocks.give(source, MigrateType::Unmovable, &mut random)?,
            n if wants_more || n % 2 == 0 => {
                blocks.take(source, MigrateType::Movable, &[0, 0, 0, 0, 0, 2, 4], &mut random)?
            }
            _ => blocks.give(source, MigrateType::Movable, &mut random)?,
        }
        if blocks.frames * 100 > frames * (target + 3) {
            for _ in 0..4 {
                blocks.give(source, MigrateType::Movable, &mut random)?;
            }
        }
    }
    for migrate in MigrateType::ALL {
        while !blocks.of(migrate).is_empty() {
            blocks.give(source, migrate, &mut random)?;
        }
    }
    Ok(())
}

impl Blocks {
    fn of(&mut self, migrate: MigrateType) -> &mut Vec<(Pfn, Order)> {
        match migrate {
            MigrateType::Unmovable => &mut self.kernel,
            MigrateType::Movable => &mut self.pages,
            MigrateType::Huge => &mut self.huge,
        }
    }

    fn take(
        &mut self,
        source: &impl FrameSource,
        migrate: MigrateType,
        orders: &[u8],
        random: &mut Random,
    ) -> Result<(), String> {
        let order = Order::new(orders[random.below(orders.len())]).map_err(|error| error.to_string())?;
        if let Ok(pfn) = source.alloc(order, migrate) {
            self.frames += order.frames();
            self.of(migrate).push((pfn, order));
        }
        Ok(())
    }

    fn give(
        &mut self,
        source: &impl FrameSource,
        migrate: MigrateType,
        random: &mut Random,
    ) -> Result<(), String> {
        let blocks = self.of(migrate);
        if blocks.is_empty() {
            return Ok(());
        }
        let (pfn, order) = blocks.swap_remove(random.below(blocks.len()));
        self.frames -= order.frames();
        source.free(pfn, order).map_err(|error| error.to_string())
    }
}
