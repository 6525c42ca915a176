//! Watches: etcd's responses as whole revisions, across lost connections.
//!
//! When a caller has learned of a revision that a watch has not reached, the watch finds out whether anything is missing.
//! Newer versions of etcd are asked for progress. Older ones answer that wrongly; there the watch covers all keys of the
//! store and shows the caller's, and a key that no caller sees is written: its event comes after everything before it.
//!
//! Large responses come in fragments and are put together first, so that all changes of a revision come at once. After a
//! lost connection the watch resumes after the last revision delivered; nothing is lost or seen twice. etcd itself holds
//! what a slow reader has not taken yet, so [`StoreError::Lagged`] does not occur.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::PbEvent;
use etcd_client::{EventType, WatchOptions, WatchResponse};
use futures::{StreamExt, stream};
use tokio::sync::watch;

use super::EtcdStore;
use super::convert::{KeySpace, failure_of, revision_of, signed, unsigned};
use crate::{Change, Revision, StoreError, WatchEvent, WatchStream};

const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a watch that is behind waits for events to come by themselves before it asks.
const ASK_AFTER: Duration = Duration::from_millis(10);

/// A watch and where it stands.
struct Follower {
    store: EtcdStore,
    prefix: String,
    /// The next revision to deliver.
    next: Revision,
    stream: Option<etcd_client::WatchStream>,
    /// Fragments of a response that is not complete yet.
    fragments: Vec<PbEvent>,
    ready: VecDeque<WatchEvent>,
    reconnect_delay: Duration,
    /// Revisions that somebody wants watches to catch up with.
    wanted: watch::Receiver<Revision>,
    /// Up to which of them etcd was asked already.
    asked: Revision,
    ended: bool,
}

/// Why a watch cannot go on as it is.
enum Broken {
    /// For good.
    Ended(StoreError),
    /// Until it is started again.
    Connection(String),
}

impl EtcdStore {
    pub(super) async fn follow(
        &self,
        prefix: &str,
        from: Option<Revision>,
    ) -> Result<WatchStream, StoreError> {
        let mut follower = Follower {
            store: self.clone(),
            prefix: prefix.to_owned(),
            next: from.unwrap_or(0),
            stream: None,
            fragments: Vec::new(),
            ready: VecDeque::new(),
            reconnect_delay: RECONNECT_FIRST,
            wanted: self.wanted_progress.subscribe(),
            asked: 0,
            ended: false,
        };
        match follower.connect().await {
            Ok(current) if follower.next > current + 1 => {
                return Err(StoreError::FutureRevision { requested: follower.next, current });
            }
            Ok(_) => {}
            Err(Broken::Ended(error)) => return Err(error),
            Err(Broken::Connection(reason)) => return Err(StoreError::Unavailable(reason)),
        }
        let events = stream::unfold(follower, |mut follower| async move {
            let event = follower.next_event().await?;
            Some((event, follower))
        });
        Ok(events.boxed())
    }
}

impl Follower {
    async fn next_event(&mut self) -> Option<Result<WatchEvent, StoreError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            match self.advance().await {
                Ok(()) => {}
                Err(Broken::Ended(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Err(Broken::Connection(reason)) => {
                    tracing::info!(prefix = %self.prefix, next = self.next, reason, "the watch of etcd broke; resuming");
                    self.stream = None;
                    self.fragments.clear();
                    tokio::time::sleep(self.reconnect_delay).await;
                    self.reconnect_delay = (self.reconnect_delay * 2).min(RECONNECT_MAX);
                }
            }
        }
    }

    /// Starts the watch at the next revision and waits until etcd has confirmed it. Returns etcd's current revision.
    async fn connect(&mut self) -> Result<Revision, Broken> {
        let covered = if self.store.answers_progress_requests { self.prefix.as_str() } else { "" };
        let (start, end) = self.store.keys.bounds(covered);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(signed(self.next))
            .with_prev_key()
            .with_progress_notify()
            .with_fragment();
        let mut client = self.store.client.watch_client();
        let timeout = self.store.request_timeout;
        let started = async {
            let mut stream = client.watch(start, Some(options)).await?;
            let first = stream.message().await?;
            Ok::<_, etcd_client::Error>((stream, first))
        };
        let (stream, first) = match tokio::time::timeout(timeout, started).await {
            Err(_) => return Err(Broken::Connection("etcd did not answer in time".into())),
            Ok(Err(error)) => return Err(broken(&error, self.next)),
            Ok(Ok((_, None))) => return Err(Broken::Connection("etcd closed the watch".into())),
            Ok(Ok((stream, Some(first)))) => (stream, first),
        };
        self.stream = Some(stream);
        let current = revision_of(first.header());
        if self.next == 0 {
            // "From now on", made definite, so that a reconnect misses nothing.
            self.next = current + 1;
            self.ready.push_back(WatchEvent::Progress(current));
        }
        self.take(first)?;
        Ok(current)
    }

    async fn advance(&mut self) -> Result<(), Broken> {
        let Some(stream) = &mut self.stream else {
            self.connect().await?;
            self.reconnect_delay = RECONNECT_FIRST;
            return Ok(());
        };
        let wanted = *self.wanted.borrow_and_update();
        let asks = wanted >= self.next && wanted > self.asked;
        let message = tokio::select! {
            message = stream.message() => message,
            _ = self.wanted.changed() => return Ok(()),
            () = tokio::time::sleep(ASK_AFTER), if asks => {
                if self.store.answers_progress_requests {
                    stream.request_progress().await.map_err(|error| broken(&error, self.next))?;
                    self.asked = wanted;
                } else if self.store.write_probe(wanted).await {
                    self.asked = wanted;
                }
                return Ok(());
            }
        };
        match message {
            Ok(Some(response)) => self.take(response),
            Ok(None) => Err(Broken::Connection("etcd closed the watch".into())),
            Err(error) => Err(broken(&error, self.next)),
        }
    }

    fn take(&mut self, response: WatchResponse) -> Result<(), Broken> {
        let revision = revision_of(response.header());
        if response.canceled() {
            return Err(match unsigned(response.compact_revision()) {
                0 => Broken::Connection(format!("etcd cancelled the watch: {}", response.cancel_reason())),
                oldest => Broken::Ended(StoreError::Compacted { requested: self.next, oldest }),
            });
        }
        let is_progress = response.0.events.is_empty() && !response.created() && self.fragments.is_empty();
        let is_last = !response.0.fragment;
        self.fragments.extend(response.0.events);
        if is_progress {
            if revision >= self.next {
                self.next = revision + 1;
                self.ready.push_back(WatchEvent::Progress(revision));
            }
        } else if is_last && !self.fragments.is_empty() {
            let events = std::mem::take(&mut self.fragments);
            self.group(events).map_err(Broken::Ended)?;
        }
        Ok(())
    }

    /// Makes one event of all changes of a revision.
    fn group(&mut self, events: Vec<PbEvent>) -> Result<(), StoreError> {
        let mut changes: Vec<Change> = Vec::new();
        let mut revision = 0;
        for event in events {
            let change = change_of(&self.store.keys, event)?;
            let changed_at = match &change {
                Change::Put { entry, .. } => entry.mod_revision,
                Change::Delete { revision, .. } => *revision,
            };
            if changed_at != revision {
                self.deliver(revision, std::mem::take(&mut changes));
                revision = changed_at;
            }
            if key_of(&change).starts_with(&self.prefix) {
                changes.push(change);
            }
        }
        self.deliver(revision, changes);
        Ok(())
    }

    fn deliver(&mut self, revision: Revision, changes: Vec<Change>) {
        // What was delivered before a reconnect is not delivered again.
        if revision < self.next {
            return;
        }
        if !changes.is_empty() {
            self.ready.push_back(WatchEvent::Changes { revision, changes: Arc::from(changes) });
        } else if *self.wanted.borrow() >= self.next {
            self.ready.push_back(WatchEvent::Progress(revision));
        }
        self.next = revision + 1;
    }
}

fn key_of(change: &Change) -> &str {
    match change {
        Change::Put { entry, .. } => &entry.key,
        Change::Delete { key, .. } => key,
    }
}

fn change_of(keys: &KeySpace, event: PbEvent) -> Result<Change, StoreError> {
    let incomplete = || StoreError::Corrupt("etcd sent an event without a key".into());
    let is_delete = event.r#type == EventType::Delete as i32;
    let pair = event.kv.ok_or_else(incomplete)?;
    let previous = event.prev_kv.map(|pair| keys.entry(pair)).transpose()?;
    Ok(if is_delete {
        Change::Delete { key: keys.key_of(&pair)?, previous, revision: unsigned(pair.mod_revision) }
    } else {
        Change::Put { entry: keys.entry(pair)?, previous }
    })
}

fn broken(error: &etcd_client::Error, next: Revision) -> Broken {
    match failure_of(error, next) {
        super::convert::Failure::Refused(StoreError::Unavailable(reason)) => Broken::Connection(reason),
        super::convert::Failure::Refused(error) => Broken::Ended(error),
        other => Broken::Connection(other.of_read().to_string()),
    }
}
