//! What is committed: the live entries, the history and the watchers, behind one lock.
//!
//! Readers hold the lock only to take a snapshot, never while they gather: the map is persistent, so that is one counter,
//! and for an older revision a walk through the history since. Everything in here is on disk already.

use std::ops::Bound;

use super::history::{Batch, History, HistoryBounds};
use super::watchers::{Watchers, matching};
use crate::{
    Entries, Entry, GetResult, Range, RangeResult, ReadAt, Revision, StoreError, WatchEvent, WatchStream,
};

/// The committed state.
#[derive(Debug)]
pub(super) struct State {
    pub(super) entries: Entries,
    pub(super) revision: Revision,
    pub(super) history: History,
    pub(super) watchers: Watchers,
    pub(super) bounds: HistoryBounds,
}

/// A consistent view of the entries.
pub(super) struct Snapshot {
    pub(super) entries: Entries,
    pub(super) revision: Revision,
}

impl State {
    /// The entries at a revision, as far as keys with the prefix go.
    pub(super) fn snapshot(&self, at: ReadAt, prefix: &str) -> Result<Snapshot, StoreError> {
        match at {
            ReadAt::Current => Ok(Snapshot { entries: self.entries.clone(), revision: self.revision }),
            ReadAt::Revision(requested) if requested > self.revision => {
                Err(StoreError::FutureRevision { requested, current: self.revision })
            }
            ReadAt::Revision(revision) => {
                let entries =
                    self.history.entries_at(&self.entries, revision, |key| key.starts_with(prefix))?;
                Ok(Snapshot { entries, revision })
            }
        }
    }

    /// Makes committed transactions visible: first to readers, then to watchers, in order.
    pub(super) fn publish(&mut self, entries: Entries, batches: Vec<Batch>, now_ms: u64) {
        self.entries = entries;
        for batch in batches {
            self.revision = batch.revision;
            self.watchers.deliver(&batch);
            self.history.push(batch);
        }
        self.history.trim(now_ms, self.bounds);
    }

    /// Starts a watch that misses nothing between its replay and its first live event.
    pub(super) fn watch(&mut self, prefix: &str, from: Option<Revision>) -> Result<WatchStream, StoreError> {
        let from = from.unwrap_or(self.revision + 1);
        let mut replay = Vec::new();
        if from <= self.revision {
            for batch in self.history.since(from)? {
                if let Some(changes) = matching(&batch.changes, prefix) {
                    replay.push(WatchEvent::Changes { revision: batch.revision, changes });
                }
            }
        } else if from > self.revision + 1 {
            return Err(StoreError::FutureRevision { requested: from, current: self.revision });
        }
        replay.push(WatchEvent::Progress(self.revision));
        Ok(self.watchers.add(prefix, replay, self.revision))
    }
}

impl Snapshot {
    pub(super) fn get(self, key: &str) -> GetResult {
        GetResult { entry: self.entries.get(key).cloned(), revision: self.revision }
    }

    pub(super) fn range(self, range: &Range) -> RangeResult {
        let start = match &range.after {
            Some(after) if after.as_str() >= range.prefix.as_str() => Bound::Excluded(after.as_str()),
            _ => Bound::Included(range.prefix.as_str()),
        };
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut matching = self
            .entries
            .range::<_, str>((start, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key.starts_with(&range.prefix));
        let entries: Vec<Entry> = matching.by_ref().take(limit).cloned().collect();
        RangeResult { entries, remaining: matching.count(), revision: self.revision }
    }
}
