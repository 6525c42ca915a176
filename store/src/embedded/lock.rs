//! One process per data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::StoreError;

const LOCK_FILE: &str = "lock";

/// Holds the directory until dropped, or until the process dies however it dies.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock, or says who has it.
    pub(super) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK_FILE);
        let setup =
            |error: std::io::Error| StoreError::Setup(format!("cannot lock {}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(setup)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // The owner is only a courtesy: without it the message is still true.
                let read = file.read_to_string(&mut owner);
                let owner = read.ok().filter(|_| !owner.trim().is_empty()).map_or_else(
                    || "another process".to_owned(),
                    |_| format!("the process with pid {}", owner.trim()),
                );
                return Err(StoreError::Setup(format!(
                    "the data directory {} is in use by {owner}; stop it, or choose another --data-dir",
                    dir.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(setup(error)),
        }
        file.set_len(0).map_err(setup)?;
        file.rewind().map_err(setup)?;
        writeln!(file, "{}", std::process::id()).map_err(setup)?;
        Ok(Self { _file: file })
    }
}
