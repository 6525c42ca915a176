//! What can go wrong with keys and certificates.

use std::path::PathBuf;

/// An error of this crate. None goes away by itself; each says what to look at.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate, key or request is not what it should be.
    #[error("{what}: {why}")]
    Malformed {
        /// Which thing.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A join token could not be read.
    #[error("the join token is not valid: {0}; take it whole from `gantry token create` on the server")]
    Token(&'static str),
}

impl PkiError {
    pub(crate) fn malformed(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Malformed { what: what.into(), why: why.to_string() }
    }
}
