//! Everything out of etcd, and everything into it.
//!
//! Reading is of one revision, whoever writes meanwhile. Writing takes an empty place and marks it unfinished until all
//! is there, so that no server ever starts on half a store; one that was interrupted is cleared and done anew. What was
//! written gets new revisions, all of them after those that the contents had.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, ResponseHeader, Txn, TxnOp};

use super::convert::{Origin, unsigned};
use super::origin::{Arrival, ORIGIN_KEY};
use super::{EtcdOptions, EtcdStore, PAGE_ENTRIES, just_after};
use crate::contents::now_ms;
use crate::{Contents, Entry, Revision, StoreError, TRANSACTION_WRITES_MAX};

/// How much one transaction carries; etcd takes 1.5 MiB, and one value may be that large alone.
const BATCH_BYTES: usize = 512 << 10;

/// Reads everything at the current revision.
pub(crate) async fn read(options: EtcdOptions) -> Result<Contents, StoreError> {
    let store = EtcdStore::connect(EtcdOptions { history_age: None, ..options }).await?;
    let (mut start, end) = store.keys.bounds("");
    let mut contents = Contents::default();
    let mut at = GetOptions::new();
    let mut leased: HashMap<i64, Vec<Arc<str>>> = HashMap::new();
    loop {
        let limit = i64::try_from(PAGE_ENTRIES).unwrap_or(i64::MAX);
        let response =
            store.read(start, at.with_range(end.clone()).with_limit(limit), contents.revision).await?;
        if contents.revision == 0 {
            contents.revision = store.keys.revision_of(response.header());
        }
        at = GetOptions::new().with_revision(store.keys.etcd_revision(contents.revision)?);
        let (more, pairs) = (response.0.more, response.0.kvs);
        start = just_after(pairs.last().map(|pair| pair.key.clone()).unwrap_or_default());
        for pair in pairs {
            let lease = pair.lease;
            let entry = store.keys.entry(pair)?;
            if lease != 0 {
                leased.entry(lease).or_default().push(Arc::clone(&entry.key));
            }
            contents.entries.insert(Arc::clone(&entry.key), entry);
        }
        if !more {
            break;
        }
    }
    for (lease, keys) in leased {
        let left = store.ask(0, || {
            let mut client = store.client.lease_client();
            async move { client.time_to_live(lease, None).await }
        });
        // One that has ended since is over now.
        let ends_ms = now_ms() + unsigned(left.await?.ttl()) * 1000;
        for key in keys {
            contents.deadlines.set(&key, Some(ends_ms));
        }
    }
    Ok(contents)
}

/// Writes everything to a place that holds nothing. All revisions will be after `floor`. Returns the newest.
pub(crate) async fn write(
    options: &EtcdOptions,
    contents: &Contents,
    floor: Revision,
) -> Result<Revision, StoreError> {
    let mut store = EtcdStore::reach(options).await?;
    let began = store.claim(options).await?;
    let mut newest = began;
    let mut batch: Vec<&Entry> = Vec::new();
    let mut bytes = 0;
    for entry in contents.entries.values() {
        let size = entry.key.len() + entry.value.len();
        if !batch.is_empty() && (bytes + size > BATCH_BYTES || batch.len() == TRANSACTION_WRITES_MAX) {
            newest = store.put_all(&batch, contents, began).await?;
            (batch, bytes) = (Vec::new(), 0);
        }
        batch.push(entry);
        bytes += size;
    }
    if !batch.is_empty() {
        newest = store.put_all(&batch, contents, began).await?;
    }
    // Nobody counts from before what this handle was told, if anything was here.
    let floor = floor.max(store.keys.origin.oldest);
    let offset = floor.saturating_sub(unsigned(began));
    let origin = Origin { offset, oldest: unsigned(newest) + 1 + offset };
    let complete = Arrival::Complete(origin);
    // Said twice because the first answer was lost, it does not find its own claim any more.
    let said = store.set_arrival(store.claimed_at(began), complete, None).await?;
    if said.is_none() && store.find_arrival().await?.is_none_or(|(there, _)| there != complete) {
        return Err(disturbed());
    }
    store.keys.origin = origin;
    store.newest_revision().await
}

impl EtcdStore {
    /// Makes sure that nothing is there, and marks what will be as unfinished. Returns etcd's revision of that.
    async fn claim(&mut self, options: &EtcdOptions) -> Result<i64, StoreError> {
        let (start, end) = self.keys.bounds("");
        let empty = Compare::create_revision(start.clone(), CompareOp::Equal, 0).with_range(end.clone());
        let occupied = || {
            let (members, prefix) = (options.endpoints.join(","), &options.prefix);
            StoreError::Setup(format!(
                "etcd at {members} already holds keys under {prefix:?}: choose another prefix, or remove them"
            ))
        };
        match self.find_arrival().await? {
            Some((Arrival::Unfinished, seen)) => {
                let clear = TxnOp::delete(start, Some(DeleteOptions::new().with_range(end)));
                let claim = self.set_arrival(self.claimed_at(seen), Arrival::Unfinished, Some(clear));
                return claim.await?.ok_or_else(disturbed);
            }
            Some((Arrival::Complete(origin), _)) => {
                self.keys.origin = origin;
                self.keys.origin.oldest = self.newest_revision().await?;
            }
            None => {}
        }
        self.set_arrival(empty, Arrival::Unfinished, None).await?.ok_or_else(occupied)
    }

    /// The condition that nobody else has claimed the place since.
    fn claimed_at(&self, claim: i64) -> Compare {
        Compare::mod_revision(self.keys.outer(ORIGIN_KEY), CompareOp::Equal, claim)
    }

    async fn set_arrival(
        &self,
        condition: Compare,
        arrival: Arrival,
        clear: Option<TxnOp>,
    ) -> Result<Option<i64>, StoreError> {
        let value = serde_json::to_vec(&arrival).map_err(|error| StoreError::Setup(error.to_string()))?;
        let put = TxnOp::put(self.keys.outer(ORIGIN_KEY), value, None);
        let operations: Vec<TxnOp> = clear.into_iter().chain([put]).collect();
        self.repeat(Txn::new().when([condition]).and_then(operations)).await
    }

    /// Puts entries, as long as the place is ours.
    async fn put_all(&self, batch: &[&Entry], contents: &Contents, claim: i64) -> Result<i64, StoreError> {
        let mut puts = Vec::with_capacity(batch.len());
        for entry in batch {
            let mut options = PutOptions::new();
            if let Some(ends_ms) = contents.ends_ms(&entry.key) {
                let left =
                    Duration::from_millis(ends_ms.saturating_sub(now_ms())).max(Duration::from_secs(1));
                options = options.with_lease(self.leases.lease_for(self, left).await?);
            }
            puts.push(TxnOp::put(self.keys.outer(&entry.key), entry.value.to_vec(), Some(options)));
        }
        let transaction = Txn::new().when([self.claimed_at(claim)]).and_then(puts);
        self.repeat(transaction).await?.ok_or_else(disturbed)
    }

    /// Carries out a transaction that does no harm when done twice. Returns etcd's revision; none if a condition failed.
    async fn repeat(&self, transaction: Txn) -> Result<Option<i64>, StoreError> {
        let response = self.ask(0, || {
            let (mut client, transaction) = (self.client.kv_client(), transaction.clone());
            async move { client.txn(transaction).await }
        });
        let response = response.await?;
        Ok(response.header().filter(|_| response.succeeded()).map(ResponseHeader::revision))
    }
}

fn disturbed() -> StoreError {
    StoreError::Setup("somebody else wrote to the same place in etcd meanwhile; do it again, alone".into())
}
