//! Transactions that are decided but not yet on disk.
//!
//! Pure: a stage starts as a copy of the committed state (the map is persistent, so the copy is free), takes one
//! transaction after another, each seeing the ones before it, and is published as a whole or dropped as a whole.

use std::sync::Arc;

use super::history::Batch;
use super::record::{Operation, Transaction};
use crate::deadlines::Deadlines;
use crate::types::check_distinct;
use crate::{Action, Change, Committed, Entries, Entry, REVISION_MAX, Revision, StoreError, Write};

/// The state as it will be.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) entries: Entries,
    pub(super) revision: Revision,
    /// The time of the commit, in milliseconds of Unix time.
    pub(super) time_ms: u64,
    pub(super) batches: Vec<Batch>,
    /// Which deadlines the transactions set and removed, in order.
    pub(super) deadlines: Vec<(Arc<str>, Option<u64>)>,
}

impl Stage {
    pub(super) fn new(entries: Entries, revision: Revision, time_ms: u64) -> Self {
        Self { entries, revision, time_ms, batches: Vec::new(), deadlines: Vec::new() }
    }

    /// Decides a transaction and, if all its preconditions hold, makes it part of the stage and of the log.
    pub(super) fn commit(&mut self, writes: Vec<Write>, log: &mut Vec<u8>) -> Result<Committed, StoreError> {
        self.check(&writes)?;
        let previous: Vec<_> = writes.iter().map(|write| self.entries.get(&write.key).cloned()).collect();
        // Deleting what is not there changes nothing and makes no revision, as in etcd.
        let operations: Vec<Operation> = writes
            .into_iter()
            .zip(&previous)
            .filter_map(|(write, previous)| match write.action {
                Action::Put { value, time_to_live } => {
                    let lifetime_ms =
                        time_to_live.map(|lifetime| u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
                    let deadline_ms =
                        lifetime_ms.map(|lifetime| self.time_ms.saturating_add(lifetime).max(1));
                    Some(Operation::Put { key: write.key, value, deadline_ms })
                }
                Action::Delete => previous.is_some().then_some(Operation::Delete { key: write.key }),
                Action::Nothing => None,
            })
            .collect();
        self.transact(operations, log)?;
        Ok(Committed { revision: self.revision, previous })
    }

    /// Deletes keys whose time has come.
    pub(super) fn expire(&mut self, keys: Vec<Arc<str>>, log: &mut Vec<u8>) -> Result<(), StoreError> {
        let there = keys.into_iter().filter(|key| self.entries.contains_key(key));
        let operations = there.map(|key| Operation::Delete { key }).collect();
        self.transact(operations, log)
    }

    fn transact(&mut self, operations: Vec<Operation>, log: &mut Vec<u8>) -> Result<(), StoreError> {
        if operations.is_empty() {
            return Ok(());
        }
        if self.revision >= REVISION_MAX {
            return Err(StoreError::Setup(format!(
                "the store has used up its revisions; {REVISION_MAX} is the last"
            )));
        }
        let transaction = Transaction { revision: self.revision + 1, time_ms: self.time_ms, operations };
        transaction.encode(log);
        self.apply(transaction);
        Ok(())
    }

    /// Makes a decided transaction part of the stage; recovery does the same with what the log holds.
    pub(super) fn apply(&mut self, transaction: Transaction) {
        let Transaction { revision, time_ms, operations } = transaction;
        let changes: Arc<[Change]> =
            operations.into_iter().map(|operation| self.apply_operation(operation, revision)).collect();
        self.revision = revision;
        self.batches.push(Batch { revision, time_ms, changes });
    }

    fn apply_operation(&mut self, operation: Operation, revision: Revision) -> Change {
        match operation {
            Operation::Put { key, value, deadline_ms } => {
                let previous = self.entries.get(&key);
                let entry = Entry {
                    key: previous.map_or(key, |previous| Arc::clone(&previous.key)),
                    value,
                    create_revision: previous.map_or(revision, |previous| previous.create_revision),
                    mod_revision: revision,
                    version: previous.map_or(1, |previous| previous.version + 1),
                };
                self.deadlines.push((Arc::clone(&entry.key), deadline_ms));
                let previous = self.entries.insert(Arc::clone(&entry.key), entry.clone());
                Change::Put { entry, previous }
            }
            Operation::Delete { key } => {
                let previous = self.entries.remove(&key);
                self.deadlines.push((Arc::clone(&key), None));
                Change::Delete { key, previous, revision }
            }
        }
    }

    fn check(&self, writes: &[Write]) -> Result<(), StoreError> {
        check_distinct(writes)?;
        for write in writes {
            let current = self.entries.get(&write.key);
            if !write.precondition.holds(current) {
                return Err(StoreError::Conflict {
                    key: write.key.to_string(),
                    current: current.cloned().map(Box::new),
                    revision: self.revision,
                });
            }
        }
        Ok(())
    }
}

/// Carries the deadlines of published transactions over.
pub(super) fn apply_deadlines(deadlines: &mut Deadlines, changes: Vec<(Arc<str>, Option<u64>)>) {
    for (key, deadline_ms) in changes {
        deadlines.set(&key, deadline_ms);
    }
}
