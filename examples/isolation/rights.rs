//! Every right: each set of features, sound or not, and each reason to ask for a grant.

use pnode::core::Features;
use pnode::core::grant::DOORS;

use crate::world::{Ask, Keeps, Kind, Right, Step};

/// How many worlds there are: each set of features, draining or not.
pub(crate) const WORLDS: usize = 2 << Features::DOORS.len();

/// One private node, beside an ordinary one that is full.
pub(crate) fn world(number: usize) -> Vec<Step> {
    let features = Features::from_bits((number / 2) as u16).expect("a bit for each door");
    let mut steps = vec![
        Step::Register { node: 0, kind: Kind::Ordinary },
        Step::Online { node: 0, zone: 0, keeps: Keeps::Nothing },
        Step::Use { zone: 0, frames: 2 },
        Step::Register { node: 1, kind: Kind::Private(features) },
        Step::Online { node: 1, zone: 1, keeps: Keeps::Nothing },
    ];
    if number % 2 == 1 {
        steps.push(Step::Drain { node: 1 });
    }
    steps
}

/// Every reason on every node, and nobody in particular.
pub(crate) fn asks() -> Vec<Ask> {
    let services = (0..3).flat_map(|node| DOORS.map(|(reason, ..)| Right::Service(node, reason)));
    let others = [Right::Anybody, Right::Owner(0), Right::Owner(1)];
    let plain = services.chain(others).map(Ask::plain);
    plain.flat_map(|ask| [ask, Ask { at: Some(0), ..ask }, Ask { at: Some(1), ..ask }]).collect()
}
