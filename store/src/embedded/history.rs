//! The recent past: every transaction of the last minutes with the entries it replaced.
//!
//! One structure serves both users of history. A watch from an older revision replays it; a read at an older revision
//! undoes it from the current state. Batches share keys and values with the live entries and with the watchers, so what
//! it costs is what was replaced, in memory, and what was written, in the log. It is bounded by age and by bytes of
//! either; the newest transaction may always be forgotten.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry as Slot, HashMap};
use std::sync::Arc;

use crate::{Change, Entries, Entry, Revision, StoreError};

/// What a change costs beyond its key and value.
pub(super) const CHANGE_OVERHEAD_BYTES: usize = 200;

/// One committed transaction.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) revision: Revision,
    pub(super) time_ms: u64,
    pub(super) changes: Arc<[Change]>,
}

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct HistoryBounds {
    pub(super) age_ms: u64,
    pub(super) bytes: usize,
}

/// The batches of the revisions `oldest_watch..=current`, contiguous.
#[derive(Clone, Debug)]
pub(super) struct History {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// The first revision that a watch can start from.
    oldest_watch: Revision,
    /// The first revision that can be read. At most one before `oldest_watch`.
    oldest_read: Revision,
}

impl History {
    /// No history before a state as of `revision`.
    pub(super) fn starting_at(revision: Revision) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, oldest_watch: revision + 1, oldest_read: revision }
    }

    /// The first revision that can be read.
    pub(super) fn oldest_read(&self) -> Revision {
        self.oldest_read
    }

    /// When the oldest batch was committed.
    pub(super) fn oldest_time_ms(&self) -> Option<u64> {
        self.batches.front().map(|batch| batch.time_ms)
    }

    /// Adds the batch that follows the newest one.
    pub(super) fn push(&mut self, batch: Batch) {
        self.bytes += cost(&batch.changes);
        self.batches.push_back(batch);
    }

    /// Drops what is past the bounds.
    pub(super) fn trim(&mut self, now_ms: u64, bounds: HistoryBounds) {
        while let Some(front) = self.batches.front() {
            let expired = front.time_ms.saturating_add(bounds.age_ms) < now_ms;
            if !expired && self.bytes <= bounds.bytes {
                break;
            }
            let revision = front.revision;
            self.drop_front();
            self.oldest_watch = revision + 1;
            self.oldest_read = revision;
        }
    }

    /// Drops everything before `revision`, so that it is the oldest that can be read or watched from.
    pub(super) fn compact(&mut self, revision: Revision) {
        while self.batches.front().is_some_and(|front| front.revision < revision) {
            self.drop_front();
        }
        self.oldest_watch = self.oldest_watch.max(revision);
        self.oldest_read = self.oldest_read.max(revision);
    }

    fn drop_front(&mut self) {
        if let Some(front) = self.batches.pop_front() {
            self.bytes = self.bytes.saturating_sub(cost(&front.changes));
            if self.batches.is_empty() && self.batches.capacity() > 1024 {
                self.batches.shrink_to(64);
            }
        }
    }

    /// The batches from `from` on; an error if some of them are gone.
    pub(super) fn since(&self, from: Revision) -> Result<impl Iterator<Item = &Batch>, StoreError> {
        if from < self.oldest_watch {
            return Err(StoreError::Compacted { requested: from, oldest: self.oldest_watch });
        }
        let first = self.batches.partition_point(|batch| batch.revision < from);
        Ok(self.batches.range(first..))
    }

    /// What `current` was at `revision`, as far as keys that pass the filter go.
    pub(super) fn entries_at(
        &self,
        current: &Entries,
        revision: Revision,
        concerns: impl Fn(&str) -> bool,
    ) -> Result<Entries, StoreError> {
        if revision < self.oldest_read {
            return Err(StoreError::Compacted { requested: revision, oldest: self.oldest_read });
        }
        let first = self.batches.partition_point(|batch| batch.revision <= revision);
        // The first change after the revision holds what stood there at the revision.
        let mut before: HashMap<&Arc<str>, Option<&Entry>> = HashMap::new();
        for change in self.batches.range(first..).flat_map(|batch| batch.changes.iter()) {
            let (key, previous) = match change {
                Change::Put { entry, previous } => (&entry.key, previous),
                Change::Delete { key, previous, .. } => (key, previous),
            };
            if concerns(key)
                && let Slot::Vacant(slot) = before.entry(key)
            {
                slot.insert(previous.as_ref());
            }
        }
        let mut entries = current.clone();
        for (key, previous) in before {
            match previous {
                Some(entry) => entries.insert(key.clone(), entry.clone()),
                None => entries.remove(&**key),
            };
        }
        Ok(entries)
    }
}

/// What changes take in memory.
pub(super) fn cost(changes: &[Change]) -> usize {
    let length = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.value.len());
    let change_cost = |change: &Change| match change {
        Change::Put { entry, previous } => entry.value.len().max(length(previous)) + entry.key.len(),
        Change::Delete { key, previous, .. } => length(previous) + key.len(),
    };
    changes.iter().map(|change| change_cost(change) + CHANGE_OVERHEAD_BYTES).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, revision: Revision) -> Entry {
        Entry {
            key: key.into(),
            value: revision.to_string().into(),
            create_revision: 2,
            mod_revision: revision,
            version: 1,
        }
    }

    fn put(history: &mut History, entries: &mut Entries, key: &str, revision: Revision) {
        let entry = entry(key, revision);
        let previous = entries.insert(key.into(), entry.clone());
        let changes: Arc<[Change]> = Arc::new([Change::Put { entry, previous }]);
        history.push(Batch { revision, time_ms: revision * 1000, changes });
    }

    #[test]
    fn an_older_state_is_the_current_one_undone() {
        let (mut history, mut entries) = (History::starting_at(1), Entries::new());
        let mut states = vec![entries.clone()];
        for revision in 2..50 {
            put(&mut history, &mut entries, ["a", "b", "c"][(revision % 3) as usize], revision);
            states.push(entries.clone());
        }
        for (index, state) in states.iter().enumerate() {
            let at = history.entries_at(&entries, index as Revision + 1, |_| true).unwrap();
            assert_eq!(&at, state, "revision {}", index + 1);
        }
    }

    #[test]
    fn what_is_trimmed_is_compacted_and_what_is_kept_is_readable() {
        let (mut history, mut entries) = (History::starting_at(1), Entries::new());
        for revision in 2..=10 {
            put(&mut history, &mut entries, "a", revision);
        }
        history.trim(10_000, HistoryBounds { age_ms: 5_000, bytes: usize::MAX });
        assert!(history.since(5).is_ok());
        assert!(history.since(4).is_err());
        assert_eq!(history.oldest_read(), 4);
        assert_eq!(history.entries_at(&entries, 4, |_| true).unwrap()["a"], entry("a", 4));
        assert!(history.entries_at(&entries, 3, |_| true).is_err());
        history.compact(8);
        assert!(history.since(8).is_ok_and(|batches| batches.count() == 3));
        assert!(history.since(7).is_err());
        assert!(history.entries_at(&entries, 7, |_| true).is_err());
        history.trim(10_000, HistoryBounds { age_ms: 60_000, bytes: 0 });
        assert_eq!(history.oldest_read(), 10);
        assert!(history.entries_at(&entries, 10, |_| true).is_ok());
    }
}
