//! The log: what was committed since the snapshot, as segments of frames.
//!
//! Guarantees: an append is on disk when it returns; recovery hands out every acknowledged record in order or fails with
//! the file and offset of what is wrong; only an append that never completed is cut off, and that is logged.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use super::frame::{self, Found, FrameBuffer};
use super::record::{Record, Records};
use super::segment::{self, AppendError, Segment, sync_directory};
use crate::{Revision, StoreError};

/// The log of a store.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    segment_bytes: u64,
    active: Segment,
    sealed: VecDeque<SealedSegment>,
    failed: Option<String>,
}

/// A segment that is not appended to any more.
#[derive(Debug)]
struct SealedSegment {
    path: PathBuf,
    bytes: u64,
    /// No record in it is newer.
    last_revision: Revision,
}

impl Log {
    /// Reads all segments, hands every record to `apply` (which returns the revision it has reached), and opens the log
    /// for appending.
    pub(super) fn recover(
        dir: &Path,
        segment_bytes: u64,
        mut apply: impl FnMut(Record) -> Result<Revision, String>,
    ) -> Result<Self, StoreError> {
        let sequences = list_segments(dir)?;
        let mut sealed = VecDeque::new();
        let mut active = None;
        for (index, &sequence) in sequences.iter().enumerate() {
            let path = dir.join(segment::file_name(sequence));
            if index > 0 && sequences.get(index - 1).is_some_and(|before| before + 1 != sequence) {
                return Err(StoreError::Corrupt(format!(
                    "the log segment before {} is missing",
                    path.display()
                )));
            }
            let is_last = index + 1 == sequences.len();
            let recovered = recover_segment(&path, sequence, is_last, &mut apply)?;
            match recovered {
                Some((end, _)) if is_last => active = Some((path, sequence, end)),
                Some((bytes, last_revision)) => {
                    sealed.push_back(SealedSegment { path, bytes, last_revision })
                }
                None => {}
            }
        }
        let active = match active {
            Some((path, sequence, end)) => {
                Segment::reopen(path.clone(), sequence, end).map_err(|error| setup("open", &path, &error))?
            }
            None => {
                let sequence = sequences.last().copied().unwrap_or(1);
                Segment::create(dir, sequence)
                    .map_err(|error| setup("create a log segment in", dir, &error))?
            }
        };
        Ok(Self { dir: dir.to_owned(), segment_bytes, active, sealed, failed: None })
    }

    /// Writes a frame and waits until it is on disk. `revision` is the newest one before the frame.
    pub(super) fn append(&mut self, frame: &mut FrameBuffer, revision: Revision) -> Result<(), StoreError> {
        if let Some(reason) = &self.failed {
            return Err(StoreError::Unavailable(reason.clone()));
        }
        let length = frame.frame_length() as u64;
        let holds_frames = self.active.end > segment::HEADER_BYTES as u64;
        if holds_frames && self.active.end + length > self.segment_bytes {
            self.rotate(revision).map_err(|error| self.describe(&error))?;
        }
        match self.active.append(frame) {
            Ok(()) => Ok(()),
            Err(AppendError::NoSpace(error) | AppendError::Failed(error)) => Err(self.describe(&error)),
            Err(AppendError::Unknown(error)) => {
                let path = self.active.path.display();
                self.failed =
                    Some(format!("an earlier write to {path} failed ({error}); restart to recover"));
                tracing::error!(%path, %error, "the log cannot be written; the store takes no more writes until a restart");
                Err(StoreError::OutcomeUnknown(format!("{path}: {error}")))
            }
        }
    }

    /// Whether appends can be taken at all.
    pub(super) fn health(&self) -> Result<(), StoreError> {
        self.failed.as_ref().map_or(Ok(()), |reason| Err(StoreError::Unavailable(reason.clone())))
    }

    /// How much space would come free with a snapshot as of `revision`.
    pub(super) fn bytes_until(&self, revision: Revision) -> u64 {
        let covered = self.sealed.iter().take_while(|segment| segment.last_revision <= revision);
        covered.map(|segment| segment.bytes).sum()
    }

    /// Removes the segments that a snapshot as of `revision` makes superfluous.
    pub(super) fn remove_until(&mut self, revision: Revision) -> std::io::Result<()> {
        while let Some(segment) = self.sealed.front().filter(|segment| segment.last_revision <= revision) {
            // Oldest first, each durably: a crash in between leaves no hole.
            fs::remove_file(&segment.path)?;
            sync_directory(&self.dir)?;
            self.sealed.pop_front();
        }
        Ok(())
    }

    fn rotate(&mut self, last_revision: Revision) -> std::io::Result<()> {
        let next = Segment::create(&self.dir, self.active.sequence + 1)?;
        let full = std::mem::replace(&mut self.active, next);
        self.sealed.push_back(SealedSegment { path: full.path, bytes: full.end, last_revision });
        Ok(())
    }

    fn describe(&self, error: &std::io::Error) -> StoreError {
        let message = format!("{}: {error}", self.dir.display());
        if segment::is_no_space(error) {
            StoreError::NoSpace(message)
        } else {
            StoreError::Unavailable(message)
        }
    }
}

fn list_segments(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let mut sequences = Vec::new();
    for file in fs::read_dir(dir).map_err(|error| setup("read", dir, &error))? {
        let file = file.map_err(|error| setup("read", dir, &error))?;
        sequences.extend(file.file_name().to_str().and_then(segment::parse_file_name));
    }
    sequences.sort_unstable();
    Ok(sequences)
}

/// Applies a segment's records. Returns where its sound part ends and the revision reached; `None` if the file was
/// never completely made.
fn recover_segment(
    path: &Path,
    sequence: u64,
    is_last: bool,
    apply: &mut impl FnMut(Record) -> Result<Revision, String>,
) -> Result<Option<(u64, Revision)>, StoreError> {
    let file = fs::read(path).map_err(|error| setup("read", path, &error))?;
    if let Err(reason) = segment::check_header(&file, sequence) {
        if is_last
            && file.iter().skip(segment::HEADER_BYTES).all(|byte| *byte == 0)
            && file.iter().take(8).all(|byte| *byte == 0)
        {
            tracing::warn!(path = %path.display(), "a log segment was never completely made; it is made anew");
            return Ok(None);
        }
        return Err(corrupt(path, 0, reason));
    }
    let mut offset = segment::HEADER_BYTES;
    let mut revision = 0;
    loop {
        match frame::read(&file, offset) {
            Found::Frame { payload, next } => {
                let mut records = Records::new(payload);
                while let Some(record) = records.next().map_err(|reason| corrupt(path, offset, reason))? {
                    revision = apply(record).map_err(|reason| corrupt(path, offset, &reason))?;
                }
                offset = next;
            }
            Found::End => return Ok(Some((offset as u64, revision))),
            Found::Torn(reason) if is_last => {
                tracing::warn!(
                    path = %path.display(), offset, reason,
                    "the last append to the log did not complete before the crash and was never acknowledged; it is cut off"
                );
                return Ok(Some((offset as u64, revision)));
            }
            Found::Torn(reason) | Found::Damaged(reason) => return Err(corrupt(path, offset, reason)),
        }
    }
}

/// The error for data that is not what was written.
pub(super) fn corrupt(path: &Path, offset: usize, reason: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "{} at offset {offset}: {reason}; restore the directory from a copy",
        path.display()
    ))
}

/// The error for files that cannot be used.
pub(super) fn setup(action: &str, path: &Path, error: &std::io::Error) -> StoreError {
    let message = format!("cannot {action} {}: {error}", path.display());
    if segment::is_no_space(error) { StoreError::NoSpace(message) } else { StoreError::Setup(message) }
}
