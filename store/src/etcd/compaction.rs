//! Keeps etcd's history bounded by age: every so often, what was the newest revision one interval ago becomes the oldest
//! one kept. Several stores doing so do no harm.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::EtcdStore;
use crate::Store;

/// Ends the task when the last handle of its store is dropped.
#[derive(Debug)]
pub(super) struct Compactor {
    task: JoinHandle<()>,
}

impl Compactor {
    /// Compacts until dropped.
    pub(super) fn start(store: EtcdStore, interval: Duration) -> Self {
        Self { task: tokio::spawn(compact_regularly(store, interval)) }
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn compact_regularly(store: EtcdStore, interval: Duration) {
    let mut before = None;
    loop {
        if let Some(revision) = before {
            // Somebody else may have compacted further; then there is nothing to do.
            match store.compact(revision).await {
                Ok(()) => tracing::debug!(revision, "etcd's history before this revision was given up"),
                Err(error) => tracing::debug!(revision, %error, "etcd's history was not compacted"),
            }
        }
        before = store.newest_revision().await.ok().or(before);
        tokio::time::sleep(interval).await;
    }
}
