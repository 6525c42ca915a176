//! Programs run in containers, and output and input of containers, as descriptors.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{io::AsyncReadExt, net::unix::pipe};

use super::Engine;
use crate::{
    error::Error,
    shim::protocol::{Reply, Request},
    shim_client::{Connection, ShimError},
};

/// How long output that a program left to others is waited for after it has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Which streams a program gets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExecStreams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A program that runs in a container. Dropping this leaves it running.
pub(crate) struct ExecProcess {
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
    /// All three streams at once.
    pub terminal: Option<OwnedFd>,
    connection: Connection,
}

impl ExecProcess {
    /// Waits for its end.
    pub(crate) async fn wait(&self) -> Result<i32, Error> {
        loop {
            if let (Reply::ExecExited { code }, _) = self.connection.receive().await? {
                return Ok(code);
            }
        }
    }

    pub(crate) async fn kill(&self) -> Result<(), Error> {
        Ok(self.connection.send(&Request::ExecKill, &[]).await?)
    }
}

/// Output and input of a running container.
pub(crate) struct Attachment {
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
    /// The writing end of its input, or its terminal.
    pub input: Option<OwnedFd>,
}

/// How much of the output of a program is kept; the rest is read and dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputLimit(pub usize);

/// A program that has ended.
pub(crate) struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub code: i32,
}

impl Engine {
    /// Starts a program in a running container.
    pub(crate) async fn exec(
        &self,
        id: &str,
        args: Vec<String>,
        streams: ExecStreams,
    ) -> Result<ExecProcess, Error> {
        let entry = self.container(id)?;
        if args.is_empty() {
            return Err(Error::Invalid("no command".into()));
        }
        let connection = Connection::open(&self.sandbox_directory(&entry.sandbox_id))?;
        let with_pipes = !streams.tty;
        let (stdin_theirs, stdin) = make_pipe(streams.stdin && with_pipes)?;
        let (stdout, stdout_theirs) = make_pipe(streams.stdout && with_pipes)?;
        let (stderr, stderr_theirs) = make_pipe(streams.stderr && with_pipes)?;
        let wanted = [stdin_theirs.is_some(), stdout_theirs.is_some(), stderr_theirs.is_some()];
        let theirs = [&stdin_theirs, &stdout_theirs, &stderr_theirs];
        let descriptors: Vec<_> = theirs.iter().filter_map(|end| end.as_ref().map(AsFd::as_fd)).collect();
        let request = Request::Exec { container: entry.id.clone(), args, tty: streams.tty, streams: wanted };
        let (_, mut terminal) = match connection.ask(&request, &descriptors).await {
            Err(ShimError::NotRunning) => {
                return Err(Error::State(format!("container {id:?} is not running")));
            }
            answer => answer?,
        };
        Ok(ExecProcess {
            stdin: stdin.map(sender).transpose()?,
            stdout: stdout.map(receiver).transpose()?,
            stderr: stderr.map(receiver).transpose()?,
            terminal: terminal.pop(),
            connection,
        })
    }

    /// Runs a program to its end, and kills it when that takes too long.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        args: Vec<String>,
        timeout: Option<Duration>,
        limit: OutputLimit,
    ) -> Result<Option<ExecOutput>, Error> {
        let streams = ExecStreams { stdout: true, stderr: true, ..ExecStreams::default() };
        let mut process = self.exec(id, args, streams).await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (process.stdout.take(), process.stderr.take());
        let output =
            async { tokio::join!(collect(out, &mut stdout, limit), collect(err, &mut stderr, limit)) };
        let run = async {
            tokio::pin!(output);
            let code = tokio::select! {
                code = process.wait() => {
                    // Something in the background may hold the pipes open for ever.
                    let drained = tokio::time::timeout(DRAIN_TIMEOUT, &mut output).await;
                    tracing::trace!(complete = drained.is_ok(), "program ended");
                    code
                }
                _ = &mut output => process.wait().await,
            };
            code
        };
        let code = match timeout {
            Some(timeout) => match tokio::time::timeout(timeout, run).await {
                Ok(code) => code?,
                Err(_) => {
                    process.kill().await?;
                    return Ok(None);
                }
            },
            None => run.await?,
        };
        Ok(Some(ExecOutput { stdout, stderr, code }))
    }

    /// Connects to the streams of a running container.
    pub(crate) async fn attach(&self, id: &str, streams: ExecStreams) -> Result<Attachment, Error> {
        let entry = self.container(id)?;
        let connection = Connection::open(&self.sandbox_directory(&entry.sandbox_id))?;
        let (stdout, stdout_theirs) = make_pipe(streams.stdout)?;
        let (stderr, stderr_theirs) = make_pipe(streams.stderr)?;
        let wanted = [stdout_theirs.is_some(), stderr_theirs.is_some()];
        let theirs = [&stdout_theirs, &stderr_theirs];
        let descriptors: Vec<_> = theirs.iter().filter_map(|end| end.as_ref().map(AsFd::as_fd)).collect();
        let request = Request::Attach { container: entry.id.clone(), stdin: streams.stdin, streams: wanted };
        let (_, mut input) = match connection.ask(&request, &descriptors).await {
            Err(ShimError::NotRunning) => {
                return Err(Error::State(format!("container {id:?} is not running")));
            }
            answer => answer?,
        };
        Ok(Attachment {
            stdout: stdout.map(receiver).transpose()?,
            stderr: stderr.map(receiver).transpose()?,
            input: input.pop(),
        })
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let entry = self.container(id)?;
        let directory = self.sandbox_directory(&entry.sandbox_id);
        let request = Request::ReopenLog { container: entry.id.clone() };
        match crate::shim_client::ask(&directory, &request).await {
            Ok(_) => Ok(()),
            Err(ShimError::NotRunning) => Err(Error::State(format!("container {id:?} is not running"))),
            Err(error) => Err(error.into()),
        }
    }
}

/// Both ends of a pipe: the one to read from, and the one to write to.
fn make_pipe(wanted: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>), Error> {
    if !wanted {
        return Ok((None, None));
    }
    let (read, write) =
        pipe2(OFlag::O_CLOEXEC).map_err(|error| Error::Io("making a pipe".into(), error.into()))?;
    Ok((Some(read), Some(write)))
}

pub(crate) fn sender(end: OwnedFd) -> Result<pipe::Sender, Error> {
    pipe::Sender::from_owned_fd(end).map_err(Error::io("using a pipe"))
}

fn receiver(end: OwnedFd) -> Result<pipe::Receiver, Error> {
    pipe::Receiver::from_owned_fd(end).map_err(Error::io("using a pipe"))
}

async fn collect(source: Option<pipe::Receiver>, into: &mut Vec<u8>, limit: OutputLimit) {
    let Some(mut source) = source else { return };
    let mut buffer = vec![0u8; 8192];
    while let Ok(count) = source.read(&mut buffer).await
        && count > 0
    {
        let room = limit.0.saturating_sub(into.len()).min(count);
        into.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}
