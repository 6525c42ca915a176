//! The first process of a pod whose containers share their process namespace: it reaps orphans and otherwise sleeps.
//!
//! The containers see it, and one that may trace processes can look through its eyes. So there is nothing to see: an
//! empty, read-only root of its own, no descriptors, no rights, and a user that owns nothing.

use std::{fs::File, os::fd::AsFd, path::Path};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        wait::waitpid,
    },
    unistd::{Gid, Pid, Uid, chdir, pivot_root, setgroups, setresgid, setresuid},
};

use crate::sys;

/// As the pause images of other runtimes have it.
const NOBODY: u32 = 65_535;

/// Starts the process in a namespace of its own, and leaves the caller in its own.
pub(super) fn start(directory: &Path) -> nix::Result<Pid> {
    let own = File::open("/proc/self/ns/pid").map_err(|_| Errno::ENOENT)?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let forked = sys::fork_single_threaded();
    match forked {
        Ok(None) => run(directory),
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

/// Leaves the host: its files, its descriptors and its rights. `directory` only has to exist, to mount something over.
fn confine(directory: &Path) -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("pause"), directory, Some("tmpfs"), MsFlags::MS_RDONLY, Some("mode=555,nr_inodes=1"))?;
    chdir(directory)?;
    // The new root over the old one, which is then underneath and taken away.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    sys::close_from(0)?;
    setgroups(&[])?;
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    prctl::set_no_new_privs()?;
    // Last, because a change of user takes it back.
    prctl::set_pdeathsig(Signal::SIGKILL)
}

fn run(directory: &Path) -> ! {
    if prctl::set_name(c"pause").and_then(|()| confine(directory)).is_err() {
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
