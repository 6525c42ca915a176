//! All that a store holds at one revision, taken out of one store and put into another.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::{Entry, Revision};

/// The live entries of a store, in key order, and when those with a time to live end. History is not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The revision that all of it is of.
    pub revision: Revision,
    /// The entries by key.
    pub entries: BTreeMap<Arc<str>, Entry>,
    /// When keys end that do so by themselves, in milliseconds of Unix time.
    pub deadlines_ms: HashMap<Arc<str>, u64>,
}

impl Contents {
    /// The size of all keys and values.
    pub fn bytes(&self) -> usize {
        self.entries.values().map(|entry| entry.key.len() + entry.value.len()).sum()
    }
}
