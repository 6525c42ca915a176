//! What an administrator does with a store as a whole: copies of it, moves, and checks.
//!
//! Copies are read where the data is, not through a server: the log of an embedded store is only ever appended to, so
//! whoever may read its files finds a consistent store in them while the server goes on; etcd serves any revision. That
//! works with and without a running server, costs it nothing, and leaves no door in the API through which all secrets
//! can be had at once.
//!
//! A copy holds the live entries of one revision, no history. Wherever it is put, revisions go on after those that
//! anybody may have seen: a client that watches from before is told so (410 Gone in the API) and lists again.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::embedded::copy as files;
use crate::etcd::{EtcdOptions, copy as cluster};
use crate::{Contents, REVISION_MAX, Revision, StoreError};

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Place {
    /// An embedded store's directory.
    Directory(PathBuf),
    /// An etcd.
    Etcd(EtcdOptions),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => write!(formatter, "{}", dir.display()),
            Self::Etcd(options) => write!(formatter, "etcd at {}", options.endpoints.join(",")),
        }
    }
}

/// Reads all of a store, which may be in use.
pub async fn read(place: &Place) -> Result<Contents, StoreError> {
    match place {
        Place::Directory(dir) => in_background(dir, files::read).await,
        Place::Etcd(options) => cluster::read(options.clone()).await,
    }
}

/// Reads all of a store whose directory nobody uses, and checks every byte of it.
pub async fn verify(dir: &Path) -> Result<Contents, StoreError> {
    in_background(dir, |dir| files::hold(dir).map(|(_held, contents)| contents)).await
}

/// Writes a copy to a file, which must not exist.
pub async fn save(contents: Contents, path: &Path) -> Result<u64, StoreError> {
    in_background(path, move |path| files::save(&contents, path)).await
}

/// Reads a copy from a file, and checks every byte of it.
pub async fn load(path: &Path) -> Result<Contents, StoreError> {
    in_background(path, files::load).await
}

/// Puts a copy into an empty place. All its revisions will be after `floor`. Returns the newest.
pub async fn restore(contents: Contents, to: &Place, floor: Revision) -> Result<Revision, StoreError> {
    if contents.revision.max(floor) > REVISION_MAX / 2 {
        let last = REVISION_MAX / 2;
        return Err(StoreError::Setup(format!(
            "a store that goes on after revision {floor} would run out of them; the highest to go on from is {last}"
        )));
    }
    match to {
        Place::Directory(dir) => in_background(dir, move |dir| files::create(dir, &contents, floor)).await,
        Place::Etcd(options) => cluster::write(options, &contents, floor).await,
    }
}

/// What a move did.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// How many keys there are.
    pub keys: usize,
    /// The revision of the source.
    pub from: Revision,
    /// The newest revision at the target.
    pub to: Revision,
}

/// Copies a store that nobody uses from one place to another, empty one.
pub async fn migrate(from: &Place, to: &Place) -> Result<Moved, StoreError> {
    let (held, contents) = match from {
        Place::Directory(dir) => {
            let (held, contents) = in_background(dir, files::hold).await?;
            (Some(held), contents)
        }
        Place::Etcd(_) => (None, read(from).await?),
    };
    let (keys, revision) = (contents.entries.len(), contents.revision);
    let newest = restore(contents.clone(), to, revision).await?;
    if held.is_none() && read(from).await?.entries != contents.entries {
        return Err(StoreError::Setup(format!(
            "{from} was written to meanwhile, and {to} lacks that: stop the servers that use it, remove what is at the target, and do it again"
        )));
    }
    Ok(Moved { keys, from: revision, to: newest })
}

/// Files are read and written where blocking is fine.
async fn in_background<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let path = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|error| Err(StoreError::Setup(format!("reading or writing failed: {error}"))))
}
