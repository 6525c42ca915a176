//! From what is on disk to a running state: snapshot, then log.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use super::EmbeddedOptions;
use super::disk::{Disk, UNFINISHED_SUFFIX};
use super::expiry::Deadlines;
use super::frame::FrameBuffer;
use super::history::{Entries, History, HistoryBounds};
use super::log::{Log, setup};
use super::record::Record;
use super::snapshot;
use super::staging::{Stage, apply_deadlines};
use super::state::State;
use super::watchers::Watchers;
use super::writer::{Writer, now_ms};
use crate::{Revision, StoreError};

/// The revision of a store that nothing was written to yet.
const FIRST_REVISION: Revision = 1;

/// A store ready to run.
pub(super) struct Recovered {
    pub(super) state: Arc<RwLock<State>>,
    pub(super) writer: Writer,
}

/// Opens a directory that nobody else has open.
pub(super) fn open(disk: Arc<dyn Disk>, options: &EmbeddedOptions) -> Result<Recovered, StoreError> {
    let dir = &options.dir;
    remove_unfinished(&*disk, dir)?;
    // A file may have its name since just before a crash or a failed sync: visible, but not yet to stay.
    disk.sync_directory(dir).map_err(|error| setup("sync", dir, &error))?;
    let snapshot = snapshot::load_newest(&*disk, dir)?;
    let has_snapshot = snapshot.is_some();
    let snapshot_bytes = snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes);
    let bounds = HistoryBounds {
        age_ms: u64::try_from(options.history_age.as_millis()).unwrap_or(u64::MAX),
        bytes: options.history_bytes,
    };
    let mut replay = match snapshot {
        Some(loaded) => Replay::new(loaded.entries, loaded.revision, loaded.deadlines, bounds),
        None => Replay::new(Entries::new(), FIRST_REVISION, Deadlines::default(), bounds),
    };
    let log = Log::recover(Arc::clone(&disk), dir, options.segment_bytes, has_snapshot, |record| {
        replay.apply(record)
    })?;
    let Replay { stage, mut history, deadlines, .. } = replay;
    history.trim(now_ms(), bounds);
    tracing::info!(
        dir = %dir.display(), revision = stage.revision, entries = stage.entries.len(), "the store is open"
    );
    let watchers = Watchers::new(options.watch_queue_events, options.progress_interval);
    let state = State { entries: stage.entries, revision: stage.revision, history, watchers, bounds };
    let state = Arc::new(RwLock::new(state));
    let writer = Writer {
        disk,
        dir: dir.clone(),
        log,
        state: Arc::clone(&state),
        deadlines,
        compact_bytes: options.compact_bytes,
        snapshot_bytes,
        frame: FrameBuffer::new(),
        snapshot: None,
        snapshots_rest_until: None,
        expiry_rests_until: None,
    };
    Ok(Recovered { state, writer })
}

fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    for name in disk.names(dir).map_err(|error| setup("read", dir, &error))? {
        if name.ends_with(UNFINISHED_SUFFIX) {
            let path = dir.join(name);
            disk.remove(&path).map_err(|error| setup("remove", &path, &error))?;
        }
    }
    Ok(())
}

/// The state while the log is applied to it.
struct Replay {
    stage: Stage,
    history: History,
    deadlines: Deadlines,
    bounds: HistoryBounds,
}

impl Replay {
    fn new(entries: Entries, revision: Revision, deadlines: Deadlines, bounds: HistoryBounds) -> Self {
        let history = History::starting_at(revision);
        Self { stage: Stage::new(entries, revision, 0), history, deadlines, bounds }
    }

    fn apply(&mut self, record: Record) -> Result<Revision, String> {
        let reached = self.stage.revision;
        match record {
            // The snapshot holds it already; the segment also has newer ones.
            Record::Transaction(transaction) if transaction.revision <= reached => Ok(transaction.revision),
            Record::Transaction(transaction) if transaction.revision == reached + 1 => {
                let time_ms = transaction.time_ms;
                self.stage.apply(transaction);
                for batch in self.stage.batches.drain(..) {
                    self.history.push(batch);
                }
                apply_deadlines(&mut self.deadlines, std::mem::take(&mut self.stage.deadlines));
                self.history.trim(time_ms, self.bounds);
                Ok(reached + 1)
            }
            Record::Transaction(transaction) => {
                Err(format!("revision {} follows {reached}: the log has a hole", transaction.revision))
            }
            Record::Compaction(revision) => {
                self.history.compact(revision.min(reached));
                Ok(reached)
            }
            Record::Entry(..) | Record::End(_) => {
                Err("the log holds a record that does not belong there".to_owned())
            }
        }
    }
}
