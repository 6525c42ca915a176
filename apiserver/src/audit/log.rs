//! The file: one JSON object per line, written by a thread of its own.
//!
//! Requests wait when the disk does not keep up, rather than going unlogged. When the file is moved away (logrotate) a new
//! one is begun. What cannot be written is told in the server's own log.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

/// So many events may wait for the disk.
const QUEUE_MAX: usize = 1024;
/// How often it is checked that the file is still the one of that name.
const LOOK_EVERY: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// The log.
#[derive(Clone)]
pub(super) struct Log(mpsc::Sender<Message>);

struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    looked: Instant,
}

impl Log {
    /// Opens the file for appending, and starts the thread.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut output = Output { path: path.to_path_buf(), file: open(path)?, looked: Instant::now() };
        let (sender, mut receiver) = mpsc::channel(QUEUE_MAX);
        std::thread::Builder::new().name("audit-log".to_string()).spawn(move || {
            while let Some(message) = receiver.blocking_recv() {
                let written = match message {
                    Message::Line(line) => output.write(&line),
                    Message::Flush(done) => {
                        let flushed = output.file.flush();
                        // Who asked may have left.
                        let _gone = done.send(());
                        flushed
                    }
                };
                let written =
                    written.and_then(|()| if receiver.is_empty() { output.file.flush() } else { Ok(()) });
                if let Err(error) = written {
                    tracing::error!(%error, path = %output.path.display(), "the audit log cannot be written");
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Writes a line, after a wait if there are too many.
    pub async fn write(&self, line: Vec<u8>) {
        if self.0.send(Message::Line(line)).await.is_err() {
            tracing::error!("the audit log's writer is gone");
        }
    }

    /// Writes a line where one cannot wait.
    pub fn write_now(&self, line: Vec<u8>) {
        if self.0.try_send(Message::Line(line)).is_err() {
            tracing::error!("an audit event is lost: too many wait for the disk");
        }
    }

    /// Waits until everything so far is written.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.0.send(Message::Flush(done)).await.is_ok() {
            // Without an answer there is nobody left to write.
            let _gone = flushed.await;
        }
    }
}

fn open(path: &Path) -> std::io::Result<BufWriter<File>> {
    Ok(BufWriter::new(OpenOptions::new().create(true).append(true).mode(0o600).open(path)?))
}

impl Output {
    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.looked.elapsed() > LOOK_EVERY {
            self.looked = Instant::now();
            let own = self.file.get_ref().metadata()?.ino();
            if std::fs::metadata(&self.path).map_or(true, |now| now.ino() != own) {
                self.file.flush()?;
                self.file = open(&self.path)?;
            }
        }
        self.file.write_all(line)?;
        self.file.write_all(b"\n")
    }
}
