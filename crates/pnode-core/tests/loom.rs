//! The registry's protocols under a model checker: every interleaving up to a few preemptions, with every value that a
//! weaker memory than x86 may show.
//!
//! `cargo run --release --manifest-path tests/weaken/Cargo.toml -- --crate pnode-core` takes each order in `registry`, `sync`
//! and `small` away in turn and prints which of these models notices. What that cannot take away was left out by hand:
//!
//! | left out | noticed by |
//! | --- | --- |
//! | a walk: its second look at the word | `a_zone_that_turns_private_serves_no_walker` and its neighbours |
//! | offline: the word stays | `a_zone_that_turns_private_serves_no_walker` |
//! | offline: the reference stays | `a_slot_that_stays_ordinary_does_not_lead_to_its_last_zone` |
//! | closing a zone does not isolate it | `an_offline_zone_has_no_frame_out` and its neighbours |
//! | the fact that a node is serviced before the service | `a_service_is_found_whole` |
#![cfg(loom)]
#![allow(missing_docs)]

use loom::thread;
use pnode_core::sync::{Lock, Published, UnsafeCell, explore};
use pnode_core::{
    AllocError, Distances, Features, FrameRange, FrameSource, FrameZone, MemoryClass, MigrateType, NodeId,
    NodeOps, Nodes, Order, Owner, Pfn, Private, Reason, Request, Service, Storage, UnregisterError,
    Watermarks, WordZone,
};

type Registry = Nodes<'static, WordZone>;

const NODE: [NodeId; 2] = [node(0), node(1)];

const fn node(number: u16) -> NodeId {
    match NodeId::new(number) {
        Ok(node) => node,
        Err(_) => panic!("a small number"),
    }
}

/// Threads of a model live for ever as far as the compiler knows, and so must what they share.
fn shared<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A registry of two nodes and two zone slots: the smallest in which a zone changes hands and a slot is used again.
fn registry() -> &'static Registry {
    registry_with::<2>()
}

fn registry_with<const ZONES: usize>() -> &'static Registry {
    let storage = Box::leak(Box::new(Storage::<WordZone, 2, ZONES>::new()));
    shared(Nodes::new(storage.slots(), Distances::uniform(2).unwrap()).unwrap())
}

/// A zone of one frame.
fn zone(pfn: u64) -> &'static WordZone {
    shared(WordZone::new(FrameRange::new(Pfn::new(pfn), 1).unwrap()).unwrap())
}

fn private(nodes: &'static Registry, node: NodeId, features: Features) -> Owner<'static, WordZone> {
    nodes.register(node, Private::class(MemoryClass::FAR), features).unwrap()
}

/// Memory that only the holder of some right may touch: loom reports two holders at once.
struct Memory(UnsafeCell<()>);

// SAFETY: the cell holds nothing, and the models never follow its pointer.
unsafe impl Sync for Memory {}

impl Memory {
    fn new() -> &'static Self {
        shared(Self(UnsafeCell::new(())))
    }

    fn touch(&self) {
        self.0.with_mut(|_| ());
    }
}

/// A zone goes from an ordinary node to a private one while a general request walks.
#[test]
fn a_zone_that_turns_private_serves_no_walker() {
    explore(3, || {
        let nodes = registry();
        let moving = zone(8);
        let ordinary = nodes.ordinary(NODE[0], MemoryClass::DRAM).unwrap();
        ordinary.online(moving).unwrap();
        let owner = private(nodes, NODE[1], Features::NONE);
        let walker = thread::spawn(move || nodes.alloc(Request::page()));
        let moved = ordinary.offline(moving.span()).is_ok();
        if moved {
            owner.online(moving).unwrap();
        }
        match walker.join().unwrap() {
            Ok(frame) => assert!(!moved && frame.node() == NODE[0], "{frame:?}"),
            Err(error) => assert_eq!((moved, error), (true, AllocError::NoMemory { order: Order::ZERO })),
        }
    });
}

/// The slot of an ordinary zone is used again by a private zone that was never isolated, under a stalled walker.
#[test]
fn a_slot_that_turns_private_serves_no_walker() {
    explore(3, || {
        let nodes = registry();
        let (before, after) = (zone(8), zone(16));
        let ordinary = nodes.ordinary(NODE[0], MemoryClass::DRAM).unwrap();
        ordinary.online(before).unwrap();
        let owner = private(nodes, NODE[1], Features::NONE);
        let walker = thread::spawn(move || nodes.alloc(Request::page()));
        let moved = ordinary.offline(before.span()).is_ok();
        if moved {
            owner.online(after).unwrap();
        }
        if let Ok(frame) = walker.join().unwrap() {
            assert!(!moved && frame.node() == NODE[0], "{frame:?}");
        }
    });
}

/// A zone turns private and its old slot is used again by an ordinary zone: a walker that meets the slot's next word does
/// not follow the slot's last reference.
#[test]
fn a_slot_that_stays_ordinary_does_not_lead_to_its_last_zone() {
    explore(2, || {
        let nodes = registry();
        let (moving, next) = (zone(8), zone(16));
        let ordinary = nodes.ordinary(NODE[0], MemoryClass::DRAM).unwrap();
        ordinary.online(moving).unwrap();
        let owner = private(nodes, NODE[1], Features::NONE);
        let walker = thread::spawn(move || nodes.alloc(Request::page()).map(|frame| frame.pfn()));
        let moved = ordinary.offline(moving.span()).is_ok();
        if moved {
            ordinary.online(next).unwrap();
            owner.online(moving).unwrap();
        }
        let taken = walker.join().unwrap();
        assert!(!(moved && taken == Ok(Pfn::new(8))), "{taken:?}");
    });
}

/// A private zone moves to another private node under the walk of a grant holder.
#[test]
fn a_zone_that_changes_owners_serves_no_grant_of_the_first() {
    explore(3, || {
        let nodes = registry();
        let moving = zone(8);
        let first = private(nodes, NODE[0], Features::NONE);
        let second = private(nodes, NODE[1], Features::NONE);
        first.online(moving).unwrap();
        let grant = first.grant().unwrap();
        let walker = thread::spawn(move || grant.alloc(Request::page()));
        let moved = first.offline(moving.span()).is_ok();
        if moved {
            second.online(moving).unwrap();
        }
        assert_eq!(walker.join().unwrap().is_ok(), !moved);
    });
}

/// Zones come and go beside one that stays: whoever asks for memory of that one gets it, at any moment.
#[track_caller]
fn what_stays_is_found(request: Request<'static>) {
    explore(3, move || {
        let nodes = registry();
        let (leaving, staying) = (zone(8), zone(16));
        let ordinary = nodes.ordinary(NODE[0], MemoryClass::DRAM).unwrap();
        ordinary.online(leaving).unwrap();
        ordinary.online(staying).unwrap();
        // Full, so that every walk has to come to the one that stays.
        leaving.alloc(Order::ZERO, MigrateType::Movable).unwrap();
        let walker = thread::spawn(move || nodes.alloc(request));
        leaving.free(Pfn::new(8), Order::ZERO).unwrap();
        if ordinary.offline(leaving.span()).is_ok() {
            private(nodes, NODE[1], Features::NONE).online(leaving).unwrap();
        }
        assert_eq!(walker.join().unwrap().map(|frame| frame.node()), Ok(NODE[0]));
    });
}

#[test]
fn a_walk_of_a_fallback_list_finds_what_stays() {
    what_stays_is_found(Request::page());
}

#[test]
fn a_walk_of_an_own_list_finds_what_stays() {
    what_stays_is_found(Request::page().this_node_only());
}

/// A zone comes online in a slot before that of one that stays: who finds it finds the other behind it.
fn a_zone_that_comes_hides_none<const ZONES: usize>(preemptions: usize) {
    explore(preemptions, || {
        let nodes = registry_with::<ZONES>();
        let ordinary = nodes.ordinary(NODE[0], MemoryClass::DRAM).unwrap();
        let owner = private(nodes, NODE[1], Features::NONE);
        let full = |pfn| {
            let zone = zone(pfn);
            zone.alloc(Order::ZERO, MigrateType::Movable).unwrap();
            zone
        };
        for slot in 2..ZONES as u64 {
            ordinary.online(full(64 * slot)).unwrap();
        }
        let (passing, staying) = (zone(8), zone(16));
        ordinary.online(passing).unwrap();
        ordinary.online(staying).unwrap();
        ordinary.offline(passing.span()).unwrap();
        // The slot's link now ends another list.
        owner.online(passing).unwrap();
        owner.offline(passing.span()).unwrap();
        let walker = thread::spawn(move || nodes.alloc(Request::page().this_node_only()));
        // Full, so that the walk goes on.
        ordinary.online(full(24)).unwrap();
        assert_eq!(walker.join().unwrap().map(|frame| frame.pfn()), Ok(Pfn::new(16)));
    });
}

#[test]
fn a_zone_that_comes_first_hides_none() {
    a_zone_that_comes_hides_none::<2>(3);
}

#[test]
fn a_zone_that_comes_between_hides_none() {
    a_zone_that_comes_hides_none::<3>(2);
}

/// The walker's epoch is new and so must its list be: the copy was empty before.
#[test]
fn a_list_is_as_new_as_its_epoch() {
    explore(3, || {
        let nodes = registry();
        let ordinary = nodes.ordinary(NODE[0], MemoryClass::DRAM).unwrap();
        ordinary.online(zone(8)).unwrap();
        let walker = thread::spawn(move || nodes.alloc(Request::page()));
        ordinary.online(zone(16)).unwrap();
        assert_eq!(walker.join().unwrap().map(|frame| frame.node()), Ok(NODE[0]));
    });
}

/// The frames that a zone keeps back are kept back from its first moment on, also from a walker with an older list.
#[test]
fn a_walker_that_finds_a_zone_finds_its_watermarks() {
    explore(2, || {
        let nodes = registry();
        let (before, after) = (zone(8), zone(16));
        let ordinary = nodes.ordinary(NODE[0], MemoryClass::DRAM).unwrap();
        ordinary.online(before).unwrap();
        let walker = thread::spawn(move || nodes.alloc(Request::page()).map(|frame| frame.pfn()));
        if ordinary.offline(before.span()).is_ok() {
            ordinary.online_with(after, Watermarks::new(1, 1, 1).unwrap()).unwrap();
        }
        assert_ne!(walker.join().unwrap(), Ok(Pfn::new(16)));
    });
}

/// Who went offline hands out nothing; who handed out does not go offline.
#[test]
fn an_offline_zone_has_no_frame_out() {
    explore(3, || {
        let nodes = registry();
        let only = zone(8);
        let owner = private(nodes, NODE[1], Features::NONE);
        owner.online(only).unwrap();
        let grant = owner.grant().unwrap();
        let taker = thread::spawn(move || grant.alloc(Request::page()));
        let gone = owner.offline(only.span()).is_ok();
        let taken = taker.join().unwrap();
        assert_ne!(taken.is_ok(), gone, "{taken:?}");
        assert_eq!(only.used_frames(), u64::from(!gone));
    });
}

/// When `drain` returns, the frames that are out are all that there will ever be.
#[test]
fn a_draining_node_hands_out_nothing_new() {
    explore(3, || {
        let nodes = registry();
        let only = zone(8);
        let owner = private(nodes, NODE[1], Features::DEMOTION | Features::RECLAIM);
        owner.online(only).unwrap();
        let taker = thread::spawn(move || match nodes.grant(NODE[1], Reason::Demotion) {
            Ok(grant) => grant.alloc(Request::page()).is_ok(),
            Err(_) => false,
        });
        owner.drain().unwrap();
        let out = owner.used_frames();
        assert_eq!(u64::from(taker.join().unwrap()), out);
    });
}

/// The memory of a frame passes from owner to owner: from who frees it to who takes it next.
#[test]
fn a_frame_has_one_owner() {
    explore(3, || {
        let nodes = registry();
        nodes.ordinary(NODE[0], MemoryClass::DRAM).unwrap().online(zone(8)).unwrap();
        let memory = Memory::new();
        let user = move || {
            if let Ok(frame) = nodes.alloc(Request::page()) {
                memory.touch();
                nodes.free(frame).unwrap();
            }
        };
        let other = thread::spawn(user);
        user();
        other.join().unwrap();
    });
}

/// The contract of a zone on which the walk stands: who gets a block because of a reopening sees what came before it.
#[test]
fn who_takes_after_a_reopening_sees_what_came_before() {
    explore(6, || {
        let zone = zone(8);
        let memory = Memory::new();
        zone.isolate();
        let taker = thread::spawn(move || {
            if zone.alloc(Order::ZERO, MigrateType::Movable).is_ok() {
                memory.touch();
            }
        });
        memory.touch();
        zone.reopen();
        taker.join().unwrap();
    });
}

/// The contract of a zone on which unplugging stands: isolated and empty, it is left by all its users for good.
#[test]
fn an_isolated_zone_that_is_empty_is_left_by_all() {
    explore(6, || {
        let zone = zone(8);
        let memory = Memory::new();
        let user = thread::spawn(move || {
            if let Ok(pfn) = zone.alloc(Order::ZERO, MigrateType::Movable) {
                memory.touch();
                zone.free(pfn, Order::ZERO).unwrap();
            }
        });
        zone.isolate();
        if zone.used_frames() == 0 {
            memory.touch();
        }
        user.join().unwrap();
    });
}

/// What a user did with a frame is visible to who takes its zone away.
#[test]
fn who_unplugs_a_zone_sees_what_its_users_did() {
    explore(3, || {
        let nodes = registry();
        let only = zone(8);
        let owner = private(nodes, NODE[1], Features::NONE);
        owner.online(only).unwrap();
        let grant = owner.grant().unwrap();
        let memory = Memory::new();
        let user = thread::spawn(move || {
            if let Ok(frame) = grant.alloc(Request::page()) {
                memory.touch();
                nodes.free(frame).unwrap();
            }
        });
        if owner.offline(only.span()).is_ok() {
            memory.touch();
        }
        user.join().unwrap();
    });
}

/// What a grant's holder did is visible to who gave the node up, and nobody holds a grant on a node that is gone.
#[test]
fn unregistering_waits_for_grants() {
    explore(3, || {
        let nodes = registry();
        let owner = private(nodes, NODE[1], Features::PIN);
        let memory = Memory::new();
        let holder = thread::spawn(move || {
            let grant = nodes.grant(NODE[1], Reason::Pin);
            if grant.is_ok() {
                memory.touch();
            }
        });
        match owner.unregister() {
            Ok(()) => memory.touch(),
            Err(error) => assert_eq!(error, UnregisterError::Referenced { node: NODE[1], references: 1 }),
        }
        holder.join().unwrap();
    });
}

/// The id changes owners while somebody asks: the doors of the first life open nothing in the second.
#[test]
fn the_doors_of_an_earlier_life_are_shut() {
    explore(3, || {
        let nodes = registry();
        let owner = private(nodes, NODE[1], Features::PIN);
        let asker = thread::spawn(move || nodes.grant(NODE[1], Reason::Pin));
        let given_up = owner.unregister().is_ok();
        if given_up {
            private(nodes, NODE[1], Features::NONE);
        }
        assert!(!(asker.join().unwrap().is_ok() && given_up));
    });
}

/// The id gets its first owner while somebody asks: who sees it registered sees its doors.
#[test]
fn a_registered_node_has_its_doors() {
    explore(3, || {
        let nodes = registry();
        let owner = private(nodes, NODE[1], Features::PIN);
        owner.unregister().unwrap();
        let asker = thread::spawn(move || nodes.grant(NODE[1], Reason::Oom).is_ok());
        private(nodes, NODE[1], Features::NONE);
        assert!(!asker.join().unwrap());
    });
}

/// Who remembered a node by its id and a stamp never has a grant on the next node of that id, while one is given up and the
/// other registered.
#[test]
fn a_remembered_node_is_not_a_later_one() {
    explore(3, || {
        let nodes = registry();
        let first = private(nodes, NODE[1], Features::USER_NUMA);
        let stamp = nodes.stamp();
        let asker = thread::spawn(move || nodes.grant_as_of(NODE[1], Reason::UserPolicy, stamp));
        let gone = first.unregister().is_ok();
        if gone {
            private(nodes, NODE[1], Features::USER_NUMA);
        }
        // A grant on the first node would have kept it.
        let granted = asker.join().unwrap();
        assert!(granted.is_err() || !gone, "granted {granted:?} after its node was given up");
    });
}

/// A stamp that counts a registration was taken when the node was there: nobody remembers a node before it exists.
#[test]
fn a_stamp_counts_nodes_that_are_there() {
    explore(3, || {
        let nodes = registry();
        let before = nodes.stamp();
        let watcher = thread::spawn(move || {
            let counted = nodes.stamp() > before;
            !counted || nodes.state(NODE[1]).unwrap().is_registered()
        });
        private(nodes, NODE[1], Features::NONE);
        assert!(watcher.join().unwrap());
    });
}

/// A service whose callback touches memory that goes when the node goes.
struct Toucher(&'static Memory);

impl NodeOps for Toucher {
    fn memory_failure(&self, _cx: pnode_core::ops::NoSleep<'_>, _pfn: Pfn) {
        self.0.touch();
    }
}

/// A callback runs while its service is ended and the node given up: giving up waits for it.
#[test]
fn unregistering_waits_for_callbacks() {
    explore(3, || {
        let nodes = registry();
        let only = zone(8);
        let owner = private(nodes, NODE[1], Features::NONE);
        owner.online(only).unwrap();
        let memory = Memory::new();
        owner.serve(shared(Service::new(shared(Toucher(memory))))).unwrap();
        let caller = thread::spawn(move || {
            nodes.with_service(NODE[1], |service| {
                service.ops().memory_failure(pnode_core::ops::NoSleep::here(), Pfn::new(8));
            })
        });
        owner.end_service().unwrap();
        owner.offline(only.span()).unwrap();
        if owner.unregister().is_ok() {
            memory.touch();
        }
        caller.join().unwrap();
    });
}

/// Whoever finds a service finds all that was done before it was installed.
#[test]
fn a_service_is_found_whole() {
    explore(3, || {
        let nodes = registry();
        let owner = private(nodes, NODE[1], Features::NONE);
        owner.online(zone(8)).unwrap();
        let memory = Memory::new();
        let caller = thread::spawn(move || {
            let serviced = nodes.state(NODE[1]).unwrap().is_serviced();
            let found = nodes.with_service(NODE[1], |service| {
                service.ops().memory_failure(pnode_core::ops::NoSleep::here(), Pfn::new(8));
            });
            assert!(!serviced || found.is_some());
        });
        memory.touch();
        owner.serve(shared(Service::new(shared(Toucher(memory))))).unwrap();
        caller.join().unwrap();
    });
}

/// Whoever is told of a node's memory, whichever way, sees all that was done before it came.
#[test]
fn who_is_told_of_memory_sees_what_came_before() {
    type Ask = fn(&'static Registry, &Owner<'static, WordZone>) -> bool;
    let asks: [Ask; 5] = [
        |nodes, _| nodes.state(NODE[1]).unwrap().has_memory(),
        |nodes, _| nodes.states().memory.contains(NODE[1]),
        |nodes, _| nodes.opened(Features::RECLAIM).contains(NODE[1]),
        |nodes, _| nodes.changes() != 0,
        |_, owner| owner.state().unwrap().has_memory(),
    ];
    for ask in asks {
        explore(3, move || {
            let nodes = registry();
            let owner = shared(private(nodes, NODE[1], Features::RECLAIM));
            let memory = Memory::new();
            let asker = thread::spawn(move || ask(nodes, owner).then(|| memory.touch()));
            memory.touch();
            owner.online(zone(8)).unwrap();
            asker.join().unwrap();
        });
    }
}

/// Whoever is told a node's doors is told those of its registration.
#[test]
fn who_asks_for_doors_is_told_those_of_the_registration() {
    explore(3, || {
        let nodes = registry();
        let asker = thread::spawn(move || nodes.features(NODE[1]));
        private(nodes, NODE[1], Features::PIN);
        let told = asker.join().unwrap();
        assert!(told.is_none_or(|features| features == Features::PIN), "{told:?}");
    });
}

#[test]
fn a_published_reference_is_found_whole() {
    explore(3, || {
        let slot: &'static Published<'static, &'static Memory> = shared(Published::empty());
        let memory = Memory::new();
        let reader = thread::spawn(move || slot.get().map(|memory| memory.touch()));
        memory.touch();
        slot.publish(shared(memory));
        reader.join().unwrap();
    });
}

#[test]
fn a_lock_has_one_holder() {
    explore(3, || {
        let lock: &'static Lock<u32> = shared(Lock::new(0));
        let adder = thread::spawn(move || *lock.lock() += 1);
        let added = match lock.try_lock() {
            Some(mut guard) => {
                *guard += 1;
                1
            }
            None => 0,
        };
        *lock.lock() += 1;
        adder.join().unwrap();
        assert_eq!(*lock.lock(), added + 2);
    });
}
