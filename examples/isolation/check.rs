//! One world, real and as the rules say it is, and whether they agree.

use crate::doors::Door;
use crate::host::with_host;
use crate::oracle::Oracle;
use crate::world::{Ask, Case, Step, Table};

/// How the machine broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Private memory of this node, zone `got`, went to somebody without the right to it.
    Leak { node: usize, got: usize },
    /// A request was served from elsewhere than the rules say, refused against them, or the other way round.
    Wrong { got: Option<usize>, expected: Option<usize> },
    /// The last step was accepted against the rules, or refused.
    Step { accepted: bool },
}

/// Brings a world about and asks in it; the first disagreement, and how many requests were made.
///
/// Steps that the rules refuse are tried too: the machine must refuse them and nothing may change.
pub(crate) fn check(
    table: Table,
    steps: &[Step],
    asks: &[Ask],
    door: Door,
) -> (u64, Option<(Option<Ask>, Verdict)>) {
    with_host(table, door, |mut host| {
        let mut oracle = Oracle::new(table);
        for step in steps {
            let accepted = host.step(*step);
            if accepted != oracle.step(*step) && door == Door::Closed {
                return (0, Some((None, Verdict::Step { accepted })));
            }
        }
        let mut asked = 0;
        for ask in asks {
            asked += 1;
            let (got, expected) = (host.ask(ask), oracle.serves(ask));
            let leaked =
                got.and_then(|zone| oracle.private_zone(zone)).filter(|node| !oracle.entitled(ask, *node));
            let verdict = match leaked {
                Some(node) => Verdict::Leak { node, got: got.unwrap_or_default() },
                None if got != expected && door == Door::Closed => Verdict::Wrong { got, expected },
                None => continue,
            };
            return (asked, Some((Some(*ask), verdict)));
        }
        (asked, None)
    })
}

/// What a case comes to.
pub(crate) fn verdict(case: &Case, door: Door) -> Option<Verdict> {
    let asks = std::slice::from_ref(&case.ask);
    check(case.table, &case.steps, asks, door).1.map(|(_, verdict)| verdict)
}

/// The smallest case that still breaks the rules the same way: steps are left out and the request made plainer, one by
/// one, until nothing more can go.
pub(crate) fn shrink(mut case: Case, door: Door) -> Case {
    let kind = |case: &Case| verdict(case, door).map(|verdict| std::mem::discriminant(&verdict));
    let wanted = kind(&case);
    while let Some(smaller) = simpler(&case).into_iter().find(|smaller| kind(smaller) == wanted) {
        case = smaller;
    }
    case
}

/// The cases one simplification away.
fn simpler(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
    for i in 0..case.steps.len() {
        let mut steps = case.steps.clone();
        steps.remove(i);
        cases.push(Case { steps, ..case.clone() });
    }
    for i in 0..case.steps.len() {
        if let Some(plainer) = case.steps[i].plainer() {
            let mut steps = case.steps.clone();
            steps[i] = plainer;
            cases.push(Case { steps, ..case.clone() });
        }
    }
    let plain = Ask::plain(case.ask.right);
    for ask in [
        Ask { mask: plain.mask, ..case.ask },
        Ask { cpuset: plain.cpuset, ..case.ask },
        Ask { only: plain.only, ..case.ask },
        Ask { preferred: plain.preferred, ..case.ask },
        Ask { depth: plain.depth, ..case.ask },
        Ask { order: plain.order, ..case.ask },
        Ask { at: plain.at, ..case.ask },
    ] {
        cases.push(Case { ask, ..case.clone() });
    }
    cases.push(Case { table: None, ..case.clone() });
    cases.retain(|smaller| smaller != case);
    cases
}
