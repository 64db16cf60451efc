//! pnode-buddy: a zone on metadata of this program's stack, every frame of it handed out and taken back.

use pnode_buddy::{Geometry, Line, Metadata, Zone};
use pnode_core::{FrameRange, FreeError, MigrateType, Order, Pfn};

use crate::say;

/// An odd range, so that no edge of it is aligned.
const RANGE: (u64, u64) = (0x1_2345, 777);
const LINES: usize = 64;

pub fn run() -> Result<(), &'static str> {
    let range = FrameRange::new(Pfn::new(RANGE.0), RANGE.1).map_err(|_| "no range")?;
    let needed = Geometry::new(range).map_err(|_| "no geometry")?.lines();
    let mut lines = [Line::ZERO; LINES];
    let lines = lines.get_mut(..needed).ok_or("the zone needs more metadata than there is")?;
    let zone = Zone::new(range, Metadata::zeroed(lines)).map_err(|_| "no zone")?;

    // The largest blocks first, until single frames are left: together they are the whole range.
    let mut blocks = [(Pfn::new(0), Order::ZERO); 64];
    let mut count = 0;
    for order in Order::all().rev() {
        while let Ok(pfn) = zone.alloc(order, MigrateType::Movable) {
            *blocks.get_mut(count).ok_or("more blocks than can be")? = (pfn, order);
            count += 1;
        }
    }
    let frames: u64 = blocks.iter().take(count).map(|(_, order)| order.frames()).sum();
    if frames != range.frames() || zone.free_frames() != 0 {
        return Err("the blocks are not the whole range");
    }
    say!("buddy: {frames} frames of {range:?} in {count} blocks, on {needed} lines of metadata");

    for (pfn, order) in blocks.into_iter().take(count) {
        zone.free(pfn, order).map_err(|_| "a block was not taken back")?;
        match zone.free(pfn, order) {
            Err(FreeError::NotAllocated { .. }) => {}
            _ => return Err("a double free was not refused"),
        }
    }
    let stats = zone.audit().map_err(|_| "the zone is inconsistent")?;
    say!(
        "buddy: all of it free again, {} double frees refused, largest block {:?}",
        count,
        stats.largest_free()
    );
    Ok(())
}
