//! The result tables of the private-node series, in the terms of this crate: each row is exhausted frame by frame.
#![allow(missing_docs)]

mod policy_world;

use pnode_core::policy::{Mode, PlaceError, PolicyError, Target, Wish};
use pnode_core::{
    AllocError, Denied, Features, Frame, NodeMask, Order, PageOrigin, Placement, Policy, Reason, Request,
};
use policy_world::{A, B, C, CLOSED, D, Kind, OPEN, World, id, mask, numbers};

/// Which nodes serve a request until it fails, each named once in the order they came.
#[track_caller]
fn served_by(world: &World, mut take: impl FnMut() -> Option<Frame>) -> Vec<u16> {
    let frames: Vec<Frame> = std::iter::from_fn(&mut take).collect();
    let mut order: Vec<u16> = frames.iter().map(|frame| frame.node().get()).collect();
    frames.into_iter().for_each(|frame| world.nodes.free(frame).unwrap());
    order.dedup();
    order
}

/// The dossier's table of flags: what `__GFP_PRIVATE` said with a bit, a grant says as a value. The bare flag's tail of
/// ordinary nodes is a second, ordinary request here.
#[test]
fn invariant_12_the_result_table() {
    let world = World::of_two_and_two(OPEN, 2);
    let nodes = world.nodes;
    let everything = NodeMask::ALL;
    let ordinary = |request: Request<'_>| served_by(&world, || nodes.alloc(request).ok());
    let granted = |on: u16, request: Request<'_>| {
        let grant = nodes.grant(id(on), Reason::UserPolicy).unwrap();
        served_by(&world, || grant.alloc(request).ok())
    };
    let granted_then_ordinary = |on: u16, mask: &NodeMask| {
        let grant = nodes.grant(id(on), Reason::UserPolicy).unwrap();
        let request = Request::page().prefer(id(on)).nodemask(mask);
        served_by(&world, || grant.alloc(request).or_else(|_| nodes.alloc(request)).ok())
    };

    // no grant, prefers C, any mask: the ordinary nodes in distance order seen from C.
    assert_eq!(ordinary(Request::page().prefer(id(C))), [A, B]);
    assert_eq!(ordinary(Request::page().prefer(id(C)).nodemask(&everything)), [A, B]);
    // no grant, C only: nowhere.
    let only = Request::page().prefer(id(C)).this_node_only();
    assert_eq!(ordinary(only), []);
    assert_eq!(nodes.alloc(only), Err(AllocError::Private { node: id(C) }));
    // a grant on C, then ordinary, no mask: C, else A, else B.
    assert_eq!(granted_then_ordinary(C, &everything), [C, A, B]);
    // ... {C,D}: C only.
    assert_eq!(granted_then_ordinary(C, &mask(&[C, D])), [C]);
    // ... {A,C,D}: C, else A.
    assert_eq!(granted_then_ordinary(C, &mask(&[A, C, D])), [C, A]);
    // a grant on C alone: C only.
    assert_eq!(granted(C, Request::page()), [C]);
    // prefers A, {A,C}: A only; a mask never adds a node.
    assert_eq!(ordinary(Request::page().prefer(id(A)).nodemask(&mask(&[A, C]))), [A]);
    // Beyond the table: a grant on C for a request that prefers A is refused, not bent.
    let grant = nodes.grant(id(C), Reason::UserPolicy).unwrap();
    let other = AllocError::OtherNode { granted: id(C), preferred: id(A) };
    assert_eq!(grant.alloc(Request::page().prefer(id(A))), Err(other));
}

/// What may be set: every mode over every set of the four nodes, with both private nodes open, one, or none.
#[test]
fn invariant_12_setting_a_policy() {
    for kinds in [[OPEN, OPEN], [OPEN, CLOSED], [CLOSED, CLOSED]] {
        let world = World::new(&[Kind::Ordinary, Kind::Ordinary, kinds[0], kinds[1]], 1);
        for mode in Mode::ALL {
            for bits in 0u16..16 {
                let named: Vec<u16> = (0..4).filter(|n| bits >> n & 1 == 1).collect();
                let private: Vec<u16> = named.iter().copied().filter(|n| *n >= C).collect();
                let closed = private.iter().copied().find(|n| kinds[usize::from(n - C)] == CLOSED);
                let expected = match mode {
                    Mode::Default | Mode::Local if named.is_empty() => Ok(()),
                    Mode::Default | Mode::Local => Err(PolicyError::TakesNoNodes { mode }),
                    _ if named.is_empty() => Err(PolicyError::NoNodes { mode }),
                    Mode::Bind => match closed {
                        Some(node) => Err(PolicyError::NotConsenting { node: id(node) }),
                        None => Ok(()),
                    },
                    _ if private.len() == named.len() => Err(PolicyError::NothingLeft { mode }),
                    _ => Ok(()),
                };
                let policy = world.set(mode, &named);
                assert_eq!(policy.map(|_| ()), expected, "{mode} over {named:?}");
                if let Ok(policy) = policy {
                    assert_eq!(numbers(policy.private()), if mode == Mode::Bind { private } else { vec![] });
                    let rest: Vec<u16> = named.into_iter().filter(|n| *n < C).collect();
                    assert_eq!(numbers(policy.ordinary()), rest, "{mode}");
                }
            }
        }
    }
}

/// Only what the cpuset allows is looked at: a closed node outside it is no reason to refuse.
#[test]
fn a_closed_node_outside_the_cpuset_is_cut_before_consent_is_asked() {
    let world = World::of_two_and_two(CLOSED, 1);
    let inside = world.mems().child(&mask(&[A, B]));
    let wish = Wish::new(Mode::Bind, mask(&[A, C]));
    let policy = Policy::new(world.nodes, &wish, Target::Task, &inside).unwrap();
    assert_eq!(numbers(policy.ordinary()), [A]);
    let only = Wish::new(Mode::Bind, mask(&[C]));
    let refused = Policy::new(world.nodes, &only, Target::Task, &inside);
    assert_eq!(refused, Err(PolicyError::NothingLeft { mode: Mode::Bind }));
}

/// Where a bind's pages go, first frame to last. What differs from the series is said where it does.
#[test]
fn invariant_12_where_a_bind_lands() {
    let world = World::of_two_and_two(OPEN, 1);
    let full = |node: u16| PlaceError::BoundNodesFull { node: id(node), order: Order::ZERO };
    let rows: &[(&[u16], u16, &[u16])] = &[
        // {C}, CPU on A: starts at C and stays there.
        (&[C], A, &[C]),
        // {A,C}: A as long as it has a page, whichever ordinary node the CPU is on. The series fails then; here the
        // other nodes that were named are asked, each by its own grant, as in the series' later design.
        (&[A, C], A, &[A, C]),
        (&[A, C], B, &[A, C]),
        // {A,C}, CPU on C: C, else A.
        (&[A, C], C, &[C, A]),
        (&[A, C, D], C, &[C, A, D]),
        // {C,D}: C, the nearest and lowest; then D.
        (&[C, D], A, &[C, D]),
        (&[C, D], D, &[D, C]),
        (&[A, B], B, &[B, A]),
        (&[B], A, &[B]),
    ];
    for (named, cpu, expected) in rows {
        let (order, error) = world.exhaust_bound(&world.bind(named), *cpu);
        assert_eq!((order.as_slice(), error), (*expected, full(expected[0])), "bind {named:?}, CPU on {cpu}");
    }
}

/// A home node wins over the faulting CPU's node, takes no consent and opens nothing.
#[test]
fn a_home_node_is_a_place_to_start_from() {
    let world = World::new(&[Kind::Ordinary, Kind::Ordinary, OPEN, CLOSED], 1);
    let bind =
        |named: &[u16], home: u16| world.wish(&Wish::new(Mode::Bind, mask(named)).home(id(home))).unwrap();
    assert_eq!(world.exhaust_bound(&bind(&[A, B, C], C), A).0, [C, A, B]);
    assert_eq!(world.exhaust_bound(&bind(&[A, B, C], B), A).0, [B, A, C]);
    // D is closed: it is accepted as a hint and never entered.
    assert_eq!(world.exhaust_bound(&bind(&[A, B], D), B).0, [A, B]);
    let refused = world.wish(&Wish::new(Mode::Interleave, mask(&[A])).home(id(A)));
    assert_eq!(refused, Err(PolicyError::TakesNoHome { mode: Mode::Interleave }));
    let unknown = world.wish(&Wish::new(Mode::Bind, mask(&[A])).home(id(1000)));
    assert_eq!(unknown, Err(PolicyError::UnknownHome { node: id(1000) }));
}

#[test]
fn the_other_modes_use_ordinary_nodes_only_and_spill_among_them() {
    let world = World::of_two_and_two(OPEN, 1);
    let none = PlaceError::NoMemory { order: Order::ZERO };
    let rows: &[(Mode, &[u16], u16, &[u16])] = &[
        (Mode::Default, &[], B, &[B, A]),
        (Mode::Local, &[], B, &[B, A]),
        (Mode::Local, &[], C, &[A, B]),
        (Mode::Preferred, &[B, C], A, &[B, A]),
        (Mode::PreferredMany, &[B, C, D], A, &[B, A]),
        (Mode::Interleave, &[A, B, C, D], B, &[A, B]),
        (Mode::WeightedInterleave, &[B, C], A, &[B, A]),
    ];
    for (mode, named, cpu, expected) in rows {
        let policy = world.set(*mode, named).unwrap();
        let (order, error) = world.exhaust_bound(&policy, *cpu);
        assert_eq!((order.as_slice(), error), (*expected, none), "{mode} over {named:?}, CPU on {cpu}");
    }
}

#[test]
fn interleaving_takes_turns_by_index_and_weight() {
    use pnode_core::policy::Weights;
    let world = World::of_two_and_two(OPEN, 16);
    let turns = |policy: &Policy, weights: Weights<'_>| -> Vec<u16> {
        (0..8)
            .map(|turn| {
                let placement = Placement::new(PageOrigin::PrivateAnonymous, id(A)).range(policy);
                let placed = world.nodes.place(&placement.weights(weights).turn(turn)).unwrap();
                let node = placed.frame.node().get();
                world.nodes.free(placed.frame).unwrap();
                node
            })
            .collect()
    };
    let all = [A, B, C, D];
    let plain = world.set(Mode::Interleave, &all).unwrap();
    let weighted = world.set(Mode::WeightedInterleave, &all).unwrap();
    let table = [3, 1, 200, 0];
    assert_eq!(turns(&plain, Weights::new(&table)), [A, B, A, B, A, B, A, B]);
    assert_eq!(turns(&weighted, Weights::new(&table)), [A, A, A, B, A, A, A, B]);
    assert_eq!(turns(&weighted, Weights::EQUAL), [A, B, A, B, A, B, A, B]);
    // A weight of 0 counts once: no node that was named is never taken.
    assert_eq!(turns(&weighted, Weights::new(&[0, 0])), [A, B, A, B, A, B, A, B]);
}

/// Whose policy counts, and whether its private nodes do: the origin table, row by row.
#[test]
fn each_origin_asks_its_own_policy() {
    let world = World::of_two_and_two(OPEN, 1);
    let (to_b, to_c, to_d) = (world.bind(&[B]), world.bind(&[C]), world.bind(&[D]));
    let lands = |placement: Placement<'_>| world.exhaust(&placement).0;
    let page = |origin| Placement::new(origin, id(A));
    use PageOrigin::{PageCache, PrivateAnonymous, SharedAnonymous, Unmovable};

    // Private anonymous: the range's policy before the task's; an object has no say.
    assert_eq!(lands(page(PrivateAnonymous).task(&to_d).range(&to_c).object(&to_b)), [C]);
    assert_eq!(lands(page(PrivateAnonymous).task(&to_d).object(&to_b)), [D]);
    // Shared anonymous: the object's, not that of the mapping that faults first.
    assert_eq!(lands(page(SharedAnonymous).task(&to_b).range(&to_d).object(&to_c)), [C]);
    // An object without a policy follows the task among ordinary nodes, never into private ones.
    assert_eq!(lands(page(SharedAnonymous).task(&to_b).range(&to_d)), [B]);
    assert_eq!(lands(page(SharedAnonymous).task(&to_d).range(&to_d)), [A, B]);
    // Page cache and unmovable memory: the task's, without its private nodes.
    for origin in [PageCache, Unmovable] {
        assert_eq!(lands(page(origin).task(&to_b).range(&to_c).object(&to_c)), [B]);
        assert_eq!(lands(page(origin).task(&to_c).range(&to_c).object(&to_c)), [A, B]);
        assert_eq!(lands(page(origin).task(&world.bind(&[B, C]))), [B]);
    }
    // A range of local memory keeps the task's bind out.
    assert_eq!(lands(page(PrivateAnonymous).task(&to_c).range(&Policy::LOCAL)), [A, B]);
}

/// A request for unmovable memory of a task that is bound to private nodes ends: in a page while an ordinary node has
/// one, in an ordinary shortage after that.
#[test]
fn invariant_14_unmovable_memory_under_a_private_bind_terminates() {
    let world = World::of_two_and_two(OPEN, 1);
    let bound = world.bind(&[C, D]);
    let (order, error) = world.exhaust(&Placement::new(PageOrigin::Unmovable, id(A)).task(&bound));
    assert_eq!(order, [A, B]);
    assert_eq!(error, PlaceError::NoMemory { order: Order::ZERO });
}

#[test]
fn cpuset_door_and_zonelist_are_three_tests() {
    let world = World::new(&[Kind::Ordinary, Kind::Ordinary, OPEN, CLOSED], 1);
    let everything = world.mems();
    // Membership without consent.
    let closed = Wish::new(Mode::Bind, mask(&[D]));
    let refused = Policy::new(world.nodes, &closed, Target::Task, &everything);
    assert_eq!(refused, Err(PolicyError::NotConsenting { node: id(D) }));
    // Consent without membership: at the time of setting, and, for a policy that was not rebound yet, of a fault.
    let outside = everything.child(&mask(&[A, B]));
    let open = Wish::new(Mode::Bind, mask(&[C]));
    let refused = Policy::new(world.nodes, &open, Target::Task, &outside);
    assert_eq!(refused, Err(PolicyError::NothingLeft { mode: Mode::Bind }));
    let before = world.bind(&[C]);
    let page = Placement::new(PageOrigin::PrivateAnonymous, id(A)).range(&before);
    assert_eq!(world.exhaust(&page.mems(&outside)).0, [A, B]);
    assert_eq!(world.exhaust(&page.mems(&everything)).0, [C]);
    // Both, and no grant: an ordinary request that prefers the node.
    assert_eq!(
        world.nodes.alloc(Request::page().prefer(id(C)).this_node_only()),
        Err(AllocError::Private { node: id(C) })
    );
    let denied = Denied::NotOpened { node: id(C), reason: Reason::Demotion, door: Features::DEMOTION };
    assert_eq!(world.nodes.grant(id(C), Reason::Demotion).map(|_| ()), Err(denied));
}

#[test]
fn a_cpuset_lends_its_ordinary_nodes_and_never_its_private_ones() {
    let world = World::of_two_and_two(OPEN, 1);
    let root = world.mems();
    assert_eq!((numbers(root.ordinary()), numbers(root.private())), (vec![A, B], vec![C, D]));
    let batch = root.child(&mask(&[B, C]));
    assert_eq!((numbers(batch.ordinary()), numbers(batch.private())), (vec![B], vec![C]));
    // Asks for private nodes only: its own of those, and its parent's ordinary ones.
    let device = batch.child(&mask(&[C, D]));
    assert_eq!((numbers(device.ordinary()), numbers(device.private())), (vec![B], vec![C]));
    // Asks for nothing that is there.
    let empty = batch.child(&mask(&[A]));
    assert_eq!((numbers(empty.ordinary()), numbers(empty.private())), (vec![B], vec![]));
}

#[test]
fn move_pages_needs_the_door_on_both_sides() {
    use pnode_core::policy::MoveDenied::{From, NotAllowed, To};
    let world = World::new(&[Kind::Ordinary, Kind::Ordinary, OPEN, CLOSED, Kind::Absent], 1);
    let mems = world.mems().child(&mask(&[A, C, D]));
    let check = |from: u16, to: u16| world.nodes.check_move(id(from), id(to), &mems);
    assert_eq!(check(A, C), Ok(()));
    assert_eq!(check(C, A), Ok(()));
    assert_eq!(check(A, D), Err(To { node: id(D) }));
    assert_eq!(check(D, A), Err(From { node: id(D) }));
    assert_eq!(check(A, 4), Err(To { node: id(4) }));
    assert_eq!(check(A, 1000), Err(To { node: id(1000) }));
    assert_eq!(check(A, B), Err(NotAllowed { node: id(B) }));
}
