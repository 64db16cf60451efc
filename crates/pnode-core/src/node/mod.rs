//! What a node is: its id, the sets it stands in, the class of its memory, the doors its owner opened and its life.

mod class;
mod features;
mod id;
mod mask;
mod stamp;
mod state;

pub use class::MemoryClass;
pub use features::{FeatureError, Features};
pub use id::{NodeId, NodeIdTooLarge};
pub use mask::NodeMask;
pub use stamp::Stamp;
pub use state::{Cpus, Life, NodeState};
pub(crate) use state::{Facts, Generation, Word};
