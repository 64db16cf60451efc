//! Every place: each node in each of its states, and each request in each such world.

use pnode::core::request::Depth;
use pnode::core::{Features, Order, Reason};

use crate::world::{Ask, Bits, Keeps, Kind, NODES, Only, Right, Step, TABLES, Table};

/// How many states a node can be in.
const STATES: usize = 15;

/// How many worlds there are: the states of all nodes and the distance tables.
pub(crate) const WORLDS: usize = STATES.pow(NODES as u32) * TABLES.len();

/// The table and the steps of a world; the worlds with few nodes come first.
pub(crate) fn world(number: usize) -> (Table, Vec<Step>) {
    let (table, mut states) = (TABLES[number % TABLES.len()], number / TABLES.len());
    let mut steps = Vec::new();
    for node in 0..NODES {
        state(node, states % STATES, &mut steps);
        states /= STATES;
    }
    (table, steps)
}

/// The steps that bring `node` and its zone into state number `state`.
fn state(node: usize, state: usize, steps: &mut Vec<Step>) {
    if state == 0 {
        return;
    }
    let kind =
        if state <= 7 { Kind::Ordinary } else { Kind::Private(Features::RECLAIM | Features::DEMOTION) };
    let (zone, memory) = (node, (state - 1) % 7);
    steps.push(Step::Register { node, kind });
    if memory == 0 {
        return;
    }
    let keeps = if memory == 4 { Keeps::Reserve } else { Keeps::Nothing };
    steps.push(Step::Online { node, zone, keeps });
    match memory {
        2 => steps.push(Step::Use { zone, frames: 1 }),
        3 => steps.push(Step::Use { zone, frames: 2 }),
        5 => steps.push(Step::Close { node, zone }),
        6 => steps.push(Step::Drain { node }),
        _ => {}
    }
}

/// All requests, by anybody and by everybody who has some right.
pub(crate) fn asks() -> Vec<Ask> {
    let sets = || std::iter::once(None).chain((0..1 << NODES).map(Some));
    let cpusets: [Option<Bits>; 4] = [None, Some(0b001), Some(0b110), Some(0b111)];
    let preferred = || std::iter::once(None).chain((0..=NODES).map(Some));
    let mut asks = Vec::new();
    let mut add = |right, preferred, mask, cpuset, only| {
        for depth in [Depth::Low, Depth::Min, Depth::Emergency] {
            for order in [Order::ZERO, Order::new(1).expect("a small order")] {
                asks.push(Ask { right, preferred, mask, cpuset, only, depth, order, at: None });
                // By its number, where cpusets are off: they come to the registry in the nodemask.
                let zones = (0..NODES).filter(|_| cpuset.is_none());
                asks.extend(zones.map(|zone| Ask {
                    right,
                    preferred,
                    mask,
                    cpuset,
                    only,
                    depth,
                    order,
                    at: Some(zone),
                }));
            }
        }
    };
    for (preferred, mask) in preferred().flat_map(|preferred| sets().map(move |mask| (preferred, mask))) {
        for cpuset in cpusets {
            add(Right::Anybody, preferred, mask, cpuset, Only::Nearest);
            add(Right::Anybody, preferred, mask, cpuset, Only::ThisNode);
        }
    }
    for node in 0..NODES {
        for right in
            [Right::Owner(node), Right::Service(node, Reason::Demotion), Right::Service(node, Reason::Contig)]
        {
            for preferred in [None, Some(node), Some((node + 1) % NODES)] {
                for mask in [None, Some(1 << node), Some(!(1 << node))] {
                    add(right, preferred, mask, None, Only::Nearest);
                }
            }
        }
    }
    asks
}
