//! Compressed RAM as a private node: registered all or nothing, served through its callbacks, and taken away in order.

#[path = "support/lent.rs"]
mod lent;
#[path = "support/synth.rs"]
mod synth;

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;

use lent::words;
use pnode_compress::codec::Scratch;
use pnode_compress::cram::{
    Cram, CramHost, CramNode, CramNodeError, CramOps, Curve, DemoteError, FaultError, LifeError, Phase,
    Pressure, Resident, Stale,
};
use pnode_compress::memory::{Mapped, PageBytes};
use pnode_compress::store::{Config, Shard, Store};
use pnode_core::ops::{
    Access, Block, BoostOwner, FaultVerdict, FreeVerdict, MaySleep, MoveError, Moved, NoSleep, Service,
    SwapRule,
};
use pnode_core::reclaim::Boost;
use pnode_core::{
    Distances, Features, FrameRange, Grant, MemoryClass, NodeId, Nodes, OnlineError, Order, PageOrigin,
    PageSize, Pfn, Private, ServiceError, Storage, UnregisterError, WordZone,
};

/// What every page of these tests is for, where nothing else is said.
const ANONYMOUS: PageOrigin = PageOrigin::PrivateAnonymous;
const PAGE: usize = 4096;
const FRAMES: u64 = 24;
const ADVERTISED: u32 = 64;

type Registry = Nodes<'static, WordZone>;
type Memory = Mapped<Grant<'static, WordZone>>;

fn id(number: u16) -> NodeId {
    NodeId::new(number).unwrap()
}

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

fn zone(start: u64, frames: u64) -> &'static WordZone {
    leak(WordZone::new(FrameRange::new(Pfn::new(start), frames).unwrap()).unwrap())
}

fn registry() -> &'static Registry {
    let nodes = leak(
        Nodes::new(leak(Storage::<WordZone, 4, 4>::new()).slots(), Distances::uniform(4).unwrap()).unwrap(),
    );
    nodes.ordinary(id(0), MemoryClass::DRAM).unwrap().online(zone(0, 16)).unwrap();
    nodes
}

/// A host that keeps pages by the number of their block, in ordinary memory or in the node.
struct Host {
    cram: &'static Cram<'static>,
    store: Mutex<Option<Store<'static, Memory>>>,
    pages: Mutex<HashMap<u64, Place>>,
    /// Frames of ordinary memory that promotions find.
    spare: Mutex<usize>,
}

enum Place {
    Ordinary(Vec<u8>),
    Compressed(Resident),
}

impl Host {
    fn with<R>(
        &self,
        work: impl FnOnce(
            &mut pnode_compress::cram::Handler<'_, '_, pnode_compress::store::Worker<'_, 'static, Memory>>,
        ) -> R,
    ) -> R {
        let store = self.store.lock().unwrap();
        let (mut scratch, mut buffer) = (Box::new(Scratch::new()), vec![0; PAGE]);
        let worker =
            store.as_ref().expect("the store is there").worker(0, &mut scratch, &mut buffer).unwrap();
        work(&mut self.cram.handler(worker))
    }

    fn resident(&self, block: Block) -> Result<Resident, FaultError> {
        match self.pages.lock().unwrap().get(&block.pfn.get()) {
            Some(Place::Compressed(resident)) => Ok(*resident),
            _ => Err(Stale { page: Resident::NOBODY }.into()),
        }
    }

    fn block_of(&self, resident: Resident) -> Block {
        let pages = self.pages.lock().unwrap();
        let found = pages.iter().find(|(_, place)| matches!(place, Place::Compressed(at) if *at == resident));
        Block { pfn: Pfn::new(*found.expect("a resident page has a place").0), order: Order::ZERO }
    }
}

impl CramHost for &'static Host {
    fn demote(&self, block: Block) -> Result<(), DemoteError> {
        let mut pages = self.pages.lock().unwrap();
        let Some(place) = pages.get_mut(&block.pfn.get()) else { return Err(DemoteError::Busy) };
        let Place::Ordinary(bytes) = place else { return Err(DemoteError::Busy) };
        let resident = self.with(|handler| handler.demote(ANONYMOUS, bytes))?;
        *place = Place::Compressed(resident);
        *self.spare.lock().unwrap() += 1;
        Ok(())
    }

    fn promote(&self, block: Block) -> Result<(), FaultError> {
        let resident = self.resident(block)?;
        let mut spare = self.spare.lock().unwrap();
        let mut frame = vec![0; PAGE];
        self.with(|handler| {
            let promotion = handler.write_fault(resident)?;
            if *spare == 0 {
                return Err(promotion.no_memory());
            }
            promotion.copy_to(&mut frame)?.finish();
            Ok(())
        })?;
        *spare -= 1;
        self.pages.lock().unwrap().insert(block.pfn.get(), Place::Ordinary(frame));
        Ok(())
    }

    fn free(&self, block: Block) -> Result<(), FaultError> {
        let resident = self.resident(block)?;
        self.with(|handler| handler.free(resident))?;
        self.pages.lock().unwrap().remove(&block.pfn.get());
        Ok(())
    }
}

struct World {
    nodes: &'static Registry,
    node: CramNode<'static, WordZone>,
    host: &'static Host,
    ops: &'static CramOps<'static, &'static Host>,
}

fn block(number: u64) -> Block {
    Block { pfn: Pfn::new(number), order: Order::ZERO }
}

impl World {
    /// A node of 24 frames at work, with a store of which up to five blocks are used.
    fn new(curve: Curve) -> Self {
        let nodes = registry();
        let cram: &'static Cram<'static> =
            leak(Cram::new(ADVERTISED, curve, words(Cram::words(ADVERTISED)).leak()).unwrap());
        let host = leak(Host {
            cram,
            store: Mutex::new(None),
            pages: Mutex::new(HashMap::new()),
            spare: Mutex::new(0),
        });
        let host: &'static Host = host;
        let ops: &'static CramOps<'static, &'static Host> = leak(CramOps::new(cram, host));
        let service = leak(Service::new(ops));
        let zones = [zone(64, FRAMES)];
        let node =
            CramNode::register(nodes, id(1), CramNode::<WordZone>::FEATURES, &zones, cram, service).unwrap();
        let range = FrameRange::new(Pfn::new(64), FRAMES).unwrap();
        let base = NonNull::from(vec![PageBytes::ZEROED; FRAMES as usize].leak()).cast::<u8>();
        // SAFETY: the bytes are leaked and have the frames' length; the grant hands out each frame once; nobody else
        // has the address.
        let memory = unsafe { Mapped::new(node.grant().unwrap(), base, range, PageSize::KIB4) };
        let config = Config::new(ADVERTISED, 5);
        let shards = leak([Shard::new()]);
        let store = Store::new(config, memory, words(config.words().unwrap()).leak(), shards).unwrap();
        *host.store.lock().unwrap() = Some(store);
        Self { nodes, node, host, ops }
    }

    fn fill(&self, kind: &str, numbers: std::ops::Range<u64>) -> Vec<Block> {
        let pages = synth::corpus(kind, (numbers.end - numbers.start) as usize);
        for (number, page) in numbers.clone().zip(pages.chunks_exact(PAGE)) {
            self.host.pages.lock().unwrap().insert(number, Place::Ordinary(page.to_vec()));
        }
        numbers.map(block).collect()
    }

    fn migrate(&self, blocks: &[Block]) -> Result<Moved, MoveError> {
        let moved = self
            .nodes
            .with_service(id(1), |service| service.ops().migrate_to(MaySleep::here(), id(1), blocks));
        moved.expect("the node is serviced")
    }

    fn write(&self, number: u64) -> FaultVerdict {
        let verdict = self.nodes.with_service(id(1), |service| {
            service.ops().fault(MaySleep::here(), block(number), Access::Write)
        });
        verdict.expect("the node is serviced")
    }
}

#[test]
fn the_callbacks_demote_promote_and_free() {
    let world = World::new(Curve::DEFAULT);
    let blocks = world.fill("slab", 0..8);
    assert_eq!(world.migrate(&blocks), Ok(Moved { arrived: 8 }));
    assert_eq!(world.node.cram().residents().count(), 8);
    // A page that is elsewhere by now, and a block of two frames, stay with the caller, and so does what follows.
    assert_eq!(world.migrate(&blocks), Ok(Moved { arrived: 0 }));
    let more = world.fill("slab", 20..23);
    let pair = Block { pfn: Pfn::new(22), order: Order::new(1).unwrap() };
    assert_eq!(world.migrate(&[more[0], pair, more[1]]), Ok(Moved { arrived: 1 }));

    *world.host.spare.lock().unwrap() = 0;
    assert_eq!(world.write(3), FaultVerdict::Retry, "no memory is never a success");
    *world.host.spare.lock().unwrap() = 2;
    assert_eq!(world.write(3), FaultVerdict::Settled);
    assert_eq!(world.write(3), FaultVerdict::Settled, "somebody else was there first");
    let Some(Place::Ordinary(bytes)) = &world.host.pages.lock().unwrap().remove(&3) else {
        panic!("not promoted")
    };
    assert_eq!(bytes[..], synth::corpus("slab", 8)[3 * PAGE..4 * PAGE]);
    let answers = world.nodes.with_service(id(1), |service| {
        let ops = service.ops();
        let read = ops.fault(MaySleep::here(), block(4), Access::Read);
        (read, ops.free(NoSleep::here(), block(4)), ops.free(NoSleep::here(), block(4)))
    });
    assert_eq!(answers, Some((FaultVerdict::PassOn, FreeVerdict::Kept, FreeVerdict::Release)));
    assert_eq!(world.node.cram().residents().count(), 7);

    let policy = || world.nodes.reclaim_policy(id(1));
    world.node.cram().set_pressure(Pressure::new(250));
    assert_eq!((policy().swap, policy().boost), (SwapRule::MaySwap, BoostOwner::Service));
    assert_eq!(world.ops.boost(1000), Boost::frames(250));
    assert_eq!(world.ops.boost(u64::MAX), Boost::frames(u64::MAX / 4));
    world.nodes.with_service(id(1), |service| service.ops().memory_failure(NoSleep::here(), Pfn::new(70)));
    assert_eq!(world.migrate(&more[1..]), Err(MoveError::Full { arrived: 0 }));
    assert_eq!(world.ops.boost(1000), Boost::frames(1000));
}

#[test]
fn a_batch_stops_where_the_door_shuts() {
    // Shut when 60 % of the store's 80 KiB are used: 12 raw pages.
    let world = World::new(Curve::new(200, 500, 600).unwrap());
    let blocks = world.fill("random", 0..20);
    let moved = world.migrate(&blocks);
    let Err(MoveError::Full { arrived }) = moved else { panic!("{moved:?}") };
    assert_eq!(world.node.cram().residents().count(), arrived);
    assert!((10..14).contains(&arrived), "{arrived}");
    let pages = world.host.pages.lock().unwrap();
    for number in arrived as u64..20 {
        assert!(matches!(pages[&number], Place::Ordinary(_)), "{number} was left on the way");
    }
}

#[test]
fn the_callbacks_go_after_the_pages_and_the_memory_after_them() {
    let World { nodes, node, host, .. } = &World::new(Curve::DEFAULT);
    let world_blocks: Vec<_> = (0..8).map(block).collect();
    for (number, page) in (0..).zip(synth::corpus("json", 8).chunks_exact(PAGE)) {
        host.pages.lock().unwrap().insert(number, Place::Ordinary(page.to_vec()));
    }
    let migrate = |blocks: &[Block]| {
        nodes.with_service(id(1), |service| service.ops().migrate_to(MaySleep::here(), id(1), blocks))
    };
    assert_eq!(migrate(&world_blocks[..6]), Some(Ok(Moved { arrived: 6 })));
    let out_of_order = |phase| LifeError::OutOfOrder { phase };

    // Nothing goes before its turn.
    assert_eq!(node.unregister(), Err(CramNodeError::Life(out_of_order(Phase::Open))));
    assert_eq!(node.evict(|_| panic!("the node is open")), Err(out_of_order(Phase::Open)));
    assert_eq!(node.resume(), Err(CramNodeError::Life(out_of_order(Phase::Open))));
    node.drain().unwrap();
    assert_eq!(migrate(&world_blocks[6..]), Some(Err(MoveError::Full { arrived: 0 })));
    assert!(node.grant().is_err());
    assert_eq!(node.unregister(), Err(CramNodeError::Life(out_of_order(Phase::Draining))));

    // Called off, and begun again.
    node.resume().unwrap();
    assert_eq!(migrate(&world_blocks[6..7]), Some(Ok(Moved { arrived: 1 })));
    node.drain().unwrap();

    // Ordinary memory holds four pages: the callbacks still serve those that are left.
    *host.spare.lock().unwrap() = 4;
    let mut named = 0;
    let evicted = node.evict(|resident| {
        named += 1;
        let _ = host.promote(host.block_of(resident));
    });
    assert_eq!((evicted, named), (Err(LifeError::Occupied { pages: 3 }), 7));
    assert_eq!(node.unregister(), Err(CramNodeError::Life(out_of_order(Phase::Draining))));
    let left = node.cram().residents().next().unwrap();
    let verdict = nodes.with_service(id(1), |service| {
        service.ops().fault(MaySleep::here(), host.block_of(left), Access::Write)
    });
    assert_eq!(verdict, Some(FaultVerdict::Retry));
    *host.spare.lock().unwrap() = 8;
    node.evict(|resident| host.promote(host.block_of(resident)).unwrap()).unwrap();
    node.evict(|_| panic!("nothing is left")).unwrap();

    // The store holds frames until it is dismantled, and its grant holds the node.
    let refused = node.unregister();
    assert!(matches!(refused, Err(CramNodeError::Service(ServiceError::StillUsed { .. }))), "{refused:?}");
    let memory = host.store.lock().unwrap().take().unwrap().dismantle();
    let held = Err(CramNodeError::Unregister(UnregisterError::Referenced { node: id(1), references: 1 }));
    assert_eq!(node.unregister(), held);
    assert!(nodes.with_service(id(1), |_| ()).is_none(), "the callbacks are gone");
    drop(memory);
    node.unregister().unwrap();
    assert!(matches!(node.unregister(), Err(CramNodeError::Service(ServiceError::Stale(_)))));
    // The id is free again, and all pages are in ordinary memory.
    nodes.register(id(1), Private::class(MemoryClass::FAR), Features::NONE).unwrap();
    assert!(host.pages.lock().unwrap().values().all(|place| matches!(place, Place::Ordinary(_))));
}

#[test]
fn a_registration_that_fails_leaves_nothing() {
    let nodes = registry();
    let cram: &'static Cram<'static> =
        leak(Cram::new(4, Curve::DEFAULT, words(Cram::words(4)).leak()).unwrap());
    struct Nobody;
    impl pnode_core::NodeOps for Nobody {}
    let service: &'static Service<'static> = leak(Service::new(leak(Nobody)));
    let all = CramNode::<WordZone>::FEATURES;
    let register = |features, zones: &[&'static WordZone]| {
        CramNode::register(nodes, id(2), features, zones, cram, service).map(drop)
    };
    for missing in [Features::RECLAIM | Features::DEMOTION, Features::DEMOTION, Features::WRITE_FENCE] {
        assert_eq!(
            register(all.difference(missing), &[zone(64, 8)]),
            Err(CramNodeError::Features { missing })
        );
    }
    assert!(matches!(register(all | Features::PIN, &[zone(64, 8)]), Err(CramNodeError::Register(_))));
    // The second zone overlaps ordinary memory: the first goes offline again.
    let overlapping = register(all, &[zone(64, 8), zone(8, 16)]);
    assert!(
        matches!(overlapping, Err(CramNodeError::Online(OnlineError::Overlaps { .. }))),
        "{overlapping:?}"
    );
    assert!(matches!(register(all, &[]), Err(CramNodeError::Service(ServiceError::NoMemory { .. }))));
    assert!(nodes.state(id(2)).is_none_or(|state| !format!("{state:?}").contains("Online")));
    let node = CramNode::register(nodes, id(2), all, &[zone(64, 8), zone(128, 8)], cram, service).unwrap();
    let busy = CramNode::register(nodes, id(2), all, &[zone(192, 8)], cram, service).map(drop);
    assert!(matches!(busy, Err(CramNodeError::Register(_))), "{busy:?}");
    node.drain().unwrap();
    node.evict(|_| panic!("nothing is there")).unwrap();
    node.unregister().unwrap();
    assert_eq!(
        register(all, &[zone(64, 8)]),
        Err(CramNodeError::Life(LifeError::OutOfOrder { phase: Phase::Closed }))
    );
}
