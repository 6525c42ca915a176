//! The one store watch that feeds all rows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::Row;
use futures::StreamExt;
use imbl::OrdMap;
use parking_lot::RwLock;
use store::{Change, Entry, Range, ReadAt, Revision, Store, StoreError, WatchEvent};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Cached, RowCache};

/// Under this all objects are stored.
pub(crate) const PREFIX: &str = "/registry/";
/// How many entries the first list takes from the store at once.
const PAGE: usize = 2000;

/// The row of the table that a row of the cache (`<group>/<plural>`) belongs to, if it has one.
pub(crate) type RowOf = dyn Fn(&str) -> Option<Arc<Row>> + Send + Sync;

/// The caches of all rows.
pub(crate) struct Cache {
    rows: RwLock<HashMap<Box<str>, Arc<RowCache>>>,
    /// Everything up to here has been applied to all rows.
    revision: watch::Sender<Revision>,
    row_of: Box<RowOf>,
}

impl Cache {
    /// Lists the store, then follows it until told to stop. Answers when the list is in.
    pub async fn start(
        store: Arc<dyn Store>,
        row_of: Box<RowOf>,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, StoreError> {
        let (entries, revision) = list(&*store).await?;
        let cache = Arc::new(Self {
            rows: RwLock::new(HashMap::new()),
            revision: watch::Sender::new(revision),
            row_of,
        });
        cache.fill(entries, revision);
        let feed = cache.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = feed.follow(store) => {}
                () = shutdown.cancelled() => {}
            }
        });
        Ok(cache)
    }

    /// The cache of a row, named `<group>/<plural>`.
    pub fn row(&self, name: &str) -> Arc<RowCache> {
        if let Some(row) = self.rows.read().get(name) {
            return row.clone();
        }
        let mut rows = self.rows.write();
        let empty = || Arc::new(RowCache::new(OrdMap::new(), *self.revision.borrow()));
        rows.entry(name.into()).or_insert_with(empty).clone()
    }

    /// How many objects a row has. Anybody may ask for any name: a row is not made for that.
    pub fn row_length(&self, name: &str) -> usize {
        self.rows.read().get(name).map_or(0, |row| row.len())
    }

    /// All rows that hold or held something.
    pub fn rows(&self) -> Vec<(Box<str>, Arc<RowCache>)> {
        self.rows.read().iter().map(|(name, row)| (name.clone(), row.clone())).collect()
    }

    /// What all rows have reached.
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Waits until all rows have reached a revision. False when they have not within the time.
    pub async fn wait_for(&self, revision: Revision, at_most: Duration) -> bool {
        if self.revision() >= revision {
            return true;
        }
        let mut receiver = self.revision.subscribe();
        let reached = receiver.wait_for(|r| *r >= revision);
        tokio::time::timeout(at_most, reached).await.is_ok_and(|r| r.is_ok())
    }

    fn fill(&self, entries: Vec<Entry>, revision: Revision) {
        let mut rows: HashMap<Box<str>, OrdMap<Arc<str>, Arc<Cached>>> = HashMap::new();
        for entry in entries {
            let Some(name) = name_of(&entry.key) else { continue };
            let name: Box<str> = name.into();
            if let Some(object) = self.read(&name, &entry) {
                rows.entry(name).or_default().insert(object.key.clone(), object);
            }
        }
        let mut target = self.rows.write();
        for (name, objects) in rows {
            target.insert(name, Arc::new(RowCache::new(objects, revision)));
        }
    }

    fn read(&self, row: &str, entry: &Entry) -> Option<Arc<Cached>> {
        let row = (self.row_of)(row);
        match Cached::read(entry, row.as_deref()) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                tracing::error!(%error, "an entry of the store is left out");
                None
            }
        }
    }

    async fn follow(&self, store: Arc<dyn Store>) {
        loop {
            let error = match store.watch(PREFIX, Some(self.revision() + 1)).await {
                Ok(mut events) => loop {
                    match events.next().await {
                        Some(Ok(event)) => self.apply(event),
                        Some(Err(error)) => break error,
                        None => break StoreError::Unavailable("the watch ended".to_string()),
                    }
                },
                Err(error) => error,
            };
            tracing::warn!(%error, "the store watch is started again");
            if matches!(error, StoreError::Compacted { .. })
                && let Err(error) = self.start_over(&*store).await
            {
                tracing::warn!(%error, "the store could not be listed again");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn apply(&self, event: WatchEvent) {
        let revision = match event {
            WatchEvent::Progress(revision) => revision,
            WatchEvent::Changes { revision, changes } => {
                let mut touched: Vec<Arc<RowCache>> = Vec::with_capacity(1);
                for change in changes.iter() {
                    if let Some(row) = self.apply_change(change, revision)
                        && !touched.iter().any(|t| Arc::ptr_eq(t, &row))
                    {
                        touched.push(row);
                    }
                }
                // The row's watchers look at the row alone; what waits for the revision must find all rows changed.
                touched.iter().for_each(|row| row.announce(revision));
                revision
            }
        };
        self.revision.send_if_modified(|reached| {
            let newer = revision > *reached;
            *reached = revision.max(*reached);
            newer
        });
    }

    fn apply_change(&self, change: &Change, revision: Revision) -> Option<Arc<RowCache>> {
        let (key, entry) = match change {
            Change::Put { entry, .. } => (&entry.key, Some(entry)),
            Change::Delete { key, .. } => (key, None),
        };
        let name = name_of(key)?;
        let row = self.row(name);
        let object = match entry {
            Some(entry) => Some(self.read(name, entry)?),
            None => None,
        };
        row.apply(key, object, revision);
        Some(row)
    }

    /// The history in between is gone: lists again and applies the difference, oldest first.
    async fn start_over(&self, store: &dyn Store) -> Result<(), StoreError> {
        let (mut entries, revision) = list(store).await?;
        entries.sort_by_key(|e| e.mod_revision);
        let present: HashSet<Arc<str>> = entries.iter().map(|e| e.key.clone()).collect();
        let known: HashMap<Arc<str>, Revision> = self.rows().iter().flat_map(|(_, row)| row.keys()).collect();
        for entry in entries.iter().filter(|e| known.get(&e.key).is_none_or(|r| *r < e.mod_revision)) {
            let Some(name) = name_of(&entry.key) else { continue };
            if let Some(object) = self.read(name, entry) {
                let row = self.row(name);
                row.apply(&entry.key, Some(object), entry.mod_revision);
                row.announce(entry.mod_revision);
            }
        }
        for key in known.keys().filter(|key| !present.contains(*key)) {
            let Some(name) = name_of(key) else { continue };
            let row = self.row(name);
            row.apply(key, None, revision);
            row.announce(revision);
        }
        self.revision.send_replace(revision);
        Ok(())
    }
}

/// `<group>/<plural>` of a key.
fn name_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(PREFIX)?;
    let (group_end, _) = rest.match_indices('/').nth(1)?;
    rest.get(..group_end)
}

async fn list(store: &dyn Store) -> Result<(Vec<Entry>, Revision), StoreError> {
    let mut range = Range { prefix: PREFIX.to_string(), limit: PAGE, ..Range::default() };
    let mut entries = Vec::new();
    loop {
        let page = store.range(range.clone()).await?;
        range.at = ReadAt::Revision(page.revision);
        range.after = page.entries.last().map(|e| e.key.to_string());
        entries.extend(page.entries);
        if page.remaining == 0 || range.after.is_none() {
            return Ok((entries, page.revision));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_should_tell_their_row() {
        assert_eq!(name_of("/registry/core/pods/ns/web"), Some("core/pods"));
        assert_eq!(name_of("/registry/core/nodes/n1"), Some("core/nodes"));
        assert_eq!(name_of("/registry/core"), None);
        assert_eq!(name_of("/other/core/pods/x"), None);
    }
}
