//! The log: what was committed since the snapshot, as segments of frames.
//!
//! Guarantees: an append is on disk when it returns; recovery hands out every acknowledged record in order or fails with
//! the file and offset of what is wrong; only an append that never completed is cut off, and that is logged.
//!
//! What cannot be told: that the newest segment as a whole, or everything in it from the start of a frame on, was taken
//! away or turned into zeros. To the log that looks as if it had never been written.

use std::collections::VecDeque;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, remove_if_there};
use super::frame::{self, Found, FrameBuffer, Place};
use super::header::{FILE_HEADER_BYTES, FileKind, check_header};
use super::record::{Record, Records};
use super::segment::{self, AppendError, Segment, SoundPart};
use crate::{Revision, StoreError};

/// The log of a store.
#[derive(Debug)]
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    active: Segment,
    sealed: VecDeque<SealedSegment>,
    /// A new segment may have been made without our knowing: nothing may be appended to the active one any more.
    must_rotate: bool,
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
    /// Takes up the log that was read, or begins one. What follows the last sound frame is cut off.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        ReadLog { sealed, newest }: ReadLog,
    ) -> Result<Self, StoreError> {
        let active = match newest {
            None => Segment::create(&*disk, dir, 1, segment_bytes)
                .map_err(|error| setup("create a log segment in", dir, &error))?,
            Some((sequence, sound)) => {
                let path = dir.join(segment::file_name(sequence));
                Segment::reopen(&*disk, path.clone(), sequence, &sound, segment_bytes)
                    .map_err(|error| setup("open", &path, &error))?
            }
        };
        let dir = dir.to_owned();
        Ok(Self { disk, dir, segment_bytes, active, sealed, must_rotate: false, failed: None })
    }

    /// Writes a frame and waits until it is on disk. `revision` is the newest one before the frame.
    pub(super) fn append(&mut self, frame: &mut FrameBuffer, revision: Revision) -> Result<(), StoreError> {
        if let Some(reason) = &self.failed {
            return Err(StoreError::Unavailable(reason.clone()));
        }
        let length = frame.frame_length() as u64;
        let holds_frames = self.active.end > FILE_HEADER_BYTES as u64;
        if self.must_rotate || holds_frames && self.active.end + length > self.segment_bytes {
            self.rotate(revision).map_err(|error| self.describe(&error))?;
        }
        match self.active.append(frame) {
            Ok(()) => Ok(()),
            Err(AppendError::Failed(error)) => Err(self.describe(&error)),
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
            remove_if_there(&*self.disk, &segment.path)?;
            self.disk.sync_directory(&self.dir)?;
            self.sealed.pop_front();
        }
        Ok(())
    }

    fn rotate(&mut self, last_revision: Revision) -> std::io::Result<()> {
        self.must_rotate = true;
        let next = Segment::create(&*self.disk, &self.dir, self.active.sequence + 1, self.segment_bytes)?;
        self.must_rotate = false;
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

/// What recovery found in a log.
#[derive(Debug)]
pub(super) struct ReadLog {
    sealed: VecDeque<SealedSegment>,
    newest: Option<(u64, SoundPart)>,
}

/// Reads all segments and hands every record to `apply`, which returns the revision it has reached. Changes nothing. A log
/// that was there before must not be gone.
pub(super) fn read(
    disk: &dyn Disk,
    dir: &Path,
    must_exist: bool,
    mut apply: impl FnMut(Record) -> Result<Revision, String>,
) -> Result<ReadLog, StoreError> {
    let names = disk.names(dir).map_err(|error| setup("read", dir, &error))?;
    let mut sequences: Vec<u64> = names.iter().filter_map(|name| segment::parse_file_name(name)).collect();
    sequences.sort_unstable();
    let missing = |path: PathBuf| {
        Err(StoreError::Corrupt(format!(
            "the log segment {} is missing; restore from another copy",
            path.display()
        )))
    };
    let mut neighbours = sequences.iter().zip(sequences.iter().skip(1));
    if let Some((before, _)) = neighbours.find(|(before, after)| *before + 1 != **after) {
        return missing(dir.join(segment::file_name(before + 1)));
    }
    if must_exist && sequences.is_empty() {
        return missing(dir.join("*.log"));
    }
    let mut log = ReadLog { sealed: VecDeque::new(), newest: None };
    for (index, &sequence) in sequences.iter().enumerate() {
        let path = dir.join(segment::file_name(sequence));
        let is_newest = index + 1 == sequences.len();
        let (sound, last_revision) = recover_segment(disk, &path, sequence, is_newest, &mut apply)?;
        if is_newest {
            log.newest = Some((sequence, sound));
        } else {
            log.sealed.push_back(SealedSegment { path, bytes: sound.end as u64, last_revision });
        }
    }
    Ok(log)
}

/// Applies a segment's records. Returns its sound part and the revision reached.
fn recover_segment(
    disk: &dyn Disk,
    path: &Path,
    sequence: u64,
    is_last: bool,
    apply: &mut impl FnMut(Record) -> Result<Revision, String>,
) -> Result<(SoundPart, Revision), StoreError> {
    let mut file = Vec::new();
    disk.read(path)
        .and_then(|mut reader| reader.read_to_end(&mut file))
        .map_err(|error| setup("read", path, &error))?;
    check_header(&file, FileKind::Log, sequence).map_err(|reason| corrupt(path, 0, reason))?;
    let mut sound = SoundPart { end: FILE_HEADER_BYTES, ..SoundPart::default() };
    let (mut last_frame, mut revision) = (FILE_HEADER_BYTES, 0);
    loop {
        let offset = sound.end;
        match frame::find(&file, Place { file: sequence, offset }) {
            Found::Frame { payload, next } => {
                let mut records = Records::new(&payload);
                while let Some(record) = records.next().map_err(|reason| corrupt(path, offset, reason))? {
                    revision = apply(record).map_err(|reason| corrupt(path, offset, &reason))?;
                }
                (last_frame, sound.end) = (offset, next);
            }
            Found::End => break,
            Found::Torn(reason) if is_last => {
                tracing::warn!(
                    path = %path.display(), offset, reason,
                    "the last append to the log did not complete before the crash and was never acknowledged; it is cut off"
                );
                break;
            }
            Found::Torn(reason) | Found::Damaged(reason) => return Err(corrupt(path, offset, reason)),
        }
    }
    sound.last_frame = file.get(last_frame..sound.end).unwrap_or_default().to_vec();
    Ok((sound, revision))
}

/// The error for data that is not what was written.
pub(super) fn corrupt(path: &Path, offset: usize, reason: &str) -> StoreError {
    StoreError::Corrupt(format!("{} at offset {offset}: {reason}; restore from another copy", path.display()))
}

/// The error for files that cannot be used.
pub(super) fn setup(action: &str, path: &Path, error: &std::io::Error) -> StoreError {
    let message = format!("cannot {action} {}: {error}", path.display());
    if segment::is_no_space(error) { StoreError::NoSpace(message) } else { StoreError::Setup(message) }
}
