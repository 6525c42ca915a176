//! What a pod's containers were granted, and what those that run still have of an earlier grant.
//!
//! Guarantees: it is in a file of the pod's own before anything follows from it, so that an agent which is started anew grants
//! nothing twice and finishes what was begun. The file is replaced in one step and goes with the pod's directory; it is not
//! synced, because no container that it tells of outlives the machine.
//!
//! Assumes of a pod without a file, such as one that an older agent started, that it has what its spec says.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use super::spec::{PodExt, amount};
use crate::quantity;
use crate::volume;

/// Resources by the containers' names.
type ByContainer = BTreeMap<String, ResourceRequirements>;

/// What containers were granted and have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    granted: ByContainer,
    /// Of containers that were running when they were granted something else: what they have.
    outgrown: ByContainer,
}

/// Which of a container's resources are not as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    cpu: bool,
    memory: bool,
}

impl Change {
    fn between(old: Option<&ResourceRequirements>, new: Option<&ResourceRequirements>) -> Option<Self> {
        let differs = |name: &str| {
            let read = if name == "cpu" { quantity::millis } else { quantity::units };
            let of = |resources, limit| amount(resources, limit, name).map_or(0, read);
            [true, false].into_iter().any(|limit| of(old, limit) != of(new, limit))
        };
        let change = Self { cpu: differs("cpu"), memory: differs("memory") };
        (change.cpu || change.memory).then_some(change)
    }

    /// Whether the container wants to be started anew for it.
    pub fn restarts(self, container: &Container) -> bool {
        container.resize_policy.iter().flatten().any(|policy| {
            let is_concerned = match policy.resource_name.as_str() {
                "cpu" => self.cpu,
                "memory" => self.memory,
                _ => false,
            };
            is_concerned && policy.restart_policy == "RestartContainer"
        })
    }
}

impl Allocation {
    /// All that a pod asks for.
    pub fn of(pod: &Pod) -> Self {
        let granted = pod.all_containers().map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default()));
        Self { granted: granted.collect(), outgrown: ByContainer::new() }
    }

    /// What an earlier agent noted. A file that cannot be read is told of and counts as none.
    pub fn load(root: &Path, uid: &str) -> Option<Self> {
        let path = path(root, uid);
        let read = std::fs::read(&path);
        let parsed = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
        match parsed {
            Ok(allocation) => Some(allocation),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what a pod was granted cannot be read");
                None
            }
        }
    }

    /// Notes it for the next agent.
    pub fn save(&self, root: &Path, uid: &str) -> io::Result<()> {
        let path = path(root, uid);
        let fresh = path.with_extension("new");
        volume::ensure_dir(&volume::pod_dir(root, uid), 0o750)?;
        std::fs::write(&fresh, serde_json::to_vec(self)?)?;
        std::fs::rename(fresh, path)
    }

    /// Whether a pod asks for something else.
    pub fn differs_from(&self, pod: &Pod) -> bool {
        let granted = |container: &Container| self.granted.get(&container.name);
        pod.all_containers().any(|c| {
            granted(c).is_some_and(|granted| Change::between(Some(granted), c.resources.as_ref()).is_some())
        })
    }

    /// Makes the pod ask for what it was granted.
    pub fn put_into(&self, pod: &mut Pod) {
        let Some(spec) = &mut pod.spec else { return };
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(granted) = self.granted.get(&container.name) {
                container.resources = Some(granted.clone());
            }
        }
    }

    /// Grants a pod what it asks for. Containers that run have what they had until somebody changes it.
    pub fn grant(&mut self, pod: &Pod, is_running: impl Fn(&str) -> bool) {
        let before = std::mem::replace(&mut self.granted, Self::of(pod).granted);
        for (name, has) in before {
            if is_running(&name) {
                self.outgrown.entry(name).or_insert(has);
            }
        }
        self.outgrown.retain(|name, has| Change::between(Some(has), self.granted.get(name)).is_some());
    }

    /// What a container has instead of what it was granted.
    pub fn outgrown(&self, container: &str) -> Option<&ResourceRequirements> {
        self.outgrown.get(container)
    }

    /// What is to change of a container.
    pub fn change(&self, container: &str) -> Option<Change> {
        Change::between(Some(self.outgrown.get(container)?), self.granted.get(container))
    }

    /// Notes that a container has what it was granted. False when it had that before.
    pub fn applied(&mut self, container: &str) -> bool {
        self.outgrown.remove(container).is_some()
    }

    /// Makes the pod ask for what its containers have.
    pub fn put_outgrown_into(&self, pod: &mut Pod) {
        let had = Self { granted: self.outgrown.clone(), outgrown: ByContainer::new() };
        had.put_into(pod);
    }
}

fn path(root: &Path, uid: &str) -> PathBuf {
    volume::pod_dir(root, uid).join("resources.json")
}
