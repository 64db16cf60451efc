//! Sets of nodes.

use core::fmt;

use super::NodeId;

const WORDS: usize = NodeId::COUNT / 64;

/// A set of nodes: a value of 128 bytes, one bit a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NodeMask {
    words: [u64; WORDS],
}

impl NodeMask {
    /// No node.
    pub const EMPTY: Self = Self { words: [0; WORDS] };
    /// Every node id.
    pub const ALL: Self = Self { words: [u64::MAX; WORDS] };

    /// The set of one node.
    pub const fn of(node: NodeId) -> Self {
        Self::EMPTY.with(node)
    }

    /// This set and `node`.
    #[must_use]
    pub const fn with(mut self, node: NodeId) -> Self {
        self.words[node.index() / 64] |= 1 << (node.index() % 64);
        self
    }

    /// This set without `node`.
    #[must_use]
    pub const fn without(mut self, node: NodeId) -> Self {
        self.words[node.index() / 64] &= !(1 << (node.index() % 64));
        self
    }

    /// Whether `node` is in the set.
    #[inline]
    pub const fn contains(&self, node: NodeId) -> bool {
        self.words[node.index() / 64] >> (node.index() % 64) & 1 == 1
    }

    /// Adds `node`.
    pub const fn insert(&mut self, node: NodeId) {
        *self = self.with(node);
    }

    /// Takes `node` out.
    pub const fn remove(&mut self, node: NodeId) {
        *self = self.without(node);
    }

    /// The nodes in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// The nodes in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// The nodes of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// Whether every node of this set is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// Whether the sets share a node.
    pub fn intersects(&self, other: &Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// Whether the set holds no node.
    pub fn is_empty(&self) -> bool {
        self.words == [0; WORDS]
    }

    /// How many nodes the set holds.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The node with the lowest number.
    pub fn first(&self) -> Option<NodeId> {
        self.iter().next()
    }

    /// The nodes by number, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.words.into_iter().enumerate().flat_map(|(index, word)| {
            core::iter::successors((word != 0).then_some(word), |word| {
                let rest = word & (word - 1);
                (rest != 0).then_some(rest)
            })
            .filter_map(move |word| NodeId::from_index(index * 64 + word.trailing_zeros() as usize))
        })
    }

    fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self { words: core::array::from_fn(|i| f(self.words[i], other.words[i])) }
    }
}

impl FromIterator<NodeId> for NodeMask {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        nodes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for NodeMask {
    /// Prints ranges, as `{0-2,7}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NodeMask {
    /// Prints ranges, as `{0-2,7}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        let mut nodes = self.iter().map(NodeId::get).peekable();
        let mut separator = "";
        while let Some(first) = nodes.next() {
            let mut last = first;
            while nodes.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;
    use std::format;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn set(numbers: &BTreeSet<u16>) -> NodeMask {
        numbers.iter().map(|n| NodeId::new(*n).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(a in prop::collection::btree_set(0u16..1024, 0..40),
                             b in prop::collection::btree_set(0u16..1024, 0..40)) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(x.union(&y), set(&(&a | &b)));
            prop_assert_eq!(x.intersection(&y), set(&(&a & &b)));
            prop_assert_eq!(x.difference(&y), set(&(&a - &b)));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
            prop_assert_eq!(x.len(), a.len());
            prop_assert_eq!(x.is_empty(), a.is_empty());
            prop_assert_eq!(x.first().map(NodeId::get), a.first().copied());
            prop_assert!(x.iter().map(NodeId::get).eq(a.iter().copied()));
            for n in a.union(&b) {
                let n = NodeId::new(*n).unwrap();
                prop_assert_eq!(x.contains(n), a.contains(&n.get()));
                prop_assert!(!x.without(n).contains(n));
            }
        }
    }

    #[test]
    fn prints_ranges() {
        let ids: Vec<NodeId> = [0, 1, 2, 7, 63, 64, 1023].map(|n| NodeId::new(n).unwrap()).into();
        assert_eq!(format!("{}", ids.into_iter().collect::<NodeMask>()), "{0-2,7,63-64,1023}");
        assert_eq!(format!("{}", NodeMask::EMPTY), "{}");
        assert_eq!(NodeMask::ALL.len(), NodeId::COUNT);
    }
}
