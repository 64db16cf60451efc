//! Reclaim decisions, boosts, lowmem reserves and the scope of shortages.
#![allow(missing_docs)]

mod policy_world;

use pnode_core::oom::{Candidate, Constraint, OomScope};
use pnode_core::ops::{BoostOwner, NoSleep, ReclaimPolicy, SwapRule};
use pnode_core::reclaim::{Boost, Kswapd, Pass, Swapping, Verdict, ZoneLevel};
use pnode_core::{
    AllocError, Features, FrameRange, FrameSource, MigrateType, NodeMask, NodeOps, Order, PageOrigin, Pfn,
    Placement, Request, Service, WatermarkError, Watermarks, request::Depth,
};
use policy_world::{A, B, C, CLOSED, D, Kind, OPEN, World, id, mask};

const HOST: ReclaimPolicy = ReclaimPolicy { swap: SwapRule::Gentle, boost: BoostOwner::Host };
const SERVICE: ReclaimPolicy = ReclaimPolicy { swap: SwapRule::MaySwap, boost: BoostOwner::Service };

/// Every level of a zone of 12 frames against the rule spelled out by hand.
#[test]
fn when_kswapd_works() {
    let marks = Watermarks::new(2, 4, 8).unwrap();
    for free in 0..=12u64 {
        for boost in 0..=12u64 {
            let level = ZoneLevel::new(free, marks, Boost::frames(boost));
            for (kswapd, threshold) in [(Kswapd::Asleep, 4), (Kswapd::Awake, 8)] {
                let expected = if free < threshold {
                    Verdict::Reclaim { pass: Pass::Normal, frames: 8 - free }
                } else if free < 8 + boost && boost > 0 {
                    Verdict::Reclaim { pass: Pass::Boosted, frames: 8 + boost - free }
                } else {
                    Verdict::Rest
                };
                assert_eq!(level.verdict(kswapd), expected, "free {free}, boost {boost}, {kswapd:?}");
            }
        }
    }
    // "Free everything": a boost by all of the zone is never satisfied while a frame is in use.
    let all = ZoneLevel::new(11, Watermarks::NONE, Boost::frames(12));
    assert_eq!(all.verdict(Kswapd::Asleep), Verdict::Reclaim { pass: Pass::Boosted, frames: 1 });
    let huge = ZoneLevel::new(0, Watermarks::new(0, 0, u64::MAX).unwrap(), Boost::frames(u64::MAX));
    assert_eq!(huge.verdict(Kswapd::Awake), Verdict::Reclaim { pass: Pass::Normal, frames: u64::MAX });
}

#[test]
fn invariant_17_a_boost_survives_iff_its_service_owns_it() {
    let boost = Boost::frames(10);
    for (swap, owner) in [SwapRule::Gentle, SwapRule::MaySwap]
        .into_iter()
        .flat_map(|swap| [BoostOwner::Host, BoostOwner::Service].map(|owner| (swap, owner)))
    {
        let policy = ReclaimPolicy { swap, boost: owner };
        let managed = owner == BoostOwner::Service;
        assert_eq!(boost.after_recomputing(policy) == boost, managed);
        assert_eq!(boost.after_pass(Boost::frames(4), policy).get(), if managed { 10 } else { 6 });
        assert_eq!(boost.after_pass(Boost::frames(11), policy).get(), if managed { 10 } else { 0 });
        if !managed {
            assert_eq!(boost.after_recomputing(policy), Boost::NONE);
        }
    }
}

#[test]
fn invariant_18_a_boosted_pass_swaps_only_if_the_policy_says_so() {
    use Swapping::{Allowed, Forbidden};
    let rows = [
        (Pass::Boosted, Allowed, SERVICE, Allowed),
        (Pass::Boosted, Allowed, HOST, Forbidden),
        // A service gives nothing that the host does not have.
        (Pass::Boosted, Forbidden, SERVICE, Forbidden),
        (Pass::Boosted, Forbidden, HOST, Forbidden),
        // A pass without a boost is not affected.
        (Pass::Normal, Allowed, SERVICE, Allowed),
        (Pass::Normal, Allowed, HOST, Allowed),
        (Pass::Normal, Forbidden, SERVICE, Forbidden),
        (Pass::Normal, Forbidden, HOST, Forbidden),
    ];
    for (pass, host, policy, expected) in rows {
        assert_eq!(pass.swapping(host, policy), expected, "{pass:?} {host:?} {policy:?}");
    }
}

#[test]
fn on_a_private_node_the_door_replaces_the_cpuset() {
    let reclaimable = Kind::Private(Features::RECLAIM);
    let world = World::new(&[Kind::Ordinary, Kind::Ordinary, reclaimable, CLOSED, Kind::Absent], 1);
    let mems = world.mems().child(&mask(&[B, D]));
    let may: Vec<bool> = (0..6).map(|n| world.nodes.may_reclaim(id(n), &mems)).collect();
    assert_eq!(may, [false, true, true, false, false, false]);
    assert!(!world.nodes.may_reclaim(id(1000), &mems));
}

#[test]
fn a_lowmem_reserve_is_kept_for_what_cannot_live_elsewhere() {
    let world = World::new(&[Kind::Ordinary, Kind::Ordinary], 8);
    let (low, other) = (world.handle(A), world.handle(B));
    let range = |number: u64| FrameRange::new(Pfn::new(number * 64), 8).unwrap();
    let marks = Watermarks::new(1, 2, 3).unwrap().with_lowmem_reserve(4).unwrap();
    low.set_watermarks(range(0), marks).unwrap();
    assert_eq!(low.watermarks(range(0)), Ok(marks));
    assert_eq!(other.watermarks(range(1)), Ok(Watermarks::NONE));
    // Movable pages: 8 - (low 2 + reserve 4) of A, all of B, then A down to min 1 + reserve 4.
    let take = |migrate, depth| {
        let request = Request::page().prefer(id(A)).migrate(migrate).depth(depth);
        let frames: Vec<_> = std::iter::from_fn(|| world.nodes.alloc(request).ok()).collect();
        let (a, b) = frames.iter().partition::<Vec<_>, _>(|frame| frame.node() == id(A));
        let counts = (a.len(), b.len());
        frames.into_iter().for_each(|frame| world.nodes.free(frame).unwrap());
        counts
    };
    assert_eq!(take(MigrateType::Movable, Depth::Low), (2, 8));
    assert_eq!(take(MigrateType::Movable, Depth::Min), (3, 8));
    assert_eq!(take(MigrateType::Huge, Depth::Min), (3, 8));
    // Unmovable ones: the reserve is open to them, the watermark is not.
    assert_eq!(take(MigrateType::Unmovable, Depth::Low), (6, 8));
    assert_eq!(take(MigrateType::Unmovable, Depth::Min), (7, 8));
    // Who must be below a limit has no other zone: the reserve is open to him, and no zone beyond.
    let limited: Vec<_> = std::iter::from_fn(|| {
        let request = Request::page().prefer(id(A)).below(range(0).end());
        world.nodes.alloc(request).ok()
    })
    .collect();
    assert_eq!(limited.len(), 7);
    assert!(limited.iter().all(|frame| frame.node() == id(A)));
    let request = Request::page().prefer(id(B)).below(Pfn::new(range(1).end().get() - 1));
    assert_eq!(world.nodes.alloc(request), Err(AllocError::NoMemory { order: Order::ZERO }));
    limited.into_iter().for_each(|frame| world.nodes.free(frame).unwrap());
    // Those who free memory get all.
    assert_eq!(take(MigrateType::Movable, Depth::Emergency), (8, 8));
    let most = Watermarks::new(1, 1, 1).unwrap();
    assert_eq!(most.with_lowmem_reserve(u64::MAX), Err(WatermarkError::ReserveTooLarge { frames: u64::MAX }));
    assert!(most.with_lowmem_reserve(u64::MAX - 1).is_ok());
}

/// A bind that is full looks for a victim among those who use its nodes, private ones too if their owners agreed.
#[test]
fn a_shortage_of_a_private_node_is_ended_by_its_users_only() {
    let agreed = Kind::Private(Features::USER_NUMA | Features::OOM);
    let world = World::new(&[Kind::Ordinary, Kind::Ordinary, agreed, OPEN], 1);
    let candidate = |task, uses: &[u16], frames| Candidate { task, uses: mask(uses), frames };
    let tasks = [
        candidate("big, in DRAM", &[A, B], 1_000),
        candidate("small, on C", &[A, C], 10),
        candidate("on D", &[D], 500),
    ];
    let scope_of = |named: &[u16]| {
        let policy = world.bind(named);
        let page = Placement::new(PageOrigin::PrivateAnonymous, id(A)).range(&policy);
        assert!(!world.exhaust(&page).0.is_empty());
        OomScope::of(world.nodes, &page.plan(world.nodes.distances()).scope())
    };
    let victim = |scope: &OomScope| scope.victim(tasks).map(|candidate| candidate.task);

    let c = scope_of(&[C]);
    assert_eq!((c.constraint(), victim(&c)), (Constraint::Nodes, Some("small, on C")));
    // D's owner opened no OOM door: nobody dies for it.
    let d = scope_of(&[D]);
    assert_eq!((d.constraint(), victim(&d)), (Constraint::Hopeless, None));
    let both = scope_of(&[B, D]);
    assert_eq!((both.counted(), victim(&both)), (&mask(&[B]), Some("big, in DRAM")));
    // A shortage of all ordinary memory: users of private nodes alone do not help.
    let page = Placement::new(PageOrigin::PrivateAnonymous, id(A));
    let all = OomScope::of(world.nodes, &page.plan(world.nodes.distances()).scope());
    assert_eq!(all.constraint(), Constraint::None);
    let ordinary = OomScope::of(world.nodes, &mask(&[A, B]));
    assert!(!ordinary.relieved_by(&mask(&[C, D])));
    assert_eq!(ordinary.constraint(), Constraint::None);
    assert_eq!(ordinary.victim::<u8>([]), None);
    assert_eq!(OomScope::of(world.nodes, &NodeMask::EMPTY).constraint(), Constraint::Hopeless);
    // Of several who help it is the one with the most, and of equals the first.
    for number in 0..81 {
        let frames = [number % 3, number / 3 % 3, number / 9 % 3, number / 27];
        let tasks = (0..).zip(frames).map(|(task, frames)| Candidate { task, uses: mask(&[B]), frames });
        let most = frames.into_iter().max();
        let expected = frames.into_iter().position(|frames| Some(frames) == most);
        assert_eq!(ordinary.victim(tasks).map(|victim| victim.task), expected, "{frames:?}");
    }
}

#[test]
fn a_grant_respects_the_reserve_of_its_node() {
    let world = World::of_two_and_two(OPEN, 4);
    let range = FrameRange::new(Pfn::new(u64::from(C) * 64), 4).unwrap();
    let marks = Watermarks::new(0, 0, 0).unwrap().with_lowmem_reserve(3).unwrap();
    world.owner(C).set_watermarks(range, marks).unwrap();
    let grant = world.owner(C).grant().unwrap();
    let first = grant.alloc(Request::page()).unwrap();
    let refused = grant.alloc(Request::page()).map(|_| ());
    assert_eq!(refused, Err(AllocError::NoMemory { order: Order::ZERO }));
    let ring = grant.alloc(Request::page().migrate(MigrateType::Unmovable)).unwrap();
    world.nodes.free(first).unwrap();
    world.nodes.free(ring).unwrap();
}

#[test]
fn a_grant_as_a_source_keeps_the_watermark_of_its_node() {
    let world = World::of_two_and_two(OPEN, 4);
    let range = FrameRange::new(Pfn::new(u64::from(C) * 64), 4).unwrap();
    let grant = world.owner(C).grant().unwrap();
    for kept in 0..=4 {
        world.owner(C).set_watermarks(range, Watermarks::new(kept, kept, kept).unwrap()).unwrap();
        let taken: Vec<_> =
            std::iter::from_fn(|| FrameSource::alloc(&grant, Order::ZERO, MigrateType::Movable).ok())
                .collect();
        assert_eq!((taken.len() as u64, world.used(C)), (4 - kept, 4 - kept));
        taken.into_iter().for_each(|pfn| grant.free(pfn, Order::ZERO).unwrap());
    }
}

/// Which pages a service may bring to a private node, by origin and door.
#[test]
fn only_anonymous_memory_lives_on_private_nodes() {
    use PageOrigin::{PageCache, PrivateAnonymous, SharedAnonymous, Unmovable};
    let fenced = Kind::Private(Features::RECLAIM | Features::DEMOTION | Features::WRITE_FENCE);
    let world = World::new(&[Kind::Ordinary, Kind::Absent, CLOSED, fenced], 1);
    let lives = |node: u16| {
        [PrivateAnonymous, SharedAnonymous, PageCache, Unmovable]
            .map(|origin| world.nodes.may_live_on(id(node), origin))
    };
    assert_eq!(lives(A), [true; 4]);
    assert_eq!(lives(B), [false; 4], "there is no such node");
    assert_eq!(lives(C), [true, true, false, false]);
    assert_eq!(lives(D), [true, false, false, false]);
    // A fence is not down because its node drains.
    world.owner(D).drain().unwrap();
    assert_eq!(lives(D), [true, false, false, false]);
}

#[test]
fn a_service_answers_for_its_nodes_reclaim() {
    struct Greedy;
    impl NodeOps for Greedy {
        fn reclaim_policy(&self, _: NoSleep<'_>) -> ReclaimPolicy {
            SERVICE
        }
    }
    let mut world = World::of_two_and_two(OPEN, 1);
    static GREEDY: Greedy = Greedy;
    assert_eq!(world.nodes.reclaim_policy(id(C)), HOST);
    let service: &'static Service<'static> = Box::leak(Box::new(Service::new(&GREEDY)));
    world.owner(C).serve(service).unwrap();
    assert_eq!(world.nodes.reclaim_policy(id(C)), SERVICE);
    assert_eq!(world.nodes.reclaim_policy(id(D)), HOST);
    assert_eq!(world.nodes.reclaim_policy(id(1000)), HOST);
    // A service that is ended answers no more, and the question left no reference behind.
    world.owner(C).end_service().unwrap();
    assert_eq!(world.nodes.reclaim_policy(id(C)), HOST);
    world.leave(C);
}
