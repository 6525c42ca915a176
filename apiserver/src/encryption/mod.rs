//! Secrets at rest: a store over another that seals the values of secrets on their way down and opens them on their way up.
//!
//! Guarantees that no value of a secret is written in the clear, that whoever reads the store's files or its copies learns
//! the names of secrets and their sizes and nothing else, and that a missing or wrong key is told at the start, before
//! anything is served or written. Works over every store. What was written before there was a key is read as it is, and
//! sealed in the background. Only the cache holds plaintext.
//!
//! Absent: other kinds than secrets, and keys that another service keeps (KMS).

mod cipher;
mod key_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use store::{
    Action, Change, Committed, Entry, GetResult, Precondition, Range, RangeResult, ReadAt, Revision, Store,
    StoreError, WatchEvent, WatchStream, Write,
};
use tokio_util::sync::CancellationToken;

pub use self::cipher::CipherError;
use self::cipher::{Key, key_of, open};
pub use self::key_file::{KeyFileError, rotate_key};

const SECRETS: &str = "/registry/core/secrets/";
/// How many entries are looked at in one read.
const PAGE: usize = 500;
/// How often the key file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why the encrypted store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// The key file.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// There are sealed values, and no key file.
    #[error(
        "secrets are encrypted, and the key file {0} is missing; put it back from its copy (a new key would not open them)"
    )]
    Missing(PathBuf),
    /// A value does not open with the keys there are.
    #[error(
        "{place} cannot be read with the keys in {path}: {why}; put the right key file back from its copy"
    )]
    Unreadable {
        /// The store's key.
        place: String,
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        why: CipherError,
    },
    /// The store below.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A store with sealed secrets.
pub struct EncryptedStore {
    below: Arc<dyn Store>,
    path: PathBuf,
    keys: Arc<Keys>,
}

type Keys = RwLock<Arc<[Key]>>;

impl EncryptedStore {
    /// Reads the key file, or makes it when nothing is sealed yet, and makes sure that every secret can be read.
    pub async fn open(below: Arc<dyn Store>, path: &Path) -> Result<Self, EncryptionError> {
        let found = key_file::read(path)?;
        let is_new = found.is_none();
        let store = Self {
            below,
            path: path.to_path_buf(),
            keys: Arc::new(RwLock::new(found.unwrap_or_default().into())),
        };
        for entry in store.secrets().await? {
            match open(&store.keys.read(), &entry.key, &entry.value) {
                Ok(_) => {}
                Err(_) if is_new => return Err(EncryptionError::Missing(path.to_path_buf())),
                Err(why) => {
                    let place = entry.key.to_string();
                    return Err(EncryptionError::Unreadable { place, path: path.to_path_buf(), why });
                }
            }
        }
        if is_new {
            let keys = [Key::generate().map_err(KeyFileError::from)?];
            key_file::write(path, &keys)?;
            tracing::info!(path = %path.display(), key = keys.first().map(|k| k.id.as_str()), "a key for secrets at rest was made: keep a copy of it");
            *store.keys.write() = keys.into();
        }
        Ok(store)
    }

    /// Seals what is not sealed with the first key, again whenever the key file changes, until told to stop.
    pub async fn follow_key_file(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = None;
        let mut is_done = false;
        loop {
            let now = modified(&self.path);
            if now != seen {
                match key_file::read(&self.path) {
                    Ok(Some(keys)) => {
                        self.take_up(keys);
                        is_done = false;
                    }
                    Ok(None) => {
                        tracing::error!(path = %self.path.display(), "the key file is gone; put it back before the next start")
                    }
                    Err(error) => tracing::error!(%error, "the keys stay as they are"),
                }
                seen = now;
            }
            if !is_done {
                match self.seal_anew().await {
                    Ok(0) => is_done = true,
                    Ok(sealed) => tracing::info!(sealed, "secrets were sealed with the newest key"),
                    Err(error) => {
                        tracing::warn!(%error, "not every secret is sealed with the newest key yet")
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Keys that are no longer in the file stay until the next start: something may still be sealed with them.
    fn take_up(&self, mut keys: Vec<Key>) {
        let mut current = self.keys.write();
        for key in current.iter().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>() {
            tracing::warn!(
                key = key.id,
                "a key is no longer in the key file; the next start will need it if anything is sealed with it"
            );
            keys.push(key);
        }
        *current = keys.into();
    }

    /// Writes every secret once more that is not sealed with the first key; answers how many there were.
    pub async fn seal_anew(&self) -> Result<usize, StoreError> {
        let mut sealed = 0;
        for entry in self.secrets().await? {
            if key_of(&entry.value).is_some_and(|id| self.keys.read().first().is_some_and(|key| key.id == id))
            {
                continue;
            }
            let entry = self.opened(entry)?;
            let write = Write {
                precondition: Precondition::ModRevision(entry.mod_revision),
                key: entry.key,
                action: Action::Put { value: entry.value, time_to_live: None },
            };
            match self.commit(vec![write]).await {
                // Who wrote it in between has sealed it.
                Ok(_) | Err(StoreError::Conflict { .. }) => sealed += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(sealed)
    }

    /// All secrets as they are below.
    async fn secrets(&self) -> Result<Vec<Entry>, StoreError> {
        let mut range = Range { prefix: SECRETS.to_string(), limit: PAGE, ..Range::default() };
        let mut entries = Vec::new();
        loop {
            let page = self.below.range(range.clone()).await?;
            range.at = ReadAt::Revision(page.revision);
            range.after = page.entries.last().map(|entry| entry.key.to_string());
            entries.extend(page.entries);
            if page.remaining == 0 || range.after.is_none() {
                return Ok(entries);
            }
        }
    }

    fn sealed(&self, mut write: Write) -> Result<Write, StoreError> {
        if write.key.starts_with(SECRETS)
            && let Action::Put { value, .. } = &mut write.action
        {
            let keys = self.keys.read().clone();
            let key =
                keys.first().ok_or_else(|| StoreError::Setup("there is no key for secrets".to_string()))?;
            let sealed =
                key.seal(&write.key, value).map_err(|why| StoreError::Unavailable(why.to_string()))?;
            *value = sealed.into();
        }
        Ok(write)
    }

    fn opened(&self, entry: Entry) -> Result<Entry, StoreError> {
        opened(&self.keys, entry)
    }
}

fn modified(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn opened(keys: &Keys, mut entry: Entry) -> Result<Entry, StoreError> {
    if entry.key.starts_with(SECRETS) {
        let opened = open(&keys.read(), &entry.key, &entry.value);
        let opened = opened.map_err(|why| StoreError::Corrupt(format!("{}: {why}", entry.key)))?;
        if let Some(value) = opened {
            entry.value = Bytes::from(value);
        }
    }
    Ok(entry)
}

fn opened_change(keys: &Keys, change: &Change) -> Result<Change, StoreError> {
    let open = |entry: &Option<Entry>| entry.clone().map(|entry| opened(keys, entry)).transpose();
    Ok(match change {
        Change::Put { entry, previous } => {
            Change::Put { entry: opened(keys, entry.clone())?, previous: open(previous)? }
        }
        Change::Delete { key, previous, revision } => {
            Change::Delete { key: key.clone(), previous: open(previous)?, revision: *revision }
        }
    })
}

fn opened_event(keys: &Keys, event: WatchEvent) -> Result<WatchEvent, StoreError> {
    let is_secret = |change: &Change| change.key().starts_with(SECRETS);
    match event {
        WatchEvent::Changes { revision, changes } if changes.iter().any(is_secret) => {
            let changes: Result<Vec<_>, _> =
                changes.iter().map(|change| opened_change(keys, change)).collect();
            Ok(WatchEvent::Changes { revision, changes: changes?.into() })
        }
        other => Ok(other),
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn commit(&self, transaction: Vec<Write>) -> Result<Committed, StoreError> {
        let transaction: Result<Vec<Write>, _> =
            transaction.into_iter().map(|write| self.sealed(write)).collect();
        match self.below.commit(transaction?).await {
            Ok(mut committed) => {
                for previous in &mut committed.previous {
                    *previous = previous.take().map(|entry| self.opened(entry)).transpose()?;
                }
                Ok(committed)
            }
            Err(StoreError::Conflict { key, current, revision }) => {
                let current = current.map(|entry| self.opened(*entry).map(Box::new)).transpose()?;
                Err(StoreError::Conflict { key, current, revision })
            }
            Err(error) => Err(error),
        }
    }

    async fn get(&self, key: &str, at: ReadAt) -> Result<GetResult, StoreError> {
        let mut result = self.below.get(key, at).await?;
        result.entry = result.entry.map(|entry| self.opened(entry)).transpose()?;
        Ok(result)
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let mut result = self.below.range(range).await?;
        result.entries =
            result.entries.into_iter().map(|entry| self.opened(entry)).collect::<Result<_, _>>()?;
        Ok(result)
    }

    async fn watch(&self, prefix: &str, from: Option<Revision>) -> Result<WatchStream, StoreError> {
        let keys = self.keys.clone();
        let events = self.below.watch(prefix, from).await?;
        Ok(events.map(move |event| event.and_then(|event| opened_event(&keys, event))).boxed())
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.below.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.below.compact(revision).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.below.health().await
    }
}
