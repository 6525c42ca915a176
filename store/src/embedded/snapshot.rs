//! Snapshots: the entries as of one revision, in one file, so that the log before it can go.
//!
//! A snapshot is complete or absent: it is written under another name, synced, and renamed. Its name carries the
//! revision. After an interruption there may be two; the newer one counts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::expiry::Deadlines;
use super::frame::{self, Found, FrameBuffer};
use super::history::Entries;
use super::log::{corrupt, setup};
use super::record::{Record, Records, encode_end, encode_entry};
use super::segment::sync_directory;
use crate::{Entry, Revision, StoreError};

const FRAME_PAYLOAD_BYTES: usize = 256 * 1024;
const UNFINISHED_SUFFIX: &str = ".snapshot.unfinished";

/// Writes a snapshot and returns its size.
pub(super) fn write(
    dir: &Path,
    revision: Revision,
    entries: &Entries,
    deadlines: &Deadlines,
) -> io::Result<u64> {
    let unfinished = dir.join(format!("{revision:020}{UNFINISHED_SUFFIX}"));
    let written = write_file(&unfinished, entries, deadlines)
        .and_then(|bytes| fs::rename(&unfinished, path_of(dir, revision)).map(|()| bytes))
        .and_then(|bytes| sync_directory(dir).map(|()| bytes));
    if written.is_err()
        && let Err(error) = fs::remove_file(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %unfinished.display(), %error, "cannot remove an unfinished snapshot");
    }
    written
}

fn write_file(path: &Path, entries: &Entries, deadlines: &Deadlines) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let (mut frame, mut offset, mut count) = (FrameBuffer::new(), 0, 0);
    for (key, entry) in entries {
        encode_entry(entry, deadlines.get(key), frame.payload());
        count += 1;
        if frame.frame_length() >= FRAME_PAYLOAD_BYTES {
            offset += append(&mut file, &mut frame, offset)?;
        }
    }
    encode_end(count, frame.payload());
    offset += append(&mut file, &mut frame, offset)?;
    file.sync_all()?;
    Ok(offset)
}

fn append(file: &mut File, frame: &mut FrameBuffer, offset: u64) -> io::Result<u64> {
    let bytes = frame.seal(offset);
    file.write_all(bytes)?;
    let length = bytes.len() as u64;
    frame.reset();
    Ok(length)
}

/// A snapshot as it was read.
pub(super) struct Loaded {
    pub(super) revision: Revision,
    pub(super) entries: Entries,
    pub(super) deadlines: Deadlines,
    pub(super) bytes: u64,
}

/// Reads the newest snapshot, if there is one, and removes what an interruption left.
pub(super) fn load_newest(dir: &Path) -> Result<Option<Loaded>, StoreError> {
    for file in fs::read_dir(dir).map_err(|error| setup("read", dir, &error))? {
        let path = file.map_err(|error| setup("read", dir, &error))?.path();
        if path.to_str().is_some_and(|name| name.ends_with(UNFINISHED_SUFFIX)) {
            fs::remove_file(&path).map_err(|error| setup("remove", &path, &error))?;
        }
    }
    match revisions(dir).map_err(|error| setup("read", dir, &error))?.last() {
        Some(&revision) => load(dir, revision).map(Some),
        None => Ok(None),
    }
}

/// Removes the snapshots older than `revision`.
pub(super) fn remove_before(dir: &Path, revision: Revision) -> io::Result<()> {
    for older in revisions(dir)?.into_iter().filter(|older| *older < revision) {
        fs::remove_file(path_of(dir, older))?;
    }
    Ok(())
}

fn load(dir: &Path, revision: Revision) -> Result<Loaded, StoreError> {
    let path = path_of(dir, revision);
    let file = fs::read(&path).map_err(|error| setup("read", &path, &error))?;
    let mut loaded = Loaded {
        revision,
        entries: Entries::new(),
        deadlines: Deadlines::default(),
        bytes: file.len() as u64,
    };
    let (mut offset, mut count) = (0, 0);
    loop {
        let (payload, next) = match frame::read(&file, offset) {
            Found::Frame { payload, next } => (payload, next),
            Found::End => return Err(corrupt(&path, offset, "the snapshot ends too early")),
            Found::Torn(reason) | Found::Damaged(reason) => return Err(corrupt(&path, offset, reason)),
        };
        let mut records = Records::new(payload);
        while let Some(record) = records.next().map_err(|reason| corrupt(&path, offset, reason))? {
            match record {
                Record::Entry(entry, deadline_ms) => {
                    loaded.insert(entry, deadline_ms);
                    count += 1;
                }
                Record::End(expected) if expected == count && next == file.len() => return Ok(loaded),
                _ => {
                    return Err(corrupt(
                        &path,
                        offset,
                        "a snapshot holds a record that does not belong there",
                    ));
                }
            }
        }
        offset = next;
    }
}

impl Loaded {
    fn insert(&mut self, entry: Entry, deadline_ms: Option<u64>) {
        if deadline_ms.is_some() {
            self.deadlines.set(&entry.key, deadline_ms);
        }
        self.entries.insert(entry.key.clone(), entry);
    }
}

fn path_of(dir: &Path, revision: Revision) -> PathBuf {
    dir.join(format!("{revision:020}.snapshot"))
}

/// The revisions of all snapshots, ascending.
fn revisions(dir: &Path) -> io::Result<Vec<Revision>> {
    let mut revisions = Vec::new();
    for file in fs::read_dir(dir)? {
        let name = file?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".snapshot"));
        revisions
            .extend(digits.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse::<u64>().ok()));
    }
    revisions.sort_unstable();
    Ok(revisions)
}
