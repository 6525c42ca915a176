//! One process per data directory.
//!
//! The lock is on the directory itself, so that no file that somebody removes takes it along. The file in it only says
//! who has it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::StoreError;

pub(super) const OWNER_FILE: &str = "lock";
/// A child that the owner was about to start holds the lock until it has become another program.
const ORPHANED_LOCK_MAX: Duration = Duration::from_secs(1);

/// Holds the directory until dropped, or until the process dies however it dies.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _directory: File,
}

impl DirectoryLock {
    /// Takes the lock, or says who has it.
    pub(super) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let setup = |error: io::Error| StoreError::Setup(format!("cannot lock {}: {error}", dir.display()));
        let directory = File::open(dir).map_err(setup)?;
        let owner = dir.join(OWNER_FILE);
        lock(&directory, &owner).map_err(|refusal| match refusal {
            Refusal::Failed(error) => setup(error),
            Refusal::Owned(by) => StoreError::Setup(format!(
                "the data directory {} is in use by {by}; stop it, or choose another --data-dir",
                dir.display()
            )),
        })?;
        // Without the name the lock holds as well.
        if let Err(error) = fs::write(&owner, format!("{}\n", std::process::id())) {
            tracing::warn!(path = %owner.display(), %error, "cannot write down who holds the store");
        }
        Ok(Self { _directory: directory })
    }
}

enum Refusal {
    Failed(io::Error),
    Owned(String),
}

fn lock(directory: &File, owner: &Path) -> Result<(), Refusal> {
    let deadline = Instant::now() + ORPHANED_LOCK_MAX;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(Refusal::Failed(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        let pid: Option<u32> = fs::read_to_string(owner).ok().and_then(|pid| pid.trim().parse().ok());
        let name = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        let may_be_orphaned = name.is_none() || pid == Some(std::process::id());
        if !may_be_orphaned || Instant::now() >= deadline {
            return Err(Refusal::Owned(match (pid, name) {
                (Some(pid), Some(name)) => format!("{} (pid {pid})", name.trim()),
                _ => "another process".to_owned(),
            }));
        }
        tracing::debug!(owner = %owner.display(), "the lock's owner is gone; waiting for its children to let go");
        std::thread::sleep(Duration::from_millis(10));
    }
}
