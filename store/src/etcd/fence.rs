//! The fence: what makes it possible to find out what became of a write whose answer was lost.
//!
//! A request without an answer may be dead, applied, or still on its way; reading alone cannot tell the first from the
//! last. Therefore every transaction is conditional on the revision of one key of the store's own, the fence. Writing
//! that key kills whatever is still on its way. After that, what happened to the written key since the attempt began
//! tells whether it was applied, and if it was not, it can be sent again without ever being applied twice.
//!
//! A writer of the same store whose fence was moved by another hears so, and tries again with the new one.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, TxnOp};
use futures::StreamExt;

use super::EtcdStore;
use super::convert::{INTERNAL, signed};
use crate::{Action, Change, Revision, StoreError, WatchEvent, Write};

const FENCE_KEY: &str = "\0fence";
const PAUSE: Duration = Duration::from_millis(200);

/// The fence's revision, in etcd's counting, as this handle knows it.
#[derive(Debug, Default)]
pub(super) struct Fence {
    position: AtomicI64,
}

/// What became of a write whose answer was lost.
pub(super) enum Fate {
    /// Nothing, and nothing will.
    NotApplied,
    Applied(Revision),
    Unknown(String),
}

impl Fence {
    pub(super) fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// Remembers where the fence was seen. A stale sight does no harm: transactions conditional on it fail.
    pub(super) fn seen_at(&self, position: i64) {
        self.position.store(position, Ordering::Release);
    }
}

impl EtcdStore {
    /// The condition that a transaction is only good for this side of the fence.
    pub(super) fn fence_condition(&self, position: i64) -> Compare {
        Compare::mod_revision(self.keys.outer(FENCE_KEY), CompareOp::Equal, position)
    }

    pub(super) fn fence_read(&self) -> TxnOp {
        TxnOp::get(self.keys.outer(FENCE_KEY), None)
    }

    /// Learns where the fence stands.
    pub(super) async fn find_fence(&self) -> Result<(), StoreError> {
        let response = self.read(self.keys.outer(FENCE_KEY), etcd_client::GetOptions::new(), 0).await?;
        self.fence.seen_at(response.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision));
        Ok(())
    }

    /// Finds out what became of a transaction that was sent after `before` and got no answer.
    pub(super) async fn fate_of(&self, writes: &[Write], before: Revision, deadline: Instant) -> Fate {
        let fenced = match self.move_fence(deadline).await {
            Ok(revision) => revision,
            Err(error) => return Fate::Unknown(error.to_string()),
        };
        // Puts first: whose a value is can be told, whose a deletion is cannot.
        let is_put = |write: &&Write| matches!(write.action, Action::Put { .. });
        let is_deletion = |write: &&Write| write.action == Action::Delete;
        let witness = writes.iter().find(is_put).or_else(|| writes.iter().find(is_deletion));
        let Some(witness) = witness else { return Fate::NotApplied };
        match tokio::time::timeout(self.request_timeout, self.changes_of(&witness.key, before, fenced)).await
        {
            Ok(Ok(changes)) => judge(witness, &changes),
            Ok(Err(error)) => Fate::Unknown(error.to_string()),
            Err(_) => Fate::Unknown("etcd did not answer in time".into()),
        }
    }

    async fn move_fence(&self, deadline: Instant) -> Result<Revision, StoreError> {
        loop {
            let mut client = self.client.kv_client();
            let put = client.put(self.keys.outer(FENCE_KEY), Vec::new(), None);
            let failure = match tokio::time::timeout(self.attempt_timeout(), put).await {
                Ok(Ok(response)) => {
                    let revision = self.keys.revision_of(response.header());
                    self.fence.seen_at(signed(revision - self.keys.origin.offset));
                    return Ok(revision);
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "etcd did not answer in time".into(),
            };
            if Instant::now() >= deadline {
                return Err(StoreError::Unavailable(failure));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// All that happened to a key after one revision and until another.
    async fn changes_of(
        &self,
        key: &str,
        after: Revision,
        until: Revision,
    ) -> Result<Vec<Change>, StoreError> {
        debug_assert!(!key.starts_with(INTERNAL));
        let mut watch = self.follow(key, Some(after + 1)).await?;
        self.want_progress(until);
        let mut found = Vec::new();
        loop {
            let reached = match watch.next().await {
                Some(Ok(WatchEvent::Changes { revision, changes })) => {
                    found.extend(changes.iter().filter(|change| **change.key() == *key).cloned());
                    revision
                }
                Some(Ok(WatchEvent::Progress(revision))) => revision,
                Some(Err(error)) => return Err(error),
                None => return Err(StoreError::Unavailable("the watch ended".into())),
            };
            if reached >= until {
                return Ok(found);
            }
        }
    }
}

/// Looks for a write among what happened to its key. The same bytes under the same condition are taken for ours: then it
/// makes no difference whose they are.
fn judge(write: &Write, changes: &[Change]) -> Fate {
    for change in changes {
        match (&write.action, change) {
            (Action::Put { value, .. }, Change::Put { entry, previous })
                if entry.value == value && write.precondition.holds(previous.as_ref()) =>
            {
                return Fate::Applied(entry.mod_revision);
            }
            (Action::Delete, Change::Delete { .. }) => {
                return Fate::Unknown("somebody deleted the key meanwhile".into());
            }
            _ => {}
        }
    }
    Fate::NotApplied
}
