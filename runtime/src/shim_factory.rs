//! The agent's side of the process that makes shims: starting it when the first is wanted, and asking it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::pipe2,
};
use tokio::{
    io::{AsyncReadExt, unix::AsyncFd},
    net::unix::pipe,
    process::{Child, Command},
    sync::Mutex,
};

use crate::{
    files,
    shim::{
        factory::NewShim,
        protocol::{self, ShimConfig},
    },
    shim_client::ShimError,
    sys,
};

/// How long a shim may take to come up. Far more than it needs, also on a machine that is busy.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes shims; the process behind it lives from the first one to the end of the agent.
#[derive(Debug)]
pub(crate) struct ShimFactory {
    executable: PathBuf,
    arguments: Vec<String>,
    state: PathBuf,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    socket: AsyncFd<OwnedFd>,
    /// Ends with us.
    child: Child,
}

impl ShimFactory {
    pub(crate) fn new(executable: PathBuf, arguments: Vec<String>, state: PathBuf) -> Self {
        Self { executable, arguments, state, process: Mutex::new(None) }
    }

    /// Starts the shim of a sandbox; when this returns it serves.
    pub(crate) async fn start(&self, directory: &Path, shim: &ShimConfig) -> Result<(), ShimError> {
        let fail = |error: io::Error| ShimError::Start(error.to_string());
        let json = serde_json::to_vec(shim).map_err(|error| ShimError::Start(error.to_string()))?;
        files::replace(&directory.join("shim.json"), &json).map_err(fail)?;
        let (answer, answer_theirs) = pipe2(OFlag::O_CLOEXEC).map_err(|error| fail(error.into()))?;
        let request = NewShim { sandbox_directory: directory.to_owned() };
        self.ask(&request, &answer_theirs).await.map_err(fail)?;
        drop(answer_theirs);
        let mut answer = pipe::Receiver::from_owned_fd(answer).map_err(fail)?;
        let mut words = String::new();
        tokio::time::timeout(START_TIMEOUT, answer.read_to_string(&mut words))
            .await
            .map_err(|_| ShimError::Start("it took too long".into()))?
            .map_err(fail)?;
        if words.is_empty() { Ok(()) } else { Err(ShimError::Start(words)) }
    }

    /// Ends the process; it is gone when this returns. Another is started if a shim is wanted again.
    pub(crate) async fn stop(&self) -> io::Result<()> {
        match self.process.lock().await.take() {
            Some(mut process) => process.child.kill().await,
            None => Ok(()),
        }
    }

    /// Passes a request on. A process that has died is replaced, once.
    async fn ask(&self, request: &NewShim, answer: &OwnedFd) -> io::Result<()> {
        let mut process = self.process.lock().await;
        if let Some(running) = process.as_ref() {
            match running.ask(request, answer).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "the process that makes shims has died; starting another")
                }
            }
        }
        let started = Process::start(&self.executable, &self.arguments, &self.state)?;
        started.ask(request, answer).await?;
        *process = Some(started);
        Ok(())
    }
}

impl Process {
    fn start(executable: &Path, arguments: &[String], state: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let child = Command::new(executable)
            .args(arguments)
            .arg(state)
            // The agent's environment is none of the containers' business.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", executable.display())))?;
        Ok(Self { socket: sys::watch_nonblocking(ours)?, child })
    }

    async fn ask(&self, request: &NewShim, answer: &OwnedFd) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            let sent = ready
                .try_io(|socket| protocol::send(socket.get_ref().as_fd(), request, &[answer.as_raw_fd()]));
            match sent {
                Ok(sent) => return sent,
                Err(_would_block) => {}
            }
        }
    }
}
