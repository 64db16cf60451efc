//! Every life: each sequence of steps on two nodes and two zones, and requests after each of them.

use pnode::core::{Features, Reason};

use crate::oracle::Oracle;
use crate::world::{Ask, Keeps, Kind, Only, Right, Step};

const NODES: usize = 2;

/// All steps on two nodes and two zones.
pub(crate) fn steps() -> Vec<Step> {
    let private = Kind::Private(Features::RECLAIM | Features::DEMOTION);
    let mut steps = Vec::new();
    for node in 0..NODES {
        steps.push(Step::Register { node, kind: Kind::Ordinary });
        steps.push(Step::Register { node, kind: private });
        for zone in 0..NODES {
            steps.push(Step::Online { node, zone, keeps: Keeps::Nothing });
            steps.push(Step::Offline { node, zone });
            steps.push(Step::Close { node, zone });
            steps.push(Step::Reopen { node, zone });
        }
        steps.push(Step::Drain { node });
        steps.push(Step::Resume { node });
        steps.push(Step::Unregister { node });
        steps.push(Step::Hold { node });
        steps.push(Step::LetGo { node });
    }
    for zone in 0..NODES {
        steps.push(Step::Use { zone, frames: 2 });
        steps.push(Step::GiveBack { zone });
    }
    steps
}

/// The requests after each step: who may have what at this point.
pub(crate) fn asks() -> Vec<Ask> {
    let mut asks = Vec::new();
    for node in 0..NODES {
        for only in [Only::Nearest, Only::ThisNode] {
            asks.push(Ask { preferred: Some(node), only, ..Ask::plain(Right::Anybody) });
        }
        asks.push(Ask { mask: Some(1 << node), ..Ask::plain(Right::Anybody) });
        asks.push(Ask { at: Some(node), ..Ask::plain(Right::Anybody) });
        for right in [Right::Owner(node), Right::FormerOwner(node), Right::Holder(node)] {
            asks.push(Ask::plain(right));
            asks.extend((0..NODES).map(|zone| Ask { at: Some(zone), ..Ask::plain(right) }));
        }
        for reason in [Reason::Demotion, Reason::UserPolicy] {
            asks.push(Ask::plain(Right::Service(node, reason)));
        }
    }
    asks
}

/// The lives of up to `length` steps, shortest first.
///
/// A step that is refused changes nothing, so a life goes on only after steps that happen; the refused ones are tried where
/// they stand last.
pub(crate) fn prefixes(steps: &[Step], length: usize) -> Vec<Vec<Step>> {
    let mut all: Vec<(Vec<Step>, Oracle)> = vec![(Vec::new(), Oracle::new(None))];
    let mut start = 0;
    for _ in 0..length {
        let end = all.len();
        for i in start..end {
            for step in steps {
                let (life, mut oracle) = (all[i].0.clone(), all[i].1);
                if oracle.step(*step) {
                    all.push(([&life[..], &[*step]].concat(), oracle));
                }
            }
        }
        start = end;
    }
    all.into_iter().map(|(life, _)| life).collect()
}
