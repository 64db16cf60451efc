//! A zone that shuts or changes hands in the middle of an allocation.
//!
//! Another CPU may do that at any time. Here the zone does it itself, just before or after it hands a block out, so that every case is
//! met in one thread: nobody is served from memory that became somebody else's, and no block is lost with its refusal.

use std::sync::Mutex;

use pnode_core::{
    Distances, Features, Frame, FrameError, FrameRange, FrameSource, FrameZone, FreeError, Grant,
    MemoryClass, MigrateType, NodeHandle, Nodes, Order, Pfn, Private, Request, Storage, WordZone,
};

use super::step::id;

#[derive(Clone, Copy, Debug)]
enum Moment {
    Before,
    After,
}

/// What the zone goes through meanwhile. A zone with a block in use cannot go offline, so it stays where it is then.
#[derive(Clone, Copy, Debug)]
enum Step {
    Nothing,
    Shut,
    ShutAndReopened,
    Moved,
    MovedAndBack,
}

/// How the block is asked for.
#[derive(Clone, Copy, Debug)]
enum Way {
    Request,
    Exactly,
    Grant,
    GrantExactly,
    Source,
    AtHand,
}

type Act = Box<dyn FnOnce() + Send>;

struct Zone {
    frames: WordZone,
    meanwhile: Mutex<Option<(Moment, Act)>>,
}

impl Zone {
    fn take<T>(&self, take: impl FnOnce(&WordZone) -> T) -> T {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        match meanwhile {
            None => take(&self.frames),
            Some((Moment::Before, act)) => {
                act();
                take(&self.frames)
            }
            Some((Moment::After, act)) => {
                let taken = take(&self.frames);
                act();
                taken
            }
        }
    }
}

impl FrameSource for Zone {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        self.take(|frames| frames.alloc(order, migrate))
    }
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.frames.free(pfn, order)
    }
}

impl FrameZone for Zone {
    fn span(&self) -> FrameRange {
        self.frames.span()
    }
    fn free_frames(&self) -> u64 {
        self.frames.free_frames()
    }
    fn managed_frames(&self) -> u64 {
        self.frames.managed_frames()
    }
    fn alloc_at_hand(&self, migrate: MigrateType) -> Option<Pfn> {
        self.take(|frames| frames.alloc(Order::ZERO, migrate).ok())
    }
    fn alloc_at(&self, pfn: Pfn, order: Order, migrate: MigrateType) -> Result<(), FrameError> {
        self.take(|frames| frames.alloc_at(pfn, order, migrate))
    }
    fn isolate(&self) {
        self.frames.isolate();
    }
    fn reopen(&self) {
        self.frames.reopen();
    }
    fn used_frames(&self) -> u64 {
        self.frames.used_frames()
    }
}

type Handle = &'static NodeHandle<'static, Zone>;

impl Step {
    /// The step for a zone of `from`, which `to` might get.
    fn act(self, zone: &'static Zone, from: Handle, to: Handle) -> Act {
        let span = zone.span();
        Box::new(move || match self {
            Step::Nothing => {}
            Step::Shut => from.close(span).unwrap(),
            Step::ShutAndReopened => {
                from.close(span).unwrap();
                from.reopen(span).unwrap();
            }
            Step::Moved => {
                if from.offline(span).is_ok() {
                    to.online(zone).unwrap();
                }
            }
            Step::MovedAndBack => {
                if from.offline(span).is_ok() {
                    to.online(zone).unwrap();
                    to.offline(span).unwrap();
                    from.online(zone).unwrap();
                }
            }
        })
    }
}

impl Way {
    fn ask(self, nodes: &Nodes<'static, Zone>, grant: &Grant<'static, Zone>) -> Option<Frame> {
        let (page, second) = (Request::page(), Pfn::new(65));
        let (order, movable) = (Order::ZERO, MigrateType::Movable);
        let adopt = |pfn| grant.adopt(pfn, order).unwrap();
        match self {
            Way::Request => nodes.alloc(page).ok(),
            Way::Exactly => nodes.alloc_at(second, page).ok(),
            Way::Grant => grant.alloc(page).ok(),
            Way::GrantExactly => grant.alloc_at(second, page).ok(),
            Way::Source => FrameSource::alloc(grant, order, movable).ok().map(adopt),
            Way::AtHand => grant.alloc_at_hand(movable).map(adopt),
        }
    }
}

/// Whether the block must be had; `None` where either is right.
fn expected(step: Step, moment: Moment) -> Option<bool> {
    match (step, moment) {
        (Step::Nothing | Step::ShutAndReopened, _) | (_, Moment::After) => Some(true),
        (Step::Shut | Step::Moved, Moment::Before) => Some(false),
        // The zone is the asker's again: who looks twice finds it.
        (Step::MovedAndBack, Moment::Before) => None,
    }
}

fn check(way: Way, step: Step, moment: Moment) {
    let storage = Box::leak(Box::new(Storage::<Zone, 2, 1>::new()));
    let nodes: &'static Nodes<'static, Zone> =
        Box::leak(Box::new(Nodes::new(storage.slots(), Distances::uniform(2).unwrap()).unwrap()));
    let frames = WordZone::new(FrameRange::new(Pfn::new(64), 4).unwrap()).unwrap();
    let zone: &'static Zone = Box::leak(Box::new(Zone { frames, meanwhile: Mutex::new(None) }));
    let dram = &*Box::leak(Box::new(nodes.ordinary(id(0), MemoryClass::DRAM).unwrap()));
    let owner = nodes.register(id(1), Private::class(MemoryClass::FAR), Features::NONE).unwrap();
    let owner = &*Box::leak(Box::new(owner));
    let grant = owner.grant().unwrap();
    let (from, to): (Handle, Handle) = match way {
        Way::Request | Way::Exactly => (dram, owner),
        Way::Grant | Way::GrantExactly | Way::Source | Way::AtHand => (owner, dram),
    };
    from.online(zone).unwrap();
    *zone.meanwhile.lock().unwrap() = Some((moment, step.act(zone, from, to)));
    let served = way.ask(nodes, &grant);
    let case = format!("{way:?}, {step:?} {moment:?}: {served:?}");
    assert!(expected(step, moment).is_none_or(|expected| served.is_some() == expected), "{case}");
    assert_eq!(zone.used_frames(), u64::from(served.is_some()), "{case}");
    if let Some(frame) = served {
        assert_eq!((frame.node(), from.used_frames()), (from.id(), 1), "{case}");
        nodes.free(frame).unwrap();
    }
    assert_eq!(zone.used_frames(), 0, "{case}");
}

#[test]
fn nobody_is_served_from_a_zone_that_changed_hands_meanwhile() {
    for way in [Way::Request, Way::Exactly, Way::Grant, Way::GrantExactly, Way::Source, Way::AtHand] {
        for step in [Step::Nothing, Step::Shut, Step::ShutAndReopened, Step::Moved, Step::MovedAndBack] {
            check(way, step, Moment::Before);
            check(way, step, Moment::After);
        }
    }
}
