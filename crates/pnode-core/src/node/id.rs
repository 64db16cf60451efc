//! Node ids.

use core::fmt;

/// The number of a memory node, 0 to 1,023.
///
/// The limit is that of the largest `MAX_NUMNODES` of Linux.
///
/// # Invariants
///
/// - **N1** the number is less than [`NodeId::COUNT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u16);

impl NodeId {
    /// How many ids there are.
    pub const COUNT: usize = 1024;

    /// The node with number `number`.
    ///
    /// # Errors
    ///
    /// [`NodeIdTooLarge`] from [`NodeId::COUNT`] on.
    pub const fn new(number: u16) -> Result<Self, NodeIdTooLarge> {
        if number as usize >= Self::COUNT {
            return Err(NodeIdTooLarge { number });
        }
        // INVARIANT: N1 was tested above.
        Ok(Self(number))
    }

    /// The number, less than [`NodeId::COUNT`].
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number as an index, less than [`NodeId::COUNT`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The node with the low bits of `number`, for a number that was an id before it was packed into a word.
    #[inline]
    pub(crate) const fn masked(number: u16) -> Self {
        // INVARIANT: N1, because COUNT is a power of two.
        Self(number & (Self::COUNT as u16 - 1))
    }

    /// The node with index `index`, or `None` past the last id.
    pub(crate) const fn from_index(index: usize) -> Option<Self> {
        if index < Self::COUNT { Some(Self(index as u16)) } else { None }
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A node number past the last id was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdTooLarge {
    /// The number that was asked for.
    pub number: u16,
}

impl fmt::Display for NodeIdTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node number {} is past the last one, {}", self.number, NodeId::COUNT - 1)
    }
}

impl core::error::Error for NodeIdTooLarge {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_1024_ids_by_number_and_by_index() {
        for number in 0..2 * NodeId::COUNT {
            let id = NodeId::new(number as u16).ok();
            assert_eq!(id, NodeId::from_index(number));
            let told = id.map(|id| (usize::from(id.get()), id.index()));
            assert_eq!(told, (number < 1024).then_some((number, number)));
        }
    }
}
