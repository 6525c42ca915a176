//! The one writer: takes whatever is queued, decides it, writes it as one synced append, publishes it, answers.
//!
//! A dedicated thread, so that a waiting write costs one wake-up and one sync. There are no timers in its way: under
//! load the next batch is what queued up during the last sync. Nothing is visible or answered, conflicts included,
//! before what it depends on is on disk; if the append fails, everyone in the batch is told so and nothing changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::disk::Disk;
use super::frame::FrameBuffer;
use super::log::Log;
use super::record::encode_compaction;
use super::snapshot;
use super::staging::{Stage, apply_deadlines};
use super::state::State;
use crate::contents::now_ms;
use crate::deadlines::Deadlines;
use crate::{Committed, Contents, Revision, StoreError, Write};

const BATCH_REQUESTS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 8 << 20;
const EXPIRED_KEYS_PER_TRANSACTION_MAX: usize = 500;
/// How long expiry rests after a failed write.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);
/// How often to see whether a snapshot is finished while nothing else happens.
const SNAPSHOT_POLL: Duration = Duration::from_millis(50);
/// How long snapshots rest after a failed one.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(10);

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Commit {
        writes: Vec<Write>,
        bytes: usize,
        reply: oneshot::Sender<Result<Committed, StoreError>>,
        /// Held until the request leaves the queue, which bounds the queue.
        permit: OwnedSemaphorePermit,
    },
    Compact {
        revision: Revision,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    Probe {
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
}

/// The writer's own belongings.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) log: Log,
    pub(super) state: Arc<RwLock<State>>,
    pub(super) deadlines: Deadlines,
    pub(super) compact_bytes: u64,
    pub(super) snapshot_bytes: u64,
    pub(super) frame: FrameBuffer,
    pub(super) snapshot: Option<SnapshotJob>,
    pub(super) snapshots_rest_until: Option<Instant>,
    pub(super) expiry_rests_until: Option<Instant>,
}

/// A snapshot that is being written on another thread.
#[derive(Debug)]
pub(super) struct SnapshotJob {
    revision: Revision,
    thread: JoinHandle<std::io::Result<u64>>,
}

/// An answer that waits for the disk.
enum Answer {
    Commit(oneshot::Sender<Result<Committed, StoreError>>, Result<Committed, StoreError>),
    Done(oneshot::Sender<Result<(), StoreError>>, Result<(), StoreError>),
}

enum Wake {
    Request(Request),
    Timer,
    Closed,
}

impl Writer {
    /// Runs until all senders of the queue are gone and the queue is empty.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match self.wait(requests) {
                Wake::Request(first) => self.run_batch(Some(first), requests),
                Wake::Timer => self.run_batch(None, requests),
                Wake::Closed => break,
            }
        }
        if let Some(job) = self.snapshot.take() {
            self.finish_snapshot(job);
        }
    }

    fn wait(&self, requests: &Receiver<Request>) -> Wake {
        if let Ok(request) = requests.try_recv() {
            return Wake::Request(request);
        }
        let result = match self.next_timer() {
            Some(wait) => requests.recv_timeout(wait),
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match result {
            Ok(request) => Wake::Request(request),
            Err(RecvTimeoutError::Timeout) => Wake::Timer,
            Err(RecvTimeoutError::Disconnected) => Wake::Closed,
        }
    }

    /// How long until a key expires, history is too old or a watcher is due to hear of progress.
    fn next_timer(&self) -> Option<Duration> {
        let now = Instant::now();
        let until = |time_ms: u64| Duration::from_millis(time_ms.saturating_sub(now_ms()));
        let expiry = self.deadlines.next().map(|deadline_ms| {
            let due = until(deadline_ms);
            let rest = self.expiry_rests_until.map_or(Duration::ZERO, |until| until.duration_since(now));
            due.max(rest)
        });
        let state = self.state.read();
        let progress = state.watchers.progress_due(state.revision).map(|due| due.duration_since(now));
        let aged = state.history.oldest_time_ms().map(|time_ms| {
            // A moment later than needed, so that more than one batch is too old.
            until(time_ms.saturating_add(state.bounds.age_ms)) + Duration::from_secs(1)
        });
        let snapshot = self.snapshot.as_ref().map(|_| SNAPSHOT_POLL);
        expiry.into_iter().chain(progress).chain(aged).chain(snapshot).min()
    }

    fn run_batch(&mut self, first: Option<Request>, requests: &Receiver<Request>) {
        let mut stage = {
            let state = self.state.read();
            Stage::new(state.entries.clone(), state.revision, now_ms())
        };
        self.frame.reset();
        let mut answers = Vec::new();
        let mut compaction = None;
        self.stage_expired(&mut stage);
        let (mut next, mut bytes) = (first, 0);
        while let Some(request) = next {
            bytes += self.stage_request(request, &mut stage, &mut answers, &mut compaction);
            let room = answers.len() < BATCH_REQUESTS_MAX && bytes < BATCH_BYTES_MAX;
            next = if room { requests.try_recv().ok() } else { None };
        }
        match self.write(stage.revision) {
            Ok(()) => {
                self.publish(stage, compaction);
                for answer in answers {
                    answer.send();
                }
            }
            Err(error) => {
                for answer in answers {
                    answer.fail(&error);
                }
            }
        }
        self.care_for_snapshots();
    }

    fn stage_expired(&mut self, stage: &mut Stage) {
        if self.expiry_rests_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        self.expiry_rests_until = None;
        let due = self.deadlines.due(stage.time_ms, EXPIRED_KEYS_PER_TRANSACTION_MAX);
        if stage.expire(due, self.frame.payload()).is_err() {
            self.expiry_rests_until = Some(Instant::now() + EXPIRY_RETRY);
        }
    }

    /// Decides one request and returns how many bytes it added.
    fn stage_request(
        &mut self,
        request: Request,
        stage: &mut Stage,
        answers: &mut Vec<Answer>,
        compaction: &mut Option<Revision>,
    ) -> usize {
        match request {
            Request::Commit { writes, bytes, reply, permit } => {
                drop(permit);
                answers.push(Answer::Commit(reply, stage.commit(writes, self.frame.payload())));
                bytes
            }
            Request::Compact { revision, reply } => {
                let result = if revision > stage.revision {
                    Err(StoreError::FutureRevision { requested: revision, current: stage.revision })
                } else {
                    encode_compaction(revision, self.frame.payload());
                    *compaction = (*compaction).max(Some(revision));
                    Ok(())
                };
                answers.push(Answer::Done(reply, result));
                0
            }
            Request::Probe { reply } => {
                answers.push(Answer::Done(reply, self.log.health()));
                0
            }
        }
    }

    fn write(&mut self, staged_revision: Revision) -> Result<(), StoreError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        // Segments are sealed between frames: what was committed before this one is the newest they hold.
        let committed = self.state.read().revision;
        debug_assert!(committed <= staged_revision);
        self.log.append(&mut self.frame, committed).inspect_err(|error| {
            tracing::warn!(%error, "a write to the log failed");
            self.expiry_rests_until = Some(Instant::now() + EXPIRY_RETRY);
        })
    }

    fn publish(&mut self, stage: Stage, compaction: Option<Revision>) {
        let Stage { entries, batches, deadlines, time_ms, .. } = stage;
        apply_deadlines(&mut self.deadlines, deadlines);
        let mut state = self.state.write();
        state.publish(entries, batches, time_ms);
        if let Some(revision) = compaction {
            state.history.compact(revision);
        }
        let revision = state.revision;
        if state.watchers.progress_due(revision).is_some_and(|due| due <= Instant::now()) {
            state.watchers.report_progress(revision);
        }
    }

    /// Starts a snapshot when enough of the log has become superfluous, and clears up after a finished one.
    fn care_for_snapshots(&mut self) {
        if let Some(job) = self.snapshot.take_if(|job| job.thread.is_finished()) {
            self.finish_snapshot(job);
        }
        if self.snapshot.is_some() || self.snapshots_rest_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let (entries, history) = {
            let state = self.state.read();
            if self.log.bytes_until(state.history.oldest_read()) < self.compact_bytes.max(self.snapshot_bytes)
            {
                return;
            }
            (state.entries.clone(), state.history.clone())
        };
        let (disk, dir, deadlines) = (Arc::clone(&self.disk), self.dir.clone(), self.deadlines.clone());
        let revision = history.oldest_read();
        let spawned = std::thread::Builder::new().name("store-snapshot".into()).spawn(move || {
            let entries = history.entries_at(&entries, revision, |_| true).map_err(std::io::Error::other)?;
            snapshot::write(&*disk, &dir, &Contents { revision, entries, deadlines })
        });
        match spawned {
            Ok(thread) => self.snapshot = Some(SnapshotJob { revision, thread }),
            Err(error) => self.postpone_snapshots(revision, &error),
        }
    }

    fn finish_snapshot(&mut self, job: SnapshotJob) {
        let revision = job.revision;
        let panicked = |_| Err(std::io::Error::other("writing the snapshot panicked"));
        let cleared = job.thread.join().unwrap_or_else(panicked).and_then(|bytes| {
            self.snapshot_bytes = bytes;
            self.log.remove_until(revision)?;
            snapshot::remove_before(&*self.disk, &self.dir, revision)
        });
        match cleared {
            Ok(()) => {
                tracing::debug!(revision, bytes = self.snapshot_bytes, "snapshot written, log shortened");
            }
            Err(error) => self.postpone_snapshots(revision, &error),
        }
    }

    fn postpone_snapshots(&mut self, revision: Revision, error: &std::io::Error) {
        tracing::warn!(revision, %error, "cannot write a snapshot or shorten the log; the log stays longer");
        self.snapshots_rest_until = Some(Instant::now() + SNAPSHOT_RETRY);
    }
}

impl Answer {
    fn send(self) {
        // A caller that went away does not want its answer.
        match self {
            Self::Commit(reply, result) => drop(reply.send(result)),
            Self::Done(reply, result) => drop(reply.send(result)),
        }
    }

    fn fail(self, error: &StoreError) {
        match self {
            // A malformed transaction stays malformed.
            Self::Commit(_, Err(StoreError::Setup(_))) => self.send(),
            Self::Commit(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Done(reply, _) => drop(reply.send(Err(error.clone()))),
        }
    }
}
