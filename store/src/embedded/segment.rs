//! One file of the log: its header, and appending to it.
//!
//! The file is extended with written zeros ahead of the appends: overwriting allocated blocks needs no metadata in the
//! sync, which halves its time on ext4, and a full disk shows when the file is extended, before anything is written.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::frame::FrameBuffer;

const MAGIC: [u8; 8] = *b"GANTRYLG";
const VERSION: u32 = 1;
/// How long the header of a segment is.
pub(super) const HEADER_BYTES: usize = 32;
const EXTEND_BYTES: u64 = 1 << 20;
const BLOCK_BYTES: u64 = 4096;
static ZEROS: [u8; 128 * 1024] = [0; 128 * 1024];

/// Why an append did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// The disk is full. Nothing was written; a later append may succeed.
    #[error("{0}")]
    NoSpace(io::Error),
    /// Nothing was written; a later append may succeed.
    #[error("{0}")]
    Failed(io::Error),
    /// Something may be on disk. The log takes no more appends: only a recovery can tell what is there.
    #[error("{0}")]
    Unknown(io::Error),
}

/// The segment that is appended to.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// How far the file holds written zeros or frames.
    allocated: u64,
}

/// The name of a segment's file.
pub(super) fn file_name(sequence: u64) -> String {
    format!("{sequence:016}.log")
}

/// The sequence number in a segment's file name.
pub(super) fn parse_file_name(name: &str) -> Option<u64> {
    name.strip_suffix(".log").filter(|digits| digits.len() == 16)?.parse().ok()
}

/// Checks a segment's header. The error says what is wrong with it.
pub(super) fn check_header(file: &[u8], sequence: u64) -> Result<(), &'static str> {
    let header = file.get(..HEADER_BYTES).ok_or("the file ends inside its header")?;
    if *header == header_bytes(sequence) {
        return Ok(());
    }
    if header.starts_with(&MAGIC) && header.get(8..12) != Some(&VERSION.to_le_bytes()) {
        return Err("the file's format version is not one that this program knows");
    }
    Err("the file's header is not what was written")
}

fn header_bytes(sequence: u64) -> [u8; HEADER_BYTES] {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&sequence.to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    let mut bytes = [0; HEADER_BYTES];
    bytes.copy_from_slice(&header);
    bytes
}

impl Segment {
    /// Makes a new segment, on disk when this returns, its directory entry included.
    pub(super) fn create(dir: &Path, sequence: u64) -> io::Result<Self> {
        let path = dir.join(file_name(sequence));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let mut segment = Self { file, path, sequence, end: HEADER_BYTES as u64, allocated: 0 };
        let written = segment
            .extend(segment.end)
            .and_then(|()| segment.file.write_all_at(&header_bytes(sequence), 0))
            .and_then(|()| segment.file.sync_all())
            .and_then(|()| sync_directory(dir));
        if let Err(error) = written {
            // Without this the half-made file would be in the way of the next attempt; recovery copes with it too.
            if let Err(cleanup) = std::fs::remove_file(&segment.path) {
                tracing::warn!(path = %segment.path.display(), error = %cleanup, "cannot remove a half-made log segment");
            }
            return Err(error);
        }
        Ok(segment)
    }

    /// Takes up a recovered segment whose sound part ends at `end`; what follows is cut off.
    pub(super) fn reopen(path: PathBuf, sequence: u64, end: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.set_len(end)?;
        file.sync_all()?;
        Ok(Self { file, path, sequence, end, allocated: end })
    }

    /// Writes a frame and waits until it is on disk.
    pub(super) fn append(&mut self, frame: &mut FrameBuffer) -> Result<(), AppendError> {
        let end = self.end + frame.frame_length() as u64;
        if end > self.allocated {
            self.extend(end).and_then(|()| self.file.sync_all()).map_err(|error| self.give_up(error))?;
        }
        if let Err(error) = self.file.write_all_at(frame.seal(self.end), self.end) {
            return Err(self.give_up(error));
        }
        // After a failed sync the kernel may have dropped the pages: what is on disk is unknown from here on.
        self.file.sync_data().map_err(AppendError::Unknown)?;
        self.end = end;
        Ok(())
    }

    /// Extends the file with zeros to at least `end`, by a generous step if the disk has room for it.
    fn extend(&mut self, end: u64) -> io::Result<()> {
        let generous = end.next_multiple_of(EXTEND_BYTES);
        match self.write_zeros(generous) {
            Err(error) if is_no_space(&error) => {
                self.file.set_len(self.allocated)?;
                self.write_zeros(end.next_multiple_of(BLOCK_BYTES))
            }
            result => result,
        }
    }

    fn write_zeros(&mut self, end: u64) -> io::Result<()> {
        let mut at = self.allocated;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(ZEROS.get(..length).unwrap_or_default(), at)?;
            at += length as u64;
        }
        self.allocated = end;
        Ok(())
    }

    /// Takes back a failed write, so that no remains of it lie after the next frame.
    fn give_up(&mut self, error: io::Error) -> AppendError {
        if let Err(cut) = self.file.set_len(self.end) {
            return AppendError::Unknown(cut);
        }
        self.allocated = self.end;
        if is_no_space(&error) { AppendError::NoSpace(error) } else { AppendError::Failed(error) }
    }
}

/// Whether an error says that the disk, or this user's share of it, is full.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Makes created, renamed and removed files of a directory durable.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
