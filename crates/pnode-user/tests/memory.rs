//! Nodes on other memory than plain files in memory: huge pages, a node of the real machine, a device. What the machine that
//! runs the tests does not have is an error that says what to do.
#![allow(missing_docs)]

mod support;

use std::fs;
use std::path::PathBuf;

use pnode_core::{Features, MemoryClass, NodeId, Request};
use pnode_user::backing::{Memory, MemoryError};
use pnode_user::fault::{Choice, FaultError};
use pnode_user::machine::{BuildError, MapError, Placement};
use pnode_user::{Machine, NodeSpec};

use support::{ids, on_all};

const PAGE: usize = 4096;
const FRAMES: u64 = 1024;

/// A file that ends with the test.
struct Scratch(PathBuf);

impl Scratch {
    /// `bytes` bytes that somebody left there.
    fn new(name: &str, bytes: usize) -> Self {
        let path = std::env::temp_dir().join(format!("pnode-{name}-{}", std::process::id()));
        fs::write(&path, vec![0xa5; bytes]).unwrap();
        Self(path)
    }

    fn memory(&self) -> Memory {
        Memory::Device(self.0.clone())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn refused(spec: NodeSpec, memory: Memory) -> BuildError {
    Machine::builder().node_of(spec, memory).faults(Choice::Signal).build().expect_err("no such memory")
}

fn why(spec: NodeSpec, memory: Memory) -> MemoryError {
    match refused(spec, memory) {
        BuildError::Memory { error, .. } => error,
        other => panic!("{other}"),
    }
}

/// A machine of ordinary memory and this node, on every backend.
fn beside_dram(spec: NodeSpec, memory: &Memory, test: impl Fn(&Machine, NodeId, NodeId)) {
    let builder = || Machine::builder().node(NodeSpec::ordinary(FRAMES)).node_of(spec, memory.clone());
    on_all(builder, |machine| {
        let [dram, node] = ids(machine);
        test(machine, dram, node);
    });
}

/// Pages of the node are empty, keep what is written, move off and come back, and are empty again in the node's next life.
fn lives(machine: &Machine, dram: NodeId, node: NodeId) {
    let pages = 700;
    let memory = machine.map_at(pages, Placement::Bound(node)).unwrap();
    for page in 0..pages {
        let mut bytes = [1; PAGE];
        memory.read(page * PAGE, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "page {page} is new");
        memory.write(page * PAGE + page, &[page as u8 | 1]).unwrap();
        assert!(memory.place(page).is_resident_on(node));
    }
    (0..pages).step_by(3).for_each(|page| memory.migrate(page, dram).unwrap());
    machine.unplug(node).unwrap();
    machine.plug(node).unwrap();
    for page in 0..pages {
        let mut byte = [0];
        memory.read(page * PAGE + page, &mut byte).unwrap();
        assert_eq!(byte, [page as u8 | 1], "page {page}");
    }
    drop(memory);
    let grant = machine.owner_grant(node).unwrap();
    let mut left = vec![0xff; PAGE];
    let frame = grant.alloc(Request::page()).unwrap();
    assert!(machine.read(&frame, 0, &mut left));
    assert!(left.iter().all(|byte| *byte == 0), "a node that comes back is all zero");
    machine.free(frame).unwrap();
}

const OPEN: Features = Features::USER_NUMA.union(Features::HOTUNPLUG);

#[test]
fn a_device_is_memory_like_any_other() {
    let scratch = Scratch::new("device", FRAMES as usize * PAGE);
    let spec = NodeSpec::private(MemoryClass::FAR, FRAMES).features(OPEN);
    beside_dram(spec, &scratch.memory(), lives);
}

#[test]
fn a_device_keeps_what_its_driver_wrote() {
    let scratch = Scratch::new("keeps", 64 * PAGE);
    let spec = NodeSpec::private(MemoryClass::FAR, 64);
    let machine = Machine::builder().node_of(spec, scratch.memory()).build().unwrap();
    let [node] = ids(&machine);
    let grant = machine.owner_grant(node).unwrap();
    let frame = grant.alloc(Request::page()).unwrap();
    let mut old = [0; 4];
    assert!(machine.read(&frame, 8, &mut old));
    assert_eq!(old, [0xa5; 4], "a device is as it was left");
    assert!(machine.write(&frame, 8, b"kept"));
    let at = (frame.pfn().get() as usize) % 64 * PAGE + 8;
    machine.free(frame).unwrap();
    drop(grant);
    drop(machine);
    assert_eq!(&fs::read(&scratch.0).unwrap()[at..at + 4], b"kept");
}

#[test]
fn a_device_that_cannot_be_is_refused() {
    let spec = NodeSpec::private(MemoryClass::FAR, 64);
    let small = Scratch::new("small", 63 * PAGE);
    let (needed, bytes) = (64 * PAGE as u64, 63 * PAGE as u64);
    assert_eq!(why(spec, small.memory()), MemoryError::TooSmall { needed, bytes });
    for (path, errno) in [("/nowhere/dax0.0", 2), ("/", 21)] {
        let error = why(spec, Memory::Device(path.into()));
        assert!(matches!(error, MemoryError::Device(error) if error.errno == errno), "{error}");
    }
    // It can be opened, and has no memory.
    let error = why(spec, Memory::Device("/dev/null".into()));
    assert!(error.to_string().contains("cannot be used (mmap: "), "{error}");
}

#[test]
fn a_node_of_the_real_machine() {
    let spec = NodeSpec::private(MemoryClass::HBM, FRAMES).features(OPEN);
    for node in [1023, u16::MAX] {
        assert_eq!(why(spec, Memory::Numa(node)), MemoryError::NoNumaNode { node });
    }
    let there = fs::read_to_string("/sys/devices/system/node/has_memory").unwrap_or_default();
    let Some(node) = there.split([',', '-', '\n']).next().and_then(|node| node.parse().ok()) else {
        return println!("SKIPPED: the kernel has no NUMA nodes");
    };
    let memory = Memory::Numa(node);
    match Machine::builder().node_of(spec, memory.clone()).faults(Choice::Signal).build() {
        Err(error) => return println!("SKIPPED: {error}"),
        Ok(machine) => {
            // The kernel says so, too.
            let maps = fs::read_to_string("/proc/self/numa_maps").unwrap_or_default();
            let bound = maps.lines().any(|line| line.contains(&format!("bind:{node} file=/memfd:pnode")));
            assert!(maps.is_empty() || bound, "{maps}");
            drop(machine);
        }
    }
    beside_dram(spec, &memory, lives);
}

#[test]
fn huge_pages_where_the_kernel_has_them() {
    let spec = NodeSpec::private(MemoryClass::HBM, FRAMES).features(OPEN);
    match Machine::builder().node_of(spec, Memory::Huge).faults(Choice::Signal).build() {
        Err(BuildError::Memory { error: error @ MemoryError::NoTransparentPages, .. }) => {
            assert!(error.to_string().contains("shmem_enabled"));
            println!("SKIPPED: {error}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => {
            beside_dram(spec, &Memory::Huge, |machine, dram, node| {
                lives(machine, dram, node);
                let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
                rollup
                    .lines()
                    .filter(|line| line.starts_with("ShmemPmdMapped"))
                    .for_each(|line| println!("{line}"));
            });
        }
    }
}

#[test]
fn the_pool_of_huge_pages_is_for_drivers() {
    let driver = NodeSpec::private(MemoryClass::DEVICE_BUFFER, FRAMES);
    match Machine::builder().node_of(driver, Memory::HugeTlb).faults(Choice::Signal).build() {
        Err(BuildError::Memory { error: error @ MemoryError::Pool { pages, bytes }, .. }) => {
            assert_eq!(pages, (FRAMES * PAGE as u64).div_ceil(bytes));
            assert!(error.to_string().contains("vm.nr_hugepages"));
            return println!("SKIPPED: {error}");
        }
        Err(error) => panic!("{error}"),
        Ok(machine) => assert!(!machine.shows_frames(machine.node(0).unwrap())),
    }
    for spec in [driver.features(OPEN), NodeSpec::ordinary(FRAMES), NodeSpec::compressed(FRAMES, FRAMES)] {
        assert!(matches!(refused(spec, Memory::HugeTlb), BuildError::WholeOnly { .. }));
    }
    beside_dram(driver, &Memory::HugeTlb, |machine, dram, card| {
        assert_eq!(machine.map_at(1, Placement::Owner(card)).err(), Some(MapError::WholeOnly { node: card }));
        let memory = machine.map(1, dram).unwrap();
        memory.write(0, &[7]).unwrap();
        let grant = machine.owner_grant(card).unwrap();
        assert_eq!(memory.migrate_with(0, &grant), Err(FaultError::WholeOnly { node: card }));
        assert!(memory.place(0).is_resident_on(dram));
        let packets: Vec<_> = std::iter::from_fn(|| grant.alloc(Request::page()).ok()).collect();
        assert_eq!(packets.len() as u64, FRAMES);
        for packet in &packets {
            assert!(machine.write(packet, 100, &packet.pfn().get().to_le_bytes()));
        }
        for packet in packets {
            let mut word = [0; 8];
            assert!(machine.read(&packet, 100, &mut word));
            assert_eq!(u64::from_le_bytes(word), packet.pfn().get());
            machine.free(packet).unwrap();
        }
        let heap = grant.into_heap().unwrap();
        let object = heap.boxed([3u64; 100]).unwrap();
        assert_eq!(*object, [3; 100]);
        drop(object);
        drop(heap);
        machine.unplug(card).unwrap();
        machine.plug(card).unwrap();
        let grant = machine.owner_grant(card).unwrap();
        let frame = grant.alloc(Request::page()).unwrap();
        let mut word = [1; 8];
        assert!(machine.read(&frame, 100, &mut word));
        assert_eq!(word, [0; 8]);
        machine.free(frame).unwrap();
    });
}
