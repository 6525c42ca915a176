//! A part of a volume as a mount of its own.
//!
//! Guarantees: whatever a container does with links inside the volume, nothing outside of it is mounted: the path is
//! resolved, checked, walked again without following links, and the file that this walk opened is what gets mounted.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

use super::place::{ensure_dir, mounts_below};

/// Mounts `volume/sub_path` at `target` (made as needed), and gives `target`. A missing directory is made.
pub fn bind(volume: &Path, sub_path: &str, target: &Path) -> Result<PathBuf, String> {
    let relative = Path::new(sub_path);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("subPath \"{sub_path}\" must stay inside the volume"));
    }
    let base = volume.canonicalize().map_err(|error| format!("{}: {error}", volume.display()))?;
    let resolved = resolve(&base, relative)?;
    let inside = resolved
        .strip_prefix(&base)
        .map_err(|_| format!("subPath \"{sub_path}\" leads out of the volume"))?;
    let source = walk(&base, inside)?;
    let mounted = mounts_below(target).map_err(|error| error.to_string())?;
    if mounted.iter().any(|path| path == target) {
        return Ok(target.to_path_buf());
    }
    if resolved.is_dir() {
        ensure_dir(target, 0o755).map_err(|error| error.to_string())?;
    } else {
        let parent = target.parent().unwrap_or(target);
        ensure_dir(parent, 0o755).map_err(|error| error.to_string())?;
        std::fs::write(target, b"").map_err(|error| error.to_string())?;
    }
    let from = format!("/proc/self/fd/{}", source.as_raw_fd());
    let none: Option<&str> = None;
    mount(Some(from.as_str()), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .map_err(|error| format!("mounting subPath \"{sub_path}\": {error}"))?;
    Ok(target.to_path_buf())
}

/// Follows the links of what exists; what does not exist keeps its name.
fn resolve(base: &Path, relative: &Path) -> Result<PathBuf, String> {
    let mut existing = base.join(relative);
    let mut missing = Vec::new();
    while std::fs::symlink_metadata(&existing).is_err() {
        let Some(name) = existing.file_name().map(std::ffi::OsStr::to_os_string) else { break };
        missing.push(name);
        existing.pop();
    }
    let mut resolved = existing.canonicalize().map_err(|error| format!("{}: {error}", existing.display()))?;
    resolved.extend(missing.iter().rev());
    Ok(resolved)
}

/// Opens a path part by part, following no link, and making directories that are missing.
fn walk(base: &Path, relative: &Path) -> Result<OwnedFd, String> {
    let complain = |error: Errno| format!("{}: {error}", base.join(relative).display());
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut current = open(base, flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(complain)?;
    for part in relative.components() {
        let name = part.as_os_str();
        let next = match openat(&current, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                mkdirat(&current, name, Mode::from_bits_truncate(0o755)).map_err(complain)?;
                openat(&current, name, flags, Mode::empty())
            }
            other => other,
        };
        current = next.map_err(complain)?;
        let stat = nix::sys::stat::fstat(&current).map_err(complain)?;
        if stat.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(format!("{}: a link appeared while it was opened", base.join(relative).display()));
        }
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_out_of_the_volume_is_refused() {
        let dir = std::env::temp_dir().join(format!("subpath-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(dir.join("volume")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("volume/out")).unwrap();
        let error = bind(&dir.join("volume"), "out/hosts", &dir.join("target")).unwrap_err();
        assert!(error.contains("leads out"), "{error}");
        assert!(bind(&dir.join("volume"), "../volume", &dir.join("target")).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
