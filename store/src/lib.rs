//! Where objects are kept: one trait with the semantics that the Kubernetes API needs from etcd v3, an embedded
//! engine (the default) and an etcd backend behind it.
//!
//! Guarantees, for every backend:
//! - one global revision that grows by one with every committed transaction and never goes back;
//! - a write is acknowledged only after it is on disk;
//! - a write is conditional on the state of its key, and a failed condition reports the entry that is there;
//! - a watch delivers every change under its prefix from its revision on: in order, once, and all changes of one
//!   revision together.
//!
//! The store knows bytes, not objects.

pub mod care;
mod contents;
mod deadlines;
pub mod embedded;
mod error;
pub mod etcd;
mod types;

pub use contents::{Contents, Entries};
pub use error::StoreError;
pub use types::*;

use async_trait::async_trait;
use futures::stream::BoxStream;

/// A stream of what happens under a prefix.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, StoreError>>;

/// A place where entries are kept. See the module's documentation for what every backend guarantees.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits all the writes as one transaction with one revision, or none of them.
    async fn commit(&self, transaction: Vec<Write>) -> Result<Committed, StoreError>;

    /// The entry under a key, now or at an older revision.
    async fn get(&self, key: &str, at: ReadAt) -> Result<GetResult, StoreError>;

    /// The entries under a prefix in key order, now or at an older revision.
    async fn range(&self, range: Range) -> Result<RangeResult, StoreError>;

    /// Follows a prefix. `from` is the first revision delivered; `None` starts after the current one.
    async fn watch(&self, prefix: &str, from: Option<Revision>) -> Result<WatchStream, StoreError>;

    /// The newest committed revision. A read that follows sees at least it.
    async fn current_revision(&self) -> Result<Revision, StoreError>;

    /// Forgets all history before `revision`: older reads and watches then get [`StoreError::Compacted`].
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Answers when a write could be served; for health checks.
    async fn health(&self) -> Result<(), StoreError>;
}
