//! Errors of the runtime, and what the runtime interface makes of them.

use std::io;

use crate::{cgroup::CgroupError, image::ImageError, shim_client::ShimError, spec::SpecError};

/// Why the runtime did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such sandbox, container or image. No retry helps.
    #[error("{0} {1:?} not found")]
    NotFound(&'static str, String),
    /// The request makes no sense. No retry helps.
    #[error("{0}")]
    Invalid(String),
    /// Not in this state; a retry after a change of it may help.
    #[error("{0}")]
    State(String),
    /// An image could not be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The pod could not be connected; a retry may help.
    #[error("pod network: {0}")]
    Network(crate::network::NetworkError),
    /// The disk, a mount or the kernel refused.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// Something inside failed; the words say what.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io(what, error)
    }
}

impl From<ShimError> for Error {
    fn from(error: ShimError) -> Self {
        match error {
            ShimError::NotRunning => Self::State(error.to_string()),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<SpecError> for Error {
    fn from(error: SpecError) -> Self {
        match error {
            SpecError::Io(what, error) => Self::Io(what, error),
            other => Self::Invalid(other.to_string()),
        }
    }
}

impl From<CgroupError> for Error {
    fn from(error: CgroupError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound(..) | Error::Image(ImageError::NotFound(_)) => Self::not_found(text),
            Error::Invalid(_) | Error::Image(ImageError::Reference(..)) => Self::invalid_argument(text),
            Error::State(_) => Self::failed_precondition(text),
            _ => Self::unknown(text),
        }
    }
}
