//! What can go wrong in the pod network.

use std::io;
use std::path::PathBuf;

/// A failed operation of the pod network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node has no pod addresses yet; a retry helps once the cluster has assigned them.
    #[error("the node's network is not ready: no pod CIDR has been assigned to this node yet")]
    NotReady,
    /// Every address of the node is leased; a retry helps once pods are gone.
    #[error("no free pod address in {0}")]
    Exhausted(netlink::Cidr),
    /// The kernel refused a change.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// A file of the network could not be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A device that was just made is gone: somebody deletes our devices.
    #[error("device {0} vanished while it was being set up")]
    Vanished(String),
    /// A blocking task of ours ended abnormally.
    #[error("network task failed: {0}")]
    Task(String),
    /// Input that makes no sense; a retry does not help.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
