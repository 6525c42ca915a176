//! The first process of a pod whose containers share their process namespace: it reaps orphans and otherwise sleeps.

use std::{fs::File, os::fd::AsFd};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        wait::waitpid,
    },
    unistd::Pid,
};

use crate::sys;

/// Starts the process in a namespace of its own, and leaves the caller in its own.
pub(super) fn start() -> nix::Result<Pid> {
    let own = File::open("/proc/self/ns/pid").map_err(|_| Errno::ENOENT)?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let forked = sys::fork_single_threaded();
    match forked {
        Ok(None) => run(),
        Ok(Some(pid)) => {
            setns(own.as_fd(), CloneFlags::CLONE_NEWPID)?;
            Ok(pid)
        }
        Err(error) => {
            setns(own.as_fd(), CloneFlags::CLONE_NEWPID)?;
            Err(error)
        }
    }
}

fn run() -> ! {
    let prepared = prctl::set_pdeathsig(Signal::SIGKILL)
        .and_then(|()| sys::close_from(3))
        .and_then(|()| prctl::set_name(c"pause"));
    if prepared.is_err() {
        std::process::exit(1)
    }
    let mut child_ended = SigSet::empty();
    child_ended.add(Signal::SIGCHLD);
    if child_ended.thread_block().is_err() {
        std::process::exit(1)
    }
    loop {
        // Reap what there is, then sleep until there is more. A first process ignores all other signals.
        match waitpid(None::<Pid>, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            Ok(status) if status.pid().is_some() => {}
            _ => {
                if child_ended.wait().is_err() {
                    std::process::exit(1)
                }
            }
        }
    }
}
