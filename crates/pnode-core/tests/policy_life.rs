//! Policies over time: cpusets change, nodes drain, leave and come back as somebody else's.
#![allow(missing_docs)]

mod policy_world;

use pnode_core::policy::{Mode, Numbering, PlaceError, Wish};
use pnode_core::{
    AllocError, Denied, FrameRange, NodeMask, Order, PageOrigin, Pfn, Placement, Policy, Reason, Request,
};
use policy_world::{A, B, C, CLOSED, D, Kind, OPEN, World, id, mask, numbers};

fn bound_nodes(policy: &Policy) -> Vec<u16> {
    numbers(&policy.ordinary().union(policy.private()))
}

#[test]
fn a_positional_bind_moves_with_its_cpuset_and_is_not_restored() {
    let world = World::of_two_and_two(OPEN, 1);
    let root = world.mems();
    let mut policy = world.bind(&[C]);
    // C is third of {A,B,C,D}, counted round in {A,B}: A.
    policy.rebind(world.nodes, &root.child(&mask(&[A, B])));
    assert_eq!(bound_nodes(&policy), [A]);
    policy.rebind(world.nodes, &root);
    assert_eq!(bound_nodes(&policy), [A]);
}

#[test]
fn positions_are_counted_in_the_latest_cpuset() {
    let world = World::of_two_and_two(OPEN, 1);
    let root = world.mems();
    let mut policy = world.bind(&[C]);
    // Third of {A,B,C,D}: third of {B,C,D} is D.
    policy.rebind(world.nodes, &root.child(&mask(&[B, C, D])));
    assert_eq!(bound_nodes(&policy), [D]);
    // Third of {B,C,D}: third of {A,C,D} is D. Counted in the first cpuset, D would be fourth, and so A.
    policy.rebind(world.nodes, &root.child(&mask(&[A, C, D])));
    assert_eq!(bound_nodes(&policy), [D]);
}

#[test]
fn a_bind_moved_onto_an_open_private_node_works_there() {
    let world = World::of_two_and_two(OPEN, 1);
    let root = world.mems();
    let wish = Wish::new(Mode::Bind, mask(&[B]));
    let small = root.child(&mask(&[A, B]));
    let mut policy = Policy::new(world.nodes, &wish, pnode_core::policy::Target::Task, &small).unwrap();
    // Second of {A,B} becomes second of {A,C}: its marker follows, or faults would never end.
    policy.rebind(world.nodes, &root.child(&mask(&[A, C])));
    assert_eq!((numbers(policy.ordinary()), numbers(policy.private())), (vec![], vec![C]));
    assert_eq!(world.exhaust_bound(&policy, A).0, [C]);
}

#[test]
fn a_static_bind_drops_out_and_is_restored() {
    let world = World::of_two_and_two(OPEN, 1);
    let root = world.mems();
    let mut policy = world.bind_static(&[B, C]);
    policy.rebind(world.nodes, &root.child(&mask(&[A])));
    assert!(policy.is_void());
    assert_eq!(world.exhaust_bound(&policy, A).0, [A, B], "a bind without nodes stops applying");
    policy.rebind(world.nodes, &root);
    assert_eq!(bound_nodes(&policy), [B, C]);
}

#[test]
fn relative_numbers_count_from_the_first_allowed_node() {
    let world = World::new(&[Kind::Ordinary, Kind::Ordinary, CLOSED, OPEN], 1);
    let root = world.mems();
    let wish = Wish::new(Mode::Bind, mask(&[0, 2, 3])).numbering(Numbering::Relative);
    let mut policy = world.wish(&wish).unwrap();
    // Of {A,B,D}: 0 is A, 2 is D, 3 is A again. C is closed and not counted.
    assert_eq!(bound_nodes(&policy), [A, D]);
    policy.rebind(world.nodes, &root.child(&mask(&[B, C])));
    assert_eq!(bound_nodes(&policy), [B]);
    let interleave = Wish::new(Mode::Interleave, mask(&[1, 2])).numbering(Numbering::Relative);
    assert_eq!(bound_nodes(&world.wish(&interleave).unwrap()), [A, B]);
}

/// Every positional or relative rebind, from every cpuset to every cpuset: never onto a node whose owner did not consent.
#[test]
fn no_rebind_lands_on_a_node_that_did_not_consent() {
    // Miri is shown a few of the sets.
    const STEP: usize = if cfg!(miri) { 11 } else { 1 };
    let world = World::new(&[Kind::Ordinary, OPEN, CLOSED, Kind::Ordinary, OPEN], 1);
    let root = world.mems();
    let all: Vec<NodeMask> = (1u16..32)
        .step_by(STEP)
        .map(|bits| mask(&(0..5).filter(|n| bits >> n & 1 == 1).collect::<Vec<_>>()))
        .collect();
    let mut rebinds = 0;
    for mode in [Mode::Bind, Mode::Interleave] {
        for numbering in [Numbering::Positional, Numbering::Static, Numbering::Relative] {
            for (named, first) in all.iter().flat_map(|named| all.iter().map(move |first| (named, first))) {
                let wish = Wish::new(mode, *named).numbering(numbering);
                let target = pnode_core::policy::Target::Task;
                let Ok(policy) = Policy::new(world.nodes, &wish, target, &root.child(first)) else {
                    continue;
                };
                for second in &all {
                    let mut policy = policy;
                    let mems = root.child(second);
                    policy.rebind(world.nodes, &mems);
                    let private = if mode == Mode::Bind { mask(&[1, 4]) } else { NodeMask::EMPTY };
                    assert!(policy.private().is_subset(&private), "{wish:?} {first} {second}");
                    assert!(policy.private().is_subset(mems.private()));
                    assert!(policy.ordinary().is_subset(mems.ordinary()));
                    rebinds += 1;
                }
            }
        }
    }
    assert!(rebinds > 100_000 || cfg!(miri), "only {rebinds}");
}

/// The id is given up and registered again by somebody who consents too: it is another node, for faults and for rebinds.
#[test]
fn a_stale_bind_never_attaches_to_a_reused_id() {
    for numbering in [Numbering::Positional, Numbering::Static, Numbering::Relative] {
        for rebound_while_away in [true, false] {
            let mut world = World::of_two_and_two(OPEN, 1);
            let wish = Wish::new(Mode::Bind, mask(&[C])).numbering(numbering);
            let mut policy = world.wish(&wish).unwrap();
            let mut rebound = policy;
            assert_eq!(world.exhaust_bound(&policy, A).0, [C]);
            world.leave(C);
            assert_eq!(world.exhaust_bound(&policy, A).0, [A, B], "its node left: it stops applying");
            if rebound_while_away {
                rebound.rebind(world.nodes, &world.mems());
            }
            world.join(C, OPEN);
            assert_eq!(world.exhaust_bound(&policy, A).0, [A, B], "not the same node");
            assert_eq!(
                world.nodes.grant_as_of(id(C), Reason::UserPolicy, policy.stamp()).map(|_| ()),
                Err(Denied::Stale { node: id(C) })
            );
            rebound.rebind(world.nodes, &world.mems());
            assert!(!rebound.private().contains(id(C)), "{numbering:?}");
            policy.rebind(world.nodes, &world.mems());
            assert!(!policy.private().contains(id(C)), "{numbering:?}");
            // Who asks again, asks for the node that is there now.
            assert_eq!(world.exhaust_bound(&world.bind(&[C]), A).0, [C]);
        }
    }
}

#[test]
fn private_then_ordinary_then_private_again() {
    let mut world = World::of_two_and_two(OPEN, 1);
    let mut policy = world.bind_static(&[C]);
    world.leave(C);
    world.join(C, Kind::Ordinary);
    assert_eq!(world.exhaust_bound(&policy, A).0, [A, B, C], "C is anybody's now; the bind does not apply");
    world.leave(C);
    world.join(C, OPEN);
    policy.rebind(world.nodes, &world.mems());
    assert!(policy.is_void());
    assert_eq!(world.exhaust_bound(&policy, A).0, [A, B]);
}

#[test]
fn an_ordinary_node_that_comes_back_is_found_by_its_id() {
    let mut world = World::of_two_and_two(OPEN, 1);
    let mut policy = world.bind_static(&[B]);
    world.leave(B);
    policy.rebind(world.nodes, &world.mems());
    assert!(policy.is_void());
    world.join(B, Kind::Ordinary);
    policy.rebind(world.nodes, &world.mems());
    assert_eq!(world.exhaust_bound(&policy, A).0, [B]);
    // It left and came back as a private node that consents: a bind that named an ordinary node does not follow.
    world.leave(B);
    world.join(B, OPEN);
    policy.rebind(world.nodes, &world.mems());
    assert!(policy.is_void());
    assert_eq!(world.exhaust_bound(&policy, A).0, [A]);
}

/// When another node leaves, positions do not move up: the others stay where they are.
#[test]
fn a_departure_does_not_move_the_others() {
    let mut world = World::of_two_and_two(OPEN, 1);
    let mut bind = world.bind(&[B, D]);
    world.leave(A);
    bind.rebind(world.nodes, &world.mems());
    assert_eq!(bound_nodes(&bind), [B, D]);
    world.leave(C);
    bind.rebind(world.nodes, &world.mems());
    assert_eq!(bound_nodes(&bind), [B, D]);
}

#[test]
fn a_task_survives_the_drain_of_its_node() {
    let mut world = World::of_two_and_two(OPEN, 2);
    let mut policy = world.bind_static(&[C]);
    let page = Placement::new(PageOrigin::PrivateAnonymous, id(A)).range(&policy);
    let resident = world.nodes.place(&page).unwrap();
    world.owner(C).drain().unwrap();
    let elsewhere = world.nodes.place(&page).unwrap();
    assert_eq!(elsewhere.frame.node(), id(A), "nothing new lands on a draining node");
    // The same node, called back: the policy is in force again, with or without a rebind meanwhile.
    world.owner(C).resume().unwrap();
    assert_eq!(world.exhaust_bound(&policy, A).0, [C], "one frame is resident");
    world.owner(C).drain().unwrap();
    policy.rebind(world.nodes, &world.mems());
    assert!(policy.is_void());
    world.owner(C).resume().unwrap();
    policy.rebind(world.nodes, &world.mems());
    assert_eq!(world.exhaust_bound(&policy, A).0, [C]);
    world.nodes.free(resident.frame).unwrap();
    world.nodes.free(elsewhere.frame).unwrap();
    world.leave(C);
}

/// Its memory is gone and its owner stays: the node has left as far as a bind is concerned, which is no shortage of it.
#[test]
fn a_bound_node_without_memory_is_no_full_one() {
    let world = World::of_two_and_two(OPEN, 2);
    let policy = world.bind(&[C]);
    world.owner(C).offline(FrameRange::new(Pfn::new(u64::from(C) * 64), 2).unwrap()).unwrap();
    assert_eq!(
        world.exhaust_bound(&policy, A),
        (vec![A, A, B, B], PlaceError::NoMemory { order: Order::ZERO })
    );
}

#[test]
fn a_policy_is_void_when_the_last_of_its_nodes_left() {
    let mut world = World::of_two_and_two(OPEN, 1);
    assert!(!Policy::DEFAULT.is_void() && !Policy::LOCAL.is_void());
    let wish = |mode, named: &[u16]| Wish::new(mode, mask(named)).numbering(Numbering::Static);
    let wishes = [wish(Mode::Bind, &[B, C]), wish(Mode::Bind, &[C]), wish(Mode::Interleave, &[B])];
    let mut policies = wishes.map(|wish| world.wish(&wish).unwrap());
    let mut rebound = |world: &World<'_>| {
        policies.each_mut().map(|policy| {
            policy.rebind(world.nodes, &world.mems());
            let page = Placement::new(PageOrigin::PrivateAnonymous, id(A)).range(policy);
            let wanted = page.wanted(world.nodes.distances()).map(|wanted| numbers(wanted.any()));
            assert_eq!(policy.is_void(), wanted.is_none());
            wanted
        })
    };
    assert_eq!(rebound(&world), [Some(vec![B, C]), Some(vec![C]), Some(vec![B])]);
    world.leave(B);
    assert_eq!(rebound(&world), [Some(vec![C]), Some(vec![C]), None]);
    world.leave(C);
    assert_eq!(rebound(&world), [None, None, None]);
}

#[test]
fn a_full_bind_is_a_shortage_of_its_nodes_and_spills_nowhere() {
    let world = World::of_two_and_two(OPEN, 4);
    let policy = world.bind(&[C]);
    let page = Placement::new(PageOrigin::PrivateAnonymous, id(A)).range(&policy);
    let huge = page.order(Order::new(3).unwrap());
    let full = |order| PlaceError::BoundNodesFull { node: id(C), order };
    // An order that the node never has, then one page too many.
    assert_eq!(world.nodes.place(&huge), Err(full(Order::new(3).unwrap())));
    let (order, error) = world.exhaust(&page);
    assert_eq!((order, error), (vec![C; 4], full(Order::ZERO)));
    assert_eq!((world.used(A), world.used(B), world.used(D)), (0, 0, 0));
    assert_eq!(page.plan(world.nodes.distances()).scope(), mask(&[C]));
}

#[test]
fn a_grant_that_was_taken_outlives_nothing() {
    // The fault path holds its grant only for the request: a node is given up right after.
    let mut world = World::of_two_and_two(OPEN, 1);
    let policy = world.bind(&[C]);
    assert_eq!(world.exhaust_bound(&policy, A).0, [C]);
    assert_eq!(world.nodes.state(id(C)).unwrap().references(), 0);
    world.leave(C);
}

#[test]
fn a_fault_on_a_cpu_that_the_registry_does_not_know_is_refused() {
    let world = World::of_two_and_two(OPEN, 1);
    let page = Placement::new(PageOrigin::PrivateAnonymous, id(900));
    let unknown = PlaceError::Refused(AllocError::Unknown { node: id(900) });
    assert_eq!(world.nodes.place(&page).map(|_| ()), Err(unknown));
}

#[test]
fn stamps_tell_lives_apart() {
    let mut world = World::of_two_and_two(OPEN, 1);
    let before = world.nodes.stamp();
    world.leave(C);
    world.join(C, OPEN);
    assert!(world.nodes.stamp() > before);
    assert!(world.nodes.grant_as_of(id(C), Reason::UserPolicy, before).is_err());
    assert!(world.nodes.grant_as_of(id(C), Reason::UserPolicy, world.nodes.stamp()).is_ok());
    assert!(world.nodes.grant_as_of(id(D), Reason::UserPolicy, before).is_ok());
    assert!(matches!(world.nodes.alloc(Request::page()), Ok(frame) if frame.node() == id(A)));
}
