//! Sends a log: from where the client wants it, over rotations, and on as it grows if the client stays.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader, SeekFrom};
use tokio::sync::mpsc;

use super::inotify::DirectoryWatch;
use super::log_file::{Line, parse};
use super::rotate;

const BLOCK_BYTES: usize = 64 << 10;
const CHUNK_BYTES: usize = 32 << 10;

/// What of a log is wanted.
#[derive(Debug, Default)]
pub struct Selection {
    /// So many lines from its end.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// What was written from this time on, as the log writes times.
    pub since: Option<Vec<u8>>,
    /// With times.
    pub timestamps: bool,
    /// Of one stream only.
    pub stream: Option<Vec<u8>>,
}

/// Sends the log at `path`, and what is added until `ended` returns if `follow`. Returns early when the client went away.
pub async fn send(
    path: &Path,
    selection: &Selection,
    follow: bool,
    ended: impl Future<Output = ()>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    // The watch comes before the first read, so that nothing written in between is missed.
    let directory = path.parent().unwrap_or(Path::new("/"));
    let watch = if follow { Some(DirectoryWatch::new(directory)?) } else { None };
    let mut files = open_all(path).await?;
    let offset = skip_to_start(&mut files, selection).await?;
    let mut out = Output { selection, left: selection.limit_bytes, chunk: BytesMut::new(), sender };
    let mut entry = Vec::new();
    let mut newest = None;
    for (index, file) in files.into_iter().enumerate() {
        entry.clear();
        let mut reader = reader_at(file, if index == 0 { offset } else { 0 }).await?;
        if !copy(&mut reader, &mut entry, &mut out).await? {
            return out.flush().await;
        }
        newest = Some(reader);
    }
    out.flush().await?;
    match &watch {
        Some(watch) => stay(path, newest, entry, watch, ended, &mut out).await,
        None => Ok(()),
    }
}

/// The log's files, the oldest first. The newest is opened before the others are looked for: one that is rotated meanwhile
/// is then seen twice, and left out the second time, instead of being missed.
async fn open_all(path: &Path) -> io::Result<Vec<File>> {
    let newest = open_existing(path).await?;
    let mut files = Vec::new();
    for rotated in rotate::rotated(path) {
        if let Some(file) = open_existing(&rotated).await?
            && !is_same(&file, newest.as_ref()).await?
        {
            files.push(file);
        }
    }
    files.extend(newest);
    Ok(files)
}

/// None for a file that is not there: the oldest is removed when a log is rotated, and the newest is missing for a moment.
async fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn is_same(file: &File, other: Option<&File>) -> io::Result<bool> {
    let Some(other) = other else { return Ok(false) };
    Ok(file.metadata().await?.ino() == other.metadata().await?.ino())
}

/// Goes on as the file grows, or is rotated, until the container has ended and everything is read.
async fn stay(
    path: &Path,
    mut reader: Option<BufReader<File>>,
    mut entry: Vec<u8>,
    watch: &DirectoryWatch,
    ended: impl Future<Output = ()>,
    out: &mut Output<'_>,
) -> io::Result<()> {
    tokio::pin!(ended);
    let mut is_over = false;
    loop {
        let successor = successor(path, reader.as_ref()).await?;
        if let Some(current) = &mut reader
            && !copy(current, &mut entry, out).await?
        {
            return out.flush().await;
        }
        if let Some(file) = successor {
            // What came before the move has been read to its end above.
            reader = Some(reader_at(file, 0).await?);
            entry.clear();
            continue;
        }
        out.flush().await?;
        if is_over {
            return Ok(());
        }
        tokio::select! {
            changed = watch.changed() => changed?,
            () = &mut ended => is_over = true,
            () = out.sender.closed() => return Ok(()),
        }
    }
}

/// The file that has taken the place of the one being read, once something is in it: until then its writer may still be
/// adding to the old one.
async fn successor(path: &Path, current: Option<&BufReader<File>>) -> io::Result<Option<File>> {
    let Some(file) = open_existing(path).await? else { return Ok(None) };
    let is_new = !is_same(&file, current.map(BufReader::get_ref)).await?;
    Ok((is_new && file.metadata().await?.len() > 0).then_some(file))
}

async fn reader_at(mut file: File, offset: u64) -> io::Result<BufReader<File>> {
    file.seek(SeekFrom::Start(offset)).await?;
    Ok(BufReader::with_capacity(BLOCK_BYTES, file))
}

/// Copies whole entries to the file's end; a torn one stays in `entry`. False when the client has enough.
async fn copy(reader: &mut BufReader<File>, entry: &mut Vec<u8>, out: &mut Output<'_>) -> io::Result<bool> {
    loop {
        if reader.read_until(b'\n', entry).await? == 0 {
            return Ok(true);
        }
        if entry.last() != Some(&b'\n') {
            return Ok(true);
        }
        entry.pop();
        let goes_on = match parse(entry) {
            Some(line) => out.write(&line).await?,
            None => true,
        };
        entry.clear();
        if !goes_on {
            return Ok(false);
        }
    }
}

struct Output<'a> {
    selection: &'a Selection,
    left: Option<u64>,
    chunk: BytesMut,
    sender: &'a mpsc::Sender<io::Result<Bytes>>,
}

impl Output<'_> {
    /// False when the client has enough.
    async fn write(&mut self, line: &Line<'_>) -> io::Result<bool> {
        // RFC 3339 times in UTC compare as text as far as whole seconds, and close enough below.
        if self.selection.since.as_ref().is_some_and(|since| is_before(line.time, since))
            || self.selection.stream.as_ref().is_some_and(|stream| stream != line.stream)
        {
            return Ok(true);
        }
        let start = self.chunk.len();
        if self.selection.timestamps {
            self.chunk.extend_from_slice(line.time);
            self.chunk.extend_from_slice(b" ");
        }
        self.chunk.extend_from_slice(line.text);
        if !line.partial {
            self.chunk.extend_from_slice(b"\n");
        }
        if let Some(left) = &mut self.left {
            let written = self.chunk.len() - start;
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX).min(written);
            self.chunk.truncate(start + allowed);
            *left -= allowed as u64;
            if *left == 0 {
                return Ok(false);
            }
        }
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush().await?;
        }
        Ok(true)
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = self.chunk.split().freeze();
        self.sender.send(Ok(chunk)).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Whether an entry's time lies before another. Times without `Z` (a zone's offset) are compared as times.
fn is_before(time: &[u8], since: &[u8]) -> bool {
    let read = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    match (read(time), read(since)) {
        (Some(time), Some(since)) => time < since,
        _ => false,
    }
}

/// Drops the files before the wanted part, and says where in the first of the others it begins.
async fn skip_to_start(files: &mut Vec<File>, selection: &Selection) -> io::Result<u64> {
    let Some(mut wanted) = selection.tail_lines else { return Ok(0) };
    for index in (0..files.len()).rev() {
        let Some(file) = files.get_mut(index) else { break };
        match from_end(file, wanted).await? {
            Ok(offset) => {
                files.drain(..index);
                return Ok(offset);
            }
            Err(lines) => wanted -= lines,
        }
    }
    Ok(0)
}

/// Where the last `wanted` lines of a file begin; Err: how many it has, when these are fewer.
async fn from_end(file: &mut File, wanted: u64) -> io::Result<Result<u64, u64>> {
    let length = file.metadata().await?.len();
    if wanted == 0 {
        return Ok(Ok(length));
    }
    let (mut position, mut lines) = (length, 0);
    let mut block = vec![0_u8; BLOCK_BYTES];
    while position > 0 {
        let size = position.min(BLOCK_BYTES as u64);
        position -= size;
        file.seek(SeekFrom::Start(position)).await?;
        let part = block.get_mut(..usize::try_from(size).unwrap_or(0)).unwrap_or_default();
        file.read_exact(part).await?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = position + index as u64 + 1;
            if after == length {
                continue;
            }
            lines += 1;
            if lines == wanted {
                return Ok(Ok(after));
            }
        }
    }
    let lines = lines + u64::from(length > 0);
    Ok(if lines >= wanted { Ok(0) } else { Err(lines) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::PathBuf;
    use std::time::Duration;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("follow-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir(&dir).unwrap();
        dir.join("0.log")
    }

    fn entry(second: u32, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.5Z stdout F {text}\n")
    }

    async fn read(path: &Path, selection: Selection) -> String {
        let (sender, mut receiver) = mpsc::channel(100);
        send(path, &selection, false, std::future::pending(), &sender).await.unwrap();
        drop(sender);
        let mut all = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            all.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn tails_reach_over_rotated_files_and_limits_cut() {
        let path = scratch("tail");
        std::fs::write(path.with_extension("log.20260101-000000"), entry(1, "a") + &entry(2, "b")).unwrap();
        std::fs::write(&path, entry(3, "c") + &entry(4, "d")).unwrap();
        let tail = |lines| Selection { tail_lines: Some(lines), ..Selection::default() };
        assert_eq!(read(&path, tail(0)).await, "");
        assert_eq!(read(&path, tail(1)).await, "d\n");
        assert_eq!(read(&path, tail(2)).await, "c\nd\n");
        assert_eq!(read(&path, tail(3)).await, "b\nc\nd\n");
        assert_eq!(read(&path, tail(9)).await, "a\nb\nc\nd\n");
        let limit = Selection { limit_bytes: Some(3), ..Selection::default() };
        assert_eq!(read(&path, limit).await, "a\nb");
        let since = Selection {
            since: Some(b"2026-01-01T00:00:03Z".to_vec()),
            timestamps: true,
            ..Selection::default()
        };
        assert!(read(&path, since).await.starts_with("2026-01-01T00:00:03.5Z c\n"));
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_follower_sees_what_is_added_over_a_rotation_and_stops_with_the_container() {
        let path = scratch("follow");
        std::fs::write(&path, entry(1, "a")).unwrap();
        let (sender, mut receiver) = mpsc::channel(100);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let following = path.clone();
        let task = tokio::spawn(async move {
            let ended = async {
                drop(ended.await);
            };
            send(&following, &Selection::default(), true, ended, &sender).await.unwrap();
        });
        let mut next = async || {
            let chunk = tokio::time::timeout(Duration::from_secs(5), receiver.recv()).await.unwrap();
            chunk.map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap())
        };
        assert_eq!(next().await.as_deref(), Some("a\n"));
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(entry(2, "b").as_bytes()).unwrap();
        assert_eq!(next().await.as_deref(), Some("b\n"));
        std::fs::rename(&path, path.with_extension("log.20260101-000000")).unwrap();
        std::fs::write(&path, entry(3, "c")).unwrap();
        assert_eq!(next().await.as_deref(), Some("c\n"));
        end.send(()).unwrap();
        assert_eq!(next().await, None);
        task.await.unwrap();
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
