//! What a policy comes to, from first principles: which nodes a fault asks, in which order.

use pnode::core::policy::Mode;
use pnode::core::{Features, PageOrigin};

use crate::oracle::Oracle;
use crate::world::{Ask, Fault, NODES, Setting};

type Nodes = Vec<usize>;

/// The nodes of `ask` that a bind opens to it: named, in the cpuset, with their owner's consent, for anonymous pages.
pub(crate) fn opened(oracle: &Oracle, ask: &Ask, fault: Fault, node: usize) -> bool {
    let origin = match fault.on {
        Setting::Task => fault.origin == PageOrigin::PrivateAnonymous,
        Setting::Range => matches!(fault.origin, PageOrigin::PrivateAnonymous | PageOrigin::SharedAnonymous),
    };
    origin && fault.mode == Mode::Bind && ask.mask.is_some() && ask.allows(node) && consents(oracle, node)
}

fn consents(oracle: &Oracle, node: usize) -> bool {
    oracle.doors(node).is_some_and(|doors| doors.contains(Features::USER_NUMA)) && oracle.is_up(node)
}

/// The nodes that a fault asks, in order; `None` if there is no cpuset to fault in or the policy itself is refused.
pub(crate) fn order(oracle: &Oracle, ask: &Ask, fault: Fault) -> Option<Nodes> {
    let cpu = ask.preferred.unwrap_or(0);
    let named = |node: &usize| ask.mask.is_some_and(|bits| bits >> node & 1 == 1);
    let in_cpuset = |node: &usize| ask.cpuset.is_none_or(|bits| bits >> node & 1 == 1);
    let with_memory = || (0..NODES).filter(|node| oracle.has_memory(*node));
    // A cpuset always has ordinary memory: its parent's, if none of its own nodes has any.
    let ordinary: Nodes = with_memory().filter(|node| oracle.doors(*node).is_none()).collect();
    if ask.cpuset.is_some() && ordinary.is_empty() {
        return None;
    }
    let own: Nodes = ordinary.iter().copied().filter(|node| in_cpuset(node)).collect();
    let everywhere = if own.is_empty() { ordinary } else { own };

    let takes_nodes = !matches!(fault.mode, Mode::Default | Mode::Local);
    if takes_nodes != (0..NODES).any(|node| named(&node)) {
        return None;
    }
    let spare = by_fallback(oracle, cpu, &everywhere);
    if !takes_nodes {
        return Some(spare);
    }
    let chosen: Nodes =
        everywhere.iter().copied().filter(|node| named(node) && oracle.is_up(*node)).collect();
    let mut private = Nodes::new();
    if fault.mode == Mode::Bind {
        let asked = |node: &usize| {
            oracle.doors(*node).is_some() && oracle.is_up(*node) && named(node) && in_cpuset(node)
        };
        let cache = fault.on == Setting::Range && fault.origin == PageOrigin::PageCache;
        private = with_memory().filter(asked).collect();
        if private.iter().any(|node| cache || !consents(oracle, *node)) {
            return None;
        }
    }
    if chosen.is_empty() && private.is_empty() {
        return None;
    }
    // A range's policy does not count for pages that belong to a file or cannot be moved.
    let anonymous = matches!(fault.origin, PageOrigin::PrivateAnonymous | PageOrigin::SharedAnonymous);
    if fault.on == Setting::Range && !anonymous {
        return Some(spare);
    }
    private.retain(|node| opened(oracle, ask, fault, *node));
    Some(match (fault.mode, chosen.first()) {
        (Mode::Bind, _) if chosen.is_empty() && private.is_empty() => spare,
        (Mode::Bind, _) => {
            private.sort_by_key(|node| (oracle.distance(cpu, *node), *node));
            let starts = private.contains(&cpu) || chosen.is_empty();
            let first: Nodes = private.iter().copied().take(usize::from(starts)).collect();
            [&first[..], &by_fallback(oracle, cpu, &chosen), &private].concat()
        }
        (Mode::PreferredMany, _) => [by_fallback(oracle, cpu, &chosen), spare].concat(),
        // It is the first one's turn.
        (_, Some(first)) => [vec![*first], by_fallback(oracle, *first, &everywhere)].concat(),
        (_, None) => spare,
    })
}

fn by_fallback(oracle: &Oracle, from: usize, among: &[usize]) -> Nodes {
    let mut nodes = among.to_vec();
    nodes.sort_by_key(|node| (oracle.distance(from, *node), (node + NODES - from) % NODES));
    nodes
}
