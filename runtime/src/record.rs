//! What is known of sandboxes and containers: the part that is on disk, and the part that changes.

use std::{net::IpAddr, path::PathBuf};

use k8s_cri::v1::{
    Container, ContainerConfig, ContainerState, ContainerStatus, ContainerUser, ImageSpec,
    LinuxContainerUser, LinuxPodSandboxStatus, Namespace, NamespaceMode, NamespaceOption, PodIp, PodSandbox,
    PodSandboxConfig, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use crate::{shim::protocol::Exit, spec::User};

/// A sandbox as it is on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub id: String,
    pub config: PodSandboxConfig,
    pub runtime_handler: String,
    pub created_at: i64,
    /// Absent when the pod uses the host's network.
    pub netns: Option<PathBuf>,
    pub addresses: Vec<IpAddr>,
    /// False until everything of it is up; one that a crash has left so was never told to anyone.
    pub complete: bool,
    pub stopped: bool,
}

#[derive(Debug)]
pub(crate) struct Sandbox {
    pub id: String,
    pub directory: PathBuf,
    pub record: RwLock<SandboxRecord>,
    /// The process that holds a shared process namespace.
    pub pause_pid: RwLock<Option<i32>>,
    /// Serialises what changes the sandbox as a whole.
    pub changing: Mutex<()>,
}

impl Sandbox {
    pub(crate) fn namespace_options(&self) -> NamespaceOption {
        let record = self.record.read();
        let security = record.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        security.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> PodSandboxState {
        if self.record.read().stopped {
            PodSandboxState::SandboxNotready
        } else {
            PodSandboxState::SandboxReady
        }
    }

    pub(crate) fn summary(&self) -> PodSandbox {
        let record = self.record.read();
        PodSandbox {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: self.state().into(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }

    pub(crate) fn status(&self) -> PodSandboxStatus {
        let options = self.namespace_options();
        let record = self.record.read();
        let mut addresses = record.addresses.iter().map(ToString::to_string);
        // A pod on the host's network has no address of its own.
        let ip = addresses.next().unwrap_or_default();
        let additional_ips = addresses.map(|ip| PodIp { ip }).collect();
        PodSandboxStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: self.state().into(),
            created_at: record.created_at,
            network: Some(PodSandboxNetworkStatus { ip, additional_ips }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }

    pub(crate) fn uses_host(&self, mode: impl Fn(&NamespaceOption) -> NamespaceMode) -> bool {
        mode(&self.namespace_options()) == NamespaceMode::Node
    }
}

/// A container as it is on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub id: String,
    pub sandbox_id: String,
    pub config: ContainerConfig,
    /// The image's identifier, and the name it goes by in status.
    pub image_id: String,
    pub image_ref: String,
    pub chains: Vec<String>,
    pub created_at: i64,
    pub log_path: Option<PathBuf>,
    pub cgroup: String,
    pub user: User,
    pub stop_signal: Option<String>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Running { pid: i32, started_at: i64 },
    Exited { started_at: i64, exit: Exit, message: String },
}

impl Phase {
    pub(crate) fn state(&self) -> ContainerState {
        match self {
            Self::Created => ContainerState::ContainerCreated,
            Self::Running { .. } => ContainerState::ContainerRunning,
            Self::Exited { .. } => ContainerState::ContainerExited,
        }
    }
}

#[derive(Debug)]
pub(crate) struct ContainerEntry {
    pub id: String,
    pub sandbox_id: String,
    pub directory: PathBuf,
    pub record: RwLock<ContainerRecord>,
    pub phase: watch::Sender<Phase>,
    /// Serialises what changes the container.
    pub changing: Mutex<()>,
}

impl ContainerEntry {
    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Where the root file system is mounted.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    pub(crate) fn summary(&self) -> Container {
        let record = self.record.read();
        Container {
            id: record.id.clone(),
            pod_sandbox_id: record.sandbox_id.clone(),
            metadata: record.config.metadata.clone(),
            image: record.config.image.clone(),
            image_ref: record.image_ref.clone(),
            state: self.phase().state().into(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            image_id: record.image_id.clone(),
        }
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        let record = self.record.read();
        let phase = self.phase();
        let mut status = ContainerStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: phase.state().into(),
            created_at: record.created_at,
            image: Some(status_image(&record)),
            image_ref: record.image_ref.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            mounts: record.config.mounts.clone(),
            log_path: record.log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            resources: record.config.linux.as_ref().map(|linux| k8s_cri::v1::ContainerResources {
                linux: linux.resources.clone(),
                windows: None,
            }),
            image_id: record.image_id.clone(),
            user: Some(ContainerUser {
                linux: Some(LinuxContainerUser {
                    uid: record.user.uid.into(),
                    gid: record.user.gid.into(),
                    supplemental_groups: record.user.groups.iter().map(|group| i64::from(*group)).collect(),
                }),
            }),
            ..ContainerStatus::default()
        };
        match phase {
            Phase::Created => {}
            Phase::Running { started_at, .. } => status.started_at = started_at,
            Phase::Exited { started_at, exit, message } => {
                status.started_at = started_at;
                status.finished_at = exit.at;
                status.exit_code = exit.code;
                status.reason = reason(&exit, &message).to_owned();
                status.message = message;
            }
        }
        status
    }
}

/// What the agent shows as the reason of an exit.
fn reason(exit: &Exit, message: &str) -> &'static str {
    if exit.oom_killed {
        "OOMKilled"
    } else if !message.is_empty() {
        "StartError"
    } else if exit.code == 0 {
        "Completed"
    } else {
        "Error"
    }
}

fn status_image(record: &ContainerRecord) -> ImageSpec {
    let mut image = record.config.image.clone().unwrap_or_default();
    // The name that the user gave says more than the identifier that the agent passes on.
    if !image.user_specified_image.is_empty() {
        image.image = image.user_specified_image.clone();
    }
    image
}
