//! Mounts of containers and sandboxes.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

/// The kernel takes one page of options.
const OPTIONS_BYTES_MAX: usize = 4095;

/// Mounts `layers` as one tree, the top one first: a container's root under a writable directory (and one for the kernel to
/// work in), or without these something that nobody writes to.
pub(crate) fn overlay(target: &Path, layers: &[PathBuf], writable: Option<(&Path, &Path)>) -> io::Result<()> {
    let mut options = b"lowerdir=".to_vec();
    for (index, layer) in layers.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        options.extend_from_slice(layer.as_os_str().as_bytes());
    }
    if let Some((upper, work)) = writable {
        for (name, path) in [("upperdir", upper), ("workdir", work)] {
            options.extend_from_slice(format!(",{name}=").as_bytes());
            options.extend_from_slice(path.as_os_str().as_bytes());
        }
        // What a container writes need not survive a crash of the machine: it does not survive one itself.
        options.extend_from_slice(b",volatile");
    }
    if options.len() > OPTIONS_BYTES_MAX {
        return Err(io::Error::other("the image has too many layers for one mount"));
    }
    let flags = if writable.is_some() { MsFlags::empty() } else { MsFlags::MS_RDONLY };
    Ok(mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_slice()))?)
}

/// Mounts the shared memory of a pod.
pub(crate) fn shared_memory(target: &Path, size_bytes: u64) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("mode=1777,size={size_bytes}");
    Ok(mount(Some("shm"), target, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Mounts a file onto another, for reading only.
pub(crate) fn bind_read_only(source: &Path, target: &Path) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)?;
    Ok(mount(none, target, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?)
}

/// Unmounts; what is not mounted is unmounted. Detaches at once what is still in use.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Everything that is mounted below a directory, innermost first.
pub(crate) fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|target| PathBuf::from(unescape(target)))
        .filter(|target| target.starts_with(directory) && target != directory)
        .collect();
    found.reverse();
    Ok(found)
}

/// Mount tables write spaces and the like as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}
