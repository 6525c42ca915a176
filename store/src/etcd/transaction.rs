//! Commits: one etcd transaction each, sent again only when that cannot apply it twice.
//!
//! When an answer is lost, [`super::fence`] finds out what became of the write; it is reported as unknown only when etcd
//! does not come back in time, or when nothing but deletions could tell.

use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, DeleteOptions, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::EtcdStore;
use super::convert::{Failure, INTERNAL, failure_of};
use super::fence::Fate;
use crate::{
    Action, Committed, Entry, Precondition, ReadAt, Revision, Store, StoreError, TRANSACTION_WRITES_MAX,
    Write,
};

const PAUSE: Duration = Duration::from_millis(100);

/// What one attempt came to.
enum Attempt {
    Committed(Committed),
    Failed(StoreError),
    /// Nothing was written; again, at once.
    Again,
    /// Nothing was written; again, after a while.
    NotDone(String),
    /// Nobody knows.
    Lost(String),
}

impl EtcdStore {
    pub(super) async fn commit_writes(&self, writes: &[Write]) -> Result<Committed, StoreError> {
        check(writes)?;
        let deadline = Instant::now() + 2 * self.request_timeout;
        let before = self.newest_seen();
        loop {
            let lost = match self.attempt(writes).await? {
                Attempt::Committed(committed) => return Ok(committed),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again if Instant::now() < deadline => continue,
                Attempt::NotDone(_) if Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Attempt::Again => return Err(StoreError::Unavailable("etcd has too many writers".into())),
                Attempt::NotDone(reason) => return Err(StoreError::Unavailable(reason)),
                Attempt::Lost(reason) => reason,
            };
            tracing::warn!(reason = %lost, "etcd's answer to a write was lost; finding out what became of it");
            match self.fate_of(writes, before, deadline).await {
                Fate::NotApplied if Instant::now() < deadline => {}
                Fate::NotApplied => return Err(StoreError::Unavailable(lost)),
                Fate::Applied(revision) => return self.committed_at(writes, revision).await,
                Fate::Unknown(why) => return Err(StoreError::OutcomeUnknown(format!("{lost}; {why}"))),
            }
        }
    }

    async fn attempt(&self, writes: &[Write]) -> Result<Attempt, StoreError> {
        let fence = self.fence.position();
        let mut leases = Vec::new();
        let transaction = self.transaction(writes, fence, &mut leases).await?;
        let mut client = self.client.kv_client();
        let response = tokio::time::timeout(self.attempt_timeout(), client.txn(transaction)).await;
        let mut response = match response {
            Err(_) => return Ok(Attempt::Lost("etcd did not answer in time".into())),
            Ok(Err(error)) => {
                return Ok(match failure_of(&error, 0) {
                    Failure::Refused(error) => Attempt::Failed(error),
                    Failure::LeaseGone => {
                        self.leases.forget(&leases).await;
                        Attempt::Again
                    }
                    Failure::StaleToken => Attempt::NotDone(self.renew_token().await),
                    Failure::NotDone(reason) => Attempt::NotDone(reason),
                    Failure::Unknown(reason) => Attempt::Lost(reason),
                });
            }
            Ok(Ok(response)) => response,
        };
        let revision = self.see(self.keys.revision_of(response.take_header().as_ref()));
        let succeeded = response.succeeded();
        let mut found: Vec<_> = response.op_responses().into_iter().map(found_by).collect();
        // The last read of a failed attempt is the fence's.
        let fence_found = if succeeded { None } else { found.pop().flatten() };
        let pairs = found.into_iter().map(|pair| pair.map(|pair| self.keys.entry(pair)).transpose());
        let entries = pairs.collect::<Result<Vec<_>, StoreError>>()?;
        if succeeded {
            return Ok(Attempt::Committed(Committed { revision, previous: entries }));
        }
        self.fence.seen_at(fence_found.map_or(0, |pair| pair.mod_revision));
        Ok(conflict(writes, entries, revision).map_or(Attempt::Again, Attempt::Failed))
    }

    async fn transaction(
        &self,
        writes: &[Write],
        fence: i64,
        leases: &mut Vec<i64>,
    ) -> Result<Txn, StoreError> {
        let mut conditions = vec![self.fence_condition(fence)];
        let (mut operations, mut reads) = (Vec::with_capacity(writes.len()), Vec::new());
        for write in writes {
            let key = self.keys.outer(&write.key);
            let condition = |revision| Compare::mod_revision(key.clone(), CompareOp::Equal, revision);
            match write.precondition {
                Precondition::None => {}
                Precondition::Absent => conditions.push(condition(0)),
                Precondition::ModRevision(revision) => {
                    conditions.push(condition(self.keys.expected_revision(revision)));
                }
            }
            reads.push(TxnOp::get(key.clone(), None));
            operations.push(match &write.action {
                Action::Put { value, time_to_live } => {
                    let mut options = PutOptions::new().with_prev_key();
                    if let Some(lifetime) = time_to_live {
                        let lease = self.leases.lease_for(self, *lifetime).await?;
                        leases.push(lease);
                        options = options.with_lease(lease);
                    }
                    TxnOp::put(key, value.to_vec(), Some(options))
                }
                Action::Delete => TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key())),
                Action::Nothing => TxnOp::get(key, None),
            });
        }
        reads.push(self.fence_read());
        Ok(Txn::new().when(conditions).and_then(operations).or_else(reads))
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

fn check(writes: &[Write]) -> Result<(), StoreError> {
    if writes.len() > TRANSACTION_WRITES_MAX {
        return Err(StoreError::Setup(format!(
            "a transaction of {} writes is too large for etcd, which takes {TRANSACTION_WRITES_MAX}",
            writes.len()
        )));
    }
    match writes.iter().find(|write| write.key.starts_with(INTERNAL)) {
        Some(write) => Err(StoreError::Setup(format!("the key {:?} is the store's own", write.key))),
        None => Ok(()),
    }
}

/// The pair that an operation found at its key.
fn found_by(response: TxnOpResponse) -> Option<etcd_client::proto::PbKeyValue> {
    match response {
        TxnOpResponse::Put(put) => put.0.prev_kv,
        TxnOpResponse::Delete(delete) => delete.0.prev_kvs.into_iter().next(),
        TxnOpResponse::Get(get) => get.0.kvs.into_iter().next(),
        TxnOpResponse::Txn(_) => None,
    }
}

/// The first condition that failed; none if it was the fence's alone.
fn conflict(writes: &[Write], entries: Vec<Option<Entry>>, revision: Revision) -> Option<StoreError> {
    let mut failed =
        writes.iter().zip(entries).filter(|(write, entry)| !write.precondition.holds(entry.as_ref()));
    let (write, entry) = failed.next()?;
    Some(StoreError::Conflict { key: write.key.to_string(), current: entry.map(Box::new), revision })
}
