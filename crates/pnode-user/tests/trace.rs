//! The event trace, compared with what the machine says of itself: the frames that blocks add up to, and its counters.

mod support;

use core::num::NonZeroUsize;
use std::collections::BTreeSet;

use pnode_core::failing::When;
use pnode_core::{Features, MemoryClass, Reason, Request};
use pnode_user::machine::{Builder, Existing, Point, Rights, Trace, What, Why};
use pnode_user::{Machine, NodeSpec};

const PAGE: usize = 4096;
const MUCH: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

fn builder() -> Builder {
    let tier = Features::RECLAIM | Features::DEMOTION | Features::PROMOTION | Features::HOTUNPLUG;
    Machine::builder()
        .node(NodeSpec::ordinary(128))
        .node(NodeSpec::ordinary(64))
        .node(NodeSpec::private(MemoryClass::FAR, 16).features(tier))
        .node(NodeSpec::private(MemoryClass::FAR, 8).features(tier | Features::WRITE_FENCE))
        .node(NodeSpec::compressed(32, 8))
        .swap(64)
}

/// Something of everything.
fn live(machine: &Machine) {
    let [dram, other, far, fenced, zip] = [0, 1, 2, 3, 4].map(|number| machine.node(number).unwrap());
    let memory = machine.map(40, dram).unwrap();
    for page in 0..40 {
        memory.write(page * PAGE, &[page as u8; 64]).unwrap();
    }
    assert_eq!(memory.demote(0..4, far).unwrap().pages, 4);
    assert_eq!(memory.demote(4..8, fenced).unwrap().pages, 4);
    assert_eq!(memory.demote(8..12, zip).unwrap().pages, 4);
    let mut byte = [0];
    for page in 0..12 {
        memory.read(page * PAGE, &mut byte).unwrap();
        memory.write(page * PAGE, &[99]).unwrap();
    }
    assert_eq!(memory.promote(0..4, far), Ok(4));
    memory.migrate(20, other).unwrap();
    let parent = machine.process(20, dram).unwrap();
    let pages = parent.map(4, Rights::ReadWrite).unwrap();
    parent.write(pages.start, 0, b"parent").unwrap();
    let child = parent.fork().unwrap();
    child.write(pages.start, 0, b"child").unwrap();
    let wish = pnode_core::policy::Wish::new(pnode_core::policy::Mode::Bind, pnode_core::NodeMask::of(other));
    parent.mbind(pages, &wish, Existing::Move).unwrap();
    assert!(machine.grant(far, Reason::Pin).is_err());
    let insisting = Request::order(pnode_core::Order::new(8).unwrap()).prefer(other).this_node_only();
    assert!(machine.alloc(insisting).is_err());
    let file = machine.file(vec![7; 3 * PAGE], dram).unwrap();
    file.write(0, b"to the disk").unwrap();
    file.sync().unwrap();
    machine.age();
    machine.reclaim(80);
    for page in 0..40 {
        memory.read(page * PAGE, &mut byte).unwrap();
        assert_eq!(byte, [if page < 12 { 99 } else { page as u8 }]);
    }
    machine.unplug(far).unwrap();
    machine.inject(&[(Point::Plug, When::Nth(0))]);
    assert!(machine.plug(far).is_err());
    machine.stop_injecting();
    machine.plug(far).unwrap();
}

#[test]
fn blocks_add_up_and_faults_are_those_that_were_counted() {
    support::on_all(builder, |machine| {
        let before = machine.counters();
        machine.start_trace(MUCH);
        live(machine);
        let counters = machine.counters();
        let trace = machine.trace();
        assert_eq!(trace.lost, 0);
        for (index, event) in trace.events.iter().enumerate() {
            assert_eq!(event.number, index as u64, "{event}");
        }
        let of = |what: What, why: Why| {
            trace.events.iter().filter(|event| (event.what, event.why) == (what, why)).count() as u64
        };
        for (what, why, counted) in [
            (What::Fault, Why::FirstTouch, counters.hard_faults - before.hard_faults),
            (What::Fault, Why::Present, counters.soft_faults),
            (What::Fault, Why::Stored, counters.read_faults),
            (What::Fault, Why::Copied, counters.copied_on_write),
            (What::Fault, Why::TakenOver, counters.taken_over),
            (What::Promote, Why::Write, counters.promoted),
            (What::Demote, Why::Asked, counters.demoted),
            (What::Migrate, Why::Asked, counters.migrated),
            (What::Migrate, Why::Leaving, counters.evacuated),
            (What::Swap, Why::Out, counters.swapped_out),
            (What::Swap, Why::In, counters.swapped_in),
            (What::File, Why::In, counters.read_in),
            (What::File, Why::Out, counters.written_back),
        ] {
            assert_eq!(of(what, why), counted, "{what:?} {why:?}\n{trace}");
        }
        for what in What::ALL {
            assert!(trace.events.iter().any(|event| event.what == what), "no {what:?}");
        }
        // Every frame is handed out once at a time, and what was not given back is in use.
        let mut used = BTreeSet::new();
        for event in &trace.events {
            let frames = event.pfn.into_iter().flat_map(|pfn| pfn.get()..pfn.get() + event.count);
            match event.what {
                What::Alloc => frames.for_each(|frame| assert!(used.insert(frame), "{event}")),
                // Those of the compressed node's window were taken before the trace began.
                What::Free => frames.for_each(|frame| assert!(used.remove(&frame), "{event}")),
                _ => {}
            }
        }
        let in_use = |machine: &Machine| -> u64 {
            machine.nodes().map(|node| machine.frames(node) - machine.free_frames(node)).sum()
        };
        let window = machine.compressed(machine.node(4).unwrap()).unwrap().window / PAGE as u64;
        assert_eq!(used.len() as u64, in_use(machine) - window);
    });
}

#[test]
fn a_trace_is_off_until_it_is_started_and_says_what_it_lost() {
    let machine = builder().build().unwrap();
    let dram = machine.node(0).unwrap();
    let memory = machine.map(30, dram).unwrap();
    let touch = |page: usize| memory.write(page * PAGE, &[1]).unwrap();
    touch(0);
    assert!(machine.trace().events.is_empty());
    machine.start_trace(NonZeroUsize::new(5).unwrap());
    (1..11).for_each(touch);
    let trace = machine.trace();
    assert_eq!(trace.events.len(), 5);
    let last = trace.events[4];
    assert_eq!((last.what, last.why, last.node), (What::Fault, Why::FirstTouch, Some(dram)));
    assert_eq!(last.number + 1, trace.lost + 5, "numbers have no gap");
    assert!(trace.to_string().starts_with(&format!("{} older events", trace.lost)), "{trace}");
    machine.stop_trace();
    touch(11);
    assert_eq!(machine.trace(), trace, "stopped");
    // Started again it forgets, and goes on counting.
    machine.start_trace(MUCH);
    touch(12);
    let again = machine.trace();
    assert_eq!((again.lost, again.events[0].number), (0, last.number + 1));
}

/// The forms that programs read, to the byte.
#[test]
fn lines_stay_as_they_are() {
    let machine = Machine::builder()
        .node(NodeSpec::ordinary(8))
        .node(NodeSpec::private(MemoryClass::HBM, 8))
        .build()
        .unwrap();
    let device = machine.node(1).unwrap();
    machine.start_trace(MUCH);
    assert!(machine.grant(device, Reason::Demotion).is_err());
    let grant = machine.owner_grant(device).unwrap();
    let frame = grant.alloc(Request::order(pnode_core::Order::new(1).unwrap())).unwrap();
    let pfn = frame.pfn().get();
    machine.free(frame).unwrap();
    drop(grant);
    machine.unplug(device).unwrap();
    let trace: Trace = machine.trace();
    let csv = format!(
        "number,what,node,pfn,count,why,time\n0,denied,1,,1,not-opened,0\n1,alloc,1,{pfn},2,asked,0\n\
         2,free,1,{pfn},2,asked,0\n3,unplug,1,,0,asked,0\n"
    );
    assert_eq!(trace.to_csv(), csv);
    let json = format!(
        "{{\"number\":0,\"what\":\"denied\",\"node\":1,\"count\":1,\"why\":\"not-opened\",\"time\":0}}\n\
         {{\"number\":1,\"what\":\"alloc\",\"node\":1,\"pfn\":{pfn},\"count\":2,\"why\":\"asked\",\"time\":0}}\n"
    );
    assert!(trace.to_json_lines().starts_with(&json), "{}", trace.to_json_lines());
    let svg = trace.to_svg("a < b");
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("a &lt; b"));
    assert!(svg.contains("node 1: 4 events") && svg.contains("denied, no memory"), "{svg}");
}
