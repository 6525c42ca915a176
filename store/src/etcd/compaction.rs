//! Keeps etcd's history bounded by age: every so often, what was the newest revision one interval ago becomes the oldest
//! one kept. Several stores doing so do no harm.

use std::time::Duration;

use etcd_client::{Client, GetOptions, ResponseHeader};
use tokio::task::JoinHandle;

/// Ends the task when the last handle of its store is dropped.
#[derive(Debug)]
pub(super) struct Compactor {
    task: JoinHandle<()>,
}

impl Compactor {
    /// Compacts until dropped.
    pub(super) fn start(client: Client, interval: Duration) -> Self {
        Self { task: tokio::spawn(compact_regularly(client, interval)) }
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn compact_regularly(client: Client, interval: Duration) {
    let mut before = None;
    loop {
        if let Some(revision) = before.filter(|revision| *revision > 0) {
            // Somebody else may have compacted further; then there is nothing to do.
            match client.kv_client().compact(revision, None).await {
                Ok(_) => tracing::debug!(revision, "etcd's history before this revision was given up"),
                Err(error) => tracing::debug!(revision, %error, "etcd's history was not compacted"),
            }
        }
        let options = GetOptions::new().with_count_only();
        before = match client.kv_client().get("\0", Some(options)).await {
            Ok(response) => response.header().map(ResponseHeader::revision),
            Err(_) => before,
        };
        tokio::time::sleep(interval).await;
    }
}
