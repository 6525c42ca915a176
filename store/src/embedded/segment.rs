//! One file of the log, and appending to it.
//!
//! The file is extended with written zeros ahead of the appends: overwriting allocated blocks needs no metadata in the
//! sync, which halves its time on ext4, and a full disk shows when the file is extended, before anything is written.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile, create_whole};
use super::frame::{FrameBuffer, Place};
use super::header::{FILE_HEADER_BYTES, FileKind, header};

const EXTEND_BYTES: u64 = 1 << 20;
const BLOCK_BYTES: u64 = 4096;
/// One page at a time: the page cache keeps what is written at once as one unit, and writes all of it to the disk again
/// when a byte of it changes.
static ZEROS: [u8; 4096] = [0; 4096];

/// Why an append did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// Nothing was written, perhaps because the disk is full; a later append may succeed.
    #[error("{0}")]
    Failed(io::Error),
    /// Something may be on disk. The log takes no more appends: only a recovery can tell what is there.
    #[error("{0}")]
    Unknown(io::Error),
}

/// The segment that is appended to.
#[derive(Debug)]
pub(super) struct Segment {
    file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// How far the file holds written zeros or frames.
    allocated: u64,
    extend_bytes: u64,
}

/// What recovery found in a segment.
#[derive(Debug, Default)]
pub(super) struct SoundPart {
    /// Where it ends.
    pub(super) end: usize,
    /// The last frame, as it is in the file.
    pub(super) last_frame: Vec<u8>,
}

/// The name of a segment's file.
pub(super) fn file_name(sequence: u64) -> String {
    format!("{sequence:016}.log")
}

/// The sequence number in a segment's file name.
pub(super) fn parse_file_name(name: &str) -> Option<u64> {
    name.strip_suffix(".log").filter(|digits| digits.len() == 16)?.parse().ok()
}

impl Segment {
    /// Makes a new segment, on disk when this returns, its directory entry included.
    pub(super) fn create(disk: &dyn Disk, dir: &Path, sequence: u64, bytes: u64) -> io::Result<Self> {
        let path = dir.join(file_name(sequence));
        let (end, extend_bytes) = (FILE_HEADER_BYTES as u64, EXTEND_BYTES.min(bytes));
        let (file, allocated) = create_whole(disk, &path, |file| {
            let allocated = extend(file, 0, end, extend_bytes)?;
            file.write_at(&header(FileKind::Log, sequence), 0)?;
            Ok(allocated)
        })?;
        Ok(Self { file, path, sequence, end, allocated, extend_bytes })
    }

    /// Takes up a recovered segment; what follows its sound part is cut off.
    pub(super) fn reopen(
        disk: &dyn Disk,
        path: PathBuf,
        sequence: u64,
        sound: &SoundPart,
        bytes: u64,
    ) -> io::Result<Self> {
        let file = disk.open(&path)?;
        let end = sound.end as u64;
        file.set_length(end)?;
        // If the sync of the last append failed, it may be readable and yet not on disk, for good. Nothing may be built on
        // it before it was written again. The ones before it were synced, or it would not be there.
        file.write_at(&sound.last_frame, end - sound.last_frame.len() as u64)?;
        file.sync()?;
        Ok(Self { file, path, sequence, end, allocated: end, extend_bytes: EXTEND_BYTES.min(bytes) })
    }

    /// Writes a frame and waits until it is on disk.
    pub(super) fn append(&mut self, frame: &mut FrameBuffer) -> Result<(), AppendError> {
        let end = self.end + frame.frame_length() as u64;
        if end > self.allocated {
            self.allocated = extend(&*self.file, self.allocated, end, self.extend_bytes)
                .map_err(|error| self.give_up(error))?;
            self.file.sync().map_err(|error| self.judge_failed_sync(error))?;
        }
        let place = Place { file: self.sequence, offset: usize::try_from(self.end).unwrap_or(usize::MAX) };
        if let Err(error) = self.file.write_at(frame.seal(place), self.end) {
            return Err(self.give_up(error));
        }
        self.file.sync().map_err(AppendError::Unknown)?;
        self.end = end;
        Ok(())
    }

    /// Takes back a failed write, durably: no remains of it may lie after the next frame, nor at the end of a segment that
    /// is not the last one any more.
    fn give_up(&mut self, error: io::Error) -> AppendError {
        if let Err(cut) = self.file.set_length(self.end).and_then(|()| self.file.sync()) {
            return AppendError::Unknown(cut);
        }
        self.allocated = self.end;
        AppendError::Failed(error)
    }

    /// File systems that allocate late say only now that they are full; then the zeros can go. Any other error puts the
    /// block in doubt that the zeros share with the last frame.
    fn judge_failed_sync(&mut self, error: io::Error) -> AppendError {
        if is_no_space(&error) { self.give_up(error) } else { AppendError::Unknown(error) }
    }
}

/// Extends a file with zeros from `from` to at least `to`, by a generous step if the disk has room for it. Returns how far.
fn extend(file: &dyn DiskFile, from: u64, to: u64, step: u64) -> io::Result<u64> {
    match write_zeros(file, from, to.next_multiple_of(step)) {
        Err(error) if is_no_space(&error) => {
            file.set_length(from)?;
            write_zeros(file, from, to.next_multiple_of(BLOCK_BYTES))
        }
        result => result,
    }
}

fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<u64> {
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_at(ZEROS.get(..length).unwrap_or_default(), at)?;
        at += length as u64;
    }
    Ok(to)
}

/// Whether an error says that the disk, or this user's share of it, is full.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
