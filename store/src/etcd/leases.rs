//! Times to live, as etcd's leases.
//!
//! A lease costs etcd a consensus round and memory of its own, so keys share them: a lease is granted with some time to
//! spare and taken for further keys as long as it lives long enough for them. A key may thus live longer than asked, by
//! the spare time (a twentieth, at most a minute, at least a second), never shorter.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::EtcdStore;
use super::convert::signed;
use crate::StoreError;

const KEYS_PER_LEASE_MAX: usize = 1000;

/// The leases that this process shares among keys.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_lifetime: Mutex<HashMap<u64, Lease>>,
}

#[derive(Debug)]
struct Lease {
    id: i64,
    expires: Instant,
    keys: usize,
}

impl Leases {
    /// A lease that lives at least this long from now.
    pub(super) async fn lease_for(&self, store: &EtcdStore, lifetime: Duration) -> Result<i64, StoreError> {
        let seconds = lifetime.as_secs() + u64::from(lifetime.subsec_nanos() > 0);
        let mut leases = self.by_lifetime.lock().await;
        let now = Instant::now();
        leases.retain(|_, lease| lease.expires > now);
        if let Some(lease) = leases.get_mut(&seconds)
            && lease.expires >= now + lifetime
            && lease.keys < KEYS_PER_LEASE_MAX
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let granted_seconds = seconds + (seconds / 20).clamp(1, 60);
        // One that is granted twice over ends by itself.
        let granted = store.ask(0, || {
            let mut client = store.client.lease_client();
            async move { client.grant(signed(granted_seconds), None).await }
        });
        let granted = granted.await?;
        let lived = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0));
        leases.insert(seconds, Lease { id: granted.id(), expires: now + lived, keys: 1 });
        Ok(granted.id())
    }

    /// Forgets a lease that etcd does not know any more.
    pub(super) async fn forget(&self, ids: &[i64]) {
        self.by_lifetime.lock().await.retain(|_, lease| !ids.contains(&lease.id));
    }
}
