//! One container in its shim: starting it, its streams, and its end.

use std::{
    error::Error,
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use nix::{
    fcntl::OFlag,
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket},
    unistd::{Pid, chdir, pipe2},
};

use super::{
    diagnostics, filter,
    log::{LogFile, Stream},
    output::Output,
    protocol::{self, ContainerStart, ContainerState, Exit},
};
use crate::{cgroup::Cgroups, sys, time};

/// How long output that something still holds open is waited for after the container's first process has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Container {
    pub(super) config: ContainerStart,
    pub(super) pid: Pid,
    pub(super) started_at: i64,
    /// One for a terminal, two for pipes: stdout, stderr.
    pub(super) outputs: Vec<Output>,
    /// The writing end of the container's standard input, while the shim holds it.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) log: Option<LogFile>,
    pub(super) phase: Phase,
    /// The seccomp filter for programs run later, once it has been compiled; empty for none.
    filter: Option<Arc<[u8]>>,
}

pub(super) enum Phase {
    Running,
    /// The first process has ended; what it wrote is being read.
    Draining {
        code: i32,
        at: i64,
        deadline: Instant,
    },
    Exited(Exit),
}

/// The container's ends of its streams, and ours.
struct Streams {
    theirs: [Option<OwnedFd>; 3],
    outputs: Vec<Output>,
    stdin: Option<OwnedFd>,
}

impl Container {
    /// Creates and starts a container. On failure nothing of it is left.
    pub(super) fn start(config: ContainerStart, sandbox: &Path) -> Result<Self, String> {
        let log = match &config.log_path {
            Some(path) => Some(
                LogFile::open(path.clone())
                    .map_err(|error| format!("opening {}: {error}", path.display()))?,
            ),
            None => None,
        };
        let root = config.bundle.join("libcontainer");
        fs::create_dir_all(&root).map_err(|error| format!("making {}: {error}", root.display()))?;
        let mut builder = ContainerBuilder::new(config.id.clone(), SyscallType::default())
            .with_root_path(&root)
            .map_err(|error| error.to_string())?;
        let console = if config.tty { Some(ConsoleSocket::bind(&config.bundle)?) } else { None };
        let mut streams = if config.tty {
            builder = builder.with_console_socket(Some(config.bundle.join(ConsoleSocket::NAME)));
            Streams { theirs: [None, None, None], outputs: Vec::new(), stdin: None }
        } else {
            make_pipes(config.stdin).map_err(|error| format!("making pipes: {error}"))?
        };
        let [stdin, stdout, stderr] = &mut streams.theirs;
        (builder.stdin, builder.stdout, builder.stderr) = (stdin.take(), stdout.take(), stderr.take());
        let mark = diagnostics::mark(sandbox);
        let mut container = builder
            .as_init(&config.bundle)
            .with_systemd(false)
            .with_detach(true)
            .build()
            .map_err(|error| diagnostics::explain(&with_causes(&error), mark))?;
        let pid = Pid::from_raw(container.pid().map_or(0, |pid| pid.as_raw()));
        adjust_oom_score(pid, config.oom_score_adj);
        let terminal = match console {
            Some(console) => Some(console.receive().map_err(|error| {
                kill(&config, pid);
                format!("receiving the terminal: {error}")
            })?),
            None => None,
        };
        let started_at = time::now();
        if let Err(error) = container.start() {
            kill(&config, pid);
            return Err(with_causes(&error));
        }
        let mut started = Self {
            config,
            pid,
            started_at,
            outputs: streams.outputs,
            stdin: streams.stdin,
            terminal,
            log,
            phase: Phase::Running,
            filter: None,
        };
        started.watch_terminal().map_err(|error| format!("reading the terminal: {error}"))?;
        Ok(started)
    }

    fn watch_terminal(&mut self) -> io::Result<()> {
        if let Some(terminal) = &self.terminal {
            self.outputs.push(Output::new(terminal.try_clone()?, Stream::Stdout)?);
        }
        Ok(())
    }

    /// The seccomp filter for programs run in the container; empty for none.
    pub(super) fn compiled_filter(&mut self) -> Result<Arc<[u8]>, String> {
        /// The part of the specification that is wanted here.
        #[derive(serde::Deserialize)]
        struct Wanted {
            linux: WantedLinux,
        }
        #[derive(serde::Deserialize)]
        struct WantedLinux {
            seccomp: Option<filter::Profile>,
        }
        if let Some(filter) = &self.filter {
            return Ok(Arc::clone(filter));
        }
        let fail = |error: &dyn std::fmt::Display| format!("reading the seccomp profile: {error}");
        let json = fs::read(self.config.bundle.join("config.json")).map_err(|error| fail(&error))?;
        let wanted: Wanted = serde_json::from_slice(&json).map_err(|error| fail(&error))?;
        let program = match wanted.linux.seccomp {
            Some(profile) => filter::compile_apart(&profile).map_err(|error| fail(&error))?,
            None => Vec::new(),
        };
        let program: Arc<[u8]> = program.into();
        self.filter = Some(Arc::clone(&program));
        Ok(program)
    }

    pub(super) fn has_ended(&self) -> bool {
        !matches!(self.phase, Phase::Running)
    }

    /// Moves output into the log and to attached clients.
    pub(super) fn pump(&mut self, buffer: &mut Vec<u8>) {
        let ended = self.has_ended();
        for output in &mut self.outputs {
            output.pump(self.log.as_mut(), ended, buffer);
        }
    }

    /// The first process has ended.
    pub(super) fn reaped(&mut self, code: i32) {
        if !self.has_ended() {
            // Whatever it left behind ends with it, as if it had had a process namespace of its own.
            kill(&self.config, self.pid);
            self.stdin = None;
            self.phase = Phase::Draining { code, at: time::now(), deadline: Instant::now() + DRAIN_TIMEOUT };
        }
    }

    /// Finishes a container whose output has ended or taken too long: its exit is on disk when this returns it.
    pub(super) fn finish_if_drained(&mut self) -> Option<Exit> {
        let Phase::Draining { code, at, deadline } = self.phase else { return None };
        if self.outputs.iter().any(Output::is_open) && Instant::now() < deadline {
            return None;
        }
        for output in &mut self.outputs {
            output.end(self.log.as_mut());
        }
        self.terminal = None;
        self.log = None;
        let oom_killed = self.leave_cgroup();
        let exit = Exit { code, at, oom_killed };
        if let Err(error) = write_exit(&self.config.bundle, &exit) {
            eprintln!("{}: recording the exit: {error}", self.config.id);
        }
        if let Err(error) = fs::remove_dir_all(self.config.bundle.join("libcontainer")) {
            eprintln!("{}: removing the state of libcontainer: {error}", self.config.id);
        }
        self.phase = Phase::Exited(exit.clone());
        Some(exit)
    }

    /// Gives the cgroup back, so that the pod's can be removed; says whether memory ran out in it.
    fn leave_cgroup(&self) -> bool {
        let Ok(cgroups) = Cgroups::detect() else { return false };
        let oom_killed = cgroups.oom_kills(&self.config.cgroup) > 0;
        if let Err(error) = cgroups.remove_if_empty(&self.config.cgroup) {
            eprintln!("{}: leaving a cgroup behind for now: {error}", self.config.id);
        }
        oom_killed
    }

    pub(super) fn state(&self) -> ContainerState {
        let exit = if let Phase::Exited(exit) = &self.phase { Some(exit.clone()) } else { None };
        ContainerState {
            id: self.config.id.clone(),
            pid: self.pid.as_raw(),
            started_at: self.started_at,
            exit,
        }
    }
}

/// Where the exit of a container is kept.
pub(crate) const EXIT_FILE: &str = "exit.json";

fn write_exit(bundle: &Path, exit: &Exit) -> io::Result<()> {
    let temporary = bundle.join("exit.json.new");
    fs::write(&temporary, serde_json::to_vec(exit)?)?;
    fs::rename(temporary, bundle.join(EXIT_FILE))
}

/// Kills everything in a container's cgroup, and its first process.
pub(super) fn kill(config: &ContainerStart, pid: Pid) {
    let killed = Cgroups::detect().and_then(|cgroups| cgroups.kill_all(&config.cgroup));
    if let Err(error) = killed {
        eprintln!("{}: killing what is left: {error}", config.id);
    }
    // Reaped already in most cases, and still ours in all: only this process waits for it.
    if pid.as_raw() > 1
        && let Err(error) = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
        && error != nix::errno::Errno::ESRCH
    {
        eprintln!("{}: killing {pid}: {error}", config.id);
    }
}

/// Lowering the score needs a right that root does not have everywhere: then the container runs with what it inherits.
fn adjust_oom_score(pid: Pid, score: Option<i64>) {
    if let Some(score) = score
        && let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
    {
        eprintln!("oom_score_adj {score} not set: {error}");
    }
}

fn make_pipes(wants_stdin: bool) -> io::Result<Streams> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from);
    let (stdin_theirs, stdin) = if wants_stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (fs::File::open("/dev/null")?.into(), None)
    };
    let (stdout, stdout_theirs) = pipe()?;
    let (stderr, stderr_theirs) = pipe()?;
    Ok(Streams {
        theirs: [Some(stdin_theirs), Some(stdout_theirs), Some(stderr_theirs)],
        outputs: vec![Output::new(stdout, Stream::Stdout)?, Output::new(stderr, Stream::Stderr)?],
        stdin,
    })
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// The socket through which the container's side hands over its terminal.
struct ConsoleSocket(OwnedFd);

impl ConsoleSocket {
    const NAME: &str = "console.sock";

    fn bind(bundle: &Path) -> Result<Self, String> {
        // Relative to the bundle, because socket addresses are short.
        let bound = (|| {
            chdir(bundle)?;
            let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            bind(listener.as_raw_fd(), &UnixAddr::new(Self::NAME)?)?;
            listen(&listener, Backlog::new(1)?)?;
            Ok::<_, nix::Error>(listener)
        })();
        chdir("/").and(bound).map(Self).map_err(|error| format!("making the console socket: {error}"))
    }

    /// Called after the container's side has connected and sent.
    fn receive(self) -> io::Result<OwnedFd> {
        let connection = sys::adopt(vec![accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?]);
        let connection = connection.first().ok_or(io::ErrorKind::NotConnected)?;
        protocol::receive_descriptor(connection.as_fd())
    }
}
