//! The embedded engine: everything live in memory, every commit in a log on disk.
//!
//! Guarantees, beyond [`Store`]'s:
//! - all writes that wait at the same time share one sync (group commit), by one writer thread;
//! - a watcher has an event in its queue before the write that made it is acknowledged;
//! - reads never touch the disk and never wait for it;
//! - values are held once: readers and watchers share them with the engine. A caller that writes a slice of a larger
//!   buffer keeps that whole buffer alive;
//! - a torn last append is cut off at the start (it was never acknowledged) and logged; any other damage fails the start
//!   with the file and offset;
//! - an append whose sync fails is answered with [`StoreError::OutcomeUnknown`] and is the last: reads go on, writes and
//!   the health check get [`StoreError::Unavailable`] until a restart has found out what is on disk;
//! - with a full disk writes get [`StoreError::NoSpace`] and reads go on; writes work again when there is space;
//! - a watcher that does not keep up costs a bounded amount of memory, and is then ended;
//! - one process per directory.
//!
//! Assumes a local file system whose `fdatasync` means it, and that the live data fits in memory.
//!
//! The recent past is kept for reads and watches at older revisions, bounded by age and bytes, and survives a restart as
//! far as the log goes. Deliberately absent: encryption (values arrive encrypted), replication (use etcd).

pub(crate) mod copy;
mod disk;
mod frame;
mod header;
mod history;
mod lock;
mod log;
mod record;
mod recovery;
mod segment;
#[cfg(test)]
mod simulated_disk;
#[cfg(test)]
mod simulation;
mod snapshot;
mod staging;
mod state;
mod watchers;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, oneshot};

use self::disk::{Disk, RealDisk};
use self::lock::DirectoryLock;
use self::state::State;
use self::writer::Request;
use crate::{
    Action, Committed, GetResult, Range, RangeResult, ReadAt, Revision, Store, StoreError, WatchStream, Write,
};

/// How much may wait for the writer; more waits for room.
const QUEUED_KIB_MAX: u32 = 64 << 10;
/// What one transaction may hold; the API's limits are far below.
const TRANSACTION_BYTES_MAX: usize = 32 << 20;

/// Where and how an embedded store keeps its data.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The directory, made if it does not exist. It belongs to the store alone.
    pub dir: PathBuf,
    /// How long replaced and deleted entries stay readable at older revisions.
    pub history_age: Duration,
    /// How much of them is kept at most.
    pub history_bytes: usize,
    /// How much may wait for one watcher before it is ended: what is replaced and deleted stays in memory meanwhile.
    pub watch_queue_bytes: usize,
    /// How long a watcher stays without news of the current revision while others' keys change.
    pub progress_interval: Duration,
    /// At which size a new log segment is begun.
    pub segment_bytes: u64,
    /// How much superfluous log makes a snapshot worth it; more if the snapshot is larger than that.
    pub compact_bytes: u64,
}

impl EmbeddedOptions {
    /// The defaults, in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            history_age: Duration::from_secs(5 * 60),
            history_bytes: 32 << 20,
            watch_queue_bytes: 32 << 20,
            progress_interval: Duration::from_secs(5),
            segment_bytes: 8 << 20,
            compact_bytes: 16 << 20,
        }
    }
}

/// The embedded store. Clones are handles of the same store; dropping the last one finishes what is queued and closes it.
#[derive(Clone, Debug)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Arc<RwLock<State>>,
    queue: Option<mpsc::Sender<Request>>,
    queue_room: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the store in a directory: takes the directory's lock, recovers what is there, starts the writer.
    /// Reads whole files; call it where blocking is fine.
    pub fn open(options: EmbeddedOptions) -> Result<Self, StoreError> {
        let disk = RealDisk::shared();
        disk.make_directory(&options.dir).map_err(|error| log::setup("create", &options.dir, &error))?;
        let lock = DirectoryLock::acquire(&options.dir)?;
        Self::open_on(disk, &options, Some(lock))
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        options: &EmbeddedOptions,
        lock: Option<DirectoryLock>,
    ) -> Result<Self, StoreError> {
        let recovery::Recovered { state, writer } = recovery::open(disk, options)?;
        let (queue, requests) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                // The directory stays locked until the last write is done.
                let _lock = lock;
                writer.run(&requests);
            })
            .map_err(|error| StoreError::Setup(format!("cannot start the store's writer thread: {error}")))?;
        Ok(Self {
            inner: Arc::new(Inner {
                state,
                queue: Some(queue),
                queue_room: Arc::new(Semaphore::new(QUEUED_KIB_MAX as usize)),
                writer: Some(thread),
            }),
        })
    }

    fn enqueue(&self, request: Request) -> Result<(), StoreError> {
        let closed = || StoreError::Unavailable("the store's writer has stopped".into());
        let queue = self.inner.queue.as_ref().ok_or_else(closed)?;
        queue.send(request).map_err(|_| closed())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, transaction: Vec<Write>) -> Result<Committed, StoreError> {
        let bytes: usize = transaction.iter().map(size_of_write).sum();
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(StoreError::Setup(format!("a transaction of {bytes} bytes is too large")));
        }
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.inner.queue_room).acquire_many_owned(kib).await;
        let permit = permit.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let (reply, answer) = oneshot::channel();
        self.enqueue(Request::Commit { writes: transaction, bytes, reply, permit })?;
        answer
            .await
            .unwrap_or_else(|_| Err(StoreError::OutcomeUnknown("the store's writer has stopped".into())))
    }

    async fn get(&self, key: &str, at: ReadAt) -> Result<GetResult, StoreError> {
        let snapshot = self.inner.state.read().snapshot(at, key)?;
        Ok(snapshot.get(key))
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let snapshot = self.inner.state.read().snapshot(range.at, &range.prefix)?;
        Ok(snapshot.range(&range))
    }

    async fn watch(&self, prefix: &str, from: Option<Revision>) -> Result<WatchStream, StoreError> {
        self.inner.state.write().watch(prefix, from)
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.inner.state.read().revision)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Request::Compact { revision, reply })?;
        answer
            .await
            .unwrap_or_else(|_| Err(StoreError::OutcomeUnknown("the store's writer has stopped".into())))
    }

    async fn health(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Request::Probe { reply })?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the store's writer has stopped".into())))
    }
}

fn size_of_write(write: &Write) -> usize {
    let value = match &write.action {
        Action::Put { value, .. } => value.len(),
        Action::Delete | Action::Nothing => 0,
    };
    write.key.len() + value + 64
}
