//! Entering network namespaces, without ever moving a thread that anybody else uses.
//!
//! A thread is made for each visit and ends with it; a socket opened there keeps working in that namespace from any
//! thread afterwards, which is all that most callers need.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Protocol, Socket};

/// Opens the namespace file at `path` (a bind mount or `/proc/<pid>/ns/net`).
pub fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Namespace { path: path.display().to_string(), source })
}

/// Runs `work` on a thread of its own inside `namespace` and returns its result.
pub fn run_in<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let failed = |source| Error::Namespace { path: format!("{namespace:?}"), source };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            Ok(work())
        });
        let joined = thread.map_err(failed)?.join();
        joined.map_err(|_| failed(io::Error::other("the visiting thread panicked")))?.map_err(failed)
    })
}

/// A socket that lives in `namespace`.
pub fn socket_in(namespace: &File, protocol: Protocol) -> Result<Socket, Error> {
    run_in(namespace, || Socket::open(protocol))?
}

/// Makes a new network namespace and returns a handle that keeps it alive. Nothing is mounted.
pub fn create() -> Result<File, Error> {
    let failed = |source| Error::Namespace { path: "(new)".to_owned(), source };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            File::open("/proc/thread-self/ns/net")
        });
        thread.join().map_err(|_| failed(io::Error::other("the creating thread panicked")))?.map_err(failed)
    })
}
