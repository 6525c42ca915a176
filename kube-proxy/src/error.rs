//! What can go wrong in the service proxy.

/// A failure that ends the proxy; everything else is logged and tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a change.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// A blocking task of ours ended abnormally.
    #[error("service proxy task failed: {0}")]
    Task(String),
}
