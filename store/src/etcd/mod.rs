//! etcd (v3 API, 3.4 or newer) as the store.
//!
//! Guarantees beyond [`Store`]'s: reads of the current state are linearizable; a large range is read in pages of one
//! revision; a write whose answer was lost is never applied twice: its outcome is found out, or reported as unknown.
//! Requests go to whichever member answers, and are repeated where that does no harm; with no quorum they fail within a
//! time that [`EtcdOptions::request_timeout`] sets, and nothing is acknowledged.
//!
//! A user of etcd needs to read and write below [`EtcdOptions::prefix`], and nothing else.
//!
//! Limits of etcd that show: a transaction holds at most 127 writes (etcd's default of `--max-txn-ops`, less one) and
//! 1.5 MiB; a time to live has a resolution of seconds and may last somewhat longer than asked; revisions may skip
//! numbers, as etcd counts all its users' writes. Prefixes of stores that share an etcd must not begin with one another.

mod compaction;
mod connect;
mod convert;
pub(crate) mod copy;
mod fence;
mod leases;
mod origin;
mod request;
mod transaction;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, GetOptions};
use tokio::sync::{Mutex, watch as channel};

use self::compaction::Compactor;
pub use self::connect::{EtcdTls, EtcdUser};
use self::connect::{connect_options, innermost, named};
use self::convert::{KeySpace, unsigned};
use self::fence::Fence;
use self::leases::Leases;
use crate::types::check_distinct;
use crate::{
    Committed, GetResult, Range, RangeResult, ReadAt, Revision, Store, StoreError, WatchStream, Write,
};

/// How many entries one request reads.
const PAGE_ENTRIES: usize = 500;
/// Written to see how far watches are, where etcd cannot be asked. Callers' keys do not begin with a zero byte.
const PROBE_KEY: &str = "\0progress";

/// Where etcd is and how to talk to it.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// `http://` or `https://` URLs of the members.
    pub endpoints: Vec<String>,
    /// For `https://` endpoints.
    pub tls: Option<EtcdTls>,
    /// If etcd asks for users.
    pub user: Option<EtcdUser>,
    /// Put before every key, so that several clusters can share one etcd.
    pub prefix: String,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a read may take. A write whose answer is lost takes up to three times as long.
    pub request_timeout: Duration,
    /// How long etcd's history is kept at least; twice as long at most. `None` leaves compaction to others.
    pub history_age: Option<Duration>,
}

impl EtcdOptions {
    /// The defaults for these members.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            tls: None,
            user: None,
            prefix: "/gantry".into(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            history_age: Some(Duration::from_secs(5 * 60)),
        }
    }
}

/// A store in etcd. Clones share the connection.
#[derive(Clone)]
pub struct EtcdStore {
    client: Client,
    keys: KeySpace,
    leases: Arc<Leases>,
    fence: Arc<Fence>,
    request_timeout: Duration,
    /// Whether etcd knows us by a token.
    is_user: bool,
    answers_progress_requests: bool,
    /// The newest revision that any answer told of.
    newest_seen: Arc<channel::Sender<Revision>>,
    /// The newest revision that a caller has learned of: watches ask etcd to catch up with it.
    wanted_progress: Arc<channel::Sender<Revision>>,
    /// The revision of the newest probe.
    probed: Arc<Mutex<Revision>>,
    _compactor: Option<Arc<Compactor>>,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EtcdStore").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects, and makes sure that etcd answers and holds a whole store.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        let mut store = Self::reach(&options).await?;
        store.find_store().await.map_err(|error| named(&options, error))?;
        if let Some(age) = options.history_age {
            store._compactor = Some(Arc::new(Compactor::start(store.clone(), age)));
        }
        Ok(store)
    }

    async fn find_store(&mut self) -> Result<(), StoreError> {
        self.keys.origin = self.find_origin().await?;
        self.find_fence().await?;
        self.newest_revision().await.map(|_| ())
    }

    /// Connects to whichever member answers first.
    async fn reach(options: &EtcdOptions) -> Result<Self, StoreError> {
        Self::try_reach(options).await.map_err(|error| named(options, error))
    }

    async fn try_reach(options: &EtcdOptions) -> Result<Self, StoreError> {
        let client = Client::connect(&options.endpoints, Some(connect_options(options)?)).await;
        let mut store = Self {
            client: client.map_err(|error| StoreError::Setup(innermost(&error)))?,
            keys: KeySpace::new(&options.prefix),
            leases: Arc::default(),
            fence: Arc::default(),
            request_timeout: options.connect_timeout,
            is_user: options.user.is_some(),
            answers_progress_requests: false,
            newest_seen: Arc::new(channel::Sender::new(0)),
            wanted_progress: Arc::new(channel::Sender::new(0)),
            probed: Arc::default(),
            _compactor: None,
        };
        if let Some(user) = &options.user {
            let credentials = user.credentials()?;
            let authenticated = store.ask(0, || {
                let (mut client, credentials) = (store.client.clone(), credentials.clone());
                async move { client.update_user(Some(credentials)).await }
            });
            authenticated.await?;
        }
        let status = store.ask(0, || {
            let mut client = store.client.maintenance_client();
            async move { client.status().await }
        });
        let status = status.await?;
        tracing::info!(version = status.version(), endpoints = ?options.endpoints, "connected to etcd");
        store.answers_progress_requests = answers_progress_requests(status.version());
        store.request_timeout = options.request_timeout;
        Ok(store)
    }

    async fn read(
        &self,
        key: Vec<u8>,
        options: GetOptions,
        requested: Revision,
    ) -> Result<etcd_client::GetResponse, StoreError> {
        let response = self.ask(requested, || {
            let mut client = self.client.kv_client().max_decoding_message_size(usize::MAX);
            let (key, options) = (key.clone(), options.clone());
            async move { client.get(key, Some(options)).await }
        });
        self.with_current(response.await).await
    }

    /// Says what the current revision is where etcd said only that another one is in the future.
    async fn with_current<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match result {
            Err(StoreError::FutureRevision { requested, .. }) => {
                let current = self.newest_revision().await?;
                Err(StoreError::FutureRevision { requested, current })
            }
            other => other,
        }
    }

    /// Makes sure that every watch of the whole store gets an event after `revision`. Whether that worked.
    async fn write_probe(&self, revision: Revision) -> bool {
        // One probe serves all watches that wait for it.
        let mut probed = self.probed.lock().await;
        if *probed > revision {
            return true;
        }
        let mut client = self.client.kv_client();
        let put = client.put(self.keys.outer(PROBE_KEY), Vec::new(), None);
        match tokio::time::timeout(self.attempt_timeout(), put).await {
            Ok(Ok(response)) => {
                *probed = self.keys.revision_of(response.header());
                true
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "etcd could not be probed");
                false
            }
            Err(_) => false,
        }
    }

    async fn newest_revision(&self) -> Result<Revision, StoreError> {
        let response = self.ask(0, || {
            let mut client = self.client.kv_client();
            let read = self.keys.outer(PROBE_KEY);
            async move { client.get(read, Some(GetOptions::new().with_count_only())).await }
        });
        Ok(self.see(self.keys.revision_of(response.await?.header())))
    }

    /// Remembers a revision that an answer told of.
    fn see(&self, revision: Revision) -> Revision {
        raise(&self.newest_seen, revision);
        revision
    }

    /// A revision that etcd had reached for sure.
    fn newest_seen(&self) -> Revision {
        *self.newest_seen.borrow()
    }

    /// Has watches ask etcd how far they are until they have reached a revision.
    fn want_progress(&self, revision: Revision) {
        raise(&self.wanted_progress, revision);
    }

    fn options_at(&self, at: ReadAt) -> Result<(Revision, GetOptions), StoreError> {
        Ok(match at {
            ReadAt::Current => (0, GetOptions::new()),
            ReadAt::Revision(revision) => {
                (revision, GetOptions::new().with_revision(self.keys.etcd_revision(revision)?))
            }
        })
    }
}

fn raise(mark: &channel::Sender<Revision>, revision: Revision) {
    mark.send_if_modified(|mark| {
        let newer = revision > *mark;
        *mark = revision.max(*mark);
        newer
    });
}

/// Whether the server's answers to progress requests can be trusted (etcd issue 15220).
fn answers_progress_requests(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| {
        let digits =
            part.find(|c: char| !c.is_ascii_digit()).map_or(part, |end| part.get(..end).unwrap_or(part));
        digits.parse::<u32>().unwrap_or(0)
    });
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    match version {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        version => version >= (3, 6, 0),
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn commit(&self, transaction: Vec<Write>) -> Result<Committed, StoreError> {
        if transaction.is_empty() {
            return Ok(Committed { revision: self.newest_revision().await?, previous: Vec::new() });
        }
        check_distinct(&transaction)?;
        self.commit_writes(&transaction).await
    }

    async fn get(&self, key: &str, at: ReadAt) -> Result<GetResult, StoreError> {
        let (requested, options) = self.options_at(at)?;
        let response = self.read(self.keys.outer(key), options, requested).await?;
        let revision = if requested == 0 { self.keys.revision_of(response.header()) } else { requested };
        let pair = response.0.kvs.into_iter().next();
        Ok(GetResult { entry: pair.map(|pair| self.keys.entry(pair)).transpose()?, revision })
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let (first, end) = self.keys.bounds(&range.prefix);
        let mut start = match &range.after {
            Some(after) if after.as_str() >= range.prefix.as_str() => just_after(self.keys.outer(after)),
            _ => first,
        };
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let (mut revision, mut at) = self.options_at(range.at)?;
        let mut entries = Vec::new();
        loop {
            let page = PAGE_ENTRIES.min(limit - entries.len());
            let options = at.with_range(end.clone()).with_limit(i64::try_from(page).unwrap_or(i64::MAX));
            let response = self.read(start, options, revision).await?;
            if revision == 0 {
                revision = self.keys.revision_of(response.header());
            }
            // All further pages are of the revision of the first one.
            at = GetOptions::new().with_revision(self.keys.etcd_revision(revision)?);
            let (more, count) = (response.0.more, response.0.count);
            let pairs = response.0.kvs;
            let read = pairs.len();
            start = just_after(pairs.last().map(|pair| pair.key.clone()).unwrap_or_default());
            for pair in pairs {
                entries.push(self.keys.entry(pair)?);
            }
            if !more || entries.len() >= limit {
                let remaining = usize::try_from(unsigned(count)).unwrap_or(usize::MAX).saturating_sub(read);
                return Ok(RangeResult { entries, remaining, revision });
            }
        }
    }

    async fn watch(&self, prefix: &str, from: Option<Revision>) -> Result<WatchStream, StoreError> {
        self.follow(prefix, from).await
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        let revision = self.newest_revision().await?;
        self.want_progress(revision);
        Ok(revision)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let compacted = match self.keys.etcd_revision(revision) {
            Ok(etcd_revision) => {
                let compacted = self.ask(revision, || {
                    let mut client = self.client.kv_client();
                    async move { client.compact(etcd_revision, None).await }
                });
                self.with_current(compacted.await.map(|_| ())).await
            }
            Err(error) => Err(error),
        };
        match compacted {
            // Somebody was faster; the wish is fulfilled.
            Err(StoreError::Compacted { .. }) => Ok(()),
            other => other,
        }
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.newest_revision().await.map(|_| ())
    }
}

/// The first key that is after this one.
fn just_after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fixed_versions_are_asked_for_progress() {
        for (version, expected) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0", true),
            ("3.6.0-rc.1", true),
            ("", false),
        ] {
            assert_eq!(answers_progress_requests(version), expected, "{version}");
        }
    }
}
