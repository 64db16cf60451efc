//! A service answers for the pages of its node: it is asked about fenced writes, told of pages that left, and may keep frames.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use pnode_core::ops::{Access, Block, FaultVerdict, FreeVerdict, MaySleep, NoSleep};
use pnode_core::{Features, FreeError, MemoryClass, NodeOps, Pfn};
use pnode_user::machine::{BuildError, Builder, Rights, UnplugError};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;
const DOORS: Features = Features::RECLAIM.union(Features::DEMOTION).union(Features::HOTUNPLUG);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Fault(u64),
    Moved(u64, u64),
    Free(u64),
    Failed(u64),
}

/// A service that writes down what it is told.
#[derive(Default)]
struct Recorder {
    told: Mutex<Vec<Told>>,
    /// How many faults it wants to see again.
    retries: AtomicU32,
    /// How many frames it keeps.
    keeps: AtomicU32,
}

impl Recorder {
    fn tell(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    fn take(&self) -> Vec<Told> {
        core::mem::take(&mut *self.told.lock().unwrap())
    }
}

/// Counts down; whether there was something left.
fn takes_one(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl NodeOps for Recorder {
    fn migrated(&self, _: NoSleep<'_>, from: Block, to: Block) {
        self.tell(Told::Moved(from.pfn.get(), to.pfn.get()));
    }

    fn free(&self, _: NoSleep<'_>, block: Block) -> FreeVerdict {
        self.tell(Told::Free(block.pfn.get()));
        if takes_one(&self.keeps) { FreeVerdict::Kept } else { FreeVerdict::Release }
    }

    fn fault(&self, _: MaySleep<'_>, block: Block, access: Access) -> FaultVerdict {
        assert_eq!(access, Access::Write);
        self.tell(Told::Fault(block.pfn.get()));
        if takes_one(&self.retries) { FaultVerdict::Retry } else { FaultVerdict::PassOn }
    }

    fn memory_failure(&self, _: NoSleep<'_>, pfn: Pfn) {
        self.tell(Told::Failed(pfn.get()));
    }
}

fn builder(service: &Arc<Recorder>) -> Builder {
    Machine::builder()
        .node(NodeSpec::ordinary(64))
        .node(NodeSpec::private(MemoryClass::FAR, 16).features(DOORS | Features::WRITE_FENCE))
        .service(1, Arc::<Recorder>::clone(service))
}

#[test]
fn a_service_is_asked_and_told_in_order() {
    let service = Arc::new(Recorder::default());
    support::on_all(
        || builder(&service),
        |machine| {
            let [dram, node] = [0, 1].map(|number| machine.node(number).unwrap());
            assert!(machine.state(node).unwrap().is_serviced());
            let memory = machine.map(8, dram).unwrap();
            (0..8).for_each(|page| memory.write(page * PAGE, &[page as u8 + 1]).unwrap());
            assert_eq!(memory.demote(0..4, node).unwrap().pages, 4);
            let at = |page: usize| match memory.place(page) {
                pnode_user::machine::Place::Resident { pfn, .. } => pfn.get(),
                other => panic!("{other:?}"),
            };
            assert_eq!(service.take(), [], "pages that come, and reads, are none of its business");
            let (old, mut byte) = (at(0), [0]);
            memory.read(0, &mut byte).unwrap();
            assert_eq!(service.take(), []);

            // A write to the fenced page: asked until it says so, then the page moves and its frame is free.
            service.retries.store(3, Ordering::Relaxed);
            memory.write(0, &[99]).unwrap();
            let fault = Told::Fault(old);
            assert_eq!(
                service.take(),
                [fault, fault, fault, fault, Told::Moved(old, at(0)), Told::Free(old)]
            );
            memory.read(0, &mut byte).unwrap();
            assert!(byte == [99] && memory.place(0).is_resident_on(dram));

            // A frame that it keeps is in use until it gives it back, also for an unplug.
            service.keeps.store(1, Ordering::Relaxed);
            let kept = at(1);
            memory.write(PAGE, &[98]).unwrap();
            machine.audit().unwrap();
            assert_eq!(machine.free_frames(node), 16 - 3);
            assert!(matches!(machine.unplug(node), Err(UnplugError::Offline(_))));
            // What was there has moved off, and its service was told of each page.
            let told = service.take();
            assert_eq!(told.iter().filter(|told| matches!(told, Told::Moved(..))).count(), 3, "{told:?}");
            assert_eq!(told.iter().filter(|told| matches!(told, Told::Free(_))).count(), 3, "{told:?}");
            machine.release(node, Pfn::new(kept)).unwrap();
            let again = machine.release(node, Pfn::new(kept));
            assert_eq!(again, Err(FreeError::NotAllocated { pfn: Pfn::new(kept) }));
            assert_eq!(machine.free_frames(node), 16);

            assert!(machine.memory_failure(Pfn::new(kept)) && !machine.memory_failure(Pfn::new(3)));
            assert_eq!(service.take(), [Told::Failed(kept)]);

            // It leaves with its node and comes back with it, and a fork's page is one page.
            machine.unplug(node).unwrap();
            assert!(!machine.memory_failure(Pfn::new(kept)));
            machine.plug(node).unwrap();
            assert!(machine.state(node).unwrap().is_serviced());
            let parent = machine.process(2, dram).unwrap();
            parent.map(2, Rights::ReadWrite).unwrap();
            parent.write(0, 0, &[7]).unwrap();
            let child = parent.fork().unwrap();
            machine.reclaim(16);
            assert!(parent.place(0).is_resident_on(node));
            assert_eq!(service.take(), []);
            machine.unplug(node).unwrap();
            let told = service.take();
            let pages = (0..8).filter(|page| memory.place(*page).is_resident_on(dram)).count();
            assert_eq!(pages, 8);
            let moved = told.iter().filter(|told| matches!(told, Told::Moved(..))).count();
            assert_eq!(moved * 2, told.len(), "each page moved once and left one frame: {told:?}");
            child.read(0, 0, &mut byte).unwrap();
            assert_eq!(byte, [7]);
            machine.plug(node).unwrap();
            for (page, value) in [99, 98, 3, 4, 5, 6, 7, 8].into_iter().enumerate() {
                memory.read(page * PAGE, &mut byte).unwrap();
                assert_eq!(byte, [value], "page {page}");
            }
            service.take();
        },
    );
}

#[test]
fn a_service_takes_a_private_node_that_does_not_compress() {
    let service = Arc::new(Recorder::default());
    for number in [0, 2, 3] {
        let built = builder(&service)
            .node(NodeSpec::compressed(32, 64))
            .service(number, Arc::<Recorder>::clone(&service));
        assert_eq!(built.build().err(), Some(BuildError::NotServed { number }), "{number}");
    }
}
