//! What the agent leaves on the host for its pods' sake, taken away once no pod runs: mounts of volumes, control groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use crate::Error;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Takes away the mounts under the agent's directory and the control groups of its pods. The agent must not run, and the
/// runtime must have ended the pods. Doing it again is no error; volumes' contents and pod records stay.
pub fn destroy(root_dir: &Path, cgroup_root: &str) -> Result<(), Error> {
    unmount_below(root_dir)?;
    let name = cgroup_root.trim_matches('/');
    for hierarchy in hierarchies() {
        remove_cgroup(&hierarchy.join(name))?;
    }
    Ok(())
}

/// Later mounts may lie on earlier ones: the last goes first.
fn unmount_below(directory: &Path) -> Result<(), Error> {
    let table =
        fs::read_to_string("/proc/self/mountinfo").map_err(failed(Path::new("/proc/self/mountinfo")))?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(directory)).collect();
    below.reverse();
    for point in below {
        umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(|error| failed(&point)(error.into()))?;
    }
    Ok(())
}

/// The kernel writes blanks in paths as octal numbers.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
}

/// With version 1 every controller has a hierarchy of its own.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    let controllers = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let separate = controllers.filter(|path| path.join("cgroup.procs").exists() && !path.is_symlink());
    if root.join("cgroup.controllers").exists() { vec![root.to_path_buf()] } else { separate.collect() }
}

/// Control groups go from the leaves to the root; the files in them are not ours to remove.
fn remove_cgroup(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed(path))?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Directory { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_there_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        destroy(directory.path(), "/gantry-destroy-test-of-nothing").unwrap();
    }

    #[test]
    fn mounts_are_gone_afterwards_and_control_groups_too() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let point = directory.path().join("a volume");
        fs::create_dir(&point).unwrap();
        nix::mount::mount(Some("tmpfs"), &point, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)
            .unwrap();
        let name = format!("gantry-destroy-test-{}", std::process::id());
        let groups: Vec<PathBuf> =
            hierarchies().iter().map(|h| h.join(&name).join("kubepods/pod1")).collect();
        for group in &groups {
            fs::create_dir_all(group).unwrap();
        }
        destroy(directory.path(), &format!("/{name}")).unwrap();
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("a\\040volume"));
        assert!(groups.iter().all(|group| !group.exists()));
    }
}
