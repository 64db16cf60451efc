//! Programs that use a heap on a node, rightly and wrongly, against the oracle of the crate's own tests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pnode_buddy::Zone;
use pnode_compress::memory::Mapped;
use pnode_core::{FrameRange, PageSize, Pfn};
use pnode_user::NodeHeap;
use pnode_user::backing::Backing;

#[path = "../../crates/pnode-user/tests/heap_oracle/mod.rs"]
mod heap_oracle;

use heap_oracle::{Oracle, Step};

fuzz_target!(|bytes: &[u8]| {
    let [frames, first, steps @ ..] = bytes else { return };
    let range = FrameRange::new(Pfn::new(u64::from(*first)), 1 + u64::from(*frames) * 4).unwrap();
    let backing = Backing::new(range.frames(), PageSize::KIB4).unwrap();
    let zone = Zone::boxed(range, &[]).unwrap();
    // SAFETY: the direct map has these frames and outlives the heap; only the zone hands them out.
    let memory = unsafe { Mapped::new(zone, backing.direct_map(), range, PageSize::KIB4) };
    let heap = NodeHeap::new(memory, range).unwrap();
    let mut oracle = Oracle::new(&heap);
    for step in steps.chunks_exact(4).take(1000) {
        oracle.step(Step::decode([step[0], step[1], step[2], step[3]]));
    }
    oracle.finish();
});
