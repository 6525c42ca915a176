//! The system calls that have no safe wrapper elsewhere. Everything unsafe of this crate is here, in functions that are
//! safe to call as documented.
#![allow(unsafe_code)] // Raw system calls; each block says why it is sound.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicI32, Ordering},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal},
    unistd::{ForkResult, Pid},
};

/// Forks. Only for single-threaded processes: the child may then run any code.
pub(crate) fn fork_single_threaded() -> nix::Result<Option<Pid>> {
    // SAFETY: the callers are the shim and its children, which never start a thread, so no lock can be held by a thread
    // that does not exist in the child.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

static CHILD_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_child_signal(_: libc::c_int) {
    let descriptor = CHILD_PIPE.load(Ordering::Relaxed);
    // SAFETY: write is async-signal-safe; the byte lives on the stack; errno is restored for the interrupted code.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(descriptor, [1u8].as_ptr().cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Makes a pipe that becomes readable whenever a child ends. The handler (unlike a blocked signal) is not inherited by
/// the programs that containers run.
pub(crate) fn child_signal_pipe() -> nix::Result<OwnedFd> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    CHILD_PIPE.store(std::os::fd::IntoRawFd::into_raw_fd(write), Ordering::Relaxed);
    let flags = SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP;
    let action = SigAction::new(SigHandler::Handler(on_child_signal), flags, SigSet::empty());
    // SAFETY: the handler above is async-signal-safe.
    unsafe { nix::sys::signal::sigaction(Signal::SIGCHLD, &action)? };
    Ok(read)
}

/// Gives signals their default effect and unblocks all, as a program expects to find them.
pub(crate) fn reset_signals() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: installing the default action runs no code of ours.
            unsafe { nix::sys::signal::sigaction(signal, &default)? };
        }
    }
    SigSet::empty().thread_set_mask()
}

extern "C" fn on_unheeded_signal(_: libc::c_int) {}

/// Lets a signal pass without effect on this process. Unlike an ignored signal, which stays ignored in every program that
/// is run later, this ends with exec.
pub(crate) fn pass_over_signal(signal: Signal) -> nix::Result<()> {
    let action =
        SigAction::new(SigHandler::Handler(on_unheeded_signal), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { nix::sys::signal::sigaction(signal, &action)? };
    Ok(())
}

/// Ignores a signal.
pub(crate) fn ignore_signal(signal: Signal) -> nix::Result<()> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { nix::sys::signal::sigaction(signal, &ignore)? };
    Ok(())
}

/// Takes ownership of descriptors that the kernel has just installed in this process.
pub(crate) fn adopt(descriptors: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: the caller passes what recvmsg installed; nothing else knows these numbers.
    descriptors.into_iter().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }).collect()
}

/// Opens a handle to a process that cannot come to mean another one.
pub(crate) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: plain numbers in, a new descriptor out.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let descriptor = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just installed it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Marks all descriptors from `first` on as closed on exec.
pub(crate) fn close_on_exec_from(first: u32) -> nix::Result<()> {
    // SAFETY: plain numbers; only flags of descriptors change.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// Closes all descriptors from `first` on, in a process that uses none of them any more.
pub(crate) fn close_from(first: u32) -> nix::Result<()> {
    // SAFETY: the only caller is a forked child that never returns to code that owns one of them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    Errno::result(result).map(drop)
}

/// Puts a compiled seccomp filter (instructions of eight bytes) in force for this process and all it becomes.
pub(crate) fn install_seccomp_filter(program: &[u8]) -> nix::Result<()> {
    let mut instructions: Vec<libc::sock_filter> = program
        .as_chunks::<8>()
        .0
        .iter()
        .map(|[code_low, code_high, jt, jf, k @ ..]| libc::sock_filter {
            code: u16::from_ne_bytes([*code_low, *code_high]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes(*k),
        })
        .collect();
    let length = u16::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog { len: length, filter: instructions.as_mut_ptr() };
    // SAFETY: the structure and the instructions that it points to outlive the call, which copies them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
    Errno::result(result).map(drop)
}

/// Makes a terminal the controlling one of this session.
pub(crate) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: the ioctl takes a number and changes kernel state only.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Sets the size of a terminal.
pub(crate) fn set_terminal_size(terminal: BorrowedFd<'_>, width: u16, height: u16) -> nix::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure outlives the call, which only reads it.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// Opens the other end of a terminal without going through any path.
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    const TIOCGPTPEER: libc::c_ulong = 0x5441;
    // SAFETY: flags in, a new descriptor out.
    let result = unsafe {
        libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)
    };
    let descriptor = Errno::result(result)?;
    // SAFETY: the kernel has just installed it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Replaces this process by a program; returns only on failure.
pub(crate) fn execve(program: &CString, args: &[CString], env: &[CString]) -> Errno {
    match nix::unistd::execve(program, args, env) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// The error of a system call as an input/output error.
pub(crate) fn errno_to_io(error: Errno) -> io::Error {
    io::Error::from_raw_os_error(error as i32)
}

/// Allows the other end of a terminal to be opened.
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> nix::Result<()> {
    let unlock: libc::c_int = 0;
    // SAFETY: the ioctl reads one integer that outlives the call.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock) }).map(drop)
}

/// Brings the loopback interface of the calling thread's network namespace up.
pub(crate) fn bring_loopback_up() -> nix::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all-zero bytes are a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the structure is initialised and outlives the call, which only reads it.
    Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS, &request) }).map(drop)
}

/// Watches a descriptor after making it non-blocking.
pub(crate) fn watch_nonblocking(descriptor: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    use nix::fcntl::{FcntlArg, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL)?);
    fcntl(&descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    watch(descriptor)
}

/// Watches a descriptor that is owned by the watch and stays open as long as it.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: the watch owns the descriptor, gives it out only by shared reference, and deregisters before closing it.
    unsafe { tokio::io::unix::AsyncFd::register(descriptor) }.map_err(io::Error::from)
}
