//! What can go wrong in a netlink exchange.

use std::io;

/// A failed exchange.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket itself failed; a retry on a new socket may help.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused the request. A retry helps only for `EBUSY`, `EAGAIN` and `EINTR`.
    #[error("{operation}: {}{}", io::Error::from_raw_os_error(*.errno), .detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Kernel {
        /// What was asked for, in words.
        operation: String,
        /// The kernel's error number.
        errno: i32,
        /// The kernel's own explanation, when it gave one.
        detail: Option<String>,
    },
    /// The answer did not have the documented form; never seen, not worth a retry.
    #[error("malformed netlink answer to {0}")]
    Malformed(String),
    /// A network namespace could not be opened or entered.
    #[error("network namespace {path}: {source}")]
    Namespace {
        /// The path that was tried.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// True when the thing asked for does not exist (so that deleting it is already done).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Kernel {
                errno: libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO,
                ..
            }
        )
    }

    /// True when the thing to be made exists already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Kernel { errno: libc::EEXIST, .. })
    }

    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Socket(error) => error.raw_os_error(),
            _ => None,
        }
    }
}
