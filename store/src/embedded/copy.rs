//! Everything out of a directory, and everything into one; and copies as files, which are snapshots under another name.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::EmbeddedOptions;
use super::disk::{Disk, DiskFile, RealDisk};
use super::expiry::Deadlines;
use super::header::{FILE_HEADER_BYTES, FileKind, number_of};
use super::lock::DirectoryLock;
use super::log::setup;
use super::recovery;
use super::segment::Segment;
use super::snapshot::{self, Loaded};
use crate::{Contents, Revision, StoreError};

/// While a store is used, its files come and go between two looks at them, and its last append may be half seen.
const LOOKS_MAX: u32 = 20;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Reads what is in a directory that nobody uses, and keeps it from being used.
pub(crate) fn hold(dir: &Path) -> Result<(DirectoryLock, Contents), StoreError> {
    check_store(dir)?;
    let held = DirectoryLock::acquire(dir)?;
    Ok((held, look(dir)?))
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
    let options = EmbeddedOptions { history_bytes: 0, ..EmbeddedOptions::new(dir) };
    let recovered = recovery::open(Arc::new(UntouchedDisk), &options)?;
    let state = recovered.state.read();
    Ok(contents(state.revision, state.entries.iter(), &recovered.writer.deadlines))
}

fn check_store(dir: &Path) -> Result<(), StoreError> {
    let names = RealDisk.names(dir).map_err(|error| setup("read", dir, &error))?;
    if names.iter().any(|name| name.ends_with(".log") || name.ends_with(".snapshot")) {
        return Ok(());
    }
    Err(StoreError::Setup(format!("there is no store in {}", dir.display())))
}

/// Makes a store of a copy in a directory that is empty or does not exist. All that follows will be after `floor`.
pub(crate) fn create(dir: &Path, copy: &Contents, floor: Revision) -> Result<Revision, StoreError> {
    RealDisk.make_directory(dir).map_err(|error| setup("create", dir, &error))?;
    if !RealDisk.names(dir).map_err(|error| setup("read", dir, &error))?.is_empty() {
        return Err(StoreError::Setup(format!(
            "{} is not empty: choose another directory, or remove what is there",
            dir.display()
        )));
    }
    let _held = DirectoryLock::acquire(dir)?;
    // One more, so that a watch from what was the newest revision is refused as well.
    let revision = copy.revision.max(floor) + 1;
    let loaded = loaded(copy);
    let failed = |error| setup("write the store in", dir, &error);
    snapshot::write(&RealDisk, dir, revision, &loaded.entries, &loaded.deadlines).map_err(failed)?;
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
    let Loaded { revision, entries, deadlines, .. } = loaded(copy);
    snapshot::write_file(&RealDisk, &absolute, revision, &entries, &deadlines)
        .map_err(|error| setup("write", path, &error))
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
    let loaded = snapshot::load(&RealDisk, path, revision)?;
    Ok(contents(revision, loaded.entries.iter(), &loaded.deadlines))
}

fn contents<'a>(
    revision: Revision,
    entries: impl Iterator<Item = (&'a Arc<str>, &'a crate::Entry)>,
    deadlines: &Deadlines,
) -> Contents {
    let mut contents = Contents { revision, ..Contents::default() };
    for (key, entry) in entries {
        contents.deadlines_ms.extend(deadlines.get(key).map(|ends_ms| (Arc::clone(key), ends_ms)));
        contents.entries.insert(Arc::clone(key), entry.clone());
    }
    contents
}

fn loaded(copy: &Contents) -> Loaded {
    let mut deadlines = Deadlines::default();
    for (key, ends_ms) in &copy.deadlines_ms {
        deadlines.set(key, Some(*ends_ms));
    }
    let entries = copy.entries.iter().map(|(key, entry)| (Arc::clone(key), entry.clone())).collect();
    Loaded { revision: copy.revision, entries, deadlines, bytes: 0 }
}

/// The machine's file system to look at: what recovery would change stays as it is.
#[derive(Debug)]
struct UntouchedDisk;

impl Disk for UntouchedDisk {
    fn make_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.names(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        RealDisk.read(path)
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UntouchedFile))
    }

    fn open(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UntouchedFile))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct UntouchedFile;

impl DiskFile for UntouchedFile {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_length(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
