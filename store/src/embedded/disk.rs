//! What the engine asks of a file system: the seam at which tests put one that fails, fills up or loses power.
//!
//! What the engine assumes, and nothing more:
//! - bytes survive a power cut once a sync of their file has returned; before that each sector of 512 bytes may or may
//!   not, in any order, and a new length likewise;
//! - a name that was made, changed or removed does once its directory was synced; a rename is never half done;
//! - after a failed sync the bytes written since the last good one are in doubt for ever: readable now, perhaps not on
//!   disk, and a second sync that succeeds proves nothing about them.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What files that are still being made are called; after an interruption they are removed.
pub(super) const UNFINISHED_SUFFIX: &str = ".unfinished";

/// A file system, as far as the engine needs one.
pub(super) trait Disk: Debug + Send + Sync {
    /// Makes a directory and those above it that are missing, durably.
    fn make_directory(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Reads a file from its start.
    fn read(&self, path: &Path) -> io::Result<Box<dyn Read>>;
    /// Makes an empty file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, in the place of what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes what happened to the names in a directory durable.
    fn sync_directory(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is written to.
pub(super) trait DiskFile: Debug + Send {
    /// Writes all the bytes at an offset.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file off, or extends it with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Waits until what was written is on disk.
    fn sync(&self) -> io::Result<()>;
}

/// Makes a file that is complete under its name or absent, whatever happens in between: `fill` writes it under another.
pub(super) fn create_whole<T>(
    disk: &dyn Disk,
    path: &Path,
    fill: impl FnOnce(&dyn DiskFile) -> io::Result<T>,
) -> io::Result<(Box<dyn DiskFile>, T)> {
    let unfinished = unfinished_name(path);
    let file = disk.create(&unfinished)?;
    let made = fill(&*file)
        .and_then(|made| file.sync().and_then(|()| disk.rename(&unfinished, path)).map(|()| made));
    let made = made.inspect_err(|_| {
        if let Err(error) = disk.remove(&unfinished) {
            tracing::warn!(path = %unfinished.display(), %error, "cannot remove a half-made file");
        }
    })?;
    disk.sync_directory(path.parent().unwrap_or(Path::new("")))?;
    Ok((file, made))
}

/// Removes a file, should it still be there.
pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unfinished_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED_SUFFIX);
    name.into()
}

/// The file system of the machine.
#[derive(Debug)]
pub(super) struct RealDisk;

impl RealDisk {
    pub(super) fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for RealDisk {
    fn make_directory(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        self.make_directory(parent)?;
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.sync_directory(parent),
        }
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        // Ours are all ASCII; what is not does not concern us.
        fs::read_dir(dir)?.map(|file| Ok(file?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(BufReader::with_capacity(256 << 10, File::open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        Ok(Box::new(options.write(true).create(true).truncate(true).mode(0o600).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        // The length counts as data: it is needed to read the rest back.
        self.sync_data()
    }
}
