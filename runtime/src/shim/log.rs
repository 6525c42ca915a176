//! The log file of a container: `<time> <stream> <F|P> <text>`, as the agent and `kubectl logs` read it.
//!
//! Lines longer than [`LINE_BYTES_MAX`] are written in parts tagged `P`. A write that fails (disk full) is dropped and
//! counted rather than blocking the container.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

/// A longer line is split.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    dropped_writes: u64,
}

impl LogFile {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&path)?;
        Ok(Self { path, file, dropped_writes: 0 })
    }

    /// Opens the path anew, after the file has been renamed away.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(self.path.clone())?;
        Ok(())
    }

    fn write(&mut self, entries: &[u8]) {
        if self.file.write_all(entries).is_err() {
            self.dropped_writes += 1;
            if self.dropped_writes == 1 {
                eprintln!("writing {} failed; output is lost", self.path.display());
            }
        }
    }
}

/// Cuts one stream into log entries. Holds at most one unfinished line.
pub(super) struct LineSplitter {
    stream: Stream,
    unfinished: Vec<u8>,
    entries: Vec<u8>,
}

impl LineSplitter {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, unfinished: Vec::new(), entries: Vec::new() }
    }

    /// Writes all lines that `bytes` completes.
    pub(super) fn push(&mut self, bytes: &[u8], log: &mut LogFile) {
        let time = timestamp();
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LINE_BYTES_MAX - self.unfinished.len();
            let window = rest.get(..room.min(rest.len())).unwrap_or(rest);
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.unfinished.extend_from_slice(window.get(..end).unwrap_or_default());
                self.entry(&time, b'F');
                rest = rest.get(end + 1..).unwrap_or_default();
            } else {
                self.unfinished.extend_from_slice(window);
                rest = rest.get(window.len()..).unwrap_or_default();
                if self.unfinished.len() >= LINE_BYTES_MAX {
                    self.entry(&time, b'P');
                }
            }
        }
        log.write(&self.entries);
        self.entries.clear();
        // A burst must not stay in memory for the life of the pod.
        self.entries.shrink_to(4096);
    }

    /// Writes what is left at the end of the stream: a part, of a line that nobody ended.
    pub(super) fn finish(&mut self, log: &mut LogFile) {
        if !self.unfinished.is_empty() {
            self.entry(&timestamp(), b'P');
            log.write(&self.entries);
            self.entries.clear();
        }
    }

    fn entry(&mut self, time: &str, tag: u8) {
        let stream: &[u8] = match self.stream {
            Stream::Stdout => b" stdout ",
            Stream::Stderr => b" stderr ",
        };
        self.entries.extend_from_slice(time.as_bytes());
        self.entries.extend_from_slice(stream);
        self.entries.extend_from_slice(&[tag, b' ']);
        self.entries.append(&mut self.unfinished);
        self.entries.push(b'\n');
    }
}

fn timestamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pushes: &[&[u8]]) -> Vec<String> {
        let directory =
            std::env::temp_dir().join(format!("gantry-log-{}-{}", std::process::id(), rand::random::<u64>()));
        let path = directory.join("0.log");
        let mut log = LogFile::open(path.clone()).unwrap();
        let mut splitter = LineSplitter::new(Stream::Stdout);
        for push in pushes {
            splitter.push(push, &mut log);
        }
        splitter.finish(&mut log);
        let text = fs::read_to_string(path).unwrap();
        fs::remove_dir_all(directory).unwrap();
        text.lines()
            .map(|line| {
                let (time, entry) = line.split_once(' ').unwrap();
                time.parse::<jiff::Timestamp>().unwrap();
                assert_eq!(time.len(), "2026-01-02T03:04:05.123456789Z".len());
                entry.to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_should_be_whole_however_they_arrive() {
        let read = lines(&[b"one\ntw", b"o\n\nend without newline"]);
        assert_eq!(read, ["stdout F one", "stdout F two", "stdout F ", "stdout P end without newline"]);
    }

    #[test]
    fn a_long_line_should_be_written_in_parts() {
        let long = [vec![b'x'; LINE_BYTES_MAX + 3], b"\nshort\n".to_vec()].concat();
        let read = lines(&[&long]);
        assert_eq!(read[0].len(), "stdout P ".len() + LINE_BYTES_MAX);
        assert_eq!(read[1..], ["stdout F xxx", "stdout F short"]);
    }
}
