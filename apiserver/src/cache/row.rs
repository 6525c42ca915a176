//! The cache of one row: its objects now, and how they came to be so.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use parking_lot::RwLock;
use store::Revision;
use tokio::sync::watch;

use super::{Cached, History, RowEvent};

/// All objects of a row at one revision.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// By the store's key.
    pub objects: OrdMap<Arc<str>, Arc<Cached>>,
    /// What it reflects: every change up to here is in it, none after.
    pub revision: Revision,
}

impl Snapshot {
    /// The objects under a prefix, after a key if one is given, in key order.
    pub fn under<'a>(
        &'a self,
        prefix: &'a str,
        from: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Cached>> {
        let start = from.map_or(prefix, |key| if key > prefix { key } else { prefix });
        self.objects
            .range::<_, str>((Bound::Included(start), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, object)| object)
    }
}

struct State {
    objects: OrdMap<Arc<str>, Arc<Cached>>,
    history: History,
}

/// A revision that the row's history does not reach back to.
#[derive(Debug)]
pub(crate) struct TooOld {
    /// The oldest revision that can be asked for.
    pub oldest: Revision,
}

/// The cache of one row.
pub(crate) struct RowCache {
    state: RwLock<State>,
    /// The revision of the row's last change; what watchers wait on.
    changed: watch::Sender<Revision>,
}

impl RowCache {
    /// A row with the objects of a first list.
    pub fn new(objects: OrdMap<Arc<str>, Arc<Cached>>, revision: Revision) -> Self {
        let state = State { objects, history: History::starting_after(revision) };
        Self { state: RwLock::new(state), changed: watch::Sender::new(revision) }
    }

    /// Applies one change. Only the feed calls this, in commit order.
    pub fn apply(&self, key: &Arc<str>, new: Option<Arc<Cached>>, revision: Revision) {
        let mut state = self.state.write();
        let old = match &new {
            Some(object) => state.objects.insert(key.clone(), object.clone()),
            None => state.objects.remove(&**key),
        };
        if old.is_some() || new.is_some() {
            state.history.push(Arc::new(RowEvent::new(revision, old, new)));
        }
    }

    /// Wakes the watchers after the changes of a revision.
    pub fn announce(&self, revision: Revision) {
        self.changed.send_replace(revision);
    }

    /// What wakes on every change of the row.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// How many look at its changes.
    pub fn watches(&self) -> usize {
        self.changed.receiver_count()
    }

    /// The objects now. `at_least` is a revision that the cache as a whole has reached.
    pub fn snapshot(&self, at_least: Revision) -> Snapshot {
        let state = self.state.read();
        let last_change = state.history.back_to(0).next().map_or(0, |e| e.revision);
        Snapshot { objects: state.objects.clone(), revision: at_least.max(last_change) }
    }

    /// The objects as of a revision, which the history is unwound to.
    pub fn snapshot_at(&self, revision: Revision) -> Result<Snapshot, TooOld> {
        let state = self.state.read();
        if revision < state.history.complete_after() {
            return Err(TooOld { oldest: state.history.complete_after() });
        }
        let mut objects = state.objects.clone();
        for event in state.history.back_to(revision) {
            match (&event.old, &event.new) {
                (Some(old), _) => {
                    objects.insert(old.key.clone(), old.clone());
                }
                (None, Some(new)) => {
                    objects.remove(&*new.key);
                }
                (None, None) => {}
            }
        }
        Ok(Snapshot { objects, revision })
    }

    /// One object now.
    pub fn get(&self, key: &str) -> Option<Arc<Cached>> {
        self.state.read().objects.get(key).cloned()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// A snapshot and the position in the history from which it goes on.
    pub fn snapshot_and_position(&self, at_least: Revision) -> (Snapshot, u64) {
        let state = self.state.read();
        let last_change = state.history.back_to(0).next().map_or(0, |e| e.revision);
        let snapshot = Snapshot { objects: state.objects.clone(), revision: at_least.max(last_change) };
        (snapshot, state.history.end())
    }

    /// The position of the first event after a revision.
    pub fn position_after(&self, revision: Revision) -> Result<u64, TooOld> {
        let state = self.state.read();
        let oldest = state.history.complete_after();
        state.history.position_after(revision).ok_or(TooOld { oldest })
    }

    /// Up to `limit` events from a position; `None` when the reader has fallen behind the history.
    pub fn events_from(&self, position: u64, limit: usize) -> Option<Vec<Arc<RowEvent>>> {
        self.state.read().history.from(position, limit)
    }

    /// How many events the history keeps, and their size in bytes.
    pub fn history_size(&self) -> (usize, usize) {
        self.state.read().history.size()
    }

    /// The keys now; for a feed that has to start over.
    pub fn keys(&self) -> Vec<(Arc<str>, Revision)> {
        self.state.read().objects.iter().map(|(key, object)| (key.clone(), object.revision)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, revision: Revision) -> Arc<Cached> {
        let object = serde_json::json!({"metadata": {"name": "x"}});
        let bytes = crate::cache::encode(&object).into();
        Arc::new(Cached::with_tree(key.into(), revision, bytes, &object).unwrap())
    }

    fn keys(snapshot: &Snapshot) -> Vec<(String, Revision)> {
        snapshot.under("/r/", None).map(|o| (o.key.to_string(), o.revision)).collect()
    }

    #[test]
    fn an_older_snapshot_should_be_what_was_there_then() {
        let row = RowCache::new(OrdMap::new(), 1);
        row.apply(&"/r/a".into(), Some(object("/r/a", 2)), 2);
        row.apply(&"/r/b".into(), Some(object("/r/b", 3)), 3);
        row.apply(&"/r/a".into(), Some(object("/r/a", 4)), 4);
        row.apply(&"/r/b".into(), None, 5);
        let at = |revision| keys(&row.snapshot_at(revision).unwrap());
        assert_eq!(at(1), []);
        assert_eq!(at(3), [("/r/a".to_string(), 2), ("/r/b".to_string(), 3)]);
        assert_eq!(at(4), [("/r/a".to_string(), 4), ("/r/b".to_string(), 3)]);
        assert_eq!(at(5), [("/r/a".to_string(), 4)]);
        assert!(row.snapshot_at(0).is_err());
    }
}
