//! Paths inside a root file system that nobody vouches for: links never lead out of it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, mkdirat},
};

/// Files that are read out of images are small; more is not read.
const READ_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Reads a regular file of a root file system; nothing if it is not there.
pub(crate) fn read(root: &Path, path: &Path) -> io::Result<Option<String>> {
    let root = File::open(root)?;
    let file = match open(root.as_fd(), path.as_os_str(), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Where a path of a root file system that nobody changes leads to; an empty one to the root.
pub(crate) fn find(root: &Path, path: &Path) -> io::Result<std::path::PathBuf> {
    let opened = open(File::open(root)?.as_fd(), Path::new(".").join(path).as_os_str(), OFlag::O_PATH)?;
    std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

/// Makes a directory of a root file system and its parents, as far as they are not there.
pub(crate) fn make_directory(root: &Path, path: &Path) -> io::Result<()> {
    let root = File::open(root)?;
    let mut relative = std::path::PathBuf::from(".");
    let mut parent: OwnedFd = root.try_clone()?.into();
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        relative.push(name);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        parent = match open(root.as_fd(), relative.as_os_str(), flags) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => {
                mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?;
                open(root.as_fd(), relative.as_os_str(), flags)?
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(())
}

fn open(root: std::os::fd::BorrowedFd<'_>, path: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}
