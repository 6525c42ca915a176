//! From what is on disk to a running state: snapshot, then log.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use super::EmbeddedOptions;
use super::disk::{Disk, UNFINISHED_SUFFIX};
use super::frame::FrameBuffer;
use super::history::{History, HistoryBounds};
use super::lock::OWNER_FILE;
use super::log::{self, Log, ReadLog, setup};
use super::record::Record;
use super::snapshot::{self, SNAPSHOT_SUFFIX};
use super::staging::{Stage, apply_deadlines};
use super::state::State;
use super::watchers::Watchers;
use super::writer::Writer;
use crate::contents::now_ms;
use crate::deadlines::Deadlines;
use crate::{Contents, Revision, StoreError};

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
    let names = disk.names(dir).map_err(|error| setup("read", dir, &error))?;
    if is_half_restored(&names) {
        return Err(StoreError::Setup(format!(
            "a copy was being restored into {} and was interrupted: restore it again, or remove what is there to begin with nothing",
            dir.display()
        )));
    }
    remove_unfinished(&*disk, dir)?;
    // A file may have its name since just before a crash or a failed sync: visible, but not yet to stay.
    disk.sync_directory(dir).map_err(|error| setup("sync", dir, &error))?;
    let bounds = HistoryBounds {
        age_ms: u64::try_from(options.history_age.as_millis()).unwrap_or(u64::MAX),
        bytes: options.history_bytes,
    };
    let (replay, log, snapshot_bytes) = Replay::read(&*disk, dir, bounds)?;
    let Replay { stage, mut history, deadlines, .. } = replay;
    let log = Log::open(Arc::clone(&disk), dir, options.segment_bytes, log)?;
    history.trim(now_ms(), bounds);
    tracing::info!(
        dir = %dir.display(), revision = stage.revision, entries = stage.entries.len(), "the store is open"
    );
    let watchers = Watchers::new(options.watch_queue_bytes, options.progress_interval);
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

/// Reads what is in a directory as of its last complete append. Changes nothing.
pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Contents, StoreError> {
    let (Replay { stage, deadlines, .. }, ..) =
        Replay::read(disk, dir, HistoryBounds { age_ms: 0, bytes: 0 })?;
    Ok(Contents { revision: stage.revision, entries: stage.entries, deadlines })
}

/// Whether there is nothing but the beginning of a snapshot: a store that is used makes its log first.
pub(super) fn is_half_restored(names: &[String]) -> bool {
    let unfinished = |name: &String| name.ends_with(&format!("{SNAPSHOT_SUFFIX}{UNFINISHED_SUFFIX}"));
    names.iter().any(unfinished) && names.iter().all(|name| unfinished(name) || name == OWNER_FILE)
}

pub(super) fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
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
    /// Reads the snapshot, if there is one, and the log after it.
    fn read(disk: &dyn Disk, dir: &Path, bounds: HistoryBounds) -> Result<(Self, ReadLog, u64), StoreError> {
        let snapshot = snapshot::load_newest(disk, dir)?;
        let has_snapshot = snapshot.is_some();
        let empty = || (Contents { revision: FIRST_REVISION, ..Contents::default() }, 0);
        let (Contents { revision, entries, deadlines }, snapshot_bytes) = snapshot.unwrap_or_else(empty);
        let (stage, history) = (Stage::new(entries, revision, 0), History::starting_at(revision));
        let mut replay = Self { stage, history, deadlines, bounds };
        let log = log::read(disk, dir, has_snapshot, |record| replay.apply(record))?;
        Ok((replay, log, snapshot_bytes))
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
            Record::Compaction(revision) if revision <= reached => {
                self.history.compact(revision);
                Ok(reached)
            }
            Record::Compaction(revision) => {
                Err(format!("revision {revision} was compacted, {reached} is reached: the log has a hole"))
            }
            Record::Entry(..) | Record::End(_) => {
                Err("the log holds a record that does not belong there".to_owned())
            }
        }
    }
}
