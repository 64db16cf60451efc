//! Threads that take and give back while zones change hands, with an oracle of who owns each frame.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pnode_core::{
    Distances, Features, Frame, FrameRange, FrameZone, MemoryClass, Nodes, Order, Pfn, Private, Request,
    Storage, WordZone,
};

use super::step::id;

const ZONES: usize = 3;
const FRAMES: u64 = 16;
const USERS: u32 = 4;
/// How often a zone moves, and how many blocks each user gets, at least.
const MOVES: u32 = if cfg!(miri) { 2 } else { 500 };
const BLOCKS: u32 = if cfg!(miri) { 2 } else { 50 };

/// Who owns each frame, 0 for nobody.
struct Owners([[AtomicU32; FRAMES as usize]; ZONES]);

impl Owners {
    fn of(&self, pfn: u64) -> &AtomicU32 {
        &self.0[(pfn / 64) as usize][(pfn % 64) as usize]
    }

    /// `who` got the block: nobody else has any of its frames.
    fn takes(&self, who: u32, frame: &Frame) {
        for pfn in frame.pfn().get()..frame.pfn().get() + frame.order().frames() {
            assert_eq!(self.of(pfn).swap(who, Ordering::Relaxed), 0, "{frame:?} is owned already");
        }
    }

    fn gives(&self, who: u32, frame: &Frame) {
        for pfn in frame.pfn().get()..frame.pfn().get() + frame.order().frames() {
            assert_eq!(self.of(pfn).swap(0, Ordering::Relaxed), who, "{frame:?} is owned by somebody else");
        }
    }
}

/// A small generator: its state is its seed, so a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn zones_change_hands_under_load_and_no_frame_has_two_owners() {
    let seed = std::env::var("PNODE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
    println!("PNODE_SEED={seed}");
    let zones: [WordZone; ZONES] = std::array::from_fn(|zone| {
        WordZone::new(FrameRange::new(Pfn::new(64 * zone as u64), FRAMES).unwrap()).unwrap()
    });
    let mut storage = Storage::<WordZone, 2, ZONES>::new();
    let nodes = Nodes::new(storage.slots(), Distances::uniform(2).unwrap()).unwrap();
    let dram = nodes.ordinary(id(0), MemoryClass::DRAM).unwrap();
    let owner = nodes.register(id(1), Private::class(MemoryClass::FAR), Features::NONE).unwrap();
    // Two zones move between the nodes, the third stays ordinary.
    dram.online(&zones[0]).unwrap();
    owner.online(&zones[1]).unwrap();
    dram.online(&zones[2]).unwrap();
    let owners = Owners(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU32::new(0))));
    let stop = AtomicBool::new(false);
    // By user: how many blocks it got.
    let taken: [AtomicU32; USERS as usize] = Default::default();
    let (nodes, owner, dram, owners, stop, taken) = (&nodes, &owner, &dram, &owners, &stop, &taken);
    let user = |who: u32, granted: bool| {
        let mut random = Random(seed ^ u64::from(who) << 32 | 1);
        let mut frames: Vec<Frame> = Vec::new();
        let give = |frame: Frame| {
            owners.gives(who, &frame);
            nodes.free(frame).unwrap();
        };
        while !stop.load(Ordering::Relaxed) {
            if frames.len() < 4 && random.below(2) == 0 {
                let request = Request::order(Order::new(random.below(3) as u8).unwrap());
                let frame = match granted {
                    true => owner.grant().unwrap().alloc(request),
                    false => nodes.alloc(request.prefer(id(random.below(2) as usize))),
                };
                if let Ok(frame) = frame {
                    owners.takes(who, &frame);
                    // While the block is out its zone cannot change hands.
                    assert_eq!(nodes.node_of(frame.pfn()), Some(id(usize::from(granted))), "{frame:?}");
                    frames.push(frame);
                    taken[who as usize - 1].fetch_add(1, Ordering::Relaxed);
                }
            } else if !frames.is_empty() {
                give(frames.swap_remove(random.below(frames.len() as u64) as usize));
            } else {
                // Gives the mover a moment in which a zone is empty.
                std::thread::yield_now();
            }
        }
        frames.into_iter().for_each(give);
    };
    std::thread::scope(|scope| {
        let users: Vec<_> = (1..=USERS).map(|who| scope.spawn(move || user(who, who % 2 == 0))).collect();
        let mut random = Random(seed | 1);
        let mut moved = 0;
        let least = || taken.iter().map(|taken| taken.load(Ordering::Relaxed)).min();
        // Goes on for as long as it takes until everybody got something, however the threads are scheduled; a user ends
        // before that only by a failed assertion.
        while (moved < MOVES || least() < Some(BLOCKS)) && !users.iter().any(|user| user.is_finished()) {
            let zone = &zones[random.below(2) as usize];
            let (from, to) = match nodes.node_of(zone.span().start()) {
                Some(node) if node == id(0) => (dram, &**owner),
                _ => (&**owner, dram),
            };
            from.close(zone.span()).unwrap();
            if from.offline(zone.span()).is_ok() {
                to.online(zone).unwrap();
                moved += 1;
            } else if random.below(4) == 0 {
                from.reopen(zone.span()).unwrap();
            }
            // Lets the users at the zone; without this they would mostly find it closed.
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        println!("{moved} moves, blocks taken: {taken:?}");
    });
    assert!(zones.iter().all(|zone| zone.used_frames() == 0), "every block was given back");
}
