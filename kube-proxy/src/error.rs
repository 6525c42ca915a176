//! What can go wrong in the service proxy.

use std::net::SocketAddr;

/// A failure that ends the proxy; everything else is logged and tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a change.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The health address is taken or not ours.
    #[error("cannot listen on {address} for health checks: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A blocking task of ours ended abnormally.
    #[error("service proxy task failed: {0}")]
    Task(String),
}
