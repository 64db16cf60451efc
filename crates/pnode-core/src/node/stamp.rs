//! Moments in the life of a registry.

/// A moment in the life of a registry: how many registrations it had seen.
///
/// Whoever remembers node ids remembers the moment too: a node that was registered later is not the node that was
/// meant, even if it has the same id. One number does for any set of nodes. Only a registry makes one
/// ([`Nodes::stamp`](crate::Nodes::stamp)), and it means nothing to another registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub(crate) u64);
