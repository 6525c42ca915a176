//! The patch types of the API. They are parsed once and can be applied again when the write has to be retried.

pub mod json;
pub mod merge;
pub mod strategic;

/// Why a patch fails. A retry does not help unless the object changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is wrong: 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// The patch has too many operations: 413 RequestEntityTooLarge.
    #[error("The allowed maximum operations in a JSON patch is {operations_max}, got {operations}")]
    TooManyOperations {
        /// How many there are.
        operations: usize,
        /// How many there may be.
        operations_max: usize,
    },
}
