//! Every policy: each mode over each set of nodes, on tasks and on ranges, for pages of every origin, in small worlds.

use pnode::core::policy::Mode;
use pnode::core::{Features, PageOrigin};

use crate::world::{Ask, Bits, Fault, Keeps, Kind, NODES, Right, Setting, Step, TABLES, Table};

/// The states of a node: whose it is, and what became of its zone.
const STATES: [Option<(Kind, Zone)>; 8] = [
    None,
    Some((Kind::Ordinary, Zone::Free)),
    Some((Kind::Ordinary, Zone::Full)),
    Some((Kind::Ordinary, Zone::Draining)),
    Some((Kind::Private(Features::NONE), Zone::Free)),
    Some((Kind::Private(Features::USER_NUMA), Zone::Free)),
    Some((Kind::Private(Features::USER_NUMA), Zone::Full)),
    Some((Kind::Private(Features::USER_NUMA), Zone::Draining)),
];

/// What became of a zone.
#[derive(Clone, Copy)]
pub(crate) enum Zone {
    Free,
    Full,
    Draining,
}

/// How many worlds there are. All have the distances of table 1, which tells the nodes apart.
pub(crate) const WORLDS: usize = STATES.len().pow(NODES as u32);

pub(crate) fn world(number: usize) -> (Table, Vec<Step>) {
    let (mut states, mut steps) = (number, Vec::new());
    for node in 0..NODES {
        if let Some((kind, zone)) = STATES[states % STATES.len()] {
            bring_about(node, kind, zone, &mut steps);
        }
        states /= STATES.len();
    }
    (TABLES[1], steps)
}

/// The steps that bring `node` and its zone about.
pub(crate) fn bring_about(node: usize, kind: Kind, zone: Zone, steps: &mut Vec<Step>) {
    steps.push(Step::Register { node, kind });
    steps.push(Step::Online { node, zone: node, keeps: Keeps::Nothing });
    match zone {
        Zone::Free => {}
        Zone::Full => steps.push(Step::Use { zone: node, frames: 2 }),
        Zone::Draining => steps.push(Step::Drain { node }),
    }
}

/// A hard fault under each policy that can be wished for.
pub(crate) fn asks() -> Vec<Ask> {
    let origins = [
        PageOrigin::PrivateAnonymous,
        PageOrigin::SharedAnonymous,
        PageOrigin::PageCache,
        PageOrigin::Unmovable,
    ];
    let cpusets: [Option<Bits>; 4] = [None, Some(0b001), Some(0b110), Some(0b111)];
    let mut asks = Vec::new();
    for mode in Mode::ALL {
        for (origin, on) in
            origins.into_iter().flat_map(|origin| [(origin, Setting::Task), (origin, Setting::Range)])
        {
            let right = Right::Policy(Fault { mode, origin, on });
            for (cpu, named) in (0..NODES).flat_map(|cpu| (0..1 << NODES).map(move |named| (cpu, named))) {
                for cpuset in cpusets {
                    asks.push(Ask { preferred: Some(cpu), mask: Some(named), cpuset, ..Ask::plain(right) });
                }
            }
        }
    }
    asks
}
