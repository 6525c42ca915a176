//! The agent's side of the shims: starting one, asking it, and hearing of exits.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    process::Stdio,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tokio::io::unix::AsyncFd;

use crate::{
    Config, files,
    shim::protocol::{self, Reply, Request, ShimConfig},
    sys,
};

/// How long a shim may take to come up. Far more than it needs, also on a machine that is busy.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a shim did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("the shim did not start: {0}")]
    Start(String),
    #[error("the shim is gone: {0}")]
    Gone(io::Error),
    #[error("the container is not running")]
    NotRunning,
    #[error("{0}")]
    Failed(String),
}

/// Starts the shim of a sandbox; when this returns it serves.
pub(crate) async fn start(
    executable: &Path,
    config: &Config,
    directory: &Path,
    shim: &ShimConfig,
) -> Result<(), ShimError> {
    let fail = |error: io::Error| ShimError::Start(error.to_string());
    let json = serde_json::to_vec(shim).map_err(|error| ShimError::Start(error.to_string()))?;
    files::replace(&directory.join("shim.json"), &json).map_err(fail)?;
    let starter = tokio::process::Command::new(executable)
        .args(&config.shim_arguments)
        .arg(directory)
        // The agent's environment is none of the containers' business.
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(START_TIMEOUT, starter)
        .await
        .map_err(|_| ShimError::Start("it took too long".into()))?
        .map_err(|error| ShimError::Start(format!("{}: {error}", executable.display())))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(ShimError::Start(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// One connection to a shim.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: AsyncFd<OwnedFd>,
}

impl Connection {
    /// Connects to the shim of a sandbox. Fails at once when there is none.
    pub(crate) fn open(directory: &Path) -> Result<Self, ShimError> {
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
            connect(socket.as_raw_fd(), &UnixAddr::new(&directory.join("shim.sock"))?)?;
            Ok::<_, nix::Error>(socket)
        };
        let socket = open().map_err(|error| ShimError::Gone(error.into()))?;
        Ok(Self { socket: sys::watch(socket).map_err(ShimError::Gone)? })
    }

    pub(crate) async fn send(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ShimError> {
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        loop {
            let mut ready = self.socket.writable().await.map_err(ShimError::Gone)?;
            match ready.try_io(|socket| protocol::send(socket.get_ref().as_fd(), request, &raw)) {
                Ok(sent) => return sent.map_err(ShimError::Gone),
                Err(_would_block) => {}
            }
        }
    }

    /// The next message, with the descriptors that came with it.
    pub(crate) async fn receive(&self) -> Result<(Reply, Vec<OwnedFd>), ShimError> {
        loop {
            let mut ready = self.socket.readable().await.map_err(ShimError::Gone)?;
            match ready.try_io(|socket| protocol::receive(socket.get_ref().as_fd())) {
                Ok(Ok(Some(message))) => return Ok(message),
                Ok(Ok(None)) => return Err(ShimError::Gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(Err(error)) => return Err(ShimError::Gone(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// Asks and waits for the answer; refusals become errors.
    pub(crate) async fn ask(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), ShimError> {
        self.send(request, descriptors).await?;
        match self.receive().await? {
            (Reply::Failed(reason), _) => Err(ShimError::Failed(reason)),
            (Reply::NotFound(_), _) => Err(ShimError::NotRunning),
            answer => Ok(answer),
        }
    }
}

/// Asks one thing over a connection of its own.
pub(crate) async fn ask(directory: &Path, request: &Request) -> Result<Reply, ShimError> {
    Ok(Connection::open(directory)?.ask(request, &[]).await?.0)
}
