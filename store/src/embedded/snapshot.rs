//! Snapshots: the entries as of one revision, in one file, so that the log before it can go.
//!
//! A snapshot is complete or absent. Its name and its header carry the revision. After an interruption there may be two;
//! the newer one counts.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile, create_whole};
use super::frame::{self, FrameBuffer, Place};
use super::header::{FILE_HEADER_BYTES, FileKind, check_header, header};
use super::log::{corrupt, setup};
use super::record::{Record, Records, encode_end, encode_entry};
use crate::{Contents, Revision, StoreError};

pub(super) const SNAPSHOT_SUFFIX: &str = ".snapshot";

const FRAME_PAYLOAD_BYTES: usize = 256 * 1024;

/// Writes a snapshot and returns its size.
pub(super) fn write(disk: &dyn Disk, dir: &Path, contents: &Contents) -> io::Result<u64> {
    write_file(disk, &path_of(dir, contents.revision), contents)
}

/// Writes a snapshot under any name and returns its size.
pub(super) fn write_file(disk: &dyn Disk, path: &Path, contents: &Contents) -> io::Result<u64> {
    create_whole(disk, path, |file| fill(file, contents)).map(|(_, bytes)| bytes)
}

fn fill(file: &dyn DiskFile, contents: &Contents) -> io::Result<u64> {
    let revision = contents.revision;
    file.write_at(&header(FileKind::Snapshot, revision), 0)?;
    let (mut frame, mut offset, mut count) = (FrameBuffer::new(), FILE_HEADER_BYTES, 0);
    let append = |frame: &mut FrameBuffer, offset: &mut usize| {
        let bytes = frame.seal(Place { file: revision, offset: *offset });
        file.write_at(bytes, *offset as u64)?;
        *offset += bytes.len();
        frame.reset();
        io::Result::Ok(())
    };
    for (key, entry) in &contents.entries {
        encode_entry(entry, contents.deadlines.get(key), frame.payload());
        count += 1;
        if frame.frame_length() >= FRAME_PAYLOAD_BYTES {
            append(&mut frame, &mut offset)?;
        }
    }
    encode_end(count, frame.payload());
    append(&mut frame, &mut offset)?;
    Ok(offset as u64)
}

/// Reads the newest snapshot, if there is one, and says how long it is.
pub(super) fn load_newest(disk: &dyn Disk, dir: &Path) -> Result<Option<(Contents, u64)>, StoreError> {
    let newest = newest(disk, dir)?;
    newest.map(|revision| load(disk, &path_of(dir, revision), revision)).transpose()
}

/// The revision of the newest snapshot.
pub(super) fn newest(disk: &dyn Disk, dir: &Path) -> Result<Option<Revision>, StoreError> {
    Ok(revisions(disk, dir).map_err(|error| setup("read", dir, &error))?.last().copied())
}

/// Removes the snapshots older than `revision`.
pub(super) fn remove_before(disk: &dyn Disk, dir: &Path, revision: Revision) -> io::Result<()> {
    for older in revisions(disk, dir)?.into_iter().filter(|older| *older < revision) {
        disk.remove(&path_of(dir, older))?;
    }
    Ok(())
}

/// Reads the snapshot of a revision, and says how long it is.
pub(super) fn load(disk: &dyn Disk, path: &Path, revision: Revision) -> Result<(Contents, u64), StoreError> {
    let unreadable = |error| setup("read", path, &error);
    let mut file = disk.read(path).map_err(unreadable)?;
    let mut header = Vec::new();
    (&mut file).take(FILE_HEADER_BYTES as u64).read_to_end(&mut header).map_err(unreadable)?;
    check_header(&header, FileKind::Snapshot, revision).map_err(|reason| corrupt(path, 0, reason))?;
    let mut contents = Contents { revision, ..Contents::default() };
    let (mut offset, mut count) = (FILE_HEADER_BYTES, 0);
    loop {
        let damaged = |reason| corrupt(path, offset, reason);
        let place = Place { file: revision, offset };
        let (payload, next) = frame::next(&mut file, place).map_err(unreadable)?.map_err(damaged)?;
        let mut records = Records::new(&payload);
        while let Some(record) = records.next().map_err(damaged)? {
            match record {
                Record::Entry(entry, deadline_ms) => {
                    contents.deadlines.set(&entry.key, deadline_ms);
                    contents.entries.insert(Arc::clone(&entry.key), entry);
                    count += 1;
                }
                Record::End(expected) if expected == count => {
                    if file.read(&mut [0]).map_err(unreadable)? > 0 {
                        return Err(corrupt(path, next, "something follows the snapshot's end"));
                    }
                    return Ok((contents, next as u64));
                }
                _ => return Err(damaged("a snapshot holds a record that does not belong there")),
            }
        }
        offset = next;
    }
}

fn path_of(dir: &Path, revision: Revision) -> PathBuf {
    dir.join(format!("{revision:020}{SNAPSHOT_SUFFIX}"))
}

/// The revisions of all snapshots, ascending.
fn revisions(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<Revision>> {
    let parse = |name: &String| {
        let digits = name.strip_suffix(SNAPSHOT_SUFFIX).filter(|digits| digits.len() == 20)?;
        digits.parse().ok()
    };
    let mut revisions: Vec<Revision> = disk.names(dir)?.iter().filter_map(parse).collect();
    revisions.sort_unstable();
    Ok(revisions)
}
