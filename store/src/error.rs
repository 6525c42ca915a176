//! What can go wrong in a store.

use crate::{Entry, Revision};

/// An error of a store. No variant leaves it open whether a retry is safe.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A write's precondition did not hold; nothing was written. Read what is there and decide anew.
    #[error("the precondition on {key} does not hold")]
    Conflict {
        /// The key whose condition failed.
        key: String,
        /// What is there.
        current: Option<Box<Entry>>,
        /// The revision at which it was seen.
        revision: Revision,
    },
    /// The revision asked for is older than the history kept. Start again from the current state.
    #[error("revision {requested} has been compacted; the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// What is still there.
        oldest: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("revision {requested} is in the future; the newest is {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// What is there.
        current: Revision,
    },
    /// The watch did not keep up and was ended. Resume from the last revision seen.
    #[error("the watch fell behind and was ended")]
    Lagged,
    /// The write may or may not have happened. Read before writing again; never retry blindly.
    #[error("the outcome of the write is unknown: {0}")]
    OutcomeUnknown(String),
    /// The backend cannot serve right now; nothing was written. A retry may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The disk is full; nothing was written and reads go on. A retry helps once there is space.
    #[error("no space left for the store: {0}")]
    NoSpace(String),
    /// The data on disk is not what was written. No retry helps.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The store could not be opened or used as configured. No retry helps before the cause is removed.
    #[error("{0}")]
    Setup(String),
}
