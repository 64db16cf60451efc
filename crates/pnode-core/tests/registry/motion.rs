//! A zone whose blocks are in motion is no shortage: what each request, grant and bind is told, in every small world.

use pnode_core::policy::{Mode, PlaceError, Policy, Target, Wish};
use pnode_core::{
    AllocError, Depth, Distances, Features, FrameError, FrameRange, FrameSource, FrameZone, FreeError, Grant,
    MemoryClass, Mems, MigrateType, NodeMask, Nodes, Order, PageOrigin, Pfn, Placement, Private, Reason,
    Request, Storage, Watermarks, WordZone,
};

use super::step::id;

/// What a zone answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Serves,
    Exhausted,
    Closed,
    Moving,
    /// It would serve, but only a request that reaches below every watermark.
    Kept,
}
use Answer::{Closed, Exhausted, Kept, Moving, Serves};

const ANSWERS: [Answer; 5] = [Serves, Exhausted, Closed, Moving, Kept];

struct Zone(WordZone, Answer);

impl FrameSource for Zone {
    fn alloc(&self, order: Order, migrate: MigrateType) -> Result<Pfn, FrameError> {
        match self.1 {
            Serves | Kept => self.0.alloc(order, migrate),
            Exhausted => Err(FrameError::Exhausted { order }),
            Closed => Err(FrameError::Closed { order }),
            Moving => Err(FrameError::Contended { order }),
        }
    }
    fn free(&self, pfn: Pfn, order: Order) -> Result<(), FreeError> {
        self.0.free(pfn, order)
    }
}

impl FrameZone for Zone {
    fn span(&self) -> FrameRange {
        self.0.span()
    }
    fn free_frames(&self) -> u64 {
        self.0.free_frames()
    }
    fn managed_frames(&self) -> u64 {
        self.0.managed_frames()
    }
    fn isolate(&self) {
        self.0.isolate();
    }
    fn reopen(&self) {
        self.0.reopen();
    }
    fn used_frames(&self) -> u64 {
        self.0.used_frames()
    }
}

/// What is to be told by a walk over zones with these answers, in this order: the zone that serves, or why none does.
fn told(answers: &[Answer], depth: Depth) -> Result<usize, AllocError> {
    let serves = |answer: &Answer| match answer {
        Serves => true,
        Kept => depth == Depth::Emergency,
        _ => false,
    };
    // A walk that may reach deeper does so only when it found nothing above the watermarks.
    let order = Order::ZERO;
    let first = answers.iter().position(|answer| *answer == Serves);
    first.or_else(|| answers.iter().position(serves)).ok_or(if answers.contains(&Moving) {
        AllocError::Contended { order }
    } else {
        AllocError::NoMemory { order }
    })
}

#[test]
fn motion_is_told_from_shortage_in_every_small_world() {
    let mut cases = 0;
    for world in 0..ANSWERS.len().pow(3) {
        let answers = [world % 5, world / 5 % 5, world / 25].map(|answer| ANSWERS[answer]);
        cases += check(answers);
    }
    assert_eq!(cases, 125 * 9);
}

/// Nodes 0 and 1 are ordinary, 2 is private with the door for user policies open.
fn check(answers: [Answer; 3]) -> usize {
    let zones: [Zone; 3] = std::array::from_fn(|node| {
        let span = FrameRange::new(Pfn::new(64 * node as u64), 8).unwrap();
        Zone(WordZone::new(span).unwrap(), answers[node])
    });
    let mut storage = Storage::<Zone, 3, 3>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(3).unwrap()).unwrap();
    let kept = Watermarks::new(8, 8, 8).unwrap();
    for node in [0, 1] {
        let handle = nodes.ordinary(id(node), MemoryClass::DRAM).unwrap();
        handle.online(&zones[node]).unwrap();
        if answers[node] == Kept {
            handle.set_watermarks(zones[node].span(), kept).unwrap();
        }
    }
    let owner = nodes.register(id(2), Private::class(MemoryClass::FAR), Features::USER_NUMA).unwrap();
    owner.online(&zones[2]).unwrap();
    if answers[2] == Kept {
        owner.set_watermarks(zones[2].span(), kept).unwrap();
    }
    let mut cases = 0;

    let grant: Grant<'_, Zone> = nodes.grant(id(2), Reason::UserPolicy).unwrap();
    for depth in [Depth::Low, Depth::Emergency] {
        let page = Request::page().depth(depth);
        let mask = NodeMask::of(id(1));
        for (asked, among) in [
            (nodes.alloc(page.prefer(id(0))), &[0, 1][..]),
            (nodes.alloc(page.prefer(id(0)).nodemask(&mask)), &[1]),
            (nodes.alloc(page.prefer(id(0)).this_node_only()), &[0]),
            (grant.alloc(page), &[2]),
        ] {
            cases += 1;
            let among_answers: Vec<Answer> = among.iter().map(|node| answers[*node]).collect();
            let expected = told(&among_answers, depth).map(|place| id(among[place]));
            let served = asked.as_ref().map(pnode_core::Frame::node).map_err(|error| *error);
            assert_eq!(served, expected, "{answers:?}, {among:?}, {depth:?}");
            if let Ok(frame) = asked {
                nodes.free(frame).unwrap();
            }
        }
    }
    drop(grant);

    // A bind to all three: node 2 is private and stands last, for the task is on node 0.
    let mems = Mems::root(&nodes).unwrap();
    let all = (0..3).map(id).collect();
    let wish = Wish::new(Mode::Bind, all);
    let bind = Policy::new(&nodes, &wish, Target::Range(PageOrigin::PrivateAnonymous), &mems).unwrap();
    let placement = Placement::new(PageOrigin::PrivateAnonymous, id(0)).range(&bind).mems(&mems);
    let expected = told(&answers, Depth::Low).map(id).map_err(|error| match error {
        AllocError::Contended { order } => PlaceError::Contended { order },
        _ => PlaceError::BoundNodesFull { node: id(0), order: Order::ZERO },
    });
    assert_eq!(nodes.place(&placement).map(|placed| placed.frame.node()), expected, "a bind, {answers:?}");
    cases + 1
}
