//! Those who follow a prefix.
//!
//! Delivery happens on the writer's thread, in commit order, and never waits: a watcher whose queue is full is dropped,
//! and its stream ends in [`StoreError::Lagged`] after what was queued. A watcher that saw nothing of its own for a
//! while is told the revision with the next commit or soon after it, so that its idea of "now" keeps up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::history::Batch;
use crate::{Change, Revision, StoreError, WatchEvent, WatchStream};

/// All watchers of a store.
#[derive(Debug)]
pub(super) struct Watchers {
    watchers: Vec<Watcher>,
    queue_events: usize,
    progress_interval: Duration,
}

#[derive(Debug)]
struct Watcher {
    prefix: Box<str>,
    queue: mpsc::Sender<WatchEvent>,
    lagged: Arc<AtomicBool>,
    /// The newest revision that the watcher was told.
    told: Revision,
    told_at: Instant,
}

impl Watchers {
    pub(super) fn new(queue_events: usize, progress_interval: Duration) -> Self {
        Self { watchers: Vec::new(), queue_events, progress_interval }
    }

    /// Adds a watcher that has everything up to `current` in `replay`, and hands out its stream.
    pub(super) fn add(&mut self, prefix: &str, replay: Vec<WatchEvent>, current: Revision) -> WatchStream {
        let (queue, events) = mpsc::channel(self.queue_events);
        let lagged = Arc::new(AtomicBool::new(false));
        let (told, told_at) = (current, Instant::now());
        self.watchers.push(Watcher {
            prefix: prefix.into(),
            queue,
            lagged: Arc::clone(&lagged),
            told,
            told_at,
        });
        let live = stream::unfold(Some((events, lagged)), |open| async move {
            let (mut events, lagged) = open?;
            match events.recv().await {
                Some(event) => Some((Ok(event), Some((events, lagged)))),
                None if lagged.load(Ordering::Acquire) => Some((Err(StoreError::Lagged), None)),
                None => Some((Err(StoreError::Unavailable("the store was closed".into())), None)),
            }
        });
        stream::iter(replay.into_iter().map(Ok)).chain(live).boxed()
    }

    /// Tells everyone whom it concerns about a commit.
    pub(super) fn deliver(&mut self, batch: &Batch) {
        let now = Instant::now();
        let progress_interval = self.progress_interval;
        self.watchers.retain_mut(|watcher| {
            let event = match matching(&batch.changes, &watcher.prefix) {
                Some(changes) => WatchEvent::Changes { revision: batch.revision, changes },
                None if now.duration_since(watcher.told_at) >= progress_interval => {
                    WatchEvent::Progress(batch.revision)
                }
                None => return !watcher.queue.is_closed(),
            };
            watcher.tell(event, batch.revision, now)
        });
    }

    /// Tells those who are behind that nothing of theirs happened. Returns whether anyone still is.
    pub(super) fn report_progress(&mut self, current: Revision) {
        let now = Instant::now();
        self.watchers.retain_mut(|watcher| {
            watcher.told >= current || watcher.tell(WatchEvent::Progress(current), current, now)
        });
    }

    /// When the watcher that was left without news for longest is due to hear of `current`, if one is behind.
    pub(super) fn progress_due(&self, current: Revision) -> Option<Instant> {
        let behind = self.watchers.iter().filter(|watcher| watcher.told < current);
        behind.map(|watcher| watcher.told_at).min().map(|told_at| told_at + self.progress_interval)
    }
}

impl Watcher {
    /// Returns whether the watcher stays.
    fn tell(&mut self, event: WatchEvent, revision: Revision, now: Instant) -> bool {
        match self.queue.try_send(event) {
            Ok(()) => {
                (self.told, self.told_at) = (revision, now);
                true
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// The changes under a prefix; shared when that is all of them.
pub(super) fn matching(changes: &Arc<[Change]>, prefix: &str) -> Option<Arc<[Change]>> {
    let concerns = |change: &&Change| change.key().starts_with(prefix);
    match changes.iter().filter(concerns).count() {
        0 => None,
        all if all == changes.len() => Some(Arc::clone(changes)),
        _ => Some(changes.iter().filter(concerns).cloned().collect()),
    }
}
