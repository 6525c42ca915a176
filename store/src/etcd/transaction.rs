//! Commits: one etcd transaction each, sent again only when that cannot apply it twice.
//!
//! When an answer is lost, the outcome is found out by reading: a put with a precondition is applied at most once
//! however often it is sent, and what followed the state that it was conditional on tells whether it was ours. Without
//! such a put among the writes, the outcome stays unknown and is reported so.

use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, DeleteOptions, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::EtcdStore;
use super::convert::{Failure, failure_of, revision_of, signed};
use crate::{Action, Committed, Entry, Precondition, ReadAt, Revision, Store, StoreError, Write};

/// How long a lost answer is looked for.
const RESOLVE_FOR: Duration = Duration::from_secs(15);
const RESOLVE_PAUSE: Duration = Duration::from_millis(200);
/// How many later writes to a key are looked through for ours.
const LATER_WRITES_MAX: usize = 16;

/// What one attempt came to.
enum Attempt {
    Committed(Committed),
    Failed(StoreError),
    LeaseGone(Vec<i64>),
    /// Nobody knows.
    Lost(String),
}

/// What became of a write whose answer was lost.
enum Fate {
    /// It was not applied so far, and sending it again cannot apply it twice.
    Resend,
    Applied(Revision),
    /// Somebody else's write came instead.
    Superseded(Option<Entry>),
    Unknown,
}

impl EtcdStore {
    pub(super) async fn commit_writes(&self, writes: &[Write]) -> Result<Committed, StoreError> {
        let deadline = Instant::now() + RESOLVE_FOR;
        loop {
            let lost = match self.attempt(writes).await? {
                Attempt::Committed(committed) => return Ok(committed),
                Attempt::Failed(error) => return Err(error),
                Attempt::LeaseGone(ids) => {
                    self.leases.forget(&ids).await;
                    continue;
                }
                Attempt::Lost(reason) => reason,
            };
            tracing::warn!(reason = %lost, "etcd's answer to a write was lost; finding out what became of it");
            match self.resolve(writes, deadline).await {
                Fate::Resend if Instant::now() < deadline => tokio::time::sleep(RESOLVE_PAUSE).await,
                Fate::Resend | Fate::Unknown => return Err(StoreError::OutcomeUnknown(lost)),
                Fate::Applied(revision) => return self.committed_at(writes, revision).await,
                Fate::Superseded(current) => {
                    let key = writes.first().map(|write| write.key.to_string()).unwrap_or_default();
                    let revision = current.as_ref().map_or(0, |entry| entry.mod_revision);
                    return Err(StoreError::Conflict { key, current: current.map(Box::new), revision });
                }
            }
        }
    }

    async fn attempt(&self, writes: &[Write]) -> Result<Attempt, StoreError> {
        let mut operations = Vec::with_capacity(writes.len());
        let mut leases = Vec::new();
        for write in writes {
            let key = self.keys.outer(&write.key);
            operations.push(match &write.action {
                Action::Put { value, time_to_live } => {
                    let mut options = PutOptions::new().with_prev_key();
                    if let Some(lifetime) = time_to_live {
                        let lease = self.leases.lease_for(&self.client, *lifetime).await?;
                        leases.push(lease);
                        options = options.with_lease(lease);
                    }
                    TxnOp::put(key, value.to_vec(), Some(options))
                }
                Action::Delete => TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key())),
            });
        }
        let transaction = Txn::new()
            .when(writes.iter().filter_map(|write| self.compare(write)).collect::<Vec<_>>())
            .and_then(operations)
            .or_else(
                writes.iter().map(|write| TxnOp::get(self.keys.outer(&write.key), None)).collect::<Vec<_>>(),
            );
        let response =
            tokio::time::timeout(self.request_timeout, self.client.kv_client().txn(transaction)).await;
        let response = match response {
            Err(_) => return Ok(Attempt::Lost("etcd did not answer in time".into())),
            Ok(Err(error)) => {
                return Ok(match failure_of(&error, 0) {
                    Failure::Refused(error) => Attempt::Failed(error),
                    Failure::LeaseGone => Attempt::LeaseGone(leases),
                    Failure::Unknown(reason) => Attempt::Lost(reason),
                });
            }
            Ok(Ok(response)) => response,
        };
        let revision = revision_of(response.header());
        let entries = self.entries_of(response.op_responses())?;
        if response.succeeded() {
            return Ok(Attempt::Committed(Committed { revision, previous: entries }));
        }
        Ok(Attempt::Failed(conflict(writes, entries, revision)))
    }

    fn compare(&self, write: &Write) -> Option<Compare> {
        let expected = match write.precondition {
            Precondition::None => return None,
            Precondition::Absent => 0,
            Precondition::ModRevision(revision) => signed(revision),
        };
        Some(Compare::mod_revision(self.keys.outer(&write.key), CompareOp::Equal, expected))
    }

    /// The entry that each operation found at its key.
    fn entries_of(&self, responses: Vec<TxnOpResponse>) -> Result<Vec<Option<Entry>>, StoreError> {
        let pairs = responses.into_iter().map(|response| match response {
            TxnOpResponse::Put(put) => put.0.prev_kv,
            TxnOpResponse::Delete(delete) => delete.0.prev_kvs.into_iter().next(),
            TxnOpResponse::Get(get) => get.0.kvs.into_iter().next(),
            TxnOpResponse::Txn(_) => None,
        });
        pairs.map(|pair| pair.map(|pair| self.keys.entry(pair)).transpose()).collect()
    }

    async fn resolve(&self, writes: &[Write], deadline: Instant) -> Fate {
        let witness = writes.iter().find_map(|write| match &write.action {
            Action::Put { value, .. } if write.precondition != Precondition::None => Some((write, value)),
            _ => None,
        });
        let Some((write, value)) = witness else { return Fate::Unknown };
        loop {
            match self.fate(write, value).await {
                Ok(fate) => return fate,
                Err(StoreError::Unavailable(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(RESOLVE_PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "what became of the write cannot be found out");
                    return Fate::Unknown;
                }
            }
        }
    }

    /// Walks back from what stands at the key now to what the write was conditional on.
    async fn fate(&self, write: &Write, value: &Bytes) -> Result<Fate, StoreError> {
        let newest = self.get(&write.key, ReadAt::Current).await?.entry;
        if holds(write.precondition, newest.as_ref()) {
            return Ok(Fate::Resend);
        }
        let mut later = newest.clone();
        for _ in 0..LATER_WRITES_MAX {
            let Some(entry) = later else { return Ok(Fate::Unknown) };
            let before = ReadAt::Revision(entry.mod_revision.saturating_sub(1));
            let before = self.get(&write.key, before).await?.entry;
            if holds(write.precondition, before.as_ref()) {
                let ours = entry.value == value;
                return Ok(if ours { Fate::Applied(entry.mod_revision) } else { Fate::Superseded(newest) });
            }
            later = before;
        }
        Ok(Fate::Unknown)
    }

    /// The answer to a commit that is known to have happened at a revision.
    async fn committed_at(&self, writes: &[Write], revision: Revision) -> Result<Committed, StoreError> {
        let mut previous = Vec::with_capacity(writes.len());
        for write in writes {
            let read = self.get(&write.key, ReadAt::Revision(revision.saturating_sub(1))).await;
            let read = read.map_err(|error| {
                StoreError::OutcomeUnknown(format!("committed at revision {revision}, but then: {error}"))
            })?;
            previous.push(read.entry);
        }
        Ok(Committed { revision, previous })
    }
}

fn holds(precondition: Precondition, entry: Option<&Entry>) -> bool {
    match precondition {
        Precondition::None => true,
        Precondition::Absent => entry.is_none(),
        Precondition::ModRevision(revision) => entry.is_some_and(|entry| entry.mod_revision == revision),
    }
}

fn conflict(writes: &[Write], entries: Vec<Option<Entry>>, revision: Revision) -> StoreError {
    let failed = writes.iter().zip(entries).find(|(write, entry)| !holds(write.precondition, entry.as_ref()));
    match failed {
        Some((write, entry)) => {
            StoreError::Conflict { key: write.key.to_string(), current: entry.map(Box::new), revision }
        }
        None => StoreError::Unavailable("etcd refused a transaction whose conditions hold".into()),
    }
}
