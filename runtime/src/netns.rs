//! Network namespaces that live as files, so that they outlast every process.

use std::{fs, io, net::SocketAddr, os::fd::AsFd, path::Path};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::sys;

/// Makes a namespace with its loopback interface up, reachable at `path`.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    fs::File::create(path)?;
    // A thread of its own, whose namespace ends with it and with the file.
    let made = on_thread({
        let path = path.to_owned();
        move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            sys::bring_loopback_up()?;
            let none = None::<&str>;
            mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none)?;
            Ok(())
        }
    });
    if made.is_err() {
        remove(path)?;
    }
    made
}

/// Removes a namespace; one that is gone already is removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Connects to an address as seen from inside a namespace.
pub(crate) async fn connect(netns: &Path, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let netns = fs::File::open(netns)?;
    // A socket belongs for ever to the namespace that it was made in.
    let make = move || {
        on_thread(move || {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
            match address {
                SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
                SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
            }
        })
    };
    let handle = tokio::runtime::Handle::current();
    let socket = tokio::task::spawn_blocking(move || {
        let _entered = handle.enter();
        make()
    });
    socket.await.map_err(io::Error::other)??.connect(address).await
}

/// Runs something that changes what the thread is part of on a thread that ends with it.
fn on_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("netns".into()).stack_size(256 * 1024).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the thread panicked"))?
}
