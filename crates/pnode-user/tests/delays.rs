//! Simulated latency: what is charged, to the nanosecond, and that it is off by default.

mod support;

use std::time::{Duration, Instant};

use pnode_core::{Features, MemoryClass, Request};
use pnode_user::machine::{Builder, Delays};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;
/// 1 byte a nanosecond, nearly: 1,000 MiB are 1,048,576,000 bytes.
const SLOW: MemoryClass = MemoryClass::new("slow", 700, 1000);
const FAST: MemoryClass = MemoryClass::new("fast", 50, 100_000);

fn builder() -> Builder {
    let doors = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION;
    Machine::builder()
        .node(NodeSpec::ordinary(64).class(FAST))
        .node(NodeSpec::private(SLOW, 64).features(doors))
}

/// What bytes take, in nanoseconds.
fn transfer(bytes: u64, class: MemoryClass) -> u64 {
    (bytes * 1_000_000_000).div_ceil(u64::from(class.bandwidth_mib_s()) << 20)
}

#[test]
fn every_access_is_charged_to_its_node() {
    support::on_all(
        || builder().delays(Delays::Counted),
        |machine| {
            let [fast, slow] = [0, 1].map(|number| machine.node(number).unwrap());
            let mut before = [Duration::ZERO; 2];
            let mut passed = |what: &str, expected: [u64; 2]| {
                let now = [fast, slow].map(|node| machine.simulated_time_on(node));
                let passed = [0, 1].map(|node| (now[node] - before[node]).as_nanos() as u64);
                assert_eq!(passed, expected, "{what}");
                assert_eq!(now[0] + now[1], machine.simulated_time());
                before = now;
            };
            let memory = machine.map(8, fast).unwrap();
            passed("nothing", [0, 0]);
            memory.write(0, &[1; 100]).unwrap();
            passed("a fault and a write", [50 + 50 + transfer(100, FAST), 0]);
            memory.write(50, &[2; 100]).unwrap();
            passed("a write", [50 + transfer(100, FAST), 0]);
            assert_eq!(memory.demote(0..1, slow).unwrap().pages, 1);
            passed("a copy", [50, 700 + transfer(PAGE as u64, SLOW)]);
            memory.read(0, &mut [0; 64]).unwrap();
            passed("a fault and a read", [0, 700 + 700 + transfer(64, SLOW)]);
            assert_eq!(memory.promote(0..1, slow), Ok(1));
            passed("a copy back", [50 + transfer(PAGE as u64, SLOW), 700]);
            // Two pages, two faults, two accesses.
            memory.write(2 * PAGE - 10, &[3; 30]).unwrap();
            passed("two pages", [4 * 50 + transfer(10, FAST) + transfer(20, FAST), 0]);
            let frame = machine.owner_grant(slow).unwrap().alloc(Request::page()).unwrap();
            assert!(machine.write(&frame, 0, &[1; 16]));
            passed("a driver's write", [0, 700 + transfer(16, SLOW)]);
            machine.free(frame).unwrap();
        },
    );
}

#[test]
fn time_is_not_simulated_unless_asked_for_and_waited_for_only_then() {
    let life = |machine: &Machine| {
        let slow = machine.node(1).unwrap();
        let memory = machine.map(16, machine.node(0).unwrap()).unwrap();
        (0..16).for_each(|page| memory.write(page * PAGE, &[1]).unwrap());
        assert_eq!(memory.demote(0..16, slow).unwrap().pages, 16);
        let start = Instant::now();
        (0..100).for_each(|_| (0..16).for_each(|page| memory.read(page * PAGE, &mut [0]).unwrap()));
        start.elapsed()
    };
    let machine = builder().build().unwrap();
    life(&machine);
    assert_eq!(machine.simulated_time(), Duration::ZERO);
    let machine = builder().delays(Delays::Waited).build().unwrap();
    // 1,600 reads of 700 ns or more: the thread cannot have been quicker, however fast the computer is.
    assert!(life(&machine) >= Duration::from_nanos(1600 * 700));
    assert!(machine.simulated_time() >= Duration::from_nanos(1600 * 700));
}
