//! Following a row's changes, for views that are built from its objects and kept.

use std::sync::Arc;

use super::{Cached, RowCache};

/// Changes that are taken over at once.
const BATCH: usize = 1024;

/// What a view has to take over.
pub(crate) enum Step<'a> {
    /// Forget everything: what is there follows.
    Restart,
    /// One object has come, gone or become another.
    Change {
        /// As it was.
        old: Option<&'a Arc<Cached>>,
        /// As it is.
        new: Option<&'a Arc<Cached>>,
    },
}

/// A position in a row's history.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// `None` before the first time.
    position: Option<u64>,
}

impl Follower {
    /// Tells what has changed since the last call. The first time, and after falling behind the history, it starts over
    /// with every object there is.
    pub fn follow(&mut self, row: &RowCache, mut take: impl FnMut(Step<'_>)) {
        while let Some(position) = self.position {
            let Some(events) = row.events_from(position, BATCH) else { break };
            for event in &events {
                take(Step::Change { old: event.old.as_ref(), new: event.new.as_ref() });
            }
            self.position = Some(position + events.len() as u64);
            if events.len() < BATCH {
                return;
            }
        }
        let (snapshot, position) = row.snapshot_and_position(0);
        self.position = Some(position);
        take(Step::Restart);
        for object in snapshot.objects.values() {
            take(Step::Change { old: None, new: Some(object) });
        }
    }
}
