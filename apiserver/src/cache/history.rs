//! What happened to a row lately, bounded by time and bytes.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::Revision;

use super::Cached;

/// Events older than this are dropped once there are more than [`EVENTS_KEPT`].
const AGE_MAX: Duration = Duration::from_secs(300);
/// So many events are kept whatever their age.
const EVENTS_KEPT: usize = 100;
/// Events beyond this are dropped whatever their age.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// One change of one object.
#[derive(Debug)]
pub(crate) struct RowEvent {
    /// When, in the store's history.
    pub revision: Revision,
    /// The object as it was.
    pub old: Option<Arc<Cached>>,
    /// The object as it is.
    pub new: Option<Arc<Cached>>,
    /// The event as watchers of the stored version get it, made when the first one asks.
    pub frame: OnceLock<Bytes>,
    at: Instant,
}

impl RowEvent {
    /// An event that happens now.
    pub fn new(revision: Revision, old: Option<Arc<Cached>>, new: Option<Arc<Cached>>) -> Self {
        Self { revision, old, new, frame: OnceLock::new(), at: Instant::now() }
    }

    fn size(&self) -> usize {
        // What it keeps alive beyond the live objects is the old state and the frame made for watchers.
        self.old.as_ref().map_or(64, |o| o.size()) + self.new.as_ref().map_or(64, |n| n.size())
    }
}

/// A row's events in order. Positions count from the row's first event and never change.
#[derive(Debug, Default)]
pub(crate) struct History {
    events: VecDeque<Arc<RowEvent>>,
    dropped: u64,
    bytes: usize,
    /// Everything after this revision is still here.
    complete_after: Revision,
}

impl History {
    /// Nothing has happened since a revision.
    pub fn starting_after(revision: Revision) -> Self {
        Self { complete_after: revision, ..Self::default() }
    }

    /// Appends an event and forgets what is too old.
    pub fn push(&mut self, event: Arc<RowEvent>) {
        self.bytes += event.size();
        self.events.push_back(event);
        let now = Instant::now();
        while self.events.len() > 1 && self.should_drop(now) {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.size());
            self.dropped += 1;
            self.complete_after = oldest.revision;
        }
    }

    fn should_drop(&self, now: Instant) -> bool {
        let aged = self.events.front().is_some_and(|e| now.duration_since(e.at) > AGE_MAX);
        self.bytes > BYTES_MAX || aged && self.events.len() > EVENTS_KEPT
    }

    /// The revision after which nothing is missing.
    pub fn complete_after(&self) -> Revision {
        self.complete_after
    }

    /// The position of the first event after a revision; `None` if events after it have been dropped.
    pub fn position_after(&self, revision: Revision) -> Option<u64> {
        (revision >= self.complete_after)
            .then(|| self.dropped + self.events.partition_point(|e| e.revision <= revision) as u64)
    }

    /// The position behind the newest event.
    pub fn end(&self) -> u64 {
        self.dropped + self.events.len() as u64
    }

    /// Up to `limit` events from a position; `None` if they have been dropped.
    pub fn from(&self, position: u64, limit: usize) -> Option<Vec<Arc<RowEvent>>> {
        let start = usize::try_from(position.checked_sub(self.dropped)?).ok()?;
        Some(self.events.iter().skip(start).take(limit).cloned().collect())
    }

    /// The events after a revision, the newest first.
    pub fn back_to(&self, revision: Revision) -> impl Iterator<Item = &Arc<RowEvent>> {
        self.events.iter().rev().take_while(move |e| e.revision > revision)
    }

    /// How many events are kept, and their size.
    pub fn size(&self) -> (usize, usize) {
        (self.events.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: Revision) -> Arc<RowEvent> {
        Arc::new(RowEvent::new(revision, None, None))
    }

    #[test]
    fn positions_should_survive_dropped_events() {
        let mut history = History::starting_after(10);
        for revision in 11..=20 {
            history.push(event(revision));
        }
        assert_eq!(history.position_after(9), None);
        assert_eq!(history.position_after(10), Some(0));
        assert_eq!(history.position_after(15), Some(5));
        let from: Vec<_> = history.from(8, 10).unwrap().iter().map(|e| e.revision).collect();
        assert_eq!(from, [19, 20]);

        history.bytes = BYTES_MAX * 2;
        history.push(event(21));
        assert_eq!(history.complete_after(), 20, "all but the newest are dropped");
        assert_eq!(history.from(8, 10).map(|e| e.len()), None);
        assert_eq!(history.position_after(20), Some(10));
    }
}
