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
use std::time::{Duration, Instant};

use etcd_client::proto::PbEvent;
use etcd_client::{EventType, WatchOptions, WatchResponse};
use futures::{StreamExt, stream};
use tokio::sync::watch;

use super::EtcdStore;
use super::convert::{Failure, INTERNAL, KeySpace, failure_of};
use crate::{Change, Revision, StoreError, WatchEvent, WatchStream};

const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a watch that is behind waits for events to come by themselves before it asks.
const ASK_AFTER: Duration = Duration::from_millis(10);

/// A watch and where it stands.
struct Follower {
    store: EtcdStore,
    prefix: String,
    /// The next revision to come from etcd.
    next: Revision,
    /// The newest revision that the caller was told of.
    told: Revision,
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
        // Members serve watches from what they have got so far, so none is asked what the newest revision is.
        let newest = match from {
            Some(from) if from <= self.newest_seen() + 1 => from.saturating_sub(1),
            _ => self.newest_revision().await?,
        };
        let next = from.unwrap_or(newest + 1);
        if next > newest + 1 {
            return Err(StoreError::FutureRevision { requested: next, current: newest });
        }
        let mut follower = Follower {
            store: self.clone(),
            prefix: prefix.to_owned(),
            next,
            told: 0,
            stream: None,
            fragments: Vec::new(),
            ready: VecDeque::new(),
            reconnect_delay: RECONNECT_FIRST,
            wanted: self.wanted_progress.subscribe(),
            asked: 0,
            ended: false,
        };
        match follower.connect_first().await {
            Ok(()) => {}
            Err(Broken::Ended(error)) => return Err(error),
            Err(Broken::Connection(reason)) => return Err(StoreError::Unavailable(reason)),
        }
        if from.is_none() {
            follower.tell(newest, WatchEvent::Progress(newest));
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

    /// Starts the watch with whichever member answers within a request's time.
    async fn connect_first(&mut self) -> Result<(), Broken> {
        let deadline = Instant::now() + self.store.request_timeout;
        loop {
            match self.connect().await {
                Err(Broken::Connection(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(RECONNECT_FIRST).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Starts the watch at the next revision and waits until etcd has confirmed it.
    async fn connect(&mut self) -> Result<(), Broken> {
        let covered = if self.store.answers_progress_requests { self.prefix.as_str() } else { "" };
        let (start, end) = self.store.keys.bounds_with_internal(covered);
        let from = self.store.keys.etcd_revision(self.next).map_err(Broken::Ended)?;
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(from)
            .with_prev_key()
            .with_progress_notify()
            .with_fragment();
        let mut client = self.store.client.watch_client();
        let timeout = self.store.attempt_timeout();
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
        let started = self.take(first);
        if started.is_err() && self.store.is_user {
            // A watch that comes with an old token is refused without saying so.
            self.store.renew_token().await;
        }
        started
    }

    async fn advance(&mut self) -> Result<(), Broken> {
        let wanted = *self.wanted.borrow_and_update();
        if wanted > self.told && wanted < self.next {
            // What others did until then is known, and was of no interest so far.
            self.tell(self.next - 1, WatchEvent::Progress(self.next - 1));
            return Ok(());
        }
        let Some(stream) = &mut self.stream else {
            self.connect().await?;
            self.reconnect_delay = RECONNECT_FIRST;
            return Ok(());
        };
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
        let revision = self.store.keys.revision_of(response.header());
        if response.canceled() {
            return Err(match response.compact_revision() {
                0 => Broken::Connection(format!("etcd cancelled the watch: {}", response.cancel_reason())),
                oldest => {
                    let oldest = self.store.keys.revision(oldest);
                    Broken::Ended(StoreError::Compacted { requested: self.next, oldest })
                }
            });
        }
        let is_progress = response.0.events.is_empty() && !response.created() && self.fragments.is_empty();
        let is_last = !response.0.fragment;
        self.fragments.extend(response.0.events);
        if is_progress {
            if revision >= self.next {
                self.next = revision + 1;
                self.tell(revision, WatchEvent::Progress(revision));
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
            let key = change.key();
            if key.starts_with(&self.prefix) && !key.starts_with(INTERNAL) {
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
            self.tell(revision, WatchEvent::Changes { revision, changes: Arc::from(changes) });
        }
        self.next = revision + 1;
    }

    fn tell(&mut self, revision: Revision, event: WatchEvent) {
        self.ready.push_back(event);
        self.told = revision;
    }
}

fn change_of(keys: &KeySpace, event: PbEvent) -> Result<Change, StoreError> {
    let incomplete = || StoreError::Corrupt("etcd sent an event without a key".into());
    let is_delete = event.r#type == EventType::Delete as i32;
    let pair = event.kv.ok_or_else(incomplete)?;
    let previous = event.prev_kv.map(|pair| keys.entry(pair)).transpose()?;
    Ok(if is_delete {
        Change::Delete { key: keys.inner(&pair.key)?, previous, revision: keys.revision(pair.mod_revision) }
    } else {
        Change::Put { entry: keys.entry(pair)?, previous }
    })
}

fn broken(error: &etcd_client::Error, next: Revision) -> Broken {
    match failure_of(error, next) {
        Failure::Refused(error) => Broken::Ended(error),
        Failure::NotDone(reason) | Failure::Unknown(reason) => Broken::Connection(reason),
        Failure::StaleToken => Broken::Connection("etcd wants a new token".into()),
        Failure::LeaseGone => Broken::Connection("etcd spoke of a lease".into()),
    }
}
