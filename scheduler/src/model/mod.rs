//! What the scheduler knows of the cluster: plain data, no IO, no clock.

mod cluster;
mod node;
mod pod;
mod resources;
mod selector;

pub use cluster::{Cluster, Namespaces};
pub use node::NodeInfo;
pub use pod::{AffinityTerm, HostPort, PodInfo};
pub use resources::Resources;
pub(crate) use selector::{LabelMatcher, term_matches};
