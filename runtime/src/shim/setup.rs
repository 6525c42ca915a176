//! What the shim does before it serves: namespaces, kernel parameters, cgroup, and cutting the ties to its parent.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::Signal,
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as start_listening, socket,
        },
    },
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout, sethostname},
};

use super::{diagnostics, protocol::ShimConfig};
use crate::{cgroup::Cgroups, sys};

/// Why a shim did not come up. The sandbox fails with these words.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error("{0}: {1}")]
    Io(String, io::Error),
    #[error("setting kernel parameter {0}={1}: {2}")]
    Sysctl(String, String, io::Error),
}

impl SetupError {
    pub(super) fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io(what.into(), error)
    }

    pub(super) fn system(what: impl Into<String>, error: Errno) -> Self {
        Self::Io(what.into(), error.into())
    }
}

pub(super) fn listen(path: &Path) -> Result<OwnedFd, SetupError> {
    let fail = |error| SetupError::system(format!("listening on {}", path.display()), error);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(fail)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path).map_err(fail)?).map_err(fail)?;
    start_listening(&listener, Backlog::new(64).map_err(fail)?).map_err(fail)?;
    Ok(listener)
}

pub(super) fn enter_namespaces(config: &ShimConfig) -> Result<(), SetupError> {
    if let Some(path) = &config.netns {
        let netns =
            File::open(path).map_err(|error| SetupError::io(format!("opening {}", path.display()), error))?;
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|error| SetupError::system("entering the network namespace", error))?;
    }
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWIPC, config.private_ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, config.hostname.is_some());
    unshare(flags).map_err(|error| SetupError::system("making the pod's namespaces", error))?;
    if let Some(hostname) = &config.hostname {
        sethostname(hostname).map_err(|error| SetupError::system("setting the host name", error))?;
    }
    Ok(())
}

/// Kernel parameters of the namespaces that were just entered.
pub(super) fn apply_sysctls(sysctls: &[(String, String)]) -> Result<(), SetupError> {
    for (name, value) in sysctls {
        // Some parameters have slashes where interface names have dots.
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        let fail = |error| SetupError::Sysctl(name.clone(), value.clone(), error);
        if path.split('/').any(|part| part == ".." || part.is_empty()) {
            return Err(fail(io::ErrorKind::InvalidInput.into()));
        }
        fs::write(Path::new("/proc/sys").join(path), value).map_err(fail)?;
    }
    Ok(())
}

/// Leaves the agent's terminal, working directory and cgroup, so that nothing that happens to it happens to us.
pub(super) fn detach(directory: &Path, config: &ShimConfig) -> Result<(), SetupError> {
    // What containers start with, whatever the agent runs under.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    nix::unistd::chdir("/").map_err(|error| SetupError::system("chdir", error))?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| SetupError::io("opening /dev/null", error))?;
    let log = OpenOptions::new().create(true).append(true).open(directory.join(diagnostics::LOG_FILE));
    let log = log.map_err(|error| SetupError::io("opening shim.log", error))?;
    let system = |error| SetupError::system("redirecting output", error);
    dup2_stdin(&null).map_err(system)?;
    dup2_stdout(&null).map_err(system)?;
    dup2_stderr(&log).map_err(system)?;
    diagnostics::write_to(log);
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE] {
        sys::pass_over_signal(signal).map_err(|error| SetupError::system("setting signals", error))?;
    }
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|error| SetupError::system("becoming a subreaper", error))?;
    let joined = Cgroups::detect().and_then(|cgroups| cgroups.join(&config.cgroup));
    if let Err(error) = joined {
        eprintln!("not in a cgroup of its own: {error}");
    }
    // The name in process lists; the kernel keeps fifteen characters.
    nix::sys::prctl::set_name(c"gantry-shim")
        .map_err(|error| SetupError::system("naming the process", error))?;
    Ok(())
}
