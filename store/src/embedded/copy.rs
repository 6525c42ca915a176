//! Everything out of a directory, and everything into one; and copies as files, which are snapshots under another name.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::EmbeddedOptions;
use super::disk::{Disk, RealDisk};
use super::header::{FILE_HEADER_BYTES, FileKind, number_of};
use super::lock::DirectoryLock;
use super::log::setup;
use super::recovery;
use super::segment::Segment;
use super::snapshot::{self, SNAPSHOT_SUFFIX};
use crate::{Contents, Revision, StoreError};

/// While a store is used, its files come and go between two looks at them, and its last append may be half seen.
const LOOKS_MAX: u32 = 20;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Reads what is in a directory that nobody uses, and keeps it from being used.
pub(crate) fn hold(dir: &Path) -> Result<(DirectoryLock, Contents), StoreError> {
    check_store(dir)?;
    let held = DirectoryLock::acquire(dir)?;
    Ok((held, recovery::read(&RealDisk, dir)?))
}

/// Reads what is in a directory as of its last complete append, whoever uses it. Changes nothing.
pub(crate) fn read(dir: &Path) -> Result<Contents, StoreError> {
    check_store(dir)?;
    let mut looks = 1;
    loop {
        match look(dir) {
            Err(StoreError::Corrupt(_) | StoreError::Setup(_))
                if looks < LOOKS_MAX && DirectoryLock::acquire(dir).is_err() =>
            {
                looks += 1;
                std::thread::sleep(LOOK_AGAIN_AFTER);
            }
            outcome => return outcome,
        }
    }
}

fn look(dir: &Path) -> Result<Contents, StoreError> {
    let contents = recovery::read(&RealDisk, dir)?;
    // A snapshot that came meanwhile may have taken the log with it that should have followed on an older one.
    match snapshot::newest(&RealDisk, dir)? {
        Some(newer) if newer > contents.revision => {
            Err(StoreError::Corrupt(format!("the log in {} ends before revision {newer}", dir.display())))
        }
        _ => Ok(contents),
    }
}

fn check_store(dir: &Path) -> Result<(), StoreError> {
    let is_store = |dir: &Path| -> io::Result<bool> {
        let names = RealDisk.names(dir)?;
        Ok(names.iter().any(|name| name.ends_with(".log") || name.ends_with(SNAPSHOT_SUFFIX)))
    };
    match is_store(dir) {
        Ok(true) => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(setup("read", dir, &error)),
        _ => {}
    }
    let hint = match dir.parent() {
        Some(above) if is_store(above).unwrap_or(false) => {
            "; what is above is one: name the directory that holds it"
        }
        _ => "",
    };
    Err(StoreError::Setup(format!("there is no store in {}{hint}", dir.display())))
}

/// Makes a store of a copy in a directory that is empty, does not exist, or holds what an interruption of this has left.
/// All that follows will be after `floor`.
pub(crate) fn create(dir: &Path, copy: &Contents, floor: Revision) -> Result<Revision, StoreError> {
    RealDisk.make_directory(dir).map_err(|error| setup("create", dir, &error))?;
    let names = RealDisk.names(dir).map_err(|error| setup("read", dir, &error))?;
    if !names.is_empty() && !recovery::is_half_restored(&names) {
        return Err(StoreError::Setup(format!(
            "{} is not empty: choose another directory, or remove what is there",
            dir.display()
        )));
    }
    let _held = DirectoryLock::acquire(dir)?;
    recovery::remove_unfinished(&RealDisk, dir)?;
    // One more, so that a watch from what was the newest revision is refused as well.
    let revision = copy.revision.max(floor) + 1;
    let failed = |error| setup("write the store in", dir, &error);
    snapshot::write(&RealDisk, dir, &Contents { revision, ..copy.clone() }).map_err(failed)?;
    let segment_bytes = EmbeddedOptions::new(dir).segment_bytes;
    Segment::create(&RealDisk, dir, 1, segment_bytes).map_err(failed)?;
    Ok(revision)
}

/// Writes a copy to a new file and returns its size.
pub(crate) fn save(copy: &Contents, path: &Path) -> Result<u64, StoreError> {
    let absolute = std::path::absolute(path).map_err(|error| setup("write", path, &error))?;
    if absolute.exists() {
        return Err(StoreError::Setup(format!("{} exists already: choose another name", path.display())));
    }
    snapshot::write_file(&RealDisk, &absolute, copy).map_err(|error| setup("write", path, &error))
}

/// Reads a copy from a file.
pub(crate) fn load(path: &Path) -> Result<Contents, StoreError> {
    let mut header = Vec::new();
    let begin = RealDisk.read(path).and_then(|file| {
        io::Read::read_to_end(&mut io::Read::take(file, FILE_HEADER_BYTES as u64), &mut header)
    });
    begin.map_err(|error| setup("read", path, &error))?;
    let revision = number_of(&header, FileKind::Snapshot)
        .ok_or_else(|| StoreError::Setup(format!("{} is not a snapshot of a store", path.display())))?;
    snapshot::load(&RealDisk, path, revision).map(|(contents, _)| contents)
}
