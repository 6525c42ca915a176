//! The agent's side of the shims: asking one, and hearing of exits.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tokio::io::unix::AsyncFd;

use crate::{
    shim::protocol::{self, Reply, Request},
    sys,
};

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

/// How long a shim may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the shim of a sandbox and all that it runs; it is gone when this returns.
pub(crate) async fn shut_down(directory: &Path) -> Result<(), ShimError> {
    let connection = Connection::open(directory)?;
    connection.ask(&Request::Shutdown, &[]).await?;
    // Its end closes the connection.
    let ended = async { while connection.receive().await.is_ok() {} };
    tokio::time::timeout(SHUTDOWN_TIMEOUT, ended)
        .await
        .map_err(|_| ShimError::Failed("the shim was told to end but does not".into()))
}
