//! Running a further program in a container.
//!
//! It gets what the container's first process got: namespaces, cgroup, user, capabilities, environment, and the seccomp
//! filter. (libcontainer's own way to do this leaves the filter out, which is why it is not used here.)

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use libcontainer::{
    capabilities,
    oci_spec::runtime::{Process, Spec},
    syscall::syscall::create_syscall,
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        stat::Mode,
        statfs::{FsType, fstatfs},
    },
    unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid},
};

use super::{container::Container, protocol};
use crate::{cgroup::Cgroups, sys};

/// A program that runs in a container.
pub(super) struct Running {
    pub(super) pid: Pid,
    /// The other end of its terminal.
    pub(super) terminal: Option<OwnedFd>,
}

/// What to run, and with which streams (stdin, stdout, stderr; absent ones are `/dev/null`).
pub(super) struct Program {
    pub(super) args: Vec<String>,
    pub(super) tty: bool,
    pub(super) streams: [Option<OwnedFd>; 3],
}

pub(super) fn start(container: &mut Container, program: Program) -> Result<Running, String> {
    let filter = container.compiled_filter()?;
    let spec = Spec::load(container.config.bundle.join("config.json")).map_err(|error| error.to_string())?;
    let target =
        sys::pidfd_open(container.pid).map_err(|error| format!("the container has ended: {error}"))?;
    let system = |error: Errno| format!("preparing to run the program: {error}");
    let own_pids = File::open("/proc/self/ns/pid").map_err(|error| error.to_string())?;
    let (failure, failure_theirs) = pipe2(OFlag::O_CLOEXEC).map_err(system)?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let (console, console_theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, flags).map_err(system)?;

    setns(target.as_fd(), CloneFlags::CLONE_NEWPID).map_err(system)?;
    let forked = sys::fork_single_threaded();
    if let Ok(None) = forked {
        drop((failure, console));
        let error = Child { container, spec: &spec, filter, target, program, console: console_theirs }.run();
        // Without a reader the shim has died, and with it the reason to tell.
        File::from(failure_theirs).write_all(error.as_bytes()).ok();
        std::process::exit(126)
    }
    setns(own_pids.as_fd(), CloneFlags::CLONE_NEWPID).map_err(system)?;
    let pid = forked.map_err(system)?.ok_or("fork")?;
    drop((failure_theirs, console_theirs, program));
    let mut words = String::new();
    // Ends without words when the program replaces the child, because the pipe closes then.
    File::from(failure).read_to_string(&mut words).map_err(|error| error.to_string())?;
    if !words.is_empty() {
        // The loop reaps it.
        return Err(words);
    }
    let terminal = protocol::receive_descriptor(console.as_fd()).ok();
    Ok(Running { pid, terminal })
}

/// The forked child, on its way to becoming the program.
struct Child<'a> {
    container: &'a Container,
    spec: &'a Spec,
    /// The compiled seccomp filter; empty for none.
    filter: Arc<[u8]>,
    target: OwnedFd,
    program: Program,
    console: OwnedFd,
}

impl Child<'_> {
    /// Returns only with the reason for failing.
    fn run(mut self) -> String {
        match self.prepare() {
            Ok(process) => exec(&self.program.args, &process),
            Err(error) => error,
        }
    }

    fn prepare(&mut self) -> Result<Process, String> {
        let step = |what: &'static str| move |error: Errno| format!("{what}: {error}");
        // Not even for a moment may the container look into a process that is still half ours.
        prctl::set_dumpable(false).map_err(step("becoming undumpable"))?;
        sys::reset_signals().map_err(step("resetting signals"))?;
        setsid().map_err(step("starting a session"))?;
        Cgroups::detect()
            .and_then(|cgroups| cgroups.join(&self.container.config.cgroup))
            .map_err(|error| format!("joining the cgroup: {error}"))?;
        let null =
            OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|error| error.to_string())?;
        let namespaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP;
        setns(self.target.as_fd(), namespaces).map_err(step("entering the container"))?;
        if self.program.tty {
            self.connect_terminal()?
        } else {
            self.connect_streams(null.into())?
        };
        let process = self.spec.process().clone().ok_or("the container has no process")?;
        chdir(process.cwd()).map_err(step("changing to the working directory"))?;
        self.drop_privileges(&process)?;
        Ok(process)
    }

    fn connect_streams(&mut self, null: OwnedFd) -> Result<(), String> {
        let step = |error: Errno| format!("connecting streams: {error}");
        let [stdin, stdout, stderr] = &self.program.streams;
        dup2_stdin(stdin.as_ref().unwrap_or(&null)).map_err(step)?;
        dup2_stdout(stdout.as_ref().unwrap_or(&null)).map_err(step)?;
        dup2_stderr(stderr.as_ref().unwrap_or(&null)).map_err(step)
    }

    /// Opens a terminal of the container's own, checks that it is one, and sends its other end to the shim.
    fn connect_terminal(&mut self) -> Result<(), String> {
        const DEVPTS_MAGIC: FsType = FsType(0x1cd1);
        let step = |error: Errno| format!("opening a terminal: {error}");
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let master = open("/dev/pts/ptmx", flags, Mode::empty()).map_err(step)?;
        // The path belongs to the container, which may have put anything there.
        if fstatfs(&master).map_err(step)?.filesystem_type() != DEVPTS_MAGIC {
            return Err("opening a terminal: /dev/pts/ptmx is not a terminal".into());
        }
        unlock(&master).map_err(step)?;
        let terminal = sys::terminal_peer(master.as_fd()).map_err(step)?;
        sys::set_controlling_terminal(terminal.as_fd()).map_err(step)?;
        dup2_stdin(&terminal).map_err(step)?;
        dup2_stdout(&terminal).map_err(step)?;
        dup2_stderr(&terminal).map_err(step)?;
        protocol::send(self.console.as_fd(), &(), &[master.as_raw_fd()]).map_err(|error| error.to_string())
    }

    /// The order is libcontainer's for the first process: a filter without `no_new_privs` needs the rights that are
    /// dropped after it.
    fn drop_privileges(&self, process: &Process) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| format!("dropping privileges: {error}");
        let syscall = create_syscall();
        let user = process.user();
        let groups = user.additional_gids().clone().unwrap_or_default();
        let groups: Vec<_> = groups.into_iter().map(nix_gid).collect();
        nix::unistd::setgroups(&groups).map_err(|error| text(&error))?;
        if let Some(true) = process.no_new_privileges() {
            prctl::set_no_new_privs().map_err(|error| text(&error))?;
        }
        let filter_first = !process.no_new_privileges().unwrap_or(false);
        prctl::set_keepcaps(true).map_err(|error| text(&error))?;
        nix::unistd::setresgid(nix_gid(user.gid()), nix_gid(user.gid()), nix_gid(user.gid()))
            .map_err(|error| text(&error))?;
        let uid = nix::unistd::Uid::from_raw(user.uid());
        nix::unistd::setresuid(uid, uid, uid).map_err(|error| text(&error))?;
        capabilities::reset_effective(syscall.as_ref()).map_err(|error| text(&error))?;
        prctl::set_keepcaps(false).map_err(|error| text(&error))?;
        sys::close_on_exec_from(3).map_err(|error| text(&error))?;
        if filter_first {
            install_filter(&self.filter)?;
        }
        if let Some(wanted) = process.capabilities() {
            capabilities::drop_privileges(wanted, syscall.as_ref()).map_err(|error| text(&error))?;
        }
        if !filter_first {
            install_filter(&self.filter)?;
        }
        Ok(())
    }
}

fn install_filter(filter: &[u8]) -> Result<(), String> {
    if filter.is_empty() {
        return Ok(());
    }
    sys::install_seccomp_filter(filter).map_err(|error| format!("installing the seccomp filter: {error}"))
}

fn nix_gid(gid: u32) -> nix::unistd::Gid {
    nix::unistd::Gid::from_raw(gid)
}

fn unlock(master: &OwnedFd) -> nix::Result<()> {
    sys::unlock_terminal(master.as_fd())
}

/// Becomes the program: found in the `PATH` of its own environment, as a shell would. Returns the reason for failing.
fn exec(args: &[String], process: &Process) -> String {
    let c_strings = |strings: &[String]| -> Result<Vec<CString>, String> {
        strings
            .iter()
            .map(|text| {
                CString::new(text.as_str()).map_err(|_| "an argument contains a zero byte".to_owned())
            })
            .collect()
    };
    let environment = process.env().clone().unwrap_or_default();
    let Some(name) = args.first() else { return "no command".into() };
    let (args, env) = match (c_strings(args), c_strings(&environment)) {
        (Ok(args), Ok(env)) => (args, env),
        (Err(error), _) | (_, Err(error)) => return error,
    };
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let candidates: Vec<String> = if name.contains('/') {
        vec![name.clone()]
    } else {
        path.split(':')
            .map(|directory| Path::new(directory).join(name).to_string_lossy().into_owned())
            .collect()
    };
    let mut reason = format!("exec: {name:?}: executable file not found in $PATH");
    for candidate in candidates {
        let Ok(program) = CString::new(candidate) else { continue };
        match sys::execve(&program, &args, &env) {
            Errno::ENOENT | Errno::ENOTDIR if !name.contains('/') => {}
            error => reason = format!("exec: {name:?}: {}", io::Error::from(error)),
        }
    }
    reason
}
