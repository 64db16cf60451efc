//! The nodes of a machine file, three at a time: each with its kind, its doors and its distances, in each state, and each request
//! and policy there.

use pnode::core::Distances;

use crate::machine::Described;
use crate::policies::{self, Zone};
use crate::world::{Ask, Kind, NODES, Step, Table};
use crate::{places, rights};

/// The most nodes of a file: there are 560 choices of three of so many.
const MOST: usize = 16;

/// The states of a node: not registered, or what became of its zone.
const STATES: [Option<Zone>; 4] = [None, Some(Zone::Free), Some(Zone::Full), Some(Zone::Draining)];

/// Some nodes of the machine.
pub(crate) struct Choice {
    pub(crate) names: Vec<String>,
    kinds: Vec<Kind>,
    table: Table,
}

/// Every choice of [`NODES`] nodes, in the order of the file; all of them, if it has no more.
pub(crate) fn choices(machine: &Described) -> Result<Vec<Choice>, String> {
    let nodes: Vec<_> = machine.file.nodes().collect();
    if nodes.len() > MOST {
        return Err(
            machine.about(&format!("this example takes up to {MOST} nodes, and there are {}", nodes.len()))
        );
    }
    let distances = machine.distances();
    Distances::from_table(nodes.len(), &distances).map_err(|error| machine.about(&error.to_string()))?;
    let wanted = nodes.len().min(NODES) as u32;
    let chosen = (0_u32..1 << nodes.len()).filter(|bits| bits.count_ones() == wanted);
    let choice = |bits: u32| {
        let nodes_at: Vec<usize> = (0..nodes.len()).filter(|node| bits >> node & 1 == 1).collect();
        // A node that the file does not have is in no world; its distances are those of a table of equal ones.
        let distance = |entry: usize| match (nodes_at.get(entry / NODES), nodes_at.get(entry % NODES)) {
            (Some(from), Some(to)) => distances[from * nodes.len() + to],
            _ if entry / NODES == entry % NODES => 10,
            _ => 20,
        };
        let kind = |node: &usize| match nodes[*node].1 {
            spec if spec.is_private() => Kind::Private(spec.doors()),
            _ => Kind::Ordinary,
        };
        Choice {
            names: nodes_at.iter().map(|node| nodes[*node].0.to_owned()).collect(),
            kinds: nodes_at.iter().map(kind).collect(),
            table: Some(std::array::from_fn(distance)),
        }
    };
    Ok(chosen.map(choice).collect())
}

impl Choice {
    /// How many worlds there are: the states of all nodes.
    pub(crate) fn worlds(&self) -> usize {
        STATES.len().pow(self.kinds.len() as u32)
    }

    /// The distances and the steps of a world.
    pub(crate) fn world(&self, number: usize) -> (Table, Vec<Step>) {
        let (mut states, mut steps) = (number, Vec::new());
        for (node, kind) in self.kinds.iter().enumerate() {
            if let Some(zone) = STATES[states % STATES.len()] {
                policies::bring_about(node, *kind, zone, &mut steps);
            }
            states /= STATES.len();
        }
        (self.table, steps)
    }
}

/// All requests and all faults under policies.
pub(crate) fn asks() -> Vec<Ask> {
    [places::asks(), policies::asks(), rights::asks()].concat()
}
