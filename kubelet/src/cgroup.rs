//! The cgroups that pods live in: `<root>/kubepods[/<class>]/pod<uid>`, on cgroup v1 and v2 alike.
//!
//! The agent makes a pod's cgroup with the pod's limits before its sandbox, and removes it when nothing of the pod runs.
//! With the systemd driver the slices are systemd's: it makes and removes them, and pods have no limits of their own beside
//! their containers'. Deliberately absent: shares of whole classes of service.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::config::CgroupDriver;
use crate::pod::{PodExt, PodLimits, QosClass};

const MOUNT: &str = "/sys/fs/cgroup";
const KUBEPODS: &str = "kubepods";
const CONTROLLERS_V2: &str = "+cpuset +cpu +io +memory +pids";

/// Knows the node's cgroups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: String,
    driver: CgroupDriver,
    /// Whether there is but one hierarchy.
    pub v2: bool,
}

impl Cgroups {
    /// `root` is an absolute path in each hierarchy, such as `/gantry`.
    pub fn new(root: &str, driver: CgroupDriver) -> Self {
        let v2 = Path::new(MOUNT).join("cgroup.controllers").exists();
        Self { root: root.trim_matches('/').to_string(), driver, v2 }
    }

    /// What the runtime is told as the parent of a pod's cgroups.
    pub fn parent(&self, pod: &Pod) -> String {
        match self.driver {
            CgroupDriver::Cgroupfs => format!("/{}", self.path(pod)),
            CgroupDriver::Systemd => {
                let uid = pod.uid().replace('-', "_");
                let root = self.root.replace('/', "-");
                let class = class_dir(pod.qos_class()).map_or(String::new(), |class| format!("-{class}"));
                let prefix =
                    if root.is_empty() { KUBEPODS.to_string() } else { format!("{root}-{KUBEPODS}") };
                format!("{prefix}{class}-pod{uid}.slice")
            }
        }
    }

    fn path(&self, pod: &Pod) -> String {
        let mut path = if self.root.is_empty() { String::new() } else { format!("{}/", self.root) };
        path.push_str(KUBEPODS);
        if let Some(class) = class_dir(pod.qos_class()) {
            path.push('/');
            path.push_str(class);
        }
        format!("{path}/pod{}", pod.uid())
    }

    /// Makes a pod's cgroup with its limits, or gives it other ones.
    pub fn set(&self, pod: &Pod, limits: &PodLimits) -> io::Result<()> {
        if self.driver == CgroupDriver::Systemd {
            return Ok(());
        }
        let path = self.path(pod);
        if self.v2 { create_v2(&path, limits) } else { create_v1(&path, limits) }
    }

    /// Removes a pod's cgroup from every hierarchy, if it is empty of processes.
    pub fn remove(&self, pod: &Pod) -> io::Result<()> {
        if self.driver == CgroupDriver::Systemd {
            return Ok(());
        }
        let path = self.path(pod);
        for hierarchy in hierarchies()? {
            remove_tree(&hierarchy.join(&path))?;
        }
        Ok(())
    }

    /// Removes what is left of pods that are not among `known`; gives how many there were.
    pub fn remove_leftovers(&self, known: &dyn Fn(&str) -> bool) -> usize {
        if self.driver == CgroupDriver::Systemd {
            return 0;
        }
        let mut removed = 0;
        for hierarchy in hierarchies().unwrap_or_default() {
            let kubepods = hierarchy.join(&self.root).join(KUBEPODS);
            for dir in [kubepods.clone(), kubepods.join("burstable"), kubepods.join("besteffort")] {
                for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                    let name = entry.file_name();
                    let uid = name.to_str().and_then(|name| name.strip_prefix("pod"));
                    if uid.is_some_and(|uid| !known(uid)) && remove_tree(&entry.path()).is_ok() {
                        removed += 1;
                    }
                }
            }
        }
        removed
    }
}

fn class_dir(class: QosClass) -> Option<&'static str> {
    match class {
        QosClass::Guaranteed => None,
        QosClass::Burstable => Some("burstable"),
        QosClass::BestEffort => Some("besteffort"),
    }
}

/// Every hierarchy's mount point.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let is_cgroup = |line: &&str| line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
    let points = table.lines().filter(is_cgroup).filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    Ok(points.filter(|point| point.starts_with(MOUNT)).collect())
}

fn create_v1(path: &str, limits: &PodLimits) -> io::Result<()> {
    let dir = |controller: &str| Path::new(MOUNT).join(controller).join(path);
    let cpu = dir("cpu");
    std::fs::create_dir_all(&cpu)?;
    write(&cpu, "cpu.shares", limits.cpu_shares)?;
    write(&cpu, "cpu.cfs_period_us", limits.cpu_period_us)?;
    write(&cpu, "cpu.cfs_quota_us", limits.cpu_quota_us.unwrap_or(-1))?;
    let memory = dir("memory");
    std::fs::create_dir_all(&memory)?;
    write(&memory, "memory.limit_in_bytes", limits.memory_bytes.unwrap_or(-1))?;
    std::fs::create_dir_all(dir("pids"))
}

fn create_v2(path: &str, limits: &PodLimits) -> io::Result<()> {
    let mut dir = PathBuf::from(MOUNT);
    for part in Path::new(path).components() {
        // Not every controller is there on every node: each is asked for alone.
        for controller in CONTROLLERS_V2.split(' ') {
            if let Err(error) = std::fs::write(dir.join("cgroup.subtree_control"), controller) {
                tracing::debug!(dir = %dir.display(), controller, %error, "a controller is not available");
            }
        }
        dir.push(part);
        if !dir.exists() {
            std::fs::create_dir(&dir)?;
        }
    }
    let weight = 1 + (limits.cpu_shares - 2) * 9999 / 262_142;
    write(&dir, "cpu.weight", weight.max(1))?;
    let text = |limit: Option<i64>| limit.map_or("max".to_string(), |limit| limit.to_string());
    std::fs::write(dir.join("cpu.max"), format!("{} {}", text(limits.cpu_quota_us), limits.cpu_period_us))?;
    std::fs::write(dir.join("memory.max"), text(limits.memory_bytes))
}

fn write(dir: &Path, file: &str, value: i64) -> io::Result<()> {
    std::fs::write(dir.join(file), value.to_string())
        .map_err(|error| io::Error::new(error.kind(), format!("{}/{file}: {error}", dir.display())))
}

/// Removes a cgroup with those below it. One that still holds a process stays, and is an error.
fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
