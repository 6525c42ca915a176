//! One process per data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::StoreError;

const LOCK_FILE: &str = "lock";
/// A child that the owner was about to start holds the lock until it has become another program.
const ORPHANED_LOCK_MAX: Duration = Duration::from_secs(1);

/// Holds the directory until dropped, or until the process dies however it dies.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock, or says who has it.
    pub(super) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK_FILE);
        let setup = |error: io::Error| StoreError::Setup(format!("cannot lock {}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(setup)?;
        lock(&mut file, dir).map_err(|refusal| match refusal {
            Refusal::Failed(error) => setup(error),
            Refusal::Owned(by) => StoreError::Setup(format!(
                "the data directory {} is in use by {by}; stop it, or choose another --data-dir",
                dir.display()
            )),
        })?;
        file.set_len(0).map_err(setup)?;
        file.rewind().map_err(setup)?;
        writeln!(file, "{}", std::process::id()).map_err(setup)?;
        Ok(Self { _file: file })
    }
}

enum Refusal {
    Failed(io::Error),
    Owned(String),
}

fn lock(file: &mut File, dir: &Path) -> Result<(), Refusal> {
    let deadline = Instant::now() + ORPHANED_LOCK_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(Refusal::Failed(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        file.rewind().map_err(Refusal::Failed)?;
        let mut owner = String::new();
        file.read_to_string(&mut owner).map_err(Refusal::Failed)?;
        let owner: Option<u32> = owner.trim().parse().ok();
        let may_be_orphaned = owner.is_none_or(|pid| {
            pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists()
        });
        if !may_be_orphaned || Instant::now() >= deadline {
            return Err(Refusal::Owned(
                owner.map_or_else(
                    || "another process".to_owned(),
                    |pid| format!("the process with pid {pid}"),
                ),
            ));
        }
        tracing::debug!(dir = %dir.display(), "the lock's owner is gone; waiting for its children to let go");
        std::thread::sleep(Duration::from_millis(10));
    }
}
