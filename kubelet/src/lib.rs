//! The node agent: it registers the node, runs the pods that are bound to it in any CRI runtime, and tells the API how
//! they do.
//!
//! Guarantees:
//! - it never writes a pod's spec, and a pod's object is removed only when nothing of the pod runs any more;
//! - containers outlive the agent: a new one adopts what it finds by labels, starts nothing twice, and stops what the
//!   API does not know;
//! - what to do with a pod is decided by pure functions over a snapshot; nothing polls while nothing happens, except that
//!   lists are compared every second with a runtime that does not stream events, and only while there are pods.
//!
//! Deliberately absent so far: static pods, CSI, device plugins, CPU and memory managers, swap, user
//! namespaces, checkpoints.

mod agent;
mod agent_state;
mod cgroup;
mod config;
mod cri;
mod destroy;
mod endpoints;
mod error;
mod eviction;
mod http_get;
mod image;
mod node;
mod pod;
mod probe;
mod quantity;
mod references;
mod run;
mod thresholds;
mod tokens;
mod volume;

pub use agent::ServingCertificate;
pub use config::{CgroupDriver, Config, Eviction, ImageGc, Reserved, Serving};
pub use destroy::destroy;
pub use error::Error;
pub use image::{Archive, ContainerdLoader, ImageLoader, LoadError};
pub use run::{run, run_with};
pub use thresholds::{Threshold, ThresholdError, Thresholds};
