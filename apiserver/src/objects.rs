//! Reading objects from inside the API server: authenticators, authorizers, admission and allocators look here.
//!
//! Reads come from the watch cache and are as fresh as it is; [`Objects::catch_up`] makes sure that it is current.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use store::{Revision, Store};

use crate::cache::{Cache, Cached, RowCache, Snapshot};

/// How long a read waits for the cache.
const CATCH_UP_MAX: Duration = Duration::from_secs(3);

/// A handle to all objects.
#[derive(Clone)]
pub struct Objects {
    cache: Arc<Cache>,
    store: Arc<dyn Store>,
}

impl Objects {
    pub(crate) fn new(cache: Arc<Cache>, store: Arc<dyn Store>) -> Self {
        Self { cache, store }
    }

    /// One object as a tree. The row is `<group>/<plural>` of the storage version, with `core` for the core group.
    pub fn get(&self, row: &str, namespace: &str, name: &str) -> Option<Value> {
        self.cached(row, namespace, name).map(|object| object.tree())
    }

    /// All objects of a row, or of a namespace, as trees. An empty namespace means all.
    pub fn list(&self, row: &str, namespace: &str) -> Vec<Value> {
        let prefix = prefix_of(row, namespace);
        self.snapshot(row).under(&prefix, None).map(|object| object.tree()).collect()
    }

    /// One object that many requests look at, such as a namespace: its tree is kept.
    pub fn look_up(&self, row: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.cached(row, namespace, name).map(|object| object.kept_tree())
    }

    /// All objects of a row of few, or of a namespace, that many requests look at: their trees are kept.
    pub fn look_up_all(&self, row: &str, namespace: &str) -> Vec<Arc<Value>> {
        let prefix = prefix_of(row, namespace);
        self.snapshot(row).under(&prefix, None).map(|object| object.kept_tree()).collect()
    }

    /// The revision of the row's last change, for views that are built from a row and kept.
    pub fn revision_of(&self, row: &str) -> Revision {
        *self.cache.row(row).subscribe().borrow()
    }

    /// Waits until the cache shows everything that was committed before the call. False when it does not in time.
    pub async fn catch_up(&self) -> bool {
        match self.store.current_revision().await {
            Ok(revision) => self.cache.wait_for(revision, CATCH_UP_MAX).await,
            Err(error) => {
                tracing::warn!(%error, "the store's revision is not known");
                false
            }
        }
    }

    pub(crate) fn cached(&self, row: &str, namespace: &str, name: &str) -> Option<Arc<Cached>> {
        self.cache.row(row).get(&key_of(row, namespace, name))
    }

    pub(crate) fn cached_key(&self, row: &str, key: &str) -> Option<Arc<Cached>> {
        self.cache.row(row).get(key)
    }

    /// How many objects a row has; nothing for a row that there is not.
    pub(crate) fn row_length(&self, row: &str) -> usize {
        self.cache.row_length(row)
    }

    /// The cache of a row, for views that follow its changes.
    pub(crate) fn row(&self, row: &str) -> Arc<RowCache> {
        self.cache.row(row)
    }

    pub(crate) fn snapshot(&self, row: &str) -> Snapshot {
        self.cache.row(row).snapshot(self.cache.revision())
    }
}

/// The store's key of an object.
pub(crate) fn key_of(row: &str, namespace: &str, name: &str) -> String {
    format!("{}{name}", prefix_of(row, namespace))
}

/// What all keys of a row, or of a namespace in it, begin with.
pub(crate) fn prefix_of(row: &str, namespace: &str) -> String {
    if namespace.is_empty() { format!("/registry/{row}/") } else { format!("/registry/{row}/{namespace}/") }
}
