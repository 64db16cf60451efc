//! Moving a set of nodes from one numbering to another.
//!
//! The meaning is that of `bitmap_remap`, `bitmap_fold` and `bitmap_onto` of Linux (`lib/bitmap.c`), by which `mempolicy`
//! follows a cpuset.

use crate::node::{NodeId, NodeMask};

/// Each node of `set` keeps its position: the n-th node of `old` becomes the n-th of `new`, counted round. A node that is
/// not in `old` stays.
pub(super) fn remap(set: &NodeMask, old: &NodeMask, new: &NodeMask) -> NodeMask {
    let round = new.len().max(1);
    set.iter()
        .filter_map(|node| match position(old, node) {
            Some(position) => new.iter().nth(position % round),
            None => Some(node),
        })
        .collect()
}

/// Node n of `set` becomes the n-th node of `within`, counted round.
pub(super) fn relative(set: &NodeMask, within: &NodeMask) -> NodeMask {
    let round = within.len().max(1);
    set.iter().filter_map(|node| within.iter().nth(node.index() % round)).collect()
}

/// How many nodes of `set` come before `node`, if `node` is one of them.
fn position(set: &NodeMask, node: NodeId) -> Option<usize> {
    set.iter().position(|member| member == node)
}
