//! All that a store holds at one revision, taken out of one store and put into another.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use imbl::OrdMap;

use crate::deadlines::Deadlines;
use crate::{Entry, Revision};

/// Entries by key.
pub type Entries = OrdMap<Arc<str>, Entry>;

/// The live entries of a store, and when those with a time to live end. History is not part of it. A clone is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The revision that all of it is of.
    pub revision: Revision,
    /// The entries.
    pub entries: Entries,
    pub(crate) deadlines: Deadlines,
}

impl Contents {
    /// The size of all keys and values.
    pub fn bytes(&self) -> usize {
        self.entries.values().map(|entry| entry.key.len() + entry.value.len()).sum()
    }

    /// When a key ends by itself, in milliseconds of Unix time.
    pub fn ends_ms(&self, key: &str) -> Option<u64> {
        self.deadlines.get(key)
    }
}

/// Now, in milliseconds of Unix time.
pub(crate) fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
