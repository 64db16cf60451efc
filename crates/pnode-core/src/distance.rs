//! How far nodes are from one another.

use core::fmt;

use crate::node::NodeId;

/// The distance of a node to itself, as in the ACPI SLIT.
pub const LOCAL: u8 = 10;
/// The distance between different nodes when no table says otherwise, as in the ACPI SLIT.
pub const REMOTE: u8 = 20;

/// A table of relative distances, as the ACPI SLIT has it: row *from*, column *to*, 10 is local, larger is farther.
///
/// # Invariants
///
/// - **D1** `table`, where there is one, has exactly `nodes * nodes` entries.
/// - **D2** each diagonal entry is [`LOCAL`], every other one is larger.
#[derive(Clone, Copy, Debug)]
pub struct Distances<'m> {
    nodes: usize,
    table: Option<&'m [u8]>,
}

impl<'m> Distances<'m> {
    /// Every other node is equally far.
    ///
    /// # Errors
    ///
    /// [`DistanceError::Nodes`] for no nodes, or more than [`NodeId::COUNT`].
    pub const fn uniform(nodes: usize) -> Result<Self, DistanceError> {
        if nodes == 0 || nodes > NodeId::COUNT {
            return Err(DistanceError::Nodes { nodes });
        }
        // INVARIANT: D1 and D2 speak of tables only.
        Ok(Self { nodes, table: None })
    }

    /// The distances in `table`, `nodes * nodes` entries, row by row.
    ///
    /// # Errors
    ///
    /// [`DistanceError`] for a table of another size, a diagonal entry that is not [`LOCAL`], or another entry that is
    /// not larger than that (0 among them).
    pub fn from_table(nodes: usize, table: &'m [u8]) -> Result<Self, DistanceError> {
        let uniform = Self::uniform(nodes)?;
        if table.len() != nodes * nodes {
            return Err(DistanceError::Size { entries: table.len(), wanted: nodes * nodes });
        }
        for (index, distance) in table.iter().copied().enumerate() {
            let (from, to) = (index / nodes, index % nodes);
            if (from == to) != (distance == LOCAL) || distance < LOCAL {
                let (Some(from), Some(to)) = (NodeId::from_index(from), NodeId::from_index(to)) else {
                    return Err(DistanceError::Nodes { nodes });
                };
                return Err(DistanceError::Entry { from, to, distance });
            }
        }
        // INVARIANT: D1 and D2 were tested above.
        Ok(Self { table: Some(table), ..uniform })
    }

    /// How many nodes the table speaks of: ids from 0.
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    /// The distance seen from `from`, or `None` for a node that is not in the table.
    #[inline]
    pub fn between(&self, from: NodeId, to: NodeId) -> Option<u8> {
        if from.index() >= self.nodes || to.index() >= self.nodes {
            return None;
        }
        match self.table {
            Some(table) => table.get(from.index() * self.nodes + to.index()).copied(),
            None => Some(if from == to { LOCAL } else { REMOTE }),
        }
    }
}

/// Why a table of distances is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DistanceError {
    /// There are no nodes, or more than ids.
    Nodes {
        /// How many nodes there were to be.
        nodes: usize,
    },
    /// The table is not square.
    Size {
        /// How many entries it has.
        entries: usize,
        /// How many it needs.
        wanted: usize,
    },
    /// An entry that is no distance: local is 10 and remote is more.
    Entry {
        /// The row.
        from: NodeId,
        /// The column.
        to: NodeId,
        /// The entry.
        distance: u8,
    },
}

impl fmt::Display for DistanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes { nodes } => write!(f, "{nodes} nodes; there can be 1 to {}", NodeId::COUNT),
            Self::Size { entries, wanted } => write!(f, "the table has {entries} entries and needs {wanted}"),
            Self::Entry { from, to, distance } => write!(
                f,
                "the distance from {from:?} to {to:?} is {distance}; it must be {LOCAL} to itself and more to others"
            ),
        }
    }
}

impl core::error::Error for DistanceError {}
