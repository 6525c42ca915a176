//! What agent and shim say to each other: one JSON message per packet of a `SOCK_SEQPACKET` socket, with descriptors
//! alongside. Exec and attach pass the ends of pipes, so their data never goes through messages.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::sys;

/// More descriptors than this never travel with one message.
const DESCRIPTORS_MAX: usize = 4;

/// What a shim is started with; written to `shim.json` in the sandbox's directory before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShimConfig {
    pub sandbox: String,
    /// The pod's network namespace; absent for the host's.
    pub netns: Option<PathBuf>,
    /// The pod's host name; absent when the host's is used (and no namespace for it).
    pub hostname: Option<String>,
    pub private_ipc: bool,
    /// All containers of the pod see each other's processes.
    pub shared_pid: bool,
    /// Kernel parameters, by their dotted names.
    pub sysctls: Vec<(String, String)>,
    /// The cgroup for the shim itself.
    pub cgroup: String,
}

/// A container to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerStart {
    pub id: String,
    /// Where `config.json` is; exit and log state are kept there too.
    pub bundle: PathBuf,
    pub cgroup: String,
    pub log_path: Option<PathBuf>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub oom_score_adj: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Starts a container; answered by `Started`.
    Start(Box<ContainerStart>),
    /// Runs a program in a container. Descriptors: stdin, stdout and stderr, as far as `streams` says. Answered by
    /// `ExecStarted` (with the terminal's descriptor, if `tty`) and, later, `ExecExited`.
    Exec {
        container: String,
        args: Vec<String>,
        tty: bool,
        streams: [bool; 3],
    },
    /// Kills the program that this connection has started.
    ExecKill,
    /// Copies a container's output to the descriptors passed. Answered by `Attached`, with the container's stdin or
    /// terminal if `stdin`.
    Attach {
        container: String,
        stdin: bool,
        streams: [bool; 2],
    },
    ReopenLog {
        container: String,
    },
    Signal {
        container: String,
        signal: i32,
    },
    /// Forgets a container that has exited.
    Forget {
        container: String,
    },
    /// From now on this connection is told of exits.
    Subscribe,
    /// Ends the shim, killing what is left.
    Shutdown,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub code: i32,
    pub at: i64,
    pub oom_killed: bool,
}

/// A container as its shim sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    pub id: String,
    pub pid: i32,
    pub started_at: i64,
    pub exit: Option<Exit>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Started {
        pid: i32,
        at: i64,
    },
    ExecStarted {
        pid: i32,
    },
    ExecExited {
        code: i32,
    },
    Attached,
    /// The answer to `Subscribe`.
    Containers {
        pause_pid: Option<i32>,
        containers: Vec<ContainerState>,
    },
    /// Told to subscribers.
    Exited {
        container: String,
        exit: Exit,
    },
    Done,
    NotFound(String),
    Failed(String),
}

/// Sends one message. On a non-blocking socket this can fail with `WouldBlock`.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    descriptors: &[RawFd],
) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let control = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &control[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&json)], control, flags, None)
        .map_err(sys::errno_to_io)?;
    Ok(())
}

/// Receives one message with its descriptors; nothing when the peer has closed.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    let length = recv(socket.as_raw_fd(), &mut [], peek).map_err(sys::errno_to_io)?;
    if length == 0 {
        return Ok(None);
    }
    let mut json = vec![0u8; length];
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(&mut json)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received =
        recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags).map_err(sys::errno_to_io)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs().map_err(sys::errno_to_io)? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            descriptors.extend(sys::adopt(raw));
        }
    }
    Ok(Some((serde_json::from_slice(&json)?, descriptors)))
}

/// Receives one descriptor that comes with any bytes (the console protocol).
pub(crate) fn receive_descriptor(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut bytes = [0u8; 4096];
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received =
        recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags).map_err(sys::errno_to_io)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs().map_err(sys::errno_to_io)? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            descriptors.extend(sys::adopt(raw));
        }
    }
    descriptors.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
