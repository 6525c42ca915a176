//! Directories and mounts under the agent's root, in upstream's layout.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::quantity;

/// A pod's directory.
pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// A volume's directory.
pub fn volume_dir(root: &Path, uid: &str, plugin: &str, name: &str) -> PathBuf {
    pod_dir(root, uid).join("volumes").join(plugin).join(name)
}

/// Makes a directory with its parents; the mode is the last one's, whatever the umask.
pub fn ensure_dir(path: &Path, mode: u32) -> io::Result<()> {
    if !path.is_dir() {
        std::fs::create_dir_all(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Everything mounted below a path, the deepest first.
pub fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|mounted| mounted.starts_with(path))
        .collect();
    found.sort_by_key(|mounted| std::cmp::Reverse(mounted.components().count()));
    Ok(found)
}

/// mountinfo writes blanks and the like as octal.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Mounts a tmpfs unless there is one.
pub fn ensure_tmpfs(dir: &Path, size_bytes: Option<i64>) -> Result<(), String> {
    let mounted = mounts_below(dir).map_err(|error| error.to_string())?;
    if mounted.iter().any(|path| path == dir) {
        return Ok(());
    }
    let options = size_bytes.filter(|size| *size > 0).map(|size| format!("size={size}"));
    let none: Option<&str> = None;
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), options.as_deref().or(none))
        .map_err(|error| format!("mounting tmpfs at {}: {error}", dir.display()))
}

/// Makes an emptyDir.
pub fn empty_dir(dir: &Path, source: &EmptyDirVolumeSource, fs_group: Option<i64>) -> Result<(), String> {
    ensure_dir(dir, 0o777).map_err(|error| error.to_string())?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            ensure_tmpfs(dir, source.size_limit.as_ref().map(quantity::units))?;
        }
        other => return Err(format!("unknown storage medium \"{other}\"")),
    }
    let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
    if let Some(group) = fs_group {
        let group = u32::try_from(group).map_err(|error| error.to_string())?;
        std::os::unix::fs::chown(dir, None, Some(group)).map_err(|error| error.to_string())?;
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).map_err(|error| error.to_string())
}

/// Checks a hostPath against its type, and makes what it may make.
pub fn host_path(path: &str, kind: &str) -> Result<(), String> {
    let metadata = std::fs::metadata(path);
    let fails = |what: &str| Err(format!("hostPath type check failed: {path} is not {what}"));
    let is = |check: fn(&std::fs::FileType) -> bool| metadata.as_ref().is_ok_and(|m| check(&m.file_type()));
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if metadata.is_err() => {
            ensure_dir(Path::new(path), 0o755).map_err(|e| e.to_string())
        }
        "FileOrCreate" if metadata.is_err() => {
            let made = std::fs::OpenOptions::new().create(true).append(true).open(path);
            made.map(drop).map_err(|error| error.to_string())
        }
        "Directory" | "DirectoryOrCreate" if is(std::fs::FileType::is_dir) => Ok(()),
        "Directory" | "DirectoryOrCreate" => fails("a directory"),
        "File" | "FileOrCreate" if is(std::fs::FileType::is_file) => Ok(()),
        "File" | "FileOrCreate" => fails("a file"),
        "Socket" if is(FileTypeExt::is_socket) => Ok(()),
        "Socket" => fails("a socket file"),
        "CharDevice" if is(FileTypeExt::is_char_device) => Ok(()),
        "CharDevice" => fails("a character device"),
        "BlockDevice" if is(FileTypeExt::is_block_device) => Ok(()),
        "BlockDevice" => fails("a block device"),
        other => Err(format!("\"{other}\" is an invalid volume type")),
    }
}

/// Unmounts everything below a pod's directory and removes it. Nothing outside of the agent's root is touched: a mount that
/// cannot be undone is an error, and its files stay.
pub fn clean_up(root: &Path, uid: &str) -> Result<(), String> {
    let dir = pod_dir(root, uid);
    if !dir.exists() {
        return Ok(());
    }
    for mounted in mounts_below(&dir).map_err(|error| error.to_string())? {
        umount2(&mounted, MntFlags::UMOUNT_NOFOLLOW)
            .or_else(|_| umount2(&mounted, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH))
            .map_err(|error| format!("unmounting {}: {error}", mounted.display()))?;
    }
    if !mounts_below(&dir).map_err(|error| error.to_string())?.is_empty() {
        return Err(format!("{} still has mounts", dir.display()));
    }
    std::fs::remove_dir_all(&dir).map_err(|error| format!("removing {}: {error}", dir.display()))
}
