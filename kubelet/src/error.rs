//! Why the agent could not start or go on.

use std::io;
use std::path::PathBuf;

/// Why [`crate::run`] returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime's socket does not answer. Retrying helps once the runtime runs.
    #[error("the container runtime does not answer")]
    Runtime(#[from] crate::cri::CriError),
    /// A directory cannot be made or read.
    #[error("{path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent API's address cannot be bound.
    #[error("the agent API cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The serving certificate or the client authority is no good.
    #[error("the agent API's certificates: {0}")]
    Tls(String),
    /// The node cannot be registered, and will not be.
    #[error("the node cannot be registered: {0}")]
    Register(#[source] Box<kube::Error>),
}
