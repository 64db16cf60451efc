//! Shared memory, files and swap under a data oracle: who shares sees every write, who has a private copy sees none, and
//! what reclaim takes away comes back.

mod support;

use pnode_core::policy::{Mode, MoveDenied, PolicyError, Wish};
use pnode_core::{Features, MemoryClass, NodeId, NodeMask};
use pnode_user::fault::FaultError;
use pnode_user::machine::{
    Advice, BuildError, Builder, Existing, MovePageError, Object, Place, Placement, Process, ProcessError,
    Rights, Sharing,
};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;

/// On all backends; the test gives every frame and every page of swap back.
fn on_all(builder: impl Fn() -> Builder, test: impl Fn(&Machine)) {
    support::on_all(builder, |machine| {
        test(machine);
        assert!(machine.nodes().all(|node| machine.free_frames(node) == machine.frames(node)));
        assert_eq!(machine.swap_use().0, 0);
    });
}

fn id(machine: &Machine, number: u16) -> NodeId {
    machine.node(number).unwrap()
}

fn load(process: &Process, page: usize) -> u64 {
    let mut words = [[0; 8]; 2];
    process.read(page, 0, &mut words[0]).unwrap();
    process.read(page, PAGE - 8, &mut words[1]).unwrap();
    assert_eq!(words[0], words[1], "page {page} is torn");
    u64::from_le_bytes(words[0])
}

fn store(process: &Process, page: usize, value: u64) -> Result<(), FaultError> {
    process.write(page, 0, &value.to_le_bytes())?;
    process.write(page, PAGE - 8, &value.to_le_bytes())
}

fn word(object: &Object, page: usize) -> u64 {
    let mut words = [[0; 8]; 2];
    object.read(page * PAGE, &mut words[0]).unwrap();
    object.read((page + 1) * PAGE - 8, &mut words[1]).unwrap();
    assert_eq!(words[0], words[1], "page {page} of the object is torn");
    u64::from_le_bytes(words[0])
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }
}

const PAGES: usize = 16;

/// A process that maps both objects and has as many pages of its own: what each of its pages is.
struct User {
    process: Process,
    /// By page: the object and how it is shared, and the value of the private copy.
    pages: Vec<Seen>,
}

/// What a page of a process is.
type Seen = (Option<(usize, Sharing)>, Option<u64>);

#[test]
fn everybody_sees_what_he_shares_and_nothing_else() {
    let builder = || Machine::builder().node(NodeSpec::ordinary(70)).swap(400);
    on_all(builder, |machine| {
        let dram = id(machine, 0);
        let seed = 0x0b1ec7_u64;
        println!("seed {seed:#x} on {:?}", machine.faults());
        let mut random = Random(seed);
        let objects =
            [machine.shared_memory(PAGES, dram).unwrap(), machine.file(vec![0; PAGES * PAGE], dram).unwrap()];
        let mut contents = [[0u64; PAGES]; 2];
        let mut users: Vec<User> = (0..2)
            .map(|_| {
                let process = machine.process(8 * PAGES, dram).unwrap();
                let mut pages = Vec::new();
                for (number, sharing) in
                    [(0, Sharing::Shared), (1, Sharing::Shared), (1, Sharing::Private), (0, Sharing::Private)]
                {
                    let range =
                        process.map_object(&objects[number], 0..PAGES, Rights::ReadWrite, sharing).unwrap();
                    assert_eq!(range, pages.len()..pages.len() + PAGES);
                    pages.resize(range.end, (Some((number, sharing)), None));
                }
                process.map(PAGES, Rights::ReadWrite).unwrap();
                pages.resize(pages.len() + PAGES, (None, Some(0)));
                User { process, pages }
            })
            .collect();
        for step in 1..5000u64 {
            let who = random.below(users.len());
            let page = random.below(5 * PAGES);
            let number = random.below(2);
            match random.below(30) {
                0 if users.len() < 4 => {
                    let (process, pages) = (users[who].process.fork().unwrap(), users[who].pages.clone());
                    users.push(User { process, pages });
                }
                1 if users.len() > 1 => drop(users.swap_remove(who)),
                2 | 3 => {
                    machine.reclaim(random.below(40));
                }
                4 => {
                    users[who].process.advise(page..page + 1, Advice::DontNeed).unwrap();
                    let (object, copy) = &mut users[who].pages[page];
                    *copy = if object.is_none() { Some(0) } else { None };
                }
                5 => {
                    objects[1].sync().unwrap();
                    let disk = objects[1].on_disk();
                    for (page, value) in contents[1].iter().enumerate() {
                        assert_eq!(disk[page * PAGE..page * PAGE + 8], value.to_le_bytes(), "page {page}");
                    }
                }
                6..=9 => {
                    let page = page % PAGES;
                    objects[number].write(page * PAGE, &step.to_le_bytes()).unwrap();
                    objects[number].write((page + 1) * PAGE - 8, &step.to_le_bytes()).unwrap();
                    contents[number][page] = step;
                }
                10..=12 => assert_eq!(word(&objects[number], page % PAGES), contents[number][page % PAGES]),
                _ => {
                    let User { process, pages } = &mut users[who];
                    store(process, page, step).unwrap();
                    match &mut pages[page] {
                        (Some((number, Sharing::Shared)), _) => contents[*number][page % PAGES] = step,
                        (_, copy) => *copy = Some(step),
                    }
                }
            }
            let check = |user: &User, page: usize| {
                let expected = match user.pages[page] {
                    (_, Some(copy)) => copy,
                    (Some((number, _)), None) => contents[number][page % PAGES],
                    (None, None) => unreachable!(),
                };
                assert_eq!(load(&user.process, page), expected, "step {step} page {page}");
            };
            check(&users[random.below(users.len())], random.below(5 * PAGES));
            if step % 500 == 0 {
                users.iter().for_each(|user| (0..5 * PAGES).for_each(|page| check(user, page)));
                machine.audit().unwrap();
            }
        }
        let counters = machine.counters();
        assert!(counters.swapped_out > 100 && counters.swapped_in > 100, "{counters}");
        assert!(counters.read_in > 20 && counters.written_back > 20, "{counters}");
    });
}

#[test]
fn page_cache_is_on_no_private_node() {
    let builder = || {
        let hbm = NodeSpec::private(MemoryClass::HBM, 64).features(Features::USER_NUMA);
        Machine::builder().node(NodeSpec::ordinary(64)).node(hbm)
    };
    on_all(builder, |machine| {
        let [dram, hbm] = [0, 1].map(|number| id(machine, number));
        let file = machine.file(vec![7; 10 * PAGE + 5], dram).unwrap();
        let bind = Wish::new(Mode::Bind, NodeMask::of(hbm));
        assert_eq!(file.set_policy(&bind), Err(PolicyError::PageCache { node: hbm }));
        let process = machine.process(64, dram).unwrap();
        let shared = process.map_object(&file, 0..11, Rights::ReadWrite, Sharing::Shared).unwrap();
        let private = process.map_object(&file, 0..11, Rights::ReadWrite, Sharing::Private).unwrap();
        for area in [&shared, &private] {
            let refused = process.mbind(area.clone(), &bind, Existing::Stay);
            assert_eq!(refused, Err(ProcessError::Policy(PolicyError::PageCache { node: hbm })));
        }
        // The task's bind is the task's: its anonymous pages go there, the copies among them, and the file's do not.
        process.set_mempolicy(&bind).unwrap();
        assert_eq!(load(&process, shared.start), u64::from_ne_bytes([7; 8]));
        assert!(process.place(shared.start).is_resident_on(dram));
        store(&process, private.start, 9).unwrap();
        assert!(process.place(private.start).is_resident_on(hbm), "a copy is private anonymous memory");
        assert_eq!(
            process.move_pages(&[(shared.start, hbm)]),
            [Err(MovePageError::Rule(MoveDenied::To { node: hbm }))]
        );
        // Behind the end of the file there is nothing but zeroes, and they are not written back.
        let last = 10 * PAGE;
        let mut tail = [1; 100];
        file.read(last, &mut tail).unwrap();
        assert_eq!((&tail[..5], tail[5..].iter().any(|byte| *byte != 0)), (&[7; 5][..], false));
        file.write(last, &[8; 50]).unwrap();
        assert_eq!(file.sync(), Ok(1));
        assert_eq!((file.on_disk().len(), file.on_disk()[last..].to_vec()), (last + 5, vec![8; 5]));
        assert_eq!(file.read(11 * PAGE - 1, &mut [0; 2]), Err(FaultError::NotMapped));
        assert_eq!(machine.free_frames(hbm), 63);
    });
}

#[test]
fn a_page_that_was_there_before_the_bind_is_reported_and_stays() {
    let builder = || Machine::builder().node(NodeSpec::ordinary(64)).node(NodeSpec::ordinary(64));
    on_all(builder, |machine| {
        let [near, far] = [0, 1].map(|number| id(machine, number));
        let file = machine.file(vec![1; 8 * PAGE], near).unwrap();
        file.read(0, &mut vec![0; 4 * PAGE]).unwrap();
        let process = machine.process(16, near).unwrap();
        process.set_mempolicy(&Wish::new(Mode::Bind, NodeMask::of(far))).unwrap();
        let area = process.map_object(&file, 0..8, Rights::Read, Sharing::Shared).unwrap();
        area.clone().for_each(|page| assert_eq!(load(&process, page), u64::from_ne_bytes([1; 8])));
        let on = |node| area.clone().filter(|page| process.place(*page).is_resident_on(node)).count();
        assert_eq!((on(near), on(far)), (4, 4));
        let counts = machine.policy_faults();
        assert_eq!((counts.soft_elsewhere, counts.hard_elsewhere), (4, 0), "{counts:?}");
        assert_eq!(store(&process, 0, 1), Err(FaultError::ReadOnly));
    });
}

#[test]
fn the_objects_policy_places_shared_memory_whoever_touches_it() {
    let builder = || {
        let hbm = NodeSpec::private(MemoryClass::HBM, 64).features(Features::USER_NUMA | Features::HOTUNPLUG);
        Machine::builder().node(NodeSpec::ordinary(64)).node(hbm)
    };
    on_all(builder, |machine| {
        let [dram, hbm] = [0, 1].map(|number| id(machine, number));
        let object = machine.shared_memory(20, dram).unwrap();
        let [one, other] = [(); 2].map(|()| machine.process(32, dram).unwrap());
        let bind = Wish::new(Mode::Bind, NodeMask::of(hbm));
        // A task's bind does not place what is not the task's.
        one.set_mempolicy(&bind).unwrap();
        let [mine, theirs] = [&one, &other]
            .map(|process| process.map_object(&object, 0..20, Rights::ReadWrite, Sharing::Shared).unwrap());
        store(&one, mine.start, 1).unwrap();
        assert!(object.place(0).is_resident_on(dram));
        other.mbind(theirs.clone(), &bind, Existing::Stay).unwrap();
        (1..10).for_each(|page| store(&one, mine.start + page, page as u64).unwrap());
        object.write(12 * PAGE, &[5]).unwrap();
        assert!((1..10).chain([12]).all(|page| object.place(page).is_resident_on(hbm)));
        assert!((1..10).all(|page| load(&other, theirs.start + page) == page as u64));
        // The node leaves; the pages, mapped or not, stay with the object.
        drop(one);
        assert_eq!(machine.unplug(hbm).unwrap().pages, 10);
        assert!((1..10).all(|page| load(&other, theirs.start + page) == page as u64));
        store(&other, theirs.start + 15, 3).unwrap();
        assert!(object.place(15).is_resident_on(dram), "the policy is void");
        drop(other);
        assert!((1..10).all(|page| word_at(&object, page) == page as u64));
        machine.plug(hbm).unwrap();
    });
}

fn word_at(object: &Object, page: usize) -> u64 {
    let mut word = [0; 8];
    object.read(page * PAGE, &mut word).unwrap();
    u64::from_le_bytes(word)
}

#[test]
fn swap_takes_what_is_cold_and_gives_it_back_to_its_node() {
    let tier = Features::USER_NUMA.union(Features::RECLAIM);
    let builder = || {
        Machine::builder()
            .node(NodeSpec::ordinary(32))
            .node(NodeSpec::private(MemoryClass::FAR, 32).features(tier))
            .node(NodeSpec::private(MemoryClass::FAR, 32).features(Features::USER_NUMA))
            .swap(64)
    };
    on_all(builder, |machine| {
        let [dram, open, closed] = [0, 1, 2].map(|number| id(machine, number));
        let memories = [dram, open, closed].map(|node| {
            let memory = machine.map_at(20, Placement::Bound(node)).unwrap();
            (0..20).for_each(|page| memory.write(page * PAGE, &[page as u8 + 1; PAGE]).unwrap());
            memory
        });
        machine.age();
        // All that may go: a node that did not open RECLAIM keeps its pages.
        assert_eq!(machine.reclaim(1000), 40);
        assert_eq!(machine.swap_use(), (40, 64));
        assert_eq!([dram, open, closed].map(|node| machine.free_frames(node)), [32, 32, 12]);
        assert!((0..20).all(|page| memories[0].place(page) == Place::Swapped));
        for (memory, node) in memories.iter().zip([dram, open, closed]) {
            for page in 0..20 {
                let mut bytes = [0; PAGE];
                memory.read(page * PAGE, &mut bytes).unwrap();
                assert_eq!(bytes, [page as u8 + 1; PAGE]);
                assert!(memory.place(page).is_resident_on(node), "back on its node");
            }
        }
        assert_eq!(machine.swap_use(), (0, 64));
        drop(memories);

        // More than memory and swap together hold is an error, and nothing is lost.
        let memory = machine.map(120, dram).unwrap();
        let written =
            (0..120).take_while(|page| memory.write(page * PAGE, &[*page as u8; PAGE]).is_ok()).count();
        assert_eq!(written, 32 + 64);
        machine.audit().unwrap();
    });
    let refused = Machine::builder().node(NodeSpec::ordinary(8)).swap(1 << 32).build().unwrap_err();
    assert!(matches!(refused, BuildError::Swap { .. }));
}
