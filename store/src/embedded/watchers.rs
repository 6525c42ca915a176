//! Those who follow a prefix.
//!
//! Delivery happens on the writer's thread, in commit order, and never waits: a watcher for which too many bytes wait is
//! dropped, and its stream ends in [`StoreError::Lagged`] after what was queued. A watcher that saw nothing of its own for a
//! while is told the revision with the next commit or soon after it, so that its idea of "now" keeps up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::history::{Batch, CHANGE_OVERHEAD_BYTES, cost};
use crate::{Change, Revision, StoreError, WatchEvent, WatchStream};

/// All watchers of a store.
#[derive(Debug)]
pub(super) struct Watchers {
    watchers: Vec<Watcher>,
    queue_bytes: u32,
    progress_interval: Duration,
}

#[derive(Debug)]
struct Watcher {
    prefix: Box<str>,
    /// Each event holds its share of the room until it is taken out.
    queue: mpsc::UnboundedSender<(WatchEvent, OwnedSemaphorePermit)>,
    /// Closed when there was not enough of it.
    room: Arc<Semaphore>,
    /// The newest revision that the watcher was told.
    told: Revision,
    told_at: Instant,
}

impl Watchers {
    pub(super) fn new(queue_bytes: usize, progress_interval: Duration) -> Self {
        let queue_bytes = u32::try_from(queue_bytes).unwrap_or(u32::MAX);
        Self { watchers: Vec::new(), queue_bytes, progress_interval }
    }

    /// Adds a watcher that has everything up to `current` in `replay`, and hands out its stream.
    pub(super) fn add(&mut self, prefix: &str, replay: Vec<WatchEvent>, current: Revision) -> WatchStream {
        let (queue, events) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(self.queue_bytes as usize));
        self.watchers.push(Watcher {
            prefix: prefix.into(),
            queue,
            room: Arc::clone(&room),
            told: current,
            told_at: Instant::now(),
        });
        let live = stream::unfold(Some((events, room)), |open| async move {
            let (mut events, room) = open?;
            match events.recv().await {
                Some((event, _taken)) => Some((Ok(event), Some((events, room)))),
                None if room.is_closed() => Some((Err(StoreError::Lagged), None)),
                None => Some((Err(StoreError::Unavailable("the store was closed".into())), None)),
            }
        });
        stream::iter(replay.into_iter().map(Ok)).chain(live).boxed()
    }

    /// Tells everyone whom it concerns about a commit.
    pub(super) fn deliver(&mut self, batch: &Batch) {
        let now = Instant::now();
        let (progress_interval, queue_bytes) = (self.progress_interval, self.queue_bytes);
        self.watchers.retain_mut(|watcher| {
            let event = match matching(&batch.changes, &watcher.prefix) {
                Some(changes) => WatchEvent::Changes { revision: batch.revision, changes },
                None if now.duration_since(watcher.told_at) >= progress_interval => {
                    WatchEvent::Progress(batch.revision)
                }
                None => return !watcher.queue.is_closed(),
            };
            watcher.tell(event, batch.revision, now, queue_bytes)
        });
    }

    /// Tells those who are behind that nothing of theirs happened. Returns whether anyone still is.
    pub(super) fn report_progress(&mut self, current: Revision) {
        let now = Instant::now();
        let queue_bytes = self.queue_bytes;
        self.watchers.retain_mut(|watcher| {
            watcher.told >= current || watcher.tell(WatchEvent::Progress(current), current, now, queue_bytes)
        });
    }

    /// When the watcher that was left without news for longest is due to hear of `current`, if one is behind.
    pub(super) fn progress_due(&self, current: Revision) -> Option<Instant> {
        let behind = self.watchers.iter().filter(|watcher| watcher.told < current);
        behind.map(|watcher| watcher.told_at).min().map(|told_at| told_at + self.progress_interval)
    }
}

impl Watcher {
    /// Returns whether the watcher stays. A single event larger than the queue goes into an empty one.
    fn tell(&mut self, event: WatchEvent, revision: Revision, now: Instant, queue_bytes: u32) -> bool {
        let cost = match &event {
            WatchEvent::Changes { changes, .. } => cost(changes),
            WatchEvent::Progress(_) => CHANGE_OVERHEAD_BYTES,
        };
        let cost = u32::try_from(cost).unwrap_or(u32::MAX).min(queue_bytes);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(cost) else {
            self.room.close();
            return false;
        };
        (self.told, self.told_at) = (revision, now);
        self.queue.send((event, room)).is_ok()
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
