//! The words that the trait speaks in.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::StoreError;

/// How many writes a transaction may have in every backend: etcd's default of `--max-txn-ops`, less one for its own use.
pub const TRANSACTION_WRITES_MAX: usize = 127;

/// A point in the store's one history. The empty store is at revision 1, as etcd's is.
pub type Revision = u64;

/// The last revision that there can be: etcd, and clients in many languages, count in signed 64 bits.
pub const REVISION_MAX: Revision = i64::MAX.unsigned_abs();

/// One key with its value and history. Cloning shares the allocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The full key.
    pub key: Arc<str>,
    /// The value as it was written.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision of the last write.
    pub mod_revision: Revision,
    /// How many writes the key has seen since its creation, from 1.
    pub version: u64,
}

/// What must hold of a key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing is asked.
    None,
    /// The key does not exist.
    Absent,
    /// The key's last write was this revision.
    ModRevision(Revision),
}

impl Precondition {
    /// Whether what is at the key meets it.
    pub fn holds(self, entry: Option<&Entry>) -> bool {
        match self {
            Self::None => true,
            Self::Absent => entry.is_none(),
            Self::ModRevision(revision) => entry.is_some_and(|entry| entry.mod_revision == revision),
        }
    }
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets the value; with a time to live, the key goes away by itself.
    Put {
        /// The new value.
        value: Bytes,
        /// How long the key lives, counted from the commit.
        time_to_live: Option<Duration>,
    },
    /// Removes the key.
    Delete,
    /// Leaves the key as it is: only its condition counts.
    Nothing,
}

/// One conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The full key.
    pub key: Arc<str>,
    /// What must hold.
    pub precondition: Precondition,
    /// What to do then.
    pub action: Action,
}

/// Refuses a transaction that writes a key twice.
pub(crate) fn check_distinct(writes: &[Write]) -> Result<(), StoreError> {
    let mut keys = HashSet::with_capacity(writes.len());
    match writes.iter().find(|write| writes.len() > 1 && !keys.insert(&write.key)) {
        Some(twice) => Err(StoreError::Setup(format!("a transaction writes {} twice", twice.key))),
        None => Ok(()),
    }
}

/// What a commit answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision of the transaction.
    pub revision: Revision,
    /// Per write, the entry that stood there before, if any.
    pub previous: Vec<Option<Entry>>,
}

/// Which state a read sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReadAt {
    /// The newest committed state.
    #[default]
    Current,
    /// The state as of a revision that is not compacted and not in the future.
    Revision(Revision),
}

/// The answer to a point read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetResult {
    /// The entry, if there is one.
    pub entry: Option<Entry>,
    /// The revision that the answer reflects.
    pub revision: Revision,
}

/// A read of a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Range {
    /// All keys that begin with this.
    pub prefix: String,
    /// Only keys after this one.
    pub after: Option<String>,
    /// At most so many entries; 0 is no limit.
    pub limit: usize,
    /// Which state to read.
    pub at: ReadAt,
}

/// The answer to a prefix read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    /// The entries in key order.
    pub entries: Vec<Entry>,
    /// How many more there are past the limit.
    pub remaining: usize,
    /// The revision that the answer reflects.
    pub revision: Revision,
}

/// What happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was created or changed.
    Put {
        /// The entry as it is now.
        entry: Entry,
        /// The entry as it was.
        previous: Option<Entry>,
    },
    /// The key was deleted or its time ran out.
    Delete {
        /// The key.
        key: Arc<str>,
        /// The entry as it was.
        previous: Option<Entry>,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Change {
    /// The key that it happened to.
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Put { entry, .. } => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }
}

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// All changes under the prefix that one transaction made.
    Changes {
        /// The transaction's revision.
        revision: Revision,
        /// The changes, in the transaction's order.
        changes: Arc<[Change]>,
    },
    /// Nothing under the prefix changed up to this revision beyond what was delivered.
    Progress(Revision),
}
