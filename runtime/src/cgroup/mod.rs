//! Control groups, version 1 (also beside an empty version 2) and version 2, by their files.
//!
//! Paths are relative to the root of the hierarchy, as the agent gives them (`/kubepods/burstable/pod…`). Limits of new
//! containers are set by libcontainer from the same values; this module changes them later, reads usage, and cleans up.

mod limits;
mod usage;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub(crate) use limits::Limits;
pub(crate) use usage::Usage;

/// The controllers of version 1 that are used; others that a host mounts are joined and removed too.
const ROOT: &str = "/sys/fs/cgroup";
/// How long emptied groups may take to become removable.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    #[error("no cgroup hierarchy is mounted at {ROOT}")]
    NotMounted,
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("cgroup path {0:?} leaves the hierarchy")]
    Path(String),
}

/// The hierarchies of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// One directory per controller: its name and where it is mounted.
    V1(Vec<(String, PathBuf)>),
    V2(PathBuf),
}

impl Cgroups {
    /// Finds out what the host has. It does not change while it runs, so it is looked at once.
    pub(crate) fn detect() -> Result<Self, CgroupError> {
        static DETECTED: OnceLock<Cgroups> = OnceLock::new();
        if let Some(detected) = DETECTED.get() {
            return Ok(detected.clone());
        }
        let detected = Self::look()?;
        Ok(DETECTED.get_or_init(|| detected).clone())
    }

    fn look() -> Result<Self, CgroupError> {
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            return Ok(Self::V2(ROOT.into()));
        }
        let mounts = fs::read_to_string("/proc/self/mounts")
            .map_err(|error| CgroupError::Io("/proc/self/mounts".into(), error))?;
        let controllers = Self::v1_from_mounts(&mounts);
        if controllers.is_empty() { Err(CgroupError::NotMounted) } else { Ok(Self::V1(controllers)) }
    }

    fn v1_from_mounts(mounts: &str) -> Vec<(String, PathBuf)> {
        let mut controllers: Vec<(String, PathBuf)> = Vec::new();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(target), Some("cgroup"), Some(options)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let target = PathBuf::from(target);
            if !target.starts_with(ROOT) || controllers.iter().any(|(_, have)| *have == target) {
                continue;
            }
            let is_controller = |option: &&str| {
                [
                    "cpu",
                    "cpuacct",
                    "cpuset",
                    "memory",
                    "devices",
                    "freezer",
                    "blkio",
                    "pids",
                    "hugetlb",
                    "perf_event",
                    "net_cls",
                    "net_prio",
                    "name=systemd",
                ]
                .contains(option)
            };
            for controller in options.split(',').filter(is_controller) {
                controllers.push((controller.to_owned(), target.clone()));
            }
        }
        controllers
    }

    /// The directories of a group, one per hierarchy.
    fn directories(&self, group: &str) -> Result<Vec<PathBuf>, CgroupError> {
        let relative = group.trim_start_matches('/');
        if relative.is_empty() || relative.split('/').any(|part| part == ".." || part == ".") {
            return Err(CgroupError::Path(group.to_owned()));
        }
        let mut directories: Vec<_> = match self {
            Self::V1(controllers) => controllers.iter().map(|(_, mount)| mount.join(relative)).collect(),
            Self::V2(mount) => vec![mount.join(relative)],
        };
        directories.dedup();
        Ok(directories)
    }

    /// The directory in which a controller's files of a group are.
    fn controller(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let relative = group.trim_start_matches('/');
        match self {
            Self::V1(controllers) => {
                controllers.iter().find(|(name, _)| name == controller).map(|(_, mount)| mount.join(relative))
            }
            Self::V2(mount) => Some(mount.join(relative)),
        }
    }

    /// Moves the calling process into a group, making the group if need be.
    pub(crate) fn join(&self, group: &str) -> Result<(), CgroupError> {
        for directory in self.directories(group)? {
            if !directory.exists() {
                fs::create_dir_all(&directory).map_err(|error| CgroupError::Io(directory.clone(), error))?;
                inherit_cpuset(&directory)?;
            }
            let file = directory.join("cgroup.procs");
            fs::write(&file, "0").map_err(|error| CgroupError::Io(file, error))?;
        }
        Ok(())
    }

    /// The processes of a group and of the groups inside it.
    pub(crate) fn processes(&self, group: &str) -> Result<Vec<Pid>, CgroupError> {
        let mut pids = Vec::new();
        for directory in self.directories(group)? {
            collect_processes(&directory, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids.into_iter().map(Pid::from_raw).collect())
    }

    /// Kills every process of a group. A group that does not exist has none.
    pub(crate) fn kill_all(&self, group: &str) -> Result<(), CgroupError> {
        if let Self::V2(_) = self {
            for directory in self.directories(group)? {
                let file = directory.join("cgroup.kill");
                if file.exists() {
                    return fs::write(&file, "1").map_err(|error| CgroupError::Io(file, error));
                }
            }
        }
        // Processes may fork while they are being killed; a few rounds catch up with any that is not a fork bomb, and
        // that one its limit on processes stops.
        for _ in 0..5 {
            let pids = self.processes(group)?;
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                match kill(pid, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => return Err(CgroupError::Io(format!("/proc/{pid}").into(), error.into())),
                }
            }
        }
        Ok(())
    }

    /// Removes a group and the groups inside it, whose processes have been killed. Waits a moment for them to be gone.
    pub(crate) fn remove(&self, group: &str) -> Result<(), CgroupError> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        for directory in self.directories(group)? {
            loop {
                match remove_tree(&directory) {
                    Ok(()) => break,
                    Err(CgroupError::Io(_, error))
                        if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
                    {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Removes a group if it is empty already. What is not is removed later, by [`Cgroups::remove`].
    pub(crate) fn remove_if_empty(&self, group: &str) -> Result<(), CgroupError> {
        for directory in self.directories(group)? {
            remove_tree(&directory)?;
        }
        Ok(())
    }

    /// How many processes of a group the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self, group: &str) -> u64 {
        let Some(directory) = self.controller("memory", group) else { return 0 };
        let file = match self {
            Self::V1(_) => directory.join("memory.oom_control"),
            Self::V2(_) => directory.join("memory.events"),
        };
        // A group that is gone has no more to tell.
        fs::read_to_string(file).map(|text| keyed(&text, "oom_kill")).unwrap_or_default()
    }
}

/// A group of version 1 has no processors until it is told which.
fn inherit_cpuset(directory: &Path) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = directory.join(name);
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if text.trim().is_empty()
            && let Some(parent) = directory.parent()
            && file.exists()
            && directory.join("cpuset.cpu_exclusive").exists()
        {
            inherit_parent_cpuset(parent, name)?;
            let value = fs::read_to_string(parent.join(name))
                .map_err(|error| CgroupError::Io(parent.join(name), error))?;
            fs::write(&file, value.trim()).map_err(|error| CgroupError::Io(file, error))?;
        }
    }
    Ok(())
}

fn inherit_parent_cpuset(directory: &Path, name: &str) -> Result<(), CgroupError> {
    let file = directory.join(name);
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    let Some(parent) =
        directory.parent().filter(|parent| text.trim().is_empty() && *parent != Path::new(ROOT))
    else {
        return Ok(());
    };
    inherit_parent_cpuset(parent, name)?;
    let value =
        fs::read_to_string(parent.join(name)).map_err(|error| CgroupError::Io(parent.join(name), error))?;
    fs::write(&file, value.trim()).map_err(|error| CgroupError::Io(file, error))
}

fn collect_processes(directory: &Path, pids: &mut Vec<i32>) -> Result<(), CgroupError> {
    let file = directory.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A group of version 2 with threads inside cannot list processes; its parent does.
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => return Ok(()),
        Err(error) => return Err(CgroupError::Io(file, error)),
    }
    for child in child_directories(directory)? {
        collect_processes(&child, pids)?;
    }
    Ok(())
}

fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    for child in child_directories(directory)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CgroupError::Io(directory.to_owned(), error)),
    }
}

fn child_directories(directory: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CgroupError::Io(directory.to_owned(), error)),
    };
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(entries.filter_map(Result::ok).filter(is_directory).map(|entry| entry.path()).collect())
}

/// The value behind a key in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_a_hybrid_host_should_be_found_without_the_empty_second_version() {
        let mounts = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
                      tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n";
        let found = Cgroups::V1(Cgroups::v1_from_mounts(mounts));
        assert_eq!(found.controller("cpuacct", "/a/b"), Some("/sys/fs/cgroup/cpu,cpuacct/a/b".into()));
        assert_eq!(found.directories("a").unwrap().len(), 2);
        assert!(found.directories("/a/../..").is_err());
    }
}
